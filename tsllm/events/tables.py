"""Results of event forecasters in the kind of the events: tables of polars and Arrow."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any

from tsllm.datasets.foreign import TableKind, kind_of

# The methods that return a frame, with the argument that holds events.
_ANSWERS = {
    **dict.fromkeys(("predict", "predict_proba", "predict_quantiles", "predict_count"), "history"),
    **dict.fromkeys(("predict_intensity", "sample"), "history"),
    **dict.fromkeys(("score_samples", "residuals"), "events"),
}


class EventTables:
    """A base of event forecasters whose frames are of the kind of the events that are passed.

    Without events, as in ``predict()``, they are of the kind of those of `fit`; those of a model
    that was loaded from a file are pandas frames.
    """

    id_col: str | None
    _kind: TableKind | None = None  # of the events of the fit; None for pandas

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, argument in _ANSWERS.items():
            if name in vars(cls):
                setattr(cls, name, _answering(vars(cls)[name], argument))
        if "fit" in vars(cls):
            cls.fit = _remembering(vars(cls)["fit"])  # type: ignore[attr-defined]


def _answering(method: Callable[..., Any], argument: str) -> Callable[..., Any]:
    """Let a method return its frame in the kind of the events in ``argument``."""
    parameters = signature(method)

    @wraps(method)
    def answer(self: EventTables, *args: Any, **kwargs: Any) -> Any:
        frame = method(self, *args, **kwargs)
        given = parameters.bind(self, *args, **kwargs).arguments.get(argument)
        kind = self._kind if given is None else kind_of(given)
        if kind is None:
            return frame
        name = self.id_col or "sequence_id"
        if frame.index.nlevels == 1 and frame.index.name is None and argument == "history":
            named = name not in frame.columns  # the index holds the sequences
            frame = frame.rename_axis(index=name) if named else frame
        return kind.give(frame, [name])

    return answer


def _remembering(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Let `fit` remember the kind of its events."""

    @wraps(fit)
    def remember(self: EventTables, events: Any, *args: Any, **kwargs: Any) -> Any:
        fitted = fit(self, events, *args, **kwargs)
        if kind_of(events) is not None or self._kind is not None:
            self._kind = kind_of(events)
        return fitted

    return remember
