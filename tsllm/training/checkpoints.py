"""Checkpoints of trainings: their content, and a directory that is replaced in one step."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tsllm.errors import DataError, ModelFormatError
from tsllm.saving.directory import LARGEST_CONFIG, read_file
from tsllm.training.randomness import RandomStream

FORMAT_VERSION = 1
_REMEDY = "continue with the same, or give another checkpoint directory, or remove this one"
_TENSORS = re.compile(r"state-[0-9a-f]{16}\.safetensors(\.part)?")
_STATE = re.compile(r"state\.json(\.part)?")
# Arguments of estimators that change no weight.
_INDIFFERENT = frozenset({"checkpoint_dir", "device", "embedding_store", "verbose"})


def check_resumable(checkpoint_dir: str | Path | None, random_state: Any) -> None:
    """Check that a fit under `checkpoint_dir` draws the same when it is run again."""
    if checkpoint_dir is None:
        return
    if not isinstance(checkpoint_dir, str | os.PathLike) or not os.fspath(checkpoint_dir):
        raise DataError(
            f"checkpoint_dir must be the path of a directory or None, found {checkpoint_dir!r}"
        )
    if not isinstance(random_state, int | np.integer):
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
            facts[name] = _plain(value)
    described = {"data": digest(*data)} if data else {}
    return {**facts, "backbone_weights": backbone_digest, **described}


def _plain(value: Any) -> Any:
    """Return the JSON value of an argument; an array becomes its digest."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | Tensor) or hasattr(value, "to_numpy"):
        return digest(value if isinstance(value, Tensor) else np.asarray(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


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
        if name.endswith(("data", "weights")):
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
        own = [path for path in part.glob("state*") if _TENSORS.fullmatch(path.name)]
        for path in (*own, *(path for path in part.glob("state*") if _STATE.fullmatch(path.name))):
            path.unlink()
        if part.is_dir() and not any(part.iterdir()):
            part.rmdir()


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Make a checkpoint directory and keep other trainings away from it.

    The lock is the process's: it ends with it. Without locks of files (Windows, some network file
    systems) others are not kept away.

    Raises
    ------
    DataError
        The directory cannot be made or written to, or another training uses it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(directory, error) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _unwritable(directory, "no permission")
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise DataError(
            f"another training writes to the checkpoint directory {directory}: give each fit its "
            "own directory, or wait until the other has ended"
        ) from error
    except OSError:
        pass  # no locks here
    try:
        yield
    finally:
        os.close(lock)


def save_checkpoint(
    directory: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write a checkpoint that replaces the one in `directory`.

    The tensors go to a new file that is named after its content. Then ``state.json``, which names
    that file, is replaced in one step. A kill in between leaves the former checkpoint as it was.
    The directory is made where it is missing. Tensors may lie on any device and share memory; the
    facts are JSON values.
    """
    # safetensors does not accept tensors that share memory, such as tied weights.
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    )
    digest = hashlib.sha256(content).hexdigest()
    name = f"state-{digest[:16]}.safetensors"
    state: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "tensors": name,
        "sha256": digest,
        "facts": facts,
    }
    state["checksum"] = _checksum(state)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / name, content)
        _write(directory / "state.json", json.dumps(state, indent=1).encode())
        for former in directory.glob("state-*"):
            if former.name != name and _TENSORS.fullmatch(former.name):
                former.unlink()
    except OSError as error:
        raise _unwritable(directory, error) from error


def load_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the checkpoint that `directory` holds; None where there is none.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.
    facts : dict
    """
    try:
        state = json.loads(read_file(directory / "state.json", largest=LARGEST_CONFIG))
        version = state["format_version"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _damaged(directory, f"state.json cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFormatError(
            f"the checkpoint in {directory} is damaged: state.json is not a checkpoint's; give "
            "another checkpoint directory, or remove this file to train anew"
        ) from error
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"the checkpoint in {directory} has format version {version}, this tsllm reads version "
            f"{FORMAT_VERSION}; continue with the tsllm that wrote it, or remove the directory to "
            "train anew"
        )
    if state.get("checksum") != _checksum(state):
        raise _damaged(directory, "state.json is not as it was written")
    try:
        content = read_file(directory / state["tensors"], largest=sys.maxsize)
    except FileNotFoundError as error:
        raise _damaged(directory, f"{state['tensors']} is missing") from error
    except OSError as error:
        reason = f"{state['tensors']} cannot be read ({error.strerror})"
        raise _damaged(directory, reason) from error
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


def _unwritable(directory: Path, error: OSError | str) -> DataError:
    """Build the error of a directory that takes no checkpoint."""
    reason = error if isinstance(error, str) else error.strerror
    return DataError(
        f"checkpoints cannot be written to {directory} ({reason}): give a directory that can be "
        "written to, with space left"
    )


def _checksum(state: Mapping[str, Any]) -> str:
    """Hash everything in state.json but the hash."""
    rest = {name: value for name, value in state.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


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
