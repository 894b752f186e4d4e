"""The part of an event forecaster that opens streams of its sequences."""

import copy
from typing import Any, NoReturn

from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tsllm.adapters.events.batch import EventStates
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError
from tsllm.events.stream import EventStream


class StreamingMixin:
    """The part of an event forecaster that opens streams, and the hooks of those that have one."""

    history_: EventTable

    def stream(self) -> EventStream:
        """Open a stream of the sequences: event by event, with predictions after any of them.

        The stream computes what `update` and `predict` compute, in constant time and memory for
        each event. The model stays as it is.

        Returns
        -------
        EventStream

        Raises
        ------
        DataError
            The method has no state of constant size: `HawkesForecaster` has one, and `PromptTPP`
            with ``encoder="aaren"``.
        """
        check_is_fitted(self)
        return EventStream(copy.copy(self))

    # ------------------------------------------------------------------ the hooks of a method

    def _stream_states(self, table: EventTable | None) -> tuple[Any, Tensor]:
        """Return the states that `_step` moves, and those of the decoder, after the last events.

        ``table`` has the sequences; None stands for ``history_``. Both states have a row for each
        sequence.
        """
        self._refuse_stream()

    def _no_stream_reason(self) -> str:
        """Return why the forecaster has no stream, as the middle of a sentence."""
        return "has no stream, for it keeps no state of constant size"

    def _step(
        self, decoder: Any, states: Any, types: Tensor, gaps: Tensor
    ) -> tuple[Any, EventStates]:
        """Move states by an event each: types (rows,) and scaled inter-event times (rows,).

        ``decoder`` is the output of `_decoder`.
        """
        self._refuse_stream()

    def _decoder_states(self, states: Any, hidden: Tensor) -> EventStates:
        """Make the input of the decoder from the states of `_step` and its own, ``hidden``."""
        return EventStates(hidden)

    def _decoder(self) -> EventDecoder:
        """Return the decoder of the states of `_step`."""
        self._refuse_stream()

    def _refuse_stream(self) -> NoReturn:
        raise DataError(
            f"a {type(self).__name__} {self._no_stream_reason()}: use update and predict"
        )

    def _forget_history(self) -> None:
        """Drop the events that predictions continue."""
        self.history_ = self.history_.select([])
