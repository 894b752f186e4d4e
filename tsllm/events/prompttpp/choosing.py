"""What a later slice changes of PromptTPP: nothing, a prompt slot, or the whole network."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.events.batching import EventWindows
from tsllm.training.settings import TrainingResult

#: What a change must bring, in nats an event.
LEAST_GAIN = 0.005


class Candidate(NamedTuple):
    """A model that a slice may leave behind."""

    model: PromptTPPModel
    #: The slots that the slice opened.
    slots: list[int]
    #: None: nothing was trained.
    result: TrainingResult | None
    #: Nats an event on the slice, and on each earlier slice.
    losses: Mapping[int, float]
    #: What opening the slots warned of.
    warnings: tuple[str, ...] = ()


@torch.no_grad()
def mean_loss(
    model: PromptTPPModel,
    rows: EventWindows,
    batch_size: int,
    device: torch.device,
    slots: Sequence[int] | None = None,
) -> float:
    """Compute the mean loss of rows, in nats an event; NaN where nothing is scored."""
    total = count = 0.0
    model.eval()
    for indices in rows.batches(batch_size, None):
        batch = rows.gather(indices).to(device)
        own, events, _ = model.loss(batch, slots)
        total, count = total + float(own), count + float(events)
    return total / count if count else float("nan")


def choose(candidates: Mapping[str, Candidate], best: Mapping[int, float]) -> str:
    """Choose the candidate of least mean loss over all slices, where forgetting counts twice.

    ``best`` holds the lowest loss so far of each earlier slice. The model stays as it is where a
    change brings less than `LEAST_GAIN`.
    """

    def cost(name: str) -> float:
        losses = candidates[name].losses
        forgotten = [max(0.0, losses[at] - best[at]) for at in best if at in losses]
        return float(np.mean(list(losses.values()))) + sum(forgotten) / max(1, len(forgotten))

    costs = {name: cost(name) for name in candidates}
    least = min(costs, key=lambda name: costs[name])
    return least if costs[least] < costs["nothing"] - LEAST_GAIN else "nothing"


class JoinedRows:
    """Several sets of rows as one training set; a batch holds rows of one of them.

    Parameters
    ----------
    sets : sequence of EventWindows
    repeats : sequence of int
        How often an epoch reads each.
    """

    def __init__(self, sets: Sequence[EventWindows], repeats: Sequence[int]) -> None:
        self.sets, self.repeats = list(sets), list(repeats)
        self.starts = np.concatenate([[0], np.cumsum([len(one) for one in self.sets])])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def gather(self, indices: Tensor) -> EventBatch:
        """Make the batch of rows that `batches` returned together."""
        which = int(np.searchsorted(self.starts, int(indices[0]), "right")) - 1
        return self.sets[which].gather(indices - int(self.starts[which]))

    def batches(self, batch_size: int, generator: torch.Generator | None) -> list[Tensor]:
        """Split the rows into batches of similar length, those of all sets in random order."""
        found = [
            batch + int(start)
            for one, start, repeats in zip(self.sets, self.starts, self.repeats)
            for _ in range(repeats if generator is not None else 1)
            for batch in one.batches(batch_size, generator)
        ]
        if generator is None:
            return found
        return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]

    def fingerprint(self) -> dict[str, Any]:
        """Return the facts that identify the sets, for training checkpoints."""
        return {
            f"{number} {name}": value
            for number, one in enumerate(self.sets)
            for name, value in one.fingerprint().items()
        } | {"repeats": self.repeats}
