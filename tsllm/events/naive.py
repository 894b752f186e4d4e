"""Naive event forecasts: typical inter-event times, and the most frequent types."""

import numpy as np
import torch
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import ClosedDecoder, EventDecoder
from tsllm.adapters.events.hawkes import decayed_sums
from tsllm.arguments import Limits, check_choice
from tsllm.datasets.events import EventTable
from tsllm.events.arguments import LIMITS
from tsllm.events.base import EventForecaster

GAPS = ("mean", "median", "last", "ema")
TYPES = ("majority", "markov")


class NaiveEventForecaster(EventForecaster):
    """A typical inter-event time and a typical type, the baseline that a model has to beat.

    The time to the next event is exponential, so that the forecast has a likelihood.

    The arguments that matter most: ``gap`` and ``types`` (the two rules), ``time_col`` and
    ``type_col`` (the columns of the table), and ``ties`` (events at the same time).

    Examples
    --------
    >>> import pandas as pd
    >>> from tsllm.events import NaiveEventForecaster
    >>> events = pd.DataFrame({"time": [1.0, 2.0, 4.0, 5.5], "type": ["a", "b", "a", "b"]})
    >>> NaiveEventForecaster(types="markov").fit(events).predict()[["time", "type"]]
       time type
    0   7.0    a

    Parameters
    ----------
    gap : {"mean", "median", "last", "ema"}, default="mean"
        The predicted inter-event time. "mean": the training mean is the predicted mean (a Poisson
        process). "median": the training median is the predicted median. "last": the last
        inter-event time is the predicted mean. "ema": the predicted mean is an exponential moving
        average of the sequence's inter-event times, which begins with the training mean.
    types : {"majority", "markov"}, default="majority"
        Type probabilities: the training shares (with one further event, spread evenly), or the
        shares among the followers of the last type (with one further event, spread as the former).
    smoothing : float, default=0.3
        Weight of the newest inter-event time in "ema", above 0 and at most 1.

    See Also
    --------
    HawkesForecaster : Events that excite later events.
    PromptTPP : A neural model of event streams.
    """

    _dtype = torch.float64
    _limits = LIMITS | {"smoothing": Limits(0, 1, whole=False, above=True)}

    def __init__(
        self,
        *,
        gap: str = "mean",
        types: str = "majority",
        smoothing: float = 0.3,
        id_col: str | None = "sequence_id",
        time_col: str = "time",
        type_col: str = "type",
        time_unit: str = "s",
        sort: bool = False,
        ties: str = "error",
        resolution: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.gap = gap
        self.types = types
        self.smoothing = smoothing
        super().__init__(locals())

    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        """Check the parameters; the base has computed the statistics."""
        for name, value, known in (("gap", self.gap, GAPS), ("types", self.types, TYPES)):
            check_choice(name, value, known)

    def _encode(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        k = len(self.type_counts_)
        shares = torch.as_tensor((self.type_counts_ + 1 / k) / (self.type_counts_.sum() + 1))
        size, events = batch.mask.shape
        types = shares.expand(size, events + 1, -1).clone()  # (batch, positions, types)
        if self.types == "markov":
            followers = torch.as_tensor(self.transition_counts_) + shares
            following = followers / followers.sum(1, keepdim=True)
            types[:, 1:] = following[batch.types]
        return NaiveDecoder(k), EventStates(
            torch.cat([-self._mean_times(batch).log()[..., None], types.log()], -1)
        )

    def _mean_times(self, batch: EventBatch) -> Tensor:
        """Predict mean inter-event times in multiples of the time scale: (batch, positions)."""
        size, events = batch.mask.shape
        means = torch.full(
            (size, events + 1), self.mean_inter_event_time_ / self.time_scale_
        ).double()
        if self.gap == "median":
            return means * (self.median_inter_event_time_ / np.log(2) / self.mean_inter_event_time_)
        if self.gap == "mean" or events == 0:
            return means
        weight = 1.0 if self.gap == "last" else self.smoothing
        parts = weight * batch.gaps.double()[..., None]  # (batch, events, 1)
        # The average begins with the training mean; an unknown first inter-event time is left out.
        first = torch.where(
            batch.first_known, parts[:, 0, 0] + (1 - weight) * means[:, 0], means[:, 0]
        )
        parts = torch.cat([first[:, None, None], parts[:, 1:]], 1)
        fades = torch.full_like(parts, -np.log1p(-weight) if weight < 1 else np.inf)
        return torch.cat([means[:, :1], decayed_sums(parts, fades)[..., 0]], 1)


class NaiveDecoder(ClosedDecoder):
    """A constant rate, and type probabilities that do not depend on the time.

    The states are the log rate, followed by the log probability of each type.
    """

    def log_intensities(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Compute the log intensity of each type: (batch, positions, nodes, types)."""
        rates = states.hidden[..., :1] + states.hidden[..., 1:]  # (batch, positions, types)
        return rates[:, :, None].expand(*elapsed.shape, -1)

    def compensators(self, states: EventStates, elapsed: Tensor) -> Tensor:
        """Integrate each type's intensity from 0: (batch, positions, nodes, types)."""
        return elapsed[..., None] * self.log_intensities(states, elapsed).exp()

    def type_log_probabilities(self, states: EventStates, elapsed: Tensor | None = None) -> Tensor:
        """Return the log probability of each type, the same at all times."""
        types = states.hidden[..., 1:]
        return types if elapsed is None else types[:, :, None].expand(*elapsed.shape, -1)

    def elapsed_at(self, states: EventStates, waited: Tensor, log_survival: Tensor) -> Tensor:
        """Find the time at which the survival falls to a value."""
        return waited[..., None] - log_survival / states.hidden[..., :1].exp()
