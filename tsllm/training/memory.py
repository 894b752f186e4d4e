"""The memory that a model takes, estimated while it is built and compared with the machine's."""

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tsllm.errors import DeviceMemoryError

#: Copies of the weights that training holds: themselves, their gradients and two moments of Adam.
TRAINING_COPIES = 4
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# The calls of torch that allocate the memory of new tensors; their first argument is the shape.
_MAKE_TENSORS: set[Callable[..., Any]] = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.zeros.default,
    torch.ops.aten.ones.default,
    torch.ops.aten.full.default,
    torch.ops.aten.randn.default,
    torch.ops.aten.rand.default,
}


@contextmanager
def memory_estimated(
    device: torch.device, sizes: str, *, copies: int = TRAINING_COPIES
) -> Iterator[None]:
    """Check that the memory of a device holds the weights of a model before it is built.

    Parameters
    ----------
    device : torch.device
        Where the model will run.
    sizes : str
        The arguments that decide the size, for the message.
    copies : int, default=4
        Copies of the weights that will be held.

    Raises
    ------
    DeviceMemoryError
        Before the memory is allocated: the process would be killed instead.
    """
    with _Estimate(sizes, copies, memory_of(device), device):
        yield


def memory_of(device: torch.device) -> int:
    """Return the bytes of memory of a device; of a CPU, those that this process may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # the system does not tell
        whole = sys.maxsize
    limits = [path.read_text().strip() for path in _CGROUP_LIMITS if path.is_file()]
    return min([whole, *(int(limit) for limit in limits if limit.isdecimal())])


class _Estimate(TorchDispatchMode):
    """Adds up the sizes of new tensors, each before its memory is allocated."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: torch would import its compiler, and nothing is compiled here."""
        return False

    def __init__(self, sizes: str, copies: int, most: int, device: torch.device) -> None:
        super().__init__()
        self.sizes, self.copies, self.most, self.device = sizes, copies, most, device
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MAKE_TENSORS:
            dtype = kwargs.get("dtype") or torch.get_default_dtype()
            self.bytes += math.prod(args[0]) * dtype.itemsize
            if self.bytes * self.copies > self.most:
                raise DeviceMemoryError(
                    f"a model with {self.sizes} takes more than "
                    f"{self.bytes * self.copies / 2**30:,.0f} GiB, and {self.device} has "
                    f"{self.most / 2**30:,.0f} GiB: choose smaller lengths or layers"
                )
        return func(*args, **kwargs)
