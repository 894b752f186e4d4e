"""Training on several devices: each process takes its part of every batch, the sums are shared.

A launcher starts the same command once a device::

    accelerate launch --multi_gpu --num_processes 2 -m tsllm.cli fit DATA --out MODEL_DIR
    torchrun --nproc-per-node 2 -m tsllm.cli fit DATA --out MODEL_DIR

``batch_size`` is that of all processes together, so that the steps, and but for rounding and
dropout the losses, are those of one process. Nothing happens unless `join` is called, as the
command line does: what a launcher leaves in the environment is none of the library's business.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tsllm.errors import DataError
from tsllm.training.settings import Loss


@dataclass(frozen=True)
class World:
    """The processes that train together: how many, and which of them this one is."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0


_world = World()


def world() -> World:
    """Tell which processes train together; a process that joined none is alone."""
    return _world


def join() -> World:
    """Train together with the processes that a launcher started with this one, if it did.

    On CUDA each process uses the device of its number on its machine.

    Returns
    -------
    World

    Raises
    ------
    DataError
        There are more processes on this machine than CUDA devices.
    """
    global _world
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and _world.size == 1:
        from accelerate import PartialState

        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if devices and local >= devices:
            raise DataError(
                f"the launcher started {local + 1} processes or more on this machine, which has "
                f"{devices} CUDA devices: start one a device"
            )
        state = PartialState(cpu=not devices)
        _world = World(state.process_index, state.num_processes)
    return _world


def leave() -> None:
    """End training together, when all processes are here."""
    global _world
    if _world.size > 1:
        dist.barrier()
        dist.destroy_process_group()
        _world = World()


def agreed_seed() -> int:
    """Draw a seed that is the same in all processes."""
    return int(sums([float(secrets.randbelow(2**31)) if _world.leads else 0.0])[0])


def share(indices: Tensor) -> tuple[Tensor, float]:
    """Take this process's part of a batch.

    Parameters
    ----------
    indices : Tensor (windows,)
        Of the whole batch.

    Returns
    -------
    Tensor
        The part. Where there are fewer windows than processes, some take one that is another's:
        they must not wait while the others compute together.
    float
        What the part counts: 1, or 0 where it is another's.
    """
    if _world.size == 1:
        return indices, 1.0
    mine = indices[_world.rank :: _world.size]
    return (mine, 1.0) if len(mine) else (indices[:1], 0.0)


def counted(loss: Loss, weight: float) -> Loss:
    """Count a loss only so much."""
    if weight == 1.0:
        return loss
    return Loss(loss.total * weight, loss.count * weight, loss.extras)


def everywhere(count: Tensor) -> Tensor:
    """Add up a number over all processes."""
    if _world.size == 1:
        return count
    together = count.detach().double()  # a count may be whole in one process and not in another
    dist.all_reduce(together)
    return together


def sums(numbers: Sequence[float]) -> list[float]:
    """Add up numbers over all processes."""
    if _world.size == 1:
        return list(numbers)
    together = torch.tensor(numbers, dtype=torch.float64, device=_device())
    dist.all_reduce(together)
    return together.tolist()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients over all processes."""
    if _world.size == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # unused in this part of the batch
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)


def same_weights(parameters: Iterable[nn.Parameter]) -> None:
    """Start from the first process's weights."""
    if _world.size > 1:
        for parameter in parameters:
            dist.broadcast(parameter.data, 0)


def _device() -> torch.device:
    """Say where numbers must be to be added up."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
