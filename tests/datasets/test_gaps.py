"""Errors about gaps: how many series have one, for readers of tables and of sktime's panels."""

import pickle

import pandas as pd
import pytest

from tsllm import DLinearForecaster
from tsllm.datasets import read_long
from tsllm.errors import GapError

DAYS = pd.date_range("2024-01-01", periods=9, freq="D")


def panel(holes):
    """Series a, b, ...; one has a gap where ``holes`` says so."""
    parts = [
        pd.DataFrame(
            {"series_id": name, "timestamp": DAYS.drop(DAYS[[4]] if hole else []), "y": 1.5}
        )
        for name, hole in zip("abcdefgh", holes)
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("door", ["table", "panel"])
def test_the_error_counts_the_series_with_gaps(door):
    frame = panel([False, True, True, False, True, True])
    with pytest.raises(GapError) as refused:
        if door == "table":
            read_long(frame)
        else:
            DLinearForecaster().fit(frame.set_index(["series_id", "timestamp"]))
    assert str(refused.value).startswith(
        "4 of 6 series have gaps: series 'b', series 'c', series 'e' and 1 more; for example "
        "series 'b' has a gap at 'D': 1 stamp is missing: 2024-01-05 00:00:00 after row "
    )
    assert "'zero' (for counts)" in refused.value.remedy


def test_the_error_of_a_single_gap_names_its_series():
    with pytest.raises(GapError, match=r"^series 'c' has a gap at 'D'") as refused:
        read_long(panel([False, False, True]))
    again = pickle.loads(pickle.dumps(refused.value))  # as from a worker
    assert (str(again), again.remedy) == (str(refused.value), refused.value.remedy)
