"""The settings that a page shows: those that do not differ from run to run."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

#: Settings that differ between two runs of the same job, or that only its machine can use.
_OF_THE_RUN = ("embedding_store", "peak_gpu_mib", "predict_ms", "seconds")


def settings_to_show(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without times and places of the run, and without empty values.

    Examples
    --------
    >>> settings_to_show({"horizon": 12, "seconds": 3.1, "text": [], "a": {"fit_seconds": 1}})
    {'horizon': 12, 'a': {}}
    """
    return {
        str(name): settings_to_show(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if not _of_the_run(str(name)) and not _empty(value)
    }


def without_times(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table without the columns that differ from run to run."""
    return table[[name for name in table.columns if not _of_the_run(str(name))]]


def _of_the_run(name: str) -> bool:
    return name in _OF_THE_RUN or name.endswith("_seconds")


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple | dict | str) and len(value) == 0)
