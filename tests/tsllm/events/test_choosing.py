"""What a later slice changes of PromptTPP, what is kept of earlier slices, types and calendar."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from small_events import halves, small_prompttpp, stream

import tsllm
from tsllm.adapters.events.batch import EventStates
from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.adapters.events.type_guess import MOST_FOLLOWED, TypeGuess
from tsllm.datasets import make_poisson, read_events
from tsllm.errors import DataError
from tsllm.events.prompttpp import trainer
from tsllm.events.prompttpp.calendar import periods_to_try
from tsllm.events.prompttpp.choosing import Candidate, Losses, choose, measure
from tsllm.events.prompttpp.memory import FULL_SLICES
from tsllm.events.prompttpp.trainer import _Slice


def weights(model):
    return {name: value.clone() for name, value in model.model_.state_dict().items()}


def changed(before, after):
    return {name for name, value in after.items() if not value.equal(before.get(name, value + 1))}


def learnt(chosen=None, monkeypatch=None, **parameters):
    """A model of two slices; ``chosen`` is what the second changes."""
    if chosen is not None:
        monkeypatch.setattr(trainer, "choose", lambda candidates, lost: chosen)
    first, second = halves(t_end=60)
    model = small_prompttpp(base_update="auto", validation_fraction=0.2, **parameters).fit(first)
    before = weights(model)
    return model.partial_fit(second), before, (first, second)


# ---------------------------------------------------------------------- the choice


def candidates(losses, spread=0.0):
    """Candidates with these mean losses on a slice and on an earlier one, 100 events each.

    Differences between them vary from event to event by ``spread``.
    """
    sign = np.tile([1.0, -1.0], 50)
    return {
        name: Candidate(
            None,
            [],
            None,
            {at: Losses(mean + place * spread * sign, 100) for at, mean in ((1, new), (0, old))},
        )
        for place, (name, (new, old)) in enumerate(losses.items())
    }


@pytest.mark.parametrize(
    ("losses", "chosen"),
    [
        ({"nothing": [2.0, 2.0], "slot": [1.5, 2.0], "network": [1.6, 2.0]}, "slot"),
        ({"nothing": [2.0, 2.0], "slot": [1.5, 2.0], "network": [1.6, 1.7]}, "network"),
        ({"nothing": [2.0, 2.0], "slot": [2.1, 2.0], "network": [1.6, 2.0]}, "network"),
        # What is forgotten counts twice.
        ({"nothing": [2.0, 2.0], "slot": [1.5, 2.0], "network": [1.0, 2.3]}, "slot"),
        ({"nothing": [2.0, 2.0], "slot": [1.0, 2.5]}, "nothing"),
        # A gain of next to nothing is none.
        ({"nothing": [2.0, 2.0], "slot": [1.999, 2.0], "network": [2.1, 2.0]}, "nothing"),
    ],
)
def test_the_least_loss_over_all_slices_is_chosen(losses, chosen):
    assert choose(candidates(losses), {0: 0.0}) == chosen


def test_a_greater_change_must_gain_more_than_the_standard_error():
    losses = {"nothing": [2.0, 2.0], "slot": [1.9, 2.0]}  # .05 in the mean of two slices
    # Differences that vary by .5: .05 on each of the slices, .035 on their mean.
    assert choose(candidates(losses, spread=0.5), {0: 0.0}) == "slot"
    assert choose(candidates(losses, spread=1.0), {0: 0.0}) == "nothing"
    losses["network"] = [1.85, 2.0]  # better than "nothing" by its error, not than "slot"
    assert choose(candidates(losses, spread=0.5), {0: 0.0}) == "slot"


def test_what_a_slice_lost_before_counts_where_a_change_would_win_it_back():
    losses = {"nothing": [2.0, 2.0], "slot": [1.98, 2.01], "network": [2.0, 1.99]}
    assert choose(candidates(losses), {0: 0.0}) == "nothing"
    assert choose(candidates(losses), {0: 0.1}) == "network"


def test_measured_losses_are_those_of_the_score():
    table = stream(t_end=60)
    model = small_prompttpp(max_epochs=1).fit(table)
    rows = model._trainer().rows(table)
    found = [measure(model.model_, rows, size, torch.device("cpu")) for size in (1, 16)]
    scaled = model.score(table) + np.log(model.time_scale_)
    for one in found:
        assert one.events == table.n_events  # the windows are known
        assert one.mean == pytest.approx(-scaled, abs=1e-4)
        assert len(one.intervals) == table.n_events + len(table)  # with those to the windows' ends


def test_nothing_to_learn_leaves_the_model_bit_for_bit(monkeypatch):
    model, before, _ = learnt("nothing", monkeypatch)
    assert not changed(before, weights(model))
    record = model.slices_[1]
    assert record["chosen"] == "nothing" and record["slots"] == [] and record["steps"] == 0
    assert set(record["losses"]) == {"nothing", "slot", "network"}
    assert record["validation_loss"] == pytest.approx(record["losses"]["nothing"]["slice"])
    assert model.summary()["changed"] == ["network", "nothing"]
    assert model.predict()["time"].notna().all() and len(model.retrieve())


def test_a_new_slot_begins_as_the_best_one_and_leaves_the_network(monkeypatch):
    model, before, _ = learnt("slot", monkeypatch, learning_rate=1e-9, prompt_learning_rate=1e-9)
    new = changed(before, weights(model))
    assert new and all(name.startswith("pool.") for name in new)
    assert not any(name.startswith("pool.slots.0.") for name in new)
    old, own = model.model_.pool.slots
    assert torch.allclose(old.rows, own.rows, atol=1e-6) and not old.key.equal(own.key)
    assert model.slices_[1]["slots"] == [1]


def test_a_full_pool_trains_its_own_slot_further(monkeypatch):
    with pytest.warns(UserWarning, match="slot 0 is trained further"):
        model, before, _ = learnt(
            "slot",
            monkeypatch,
            max_slots=1,
            learning_rate=1e-9,
            prompt_learning_rate=1e-9,
        )
    assert torch.allclose(model.model_.pool.slots[0].rows, before["pool.slots.0.rows"], atol=1e-6)
    assert len(model.model_.pool) == 1


def test_the_network_trains_on_with_its_slots(monkeypatch):
    model, before, _ = learnt("network", monkeypatch)
    new = changed(before, weights(model))
    assert any(name.startswith("encoder.") for name in new)
    assert {"pool.slots.0.rows"} <= new and "pool.slots.0.key" not in new
    assert len(model.model_.pool) == 1 and model.slices_[1]["slots"] == []


def test_without_a_memory_the_network_stays():
    model, before, _ = learnt(memory_events=0)
    assert set(model.slices_[1]["losses"]) == {"nothing", "slot"}
    assert all(name.startswith("pool.") for name in changed(before, weights(model)))
    assert model.summary()["kept_events"] == 0


def test_without_validation_a_slice_gets_its_slot():
    first, second = halves()
    model = small_prompttpp(base_update="auto", validation_fraction=0).fit(first)
    model.partial_fit(second)
    assert [one["chosen"] for one in model.slices_] == ["network", "slot"]


def test_one_seed_one_choice_and_a_loaded_model_learns_on_alike(tmp_path):
    (model, _, _), (again, _, _) = learnt(), learnt()
    assert not changed(weights(model), weights(again))
    assert model.slices_[1]["losses"] == again.slices_[1]["losses"]
    tsllm.save(model, tmp_path / "model")
    loaded = tsllm.load(tmp_path / "model")
    third = stream(t_end=60, seed=7)
    assert not changed(weights(model.partial_fit(third)), weights(loaded.partial_fit(third)))
    assert model.slices_[2]["losses"] == loaded.slices_[2]["losses"]


# ---------------------------------------------------------------------- the memory


def test_the_memory_is_small_and_goes_where_the_history_goes(tmp_path):
    model, _, (first, second) = learnt(memory_events=40)
    memory = model._memory
    for number in (0, 1):
        for checks in (True, False):
            table, score_from = memory.select(checks=checks, number=number)
            assert 0 < table.n_events <= 20
            assert np.isnan(score_from).all() != checks  # validation events follow history
    seen = {float(t) for part in (first, second) for times in part.times for t in times}
    kept = memory.table.clock.to_stamp(np.concatenate(memory.table.times))
    assert {float(t) for t in kept} <= seen
    tsllm.save(model, tmp_path / "bare", include_context=False)
    assert tsllm.load(tmp_path / "bare")._memory is None
    for number in range(2, FULL_SLICES + 4):
        rows = model._trainer().rows(stream(t_end=60, seed=number))
        memory = memory.add(number, rows, rows, 40, seed=0)
        assert memory.table.n_events <= 40 * FULL_SLICES
    assert len(set(memory.slices.tolist())) == FULL_SLICES + 4


def test_kept_parts_may_begin_among_events_of_one_time():
    times = np.repeat(np.arange(1.0, 31.0), 2)  # each time twice
    frame = pd.DataFrame({"time": times, "type": ["a", "b"] * 30})
    first, second = frame.iloc[:30], frame.iloc[30:]
    ties = {"ties": "batch", "resolution": 0.1, "validation_fraction": 0.2}
    model = small_prompttpp(base_update="auto", memory_events=14, **ties).fit(first)
    memory = model.partial_fit(second)._memory
    assert memory.table.n_events > 0
    for start, own in zip(memory.table.starts, memory.table.times):
        assert np.isnan(start) or start < own[0]
    assert len(model.predict()) == 1


def test_the_memory_says_what_each_slice_has_lost_since_it_was_best():
    model, _, _ = learnt()
    memory = model._memory
    assert memory.lost[1] == 0.0  # just learnt
    lost = [memory.after({0: change}).lost[0] for change in (0.25, -9.0)]
    assert lost == pytest.approx([memory.lost[0] + 0.25, 0.0])


# ---------------------------------------------------------------------- the types


def test_counted_types_are_those_after_each_type_or_of_all():
    guess = TypeGuess(3)
    guess.count(torch.tensor([0, 1, 0, 1, 0]), torch.tensor([-1, 0, 1, 0, 1]))
    found = guess.probabilities(torch.tensor([0, 1, 2, -1]))
    assert found.sum(-1).tolist() == pytest.approx([1, 1, 1, 1])
    assert found.argmax(-1).tolist() == [1, 0, 0, 0]
    guess.lean.fill_(1e9)  # the frequencies of all types alone
    assert guess.probabilities(torch.tensor([0])).argmax() == 0
    guess.grow(1)
    assert guess.probabilities(torch.tensor([3])).shape == (1, 4)


def test_types_that_grow_beyond_those_followed_are_counted_as_a_model_of_so_many_counts_them():
    guess = TypeGuess(MOST_FOLLOWED)
    guess.count(torch.tensor([0, 1, 0]), torch.tensor([-1, 0, 1]))
    guess.grow(2)
    other = TypeGuess(MOST_FOLLOWED + 2)
    other.load_state_dict(guess.state_dict())  # as a saved model is loaded
    assert other.counts.shape == (1, MOST_FOLLOWED + 2)
    assert other.counts[0, :3].tolist() == [2, 1, 0]


def test_predicted_types_are_no_worse_than_their_frequencies():
    """Types that alternate: a count knows the next one, a network of one epoch does not."""
    times = np.arange(1.0, 201.0) + np.random.default_rng(0).uniform(0, 0.5, 200)
    table = read_events(pd.DataFrame({"time": times, "type": ["a", "b"] * 100}))
    train, later = table.split((0.8, 0.2))
    model = small_prompttpp(max_epochs=1).fit(train, validation=later)
    assert float(model.model_.pool.guesses[0].share) > 0.5
    found = model.evaluate(table, t_start=float(train.times[0][-1]))
    assert found["type_error"] == 0
    assert model.predict_proba()["a"].iloc[0] > 0.8
    model.update(pd.DataFrame({"time": [201.7], "type": ["a"]}))
    assert model.predict_proba()["b"].iloc[0] > 0.8  # from the running state
    assert model.sample(n_paths=2, n_events=6)["type"].value_counts().min() > 2


@pytest.mark.parametrize("encoder", ["attention", "aaren"])
def test_running_states_mix_the_types_as_batches_do_where_only_some_slots_have_a_share(encoder):
    def regime(name, gap, kinds):
        times = np.arange(1, 41) * gap
        return pd.DataFrame({"sequence_id": name, "time": times, "type": kinds * 20})

    slow, fast = regime("slow", 2.0, ["a", "b"]), regime("fast", 0.1, ["b", "b"])
    model = small_prompttpp(encoder, max_epochs=1).fit(slow)
    model.partial_fit(fast)  # only its sequence continues
    for guess, share in zip(model.model_.pool.guesses, (0.0, 0.7), strict=True):
        guess.share.fill_(share)
    model.update(slow.iloc[:9])  # with "attention", "fast" has no running state here
    for later in (4.1, 4.2):
        shown = model.retrieve().query("retrieved").set_index("sequence_id")["slot"]
        assert shown.to_dict() == {"fast": 1, "slow": 0}
        anew = model.predict_proba(model.history_)
        pd.testing.assert_frame_equal(model.predict_proba(), anew, rtol=1e-4)
        model.update(fast.iloc[:1].assign(time=later))


def test_models_without_counted_types_still_load():
    model = PromptTPPModel(3, hidden=8, heads=2, layers=1)
    model.pool.open_slots(torch.randn(20, 64))
    saved = {name: v for name, v in model.state_dict().items() if ".guess." not in name}
    fresh = PromptTPPModel(3, hidden=8, heads=2, layers=1)
    fresh.load_state_dict(saved, strict=True)
    assert fresh.pool.slots[0].rows.equal(model.pool.slots[0].rows)
    states = EventStates(torch.randn(1, 2, 8))
    assert torch.isfinite(fresh.decoder.type_log_probabilities(states)).all()


# ---------------------------------------------------------------------- the calendar


def cycles(days=40, *, seed=0, swing=0.9, dated=True):
    """Hours of a Poisson process whose rate follows the day, in one sequence."""
    sim = make_poisson(
        lambda t: 0.5 * (1 + swing * np.sin(2 * np.pi * t / 24)),
        bound=1.0,
        t_end=24.0 * days,
        random_state=seed,
    )
    frame = sim.events.to_frame()[["time", "type"]]
    if dated:
        frame["time"] = pd.Timestamp("2024-03-04") + pd.to_timedelta(frame["time"], unit="h")
    return read_events(frame, time_unit="h")


def test_a_period_is_tried_where_its_rates_help_later():
    assert periods_to_try(*cycles().split((0.8, 0.2))) == ["day"]
    assert periods_to_try(*cycles(swing=0.0).split((0.8, 0.2))) == []
    assert periods_to_try(*cycles(dated=False).split((0.8, 0.2))) == []
    assert periods_to_try(*cycles(days=2).split((0.8, 0.2))) == []


def test_the_calendar_is_followed_event_by_event(tmp_path):
    table = cycles(days=8)
    first, later = table.split((0.9, 0.1))
    settings = {"max_epochs": 3, "learning_rate": 0.03, "time_unit": "h"}
    model = small_prompttpp(calendar=["day"], **settings).fit(first)
    assert model.calendar_ == {"day": pytest.approx(24 / model.time_scale_)}
    with torch.no_grad():  # far from nothing
        model.model_.calendar.outer.weight.normal_()
    assert model.score(first) != pytest.approx(
        small_prompttpp(calendar=None, **settings).fit(first).score(first)
    )
    frame = later.to_frame().drop(columns=["window_start"])
    for row in range(len(frame)):
        model.update(frame.iloc[[row]])
    stepped, anew = model.predict(), model.predict(table)
    gap = (stepped["time"] - anew["time"]).abs().max()
    assert gap < pd.Timedelta(seconds=1)
    tsllm.save(model, tmp_path / "model")
    pd.testing.assert_frame_equal(tsllm.load(tmp_path / "model").predict(table), anew)
    # Six hours later the rate is another.
    shifted = dataclasses.replace(
        table,
        clock=dataclasses.replace(table.clock, origin=table.clock.origin + pd.Timedelta(hours=6)),
    )
    assert model.score(shifted) != pytest.approx(model.score(table), abs=1e-3)
    with pytest.raises(DataError, match="follows the calendar, and the times of these events"):
        model.predict(cycles(days=2, dated=False))


def test_the_calendar_of_a_sequence_does_not_depend_on_the_others():
    model = small_prompttpp(calendar=["day"], max_epochs=1, time_unit="h").fit(cycles(days=4))
    with torch.no_grad():
        model.model_.calendar.outer.weight.normal_()
    noon = pd.DatetimeIndex(["2024-06-03 12:00", "2024-06-03 12:30"]).tz_localize("Europe/Berlin")
    summer = pd.DataFrame({"sequence_id": "summer", "time": noon, "type": model.classes_[0]})
    # Its first event sets the clock's origin, in winter time.
    winter = summer.assign(sequence_id="winter", time=noon - pd.Timedelta(days=140))
    one = model.predict(summer)
    both = model.predict(pd.concat([winter, summer])).query("sequence_id == 'summer'")
    assert (both["time"].iloc[0] - one["time"].iloc[0]).total_seconds() == pytest.approx(0, abs=0.1)
    clock = read_events(pd.concat([winter, summer]), time_unit="h").clock
    np.testing.assert_allclose(clock.calendar_times(clock.to_number(noon)) % 24, [12, 12.5])


def test_an_unknown_period_is_refused():
    for bad in ("daily", ["month"], 24):
        with pytest.raises(DataError, match="calendar must"):
            small_prompttpp(calendar=bad).fit(cycles(days=2))
    with pytest.raises(DataError, match="needs timestamps"):
        small_prompttpp(calendar=["day"]).fit(cycles(days=2, dated=False))


def test_notes_say_what_was_chosen_and_why(monkeypatch):
    model, _, (first, second) = learnt("slot", monkeypatch)
    notes = model.slice_notes()
    assert list(notes) == [1] and notes[1].startswith("chose 'slot' by validation loss")
    assert all(f"{name} " in notes[1] for name in ("nothing", "slot", "network"))
    report = tsllm.events.evaluate_stream(model, [first, second], baselines=[])
    assert any("slice 1 chose 'slot'" in note for note in report.notes)


@pytest.mark.parametrize(
    ("sequences", "events", "rows", "steps"),
    [
        (1, 20, 10, 150),  # few events: steps enough
        (120, 50, 4, 450),  # 15 passes
        (2000, 1, 200, 150),
        (6000, 100, 2, 3000),  # many events: no more steps than these, so one pass
        (3000, 100, 2, 3000),
    ],
)
def test_the_budget_of_a_slice_is_in_steps(sequences, events, rows, steps):
    trainer = small_prompttpp(max_epochs="auto", batch_size="auto", random_state=0)
    trainer = trainer.fit(cycles(days=2, dated=False))._trainer()

    class Rows:
        lengths = np.full(sequences, events)

        def batches(self, batch_size, generator):
            return torch.arange(sequences).split(batch_size)

    part = _Slice(0, Rows(), None, None, {}, "")
    settings = trainer._settings(part, True, True)
    assert settings.batch_size == rows
    assert settings.max_epochs * -(-sequences // rows) == steps
