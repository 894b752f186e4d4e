"""Training on several devices: each process takes its part of every batch, and sums are shared.

A launcher starts the same command once per device::

    accelerate launch --multi_gpu --num_processes 2 -m tsllm.cli fit DATA --out MODEL_DIR
    torchrun --nproc-per-node 2 -m tsllm.cli fit DATA --out MODEL_DIR

``batch_size`` counts the windows of all processes together. The steps are those of one process, and
so are the losses, up to rounding and dropout. Only `join`, which the command line calls, reads the
launcher's environment.
"""

import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tsllm.errors import DataError
from tsllm.training.settings import Loss


@dataclass(frozen=True)
class World:
    """The number of processes that train together, and the number of this one."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Return True in the process that prints and writes."""
        return self.rank == 0


_world = World()


def world() -> World:
    """Return the processes that train together; a process that joined none is alone."""
    return _world


def join() -> World:
    """Join the processes that a launcher started with this one, if it did.

    On CUDA a process uses the device with its own number on its machine.
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
    """Finish the common training, when all processes are here."""
    global _world
    if _world.size > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
        PartialState().destroy_process_group()
        _world = World()


def agreed_seed() -> int:
    """Draw a seed that is the same in all processes."""
    return int(sums([float(secrets.randbelow(2**31)) if _world.leads else 0.0])[0])


def share(indices: Tensor) -> tuple[Tensor, float]:
    """Return this process's part of a batch.

    Returns
    -------
    Tensor
        The part. With fewer windows than processes some processes get the window of another: all
        must compute something at each step.
    float
        The weight of the part: 1, or 0 where it belongs to another process.
    """
    if _world.size == 1:
        return indices, 1.0
    mine = indices[_world.rank :: _world.size]
    return (mine, 1.0) if len(mine) else (indices[:1], 0.0)


def weighted(loss: Loss, weight: float) -> Loss:
    """Scale the sum and the count of a loss."""
    if weight == 1.0:
        return loss
    return Loss(loss.total * weight, loss.count * weight, loss.extras)


def everywhere(count: Tensor) -> Tensor:
    """Add up a number over all processes."""
    if _world.size == 1:
        return count
    # A count may be an integer in one process and not in another.
    return _sum(count.detach().double())


def sums(numbers: Sequence[float]) -> list[float]:
    """Add up numbers over all processes."""
    if _world.size == 1:
        return list(numbers)
    from accelerate import PartialState

    together = torch.tensor(numbers, dtype=torch.float64, device=PartialState().device)
    return _sum(together).tolist()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients over all processes."""
    if _world.size > 1:
        for parameter in parameters:
            # No gradient: the parameter is unused in this part of the batch.
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = _sum(gradient)


def same_weights(parameters: Iterable[nn.Parameter]) -> None:
    """Start from the first process's weights."""
    if _world.size > 1:
        from accelerate.utils import broadcast

        broadcast([parameter.data for parameter in parameters])


def _sum(tensor: Tensor) -> Tensor:
    """Add up a tensor over all processes."""
    from accelerate.utils import reduce

    summed: Tensor = reduce(tensor, "sum")
    return summed
