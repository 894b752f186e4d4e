"""update, pretrain, adaptive intervals: what becomes of observations that come later."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sktime.datasets import load_airline

from small_forecasters import panel, season
from tsllm import Context
from tsllm.errors import DataError


@pytest.fixture
def y():
    return load_airline()


# ---------------------------------------------------------------- update


@pytest.mark.parametrize("update_params", [True, False])
def test_update_moves_the_context_and_trains_nothing(make, y, update_params):
    forecaster = make().fit(y.iloc[:100])
    before = {k: v.clone() for k, v in forecaster.fitted_.model.state_dict().items()}
    forecaster.update(y.iloc[100:], update_params=update_params)
    after = forecaster.fitted_.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    forecast = forecaster.predict(fh=[1, 2, 3])
    assert forecast.index.tolist() == [y.index[-1] + k for k in (1, 2, 3)]
    core = forecaster.forecast([Context(y.to_numpy(), times=y.index)], 3)[0, :, 0, 0]
    assert_allclose(forecast.to_numpy(), core, rtol=1e-12)


def test_update_point_by_point_equals_update_at_once(make, y):
    slow, quick = make().fit(y.iloc[:100]), make().fit(y.iloc[:100])
    for step in range(100, 110):
        slow.update(y.iloc[step : step + 1])
    quick.update(y.iloc[100:110])
    assert_array_equal(slow.predict(fh=[1, 5]).to_numpy(), quick.predict(fh=[1, 5]).to_numpy())


def test_update_takes_corrected_and_overlapping_rows(make, y):
    forecaster = make().fit(y.iloc[:100])
    corrected = y.copy()
    corrected.iloc[95] += 50
    forecaster.update(corrected.iloc[90:105])
    whole = Context(corrected.to_numpy()[:105], times=y.index[:105])
    expected = make().fit(y.iloc[:100]).forecast([whole], 2)
    assert_allclose(forecaster.predict(fh=[1, 2]).to_numpy(), expected[0, :, 0, 0], rtol=1e-12)


def test_update_with_a_gap_is_refused(make, y):
    forecaster = make().fit(y.iloc[:100])
    with pytest.raises(DataError, match=r"begins at 1957-07 and the series ends at 1957-04"):
        forecaster.update(y.iloc[102:])
    assert forecaster.predict(fh=[1]).index[0] == y.index[100]
    assert forecaster.cutoff[0] == y.index[99]
    assert_array_equal(forecaster.predict(fh=y.index[100:102]), forecaster.predict(fh=[1, 2]))


def test_one_series_that_is_refused_leaves_the_panel_as_it_was(make):
    whole = panel([46, 46], ["a", "b"])
    start = whole.groupby(level=0).head(40)
    bad = whole.drop(index=start.index).drop(index=("b", pd.Timestamp("2024-02-10")))
    forecaster = make(adaptive=True).fit(start, fh=[1, 2])
    before = forecaster.predict_interval(coverage=0.8)
    with pytest.raises(DataError, match=r"series 'b' begins at 2024-02-11"):
        forecaster.update(bad)
    assert_array_equal(forecaster.predict_interval(coverage=0.8), before)
    assert forecaster._pending["a"].seen == 0


def test_update_without_a_frequency_of_its_own(make):
    index = pd.DatetimeIndex(pd.date_range("2024-01-01", periods=40, freq="D"), freq=None)
    values = pd.Series(season(40), index=index)
    forecaster = make().fit(values.iloc[:39]).update(values.iloc[39:])
    assert forecaster.predict(fh=[1]).index[0] == pd.Timestamp("2024-02-10")


def test_update_brings_new_series_into_a_panel(make):
    y = panel([40, 40], ["a", "b"])
    new = panel([25], ["z"])
    forecaster = make().fit(y).update(new)
    forecast = forecaster.predict(fh=[1])
    assert forecast.index.get_level_values(0).tolist() == ["a", "b", "z"]
    assert forecast.index[-1] == ("z", pd.Timestamp("2024-01-26"))


def test_update_epochs_trains_on_the_new_data(make_trained, y):
    forecaster = make_trained(update_epochs=2).fit(y.iloc[:100])
    before = {k: v.clone() for k, v in forecaster.fitted_.model.state_dict().items()}
    forecaster.update(y.iloc[100:], update_params=False)
    assert all(torch.equal(v, before[k]) for k, v in forecaster.fitted_.model.state_dict().items())
    forecaster.update(y.iloc[120:], update_params=True)
    assert any(
        not torch.equal(v, before[k]) for k, v in forecaster.fitted_.model.state_dict().items()
    )


# ---------------------------------------------------------------- pretrain


def test_pretrain_then_fit_forecasts_unseen_series_without_training(make, y):
    forecaster = make(prediction_length=6).pretrain(panel([60, 60], ["a", "b"], freq="D"))
    trained = forecaster.pretrained_.model
    unseen = panel([30], ["new"]).loc["new"]
    forecaster.fit(unseen)
    assert forecaster.fitted_.model is trained
    assert len(forecaster.predict(fh=[1, 2])) == 2
    assert np.isfinite(forecaster.predict_interval(fh=[1, 2]).to_numpy()).all()


def test_pretrained_state_survives_clone_and_set_params(make_trained):
    forecaster = make_trained().pretrain(panel([60, 60], ["a", "b"]))
    unseen = panel([30], ["new"]).loc["new"]
    expected = forecaster.clone().fit(unseen).predict(fh=[1, 2, 3])
    changed = forecaster.clone().set_params(learning_rate=1.0, update_epochs=0)
    assert changed.state == "pretrained"
    assert_array_equal(changed.fit(unseen).predict(fh=[1, 2, 3]), expected)
    assert forecaster.clone().set_params(context_length=6).state == "new"


def test_fit_after_pretrain_fine_tunes_only_where_asked(make_trained):
    forecaster = make_trained(update_epochs=1).pretrain(panel([60, 60], ["a", "b"]))
    before = {k: v.clone() for k, v in forecaster.pretrained_.model.state_dict().items()}
    forecaster.fit(panel([40], ["new"]).loc["new"])
    pretrained = forecaster.pretrained_.model.state_dict()
    fitted = forecaster.fitted_.model.state_dict()
    assert all(torch.equal(before[k], pretrained[k]) for k in before)
    assert any(not torch.equal(before[k], fitted[k]) for k in before)


def test_pretrain_refuses_what_the_model_was_not_built_for(make):
    forecaster = make().pretrain(panel([60, 60], ["a", "b"]))
    hourly = pd.Series(season(30), index=pd.date_range("2024-01-01", periods=30, freq="h"))
    with pytest.raises(DataError, match="frequency D and y has h"):
        forecaster.fit(hourly)
    wide = pd.DataFrame({"x": season(30), "z": season(30)}, index=hourly.index)
    with pytest.raises(DataError, match="'x', 'z' and the model was fitted on 'value'"):
        forecaster.fit(wide)


# ---------------------------------------------------------------- adaptive intervals


def test_adaptive_intervals_recover_from_a_change_of_noise(make_trained):
    rng = np.random.default_rng(3)
    quiet = season(300)
    loud = 10 + rng.normal(0, 3.0, 150)
    index = pd.RangeIndex(450)
    stream = pd.Series(np.concatenate([quiet, loud]), index=index)

    def misses(adaptive):
        forecaster = make_trained(adaptive=adaptive, max_steps=100, learning_rate=1e-2, dropout=0.0)
        forecaster.fit(stream.iloc[:300], fh=[1])
        outside = []
        for step in range(300, 450):
            low, high = forecaster.predict_interval(coverage=0.8).to_numpy().ravel()
            outside.append(not low <= stream.iloc[step] <= high)
            forecaster.update(stream.iloc[step : step + 1])
        return np.mean(outside[50:])

    missed = misses(adaptive=True)
    assert abs(missed - 0.2) < 0.12
    # The contexts' own scale already widens the fixed ones; they still miss their share by more.
    assert missed <= misses(adaptive=False) + 0.02


def test_adaptive_memory_is_constant(make):
    y = pd.Series(season(200), index=pd.RangeIndex(200))
    forecaster = make(adaptive=True, prediction_length=4).fit(y.iloc[:120])
    for step in range(120, 160):
        forecaster.update(y.iloc[step : step + 1])
    pending = forecaster._pending[None]
    assert len(pending.waiting) == 4
    scores = forecaster.fitted_.calibration.scores_of(None)
    assert scores.errors.shape[0] <= 256
    assert len(forecaster._contexts[None]) == min(160, forecaster.fitted_.shape.context_length)
