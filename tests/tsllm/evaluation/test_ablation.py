"""Ablations: variants that differ in one thing, and verdicts where the truth is known."""

import json
import zlib

import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline

from small_forecasters import SMALL, TINY, panel, small
from tsllm import AutoTimesForecaster, DLinearForecaster, ablate, backtest
from tsllm.errors import DataError
from tsllm.evaluation import variants as variants_module
from tsllm.plotting.ablation import plot_differences

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")

FEW_STEPS = {"baselines": ["seasonal_naive"], "seeds": (0, 1)}


def daily(steps=240, seed=0):
    rng = np.random.default_rng(seed)
    values = np.sin(np.arange(steps) * 2 * np.pi / 7) + rng.normal(size=steps)
    return pd.Series(values, pd.date_range("2024-01-01", periods=steps, freq="D"), name="y")


def arm_of(estimator):
    backbone = estimator.backbone
    if backbone is None:
        return "none"
    if backbone.startswith("layer:"):
        return backbone.removeprefix("layer:").partition("?")[0]
    return "pretrained" if backbone == TINY else "random"


class Known(AutoTimesForecaster):
    """Forecast the truth with errors of a known size, which depends on the variant."""

    truth: np.ndarray
    deviation: dict  # variant -> of its forecast errors

    def forecast(self, contexts, horizon, *, quantiles=(), future_x=None, seeds=None):
        deviation = self.deviation[arm_of(self)]
        out = []
        for context in contexts:
            origin = len(context)
            # variants of one deviation make the same errors, others have errors of their own
            key = (zlib.crc32(str(deviation).encode()), self.random_state, origin)
            error = deviation * np.random.default_rng(key).normal(size=(horizon, 1))
            out.append(self.truth[origin : origin + horizon] + error)
        return np.stack(out)[..., None]


def known(deviation, **arguments):
    y = daily(600)
    Known.truth, Known.deviation = y.to_numpy()[:, None], deviation
    estimator = Known(**(SMALL["autotimes"] | {"max_steps": 1, "backbone": TINY}))
    settings = {"horizons": [1, 4], "test_size": 200, "variants": variants_module.REPLACEMENTS}
    return ablate(estimator, y, baselines=[], scaled=False, **(settings | arguments))


# ---------------------------------------------------------------- known truths


NAMES = ("pretrained", "random", "attention", "transformer", "none")


@pytest.mark.parametrize(
    ("deviations", "answer"),
    [
        ((1.0, 1.2, 1.3, 1.25, 1.3), "yes"),
        ((1.2, 1.0, 1.0, 1.0, 1.0), "harm"),
        ((1.0, 1.0, 1.0, 1.0, 1.0), "no"),
        ((1.0, 1.0, 1.3, 1.3, 1.3), "architecture"),
    ],
)
def test_the_verdict_is_right_where_the_errors_are_known(deviations, answer):
    deviation = dict(zip(NAMES, deviations))
    report = known(deviation)
    assert report.answer == answer
    overall = report.differences.query("horizon == 'all'").set_index("method_a")
    for variant, size in deviation.items():
        if variant == "pretrained":
            continue
        truth = size**2 - deviation["pretrained"] ** 2
        row = overall.loc[variant]
        assert row["lower"] - 1e-9 <= truth <= row["upper"] + 1e-9
        ratio = size**2 / deviation["pretrained"] ** 2 - 1
        assert row["relative_lower"] - 1e-9 <= ratio <= row["relative_upper"] + 1e-9


def test_one_seed_is_said_to_be_one():
    same = dict.fromkeys(NAMES, 1.0)
    report = known(same, seeds=(3,))
    assert any("one seed" in note for note in report.notes)
    assert not any("one seed" in note for note in known(same, seeds=(3, 4)).notes)


def test_on_noise_no_arm_can_gain_and_none_is_said_to():
    rng = np.random.default_rng(0)
    y = pd.Series(rng.normal(size=500), pd.RangeIndex(500))
    estimator = AutoTimesForecaster(
        TINY, context_length=8, token_length=4, max_steps=60, learning_rate=3e-3, dropout=0.0
    )
    report = ablate(estimator, y, horizons=[1, 4], test_size=200, variants=["random"], baselines=[])
    assert report.answer in ("no", "undecided")
    assert report.verdict.startswith({"no": "No. ", "undecided": "Undecided: "}[report.answer])


# ---------------------------------------------------------------- what the variants are


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("autotimes", {"timestamps": True}),
        ("timecma", {}),
        ("s2ip", {"prediction_length": None}),
        ("aaren", {"backbone": TINY, "soft_prompt_length": 2}),
    ],
)
def test_every_method_has_its_variants_and_names_those_that_it_cannot_have(method, more, tmp_path):
    y = panel([130, 130], ["a", "b"])
    if method in ("autotimes", "timecma"):
        more = more | {"embedding_store": tmp_path}
    estimator = small(method, **more)
    report = ablate(estimator, y, horizons=[1, 3], test_size=24, stride=3, **FEW_STEPS)
    expected = [
        "pretrained", "random", "attention", "transformer", "none", "pretrained, shuffled",
        "none, shuffled", "pretrained, 10 %", "none, 10 %", "seasonal_naive",
    ]  # fmt: skip
    left_out = ["attention", "transformer"] if method == "timecma" else []
    expected = [variant for variant in expected if variant not in left_out]
    assert report.table["variant"].unique().tolist() == expected
    assert list(report.left_out) == left_out
    for variant in left_out:
        assert any(note.startswith(f"{variant} is left out: TimeCMA") for note in report.notes)
    assert any("timestamps=False" in note for note in report.notes) == (method == "autotimes")
    assert np.isfinite(report.table[["mse", "mae"]]).all(axis=None)
    costs = report.costs
    trained, frozen = costs["trained_parameters"], costs["frozen_parameters"]
    # one head, with and without: what is frozen is the language model
    assert frozen["pretrained"] > frozen["none"]
    assert trained["random"] == trained["pretrained"]
    assert (costs["steps"].dropna() == 4).all()
    assert estimator.state == "new"


def test_the_pretrained_arm_is_the_backtest_of_the_estimator():
    y = load_airline()
    estimator = small("autotimes")
    settings = {"horizons": [2, 6], "test_size": 24, **FEW_STEPS}
    report = ablate(estimator, y, variants=[], as_given=True, **settings)
    direct = backtest({"it": estimator}, y, scaled=True, quantiles=(), **settings)
    ours = report.table.query("variant == 'pretrained' and horizon != 'all'")["mse"]
    theirs = direct.table.query("method == 'it'")["mse"]
    np.testing.assert_allclose(ours.to_numpy(dtype=float), theirs, rtol=1e-9)
    assert report.table["variant"].unique().tolist() == ["pretrained", "none", "seasonal_naive"]


def test_each_variant_chooses_its_loss_unless_told_to_keep_it():
    y = load_airline()
    settings = {"horizons": 3, "test_size": 24, "variants": ["few"], **FEW_STEPS}
    report = ablate(small("autotimes"), y, **settings)
    (note,) = (note for note in report.notes if "chose loss_on" in note)
    words = note.partition("loss: ")[2].split(", ")
    # "few" keeps the loss that the whole part led to
    assert [word.split()[0] for word in words] == ["pretrained", "none"]
    assert all(word.split()[1] in ("all", "last") for word in words)
    by_hand = backtest(
        {"it": small("autotimes", backbone=None, backbone_layers=None, loss_on="auto",
                     timestamps=False)},
        y, horizons=3, test_size=24, scaled=True, quantiles=(), **FEW_STEPS,
    )  # fmt: skip
    ours = report.table.set_index("variant").loc["none", "mse"]
    assert ours == pytest.approx(by_hand.table.query("method == 'it'")["mse"].item(), rel=1e-9)
    for estimator, more in ((small("autotimes"), {"as_given": True}), (small("s2ip"), {})):
        report = ablate(estimator, y, horizons=3, test_size=24, variants=[], **FEW_STEPS, **more)
        assert not any("chose loss_on" in note for note in report.notes)


def test_lora_stays_where_there_is_a_language_model():
    report = ablate(
        small("autotimes", lora={"r": 2}), load_airline(), horizons=3, test_size=12,
        variants=["random", "attention"], **FEW_STEPS,
    )  # fmt: skip
    assert "attention and none run with lora=None" in report.notes[0]
    trained = report.costs["trained_parameters"]
    assert trained["random"] == trained["pretrained"]


class Spy(AutoTimesForecaster):
    """Record what is fitted and forecast."""

    calls: list = []  # noqa: RUF012 (shared by clones on purpose)

    def fit(self, y, X=None, fh=None):
        self.calls.append(("fit", self.backbone, self.random_state, self.context_length, y))
        return super().fit(y, X=X, fh=fh)

    def forecast(self, contexts, horizon, *, quantiles=(), future_x=None, seeds=None):
        self.calls.append(("forecast", id(self.fitted_), self.fitted_.shape, list(contexts)))
        return super().forecast(contexts, horizon, quantiles=quantiles)


@pytest.fixture(scope="module")
def spied():
    Spy.calls.clear()
    y = daily(160)
    settings = {"backbone": TINY, "max_steps": 2}
    ablate(
        Spy(**settings), y, horizons=3, test_size=40, seeds=(5, 6), baselines=[],
        variants=["random", "shuffled", "few"],
    )  # fmt: skip
    return y, list(Spy.calls)


def test_random_weights_are_others_for_each_seed(spied):
    _, calls = spied
    random = [c for c in calls if c[0] == "fit" and c[1] is not None and c[1] != TINY]
    assert len({backbone for _, backbone, *_ in random}) == 2
    assert [state for _, _, state, *_ in random] == [5, 6]


def test_few_is_the_last_tenth_with_the_sizes_of_the_whole(spied):
    y, calls = spied
    fits = [c for c in calls if c[0] == "fit"]
    lengths = [len(c[4]) for c in fits]
    assert lengths == [120] * 6 + [12] * 4
    pd.testing.assert_index_equal(fits[-1][4].index, y.index[108:120], exact="equiv")
    shapes = {c[2] for c in calls if c[0] == "forecast" for c in [(0, 0, c[2].context_length)]}
    assert len(shapes) == 1


def test_shuffled_contexts_hold_the_same_values_and_are_read_by_the_same_models(spied):
    y, calls = spied
    values = y.to_numpy()
    plain, mixed = {}, {}
    for _, model, shape, contexts in (c for c in calls if c[0] == "forecast"):
        for context in contexts:
            origin, own = len(context), context.values[:, 0]
            steps = shape.context_length
            np.testing.assert_array_equal(context.times, y.index[:origin])
            np.testing.assert_array_equal(own[:-steps], values[: origin - steps])
            np.testing.assert_array_equal(
                np.sort(own[-steps:]), np.sort(values[origin - steps : origin])
            )
            kind = plain if (own == values[:origin]).all() else mixed
            kind.setdefault(model, {})[origin] = own
    # two variants of two seeds are shuffled, of the three with all the data
    assert len(mixed) == 4
    assert set(mixed) <= set(plain)
    one, *others = mixed.values()
    assert all((other[origin] == one[origin]).all() for other in others for origin in one)


# ---------------------------------------------------------------- the report


@pytest.fixture(scope="module")
def report():
    return ablate(
        small("autotimes"), daily(), horizons=[1, 3], test_size=60, variants=["random", "shuffled"],
        baselines=["seasonal_naive", "auto_ets"], max_windows=3, seeds=(0, 1),
    )  # fmt: skip


def test_tables(report):
    table = report.table.set_index(["variant", "horizon"])
    found = report.backtest.paired("none", "pretrained", "mse", horizon="all")
    row = table.loc["none", "all"]
    assert row["difference_percent"] == pytest.approx(100 * found.relative)
    assert row["mse"] / table.loc["pretrained", "all"]["mse"] - 1 == pytest.approx(found.relative)
    assert table.loc["auto_ets", 3]["windows"] == 3
    assert table.loc["random", 3]["windows"] == 58
    held = report.differences.set_index("method_a")["method_b"]
    assert held["none, shuffled"].unique().tolist() == ["none"]
    assert held["auto_ets"].unique().tolist() == ["pretrained"]


def test_json_markdown_and_text(report):
    document = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert document["verdict"] == report.verdict
    assert document["settings"]["budget"]["max_steps"] == 4
    assert len(document["differences"]) == len(report.differences)
    text = report.to_markdown()
    assert report.verdict in text
    rows = [line for line in text.splitlines() if line.startswith("| none ")]
    assert len(rows) == 1 + 3
    assert "whole blocks of origins" in text
    assert "seeds 0, 1" in text
    assert str(report).startswith(report.verdict)
    assert all(f"note: {note}" in str(report) for note in report.notes)


def test_a_picture(report):
    ax = report.plot()
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == ["random", "none", "seasonal_naive", "auto_ets"]
    named = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert named == ["1 step", "3 steps", "all horizons"]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"estimator": DLinearForecaster()}, "with a language model, found DLinearForecaster"),
        ({"estimator": AutoTimesForecaster(None)}, "backbone=None, so there is no language model"),
        ({"estimator": small("autotimes", backbone=f"layer:attention?like={TINY}")}, "to judge"),
        ({"variants": ["pretrained"]}, "variants must be among random, .*found 'pretrained'"),
        ({"seeds": ()}, "seeds must be at least one whole number"),
        ({"seeds": (1, 1)}, "seeds must differ"),
        ({"metric": "crps"}, "metric must be one of mse, mae, mase, smape"),
        ({"min_difference": 5}, "min_difference must be at least 0 and less"),
        ({"confidence": 95}, "confidence must be above 0 and less than 1"),
        ({"baselines": ["prophet"]}, "baselines must be among"),
    ],
)
def test_arguments_that_are_refused(arguments, words):
    given = {"estimator": small("autotimes"), "horizons": 3, "test_size": 12} | arguments
    with pytest.raises(DataError, match=words):
        ablate(given.pop("estimator"), load_airline(), **given)


def test_too_few_steps_for_a_tenth_of_them_are_said():
    report = ablate(
        small("autotimes"),
        load_airline()[:60],
        horizons=2,
        test_size=12,
        variants=["few"],
        **FEW_STEPS,
    )
    assert report.table["variant"].unique().tolist() == ["pretrained", "none", "seasonal_naive"]
    assert "is 5 steps" in report.left_out["few"]


def test_a_baseline_that_has_all_windows_of_some_horizons_only_is_in_the_table():
    forecaster = AutoTimesForecaster(TINY, max_steps=1, context_length=24, random_state=0)
    report = ablate(
        forecaster,
        load_airline(),
        horizons=[2, 3],
        test_size=5,
        max_windows=3,  # all that have three steps left, and not all that have two
        seeds=[0],
        variants=[],
        baselines=["theta"],
    )
    rows = report.table[report.table["variant"] == "theta"]
    assert rows["horizon"].tolist() == [2, 3, "all"]
    assert rows["mse"].notna().all()


def test_an_interval_from_few_blocks_does_not_hide_the_rest_of_the_picture():
    rows = pd.DataFrame(
        {
            "label": ["random", "none"],
            "group": "all horizons",
            "value": [1.0, -3.0],
            "lower": [np.nan, -4.0],
            "upper": [np.nan, 30_000.0],
        }
    )
    ax = plot_differences(rows, xlabel="% more", least=1.0)
    low, high = ax.get_xlim()
    assert -5 < low < -4 and 4 < high < 6
    arrows = [line for line in ax.lines if line.get_marker() in ("<", ">")]
    assert [(a.get_marker(), a.get_xdata()[0], a.get_ydata()[0]) for a in arrows] == [
        (">", high, 1)
    ]


def test_every_arm_reads_the_covariates():
    y = daily(160)
    x = pd.DataFrame({"x": np.random.default_rng(1).normal(size=len(y))}, y.index)
    how = {"horizons": 3, "test_size": 20, "variants": ["shuffled", "few"], **FEW_STEPS}
    blind = ablate(small("autotimes", max_steps=2), y + 9 * x["x"], **how).table
    seeing = ablate(small("autotimes", max_steps=2), y + 9 * x["x"], x, **how).table
    for variant in ("pretrained", "none", "pretrained, shuffled", "none, shuffled"):
        errors = [one.set_index("variant").loc[variant, "mse"].min() for one in (seeing, blind)]
        assert errors[0] < 0.3 * errors[1], variant
