"""Gaps, in every method: masked in the context, resampled only on request, unequal panels."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tsllm
from small_forecasters import SMALL, season, small
from tsllm import Context
from tsllm.datasets import read_long
from tsllm.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
LEARNT = {"max_steps": 40, "learning_rate": 1e-2, "dropout": 0.0}
STAMPS = pd.date_range("2024-01-01", periods=240, freq="D")


def holed(steps, gaps, **options):
    values = season(steps, **options)
    for first, last in gaps:
        values[first:last] = np.nan
    return values


@pytest.mark.parametrize("gaps", [[(20, 26), (90, 91)], [(100, 118)], [(116, 120)]])
def test_gaps_in_training_and_context_are_masked(make_trained, gaps):
    y = pd.Series(holed(120, gaps), index=STAMPS[:120])
    forecaster = make_trained(**LEARNT).fit(y, fh=range(1, 7))
    forecast = forecaster.predict_quantiles(alpha=[0.1, 0.5, 0.9])
    assert np.isfinite(forecast.to_numpy()).all()
    assert (abs(forecaster.predict() - 10) < 3).all()
    # Whatever stood in the gap has no influence.
    seen = ~np.isnan(y.to_numpy())[:, None]
    wild = Context(np.where(seen[:, 0], y, -1e6), times=y.index, mask=seen)
    answer = forecaster.forecast([Context(y.to_numpy(), times=y.index)], 6)
    assert_array_equal(answer, forecaster.forecast([wild], 6))


def test_a_gap_in_one_variable_leaves_the_others_theirs(make_trained):
    index = STAMPS[:100]
    y = pd.DataFrame({"a": season(100), "b": season(100, level=50.0)}, index=index)
    gapped = y.copy()
    gapped.iloc[90:97, 0] = np.nan
    forecaster = make_trained(**LEARNT).fit(y, fh=[1, 2])
    whole, part = (
        forecaster.forecast([Context(one.to_numpy(), times=index)], 2)[0, :, :, 0]
        for one in (y, gapped)
    )
    assert np.isfinite(part).all()
    assert not np.allclose(part[:, 0], whole[:, 0])
    if forecaster._channel_independent:
        assert_allclose(part[:, 1], whole[:, 1], rtol=1e-6)


def test_nothing_observed_in_reach_is_refused(make):
    forecaster = make().fit(pd.Series(season(60), index=STAMPS[:60]))
    empty = Context(np.full(30, np.nan), times=STAMPS[:30], series_id="x")
    with pytest.raises(DataError, match=r"series 'x' has no observed value"):
        forecaster.forecast([empty], 2)


def test_series_start_and_end_when_they_like(make_trained):
    spans = {"late": (60, 160), "early": (0, 90), "short": (130, 137)}
    y = pd.concat(
        {
            name: pd.DataFrame({"value": season(200, level=10.0 * k)[a:b]}, index=STAMPS[a:b])
            for k, (name, (a, b)) in enumerate(spans.items(), start=1)
        },
        names=["id", "time"],
    )
    forecaster = make_trained(**LEARNT).fit(y, fh=[1, 3])
    forecast = forecaster.predict()
    for k, (name, (a, b)) in enumerate(spans.items(), start=1):
        rows = forecast.loc[name]
        assert rows.index.tolist() == [STAMPS[b], STAMPS[b + 2]]
        assert (abs(rows["value"] - 10.0 * k) < 3).all()
        own = Context(y.loc[name].to_numpy(), times=STAMPS[a:b], series_id=name)
        alone = forecaster.forecast([own], 3)[0, [0, 2], 0, 0]
        assert_allclose(rows["value"], alone, rtol=1e-5)


@pytest.mark.parametrize("method", ["autotimes", "s2ip"])
def test_missing_steps_before_a_series_are_no_steps(method):
    # Both read the last steps only, and pad shorter contexts with masked ones.
    forecaster = small(method, **LEARNT).fit(pd.Series(season(80)))
    values = season(7)
    padded = np.concatenate([np.full(5, np.nan), values])
    assert_allclose(
        forecaster.forecast([Context(padded)], 6), forecaster.forecast([Context(values)], 6),
        rtol=1e-5,
    )  # fmt: skip


def irregular(seed=0):
    rng = np.random.default_rng(seed)
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(
        np.sort(rng.choice(90 * 1440, 500, replace=False)), unit="min"
    )
    return pd.DataFrame({"ds": stamps, "y": season(500)})


@pytest.mark.parametrize("method", sorted(SMALL))
def test_irregular_stamps_are_resampled_only_on_request(method):
    table = irregular()
    settings = SMALL[method] | {"freq": "D", "quantiles": []}
    with pytest.raises(DataError, match=r"off freq='D'|irregular"):
        tsllm.forecast(table, 2, method=method, **settings)
    forecast = tsllm.forecast(table, 2, method=method, resample="mean", fill="nan", **settings)
    ahead = table["ds"].max().normalize() + pd.to_timedelta([1, 2], unit="D")
    assert forecast["ds"].tolist() == ahead.tolist()


@pytest.mark.parametrize("how", ["mean", "sum", "last"])
def test_a_step_is_made_of_the_rows_in_it(how):
    tables = [irregular(seed).assign(unique_id=name) for seed, name in enumerate("ba")]
    table = pd.concat(tables, ignore_index=True)
    table.loc[3, "y"] = np.nan
    read = read_long(table, freq="6h", resample=how, fill="nan")
    assert read["series_id"].unique().tolist() == ["b", "a"]
    for name, rows in table.groupby("unique_id"):
        bins = rows.dropna().groupby(rows["ds"].dt.floor("6h"))["y"]
        own = read[read["series_id"] == name].set_index("timestamp")["y"]
        assert own.index.freq is None
        assert (np.diff(own.index) == np.timedelta64(6, "h")).all()
        assert_allclose(own.dropna(), getattr(bins, how)())
        assert set(own.index[own.isna()]).isdisjoint(bins.groups)
    with pytest.raises(DataError, match="has a gap at"):
        read_long(table, freq="6h", resample=how)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resample": "mean"}, "needs the frequency"),
        ({"resample": "median", "freq": "D"}, "resample='median' is not known"),
    ],
)
def test_wrong_requests_to_resample_are_named(options, words):
    with pytest.raises(DataError, match=words):
        read_long(irregular(), **options)
    with pytest.raises(DataError, match="needs dates"):
        read_long(pd.DataFrame({"ds": [1, 2], "y": [1.0, 2.0]}), freq="D", resample="mean")
