"""Forecasters inside sktime: pipelines, selection, ensembles, rolling evaluation."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sktime.datasets import load_airline
from sktime.forecasting.base import ForecastingHorizon
from sktime.forecasting.compose import (
    EnsembleForecaster,
    ForecastingPipeline,
    MultiplexForecaster,
    TransformedTargetForecaster,
)
from sktime.forecasting.conformal import ConformalIntervals
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.model_selection import ForecastingGridSearchCV
from sktime.forecasting.naive import NaiveForecaster
from sktime.performance_metrics.forecasting import MeanAbsoluteError
from sktime.split import ExpandingWindowSplitter, SingleWindowSplitter, SlidingWindowSplitter
from sktime.transformations.series.boxcox import LogTransformer
from sktime.transformations.series.detrend import Detrender
from sktime.transformations.series.impute import Imputer

from small_forecasters import panel, tiny
from tsllm import Context


@pytest.fixture
def y():
    return load_airline()


@pytest.mark.parametrize("transformer", [Detrender, LogTransformer])
def test_transformed_targets(y, transformer):
    model = TransformedTargetForecaster([transformer(), tiny()]).fit(y, fh=[1, 2, 3])
    forecast = model.predict()
    by_hand = transformer().fit(y)
    inner = tiny().fit(by_hand.transform(y), fh=[1, 2, 3])
    assert_allclose(forecast, by_hand.inverse_transform(inner.predict()), rtol=1e-6)
    assert np.isfinite(model.predict_interval(coverage=0.8).to_numpy()).all()


def test_forecasting_pipeline(y):
    steps = pd.period_range(y.index[0], periods=len(y) + 2, freq="M")
    X = pd.DataFrame({"step": np.arange(len(steps), dtype=float)}, index=steps)
    X.iloc[40] = np.nan  # which the pipeline fills and the forecaster would refuse
    past, future = X.iloc[:-2], X.iloc[-2:]
    model = ForecastingPipeline([Imputer("linear"), tiny()]).fit(y, X=past, fh=[1, 2])
    by_hand = tiny().fit(y, X=past.interpolate(), fh=[1, 2]).predict(X=future)
    assert_allclose(model.predict(X=future), by_hand)


def test_multiplexer_and_ensemble(y):
    ours, naive = tiny(), NaiveForecaster(sp=12)
    chosen = MultiplexForecaster([("llm", ours), ("naive", naive)], selected_forecaster="llm")
    alone = tiny().fit(y, fh=[1, 2]).predict()
    assert_allclose(chosen.fit(y, fh=[1, 2]).predict(), alone)
    both = EnsembleForecaster([("llm", tiny()), ("naive", naive)]).fit(y, fh=[1, 2]).predict()
    assert_allclose(both, (alone + naive.fit(y).predict(fh=[1, 2])) / 2)


def test_grid_search_over_the_learning_rate(y):
    search = ForecastingGridSearchCV(
        tiny(max_steps=30),
        cv=SingleWindowSplitter(fh=[1, 2, 3]),
        param_grid={"learning_rate": [1e-7, 1e-2]},
        scoring=MeanAbsoluteError(),
        backend=None,
    ).fit(y)
    scores = search.cv_results_["mean_test_MeanAbsoluteError"]
    assert scores.nunique() == 2
    assert search.best_params_["learning_rate"] == [1e-7, 1e-2][int(scores.to_numpy().argmin())]
    assert len(search.predict(fh=[1, 2])) == 2


def test_grid_search_keeps_a_pretrained_model():
    pretrained = tiny().pretrain(panel([60, 60], ["a", "b"]))
    unseen = panel([60], ["new"]).loc["new"]["value"]
    search = ForecastingGridSearchCV(
        pretrained,
        cv=SingleWindowSplitter(fh=[1, 2]),
        param_grid={"batch_size": [8, 16]},
        backend=None,
    ).fit(unseen)
    best = search.best_forecaster_
    assert best.get_pretrained_params()
    weights = best.fitted_.model.state_dict()
    for name, tensor in pretrained.pretrained_.model.state_dict().items():
        assert_allclose(weights[name], tensor)


@pytest.mark.parametrize("strategy", ["refit", "update", "no-update_params"])
@pytest.mark.parametrize("splitter", [SlidingWindowSplitter, ExpandingWindowSplitter])
def test_evaluate_forecasts_from_the_right_origin(y, strategy, splitter):
    length = {"window_length": 60} if splitter is SlidingWindowSplitter else {"initial_window": 60}
    cv = splitter(fh=[1, 2], step_length=30, **length)
    result = evaluate(tiny(), cv, y, strategy=strategy, return_data=True)
    assert len(result) == 3
    for predicted, truth in zip(result["y_pred"], result["y_test"]):
        assert predicted.index.tolist() == truth.index.tolist()
    if strategy != "refit":
        # One model, trained on the first window; its contexts move with the folds.
        model = tiny().fit(y.iloc[:60], fh=ForecastingHorizon([1, 2]))
        for train, predicted in zip(result["y_train"], result["y_pred"]):
            expected = model.forecast([Context(train.to_numpy())], 2)[0, :, 0, 0]
            assert_allclose(predicted, expected, rtol=1e-9)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_evaluate_in_parallel_gives_the_same_scores(y, backend):
    cv = ExpandingWindowSplitter(fh=[1, 2], step_length=40, initial_window=60)
    alone = evaluate(tiny(), cv, y)
    together = evaluate(tiny(), cv, y, backend=backend, backend_params={"n_jobs": 2})
    column = "test_MeanAbsolutePercentageError"
    assert_allclose(alone[column], together[column], rtol=1e-12)


def test_conformal_intervals_around_ours(y):
    model = ConformalIntervals(tiny(), initial_window=120, sample_frac=0.2)
    interval = model.fit(y, fh=[1, 2]).predict_interval(coverage=0.8)
    assert (interval.iloc[:, 0] < interval.iloc[:, 1]).all()
