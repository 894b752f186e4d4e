"""Padding, scored intervals and buckets of event sequences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.adapters.events.batch import EventStates, length_buckets, pad_sequences


def pad(gaps, types=None, *, known=True, tails=None, **options):
    types = [[0] * len(one) for one in gaps] if types is None else types
    tails = [np.nan] * len(gaps) if tails is None else tails
    return pad_sequences(gaps, types, first_known=[known] * len(gaps), tails=tails, **options)


def test_what_counts_with_a_known_and_an_unknown_window():
    known = pad([[0.5, 2.0]], [[3, 1]], tails=[1.5])
    assert known.gaps.tolist() == [[0.5, 2.0]]
    assert known.elapsed.tolist() == [[0.5, 2.0, 1.5]]
    assert known.scored.tolist() == [[True, True, True]]
    assert known.observed.tolist() == [[True, True, False]]
    assert known.next_types.tolist() == [[3, 1, 0]]
    assert known.events_scored == 2
    unknown = pad([[77.0, 2.0]], [[3, 1]], known=False)
    assert unknown.gaps.tolist() == [[1.0, 2.0]]
    assert unknown.scored.tolist() == [[False, True, False]]
    assert not unknown.first_known.any()


def test_an_unknown_first_gap_may_be_nan():
    batch = pad([[np.nan, 2.0]], known=False)
    assert torch.isfinite(batch.gaps).all()
    assert torch.isfinite(batch.elapsed).all()


def test_a_sequence_without_events_is_one_interval():
    batch = pad([[], [1.0]], tails=[4.0, 0.0])
    assert batch.elapsed[0].tolist() == [4.0, 1.0]
    assert batch.scored.tolist() == [[True, False], [True, False]]  # a tail of no length is none
    assert batch.lengths.tolist() == [0, 1]
    assert not batch.observed[0].any()


def test_only_what_comes_after_score_from_counts():
    gaps = [[1.0, 2.0, 4.0]]  # events at 1, 3, 7; the window ends at 9
    batch = pad(gaps, tails=[2.0], score_from=[4.5])
    assert batch.scored.tolist() == [[False, False, True, True]]
    assert batch.lower.tolist() == [[0.0, 0.0, 1.5, 0.0]]
    assert batch.elapsed[0, 2:].tolist() == [4.0, 2.0]
    # An event at that very time is given, and the interval after it is whole.
    batch = pad(gaps, tails=[2.0], score_from=[3.0])
    assert batch.scored.tolist() == [[False, False, True, True]]
    assert batch.lower.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    batch = pad(gaps, tails=[2.0], score_from=[8.0])
    assert batch.scored.tolist() == [[False, False, False, True]]
    assert batch.lower[0, 3] == 1.0
    assert not pad(gaps, tails=[2.0], score_from=[9.0]).scored.any()


def test_an_event_at_score_from_is_given_whatever_the_rounding():
    gaps = np.full(1000, 0.1)
    for event in (3, 299, 999):
        batch = pad([gaps], score_from=[0.1 * event])
        assert batch.scored[0].tolist() == [False] * event + [True] * (1000 - event) + [False]


def test_score_from_counts_from_the_first_event_where_the_start_is_unknown():
    batch = pad([[np.nan, 2.0, 3.0]], known=False, score_from=[2.5])
    assert batch.scored.tolist() == [[False, False, True, False]]
    assert batch.lower[0, 2] == 0.5


def test_equal_times_need_a_resolution():
    with pytest.raises(
        ValueError, match=r"sequence 1, event 2: the inter-event time before it is 0\.0"
    ):
        pad([[1.0], [1.0, 2.0, 0.0]])
    batch = pad([[1.0], [1.0, 2.0, 0.0]], resolution=0.25)
    assert batch.gaps[1].tolist() == [1.0, 2.0, 0.25]
    assert batch.elapsed[1, :3].tolist() == [1.0, 2.0, 0.25]
    assert batch.scored[1].tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("gaps", "types", "tail", "message"),
    [
        ([1.0, -2.0], [0, 0], 1.0, "sequence 0, event 1: the inter-event time before it is -2"),
        ([1.0, np.inf], [0, 0], 1.0, "sequence 0, event 1: the inter-event time before it is inf"),
        ([1.0, 2.0], [0, -1], 1.0, "sequence 0, event 1: its type is -1"),
        ([1.0, 2.0], [0], 1.0, "sequence 0 has 2 inter-event times and 1 types"),
        ([1.0, 2.0], [0, 0], -1.0, "sequence 0: its window ends 1.0 before its last event"),
    ],
)
def test_what_cannot_be_is_an_error_that_says_where(gaps, types, tail, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences([gaps], [types], first_known=[True], tails=[tail])


def test_lengths_of_the_arguments_must_agree():
    with pytest.raises(ValueError, match="tails is given for 2 sequences, gaps for 1"):
        pad_sequences([[1.0]], [[0]], first_known=[True], tails=[1.0, 2.0])
    with pytest.raises(ValueError, match="score_from must be"):
        pad([[1.0]], score_from=[1.0, 2.0])


def test_select_and_at_pick_rows_and_positions():
    batch = pad([[1.0, 2.0], [3.0]], tails=[1.0, 2.0], context=[[1.0], [2.0]])
    one = batch.select(torch.tensor([1]))
    assert (len(one), one.context.item(), one.gaps[0, 0].item()) == (1, 2.0, 3.0)
    states = EventStates(torch.arange(12.0).view(2, 3, 2))
    assert states.at(batch.lengths).hidden.tolist() == [[[4.0, 5.0]], [[8.0, 9.0]]]
    some = states.select(torch.tensor([1, 1, 0]), torch.tensor([2, 0, 1]))
    assert some.hidden[:, 0, 0].tolist() == [10.0, 6.0, 2.0]


@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=80),
    batch_size=st.integers(1, 16),
    max_tokens=st.one_of(st.none(), st.integers(1, 2000)),
    seed=st.one_of(st.none(), st.integers(0, 9)),
)
@settings(max_examples=60, deadline=None)
def test_buckets_hold_every_sequence_once_within_the_limits(lengths, batch_size, max_tokens, seed):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches = length_buckets(
        lengths, batch_size=batch_size, max_tokens=max_tokens, generator=generator
    )
    assert sorted(i for one in batches for i in one.tolist()) == list(range(len(lengths)))
    for one in batches:
        positions = [lengths[i] + 1 for i in one.tolist()]
        assert 1 <= len(positions) <= batch_size
        if max_tokens is not None and len(positions) > 1:
            assert len(positions) * max(positions) <= max_tokens


def test_buckets_pad_little_and_shuffle():
    lengths = np.random.default_rng(0).integers(1, 400, 2000)
    batches = length_buckets(lengths, batch_size=32, generator=torch.Generator().manual_seed(0))
    padded = sum(len(one) * (lengths[one].max() + 1) for one in batches)
    assert padded <= 1.1 * (lengths + 1).sum()
    again = length_buckets(lengths, batch_size=32, generator=torch.Generator().manual_seed(1))
    assert {tuple(one.tolist()) for one in batches} != {tuple(one.tolist()) for one in again}
    with pytest.raises(ValueError, match="batch_size, max_tokens or both"):
        length_buckets(lengths)
