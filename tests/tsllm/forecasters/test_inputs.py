"""y and X as users pass them: columns by name, numbers of every type, one kind of index."""

import time
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tsllm
from small_forecasters import SMALL, panel, season, small
from tsllm import Context
from tsllm.errors import DataError, DataTypeError, NotEnoughDataError
from tsllm.forecasters.frames import frequency_of, split_series

DAYS = pd.date_range("2024-01-01", periods=60, freq="D")
Y = pd.DataFrame({"lo": season(60), "hi": season(60, level=1000.0, seed=1)}, index=DAYS)
PANEL = pd.concat({"a": Y, "b": Y + 5}, names=["id", "time"])
X = pd.DataFrame({"warm": season(60, seed=2), "open": np.arange(60) % 3 == 0}, index=DAYS)


def make(method="autotimes", **parameters):
    short = {"max_steps": 2} if "max_steps" in SMALL[method] else {}
    return small(method, **({"backbone": None} | short | parameters))


def first(y, steps):
    return y.groupby(level=0).head(steps) if isinstance(y.index, pd.MultiIndex) else y[:steps]


def after(y, steps):
    return y.drop(index=first(y, steps).index)


def answers(forecaster):
    points = forecaster.predict(fh=[1, 2])
    return points, forecaster.predict_quantiles(fh=[1, 2], alpha=[0.1, 0.9])


# ---------------------------------------------------------------- the columns of y


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("y", [Y, PANEL], ids=["series", "panel"])
def test_columns_are_taken_by_name(method, y):
    fitted = make(method, adaptive=True).fit(first(y, 50), fh=[1, 2])
    expected = answers(fitted.clone().fit(first(y, 50), fh=[1, 2]).update(after(y, 50)))
    swapped = fitted.update(after(y, 50)[["hi", "lo"]])
    for one, other in zip(answers(swapped), expected):
        pd.testing.assert_frame_equal(one, other)
    again = fitted.update_predict_single(after(y, 50)[["hi", "lo"]], fh=[1, 2])
    pd.testing.assert_frame_equal(again, expected[0])


def test_contexts_with_columns_are_read_by_name():
    fitted = make().fit(Y)
    named = Context(Y[["hi", "lo"]].to_numpy(), times=DAYS, columns=("hi", "lo"))
    expected = fitted.forecast([Context(Y.to_numpy(), times=DAYS)], 2, quantiles=[0.1])
    assert_array_equal(fitted.forecast([named], 2, quantiles=[0.1]), expected)
    framed = Context(Y[["hi", "lo"]], times=DAYS)
    assert_array_equal(fitted.forecast([framed], 2, quantiles=[0.1]), expected)
    with pytest.raises(DataError, match="has the columns hi, x and the model was fitted on lo, hi"):
        fitted.forecast([Context(Y.to_numpy(), columns=("hi", "x"))], 2)


def test_covariates_of_contexts_that_are_frames_are_read_by_name():
    numbers = X.assign(cold=season(60, seed=3))[["warm", "cold"]]
    fitted = make().fit(Y["lo"], X=numbers)

    def forecast(past, future):
        context = Context(Y["lo"].to_numpy(), times=DAYS, past_x=past)
        return fitted.forecast([context], 2, future_x=[future])

    expected = forecast(numbers.to_numpy(), numbers[:2].to_numpy())
    swapped = numbers[["cold", "warm"]]
    assert_array_equal(forecast(swapped, swapped[:2]), expected)
    counted = numbers.set_axis([0, 1], axis=1)
    assert_array_equal(forecast(counted, counted[:2]), expected)
    assert not np.array_equal(forecast(swapped.to_numpy(), swapped[:2].to_numpy()), expected)
    foreign = swapped.rename(columns={"warm": "more"})
    for past, future in [(foreign, numbers[:2]), (numbers, foreign[:2])]:
        with pytest.raises(DataError, match="the columns cold, more, and the model reads warm"):
            forecast(past, future)


def test_scores_and_residuals_take_columns_by_name():
    fitted = make().fit(Y[:50], fh=range(1, 11))
    assert fitted.score(Y[50:][["hi", "lo"]]) == fitted.score(Y[50:])
    residuals = fitted.predict_residuals(Y[50:][["hi", "lo"]])
    pd.testing.assert_frame_equal(residuals[["lo", "hi"]], fitted.predict_residuals(Y[50:]))


def test_payloads_and_pretrained_models_take_columns_by_name():
    forecaster = make().fit(Y)
    swapped = forecaster.to_payload(2, y=Y[["hi", "lo"]])
    assert swapped == forecaster.to_payload(2, y=Y)
    pretrained = make().pretrain(PANEL)
    expected = pretrained.clone().fit(Y).predict(fh=[1, 2])
    pd.testing.assert_frame_equal(
        pretrained.clone().fit(Y[["hi", "lo"]]).predict(fh=[1, 2]), expected
    )
    more = pretrained.clone().pretrain(PANEL[["hi", "lo"]]).fit(Y).predict(fh=[1, 2])
    pd.testing.assert_frame_equal(
        more, pretrained.clone().pretrain(PANEL).fit(Y).predict(fh=[1, 2])
    )


def test_the_columns_of_a_pretrained_model_are_saved(tmp_path):
    tsllm.save(make().pretrain(PANEL), tmp_path / "model")
    loaded = tsllm.load(tmp_path / "model")
    pd.testing.assert_frame_equal(
        loaded.clone().fit(Y[["hi", "lo"]]).predict(fh=[1]), loaded.fit(Y).predict(fh=[1])
    )


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"hi": "high"}, "y has the columns 'lo', 'high' and the model was fitted on 'lo', 'hi'"),
        ({"lo": 0, "hi": 7}, "'lo', 'hi' is missing"),
    ],
)
def test_foreign_columns_are_refused(columns, words):
    forecaster = make().fit(Y[:50])
    before = forecaster.predict(fh=[1])
    foreign = Y[50:].rename(columns=columns)
    for call in (
        forecaster.update,
        forecaster.update_predict_single,
        lambda y: forecaster.to_payload(2, y=y),
        make().pretrain(PANEL).fit,
    ):
        with pytest.raises(DataError, match=words):
            call(foreign)
    with pytest.raises(DataError, match="leave 'more' out"):
        forecaster.update(Y[50:].assign(more=1.0))
    pd.testing.assert_frame_equal(forecaster.predict(fh=[1]), before)


def test_columns_that_only_count_have_no_names():
    expected = make().fit(Y[:50]).update(Y[50:]).predict(fh=[1, 2])
    counted = make().fit(Y[:50]).update(Y[50:].set_axis([0, 1], axis=1)).predict(fh=[1, 2])
    pd.testing.assert_frame_equal(counted, expected)
    ranged = make().fit(Y[:50].set_axis(pd.RangeIndex(2), axis=1)).update(Y[50:])
    assert_array_equal(ranged.predict(fh=[1, 2]), expected)
    assert ranged.predict(fh=[1]).columns.tolist() == [0, 1]
    pretrained = make().pretrain(PANEL).fit(Y.set_axis([0, 1], axis=1)).predict(fh=[1])
    assert_array_equal(pretrained, make().pretrain(PANEL).fit(Y).predict(fh=[1]))
    assert pretrained.columns.tolist() == [0, 1]


@pytest.mark.parametrize(("fitted", "new"), [("lo", None), (None, "lo"), (None, None)])
def test_a_series_without_a_name_is_the_only_variable(fitted, new):
    y = Y["lo"]
    forecaster = make().fit(y[:50].rename(fitted)).update(y[50:].rename(new))
    expected = make().fit(y[:50]).update(y[50:]).predict(fh=[1, 2])
    pd.testing.assert_series_equal(forecaster.predict(fh=[1, 2]), expected.rename(fitted))


def test_another_name_of_the_only_variable():
    with pytest.raises(DataError, match="y has the columns 'hi' and the model was fitted on 'lo'"):
        make().fit(Y["lo"][:50]).update(Y["hi"][50:])
    # A model may forecast other series than those of the fit.
    assert make().fit(Y["lo"]).to_payload(1, y=Y["hi"])["dataframe_split"]["columns"][2] == "lo"
    with pytest.raises(DataError, match="y has the columns 'lo', 'hi' and the model was fitted on"):
        make().fit(Y["lo"]).to_payload(1, y=Y)
    forecast = make().pretrain(PANEL[["lo"]]).fit(Y["hi"]).predict(fh=[1])
    assert forecast.name == "hi"


def test_numbers_of_a_categorical_column_are_numbers():
    y = Y["lo"].round()
    expected = make().fit(y).predict(fh=[1, 2])
    pd.testing.assert_series_equal(make().fit(y.astype("category")).predict(fh=[1, 2]), expected)


# ---------------------------------------------------------------- the columns of X


@pytest.mark.parametrize("kind", ["boolean", "bool[pyarrow]", object])
def test_truth_values_of_every_type_are_the_same_category(kind):
    def forecast(train, future):
        fitted = make().fit(Y["lo"][:50], X=train, fh=[1, 2])
        return fitted.update(Y["lo"][50:55], X=future).predict(X=future)

    expected = forecast(X, X)
    other = X.astype({"open": kind})
    assert_array_equal(forecast(X, other), expected)
    assert_array_equal(forecast(other, X), expected)


@pytest.mark.parametrize("number", [Decimal, np.float64, lambda text: float(text)])
def test_numbers_among_objects_are_numbers(number):
    def forecast(y, x):
        return make().fit(y[:50], X=x, fh=[1, 2]).predict(X=x)

    numbers = X.assign(warm=X["warm"].round(3))
    objects = X.assign(warm=[number(f"{v:.3f}") for v in X["warm"]]).astype({"warm": object})
    y = Y["lo"].round(3)
    same = pd.Series([number(f"{v:.3f}") for v in y], index=DAYS, dtype=object, name="lo")
    assert_array_equal(forecast(same, objects), forecast(y, numbers))
    y.iloc[7], same.iloc[7] = np.nan, None
    assert_array_equal(forecast(same, objects), forecast(y, numbers))
    missing = objects.copy()
    missing.loc[DAYS[3], "warm"] = None
    with pytest.raises(DataError, match=r"2024-01-04.*column 'warm' of X has no value"):
        forecast(y, missing)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: pd.concat([x, x["warm"]], axis=1), "X has the column 'warm' twice"),
        (lambda x: x.assign(more=1.0), "X has the column 'more', and the model was fitted without"),
        (lambda x: x[["warm"]], "X has no column 'open'"),
        (lambda x: x.reset_index(drop=True), "X is indexed by integers and y by dates without"),
        (lambda x: x.set_axis(DAYS.to_period("D")), "X is indexed by periods and y by dates"),
        (lambda x: x.tz_localize("UTC"), r"X is indexed by dates with .* tz_localize\(None\)"),
        (lambda x: pd.concat({"a": x}), "X is a panel"),
        (lambda x: x.assign(warm=x["warm"] * 1e150), r"2024.*column 'warm' of X .* beyond 1e\+140"),
        (lambda x: x.set_axis(DAYS.where(DAYS[55] != DAYS)), "row 55 of X has no stamp"),
        (lambda x: [1, 2], "X is of type list"),
    ],
)
@pytest.mark.parametrize("door", ["predict", "update", "to_payload"])
def test_x_that_is_not_that_of_the_fit(door, change, words):
    y = Y["lo"]
    fitted = make().fit(y[:50], X=X, fh=[1, 2])
    call = {
        "predict": lambda x: fitted.predict(X=x),
        "update": lambda x: fitted.update(y[50:55], X=x),
        "to_payload": lambda x: fitted.to_payload(2, y=y[:50], X=x),
    }[door]
    with pytest.raises(DataError, match=words) as raised:
        call(change(X))
    assert "\n" not in str(raised.value)


def test_x_of_a_panel():
    y = PANEL[["lo"]]
    with pytest.raises(DataError, match="X has no series ids and y is a panel"):
        make().fit(y, X=X)
    each = pd.concat(dict.fromkeys(("a", "b"), X), names=["id", "time"])
    expected = make().fit(y, X=each["warm"].to_frame()).to_payload(1, y=y[:50], X=each[["warm"]])
    shuffled = each[["warm"]].sample(frac=1, random_state=0)
    assert expected == make().fit(y, X=shuffled).to_payload(1, y=y[:50], X=shuffled)
    assert expected == make().fit(y, X=each["warm"]).to_payload(1, y=y[:50], X=each["warm"])


# ---------------------------------------------------------------- containers and series ids


@pytest.mark.parametrize("call", ["fit", "pretrain", "update"])
def test_a_panel_may_be_a_series(call):
    frame = panel([50, 50], ["a", "b"])
    train = first(frame, 45) if call == "update" else frame

    def forecast(as_series):
        y, new = (part["value"] if as_series else part for part in (train, frame))
        if call == "pretrain":
            return make().pretrain(y).fit(new).predict(fh=[1, 2])
        forecaster = make().fit(y)
        return (forecaster.update(new) if call == "update" else forecaster).predict(fh=[1, 2])

    pd.testing.assert_frame_equal(forecast(True), forecast(False))


@pytest.mark.parametrize("y", [None, [], (), (1.0, 2.0), [1.0, 2.0], "y", {"a": [1.0]}, 3, {1.0}])
def test_what_holds_no_series(y):
    calls = [make().fit, make().pretrain]
    if y not in (None, [], ()):  # nothing to update with
        calls.append(make().fit(Y).update)
    for call in calls:
        with pytest.raises(DataTypeError, match=r"y is (None|of type \w+, which holds no series)"):
            call(y)


TEXT = Y.set_axis(DAYS.strftime("%Y-%m-%d"))


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (TEXT, r"convert them with pd\.to_datetime"),
        (TEXT["lo"], r"convert them with pd\.to_datetime"),
        (Y.rename_axis("day").reset_index(), r"column 'day' .* pass y\.set_index\('day'\)$"),
        (
            TEXT.rename_axis("day").reset_index(),
            r"y\['day'\] = pd\.to_datetime\(y\['day'\]\), then pass y\.set_index\('day'\)$",
        ),
        (PANEL.reset_index(), r"column 'time' .* pass y\.set_index\(\['id', 'time'\]\)$"),
        (PANEL.reset_index("time"), r"pass y\.set_index\('time', append=True\)$"),
        (Y.assign(day=DAYS), "column 'day' of y holds dates and its index too: leave it out"),
        (Y.assign(kind="a"), "row 0 .*, column 'kind' holds 'a', which is no number"),
    ],
)
@pytest.mark.parametrize("call", ["fit", "fit_predict", "pretrain"])
def test_dates_that_are_no_index(call, y, told):
    horizon = {"fh": [1]} if call == "fit_predict" else {}
    with pytest.raises(DataError, match=told):
        getattr(make(), call)(y, **horizon)


@pytest.mark.parametrize("call", ["update", "update_predict_single", "score", "predict_residuals"])
def test_text_for_a_forecaster_of_dates(call):
    forecaster = make().fit(first(Y, 50), fh=[1])
    with pytest.raises(DataError, match=r"convert those of y with pd\.to_datetime"):
        getattr(forecaster, call)(after(TEXT, 50))
    with pytest.raises(DataError, match=r"pass y\.set_index\('day'\)$"):
        getattr(forecaster, call)(after(Y, 50).rename_axis("day").reset_index())


@pytest.mark.parametrize("y", [Y["lo"], Y["lo"].rename(None), Y[["lo"]], PANEL[["lo"]]])
def test_update_predict_single_answers_in_the_form_of_y(y):
    fitted = make().fit(first(y, 50), fh=[1, 2])
    expected = fitted.clone().fit(first(y, 50), fh=[1, 2]).update(after(y, 50))
    same = pd.testing.assert_series_equal if y.ndim == 1 else pd.testing.assert_frame_equal
    same(fitted.update_predict_single(after(y, 50)), expected.predict())
    same(fitted.predict(), expected.predict())


def test_empty_frames_and_repeated_columns():
    with pytest.raises(NotEnoughDataError, match="0 steps"):
        make().fit(Y[:0])
    with pytest.raises(DataError, match="y has no column"):
        make().fit(Y[[]])
    with pytest.raises(DataError, match="y has the column 'lo' twice"):
        make().fit(Y[["lo", "hi", "lo"]])
    with pytest.raises(DataError, match="y has columns of 2 levels: join"):
        make().fit(pd.concat({"a": Y}, axis=1))


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NaT])
@pytest.mark.parametrize("levels", [2, 3])
def test_a_series_without_an_id_is_refused(nothing, levels):
    ids = pd.Index([nothing] * 60 + ["b"] * 60, dtype=object)
    arrays = [["x"] * 120] * (levels - 2) + [ids, DAYS.append(DAYS)]
    names = ["region", "id", "time"][-levels:]
    nameless = PANEL.set_axis(pd.MultiIndex.from_arrays(arrays, names=names))
    for call in (make().fit, make().pretrain, make().fit(PANEL).update):
        with pytest.raises(DataError, match=r"row 0 of y has no series id|index levels"):
            call(nameless)
    with pytest.raises(DataError, match="row 0 of X has no series id"):
        make().fit(nameless.loc[nameless.index.get_level_values("id") == "b"], X=nameless)


def test_a_series_whose_id_is_nan_in_the_level_is_refused():
    panel = pd.concat({"a": Y, np.nan: Y})
    assert -1 not in panel.index.codes[0]
    with pytest.raises(DataError, match="row 60 of y has no series id"):
        make().fit(panel)


@pytest.mark.parametrize(
    "index", [DAYS, pd.RangeIndex(3, 63), DAYS.to_period("D")], ids=["d", "i", "p"]
)
def test_panels_are_split_as_their_series_are(index):
    rng = np.random.default_rng(0)
    parts = {}
    for name in rng.permutation(12).tolist():  # some share their stamps
        first, steps = rng.integers(0, 3), rng.integers(3, 6)
        stamps = index[first : first + steps]
        parts[name] = pd.DataFrame(rng.normal(size=(steps, 2)), index=stamps, columns=["u", "v"])
    together = pd.concat(parts)
    shuffled = together.iloc[np.argsort(rng.integers(0, 3, len(together)), kind="stable")]
    shuffled = shuffled.sort_index(level=1, sort_remaining=False, kind="stable")
    for context in split_series(shuffled):
        (alone,) = split_series(parts[context.series_id])
        assert_array_equal(context.values, alone.values)
        assert context.times.equals(alone.times)
        assert getattr(context.times, "freq", 0) == getattr(alone.times, "freq", 0)


WEEKS = pd.date_range("2024-01-07", periods=12, freq="W-SUN")


@pytest.mark.parametrize("stamps", [WEEKS, pd.RangeIndex(0, 60, 5)], ids=["weeks", "integers"])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_short_series_takes_the_frequency_of_its_panel(stamps, steps):
    whole = pd.DataFrame({"u": np.arange(12.0)}, stamps)
    panel = pd.concat({"short": whole[4 : 4 + steps], "long": whole, "other": whole[2:]})
    contexts = split_series(panel)
    assert [context.series_id for context in contexts] == ["short", "long", "other"]
    assert [len(context) for context in contexts] == [steps, 12, 10]
    assert len({frequency_of([context]) for context in contexts}) == 1
    assert contexts[0].times.equals(stamps[4 : 4 + steps])


def test_short_series_of_a_panel_are_forecast_and_others_refused():
    panel = pd.concat({"zwei": Y[20:22], "a": Y})
    points = make().fit(panel).predict(fh=[1, 2])
    assert points.loc["zwei"].index.tolist() == DAYS[22:24].tolist()
    with pytest.raises(DataError, match=r"series 'zwei' has a gap at freq='D': 2 stamps"):
        make().fit(pd.concat({"zwei": Y[20:24:3], "a": Y}))
    off = Y[20:22].set_axis(pd.DatetimeIndex(["2024-01-21 00:00", "2024-01-21 12:00"]))
    with pytest.raises(DataError, match=r"series 'zwei' has stamps off freq='D'"):
        make().fit(pd.concat({"zwei": off, "a": Y}))
    with pytest.raises(DataError, match=r"series 'zwei' has 2 stamps, too few"):
        make().fit(pd.concat({"zwei": Y[20:22], "a": Y[:2]}))


def test_many_short_series_are_refused_quickly():
    ids = pd.MultiIndex.from_product([range(10_000), DAYS[:1]])
    y = pd.DataFrame({"lo": 1.0, "hi": 2.0}, index=ids)
    forecaster = make().fit(PANEL.rename(index={"a": 0, "b": 1}))
    started = time.perf_counter()
    with pytest.raises(DataError, match="the update of series 0 ends at 2024-01-01"):
        forecaster.update(y)
    assert time.perf_counter() - started < 10  # a second on a quiet machine


# ---------------------------------------------------------------- updates of another form


def zoned(y, zone):
    return y.set_axis(DAYS[: len(y)].tz_localize("Europe/Berlin").tz_convert(zone))


@pytest.mark.parametrize(
    ("fitted", "new", "words"),
    [
        (Y[:50], PANEL, r"y is a panel, with the index levels \(id, time\).*y.xs\('a'\)"),
        (PANEL, Y, "y is a single series and the model follows a panel"),
        (PANEL, pd.concat({"r": PANEL}), r"pass the levels of the fit"),
        (Y[:50], zoned(Y, "UTC"), r"dates with a time zone .* tz_localize\(None\)"),
        (zoned(Y[:50], "UTC"), Y, r"dates without a time zone .* tz_localize\('UTC'\)"),
        (Y[:50], Y.reset_index(drop=True), "y is indexed by integers"),
        (Y.reset_index(drop=True), Y, "y is indexed by dates"),
        (Y[:50], Y.set_axis(DAYS.to_period("D")), "y is indexed by periods"),
    ],
)
def test_an_update_of_another_form(fitted, new, words):
    forecaster = make().fit(fitted)
    before = forecaster.predict(fh=[1])
    with pytest.raises(DataError, match=words):
        forecaster.update(new)
    pd.testing.assert_frame_equal(forecaster.predict(fh=[1]), before)


@pytest.mark.parametrize("as_panel", [False, True])
def test_an_update_in_another_time_zone_is_converted(as_panel):
    days = pd.date_range("2024-03-01", periods=60, freq="D", tz="Europe/Berlin")  # one has 23 h
    y = Y.set_axis(days)

    def wrap(part):
        series = {"b": part, "a": part + 1}
        return pd.concat(series, names=["id", "time"]) if as_panel else part

    expected = make().fit(wrap(y[:20])).update(wrap(y[20:])).predict(fh=[1, 2])
    utc = make().fit(wrap(y[:20])).update(wrap(y[20:].tz_convert("UTC"))).predict(fh=[1, 2])
    pd.testing.assert_frame_equal(utc, expected)


def test_a_fitted_forecaster_is_pretrained():
    pretrained = make().fit(Y).pretrain(PANEL)
    expected = make().pretrain(PANEL).fit(Y).predict(fh=[1])
    pd.testing.assert_frame_equal(pretrained.fit(Y).predict(fh=[1]), expected)


def test_a_forecaster_is_fitted_again_to_series_of_another_form():
    forecaster = make().fit(PANEL)
    hourly = pd.Series(season(50), index=pd.date_range("2024-01-01", periods=50, freq="h"))
    assert_array_equal(forecaster.fit(hourly).predict(fh=[1]), make().fit(hourly).predict(fh=[1]))


# ---------------------------------------------------------------- large values


@pytest.mark.parametrize("factor", [1e140, 1e154, 1e300])
def test_values_too_large_to_compute_with(factor):
    forecaster = make().fit(Y[:50])
    infinite = Y.to_numpy().copy()
    infinite[3, 1] = np.inf
    words = r"row 0.* holds a value beyond 1e\+140, too large .* rescale"
    for call in (make().fit, make().pretrain(PANEL).fit, forecaster.update):
        with pytest.raises(DataError, match=words):
            call(Y[50:] * factor)
    with pytest.raises(DataError, match=f"series 'big', {words}"):
        forecaster.forecast([Context(Y.to_numpy() * factor, series_id="big")], 2)
    with pytest.raises(DataError, match="series 'big', row 3, column 1 holds inf"):
        forecaster.forecast([Context(infinite, series_id="big")], 2)


@pytest.mark.parametrize("method", SMALL)
@pytest.mark.parametrize("size", [1e-140, 1e136])
def test_the_largest_values_have_finite_forecasts(method, size):
    y = Y * size
    points, quantiles = answers(make(method).fit(y))
    assert np.isfinite(points).all(axis=None)
    assert np.isfinite(quantiles).all(axis=None)
    assert (points["hi"] / size).between(900, 1100).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("method", SMALL)
def test_a_large_constant_is_its_constant(method):
    y = pd.Series(9e139, index=DAYS)
    assert_allclose(make(method).fit(y).predict(fh=[1, 2]), 9e139, rtol=1e-12)


def test_covariates_that_lead_beyond_all_numbers():
    small_x = X[["warm"]] * 1e-139
    fitted = make().fit(Y["lo"][:50] * 1e130, X=small_x, fh=[1])
    with pytest.raises(DataError, match="the forecast of the series is no finite number"):
        fitted.predict(X=X[["warm"]] * 1e130)
