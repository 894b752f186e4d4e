"""The prompt pool: who opens slots, what they are retrieved by, what happens when it is full."""

import pytest
import torch
from event_models import batch_of, build_model, sequences
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.adapters.events.prompt_pool import PromptPool
from tsllm.adapters.events.prompt_query import CausalQuery, Query
from tsllm.adapters.s2ip.anchors import kmeans

SIZE = 4


def pool_of(*, keys=(), **settings):
    """Make a pool with slots of these keys, (x, 0, 0, 0) each."""
    pool = PromptPool(2, 6, query_size=SIZE, hidden=6, **({"min_context": 3} | settings))
    for key in keys:
        pool.open_slots(points(key))
    return pool


def points(*firsts):
    out = torch.zeros(len(firsts), SIZE)
    out[:, 0] = torch.tensor(firsts, dtype=torch.float32)
    return out


def query_of(*firsts, counts=20):
    """Make queries of one sequence, at positions that have seen ``counts`` events each."""
    vectors = points(*firsts)[None]
    counts = torch.as_tensor(counts).expand(len(firsts))[None]
    return Query(vectors, counts, torch.ones(1, len(firsts)))


def visible(pool, query, **settings):
    return pool.choose(query, **settings).visible[0].long().tolist()


def test_a_position_takes_the_slot_of_the_nearest_key():
    pool = pool_of(keys=[0.0, 2.0, 5.0])
    assert visible(pool, query_of(0.9, 1.1, 3.6, 99.0)) == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 1],
    ]


def test_a_slice_trains_with_its_own_slots_only():
    pool = pool_of(keys=[0.0, 2.0, 5.0])
    choice = pool.choose(query_of(0.1, 4.0), [1, 2])
    assert choice.numbers == (1, 2)
    assert choice.visible[0].long().tolist() == [[1, 0], [0, 1]]
    assert torch.equal(choice.rows[1], pool.slots[2].rows)
    assert pool.choose(query_of(0.1), []) is None


def test_too_few_events_take_the_most_used_slot_or_all():
    pool = pool_of()
    pool.open_slots(points(*[0.0] * 5))
    pool.open_slots(points(*[9.0] * 8))
    early = query_of(0.0, 0.0, 0.0, 0.0, counts=torch.tensor([0, 1, 2, 3]))
    assert visible(pool, early) == [[0, 1], [0, 1], [0, 1], [1, 0]]
    assert pool.usage == [5, 8]
    pool.cold_start = "average"
    assert visible(pool, early) == [[1, 1], [1, 1], [1, 1], [1, 0]]


def test_usage_counts_what_is_asked_to_be_counted():
    pool = pool_of(keys=[0.0, 9.0])
    before = pool.usage
    choice = pool.choose(query_of(0.0, 1.0, 8.0, 9.0))
    pool.add_usage(choice, torch.tensor([[True, False, True, True]]))
    assert [now - was for now, was in zip(pool.usage, before, strict=True)] == [1, 2]


def test_a_slice_may_open_several_slots_around_its_clusters():
    pool = pool_of(slots_per_slice=2, max_slots=4)
    queries = points(0.0, 0.2, 0.1, 6.0, 6.4)
    assert pool.open_slots(queries) == [0, 1]
    keys = sorted(float(slot.key[0]) for slot in pool.slots)
    assert keys == pytest.approx([0.1, 6.2])
    assert sorted(pool.usage) == [2, 3]
    # Equal queries are one cluster, so one slot is enough.
    assert pool.open_slots(points(3.0, 3.0)) == [2]


def test_a_full_pool_merges_the_two_closest_slots_and_says_so():
    pool = pool_of(keys=[0.0, 5.0, 6.0, 9.0], max_slots=4)
    first, second = pool.slots[1], pool.slots[2]
    second.usage += 2  # three uses against one
    rows = (first.rows + 3 * second.rows).detach() / 4
    others = [pool.slots[0].rows.clone(), pool.slots[3].rows.clone()]
    with pytest.warns(UserWarning, match="slots 1 and 2 .* merged into slot 1.*max_slots"):
        assert pool.open_slots(points(20.0)) == [2]
    assert len(pool) == 4
    assert [float(slot.key[0]) for slot in pool.slots] == pytest.approx([0.0, 5.75, 20.0, 9.0])
    assert torch.allclose(pool.slots[1].rows, rows)
    assert torch.equal(pool.slots[0].rows, others[0])
    assert torch.equal(pool.slots[3].rows, others[1])
    assert pool.usage == [1, 4, 1, 1]


def test_a_full_pool_reuses_the_most_similar_slot_and_says_so():
    pool = pool_of(keys=[0.0, 5.0], max_slots=2, when_full="reuse")
    rows = pool.slots[1].rows.clone()
    with pytest.warns(UserWarning, match="slot 1 is trained further .* and forgets"):
        assert pool.open_slots(points(8.0, 8.0, 8.0)) == [1]
    assert float(pool.slots[1].key[0]) == pytest.approx((5.0 + 3 * 8.0) / 4)
    assert torch.equal(pool.slots[1].rows, rows)


def test_a_full_pool_of_one_can_only_be_reused():
    pool = pool_of(keys=[0.0], max_slots=1)
    with pytest.warns(UserWarning, match="slot 0 is trained further"):
        assert pool.open_slots(points(8.0)) == [0]


def test_shared_slots_are_there_from_the_start_and_go_by_cosine():
    pool = pool_of(mode="shared", max_slots=3, top_slots=2)
    assert len(pool) == 3
    with torch.no_grad():
        for slot, key in zip(pool.slots, torch.eye(SIZE), strict=False):
            slot.key.copy_(key * 100)  # lengths do not matter
    query = Query(
        torch.tensor([[[0.1, 0.9, 0.0, 0.0], [0.0, -1.0, 0.2, 0.0]]]),
        torch.tensor([[9, 9]]),
        torch.ones(1, 2),
    )
    assert visible(pool, query) == [[1, 1, 0], [1, 0, 1]]
    assert pool.open_slots(torch.randn(3, SIZE)) == [0, 1, 2]


def test_the_matching_loss_moves_the_chosen_keys_and_not_the_query():
    pool = pool_of(mode="shared", max_slots=3, top_slots=1)
    query = query_of(1.0, 1.0, counts=torch.tensor([9, 1]))
    query.vectors.requires_grad_()
    choice = pool.choose(query)
    loss = pool.matching_loss(query, choice)
    chosen = int(choice.visible[0, 0].long().argmax())
    key = pool.slots[chosen].key.detach()
    expected = 1 - float(key[0] / key.norm())
    assert loss[0].tolist() == pytest.approx([expected, 0.0])  # the second has too few events
    loss.sum().backward()
    assert query.vectors.grad is None
    for number, slot in enumerate(pool.slots):
        assert (slot.key.grad.abs().sum() > 0) == (number == chosen)


def test_without_prompts_there_is_nothing_to_choose():
    pool = pool_of(mode="none")
    assert pool.open_slots(points(1.0)) == []
    assert pool.choose(query_of(1.0)) is None


def test_new_slots_do_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    one = pool_of(keys=[0.0, 1.0])
    torch.manual_seed(2)
    other = pool_of(keys=[0.0, 1.0])
    assert torch.equal(one.slots[1].rows, other.slots[1].rows)
    assert not torch.equal(one.slots[0].rows, one.slots[1].rows)


def test_the_change_of_states_starts_at_nothing_and_is_that_of_the_chosen_slot():
    pool = pool_of(keys=[0.0, 5.0], head_rank=2)
    hidden = torch.randn(1, 2, 6)
    choice = pool.choose(query_of(0.0, 5.0))
    assert torch.equal(pool.change_states(hidden, choice), hidden)
    slot = pool.slots[1]
    torch.nn.init.normal_(slot.head_up)
    torch.nn.init.normal_(slot.head_bias)
    changed = pool.change_states(hidden, choice)
    assert torch.equal(changed[0, 0], hidden[0, 0])
    expected = hidden[0, 1] + slot.head_bias + slot.head_up @ (slot.head_down @ hidden[0, 1])
    assert torch.allclose(changed[0, 1], expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "each"}, "prompt_mode must be one of .*'each'"),
        ({"cold_start": "first"}, "cold_start must be one of"),
        ({"when_full": "stop"}, "when_full must be one of"),
        ({"length": 0}, "prompt_length must be at least 1, got 0"),
        ({"slots_per_slice": 3, "max_slots": 2}, "slots_per_slice=3 are more than max_slots=2"),
    ],
)
def test_arguments_that_do_not_work_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        pool_of(**settings)


def test_a_slice_without_queries_is_refused():
    with pytest.raises(ValueError, match="smaller min_context"):
        pool_of().open_slots(torch.zeros(0, SIZE))


def test_all_tensors_of_the_prompts_come_back_when_only_these_are_saved():
    """Strictly: a name that does not fit is an error and not a prompt left as it was."""
    model = build_model(slots=3, head_rank=2)
    with torch.no_grad():
        for parameter in model.pool.parameters():
            parameter.add_(torch.randn_like(parameter))
    saved = {name: tensor.clone() for name, tensor in model.pool.state_dict().items()}
    assert len(saved) == 4 + 3 * 9  # rows, key, usage, three of the head and of the types, of each
    other = build_model(seed=1, head_rank=2)  # another base, without slots
    other.pool.load_state_dict(saved, strict=True)
    assert len(other.pool) == 3
    for name, tensor in other.pool.state_dict().items():
        assert torch.equal(tensor, saved[name]), name
    # With the base of the first it is the first.
    base = {n: t for n, t in model.state_dict().items() if not n.startswith("pool.")}
    missing, unexpected = other.load_state_dict(base, strict=False)
    assert not unexpected
    assert all(name.startswith("pool.") for name in missing)
    batch = batch_of(sequences(2, 12))
    assert torch.equal(other.log_likelihood(batch), model.log_likelihood(batch))


@pytest.mark.parametrize("change", ["foreign name", "missing name", "other shape"])
def test_prompts_that_do_not_fit_are_refused(change):
    saved = build_model(slots=2).pool.state_dict()
    if change == "foreign name":
        saved["heads.0.key"] = saved["slots.0.key"]
    elif change == "missing name":
        del saved["slots.1.rows"]
    else:
        saved["slots.1.rows"] = saved["slots.1.rows"][:, :1]
    with pytest.raises(RuntimeError, match=r"heads\.0\.key|slots\.1\.rows"):
        build_model().pool.load_state_dict(saved)


def test_fewer_slots_than_there_are_can_be_loaded():
    model = build_model(slots=3)
    model.pool.load_state_dict(build_model(slots=1).pool.state_dict())
    assert len(model.pool) == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), clusters=st.integers(1, 5), count=st.integers(1, 30))
def test_centroids_are_the_means_of_the_points_nearest_to_them(seed, clusters, count):
    generator = torch.Generator().manual_seed(seed)
    cloud = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    centroids, counts = kmeans(cloud, clusters, generator)
    assert len(centroids) == min(clusters, count)
    assert int(counts.sum()) == count
    if clusters == 1:
        assert torch.allclose(centroids[0], cloud.mean(0))
    # What Lloyd's rounds cannot make worse: the cost is at most that of one centroid.
    cost = torch.cdist(cloud, centroids).amin(1).square().sum()
    assert cost <= (cloud - cloud.mean(0)).square().sum() + 1e-9


# ------------------------------------------------------------------------------ the query


def query_at(model, rows, **settings):
    return model.query(batch_of(rows, **settings))


def test_the_query_reads_neither_padding_nor_later_events_and_nothing_in_it_is_trained():
    model = build_model()
    assert list(model.query.parameters()) == []
    rows = sequences(3, [20, 4, 11])
    together = query_at(model, rows)
    assert not together.vectors.requires_grad
    for i, (gaps, types) in enumerate(rows):
        alone = query_at(model, [(gaps, types)])
        n = len(gaps) + 1
        for ours, single in zip(together, alone, strict=True):
            assert torch.equal(ours[i, :n], single[0])  # to the last bit
        cut = query_at(model, [(gaps[:3], types[:3])])
        assert torch.equal(cut.vectors[0], alone.vectors[0, :4])


def test_the_query_is_the_mean_of_its_features():
    model = build_model()
    gaps, types = sequences(1, 6)[0]
    query = query_at(model, [(gaps, types)])
    features = []
    for i in range(6):  # what one event adds, by differences of sums
        before, after = query.vectors[0, i] * i, query.vectors[0, i + 1] * (i + 1)
        features.append(after - before)
    # The same gap and pair of types give the same feature, wherever they stand.
    doubled = query_at(model, [([*gaps, gaps[4], gaps[5]], [*types, types[4], types[5]])])
    last = doubled.vectors[0, 8] * 8 - doubled.vectors[0, 7] * 7
    assert torch.allclose(last, features[5], atol=1e-5)


def test_padded_gaps_and_unknown_first_gaps_are_no_part_of_the_mean_gap():
    model = build_model()
    rows = [([0.5, 2.0, 3.5], [0, 1, 2]), ([4.0], [1])]
    known = query_at(model, rows, known=True).mean_gap
    assert known.tolist()[0] == pytest.approx([1.0, 0.5, 1.25, 2.0])
    assert known.tolist()[1][:2] == pytest.approx([1.0, 4.0])
    unknown = query_at(model, rows, known=False).mean_gap
    assert unknown.tolist()[0] == pytest.approx([1.0, 1.0, 2.0, 2.75])


def test_an_unknown_first_gap_is_no_part_of_the_query():
    model = build_model()
    one, other = ([[g, 2.0], [0, 1]] for g in (0.1, 50.0))
    assert torch.equal(
        query_at(model, [one], known=False).vectors, query_at(model, [other], known=False).vectors
    )
    assert not torch.equal(query_at(model, [one]).vectors, query_at(model, [other]).vectors)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), events=st.integers(1, 12))
def test_a_query_in_parts_is_the_query_of_the_whole(data, events):
    query = CausalQuery(4, size=8)
    batch = batch_of(sequences(2, events, seed=events), known=[True, False])
    whole = query(batch)
    cut = data.draw(st.integers(0, events))
    known = torch.ones_like(batch.mask)
    known[:, 0] = batch.first_known
    state = query.empty_state(2)
    for part in (slice(0, cut), slice(cut, events)):
        state, _ = query.extend(
            state, batch.types[:, part], batch.gaps[:, part], known=known[:, part]
        )
    last = query.query_of(state)
    for ours, expected in zip(last, whole, strict=True):
        assert torch.equal(ours[:, 0], expected[:, -1])
    after = query.state_after(batch)
    assert all(torch.equal(a, b) for a, b in zip(state[:3], after[:3], strict=True))


def test_queries_by_text_are_alike_for_types_that_read_alike():
    vectors = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    vectors[3] = vectors[2] + 0.01
    query = CausalQuery(4, size=32, type_vectors=vectors)
    gaps = [1.0] * 5
    at = [query(batch_of([(gaps, [k] * 5)])).vectors[0, -1] for k in range(4)]
    assert (at[3] - at[2]).norm() < 0.1 * (at[3] - at[0]).norm()


def test_new_types_leave_the_queries_of_the_others_as_they_were():
    batch = batch_of(sequences(2, 9))
    for vectors, new in ((None, None), (torch.randn(4, 20), torch.randn(2, 20))):
        query = CausalQuery(4, size=8, type_vectors=vectors)
        before = query(batch).vectors
        query.grow(6, new)
        assert torch.equal(query(batch).vectors, before)
    # By number, new types are what they would have been from the start.
    grown = CausalQuery(4, size=8)
    grown.grow(6)
    assert torch.equal(grown.codes, CausalQuery(6, size=8).codes)


def test_distances_are_in_units_of_how_queries_scatter_within_slices():
    # A direction in which all slices scatter widely says little about the slice.
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 0.5, 1.0, 1.0])
    pool = pool_of()
    centres = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]])
    for centre in centres:
        pool.open_slots(torch.randn(400, SIZE, generator=generator) * spread + centre)
    near_second = torch.tensor([[-4.0, 1.8, 0.0, 0.0]])
    assert torch.cdist(near_second, centres).argmin() == 0  # by plain distance
    query = Query(near_second[None], torch.tensor([[20]]), torch.ones(1, 1))
    assert pool.choose(query).visible[0].tolist() == [[False, True]]
    # Scatter within slices, not between them: the covariance is that of both together.
    expected = torch.cov((torch.randn(9000, SIZE, generator=generator) * spread).T)
    whitened = pool.metric.T @ expected.double() @ pool.metric
    assert (whitened - torch.eye(SIZE)).abs().max() < 0.3
