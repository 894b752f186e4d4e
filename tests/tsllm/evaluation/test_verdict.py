"""The verdict: each rule, and how often it is wrong where nothing differs."""

import numpy as np
import pytest
from paired_differences import BETTER, OPEN, SAME, UNKNOWN, WORSE, pair

from tsllm.evaluation.paired import estimate
from tsllm.evaluation.verdict import ANSWERS, amount, classify, judge, judge_baselines, judge_naive


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (WORSE, "worse"),
        (BETTER, "better"),
        (SAME, "same"),
        (OPEN, "open"),
        (UNKNOWN, "open"),
        (pair(0.004, 0.001, 0.007), "same"),  # told from 0, and too small to matter
        (pair(0.006, 0.001, 0.011), "open"),  # told from 0, and whether it matters is not
        (pair(0.0, 0.0, 0.0), "same"),
    ],
)
def test_classes(found, expected):
    assert classify(found, 0.01) == expected


@pytest.mark.parametrize(
    ("controls", "answer", "words"),
    [
        ({"none": BETTER}, "harm", "No. On this data the language model does harm: without it"),
        ({"none": SAME, "random": WORSE}, "no", "and less than 1 % counts as none"),
        ({"none": OPEN, "random": WORSE}, "undecided", "which may be chance"),
        ({"none": UNKNOWN}, "undecided", "the test part is too short for an interval"),
        ({"none": WORSE}, "unclear", "no variant put something else in its place"),
        ({"none": WORSE, "random": WORSE, "attention": WORSE}, "yes", "Yes. The language model"),
        ({"none": WORSE, "random": SAME, "attention": WORSE}, "architecture", "Not the language"),
        ({"none": WORSE, "random": WORSE, "transformer": BETTER}, "architecture", "10.0 % lower"),
        (
            {"none": OPEN, "random": OPEN, "transformer": BETTER},
            "architecture",
            "transformer block",
        ),
        ({"none": SAME, "attention": BETTER}, "architecture", "with one trained attention layer"),
        ({"none": BETTER, "attention": BETTER}, "harm", "In its place better as well: with one"),
        ({"none": WORSE, "random": OPEN, "attention": WORSE}, "unclear", "cannot be told"),
        ({"none": WORSE, "random": OPEN, "attention": SAME}, "architecture", "attention layer"),
    ],
)
def test_rules(controls, answer, words):
    verdict = judge(controls, min_difference=0.01)
    assert verdict.answer == answer
    assert answer in ANSWERS
    assert words in verdict.text
    assert amount(controls["none"]) in verdict.text


def test_something_in_its_place_is_better_by_corrected_intervals_only():
    controls = {"none": OPEN, "attention": BETTER, "transformer": OPEN}
    strict = {"attention": pair(-0.10, -0.21, 0.01), "transformer": OPEN}
    assert judge(controls, min_difference=0.01, strict=strict).answer == "undecided"
    worse = controls | {"none": WORSE, "transformer": WORSE}
    assert judge(worse, min_difference=0.01, strict=strict).answer == "unclear"


def test_the_least_difference_that_matters_is_the_users():
    small = {"none": pair(0.02, 0.01, 0.03)}
    assert judge(small, min_difference=0.01).answer == "unclear"
    assert judge(small, min_difference=0.05).answer == "no"


def test_amounts_in_words():
    assert amount(BETTER) == "10.0 % lower [-15.0 %, -5.0 %]"
    assert amount(UNKNOWN) == "50.0 % higher"


def test_baselines_that_are_better_are_named():
    found = judge_baselines({"seasonal_naive": OPEN, "dlinear": BETTER}, min_difference=0.01)
    assert "Better than the language model here: dlinear." in found
    assert judge_baselines({"seasonal_naive": WORSE}, min_difference=0.01) == [
        "Beside it, the error of simpler methods: seasonal_naive 10.0 % higher [+5.0 %, +15.0 %]."
    ]
    assert judge_baselines({}, min_difference=0.01) == []


def test_what_beats_repeating_the_last_season_is_said_where_the_language_model_does_not():
    assert judge_naive({"pretrained": BETTER, "none": OPEN}, min_difference=0.01) == []
    (one,) = judge_naive({"pretrained": OPEN, "none": BETTER, "random": SAME}, min_difference=0.01)
    assert one.endswith("last season; none can.")
    (other,) = judge_naive({"pretrained": WORSE, "none": SAME}, min_difference=0.01)
    assert other.startswith("Nothing that was trained here can be told to beat")


def errors_of_variants(rng, variants, windows, horizon, seeds, shift):
    """Mean squared errors of variants (seeds, 2, windows, 1, 1), alike but for noise and shifts."""
    steps = windows + horizon - 1
    kernel = np.ones(horizon) / horizon
    world = rng.normal(size=steps) ** 2
    found = {}
    for variant in variants:
        own = 1 + 0.2 * rng.normal(size=(seeds, steps)) + 0.02 * rng.normal(size=(seeds, 1))
        rows = [np.convolve(world + one + shift.get(variant, 0.0), kernel, "valid") for one in own]
        found[variant] = np.stack([rows, np.ones((seeds, windows))], axis=1)[..., None, None]
    return found


def compared(ours, others, windows, horizon, confidence):
    found = estimate(
        "mse", ours, others, series=np.zeros(windows, dtype=int), when=np.arange(windows),
        horizon=horizon, confidence=confidence,
    )  # fmt: skip
    return pair(found.value[1], found.lower[1], found.upper[1])


def answers(shift, *, repeats, windows=150, horizon=6, seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    names = ("pretrained", "none", "random", "attention")
    counted = dict.fromkeys(ANSWERS, 0)
    for _ in range(repeats):
        errors = errors_of_variants(rng, names, windows, horizon, seeds, shift)
        controls, strict = (
            {
                name: compared(errors[name], errors["pretrained"], windows, horizon, confidence)
                for name in names[1:]
            }
            for confidence in (0.95, 0.975)
        )
        counted[judge(controls, min_difference=0.01, strict=strict).answer] += 1
    return counted


def test_where_nothing_differs_a_difference_is_seldom_claimed():
    counted = answers({}, repeats=200)
    assert counted["no"] + counted["undecided"] >= 0.92 * 200
    assert counted["yes"] == 0


@pytest.mark.parametrize(
    ("shift", "answer"),
    [
        ({"none": 0.4, "random": 0.4, "attention": 0.3}, "yes"),
        ({"none": -0.4, "random": -0.4, "attention": -0.4}, "harm"),
        ({"none": 0.4, "random": -0.3}, "architecture"),
    ],
)
def test_where_something_differs_much_it_is_claimed(shift, answer):
    assert answers(shift, repeats=25)[answer] >= 23


def test_a_yes_that_only_one_control_speaks_against_is_seldom_given():
    # truly "architecture": random weights do as well
    counted = answers({"none": 0.4, "attention": 0.4}, repeats=100)
    assert counted["yes"] <= 8
