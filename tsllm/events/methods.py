"""Event forecasters by their short names, for the command line."""

from typing import Any

from tsllm.arguments import check_arguments, check_choice
from tsllm.events.base import EventForecaster
from tsllm.events.hawkes import HawkesForecaster
from tsllm.events.naive import NaiveEventForecaster
from tsllm.events.prompttpp.estimator import PromptTPP
from tsllm.events.zero_shot import ZeroShotEventForecaster

EVENT_METHODS: dict[str, type[EventForecaster]] = {
    "prompttpp": PromptTPP,
    "hawkes": HawkesForecaster,
    "naive": NaiveEventForecaster,
    "zero_shot": ZeroShotEventForecaster,
}


def make_event_forecaster(method: str, **parameters: Any) -> EventForecaster:
    """Make the unfitted event forecaster of a method by its short name.

    Parameters
    ----------
    method : {"prompttpp", "hawkes", "naive", "zero_shot"}
    **parameters
        Arguments of its constructor.

    Returns
    -------
    EventForecaster

    Raises
    ------
    DataError
        The method or a parameter is unknown, or a value is of the wrong kind.

    Examples
    --------
    >>> make_event_forecaster("naive", gap="median")
    NaiveEventForecaster(gap='median')
    """
    check_choice("method", method, EVENT_METHODS)
    cls = EVENT_METHODS[method]
    check_arguments(cls, cls._get_param_names(), parameters)
    return cls(**parameters)
