"""Checkpoints of trainings: their content, and a directory that is replaced in one step."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tsllm.errors import DataError, ModelFormatError
from tsllm.training.randomness import RandomStream

FORMAT_VERSION = 1
_REMEDY = "continue with the same, or give another checkpoint directory, or remove this one"
# Arguments of estimators that change no weight.
_INDIFFERENT = frozenset({"checkpoint_dir", "device", "embedding_store", "verbose"})


def check_resumable(checkpoint_dir: str | Path | None, random_state: Any) -> None:
    """Check that a fit under `checkpoint_dir` draws the same when it is run again."""
    if checkpoint_dir is not None and not isinstance(random_state, int | np.integer):
        raise DataError(
            f"checkpoint_dir needs a whole number as random_state, found {random_state!r}: without "
            "one a fit that is run again draws other numbers; give random_state=0"
        )


def describe_fit(estimator: Any, backbone_digest: str | None, *data: Any) -> dict[str, Any]:
    """Return the facts that tell an estimator's fit from others.

    Facts are its class, the parameters that decide its weights, the hash of the language model, and
    the data that it learns from, where the training sets do not describe all of them.
    """
    facts = {"estimator": type(estimator).__name__}
    for name, value in sorted(estimator.get_params(deep=False).items()):
        if name not in _INDIFFERENT:
            array = isinstance(value, np.ndarray) or hasattr(value, "to_numpy")
            facts[name] = digest(np.asarray(value)) if array else value
    described = {"data": digest(*data)} if data else {}
    return {**facts, "backbone_weights": backbone_digest, **described}


def digest(*data: Any) -> str:
    """Hash arrays, tensors and other values with a representation of their own."""
    found = hashlib.sha256()
    for one in data:
        if isinstance(one, Tensor):
            one = one.detach().cpu().numpy()
        if isinstance(one, np.ndarray) and one.dtype != object:
            found.update(f"{one.dtype} {one.shape}".encode())
            found.update(one.tobytes())
        else:
            found.update(repr(one.tolist() if isinstance(one, np.ndarray) else one).encode())
    return found.hexdigest()


def check_same_training(
    written: Mapping[str, Any], now: Mapping[str, Any], directory: Path
) -> None:
    """Check that a checkpoint is one of this training."""
    for name in [*now, *written]:
        if written.get(name) == now.get(name):
            continue
        if name.endswith("data"):
            raise ModelFormatError(
                f"the checkpoint in {directory} was written with other {name.replace('_', ' ')}; "
                f"{_REMEDY}"
            )
        raise ModelFormatError(
            f"the checkpoint in {directory} was written with {name}={written.get(name)}, this "
            f"training has {now.get(name)}; {_REMEDY}"
        )


def remove_checkpoints(directory: str | Path) -> None:
    """Remove the checkpoints in a directory and its ``slice-*`` folders; other files are kept."""
    folder = Path(directory)
    for part in (*folder.glob("slice-*"), folder):
        for path in (*part.glob("state-*.safetensors*"), *part.glob("state.json*")):
            path.unlink()
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()


def save_checkpoint(
    directory: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write a checkpoint that replaces the one in `directory`.

    The tensors go to a new file that is named after its content. Then ``state.json``, which names
    that file, is replaced in one step. A kill in between leaves the former checkpoint as it was.
    The directory is made where it is missing. Tensors may lie on any device and share memory; the
    facts are JSON values.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # safetensors does not accept tensors that share memory, such as tied weights.
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


def load_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the checkpoint that `directory` holds; None where there is none.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.
    facts : dict
    """
    try:
        state = json.loads((directory / "state.json").read_bytes())
        version = state["format_version"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(directory, "state.json is not a checkpoint's") from error
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"the checkpoint in {directory} has format version {version}, this tsllm reads version "
            f"{FORMAT_VERSION}; continue with the tsllm that wrote it, or remove the directory to "
            "train anew"
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
    """Collect all tensors that a training needs to continue under one set of names."""
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
    """Restore what `collect_tensors` collected, and return the best trainable state so far."""
    weights, own = _part("model.", tensors), trainable_state(model)
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in own.items()}:
        raise ModelFormatError(
            f"the checkpoint in {directory} is of another model: its weights have other names or "
            f"shapes; {_REMEDY}"
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
    """Return the parameters that require a gradient, and buffers, by their name.

    The tensors share the model's memory.
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
    """Build the error of a damaged checkpoint."""
    return ModelFormatError(
        f"the checkpoint in {directory} is damaged: {reason}; remove the directory to train anew"
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file in one step, even if the power fails."""
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add a prefix to each name."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors with a prefix, and remove the prefix."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
