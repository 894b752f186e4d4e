"""``tsllm datasets`` and ``tsllm backbones``: lists of data sets and language models."""

import json as json_module
from pathlib import Path
from typing import Any

from tsllm.cli import options
from tsllm.cli.output import print_json, print_table, say


def datasets(json: options.Json = False) -> None:
    """List the data sets that DATA may name, with licence, size and place."""
    from tsllm.datasets import describe_benchmarks, list_datasets

    bundled = list_datasets().assign(found="bundled").to_dict("records")
    benchmarks = describe_benchmarks().to_dict("records")
    rows: list[dict[str, Any]] = [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in [*bundled, *benchmarks]
    ]
    if json:
        print_json(rows)
        return
    for row in rows:
        row["found"] = row["found"] or "not here"
    print_table(rows)
    if any(row["found"] == "not here" for row in rows):
        say("missing ones are downloaded at their first use, or read from the folder TSLLM_DATA")


def backbones(json: options.Json = False) -> None:
    """List the language models on this machine, and where the default one was looked for.

    Nothing is downloaded.
    """
    from tsllm.backbone import DEFAULT_BACKBONE
    from tsllm.backbone.architectures import ARCHITECTURES
    from tsllm.backbone.sources import find_sources

    looked: list[str] = []
    found = [source.words for source in find_sources(DEFAULT_BACKBONE, None, False, looked)]
    cached = cached_models()
    if json:
        default = {"name": DEFAULT_BACKBONE, "found": found, "looked_at": looked}
        print_json({"default": default, "architectures": list(ARCHITECTURES), "cached": cached})
        return
    print(f"default: {DEFAULT_BACKBONE}")
    for words in found:
        print(f"  found: {words}")
    for words in looked:
        print(f"  not found: {words}")
    print(f"architectures: {', '.join(ARCHITECTURES)}")
    print("in the Hugging Face cache:" if cached else "in the Hugging Face cache: no models")
    if cached:
        print_table(cached)


def cached_models() -> list[dict[str, Any]]:
    """List the models in the Hugging Face cache, and whether tsllm runs their architecture."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    from tsllm.backbone.architectures import ARCHITECTURES

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return []
    rows = []
    for repo in sorted(cache.repos, key=lambda repo: repo.repo_id):
        if repo.repo_type == "model":
            architecture = _architecture([one.snapshot_path for one in repo.revisions])
            rows.append(
                {
                    "name": repo.repo_id,
                    "architecture": architecture,
                    "supported": architecture in ARCHITECTURES,
                    "size": repo.size_on_disk_str,
                }
            )
    return rows


def _architecture(snapshots: list[Path]) -> str | None:
    """Read the architecture of a cached model; None where no revision names one."""
    for folder in snapshots:
        try:
            config = json_module.loads((folder / "config.json").read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(config, dict) and isinstance(config.get("model_type"), str):
            return str(config["model_type"])
    return None
