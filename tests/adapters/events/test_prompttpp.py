"""PromptTPPModel: what is trained when, what stays as it was, what it forgets."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from event_models import ENCODERS, N_TYPES, batch_of, build_model, sequences

from tsllm.adapters.events.prompttpp import HEAD_RANK, PromptTPPModel


def parameters_of(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def take_steps(model, batch, slots, *, base, steps=3, rate=0.05):
    model.train()
    for _ in range(steps):
        model.train_only(base=base, slots=slots)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=rate)
        total, count, _ = model.loss(batch, slots)
        (total / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def has_gradient(parameter):
    return parameter.grad is not None and float(parameter.grad.abs().sum()) > 0


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("mode", ["allocate", "shared"])
@pytest.mark.parametrize("name", ENCODERS)
def test_prompts_get_a_gradient_in_every_scheduled_step_and_not_in_the_first_only(
    name, mode, every
):
    settings = {"prompt_mode": mode, "max_slots": 3, "top_slots": 1 if mode == "allocate" else 2}
    model = build_model(name, slots=3, **settings).train()
    batch = batch_of(sequences(3, 20))
    active = [1] if mode == "allocate" else [0, 1, 2]
    for step in range(5):
        visible = model.retrieve(batch, active).visible  # (batch, positions, slots)
        matched = visible & (model.query(batch).counts >= model.pool.min_context)[..., None]
        scheduled = step % every == 0
        model.train_only(base=True, slots=active if scheduled else [])
        model.zero_grad()
        total, count, _ = model.loss(batch, active)
        (total / count).backward()
        for number, slot in enumerate(model.pool.slots):
            due = scheduled and number in active
            column = active.index(number) if number in active else 0
            assert has_gradient(slot.rows) == (due and bool(visible[..., column].any()))
            matching = due and mode == "shared" and bool(matched[..., column].any())
            assert has_gradient(slot.key) == matching
        assert all(p.grad is not None for p in model.encoder.embedding.time_layer.parameters())
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.01 * parameter.grad


@pytest.mark.parametrize("name", ENCODERS)
def test_training_a_slice_leaves_other_slots_and_a_frozen_base_bitwise_as_they_were(name):
    model = build_model(name, slots=3, head_rank=0 if name == "attnhp" else 2)
    before = parameters_of(model)
    take_steps(model, batch_of(sequences(4, 15, seed=5)), [2], base=False)
    for path, tensor in model.state_dict().items():
        own = path.startswith("pool.slots.2.") and not path.endswith((".key", ".usage"))
        own = own and ".guess." not in path  # counted after training
        assert torch.equal(tensor, before[path]) != own, path


def test_a_frozen_base_is_really_frozen_and_a_free_one_is_trained():
    """There is a setting that freezes the backbone, and it does."""
    model = build_model(slots=1)
    batch = batch_of(sequences(4, 15))
    before = parameters_of(model.encoder)
    take_steps(model, batch, [0], base=False)
    assert all(torch.equal(t, before[n]) for n, t in model.encoder.state_dict().items())
    take_steps(model, batch, [0], base=True)
    assert not all(torch.equal(t, before[n]) for n, t in model.encoder.state_dict().items())


def test_what_is_trained_is_either_of_the_base_or_of_the_prompts():
    def trained_of(model):
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    model = build_model(slots=3, head_rank=2)
    model.train_only(base=False, slots=[1])
    parts = ("rows", "head_down", "head_up", "head_bias")  # not the key
    assert trained_of(model) == {f"pool.slots.1.{part}" for part in parts}
    model.train_only(base=True)
    assert all(name.startswith(("encoder.", "decoder.")) for name in trained_of(model))
    assert len(trained_of(model)) == len(model.base_parameters())
    shared = build_model(prompt_mode="shared", max_slots=2)
    shared.train_only(base=False, slots=[1])
    assert trained_of(shared) == {"pool.slots.1.rows", "pool.slots.1.key"}


@pytest.mark.parametrize("name", ENCODERS)
def test_there_is_no_vote_over_the_batch(name):
    # Two sequences that want different prompts: each gets its own, whoever is the majority.
    model = build_model(name, slots=4)
    rows = sequences(5, 25)
    chosen = [tuple(model.retrieve(batch_of([r])).visible[0, -1].tolist()) for r in rows]
    assert len(set(chosen)) > 1
    with torch.no_grad():
        together = model.log_likelihood(batch_of(rows))
        for i, row in enumerate(rows):
            alone = model.log_likelihood(batch_of([row]))
            assert (together[i] - alone[0]).abs().max() <= 1e-5
    assert [tuple(v.tolist()) for v in model.retrieve(batch_of(rows)).visible[:, -1]] == chosen


def test_the_loss_is_minus_the_log_likelihood_an_event():
    model = build_model(slots=2)
    batch = batch_of(sequences(3, [9, 0, 4]), known=[True, True, False])
    total, count, extras = model.loss(batch)
    assert float(total.detach()) == pytest.approx(
        -float(model.log_likelihood(batch).detach().sum()), rel=1e-6
    )
    assert int(count) == 9 + 0 + 3  # the first gap of the last sequence is not known
    assert extras == {}


def test_the_matching_loss_is_added_in_proportion_to_events():
    batch = batch_of(sequences(3, 9))
    settings = {"prompt_mode": "shared", "max_slots": 4, "top_slots": 2}
    totals = []
    for coefficient in (0.0, 0.5):
        model = build_model(matching_coef=coefficient, **settings)
        total, _, extras = model.loss(batch)
        totals.append(float(total.detach()))
    positions = int(batch.scored.sum())
    added = 0.5 * float(extras["matching"]) * positions
    assert added > 0
    assert totals[1] - totals[0] == pytest.approx(added, rel=1e-3)


def test_slots_change_the_states_by_default_but_not_those_that_are_not_read():
    for decoder, rank in (("lognormal_mixture", HEAD_RANK), ("attnhp", 0)):
        model = PromptTPPModel(N_TYPES, decoder=decoder)
        assert model.pool.head_rank == rank


def test_slice_queries_are_those_with_enough_events():
    model = build_model()
    batches = [batch_of(sequences(2, [12, 8])), batch_of(sequences(1, 11))]
    assert model.slice_queries(batches).shape == (3 + 0 + 2, 16)  # from the tenth event on
    short = [batch_of(sequences(2, [3, 2]))]
    assert model.slice_queries(short).shape == (5, 16)  # better than none
    assert model.slice_queries([batch_of(sequences(1, 0))]).shape == (0, 16)


@pytest.mark.parametrize("decoder", ["lognormal_mixture", "rmtpp", "exponential", "attnhp"])
def test_new_types_leave_the_scores_of_the_others_nearly_as_they_were(decoder):
    model = build_model(slots=2, decoder=decoder)
    batch = batch_of(sequences(2, 9))
    before = model.log_likelihood(batch).sum()
    model.grow_types(6)
    grown = model.log_likelihood(batch).sum()
    assert model.n_types == 6
    # Some probability goes to the new types, and none comes from anywhere.
    assert before - 9 * 2 * np.log(2.5) < grown < before + (50 if decoder == "exponential" else 0)
    rows = [([1.0, 0.5], [5, 0])]
    take_steps(model, batch_of(rows), [0], base=True)
    assert model.log_likelihood(batch_of(rows)).isfinite().all()


@pytest.mark.parametrize("name", ["llm", "llm aaren", "llm-full"])
def test_new_types_with_a_text_are_read_at_once(name):
    model = build_model(name, slots=1)
    batch = batch_of(sequences(2, 9))
    width = model.query.vectors.table.shape[1]
    with torch.no_grad():
        before = model.encode(batch).hidden
        with pytest.raises(ValueError, match="2 new types need 2 type_vectors here, and 0"):
            model.grow_types(6)
        model.grow_types(6, torch.randn(2, width))
        assert torch.equal(model.encode(batch).hidden, before)
        assert model.log_likelihood(batch_of([([1.0, 0.5], [5, 4])])).isfinite().all()


def test_types_cannot_be_taken_away():
    with pytest.raises(ValueError, match="n_types=3 is less than the 4 there are"):
        build_model().grow_types(3)
    with pytest.raises(ValueError, match="1 new types need 0 type_vectors here, and 1"):
        build_model().grow_types(5, torch.zeros(1, 3))


def test_a_saved_model_is_loaded_with_its_slots():
    model = build_model("aaren", slots=3, head_rank=1)
    other = build_model("aaren", seed=9, head_rank=1)
    other.load_state_dict(model.state_dict(), strict=True)
    batch = batch_of(sequences(2, 12))
    assert torch.equal(other.log_likelihood(batch), model.log_likelihood(batch))
    copied = copy.deepcopy(model)
    assert torch.equal(copied.log_likelihood(batch), model.log_likelihood(batch))


def test_static_covariates_are_read_and_are_asked_for():
    model = build_model(context_features=2)
    rows = sequences(2, 9)
    batch = batch_of(rows)
    with pytest.raises(ValueError, match="reads 2 static covariates"):
        model.encode(batch)
    contexts = [torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([[0.0, 1.0], [5.0, 3.0]])]
    with torch.no_grad():
        one, other = (model.encode(_with_context(batch, c)).hidden for c in contexts)
        assert torch.equal(one[0], other[0])
        assert (one[1] - other[1]).abs().amax(-1).min() > 1e-4
        history = batch_of([(g[:5], k[:5]) for g, k in rows])
        stream, _ = model.init_state(_with_context(history, contexts[0]))
        _, states = model.step(stream, batch.types[:, 5], batch.gaps[:, 5])
        assert (states.hidden[:, 0] - one[:, 6]).abs().max() <= 1e-5


def _with_context(batch, context):
    import dataclasses

    return dataclasses.replace(batch, context=context)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "rnn"}, "encoder must be one of .*'rnn'"),
        ({"decoder": "thp"}, "decoder must be one of .*'thp'"),
        ({"encoder": "llm", "text_encoder": "rnn"}, "text_encoder must be one of .*'rnn'"),
        ({"encoder": "llm"}, "encoder='llm' needs type_vectors"),
        ({"type_vectors": torch.zeros(4, 3)}, "encoder='attention' takes no type_vectors"),
        ({"encoder": "llm", "type_vectors": torch.zeros(3, 3)}, "3 type_vectors for 4 types"),
        ({"encoder": "llm-full", "type_vectors": torch.zeros(4, 3)}, "needs a backbone"),
        ({"encoder": "aaren", "decoder": "attnhp"}, "use it with encoder='attention'"),
        ({"decoder": "attnhp", "head_rank": 2}, "use head_rank=0 with it"),
        ({"hidden": 30}, "hidden=30 must be a multiple of heads=4"),
        ({"encoder": "aaren", "hidden": 30}, "hidden=30 must be a multiple of heads=4"),
        ({"time_features": 6}, "time_features=6 must be a multiple of 4"),
        ({"median_gap": 0.0}, "median_gap=0.0 must be a positive number"),
    ],
)
def test_arguments_that_do_not_go_together_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PromptTPPModel(N_TYPES, **settings)


@pytest.mark.parametrize("known", [True, False])
def test_where_all_slots_are_read_the_choice_needs_no_query(known):
    model = build_model("attention", slots=2)
    batch = batch_of(sequences(3, 20))
    batch = replace(batch, first_known=torch.full_like(batch.first_known, known))
    query = model.query(batch)
    assert torch.equal(model.query.mean_gaps(batch), query.mean_gap)
    chosen, wanted = model.retrieve(batch, [1]), model.pool.choose(query, [1])
    assert bool(chosen.visible.all()) and torch.equal(chosen.visible, wanted.visible)
    assert torch.equal(chosen.mean_gap, wanted.mean_gap) and chosen.numbers == (1,)
    assert model.retrieve(batch, []) is None
    assert model.pool.needs_query() and not model.pool.needs_query([1])
