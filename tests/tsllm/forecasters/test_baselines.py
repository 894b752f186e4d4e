"""DLinear and PatchTST as forecasters: what sktime's suite does not see."""

import numpy as np
import pandas as pd
import pytest
import torch
from sktime.datasets import load_airline

from tsllm import Context, DLinearForecaster, PatchTSTForecaster
from tsllm.context import batch_contexts
from tsllm.errors import DataError

SMALL_PATCHTST = {"hidden": 8, "layers": 1, "heads": 2, "feedforward": 16, "patch_length": 6}
BOTH = pytest.mark.parametrize(
    "make",
    [DLinearForecaster, lambda **more: PatchTSTForecaster(**SMALL_PATCHTST, **more)],
    ids=["dlinear", "patchtst"],
)


def waves(n_series=3, steps=160):
    """Sines of one period with noise, a panel of unequal lengths."""
    rng = np.random.default_rng(0)
    frames = {}
    for i in range(n_series):
        t = np.arange(steps - 7 * i)
        values = 50 * (i + 1) + np.sin(2 * np.pi * t / 12) + 0.05 * rng.normal(size=len(t))
        index = pd.period_range("2000-01", periods=len(t), freq="M")
        frames[f"s{i}"] = pd.DataFrame({"y": values}, index=index)
    return pd.concat(frames, names=["series_id", "timestamp"])


@BOTH
def test_it_learns_a_season_from_a_panel_and_dates_each_series(make):
    y = waves()
    train = y.groupby(level=0).apply(lambda g: g.droplevel(0).iloc[:-6])
    forecaster = make(context_length=24, max_steps=300, learning_rate=5e-3, random_state=0)
    forecast = forecaster.fit(train, fh=range(1, 7)).predict()
    truth = y.loc[forecast.index]  # exactly the dates that were held back
    naive = train.groupby(level=0).apply(lambda g: g.droplevel(0).iloc[-1])
    naive = truth.index.get_level_values(0).map(naive["y"])
    error = (forecast - truth)["y"].abs().mean()
    assert error < 0.3 * np.abs(truth["y"] - naive).mean()


@BOTH
def test_horizons_beyond_the_head_are_rolled_out_on_its_own_forecasts(make):
    forecaster = make(
        context_length=24, prediction_length=5, max_steps=3, shrinkage=False, random_state=0
    )
    forecaster.fit(load_airline())
    context = Context(load_airline().to_numpy())
    long = forecaster.forecast([context], 12)[0, :, :, 0]  # (12, 1)
    state = forecaster.fitted_
    batch = batch_contexts([context], 24)
    window, parts = batch.values, []
    for _ in range(3):
        with torch.no_grad():
            parts.append(state.model(window))
        window = torch.cat([window, parts[-1]], dim=1)[:, -24:]
    rolled = torch.cat(parts, dim=1)[0, :12].double().numpy() * batch.scale[0] + batch.location[0]
    np.testing.assert_allclose(long, rolled, rtol=1e-6)
    np.testing.assert_array_equal(long[:5], forecaster.forecast([context], 5)[0, :, :, 0])


@BOTH
def test_one_random_state_gives_one_result(make):
    y = load_airline()
    fits = [make(max_steps=5, random_state=s).fit(y, fh=[1, 2]).predict() for s in (3, 3, 4)]
    np.testing.assert_array_equal(fits[0], fits[1])
    assert (fits[0] != fits[2]).any()


@BOTH
def test_the_quantile_head_gives_quantiles_in_order(make):
    forecaster = make(loss="quantile", quantiles=(0.1, 0.5, 0.9), max_steps=5, random_state=0)
    forecaster.fit(load_airline(), fh=range(1, 13))
    quantiles = forecaster.predict_quantiles(alpha=[0.05, 0.3, 0.7, 0.95]).to_numpy()
    assert (np.diff(quantiles, axis=1) >= 0).all()


@BOTH
def test_missing_and_short_pasts_are_forecast(make):
    y = load_airline().astype(float)
    y.iloc[[5, 70, 140]] = np.nan
    forecaster = make(context_length=24, max_steps=3, random_state=0).fit(y, fh=range(1, 7))
    assert np.isfinite(forecaster.predict()).all()
    assert np.isfinite(forecaster.forecast([Context(np.array([1.0, 2.0]))], 6)).all()


@BOTH
def test_a_new_setting_of_the_head_discards_a_pretrained_model_and_others_do_not(make):
    forecaster = make(max_steps=2, random_state=0).pretrain(waves())
    assert forecaster.set_params(learning_rate=0.1).state == "pretrained"
    assert forecaster.set_params(prediction_length=3).state == "new"


def test_what_does_not_apply_is_no_parameter():
    for cls in (DLinearForecaster, PatchTSTForecaster):
        assert not {"backbone", "lora", "dtype"} & set(cls.get_param_names())
        assert cls(max_steps=1).fit(load_airline()).summary()["backbone"] is None


@pytest.mark.parametrize(
    ("forecaster", "message"),
    [
        (DLinearForecaster(kernel_size=4), "kernel_size must be an odd number of steps, found 4"),
        (DLinearForecaster(kernel_size=True), "kernel_size must be a whole number"),
        (PatchTSTForecaster(patch_length=0), "patch_length must be a whole number.*found 0"),
        (PatchTSTForecaster(hidden=10, heads=4), "hidden=10 must be a multiple of heads=4"),
        (DLinearForecaster(loss="rmse"), "loss must be one of .* found 'rmse'"),
        (DLinearForecaster(prediction_length=0), "prediction_length must be a whole number"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_by_name(forecaster, message):
    with pytest.raises(DataError, match=message):
        forecaster.fit(load_airline())


def test_patience_grows_with_the_number_of_short_epochs(monkeypatch):
    monkeypatch.setattr(DLinearForecaster, "_final_learning_rate", 0.0)
    y = load_airline()  # so few training windows that an epoch is one step, and "auto" makes 400
    still = {"learning_rate": 1e-30, "patience": 2}  # no epoch is better than the first
    automatic = DLinearForecaster(**still).fit(y).summary()
    assert automatic["stopped"] == "patience"
    assert automatic["epochs"] == automatic["steps"] == 1 + 2 * 40
    asked = DLinearForecaster(**still, max_epochs=400).fit(y).summary()
    assert asked["epochs"] == 1 + 2
