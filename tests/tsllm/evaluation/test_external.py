"""The baselines of other packages: against these packages called by hand, and without them."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch

from tsllm import backtest
from tsllm.evaluation.boosting import LightGBMMethod
from tsllm.evaluation.external import PACKAGES
from tsllm.evaluation.holdout import hold_out
from tsllm.evaluation.methods import make_method

LEVELS = [0.1, 0.25, 0.9]


def require(name):
    """Import a package, or skip with a sentence."""
    return pytest.importorskip(name, reason=f"{name} is absent: pip install 'tsllm[baselines]'")


def months(steps=60, seed=0, scale=1.0, shift=0.0):
    """A trend with a season of 12 and noise."""
    t = np.arange(steps)
    noise = np.random.default_rng(seed).normal(size=steps)
    values = 50 + 0.3 * t + 5 * np.sin(2 * np.pi * t / 12) + noise
    index = pd.period_range("2010-01", periods=steps, freq="M")
    return pd.Series(scale * values + shift, index=index)


def forecasts(name, y, *, horizon=6, levels=(), seed=None, season=None):
    """Forecast the last ``horizon`` steps: (horizon, 1 + levels)."""
    holdout = hold_out(y, [horizon], test_size=horizon, season=season)
    method = make_method(name, holdout, longest=horizon, max_history=5)
    method.fit(holdout.borders, seed)
    return method.forecast(np.array([0]), holdout.borders[:1], horizon, levels)[0, :, 0]


# ---------------------------------------------------------------- without the packages


@pytest.mark.parametrize(("name", "package"), PACKAGES.items())
def test_a_missing_package_is_one_sentence_with_what_to_install(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    words = f"the baseline '{name}' needs {package}: pip install 'tsllm\\[baselines\\]'"
    with pytest.raises(ImportError, match=words):
        backtest({}, months(), horizons=3, baselines=["seasonal_naive", name])


# ---------------------------------------------------------------- FLAIR


def test_flair_is_the_package_on_the_whole_past():
    flaircast = require("flaircast")
    y = months()
    paths = flaircast.forecast(y.to_numpy()[:-6], 6, "M", seed=3)
    found = forecasts("flair", y, levels=LEVELS, seed=3)
    expected = np.stack([paths.mean(axis=0), *np.quantile(paths, LEVELS, axis=0)], axis=1)
    np.testing.assert_array_equal(found, expected)
    assert (forecasts("flair", y, seed=4) != found[:, :1]).any()


def test_flair_takes_the_season_for_its_period_where_times_are_numbers():
    flaircast = require("flaircast")
    y = months().reset_index(drop=True)
    paths = flaircast.forecast(y.to_numpy()[:-6], 6, "M", seed=0)
    np.testing.assert_array_equal(forecasts("flair", y, season=12)[:, 0], paths.mean(axis=0))


def test_flair_forecasts_past_a_gap_at_the_end_and_constants():
    flaircast = require("flaircast")
    y = months()
    y.iloc[-9:-6] = np.nan
    paths = flaircast.forecast(y.to_numpy()[:-9], 3 + 6, "M", seed=0)
    np.testing.assert_array_equal(forecasts("flair", y)[:, 0], paths[:, 3:].mean(axis=0))
    constant = pd.Series(7.0, index=y.index)
    assert (forecasts("flair", constant, levels=LEVELS) == 7.0).all()


# ---------------------------------------------------------------- Fracast


def test_fracast_is_the_package_and_interpolates_its_deciles():
    fracast = require("fracast")
    y = months(seed=2)
    model = fracast.FracastModel.from_pretrained()
    deciles = model.forecast(y.to_numpy()[:-6], horizon=6)  # (6, 9)
    state = torch.get_rng_state()
    found = forecasts("fracast", y, levels=LEVELS)
    assert (torch.get_rng_state() == state).all()
    np.testing.assert_allclose(found[:, 0], deciles[:, 4], rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], deciles[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found[:, 2], (deciles[:, 1] + deciles[:, 2]) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[:, 3], deciles[:, 8], rtol=1e-5)


def test_fracast_follows_size_and_level_of_a_series():
    require("fracast")
    y, moved = months(), months(scale=1e-3, shift=1e6)
    found = (forecasts("fracast", moved, levels=LEVELS) - 1e6) / 1e-3
    np.testing.assert_allclose(found, forecasts("fracast", y, levels=LEVELS), rtol=1e-4)


def test_fracast_says_what_it_was_pretrained_on_and_what_it_lacks():
    require("fracast")
    y = months()
    y.iloc[:-13] = np.nan
    report = backtest(
        {},
        y,
        horizons=6,
        test_size=6,
        season=4,
        quantiles=[0.05, 0.5, 0.95],
        baselines=["seasonal_naive", "fracast"],
    )
    rows = report.table.set_index("method")
    assert rows.loc["fracast", "pretrained_on"] == "public series"
    assert pd.isna(rows.loc["seasonal_naive", "pretrained_on"])
    assert pd.isna(rows.loc["fracast", "coverage"])  # its deciles end at 10 and 90 %
    assert rows.loc["fracast", "mae"] == rows.loc["seasonal_naive", "mae"]  # 7 steps are too few
    notes = " ".join(report.notes)
    assert "may have seen these series" in notes
    assert "no quantiles beyond its deciles, such as 0.05, 0.95" in notes
    assert "1 pasts have fewer than 8 observed steps" in notes


# ---------------------------------------------------------------- LightGBM


def fitted(*series, horizon=6):
    require("lightgbm")
    y = pd.concat(dict(enumerate(series)), names=["series", "time"]).to_frame("value")
    holdout = hold_out(y, [horizon], test_size=horizon)
    method = LightGBMMethod(holdout)
    method.fit(holdout.borders, None)
    rows = np.arange(len(series))
    return method.forecast(rows, holdout.borders, horizon, ())[:, :, 0, 0]


def test_lightgbm_repeats_a_season_that_repeats():
    t = np.arange(72)
    y = pd.Series(
        np.tile(np.arange(12.0), 6), index=pd.period_range("2010-01", periods=72, freq="M")
    )
    np.testing.assert_allclose(fitted(y)[0], np.arange(12.0)[t[-6:] % 12], atol=1e-9)


def test_lightgbm_follows_size_and_level_of_a_series():
    plain = [months(120, seed) for seed in range(4)]
    moved = [1000 * y - 5000 for y in plain]
    np.testing.assert_allclose(fitted(*moved), 1000 * fitted(*plain) - 5000, rtol=1e-4)


def test_lightgbm_sees_no_step_after_the_origin_and_no_other_row():
    series = [months(120, seed) for seed in range(4)]
    changed = [y.copy() for y in series]
    for y in changed:
        y.iloc[-6:] += 1000
    found = fitted(*series)
    np.testing.assert_array_equal(fitted(*changed), found)
    assert np.abs(found - np.stack([y.iloc[-6:] for y in series])).mean() < 2.5


def test_lightgbm_reads_gaps_and_series_without_two_seasons():
    holed, short = months(120), months(20, seed=1)
    holed.iloc[50:60] = np.nan
    found = fitted(holed, short)
    assert np.isfinite(found).all()
    assert np.abs(found[1] - short.iloc[-6:].to_numpy()).mean() < 10


def test_lightgbm_is_one_model_for_every_window():
    require("lightgbm")
    report = backtest(
        {}, months(120), horizons=[1, 3], test_size=12, baselines=["lightgbm"], quantiles=()
    )
    assert report.table["windows"].tolist() == [12, 10]
    assert report.table["scored_on"].unique().tolist() == ["all"]
