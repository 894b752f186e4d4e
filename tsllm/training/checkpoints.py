"""Checkpoints of a training under way: what they hold, and one directory replaced atomically."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tsllm.errors import ModelFormatError
from tsllm.training.randomness import RandomStream

FORMAT_VERSION = 1


def save_checkpoint(
    directory: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write a checkpoint, in place of the one that `directory` may hold.

    The tensors go to a new file that is named after its content, then ``state.json``, which names
    that file, is replaced in one step. Whoever is killed in between leaves the former checkpoint
    as it was.

    Parameters
    ----------
    directory : Path
        Made where it is missing. It holds one checkpoint.
    tensors : mapping of str to Tensor
        On any device; they may share memory.
    facts : mapping
        What JSON can hold.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share memory, such as tied weights.
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )
    digest = hashlib.sha256(content).hexdigest()
    name = f"state-{digest[:16]}.safetensors"
    _write(directory / name, content)
    state = {"format_version": FORMAT_VERSION, "tensors": name, "sha256": digest, "facts": facts}
    _write(directory / "state.json", json.dumps(state, indent=1).encode())
    for former in directory.glob("state-*.safetensors*"):
        if former.name != name:
            former.unlink()


def load_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the checkpoint that `directory` holds.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.
    facts : dict

    Raises
    ------
    ModelFormatError
        There is no checkpoint, or it is damaged or of another format version.
    """
    try:
        state = json.loads((directory / "state.json").read_bytes())
        version = state["format_version"]
    except FileNotFoundError as error:
        raise ModelFormatError(
            f"{directory} holds no checkpoint (no state.json); give the directory that was "
            "checkpoint_dir, or train without resume_from"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(directory, "state.json is not a checkpoint's") from error
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"the checkpoint in {directory} has format version {version}, this tsllm reads version "
            f"{FORMAT_VERSION}; resume with the tsllm that wrote it, or train anew"
        )
    try:
        content = (directory / state["tensors"]).read_bytes()
    except FileNotFoundError as error:
        raise _damaged(directory, f"{state['tensors']} is missing") from error
    if hashlib.sha256(content).hexdigest() != state["sha256"]:
        raise _damaged(directory, f"{state['tensors']} is not as it was written")
    return safetensors.torch.load(content), state["facts"]


def collect_tensors(
    model: nn.Module, best: Mapping[str, Tensor], optimizer: Optimizer, stream: RandomStream
) -> dict[str, Tensor]:
    """Put all that a training needs to continue under one set of names.

    Parameters
    ----------
    model : nn.Module
    best : mapping of str to Tensor
        The best trainable state so far; empty before there is one.
    optimizer : Optimizer
        Its moments are saved.
    stream : RandomStream
        Its place is saved.

    Returns
    -------
    dict of str to Tensor
    """
    tensors = {
        **_named("model.", trainable_state(model)),
        **_named("best.", best),
        **_named("random.", stream.state_dict()),
    }
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= _named(f"optimizer.{index}.", moments)
    return tensors


def spread_tensors(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    optimizer: Optimizer,
    stream: RandomStream,
    directory: Path,
) -> dict[str, Tensor]:
    """Put what `collect_tensors` collected back in place.

    Returns
    -------
    dict of str to Tensor
        The best trainable state so far.

    Raises
    ------
    ModelFormatError
        The tensors are another model's; `directory` is where the message says they come from.
    """
    weights, own = _part("model.", tensors), trainable_state(model)
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in own.items()}:
        raise ModelFormatError(
            f"the checkpoint in {directory} is of another model: its weights have other names or "
            "shapes; resume with the model that it was written with, or train anew without "
            "resume_from"
        )
    overwrite(own, weights)
    stream.load_state_dict(_part("random.", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _part("optimizer.", tensors).items():
        index, key = name.split(".")
        moments.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
    return {name: value.to(own[name].device) for name, value in _part("best.", tensors).items()}


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: the model's state without the parameters that are frozen.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    dict of str to Tensor
        Parameters that require a gradient, and buffers, by their name in ``model.state_dict()``.
        They share the model's memory.
    """
    frozen = {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def overwrite(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into tensors of the same names."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])


def _damaged(directory: Path, reason: str) -> ModelFormatError:
    """Build the error of a checkpoint that cannot be trusted."""
    return ModelFormatError(
        f"the checkpoint in {directory} is damaged: {reason}; train anew without resume_from"
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut."""
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a prefix before each name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick the tensors with a prefix, and take it off."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
