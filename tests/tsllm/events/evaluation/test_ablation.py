"""Ablations of PromptTPP: which variants there are, and verdicts where the truth is known."""

import json

import numpy as np
import pytest
from small_events import halves, small_prompttpp, stream

from tsllm.datasets import make_drift
from tsllm.errors import DataError
from tsllm.events import HawkesForecaster, ablate
from tsllm.events.evaluation.ablation_report import (
    GIVEN,
    METRICS,
    Scored,
    make_event_ablation_report,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*next to zero")


@pytest.fixture(scope="module")
def report():
    estimator = small_prompttpp("llm", max_epochs=1)
    return ablate(estimator, halves(t_end=40, n_sequences=12), seeds=(0, 1))


def test_arms_differ_in_one_thing(report):
    assert report.table["variant"].tolist() == [
        "given", "shared, freeze", "none, full", "allocate, full", "random text", "no text",
        "hawkes", "naive",
    ]  # fmt: skip
    assert report.settings["unit"] == "sequences"
    assert report.left_out == {}
    # the types' vectors are read, so that there is nothing frozen without a language model
    frozen = report.costs["frozen_parameters"]
    assert frozen["random text"] == frozen["given"] > frozen["no text"] == 0
    assert (
        report.costs.loc["given", "trained_parameters"]
        == (report.costs.loc["random text", "trained_parameters"])
    )


def test_the_given_arm_is_what_the_estimator_makes_of_the_test_parts(report):
    slices = halves(t_end=40, n_sequences=12)
    from tsllm.events.evaluation.continual import split_slice

    parts = [split_slice(part, (0.7, 0.1, 0.2), k) for k, part in enumerate(slices)]
    types = ["bark", "bite"]
    found = []
    for seed in (0, 1):
        model = small_prompttpp("llm", max_epochs=1, random_state=seed)
        for k, part in enumerate(parts):
            known = types if k == 0 else None
            model.partial_fit(part.train, validation=part.validation, types=known)
        tests = [
            model.evaluate(p.whole, t_start=p.whole.clock.to_stamp(p.test_from)) for p in parts
        ]
        weights = [one.events for one in tests]
        found.append([np.average([t[m] for t in tests], weights=weights) for m in METRICS])
    row = report.table.iloc[0]
    assert row["events"] == sum(weights)
    np.testing.assert_allclose([row[m] for m in METRICS], np.mean(found, axis=0), rtol=1e-6)


def test_json_markdown_text_and_picture(report):
    document = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert document["verdict"] == report.verdict
    assert len(document["differences"]) == 7 * len(METRICS)
    text = report.to_markdown()
    assert report.verdict in text
    assert text.count("| no text | ") == 1 + 3
    assert "intervals over sequences and seeds" in text
    assert str(report).startswith(report.verdict)
    labels = [tick.get_text() for tick in report.plot().get_yticklabels()]
    assert labels == report.table["variant"].tolist()[1:]


def test_arms_that_cannot_be_are_named():
    one = ablate(small_prompttpp(max_epochs=1), [stream()], seeds=[0], baselines=[])
    assert one.left_out == {
        "allocate, full": "with one slice nothing is learnt after the base",
        "text": "encoder='attention' reads no texts",
    }
    assert one.settings["unit"] == "stretches of events"  # three sequences are too few
    assert any("one seed" in note for note in one.notes)
    plain = small_prompttpp(max_epochs=1, prompt_mode="none", base_update="full")
    none = ablate(plain, halves(), variants=["base"], seeds=[0], baselines=[])
    assert none.left_out == {
        "none, freeze": "without prompts a frozen base learns nothing of later slices"
    }
    assert none.table["variant"].tolist() == ["given"]
    full = small_prompttpp("llm-full", max_epochs=1)
    read = ablate(full, [stream()], variants=["text"], seeds=[0], baselines=[])
    assert read.table["variant"].tolist() == ["given", "random text", "no text"]
    assert any("reads the events with a small encoder" in note for note in read.notes)


def scored(rng, shift, *, sequences=30, events=20, seeds=2, common):
    losses = common + shift + 0.1 * rng.normal(size=(seeds, 3, sequences * events))
    names = np.repeat([f"s{i:02}" for i in range(sequences)], events)
    ones = np.ones(len(names))
    ends = np.tile(np.arange(float(events)), sequences)
    return Scored(losses, ones, names, ends, np.zeros(len(names), dtype=int))


def judged(shifts, seed=0):
    rng = np.random.default_rng(seed)
    common = np.repeat(rng.normal(size=30), 20)  # what a sequence has, all variants see
    variants = {variant: scored(rng, shift, common=common) for variant, shift in shifts.items()}
    settings = {"estimator": "it", "seeds": [0, 1], "min_difference": 0.01, "confidence": 0.95}
    controls = {"prompts": "none, full", "text": "no text"}
    return make_event_ablation_report(
        variants, {GIVEN: {"fit_seconds": 1.0}}, {}, settings, controls=controls
    )


@pytest.mark.parametrize(
    ("shifts", "answer"),
    [
        ((-0.2, -0.2, -0.2), "prompts: yes; text: yes"),
        ((0.2, 0.2, 0.2), "prompts: harm; text: harm"),
        ((-0.2, 0.2, -0.2), "prompts: yes; text: architecture"),
    ],
)
def test_verdicts_are_right_where_the_differences_are_known(shifts, answer):
    none, random, index = shifts
    report = judged({GIVEN: 0.0, "none, full": none, "random text": random, "no text": index})
    assert report.answer == answer
    own = report.differences.query("metric == 'log_likelihood'").set_index("method_a")
    for variant, truth in (("none, full", none), ("random text", random), ("no text", index)):
        assert own.loc[variant, "difference"] == pytest.approx(truth, abs=0.02)


def test_equal_arms_are_seldom_told_apart():
    equal = {GIVEN: 0.0, "none, full": 0.0, "random text": 0.0, "no text": 0.0}
    claims = sum(
        part.split(": ")[1] not in ("no", "undecided")
        for seed in range(40)
        for part in judged(equal, seed).answer.split("; ")
    )
    assert claims <= 6  # of eighty


def test_prompts_help_on_a_stream_that_changes():
    drift = make_drift(n_slices=2, n_types=3, n_sequences=16, random_state=0)
    slices = [one.events for one in drift]
    estimator = small_prompttpp(hidden=16, max_epochs=20, head_rank=4)
    report = ablate(estimator, slices, variants=["prompts"], seeds=[0], baselines=[])
    assert report.answer == "prompts: yes"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"estimator": HawkesForecaster()}, "estimator must be a PromptTPP, found Hawkes"),
        ({"slices": []}, "slices is empty"),
        ({"variants": ["none"]}, "variants must be among prompts, base, text, found 'none'"),
        ({"baselines": ["poisson"]}, "baselines must be among hawkes, naive"),
        ({"seeds": 3}, "seeds must be a list of whole numbers"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"min_difference": -1}, "min_difference must be at least 0"),
        ({"confidence": 1.0}, "confidence must be above 0"),
    ],
)
def test_arguments_that_are_refused(arguments, words):
    given = {"estimator": small_prompttpp(backbone=None), "slices": halves()} | arguments
    with pytest.raises(DataError, match=words):
        ablate(given.pop("estimator"), given.pop("slices"), **given)
