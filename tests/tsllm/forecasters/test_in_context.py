"""In-context forecasting: the past steps that the model reads before the lookback."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from small_forecasters import season, tiny
from tsllm import Context
from tsllm.errors import DataError
from tsllm.forecasters.autotimes import prepend_in_context

SIZES = {"length": 6, "lookback": 4, "token_length": 2, "season": 5}


def steps(n):
    return Context(np.arange(float(n)), times=pd.RangeIndex(100, 100 + n))


def shown(context, how, **sizes):
    return prepend_in_context(context, how, **(SIZES | sizes)).values.ravel().tolist()


def test_earliest_shows_the_first_steps_and_their_own_stamps():
    arranged = prepend_in_context(steps(30), "earliest", **SIZES)
    assert arranged.values.ravel().tolist() == [0, 1, 2, 3, 4, 5, 26, 27, 28, 29]
    assert arranged.times.tolist() == [100, 101, 102, 103, 104, 105, 126, 127, 128, 129]


def test_recent_period_begins_in_the_phase_of_the_lookback():
    # The lookback begins at 26; whole seasons of 5 that hold 6 steps are 10 steps.
    assert shown(steps(30), "recent_period") == [16, 17, 18, 19, 20, 21, 26, 27, 28, 29]
    # Whole seasons: the steps right before the lookback.
    assert shown(steps(30), "recent_period", length=10) == list(range(16, 30))
    # A history that holds none in phase gives the steps right before the lookback.
    assert shown(steps(14), "recent_period", season=7)[0] == 3
    assert shown(steps(14), "recent_period", season=11) == list(range(4, 14))


def test_similar_finds_the_planted_pattern_and_what_followed_it():
    rng = np.random.default_rng(0)
    values = rng.normal(size=200)
    values[-4:] = [5.0, -5.0, 9.0, 0.0]
    values[60:64] = 3 * values[-4:] + 100  # the same shape, other level and scale
    arranged = prepend_in_context(Context(values), "similar", **SIZES).values.ravel()
    assert_array_equal(arranged[:6], values[60:66])
    assert_array_equal(arranged[6:], values[-4:])


def test_similar_compares_only_what_both_observed():
    values = np.tile([1.0, 5.0, 2.0, 8.0, 3.0], 20)
    values[30:45] = np.nan
    arranged = prepend_in_context(Context(values), "similar", **SIZES)
    assert np.isfinite(arranged.values).all()


@pytest.mark.parametrize("how", ["earliest", "recent_period", "similar"])
@pytest.mark.parametrize("length", [1, 3, 4, 9, 10, 11])
def test_short_histories_are_shown_as_they_are(how, length):
    arranged = shown(steps(length), how)
    assert len(arranged) == min(10, length)
    if length <= 10:
        assert arranged == list(range(length))


def test_another_series_is_scaled_to_the_lookbacks_units():
    foreign = np.sin(np.arange(50)) * 1000
    arranged = prepend_in_context(steps(30), foreign, **SIZES).values.ravel()
    assert_allclose(arranged[:6].mean(), np.mean([26, 27, 28, 29]))
    assert_allclose(arranged[:6].std(), np.std([26, 27, 28, 29]))
    assert_allclose(np.corrcoef(arranged[:6], foreign[-6:])[0, 1], 1.0)
    with pytest.raises(DataError, match=r"in_context must hold at least 6 steps of 1 variable"):
        prepend_in_context(steps(30), foreign[:3], **SIZES)


def of_the_model(forecaster, values):
    """The model's own forecast, without shrinkage and the correction of the point: (9, 1)."""
    reader = forecaster._model_reader(forecaster.fitted_)
    return reader.predict([Context(values)], 9)[0][0, :, :, 0]


def test_a_forecast_reads_the_steps_in_context():
    values = season(80)
    y = pd.Series(values, index=pd.RangeIndex(80))
    plain = tiny().fit(y)
    shown_earlier = tiny(in_context="earliest").fit(y)
    assert_array_equal(
        plain.fitted_.model.state_dict()["encoder.weight"],
        shown_earlier.fitted_.model.state_dict()["encoder.weight"],
    )
    arranged = np.concatenate([values[:6], values[-6:]])
    assert_allclose(of_the_model(shown_earlier, values), of_the_model(plain, arranged))


def test_a_trained_model_can_read_steps_in_context():
    y = pd.DataFrame({"value": season(80)}, index=pd.RangeIndex(80))
    panel = pd.concat({"a": y, "b": y * 2 + 5})
    trained = tiny().pretrain(panel)
    changed = trained.clone().set_params(in_context="earliest").fit(y)
    arranged = np.concatenate([season(80)[:6], season(80)[-6:]])
    expected = of_the_model(trained.clone().fit(y), arranged)
    assert_allclose(of_the_model(changed, season(80)), expected)
