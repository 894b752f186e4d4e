"""The comparison of language models: what it chooses, what it counts as equal, how it continues."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = "random:gpt2?hidden=16&layers=1&heads=8"


@pytest.fixture
def backbones(monkeypatch):
    """The script as a module; its rows run in this process."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import backbones

    monkeypatch.setattr(backbones, "in_own_process", lambda call: call() | {"peak_mib": 1.0})
    return backbones


def a_row(model, validation, *, seed=0, rate="0.001", which="ETTh1", mase=1.0):
    return {
        "set": which,
        "model": model,
        "seed": seed,
        "rate": rate,
        "steps": 10,
        "training_seconds": 2.0,
        "weights_mb": 4.0,
        "peak_mib": 300.0,
        "validation": validation,
        "mase": mase,
    }


def test_the_learning_rate_is_chosen_on_the_validation_part_of_the_first_seed(backbones):
    rows = [
        a_row("none", 0.8, rate="0.001", mase=2.0),
        a_row("none", 0.9, rate="0.002", mase=1.0),  # better on the test part only
        a_row("none", 0.6, rate="0.001", seed=1, mase=4.0),
    ]
    (one,) = backbones.summary(rows)
    assert one["validation_mase"] == pytest.approx(0.7)
    assert one["test_mase"] == pytest.approx(3.0)


def test_the_best_on_the_validation_parts_is_first_and_seeds_are_compared_in_pairs(backbones):
    rows = [
        *(a_row("MiniLM, 2", one, seed=seed) for seed, one in enumerate((0.9, 0.5))),
        *(a_row("none", one, seed=seed, mase=0.1) for seed, one in enumerate((0.8, 0.7))),
        a_row("SmolLM2, 2", 0.6),
    ]
    found = {row["model"]: row for row in backbones.summary(rows)}
    assert list(found) == ["SmolLM2, 2", "MiniLM, 2", "none"]
    assert found["none"]["better_than_reference"] == "1 of 2"
    assert found["SmolLM2, 2"]["better_than_reference"] == "1 of 1"


def test_means_over_sets_are_geometric_and_a_model_that_lacks_a_set_has_none(backbones):
    rows = [
        a_row("MiniLM, 2", 1.0, mase=4.0),
        a_row("MiniLM, 2", 1.0, mase=9.0, which="m4_hourly"),
        a_row("none", 0.1),
    ]
    first, last = backbones.summary(rows)
    assert first["model"] == "MiniLM, 2" and first["test_mase"] == pytest.approx(6.0)
    assert last["validation_mase"] is None and last["test, m4_hourly"] is None
    assert json.loads(json.dumps(last)) == last  # no NaN


def test_prompts_have_the_cost_of_those_that_were_embedded(backbones):
    """The learning rate that embedded them may be another than the chosen one."""
    cold = a_row("MiniLM, 2", 1.0) | {"prompts": 50, "embedding_seconds": 2.0}
    warm = a_row("MiniLM, 2", 0.5, rate="0.002") | {"prompts": 0, "embedding_seconds": 0.1}
    (one,) = backbones.summary([cold, warm])
    assert one["seconds_of_1000_prompts"] == pytest.approx(40.0)


def test_equal_cost_gives_steps_by_their_seconds(backbones):
    costs = {"MiniLM, 2": 0.02, "SmolLM2, 2": 0.03, "SmolLM2, 30": 60.0}
    assert backbones.equal_steps(300, costs, "MiniLM, 2") == 300
    assert backbones.equal_steps(300, costs, "SmolLM2, random, 2") == 200
    assert backbones.equal_steps(300, costs, "SmolLM2, 30") == 1  # never none


@pytest.mark.parametrize("method", ["autotimes", "timecma"])
def test_a_comparison_runs_and_an_interrupted_one_continues(
    backbones, monkeypatch, tmp_path, method
):
    """The second call finds one row missing, and its seeds have the chosen rates only."""
    cut = backbones.Set(4, 4, context=16, token=4, prompt_context=16, prompt_stride=5)
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(160) / 4 * 2 * np.pi)[:, None] + rng.normal(size=(160, 2)) / 4
    times = pd.date_range("2020-01-01", periods=160, freq="h")
    y = {"a": pd.DataFrame(values, index=times, columns=["u", "v"])}
    ends = {"a": (100, 130, 160)}
    monkeypatch.setattr(backbones, "SETS", {"waves": cut})
    monkeypatch.setattr(backbones, "MODELS", {"none": {"backbone": None}, "a": {"backbone": TINY}})
    monkeypatch.setattr(backbones, "series_of", lambda which, folder: (y, ends))
    args = Namespace(
        method=method, sets=["waves"], seeds=[0, 1], rates=[1e-3, 1e-2], steps=2,
        equal_cost=False, tag="", data=None, out=tmp_path, store=str(tmp_path / "store"),
    )  # fmt: skip
    backbones.compare(["none", "a"], args)
    path = tmp_path / f"backbones_{method}.json"
    runs = json.loads(path.read_text())["runs"]
    assert [(row["model"], row["seed"]) for row in runs] == [
        *(("none", 0), ("none", 0), ("a", 0), ("a", 0), ("none", 1), ("a", 1))
    ]
    assert all(row["steps"] == 2 and row["validation"] > 0 < row["mase"] for row in runs)
    asked = [row.get("prompts") for row in runs if row["model"] == "a" and row["seed"] == 0]
    assert asked == [None, None] if method == "autotimes" else asked[0] > 0 == asked[1]

    results = json.loads(path.read_text())
    path.write_text(json.dumps(results | {"runs": runs[:-1]}))
    backbones.compare(["none", "a"], args)
    again = json.loads(path.read_text())["runs"]
    assert len(again) == 6 and again[-1]["validation"] == runs[-1]["validation"]
