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


class Losses(NamedTuple):
    """The losses of a model on the intervals between some events."""

    #: (intervals,): in nats, in the order of the rows.
    intervals: np.ndarray
    #: The intervals that end in an event.
    events: int

    @property
    def mean(self) -> float:
        """Compute the mean loss in nats an event; NaN where nothing is scored."""
        return float(self.intervals.sum() / self.events) if self.events else float("nan")


class Candidate(NamedTuple):
    """A model that a slice may leave behind."""

    model: PromptTPPModel
    #: The slots that the slice opened.
    slots: list[int]
    #: None: nothing was trained.
    result: TrainingResult | None
    #: Those on the slice, and on each earlier slice.
    losses: Mapping[int, Losses]
    #: What opening the slots warned of.
    warnings: tuple[str, ...] = ()


@torch.no_grad()
def measure(
    model: PromptTPPModel,
    rows: EventWindows,
    batch_size: int,
    device: torch.device,
    slots: Sequence[int] | None = None,
) -> Losses:
    """Compute the losses of rows; those of two models are in the same order."""
    found, events = [np.empty(0)], 0
    model.eval()
    for indices in rows.batches(batch_size, None):
        batch = rows.gather(indices).to(device)
        own = -model.log_likelihood(batch, slots)
        found.append(own[batch.scored].double().cpu().numpy())
        events += int(batch.events_scored)
    return Losses(np.concatenate(found), events)


def choose(candidates: Mapping[str, Candidate], lost: Mapping[int, float]) -> str:
    """Choose a candidate by its losses; the first changes nothing, the last changes most.

    The cost of a candidate is its mean loss over all slices, to which what it makes an earlier
    slice lose is added once more; ``lost`` is what each of them has lost before. A candidate takes
    the place of those before it where it costs less by one standard error, and by `LEAST_GAIN`.
    The standard error is that of the differences between the two on the same intervals.
    """
    first, *others = candidates
    chosen = first

    def cost(name: str) -> float:
        losses = candidates[name].losses
        means = [one.mean for one in losses.values()]
        forgotten = [
            max(0.0, lost[at] + losses[at].mean - candidates[first].losses[at].mean)
            for at in lost
            if at in losses
        ]
        return float(np.mean(means)) + sum(forgotten) / max(1, len(forgotten))

    for name in others:
        error = _standard_error(candidates[name].losses, candidates[chosen].losses)
        if cost(chosen) - cost(name) > max(LEAST_GAIN, error):
            chosen = name
    return chosen


def _standard_error(one: Mapping[int, Losses], other: Mapping[int, Losses]) -> float:
    """Compute the standard error of the difference of two mean losses over all slices."""
    variances = []
    for at, losses in one.items():
        differences = losses.intervals - other[at].intervals
        variances.append(len(differences) * differences.var() / losses.events**2)
    return float(np.sqrt(np.sum(variances)) / len(variances))


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

    @property
    def lengths(self) -> np.ndarray:
        """Count the events of each row."""
        return np.concatenate([one.lengths for one in self.sets])

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
