"""The backtest against brute-force loops and exact window counts; and nobody peeks."""

import json

import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline
from sktime.forecasting.naive import NaiveForecaster
from sktime.forecasting.trend import TrendForecaster

from tsllm import AutoTimesForecaster, DLinearForecaster, backtest
from tsllm.datasets.long import panel_to_long
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.evaluation import METRICS, methods, protocol
from tsllm.forecasters import statistical
from tsllm.metrics import mae, mase, mse, seasonal_scale, smape

SEASON = 12
QUIET = {"baselines": (), "quantiles": ()}


def hours(steps, variables=1, seed=0):
    """Hourly random walks around a daily season."""
    rng = np.random.default_rng(seed)
    daily = 5 * np.sin(2 * np.pi * np.arange(steps) / 24)
    values = rng.normal(size=(steps, variables)).cumsum(axis=0) + daily[:, None] + 100
    index = pd.date_range("2024-01-01", periods=steps, freq="h")
    return pd.DataFrame(values, index=index, columns=[f"v{i}" for i in range(variables)])


def panel(lengths=(90, 60), seed=1):
    """Series of unequal length and different dates, not in alphabetical order."""
    frames = {f"s{9 - i}": hours(n, 2, seed + i) for i, n in enumerate(lengths)}
    return pd.concat(frames, names=["series_id", "timestamp"])


class Spy(DLinearForecaster):
    """Record what a forecaster is given."""

    seen: list = []  # noqa: RUF012 (shared by clones on purpose)

    def fit(self, y, X=None, fh=None):
        self.seen.append(("fit", y.copy()))
        return super().fit(y, X=X, fh=fh)

    def forecast(self, contexts, horizon, *, quantiles=(), future_x=None, seeds=None):
        self.seen.append(("forecast", list(contexts), horizon))
        return super().forecast(contexts, horizon, quantiles=quantiles)


class Oracle(DLinearForecaster):
    """Know the whole series, and find a context's place in it by its last value."""

    truth: np.ndarray

    def forecast(self, contexts, horizon, *, quantiles=(), future_x=None, seeds=None):
        out = []
        for context in contexts:
            origin = len(context)
            assert (self.truth[origin - 1] == context.values[-1]).all()
            out.append(self.truth[origin : origin + horizon])
        point = np.stack(out)[..., None]
        return np.repeat(point, 1 + len(quantiles), axis=-1)


def small(cls=DLinearForecaster, **more):
    return cls(
        **{"context_length": 12, "kernel_size": 3, "max_steps": 2, "random_state": 0, **more}
    )


# ---------------------------------------------------------------- exact values


def test_the_seasonal_naive_backtest_equals_a_brute_force_loop():
    y = panel()
    report = backtest(
        {}, y, horizons=[3, 30], test_fraction=0.5, stride=2, season=7, baselines=["seasonal_naive"]
    )
    for horizon in (3, 30):
        by_series, everything = {}, {"mse": [], "mae": [], "mase": [], "smape": []}
        for name, rows in y.groupby(level=0, sort=False):
            values = rows.to_numpy()
            border = len(values) - round(len(values) / 2)
            scale = seasonal_scale(values[:border], 7)
            own = {metric: [] for metric in everything}
            for origin in range(border, len(values) - horizon + 1, 2):
                actual = values[origin : origin + horizon]
                forecast = np.array([values[origin - 7 + k % 7] for k in range(horizon)])
                own["mse"].append(mse(actual, forecast))
                own["mae"].append(mae(actual, forecast))
                own["mase"].append(mase(actual, forecast, scale))
                own["smape"].append(smape(actual, forecast))
            by_series[name] = own
            for metric, scores in own.items():
                everything[metric] += scores
        row = report.table.query(f"horizon == {horizon}").iloc[0]
        assert row["windows"] == len(everything["mse"])
        for metric, scores in everything.items():
            assert row[metric] == pytest.approx(np.mean(scores), rel=1e-12)
        for name, own in by_series.items():
            row = report.per_series.query(f"horizon == {horizon} and series_id == '{name}'").iloc[0]
            assert row["windows"] == len(own["mse"])
            for metric, scores in own.items():
                assert row[metric] == pytest.approx(np.mean(scores), rel=1e-12)


def test_the_errors_of_each_step_are_those_of_a_loop():
    y = hours(60)
    report = backtest({}, y, horizons=[2, 5], test_size=9, baselines=["seasonal_naive"])
    values = y.to_numpy().ravel()
    # horizon 5 ends inside the test part for 5 origins, horizon 2 for 3 more
    for step, n_windows in zip(range(1, 6), (8, 8, 5, 5, 5)):
        origins = range(51, 51 + n_windows)
        errors = [abs(values[o + step - 1] - values[o - 24 + step - 1]) for o in origins]
        row = report.per_step.query(f"step == {step}").iloc[0]
        assert row["windows"] == n_windows
        assert row["mae"] == pytest.approx(np.mean(errors), rel=1e-12)


@pytest.mark.parametrize("scaled", [True, False])
def test_a_perfect_forecaster_scores_zero(scaled):
    y = hours(120, variables=2)
    Oracle.truth = y.to_numpy()
    report = backtest(
        {"oracle": small(Oracle)}, y, horizons=[1, 6], test_size=30, baselines=(), scaled=scaled
    )
    assert tuple(m for m in METRICS if m in report.table) == METRICS
    for metric in METRICS:
        assert (report.table[metric] == (1.0 if metric == "coverage" else 0.0)).all()
        assert (report.per_step[metric] == (1.0 if metric == "coverage" else 0.0)).all()


def test_missing_values_of_the_test_part_are_left_out():
    y = hours(80)
    full = backtest({}, y, horizons=4, test_size=4, baselines=["seasonal_naive"])
    y.iloc[-2] = np.nan
    holed = backtest({}, y, horizons=4, test_size=4, baselines=["seasonal_naive"])
    values = full.per_step["mae"].to_numpy()
    assert holed.table["mae"].item() == pytest.approx(values[[0, 1, 3]].mean(), rel=1e-12)
    assert np.isnan(holed.per_step["mae"].iloc[2])


def test_scaled_errors_are_those_of_standardised_values():
    y = hours(200, variables=3) * [1.0, 10.0, 100.0]
    arguments = {"horizons": 4, "train_size": 100, "validation_size": 40, "test_size": 60}
    arguments |= {"baselines": ["seasonal_naive"]}
    scaled = backtest({}, y, scaled=True, **arguments).table.iloc[0]
    standard = (y - y[:100].mean()) / y[:100].std(ddof=0)  # of the training part only
    plain = backtest({}, standard, **arguments).table.iloc[0]
    for metric in ("mse", "mae", "mase", "crps", "width", "coverage"):
        assert scaled[metric] == pytest.approx(plain[metric], rel=1e-9)
    raw = backtest({}, y, **arguments).table.iloc[0]
    for metric in ("smape", "wql", "mase"):
        assert scaled[metric] == raw[metric]


def test_quantiles_of_the_seasonal_naive_cover_what_they_promise():
    rng = np.random.default_rng(0)
    y = pd.Series(rng.normal(size=4000).cumsum(), pd.RangeIndex(4000))
    report = backtest({}, y, horizons=8, test_size=2000, baselines=["seasonal_naive"])
    assert report.table["coverage"].item() == pytest.approx(0.8, abs=0.05)
    assert report.per_step["coverage"].between(0.74, 0.86).all()


# ---------------------------------------------------------------- windows and splits


def test_the_published_protocol_of_etth1_has_its_published_number_of_windows():
    y = hours(17420)
    sizes = {"train_size": 8640, "validation_size": 2880, "test_size": 2880}
    report = backtest(
        {}, y, horizons=[96, 192, 336, 720], baselines=["seasonal_naive"], quantiles=(), **sizes
    )
    assert report.table["windows"].tolist() == [2785, 2689, 2545, 2161]
    assert report.notes == ["up to 3020 steps after the test part of a series are not used"]
    values = y.to_numpy()[:14400]
    last = np.abs(values[-96:] - np.tile(values[-120:-96], (4, 1)))  # the last window counts
    assert report.table["mae"].iloc[0] > 0
    shorter = backtest(
        {}, y[:14400], horizons=96, test_size=96, baselines=["seasonal_naive"], quantiles=()
    )
    assert shorter.table["mae"].item() == pytest.approx(last.mean(), rel=1e-12)


@pytest.mark.parametrize(("stride", "windows"), [(1, [20, 11]), (4, [5, 3]), (30, [1, 1])])
def test_every_strideth_origin_with_enough_steps_left_counts(stride, windows):
    report = backtest(
        {}, hours(60), horizons=[1, 10], test_size=20, stride=stride, baselines=["seasonal_naive"]
    )
    assert report.table["windows"].tolist() == windows


def test_a_long_frame_a_panel_and_one_series_are_read_alike():
    y = panel()
    arguments = {"horizons": 5, "test_size": 12, "baselines": ["seasonal_naive"]}
    expected = backtest({}, y, **arguments).per_series.drop(columns="series_id")
    frame = backtest({}, panel_to_long(y), **arguments).per_series.drop(columns="series_id")
    pd.testing.assert_frame_equal(frame, expected)
    for i, name in enumerate(["s9", "s8"]):
        alone = backtest({}, y.loc[name].asfreq("h"), **arguments).per_series
        pd.testing.assert_series_equal(
            alone.drop(columns="series_id").iloc[0], expected.iloc[i], check_names=False
        )


def test_a_validation_part_becomes_the_estimators_own():
    y = hours(200)
    Spy.seen.clear()
    sizes = {"train_size": 90, "validation_size": 30, "test_size": 50}
    backtest({"spy": small(Spy)}, y, horizons=10, **sizes, **QUIET)
    (_, fitted), *_ = Spy.seen
    pd.testing.assert_frame_equal(fitted, y[:120], check_freq=False)


# ---------------------------------------------------------------- nobody peeks


@pytest.mark.parametrize("refit", [False, 3])
def test_contexts_end_before_their_origin_and_fits_before_their_windows(refit):
    y = panel()
    Spy.seen.clear()
    backtest({"spy": small(Spy)}, y, horizons=[2, 6], test_size=20, stride=2, refit=refit, **QUIET)
    whole = {name: rows.droplevel(0) for name, rows in y.groupby(level=0, sort=False)}
    fitted_until, origins = None, {name: [] for name in whole}
    for call in Spy.seen:
        if call[0] == "fit":
            fitted_until = {n: rows.index[-1][-1] for n, rows in call[1].groupby(level=0)}
            continue
        _, contexts, horizon = call
        for context in contexts:
            rows = whole[context.series_id]
            origin = len(context)
            # a context is the series' own past, to the step before its origin, and nothing else
            assert (context.times == rows.index[:origin]).all()
            np.testing.assert_array_equal(context.values, rows.to_numpy()[:origin])
            assert fitted_until[context.series_id] <= context.times[-1]
            assert origin + horizon <= len(rows)
            origins[context.series_id].append(origin)
    for name, rows in whole.items():
        expected = range(len(rows) - 20, len(rows) - 1, 2)
        assert sorted(origins[name]) == list(expected)
    n_fits = sum(call[0] == "fit" for call in Spy.seen)
    assert n_fits == (1 if not refit else 4)  # ten windows a series, every three of them


@pytest.mark.parametrize(
    "estimator", [small(), NaiveForecaster(sp=3), TrendForecaster()], ids=lambda e: type(e).__name__
)
def test_what_comes_after_an_origin_changes_no_forecast_from_it(estimator):
    y = hours(70)
    changed = y.copy()
    changed.iloc[60:] = -1e6
    arguments = {"horizons": 10, "test_size": 20, "baselines": ["seasonal_naive"], "season": 5}
    first, second = (
        backtest({"it": estimator}, series, stride=10, metrics=["mae"], **arguments)
        for series in (y, changed)
    )
    for name in ("it", "seasonal_naive"):
        # the window of the first ten steps of the test part, the only one before the change
        scores = [r._runs[name].totals[0, 0, 0, 0, 0, 0] for r in (first, second)]
        assert scores[0] == scores[1] > 0


# ---------------------------------------------------------------- methods beside each other


def test_slow_methods_are_compared_on_the_windows_that_all_share():
    y = hours(100)
    naive = NaiveForecaster(strategy="last", sp=24)
    report = backtest(
        {"sktime": naive}, y, horizons=[3, 9], test_size=40, max_windows=4,
        baselines=["seasonal_naive"],
    )  # fmt: skip
    everything = report.table.query("scored_on == 'all'")
    assert everything["method"].unique().tolist() == ["seasonal_naive"]
    assert everything["windows"].tolist() == [38, 32]
    common = report.table.query("scored_on == 'common'")
    assert common["windows"].tolist() == [4] * 4
    # the same method by two ways: the same score on the same windows
    one, other = (common.query(f"method == '{m}'")["mae"] for m in ("sktime", "seasonal_naive"))
    np.testing.assert_allclose(one, other, rtol=1e-12)
    difference = report.paired("sktime", "seasonal_naive", "mae", horizon=9)
    assert difference.windows == 4
    assert difference.difference == pytest.approx(0, abs=1e-12)
    assert "The same windows for every method" in report.to_markdown()


def test_without_a_limit_slow_methods_run_on_every_window():
    report = backtest(
        {"sktime": NaiveForecaster(sp=5)}, hours(50), horizons=4, test_size=9, max_windows=None,
        baselines=["seasonal_naive"], season=5,
    )  # fmt: skip
    assert report.table["scored_on"].tolist() == ["all", "all"]
    assert report.table["mae"].iloc[0] == pytest.approx(report.table["mae"].iloc[1], rel=1e-12)


def test_sktime_forecasters_of_several_variables_keep_them_apart():
    y = hours(60, variables=2) * [1, 1000]
    report = backtest(
        {"sktime": NaiveForecaster(sp=24)}, y, horizons=5, test_size=5,
        baselines=["seasonal_naive"], metrics=["mae", "crps"],
    )  # fmt: skip
    one, other = report.table["mae"]
    assert one == pytest.approx(other, rel=1e-12)
    assert report.table["crps"].notna().all()


def test_all_baselines_stand_beside_an_estimator(monkeypatch):
    monkeypatch.setattr(methods, "DLinearForecaster", lambda **_: small())
    monkeypatch.setattr(methods, "PatchTSTForecaster", lambda **_: small())
    quarters = np.arange(60)
    growth = np.exp(0.02 * quarters) * np.array([0.7, 1.0, 1.2, 1.1])[quarters % 4]
    noise = 1 + 0.02 * np.random.default_rng(0).normal(size=60)
    y = pd.Series(growth * noise, pd.period_range("2000Q1", periods=60, freq="Q"))
    estimator = AutoTimesForecaster(None, max_steps=3, random_state=0)
    report = backtest(estimator, y, horizons=4, test_size=12, max_windows=2, max_history=40)
    common = report.table.query("scored_on == 'common'").set_index("method")
    expected = ["AutoTimesForecaster", "seasonal_naive", "auto_ets", "theta", "dlinear", "patchtst"]
    assert common.index.tolist() == expected
    assert np.isfinite(common[list(METRICS)]).all(axis=None)
    assert (common.loc[["auto_ets", "theta"], "mase"] < common.loc["seasonal_naive", "mase"]).all()
    assert (common.loc[["auto_ets", "theta"], "crps"] < common.loc["seasonal_naive", "crps"]).all()
    assert report.notes == []


@pytest.mark.parametrize("baseline", ["auto_ets", "theta"])
def test_statistical_baselines_take_negative_constant_short_and_missing_values(baseline):
    y = hours(64, variables=3) - 100
    y["v1"] = 7.0
    y.iloc[[3, 20, 59], 2] = np.nan
    report = backtest(
        {}, y, horizons=2, test_size=4, max_windows=1, max_history=9, baselines=[baseline]
    )
    assert np.isfinite(report.table[["mae", "crps"]]).all(axis=None)
    assert not report.notes


def test_a_fit_that_fails_is_counted_and_the_seasonal_naive_stands_in(monkeypatch):
    class Broken:
        def forecast(self, y, h, level):
            raise ValueError("did not converge")

    monkeypatch.setitem(statistical.MODELS, "theta", lambda season: Broken())
    report = backtest(
        {}, hours(60), horizons=4, test_size=6, max_windows=2, baselines=["theta", "seasonal_naive"]
    )
    assert report.notes == ["theta: 2 of 2 fits failed; the seasonal naive forecast replaces them"]
    common = report.table.query("scored_on == 'common'")
    assert common["mae"].nunique() == 1
    assert "Note: theta: 2 of 2 fits failed" in report.to_markdown()


def test_auto_theta_runs():
    arguments = {"horizons": 4, "test_size": 4, "baselines": ["auto_theta"]}
    assert np.isfinite(backtest({}, hours(60), **arguments).table["crps"]).all()


def test_auto_ets_models_a_season_longer_than_its_limit():
    steps = np.arange(400)
    y = pd.Series(
        np.sin(2 * np.pi * steps / 48) + 0.001 * steps,
        pd.date_range("2024-01-01", periods=400, freq="30min"),
    )
    arguments = {"horizons": 24, "test_size": 24, "season": 48, "metrics": ["mae"]}
    report = backtest({}, y, baselines=["auto_ets", "seasonal_naive"], **arguments)
    assert report.table.set_index("method").loc["auto_ets", "mae"] < 0.03
    assert report.notes == []


def test_statistical_baselines_leave_numpys_global_random_state(monkeypatch):
    class Seeding:
        def forecast(self, y, h, level):
            np.random.seed(1)  # noqa: NPY002
            raise ValueError("did not converge")

    monkeypatch.setitem(statistical.MODELS, "theta", lambda season: Seeding())
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.get_state()[1].copy()  # noqa: NPY002
    backtest({}, hours(60), horizons=4, test_size=4, baselines=["theta"])
    assert (np.random.get_state()[1] == expected).all()  # noqa: NPY002


def test_a_prompt_is_scored_with_and_without():
    prompted = AutoTimesForecaster(
        None, context_length=24, token_length=6, in_context="earliest", max_steps=2, random_state=0
    )
    y = load_airline()
    report = backtest({"autotimes": prompted}, y, horizons=6, test_size=12, **QUIET)
    table = report.table.set_index("method")["mae"]
    assert table.index.tolist() == ["autotimes", "autotimes, no prompt"]
    plain = prompted.clone().set_params(in_context=None)
    alone = backtest({"it": plain}, y, horizons=6, test_size=12, **QUIET)
    assert table["autotimes, no prompt"] == alone.table["mae"].item() != table["autotimes"]


def test_many_fits_write_no_checkpoint(tmp_path):
    estimator = small(checkpoint_dir=tmp_path / "run")
    report = backtest(estimator, hours(80), horizons=2, test_size=10, seeds=(0, 1), **QUIET)
    assert report.settings["seeds"] == [0, 1]
    assert not (tmp_path / "run").exists() and estimator.checkpoint_dir == tmp_path / "run"


def test_seeds_give_means_and_spreads():
    y = load_airline()
    arguments = {"horizons": 6, "test_size": 12, "quantiles": (), "metrics": ["mae"]}
    report = backtest({"it": small()}, y, seeds=[1, 2], baselines=["seasonal_naive"], **arguments)
    alone = [
        backtest({"it": small(random_state=s)}, y, baselines=(), **arguments).table["mae"].item()
        for s in (1, 2)
    ]
    ours, naive = report.table.iloc[0], report.table.iloc[1]
    assert ours["mae"] == pytest.approx(np.mean(alone), rel=1e-12)
    assert ours["mae_sd"] == pytest.approx(np.std(alone, ddof=1), rel=1e-9)
    assert (ours["seeds"], naive["seeds"]) == (2, 1)
    assert np.isnan(naive["mae_sd"])


def test_batches_change_no_score(monkeypatch):
    arguments = {"horizons": [2, 6], "test_size": 15, "baselines": (), "quantiles": (0.1, 0.5, 0.9)}
    whole = backtest({"it": small()}, panel(), **arguments)
    monkeypatch.setattr(protocol, "MAX_BATCH", 3)
    pieces = backtest({"it": small()}, panel(), **arguments)
    columns = [m for m in METRICS if m in whole.table]
    for name in ("table", "per_series", "per_step"):
        np.testing.assert_allclose(
            getattr(whole, name)[columns], getattr(pieces, name)[columns], rtol=1e-4
        )


def test_the_estimator_stays_as_it_is():
    estimator = small()
    backtest({"it": estimator}, load_airline(), horizons=3, test_size=6, seeds=[5], **QUIET)
    assert estimator.state == "new"
    assert estimator.get_params() == small().get_params()


# ---------------------------------------------------------------- paired differences and output


def test_a_paired_difference_is_that_of_the_tables_and_its_interval_holds_it():
    y = hours(400)
    report = backtest(
        {"it": small(max_steps=50)},
        y,
        horizons=[4, 12],
        test_size=200,
        baselines=["seasonal_naive"],
    )
    for metric in report.settings["metrics"]:
        table = report.table.query("horizon == 4").set_index("method")[metric]
        pair = report.paired("it", "seasonal_naive", metric, horizon=4)
        assert pair.difference == pytest.approx(table["it"] - table["seasonal_naive"], rel=1e-9)
        assert pair.lower < pair.difference < pair.upper
        assert (pair.windows, pair.block_length) == (197, 15)
        back = report.paired("seasonal_naive", "it", metric, horizon=4)
        assert back.difference == pytest.approx(-pair.difference, rel=1e-9)
    assert report.paired("it", "seasonal_naive").horizon == 12
    assert report.paired("it", "seasonal_naive") == report.paired("it", "seasonal_naive")


def test_one_block_gives_no_interval():
    report = backtest(
        {"it": NaiveForecaster()}, hours(60), horizons=5, test_size=5, baselines=["seasonal_naive"]
    )
    pair = report.paired("it", "seasonal_naive", "mae")
    assert np.isfinite(pair.difference)
    assert np.isnan([pair.lower, pair.upper]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("it", "other"), "method_b must be among it, seasonal_naive, found 'other'"),
        (("it", "seasonal_naive", "rmse"), "metric must be among .*found 'rmse'"),
    ],
)
def test_a_pair_that_was_not_run_is_refused(arguments, message):
    report = backtest(
        {"it": small()}, load_airline(), horizons=3, test_size=6, baselines=["seasonal_naive"]
    )
    with pytest.raises(DataError, match=message):
        report.paired(*arguments)
    with pytest.raises(DataError, match="horizon must be among 3, all, found 4"):
        report.paired("it", "seasonal_naive", horizon=4)


def test_a_report_is_written_as_json_and_markdown():
    report = backtest(
        {"sktime": TrendForecaster()}, panel(), horizons=[2, 4], test_size=8, max_windows=2,
        baselines=["seasonal_naive"],
    )  # fmt: skip
    document = json.loads(report.to_json(), parse_constant=pytest.fail)  # no NaN or Infinity
    assert document["settings"]["horizons"] == [2, 4]
    assert len(document["table"]) == len(report.table)
    assert document["table"][0]["mae"] == report.table["mae"].iloc[0]
    assert {row["series_id"] for row in document["per_series"]} == {"s9", "s8"}
    trend = next(row for row in document["table"] if row["method"] == "sktime")
    assert trend["crps"] is None  # it forecasts no quantiles
    lines = report.to_markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows[:4]}) == 1
    assert "2 series of 2 variable(s), test part 8 steps a series, stride 1" in lines[0]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizons": []}, "horizons is empty"),
        ({"horizons": 0}, "horizons must be a whole number of at least 1, found 0"),
        ({"stride": 0}, "stride must be a whole number of at least 1, found 0"),
        ({"refit": True}, "refit must be a whole number of at least 1, found True"),
        ({"test_fraction": 0.5}, "test_size=6 and test_fraction=0.5 both size the test part"),
        (
            {"test_size": None, "test_fraction": 1.5},
            "test_fraction must be above 0",
        ),
        ({"metrics": []}, "metrics is empty"),
        ({"metrics": ["rmse"]}, "metrics must be among .*found 'rmse'"),
        ({"metrics": ["crps"], "quantiles": (0.1, 0.2, 0.9)}, "'crps' cannot be computed"),
        ({"quantiles": (0.9, 0.1)}, r"quantiles must be rising levels.*\(0.9, 0.1\)"),
        ({"baselines": ["prophet"]}, "baselines must be among .*found 'prophet'"),
        ({"baselines": []}, "there is nothing to evaluate"),
        ({"estimators": {"theta": NaiveForecaster()}, "baselines": ["theta"]}, "rename it"),
        ({"estimators": {"x": "naive_forecaster"}}, "estimators must be forecasters, found"),
        ({"estimators": {"x": 3}}, "must be tsllm or sktime forecasters, found int"),
        ({"seeds": []}, "seeds is empty"),
        ({"test_size": 2}, "test part of 2 steps and the shortest horizon is 3"),
        ({"test_size": 143}, "the series has 144 steps, of which 1 are left for training"),
        ({"train_size": 140}, "add up to 146: make them smaller"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments, message):
    given = {"estimators": {}, "horizons": 3, "test_size": 6, "baselines": ["seasonal_naive"]}
    given |= arguments
    with pytest.raises(DataError, match=message):
        backtest(given.pop("estimators"), load_airline(), **given)


def test_new_series_too_short_to_score_are_left_out_by_name():
    y = panel(lengths=(90, 60, 5, 1))
    old, new = y.index.levels[0][:2], y.index.levels[0][2:].tolist()
    options = {"horizons": 7, "test_size": 14, "baselines": ["seasonal_naive"]}
    said = f"left out 2 of 4 series, too short to score: {', '.join(map(repr, new))}; "
    with pytest.warns(UserWarning, match=said):
        report = backtest({}, y, **options)
    pd.testing.assert_frame_equal(report.per_series, backtest({}, y.loc[old], **options).per_series)
    assert report.notes[0].startswith(said)


def test_a_series_too_short_for_a_horizon_is_named():
    y = panel(lengths=(90, 40))
    with pytest.warns(UserWarning, match="1 of 2 series, series 's8' among them"):
        report = backtest({}, y, horizons=[2, 15], test_fraction=0.2, baselines=["seasonal_naive"])
    assert report.per_series.query("horizon == 15")["series_id"].tolist() == ["s9"]
    with pytest.raises(NotEnoughDataError, match="longest test part has 18 steps"):
        backtest({}, y, horizons=[2, 30], test_fraction=0.2, baselines=["seasonal_naive"])


def test_a_test_part_without_a_value_is_refused():
    y = hours(40)
    y.iloc[32:] = np.nan
    with pytest.raises(DataError, match="no value is observed in the test part"):
        backtest({}, y, horizons=2, test_size=8, baselines=["seasonal_naive"])


def test_a_method_that_forecasts_nothing_is_not_dropped_from_the_score():
    y = hours(40)
    y.iloc[:36, 0] = np.nan
    with pytest.raises(
        DataError, match="'seasonal_naive' forecasts NaN for the series at 2024-01-02"
    ):
        backtest({}, y, horizons=2, test_size=8, baselines=["seasonal_naive"])


def test_zero_shot_is_a_baseline_that_says_what_it_has_learnt_from():
    how = {"horizons": 3, "test_size": 6, "quantiles": (0.1, 0.5, 0.9)}
    table = backtest({}, load_airline(), baselines=["seasonal_naive", "zero_shot"], **how).table
    assert table["pretrained_on"].isna().tolist() == [True, False]
    assert table["pretrained_on"].iloc[1] == "synthetic series"


# ---------------------------------------------------------------- the forecasts themselves


def test_the_forecasts_give_the_errors_of_the_table_again():
    y = panel()
    how = {"horizons": [3, 5], "test_size": 12, "season": 7, "max_windows": 2}
    report = backtest(small(), y, baselines=["seasonal_naive", "theta"], **how)
    found = report.forecasts
    keys = ["method", "series_id", "variable", "cutoff", "step", "timestamp", "forecast"]
    assert found.columns.tolist() == [*keys, *(f"q{q / 10:g}" for q in range(1, 10)), "actual"]
    assert found["method"].unique().tolist() == report.table["method"].unique().tolist()
    for method, rows in found.groupby("method"):
        # The first row of a method is that of all its windows.
        expected = report.table.set_index(["method", "horizon"]).loc[(method, 3), "mae"].iloc[0]
        error = (rows["forecast"] - rows["actual"])[rows["step"] <= 3].abs().mean()
        assert error == pytest.approx(expected)
    one = found[found["method"] == "seasonal_naive"].iloc[0]
    assert one["timestamp"] - one["cutoff"] == pd.Timedelta(1, "h")
    assert one["actual"] == y.loc[one["series_id"]].loc[one["timestamp"], one["variable"]]


def test_too_many_forecasts_are_thinned_evenly_and_that_is_said(monkeypatch):
    monkeypatch.setattr("tsllm.evaluation.kept_forecasts.MOST_VALUES", 40)
    how = {"horizons": 3, "test_size": 12, "season": 7, "quantiles": ()}
    report = backtest({}, panel(), baselines=["seasonal_naive", "theta"], **how)
    with pytest.warns(UserWarning, match="forecasts of 6 of the 20 windows of 'seasonal_naive'"):
        found = report.forecasts
    cutoffs = found.groupby(["method", "series_id"])["cutoff"].unique()
    assert set(cutoffs.map(len)) == {3}
    assert (cutoffs["theta"].map(list) == cutoffs["seasonal_naive"].map(list)).all()


def test_a_report_is_shown_as_a_table_and_its_notes():
    report = backtest({}, hours(60), horizons=[1, 3], test_size=12, baselines=["seasonal_naive"])
    text = str(report)
    assert repr(report) == text
    assert text.startswith("Backtest of 1 series, 1 variable(s): horizons 1, 3; test part 12 steps")
    rows = [line.split() for line in text.splitlines() if line.startswith("seasonal_naive")]
    assert [row[:3] for row in rows] == [
        ["seasonal_naive", "1", "12"],
        ["seasonal_naive", "3", "10"],
    ]
    report.notes.append("something to know")
    assert "note: something to know" in str(report)
    assert max(map(len, text.splitlines())) <= 120
