import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets import make_poisson, read_events, time_slices
from tsllm.errors import DataError, NotEnoughDataError


def stream():
    return make_poisson([1.0, 0.5], t_end=20, n_sequences=3, random_state=0).events


def test_slices_of_equal_length():
    slices = time_slices(stream(), 4)
    assert len(slices) == 4
    for number, part in enumerate(slices):
        assert part.starts.tolist() == [5.0 * number] * 3
        assert part.ends.tolist() == [5.0 * (number + 1)] * 3


def test_cuts_at_given_times_and_at_event_times():
    events = read_events(pd.DataFrame({"time": [1.0, 2, 3, 4], "type": "a"}))
    early, late = time_slices(events, [2])
    assert early.times[0].tolist() == [1, 2] and late.times[0].tolist() == [3, 4]
    assert np.isnan(early.starts[0]) and early.ends.tolist() == [2]
    assert late.starts.tolist() == [2] and np.isnan(late.ends[0])


def test_calendar_days_in_the_zone_of_the_stamps():
    stamps = pd.date_range("2024-03-30 20:00", periods=12, freq="5h", tz="Europe/Berlin")
    events = read_events(pd.DataFrame({"time": stamps, "type": "a"}))
    slices = time_slices(events, "1D")
    expected = stamps.to_series().groupby(stamps.date).size().tolist()
    assert [part.n_events for part in slices] == expected
    assert slices[1].windows()["window_start"][0] == pd.Timestamp("2024-03-31", tz="Europe/Berlin")
    years = pd.DatetimeIndex(["2008-05-01", "2009-01-01", "2009-01-02", "2010-03-04"])
    yearly = time_slices(read_events(pd.DataFrame({"time": years, "type": "a"})), "YS")
    # a slice is (start, end]: midnight on New Year's Day still belongs to the year before
    assert [part.n_events for part in yearly] == [2, 1, 1]


def test_sequences_that_were_observed_without_events():
    frame = pd.DataFrame({"sequence_id": ["a", "b", "b"], "time": [1.0, 1.5, 9.0], "type": "x"})
    events = read_events(frame, windows=(0, 10))
    assert [part.ids for part in time_slices(events, [5])] == [("a", "b"), ("b",)]
    kept = time_slices(events, [5], keep_empty=True)[1]
    assert kept.ids == ("a", "b") and kept.starts.tolist() == [5, 5] and len(kept.times[0]) == 0


@pytest.mark.parametrize(
    ("cuts", "error", "expected"),
    [
        (0, DataError, "cuts=0 slices cannot be made"),
        ([5, 3], DataError, "the cuts 5.0, 3.0 do not increase"),
        ([5, None], DataError, "do not increase"),
        ("1D", DataError, "cuts='1D' is a step of the calendar, but the times are numbers"),
        ([100], NotEnoughDataError, "slice 1, from 100.0 to the end, has no events"),
        ([-1], NotEnoughDataError, "slice 0, from the beginning to -1.0, has no events"),
    ],
)
def test_cuts_that_do_not_fit(cuts, error, expected):
    with pytest.raises(error, match=expected.replace("(", r"\(")):
        time_slices(stream(), cuts)


def test_other_faults():
    stamps = read_events(pd.DataFrame({"time": pd.date_range("2024", periods=3), "type": "a"}))
    with pytest.raises(DataError, match="cuts='often' is no step of the calendar"):
        time_slices(stamps, "often")
    empty = stream().between(0, 1).select([])
    with pytest.raises(NotEnoughDataError, match="no events to cut"):
        time_slices(empty, 2)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.floats(2, 18), min_size=1, max_size=3, unique=True).map(sorted),
)
def test_every_event_is_in_exactly_one_slice(cuts):
    events = stream()
    try:
        slices = time_slices(events, cuts, keep_empty=True)
    except NotEnoughDataError:
        return
    whole = slices[0]
    for part in slices[1:]:
        whole = whole.extend(part)
    assert whole == events
