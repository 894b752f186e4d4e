"""Calls that a forecaster refuses: one sentence with the remedy, and nothing has changed."""

import numpy as np
import pandas as pd
import pytest

from small_forecasters import season
from tsllm import LinearForecaster
from tsllm.errors import DataError

Y = pd.Series(season(60), index=pd.date_range("2024-01-01", periods=60, freq="D"), name="y")
X = pd.DataFrame(
    {"promo": np.arange(70.0) % 7}, index=pd.date_range("2024-01-01", periods=70, freq="D")
)
# A gap lies between the end of Y and these.
LATER = pd.Series([1.0, 2.0], index=pd.date_range("2024-03-04", periods=2, freq="D"), name="y")


@pytest.fixture(scope="module")
def fitted():
    return LinearForecaster(context_length=12).fit(Y, fh=[1, 2])


REFUSED = {
    "coverage must lie strictly between 0 and 1, found 80: write 0.8 for 80 %": lambda one: (
        one.predict_interval(coverage=80)
    ),
    "found '80%': write 0.8 for 80 %": lambda one: one.predict_interval(coverage="80%"),
    "alpha must lie strictly between 0 and 1, found 50: write 0.5 for 50 %": lambda one: (
        one.predict_quantiles(alpha=50)
    ),
    "holds '12', which is no date: write 12 without quotation marks": lambda one: one.predict("12"),
    "fh=[0] asks for an in-sample forecast": lambda one: one.predict(0),
    "fh is empty": lambda one: one.predict([]),
    "cov=True asks for covariances": lambda one: one.predict_var(cov=True),
    "marginal=False asks for a joint": lambda one: one.predict_proba(marginal=False),
    "y is missing": lambda one: one.predict_residuals(),
    "y is of type list": lambda one: one.predict_residuals([1, 2, 3]),
    "cv must be a splitter of sktime.split": lambda one: one.update_predict(Y, cv=3),
    "X is of type list, which holds no series; for a horizon write fh=[1, 2, 3]": lambda one: (
        one.clone().fit(Y, [1, 2, 3])
    ),
    "for a horizon write fh=12": lambda one: one.clone().fit(Y, 12),
    "no parameter 'random_sate': did you mean 'random_state'?": lambda one: one.clone().set_params(
        random_sate=1
    ),
    "no parameter 'seed': did you mean 'random_state'?": lambda one: one.clone().set_params(seed=1),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_refused_call_says_what_to_write(fitted, sentence):
    with pytest.raises(DataError) as refused:
        REFUSED[sentence](fitted)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.predict(0),
        lambda one: one.predict([1, 2, 3, 4], X="promo"),
        lambda one: one.predict([1, 2, 3, 4], X=X.iloc[:61]),
        lambda one: one.predict_interval([1, 2, 3, 4], X=X.iloc[:61]),
        lambda one: one.predict_quantiles([1, 2, 3, 4], X=X.iloc[:61], alpha=0.5),
        lambda one: one.predict_var([1, 2, 3, 4], X=X.iloc[:61]),
        lambda one: one.predict_proba([1, 2, 3, 4], X=X.iloc[:61]),
        lambda one: one.score(Y, fh=0),
        lambda one: one.explain([1, 2, 3, 4], X=X.iloc[:61]),
        lambda one: one.explain_texts([1, 2, 3, 4], X=X.iloc[:61]),
        lambda one: one.update_predict_single(LATER, fh=[1, 2, 3], X=X),
        lambda one: one.update_predict(LATER, X=X),
        lambda one: one.fit_predict(Y, X=X, fh=0),
        lambda one: one.fit_predict(Y.where(Y.index != Y.index[5], np.inf), X=X, fh=[1]),
    ],
)
def test_the_horizon_of_a_refused_call_does_not_stick(call):
    forecaster = LinearForecaster(context_length=12).fit(Y, X=X.iloc[:60], fh=[1, 2])
    before = forecaster.predict(X=X)
    with pytest.raises(DataError):
        call(forecaster)
    pd.testing.assert_series_equal(forecaster.predict(X=X), before)


def test_an_update_whose_forecast_is_refused_has_happened():
    forecaster = LinearForecaster(context_length=12).fit(Y.iloc[:-1], fh=[1, 2])
    with pytest.raises(DataError, match="in-sample"):
        forecaster.update_predict_single(Y.tail(1), fh=0)
    assert forecaster.cutoff == Y.index[-1:]
    assert forecaster.predict().index[0] == Y.index[-1] + pd.Timedelta("1D")
