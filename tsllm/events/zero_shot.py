"""Forecasts of events without training, with packaged weights learnt from synthetic streams."""

from functools import cache
from typing import Any

import numpy as np
import torch

from tsllm.adapters.events.batch import EventBatch, EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.zero_shot.model import ZeroShotDecoder, ZeroShotEventModel
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.base import EventForecaster
from tsllm.events.sampling import Paths, ReencodedPaths, copies_of
from tsllm.pretrained import ZERO_SHOT_EVENTS

#: Events that are read at most.
CONTEXT = 512
#: Types at most: a state holds about thirty numbers of each.
MOST_TYPES = 64
#: Numbers of positions times types of the paths that are encoded at once.
AT_ONCE = 2**18


class ZeroShotEventForecaster(EventForecaster):
    """Forecast any event stream without training, with weights that come with the package.

    At each event the model estimates several processes from the last 512 events of the sequence:
    Poisson, Hawkes with shared or separate effects of the types, a cycle, and histograms of the
    inter-event times. A small network, trained once on synthetic streams, weighs their densities
    and adds log-normal times of its own. `fit` trains nothing: it keeps the events, their types and
    the unit of time, their mean inter-event time. Each sequence is read alone, so many short
    sequences do not help each other. After an extreme inter-event time the expected time can be far
    above the median.

    The arguments that matter most: ``id_col``, ``time_col`` and ``type_col`` (the columns of the
    table), and ``ties`` (events at the same time).

    Examples
    --------
    >>> from tsllm.datasets.events import make_renewal
    >>> from tsllm.events import ZeroShotEventForecaster
    >>> regular = make_renewal("gamma", cv=0.2, t_end=60, random_state=0)
    >>> model = ZeroShotEventForecaster().fit(regular.events)
    >>> model.predict_quantiles(now=60).shape
    (1, 3)

    Parameters
    ----------
    random_state : int, RandomState or None, default=None
        Seed of sampled futures and of ``ties="jitter"``.

    See Also
    --------
    HawkesForecaster : A process whose parameters show which type triggers which.
    PromptTPP : A network that is trained on your events.
    tsllm.adapters.events.zero_shot.model.ZeroShotEventModel : The network.

    References
    ----------
    Berghaus et al., "In-Context Learning of Temporal Point Processes with Foundation Inference
    Models", arXiv 2509.24762: zero-shot point processes learnt from synthetic streams.
    """

    _rows_at_once = 16

    def __init__(
        self,
        *,
        id_col: str | None = "sequence_id",
        time_col: str = "time",
        type_col: str = "type",
        time_unit: str = "s",
        sort: bool = False,
        ties: str = "error",
        resolution: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(locals())

    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        """Check the number of types; nothing is trained."""
        if len(self.classes_) > MOST_TYPES:
            raise DataError(
                f"ZeroShotEventForecaster reads at most {MOST_TYPES} types, found "
                f"{len(self.classes_)}: join rare types, or train PromptTPP"
            )

    def _encode(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        types = len(self.classes_)
        return ZeroShotDecoder(types).eval(), packaged_model().encode(batch, types)

    def _encode_last(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        """Encode many rows for their last states only, which all positions then hold."""
        types, positions = len(self.classes_), batch.mask.shape[1] + 1
        model, lengths = packaged_model(), batch.lengths
        some = max(1, AT_ONCE // (positions * types))
        last = [
            model.encode(batch.select(rows), types).at(lengths[rows]).hidden
            for rows in torch.arange(len(batch)).split(some)
        ]
        hidden = torch.cat(last).expand(-1, positions, -1)
        return ZeroShotDecoder(types).eval(), EventStates(hidden)

    def _start_paths(self, batch: EventBatch, copies: int) -> Paths:
        rows = copies_of(len(batch), copies, batch.types.device)
        return ReencodedPaths(self._encode_last, batch.select(rows), CONTEXT)

    def _context_length(self) -> int | None:
        return CONTEXT


@cache
def packaged_model() -> Any:
    """Build the model with the packaged weights."""
    model = ZeroShotEventModel().requires_grad_(False)
    model.load_state_dict(ZERO_SHOT_EVENTS.read())
    return model.eval()
