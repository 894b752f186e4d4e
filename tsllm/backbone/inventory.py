"""The language models on this machine, listed without loading them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub

from tsllm.backbone.architectures import ARCHITECTURES
from tsllm.backbone.packaged import PACKAGES, SMOLLM2, find_installed
from tsllm.backbone.prepared import Origin, find_prepared, prepared_directories, read_origin
from tsllm.errors import BackboneNotFoundError

# Identifiers of licences that allow commercial use without further conditions on the user.
_FREE = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0"),
    *("cc-by-sa-4.0", "unlicense", "mpl-2.0"),
}
_WIDTHS, _LAYERS = ("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer")


class Model(NamedTuple):
    """One language model on this machine."""

    name: str  # for ``backbone=``
    place: str
    architecture: str | None
    supported: bool
    weights: str  # such as "quantised: Q4_1, Q8_0"
    mb: float
    width: int | None
    layers: int | None
    licence: str | None  # as the model's files say
    commercial_use: str


def commercial_use(licence: str | None) -> str:
    """Return whether a licence allows commercial use, as far as its identifier says.

    Examples
    --------
    >>> commercial_use("apache-2.0"), commercial_use("cc-by-nc-4.0"), commercial_use("gemma")
    ('yes', 'no', 'see the licence')
    """
    if licence is None:
        return "the files do not say"
    known = licence.lower()
    if known in _FREE:
        return "yes"
    return "no" if "nc" in known.split("-") else "see the licence"


def find_models() -> list[Model]:
    """List the models in the offline packages, unpacked from GGUF files, and in the hub's cache.

    Nothing is downloaded, unpacked or loaded.
    """
    return [*_packaged(), *_unpacked(), *_cached()]


def _packaged() -> Iterator[Model]:
    """Yield the models of the installed packages whose weights are not unpacked elsewhere."""
    for name, package in PACKAGES.items():
        if find_prepared(package.sha256) is not None:
            continue
        try:
            weights = find_installed(package)
        except BackboneNotFoundError:
            continue
        place = f"package {package.name}"
        if name == SMOLLM2:
            yield _packed(name, place, weights)
        else:
            yield _model(name, place, weights.parent)


def _packed(name: str, place: str, weights: Path) -> Model:
    """Describe SmolLM2 before its file is unpacked, from known facts: reading it takes seconds."""
    size, licence = weights.stat().st_size / 1e6, "apache-2.0"
    return Model(
        name,
        f"{place}, not unpacked yet",
        "llama",
        True,
        "quantised: Q4_1, Q8_0",
        size,
        576,
        30,
        licence,
        commercial_use(licence),
    )


def _unpacked() -> Iterator[Model]:
    """Yield the models in the cache of unpacked GGUF files."""
    for directory, origin in prepared_directories():
        name = SMOLLM2 if origin.sha256 == PACKAGES[SMOLLM2].sha256 else str(directory)
        yield _model(name, f"unpacked from {origin.file}", directory)


def _cached() -> Iterator[Model]:
    """Yield the models in the Hugging Face cache."""
    try:
        cache = huggingface_hub.scan_cache_dir()
    except huggingface_hub.CacheNotFound:
        return
    for repo in sorted(cache.repos, key=lambda repo: repo.repo_id):
        snapshots = [revision.snapshot_path for revision in repo.revisions]
        if repo.repo_type == "model" and snapshots:
            best = next((one for one in snapshots if _config(one)), snapshots[0])
            found = _model(repo.repo_id, "Hugging Face cache", best)
            yield found._replace(mb=repo.size_on_disk / 1e6)


def _model(name: str, place: str, directory: Path) -> Model:
    """Describe the model in a directory."""
    config, origin = _config(directory), read_origin(directory)
    architecture = config.get("model_type")
    licence = _licence(directory, origin)
    files = directory.glob("*.safetensors")
    return Model(
        name,
        place,
        architecture if isinstance(architecture, str) else None,
        architecture in ARCHITECTURES,
        _weights(config, origin),
        sum(file.stat().st_size for file in files) / 1e6,
        _first(config, _WIDTHS),
        _first(config, _LAYERS),
        licence,
        commercial_use(licence),
    )


def _weights(config: dict[str, Any], origin: Origin | None) -> str:
    """Describe how the weights are stored."""
    if origin is not None and origin.quantisation is not None:
        return f"quantised: {origin.quantisation}"
    if "quantization_config" in config:
        return "quantised: not supported"
    return str(config.get("dtype") or config.get("torch_dtype") or "not quantised")


def _config(directory: Path) -> dict[str, Any]:
    """Read a model's config; empty where there is none."""
    try:
        config = json.loads((directory / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _licence(directory: Path, origin: Origin | None) -> str | None:
    """Read the licence from the GGUF file's metadata or the head of the model's README."""
    if origin is not None:
        return origin.licence
    try:
        readme = (directory / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head = re.match(r"---\r?\n(.*?)\r?\n---", readme, re.DOTALL)
    found = re.search(r"^license:[ \t]*[\"']?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else None


def _first(config: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the first whole number among some entries."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)
