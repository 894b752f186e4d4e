import copy
import itertools
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets import Clock, EventColumns, EventTable, read_events
from tsllm.errors import DataError, NotEnoughDataError


def table(sequences, starts=None, ends=None, **fields) -> EventTable:
    """Make a table of {id: (times, types)}."""
    unknown = [np.nan] * len(sequences)
    return EventTable(
        ids=tuple(sequences),
        times=tuple(np.array(times, float) for times, _ in sequences.values()),
        types=tuple(np.array(list(types), object) for _, types in sequences.values()),
        starts=np.array(unknown if starts is None else starts, float),
        ends=np.array(unknown if ends is None else ends, float),
        **fields,
    )


def example() -> EventTable:
    return table({"a": ([1, 2, 5], "xyx"), "b": ([3, 4], "zz")}, starts=[0, 2], ends=[6, np.nan])


def complaint(call) -> str:
    with pytest.raises(DataError) as error:
        call()
    return str(error.value)


# What it holds


def test_it_says_what_it_holds():
    events = example()
    assert len(events) == 2 and events.n_events == 5
    assert repr(events) == "EventTable(2 sequences, 5 events, 3 types, times 1.0 to 5.0)"
    assert list(events.type_counts().items()) == [("x", 2), ("z", 2), ("y", 1)]
    assert events.place(1, 1) == "sequence 'b', event 1 (4.0)"
    assert repr(table({"a": ([], "")}, [0], [1])) == "EventTable(1 sequence, 0 events, 0 types)"


def test_it_cannot_be_changed_and_leaves_its_arrays_alone():
    times = np.array([1.0, 2.0])
    events = EventTable(("a",), (times,), (np.array(["x", "y"], object),), [0.0], [3.0])
    times[0] = 1.5
    assert events.times[0][0] == 1
    for array in (events.times[0], events.types[0], events.starts, events.ends):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_copies_and_pickles_are_equal():
    events = example()
    assert copy.deepcopy(events) == events
    assert pickle.loads(pickle.dumps(events)) == events
    with pytest.raises(TypeError):
        hash(events)


@pytest.mark.parametrize(
    "other",
    [
        table({"a": ([1, 2, 5], "xyx")}, [0], [6]),
        table({"a": ([1, 2, 5], "xyx"), "b": ([3, 4], "zz")}, [0, 2], [6, 5]),
        table({"a": ([1, 2, 5], "xyx"), "b": ([3, 4], "zy")}, [0, 2], [6, np.nan]),
        table({"a": ([1, 2, 5.5], "xyx"), "b": ([3, 4], "zz")}, [0, 2], [6, np.nan]),
        table({"b": ([1, 2, 5], "xyx"), "a": ([3, 4], "zz")}, [0, 2], [6, np.nan]),
    ],
)
def test_tables_that_differ_are_not_equal(other):
    assert example() == example()
    assert example() != other
    assert example() != "a"


def test_equality_does_not_depend_on_the_clock():
    stamps = pd.date_range("2024-01-01", periods=4, freq="D")
    whole = read_events(pd.DataFrame({"time": stamps, "type": "a"}), time_unit="D")
    part = whole.between("2024-01-02 12:00")
    again = read_events(
        pd.DataFrame({"time": stamps[2:], "type": "a"}),
        windows=(stamps[1] + pd.Timedelta("12h"), None),
    )
    assert part.clock.origin != again.clock.origin
    assert part == again


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (({"a": ([2, 1], "xy")},), "sequence 'a', event 1 is earlier than the event before it"),
        (({"a": ([1, np.nan], "xy")},), "sequence 'a', event 1 has no finite time"),
        (({"a": ([1, np.inf], "xy")},), "sequence 'a', event 1 has no finite time"),
        (({"a": ([1, 2], "xyz")},), "sequence 'a' has 2 times but 3 types"),
        (({"a": ([1], "x")}, [1], [2]), "sequence 'a', event 0 at 1.0 is not after its window's"),
        (({"a": ([1, 3], "xx")}, [0], [2]), "sequence 'a', event 1 at 3.0 is after its window's"),
        (({"a": ([1], "x")}, [3], [2]), "has a window that ends at 2.0 and starts at 3.0"),
        (({"a": ([1], "x")}, [0, 0], [2]), "here there are 1 ids, 1, 1, 2 and 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(arguments, expected):
    assert expected in complaint(lambda: table(*arguments))


# Frames


def test_a_frame_has_the_users_columns():
    named = table({"a": ([1, 2], "xy")}, names=EventColumns("user", "when", "what"))
    assert named.to_frame().to_dict("list") == {
        "user": ["a", "a"], "when": [1.0, 2.0], "what": ["x", "y"],
    }  # fmt: skip
    assert list(example().to_frame().columns)[3:] == ["window_start", "window_end"]
    assert example().windows()["window_start"].tolist() == [0, 2]


# Parts


def test_select_takes_sequences_in_the_order_named():
    events = example().select(["b", "a"])
    assert events.ids == ("b", "a") and events.starts.tolist() == [2, 0]
    message = complaint(lambda: example().select(["c"]))
    assert "there is no sequence 'c' in the table; its 2 sequences start with 'a', 'b'" in message


def test_a_cut_is_a_known_bound_only_where_the_sequence_was_observed():
    events = table({"a": ([1, 2, 5], "xyx"), "b": ([3, 4], "zz")})
    cut = events.between(2.5, 4)
    assert cut.ids == ("b",)
    assert np.isnan(cut.starts[0])  # nothing says that b was observed before its first event
    assert cut.ends.tolist() == [4]  # at its last event
    first = events.between(1, 2)
    assert first.ids == ("a",) and first.times[0].tolist() == [2]
    assert first.starts.tolist() == [1] and first.ends.tolist() == [2]
    assert np.isnan(events.between(end=10).ends).all()
    known = example().between(2.5, 4.5, keep_empty=True)
    assert known.ids == ("a", "b") and len(known.times[0]) == 0
    assert known.starts.tolist() == [2.5, 2.5] and known.ends.tolist()[0] == 4.5
    assert np.isnan(known.ends[1])  # b's window is not known to go on after its last event
    assert "is empty; pass an end after the start" in complaint(lambda: events.between(3, 3))


def test_between_takes_what_the_user_writes():
    stamps = pd.date_range("2024-01-01", periods=4, freq="D", tz="UTC")
    events = read_events(pd.DataFrame({"time": stamps, "type": list("abcd")}))
    assert events.between("2024-01-01T00:00Z", stamps[2]).types[0].tolist() == ["b", "c"]
    assert "has no time zone, but this table's is UTC" in complaint(
        lambda: events.between("2024-01-02")
    )
    assert "are numbers, but this table's times are timestamps" in complaint(
        lambda: events.between(3)
    )
    assert "is a timestamp, but this table's times are numbers" in complaint(
        lambda: example().clock.to_number(stamps)
    )
    for text in ("soon", "01/02/2024", "12:00", "now"):
        assert "cannot be read as timestamps" in complaint(lambda text=text: events.between(text))


def test_a_split_is_by_time_and_by_share_of_events():
    rng = np.random.default_rng(0)
    sequences = {
        name: (np.sort(rng.uniform(0, 10, 50)), rng.choice(list("xy"), 50)) for name in "abcd"
    }
    events = table(sequences, [0] * 4, [10] * 4)
    parts = events.split()
    assert [part.n_events for part in parts] == [140, 20, 40]
    for before, after in itertools.pairwise(parts):
        assert np.array_equal(before.ends, after.starts)
        assert max(times[-1] for times in before.times) < min(times[0] for times in after.times)
    whole = parts[0].extend(parts[1]).extend(parts[2])
    assert whole == events
    assert "must be positive and add up to 1" in complaint(lambda: events.split((0.5, 0.6)))
    with pytest.raises(NotEnoughDataError, match="1 events at 1 times are too few"):
        table({"a": ([1], "x")}).split()
    with pytest.raises(NotEnoughDataError, match="0 events"):
        table({"a": ([], "")}, [0], [1]).split()
    with pytest.raises(NotEnoughDataError, match="9 events at 1 times"):
        table({"a": ([1] * 9, "x" * 9)}).split((0.5, 0.5))


# Later events


def test_later_events_go_on_where_the_window_ended():
    later = table({"b": ([7], "z"), "c": ([1], "x")}, [5, 0], [8, 2])
    longer = table({"a": ([1], "x"), "b": ([3], "z")}, [0, 2], [4, 5]).extend(later)
    assert longer.ids == ("a", "b", "c")
    assert longer.times[1].tolist() == [3, 7]
    assert longer.starts.tolist() == [0, 2, 0] and longer.ends.tolist() == [4, 8, 2]


def test_later_events_without_windows_leave_the_end_open():
    longer = table({"a": ([1], "x")}, [0], [4]).extend(table({"a": ([5], "y")}))
    assert longer.times[0].tolist() == [1, 5]
    assert longer.starts.tolist() == [0] and np.isnan(longer.ends[0])


def test_clocks_with_other_origins_are_brought_together():
    stamps = pd.date_range("2024-01-01", periods=4, freq="12h")
    frame = pd.DataFrame({"time": stamps, "type": "a"})
    early, late = read_events(frame[:2], time_unit="h"), read_events(frame[2:], time_unit="min")
    assert early.extend(late) == read_events(frame)
    assert early.extend(late).times[0].tolist() == [0, 12, 24, 36]
    assert "is a timestamp, but this table's times are numbers" in complaint(
        lambda: example().extend(late)
    )


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (({"a": ([3], "x")},), "already holds the time until 4.0, but the new part begins at 3.0"),
        (({"a": ([5], "x")}, [3], [6]), "until 4.0, but the new part begins at 3.0"),
        (({"a": ([6], "x")}, [5], [7]), "observed until 4.0 and then from 5.0 on, which leaves a"),
    ],
)
def test_overlaps_and_holes_are_refused(later, expected):
    early = table({"a": ([1], "x")}, [0], [4])
    assert expected in complaint(lambda: early.extend(table(*later)))
    assert "sequence 'a'" in complaint(lambda: early.extend(table(*later)))


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(1, 99), min_size=1, max_size=12, unique=True).map(sorted),
    cut=st.integers(1, 98),
    known=st.booleans(),
)
def test_cutting_and_extending_gives_the_stream_back(times, cut, known):
    events = table(
        {"a": (times, ["xyz"[time % 3] for time in times])},
        [0] if known else None,
        [100] if known else None,
    )
    early, late = (
        events.between(end=cut, keep_empty=True),
        events.between(start=cut, keep_empty=True),
    )
    assert early.n_events + late.n_events == events.n_events
    if len(early) and len(late):
        assert early.extend(late) == events


# The clock


def test_what_is_not_known_has_no_stamp():
    clock = Clock(pd.Timestamp("2024-01-01"), "h")
    stamps = clock.to_stamp([1.0, np.nan, np.inf, 1e30])
    assert stamps[0] == pd.Timestamp("2024-01-01 01:00")
    assert stamps.isna().tolist() == [False, True, True, True]
    assert np.isnan(clock.to_number([None, pd.NaT])).all()
    assert clock.to_number(pd.Timestamp("2024-01-02")) == 24
    assert Clock().to_stamp(2.5) == 2.5
    assert Clock().to_number([1, None]).tolist()[0] == 1


@settings(max_examples=60, deadline=None)
@given(
    microseconds=st.integers(0, 30 * 365 * 86400 * 10**6),
    unit=st.sampled_from(["us", "ms", "s", "min", "h", "D", "W"]),
)
def test_stamps_come_back_to_the_microsecond(microseconds, unit):
    clock = Clock(pd.Timestamp("1995-05-05 05:05:05.000005", tz="Asia/Kolkata"), unit)
    stamp = clock.origin + pd.Timedelta(microseconds, unit="us")
    assert clock.to_stamp(clock.to_number(stamp)) == stamp
