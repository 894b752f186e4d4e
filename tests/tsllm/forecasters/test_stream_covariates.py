"""Streams of models with covariates: the forecasts of update(y, X) and predict(X=X)."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tsllm
from small_forecasters import season, small
from tsllm.errors import DataError
from tsllm.forecasters import METHODS

LEVELS = (0.1, 0.9)
DAYS = pd.date_range("2024-01-01", periods=130, freq="D")
END = 100
KINDS = {
    "linear": {"method": "linear"},
    "linear, adaptive": {"method": "linear", "adaptive": True},
    "aaren": {"method": "aaren", "flip_invariance": True},
    "aaren, adaptive": {"method": "aaren", "adaptive": True, "memory": "window"},
    "autotimes": {"method": "autotimes", "backbone": None},
    "auto": {"method": "auto", "candidates": ["theta", "dlinear"], "backbone": None},
    "texts": {"method": "linear", "text_covariates": ("news",), "text_backbone": "tfidf"},
}


def make(method, **parameters):
    build = METHODS[method] if method in ("linear",) else lambda **own: small(method, **own)
    return build(past_covariates=("flow",), **parameters)


def table(texts=False, seed=0):
    """Make a series and its covariates: numbers, categories, a past one, and texts."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "heat": rng.normal(size=len(DAYS)),
            "sky": rng.choice(["clear", "rain"], len(DAYS)),
            "flow": rng.normal(size=len(DAYS)),
        },
        index=DAYS,
    )
    if texts:
        X["news"] = np.where(rng.random(len(DAYS)) < 0.3, None, rng.choice(["calm", "storm"], 130))
    y = season(len(DAYS)) + 2 * X["heat"].to_numpy() + 3 * (X["sky"] == "rain").to_numpy()
    return pd.Series(y, index=DAYS), X


def ahead(X, first, steps=3):
    return X.iloc[first : first + steps].drop(columns="flow")


def assert_same_forecasts(stream, forecaster, X):
    found = stream.forecast(3, LEVELS, X)  # (series, 3, 1, 3)
    points = forecaster.predict(X=X).to_numpy().ravel()
    bounds = forecaster.predict_quantiles(X=X, alpha=list(LEVELS)).to_numpy()
    assert_allclose(found[..., 0].ravel(), points, rtol=1e-5, atol=1e-5)
    assert_allclose(found[..., 1:].reshape(bounds.shape), bounds, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_agrees_with_update_and_predict(kind, tmp_path):
    y, X = table(texts=kind == "texts")
    forecaster = make(**KINDS[kind]).fit(y[:END], X=X[:END], fh=[1, 2, 3])
    stream = forecaster.stream()
    assert stream.covariates == list(X.columns)
    assert stream.known_covariates == [name for name in X.columns if name != "flow"]
    for step in range(END, END + 12):
        value = np.nan if step == END + 4 else y.iloc[step]
        row = X.iloc[step : step + 1]
        stream.observe(DAYS[step], value, row if step % 2 else row.iloc[0].to_dict())
        forecaster.update(pd.Series([value], index=DAYS[step : step + 1]), X=row)
        if step == END + 6:
            stream = pickle.loads(pickle.dumps(stream))
            stream = tsllm.load(tsllm.save(stream, tmp_path / "stream"))
    future = ahead(X, END + 12)
    assert_same_forecasts(stream, forecaster, future)
    columns = stream.forecast(3, LEVELS, future.to_dict("list"))
    assert_array_equal(columns, stream.forecast(3, LEVELS, future))
    assert_array_equal(stream.table(3, LEVELS, future)["forecast"], columns[0, :, 0, 0])


def pairs(names, first, end):
    """Make the tables of several series, one after the other."""
    made = [table(seed=seed) for seed in range(len(names))]
    y, X = (pd.concat([one[k][first:end] for one in made], keys=names) for k in (0, 1))
    return y.to_frame("value"), X


@pytest.mark.parametrize("method", ["linear", "aaren"])
def test_series_of_a_panel_have_rows_of_their_own(method):
    y, X = pairs(["a", "b", "c"], 0, 60)
    forecaster = make(method).fit(y, X=X, fh=[1, 2, 3])
    new, new_x = pairs(["a", "b", "c"], 60, 65)
    stream = forecaster.stream()
    for names, step in ((["c", "a"], 60), (["b"], 60), (["a", "b", "c"], 61)):
        rows = [(name, DAYS[step]) for name in names]
        values = new.loc[rows, "value"].to_numpy()
        stream.observe(DAYS[step], values, new_x.loc[rows[::-1]], series=names)
        for row in rows:
            forecaster.update(new.loc[[row]], X=new_x.loc[[row]])
    future = new_x[new_x.index.get_level_values(-1) > DAYS[61]].drop(columns="flow")
    assert_same_forecasts(stream, forecaster, future)
    more, more_x = pairs(["x", "y"], 0, 62)
    stream.add(more, more_x)
    assert_same_forecasts(
        stream,
        forecaster.update(more, X=more_x),
        pd.concat([future, pairs(["x", "y"], 62, 65)[1].drop(columns="flow")]),
    )
    with pytest.raises(DataError, match="X is missing: the model was fitted with"):
        forecaster.stream(more)
    assert forecaster.stream(more, more_x).series == ["x", "y"]
    with pytest.raises(DataError, match="pass both, or neither"):
        forecaster.stream(X=more_x)


def test_attributes_stay_as_they_are():
    y, X = pairs(["a", "b"], 0, 50)
    X = X[["heat"]].assign(place=np.repeat(["north", "south"], 50))
    forecaster = small("timecma", backbone=None, static_attributes=("place",))
    forecaster.fit(y, X=X, fh=[1, 2])
    stream = forecaster.stream()
    stream.observe(DAYS[50], [1.0, 2.0], {"heat": [0.5, -0.5]})
    index = pd.MultiIndex.from_product([["a", "b"], DAYS[50:51]])
    rows = pd.DataFrame({"heat": [0.5, -0.5], "place": ["north", "south"]}, index=index)
    forecaster.update(pd.DataFrame({"value": [1.0, 2.0]}, index=index), X=rows)
    index = pd.MultiIndex.from_product([["a", "b"], DAYS[51:53]])
    future = pd.DataFrame({"heat": np.arange(4.0)}, index=index)
    expected = forecaster.predict(X=future).to_numpy().reshape(2, 2)
    assert_allclose(stream.forecast(2, (), future)[:, :, 0, 0], expected, rtol=1e-5)


GOOD = {"heat": 1.0, "sky": "rain", "flow": 2.0}
MISTAKES = [
    (None, "X is missing: the model was fitted with the covariates heat, sky, flow"),
    ({"heat": 1.0, "flow": 2.0}, "X has no column 'sky'"),
    (GOOD | {"sky": "snow"}, "column 'sky' of X holds 'snow', which was not seen in fitting"),
    (GOOD | {"heat": np.nan}, "column 'heat' of X has no value"),
    (GOOD | {"heat": "hot"}, "column 'heat' of X holds 'hot'"),
    (GOOD | {"wind": 1.0}, "X has the column 'wind', and the model was fitted without it"),
    (GOOD | {"heat": [1.0, 2.0]}, "X has 2 values of 'heat', and 1 are read"),
    (pd.DataFrame([GOOD], index=DAYS[99:100]), "X has no row of the series at 2024-04-10"),
    (pd.Series(GOOD, name=DAYS[100]), "X is a Series with the columns .* pass the row as a table"),
    (7, "X"),
]


def test_a_mistake_is_one_sentence_and_changes_nothing():
    y, X = table()
    stream = make("linear").fit(y[:END], X=X[:END], fh=[1, 2, 3]).stream(fill="nan")
    future = ahead(X, END)
    before = stream.forecast(3, (), future)
    for wrong, message in MISTAKES:
        with pytest.raises(DataError, match=message):
            stream.observe(DAYS[END], 1.0, wrong)
    for fill in (None, "nan"):
        stream.fill = fill
        with pytest.raises(DataError, match=r"has a gap: .*, and the covariates heat, sky, flow"):
            stream.observe(DAYS[END + 2], 1.0, GOOD)
    for wrong, message in (
        (None, "the future of the covariates heat, sky is missing"),
        (future.iloc[:2], "X has no row of the series at 2024-04-12"),
        ({"heat": [1.0] * 3}, "X has no column 'sky'"),
    ):
        with pytest.raises(DataError, match=message):
            stream.forecast(3, (), wrong)
    assert_array_equal(stream.forecast(3, (), future), before)
    one = {"heat": np.array(1.0), "sky": np.array("rain")}  # arrays without axes are values
    assert_array_equal(
        stream.forecast(1, (), one), stream.forecast(1, (), {"heat": [1.0], "sky": ["rain"]})
    )
    with pytest.raises(DataError, match="levels must lie strictly between 0 and 1, found 10"):
        stream.forecast(3, [10], future)
    with pytest.raises(DataError, match="levels must be a list of numbers"):
        stream.forecast(3, future)
    plain = METHODS["linear"]().fit(y[:END], fh=[1]).stream()
    with pytest.raises(DataError, match="the model was fitted without covariates: leave X out"):
        plain.observe(DAYS[END], 1.0, GOOD)
    with pytest.raises(DataError, match="the model was fitted without covariates: leave X out"):
        plain.forecast(1, (), GOOD)
