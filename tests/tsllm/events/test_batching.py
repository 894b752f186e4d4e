"""Rows cut out of event sequences: every interval once, at the right place, whatever the cut."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets.events import EventTable, read_events
from tsllm.errors import DataError
from tsllm.events.arguments import at_each_sequence, duration_in_numbers
from tsllm.events.batching import (
    EventWindows,
    inter_event_times,
    last_events,
    longest_inter_event_time,
)

CLASSES = ["a", "b"]


def table_of(times, types=None, starts=None, ends=None, **more):
    """A table of sequences "s0", "s1", ...; types alternate, windows are unknown."""
    nothing = [np.nan] * len(times)
    return EventTable(
        ids=tuple(f"s{i}" for i in range(len(times))),
        times=tuple(np.array(own, dtype=float) for own in times),
        types=tuple(
            np.array([CLASSES[i % 2] for i in range(len(own))], dtype=object) for own in times
        )
        if types is None
        else types,
        starts=np.array(nothing if starts is None else starts),
        ends=np.array(nothing if ends is None else ends),
        **more,
    )


@st.composite
def tables(draw):
    """Sequences of any length, windows known or not, on a grid so that cuts hit events."""
    times, starts, ends = [], [], []
    for _ in range(draw(st.integers(1, 4))):
        gaps = draw(st.lists(st.integers(1, 5), max_size=8))
        own = draw(st.integers(1, 5)) + np.cumsum([0, *gaps])[: draw(st.integers(0, 9))]
        times.append(own)
        last = own[-1] if len(own) else 1
        starts.append(draw(st.sampled_from([np.nan, 0.0])))
        ends.append(draw(st.sampled_from([np.nan, last + 0.0 if len(own) else 7.0, last + 2.5])))
    return table_of(times, starts=starts, ends=ends)


def scored_pieces(windows):
    """Count the scored intervals: (sequence, from, to, type or None) -> number."""
    found: dict = {}
    for index in range(len(windows)):
        batch = windows.gather([index])
        row, position = batch.scored.nonzero(as_tuple=True)
        intervals = windows.intervals(np.full(len(row), index), position.numpy())
        for place, at in enumerate(position.tolist()):
            begin = intervals.start[place] + float(batch.lower[0, at]) * windows.time_scale
            end = intervals.start[place] + float(batch.elapsed[0, at]) * windows.time_scale
            assert end == pytest.approx(intervals.end[place])
            assert intervals.observed[place] == bool(batch.observed[0, at])
            kind = int(batch.next_types[0, at]) if intervals.observed[place] else None
            assert intervals.code[place] == (-1 if kind is None else kind)
            key = (int(intervals.sequence[place]), round(begin, 4), round(end, 4), kind)
            found[key] = found.get(key, 0) + 1
    return found


def brute_force(table, t_start, t_end):
    """The same from the definition."""
    found = {}
    for i, (own, types) in enumerate(zip(table.times, table.types)):
        edges = [table.starts[i], *own, table.ends[i]]
        for number, (begin, end) in enumerate(pairwise(edges)):
            kind = CLASSES.index(types[number]) if number < len(own) else None
            if np.isnan(begin) or np.isnan(end):
                # cut inside a window of which only events tell
                continue
            if end > t_end:
                end, kind = t_end, None
            begin = max(begin, t_start)
            if begin < end:
                found[(i, round(float(begin), 4), round(float(end), 4), kind)] = 1
    return found


@settings(max_examples=50, deadline=None)
@given(tables(), st.integers(1, 5), st.integers(0, 4), st.integers(0, 12), st.integers(1, 12))
def test_every_interval_is_scored_once_and_nothing_else(table, length, overlap, start, span):
    cuts = {
        "t_start": np.full(len(table), float(start)),
        "t_end": np.full(len(table), float(start + span)),
    }
    expected = brute_force(table, start, start + span)
    whole = EventWindows(table, CLASSES, 2.0, dtype=torch.float64, **cuts)
    assert scored_pieces(whole) == expected
    rows = EventWindows(
        table, CLASSES, 2.0, length=length, overlap=min(overlap, length - 1), **cuts
    )
    assert scored_pieces(rows) == expected
    assert rows.lengths.max(initial=0) <= length
    counted = [int(rows.gather([i]).scored.sum()) for i in range(len(rows))]
    assert rows.scored.tolist() == counted


def test_history_before_the_scored_part_is_read():
    table = table_of([[1, 2, 4, 7]], starts=[0.0], ends=[9.0])
    windows = EventWindows(table, CLASSES, 1.0, t_start=np.array([2.5]), t_end=np.array([8.0]))
    batch = windows.gather([0])
    assert batch.gaps.tolist() == [[1, 1, 2, 3]]
    assert batch.scored.tolist() == [[False, False, True, True, True]]
    assert batch.lower.tolist() == [[0, 0, 0.5, 0, 0]]
    assert batch.elapsed[0, 2:].tolist() == [2, 3, 1]


def test_rows_of_a_long_sequence_overlap_by_what_is_not_scored():
    table = table_of([np.arange(1, 11)], starts=[0.0], ends=[12.0])
    windows = EventWindows(table, CLASSES, 1.0, length=4, overlap=2)
    assert windows.first.tolist() == [0, 2, 4, 6]
    assert windows.last.tolist() == [4, 6, 8, 10]
    batch = windows.gather(np.arange(4))
    assert batch.first_known.all()
    assert batch.scored.sum(1).tolist() == [4, 2, 2, 3]


@pytest.mark.parametrize(("score_from", "first"), [(8.0, 4), (5.0, 3), (2.0, 0)])
def test_a_row_reads_as_much_history_as_it_has_room_for(score_from, first):
    """The validation part of a sequence is read from its start, as the whole, if it fits."""
    table = table_of([np.arange(1, 11)], starts=[0.0], ends=[12.0])
    cut = np.array([score_from])
    windows = EventWindows(table, CLASSES, 1.0, length=6, overlap=2, t_start=cut)
    assert windows.first[0] == first
    assert windows.lengths.max() <= 6
    assert EventWindows(table, CLASSES, 1.0, length=10, overlap=2, t_start=cut).first[0] == 0


def test_an_event_at_the_start_of_the_scored_part_is_history_whatever_the_rounding():
    """Cuts lie at events: what is added up in scaled time must not move over them."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(size=300)) * 1e5
    table = table_of([times], starts=[0.0])
    for cut in range(0, 300, 7):
        windows = EventWindows(table, CLASSES, 0.3, t_start=times[[cut]])
        assert int(windows.gather([0]).scored.sum()) == 299 - cut


def test_types_that_were_not_seen_are_named():
    table = read_events(pd.DataFrame({"time": [1.0, 2.0], "type": ["a", "z"]}))
    with pytest.raises(DataError, match=r"sequence 'sequence', event 1.*'z' was not seen.*a, b"):
        EventWindows(table, CLASSES, 1.0)


def test_ties_are_refused_with_the_remedy_and_floored_at_a_resolution():
    frame = pd.DataFrame({"time": [1.0, 2.0, 2.0], "type": ["a", "a", "b"]})
    table = read_events(frame, ties="batch")
    with pytest.raises(DataError, match=r"event 2 .*ties=\"batch\""):
        EventWindows(table, CLASSES, 1.0)
    batch = EventWindows(table, CLASSES, 2.0, resolution=0.5).gather([0])
    assert batch.elapsed[0, 1:3].tolist() == [0.5, 0.25]


def test_inter_event_times_count_the_first_one_where_the_start_is_known():
    table = table_of([[1, 3], [2, 6], []], starts=[0.0, np.nan, np.nan], ends=[np.nan] * 3)
    assert inter_event_times(table).tolist() == [1, 2, 4]


def test_the_longest_inter_event_time_is_between_events_or_at_an_edge_of_a_window():
    unknown = [np.nan, np.nan]
    assert longest_inter_event_time(table_of([[1, 3], [2, 6]], starts=unknown, ends=unknown)) == 4
    assert (
        longest_inter_event_time(table_of([[1, 3], [2, 6]], starts=unknown, ends=[9.0, np.nan]))
        == 6
    )
    assert (
        longest_inter_event_time(table_of([[1, 3], []], starts=[-7.0, 0.0], ends=[3.5, np.nan]))
        == 8
    )
    assert (
        longest_inter_event_time(table_of([[1, 3], []], starts=[0.0, 0.0], ends=[3.5, 20.0])) == 20
    )
    assert longest_inter_event_time(table_of([[], [2]], starts=unknown, ends=unknown)) == 0


def test_last_events_keep_the_first_gap_known():
    table = table_of([[1, 3, 4, 9], [2]], ends=[10.0, np.nan])
    kept = last_events(table, 2)
    assert kept.times[0].tolist() == [4, 9]
    assert kept.starts[0] == 3 and np.isnan(kept.starts[1])
    assert kept.ends[0] == 10
    assert last_events(table, None) is table
    tied = last_events(table_of([[1, 3, 3, 4]]), 2)  # a window does not contain its start
    assert tied.times[0].tolist() == [3, 4] and np.isnan(tied.starts[0])
    assert last_events(table_of([[1, 3, 3]]), 0).starts[0] == 3


def test_times_are_read_for_all_sequences_or_each():
    table = table_of([[1], [2]])
    assert at_each_sequence(table, 3, "now").tolist() == [3, 3]
    one = at_each_sequence(table, {"s1": 4.0}, "now")
    assert np.isnan(one[0]) and one[1] == 4
    with pytest.raises(DataError, match="now has a time for 'x'"):
        at_each_sequence(table, {"x": 4.0}, "now")
    stamps = read_events(pd.DataFrame({"time": pd.to_datetime(["2024-01-01"]), "type": ["a"]}))
    assert at_each_sequence(stamps, "2024-01-02", "now").tolist() == [86400]
    with pytest.raises(DataError):
        at_each_sequence(stamps, 3.0, "now")


@pytest.mark.parametrize("bad", [0, -1, np.inf, "1D", None, True, pd.Timedelta("1D")])
def test_durations_of_number_tables_are_positive_numbers(bad):
    with pytest.raises(DataError, match="horizon must be a positive length of time"):
        duration_in_numbers(table_of([[1]]).clock, bad, "horizon")
