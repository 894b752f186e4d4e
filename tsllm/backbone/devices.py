"""Devices, their precision and their memory."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path

import torch

from tsllm.errors import DataError, DeviceMemoryError

_AUTOCAST: ContextVar[torch.dtype | None] = ContextVar("tsllm_backbone_autocast", default=None)
# Of control groups of Linux, second version: microseconds of processors in a period.
_PROCESSOR_QUOTA = Path("/sys/fs/cgroup/cpu.max")
#: The names of dtypes with quantised weights.
QUANTISED = ("int8", "int4")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def usable_processors() -> int:
    """Count the processors that this process may use, in a container too.

    Examples
    --------
    >>> usable_processors() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        number = len(os.sched_getaffinity(0))
    else:
        number = os.cpu_count() or 1
    try:
        quota, period = _PROCESSOR_QUOTA.read_text().split()
        return max(1, min(number, int(quota) // int(period)))
    except (OSError, ValueError):  # not Linux, or no limit ("max")
        return number


def resolve_device(device: str) -> torch.device:
    """Resolve ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` to a device of this machine.

    ``"auto"`` is the current CUDA device where there is one, else the CPU. A CUDA device always has
    its number, so that equal devices compare equal.

    Raises
    ------
    DataError
        Any other name, or a CUDA device that this machine does not have.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except RuntimeError:
        wanted = torch.device("meta")
    if wanted.type not in ("cpu", "cuda"):
        raise DataError(
            f"device={device!r} is not known; use 'auto', 'cpu', 'cuda' or 'cuda:<number>'."
        )
    if wanted.type == "cpu":
        return torch.device("cpu")
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if present == 0:
        raise DataError(
            f"device={device!r} was asked for, but this machine has no usable CUDA device; "
            "use device='auto' or device='cpu'."
        )
    number = torch.cuda.current_device() if wanted.index is None else wanted.index
    if number >= present:
        raise DataError(
            f"device={device!r} was asked for, but the CUDA devices here are 0 to {present - 1}."
        )
    return torch.device("cuda", number)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Resolve a dtype's name; ``"auto"`` is bfloat16 on CUDA and float32 on a CPU."""
    if dtype == "auto":
        on_cuda = device.type == "cuda" and native_bfloat16(device)
        return torch.bfloat16 if on_cuda else torch.float32
    if dtype not in _DTYPES:
        raise DataError(
            f"dtype={dtype!r} is not known; use 'auto', 'float32', 'bfloat16', "
            "or on CUDA 'int8' or 'int4'."
        )
    return _DTYPES[dtype]


def quantisation_of(dtype: str, device: torch.device) -> str | None:
    """Return "int8" or "int4" where a dtype's name asks for it, else None.

    Raises
    ------
    DataError
        The device is a CPU, where 8 bits save little time and turn the embeddings of texts.
    ImportError
        bitsandbytes is not installed.
    """
    if dtype not in QUANTISED:
        return None
    if device.type != "cuda":
        raise DataError(
            f"dtype={dtype!r} needs a CUDA device, and the device is {str(device)!r}: use "
            "dtype='float32' or 'bfloat16', or fewer layers (backbone_layers)."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError(f"dtype={dtype!r} needs bitsandbytes: pip install 'tsllm[quant]'")
    return dtype


def native_bfloat16(device: torch.device) -> bool:
    """Return True where a device multiplies bfloat16 in hardware (a CPU by AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # An old torch cannot tell; float32 is slower there, but never wrong.
        if not hasattr(torch.cpu, "get_capabilities"):
            return False
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


@contextmanager
def autocast_backbone(dtype: torch.dtype | None) -> Iterator[None]:
    """Run the language model, and only it, under ``torch.autocast`` inside this block.

    Heads, losses and normalisation around the backbone keep their own precision. The setting is a
    context variable, so trainings in two threads do not disturb each other. None: no autocast.
    """
    token = _AUTOCAST.set(dtype)
    try:
        yield
    finally:
        _AUTOCAST.reset(token)


def backbone_autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return the autocast region of weights of this dtype at the moment."""
    wanted = _AUTOCAST.get()
    if wanted is None or wanted == dtype:
        return nullcontext()
    return torch.autocast(device.type, dtype=wanted)


@contextmanager
def memory_errors_explained(device: torch.device, doing: str, batch_size: int) -> Iterator[None]:
    """Replace an out-of-memory error in "training" or "forecasting" by one with the remedies.

    Raises
    ------
    DeviceMemoryError
        In place of torch's error, which stays its cause.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # The allocator of a CPU raises a plain RuntimeError.
        on_cpu = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        if not on_cpu and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise DeviceMemoryError(
            f"{device} ran out of memory in {doing} with batch_size={batch_size}; lower "
            "batch_size or context_length, keep fewer layers of the language model "
            "(backbone_layers), or hold the language model in a smaller type (dtype='bfloat16', on "
            "CUDA also 'int8' or 'int4')"
        ) from error
