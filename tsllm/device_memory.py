"""Out of memory on a device: which settings need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tsllm.errors import DeviceMemoryError


@contextmanager
def memory_errors_explained(device: torch.device, doing: str, batch_size: int) -> Iterator[None]:
    """Turn a device's out-of-memory error into one that says what needs less.

    Parameters
    ----------
    device : torch.device
        Where the block computes.
    doing : str
        What it does, for the message: "training", "forecasting".
    batch_size : int
        The batch size in use.

    Raises
    ------
    DeviceMemoryError
        In place of torch's error, which stays its cause.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"{device} ran out of memory in {doing} with batch_size={batch_size}; lower "
            "batch_size, keep fewer layers of the language model (backbone_layers), or compute in "
            "a smaller type (dtype='bfloat16')"
        ) from error
