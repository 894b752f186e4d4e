"""Streams of series: the forecasts of update and predict, step by step."""

import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import tsllm
from small_forecasters import TINY, panel, season, small
from tsllm.errors import DataError, DataTypeError
from tsllm.forecasters import METHODS
from tsllm.forecasters.adaptive_stream import MOST_PUT_OFF
from tsllm.forecasters.kept_rows import KeptRows
from tsllm.forecasters.stream_clock import StreamClock

LEVELS = (0.1, 0.5, 0.9)
START = 100
DAYS = pd.date_range("2024-01-01", periods=170, freq="D")
#: Ways to follow a series: running states with patches of either sign, and contexts.
FOLLOWED = {
    "aaren": {"method": "aaren", "flip_invariance": True},
    "aaren, window": {"method": "aaren", "memory": "window", "patch_length": 2},
    "aaren, language model": {"method": "aaren", "backbone": TINY, "soft_prompt_length": 2},
    "aaren, reencode": {"method": "aaren", "memory": "reencode"},
    "aaren, adaptive": {"method": "aaren", "adaptive": True, "prediction_length": 3},
    "autotimes, adaptive": {"method": "autotimes", "adaptive": True, "backbone": None},
    "auto": {"method": "auto", "candidates": ["theta", "dlinear"], "backbone": None},
}


def fitted(method, y, **parameters):
    return small(method, **parameters).fit(y, fh=[1, 2, 3])


@pytest.fixture(scope="module")
def forecasters():
    y = pd.Series(season(START), index=DAYS[:START])
    return {name: fitted(y=y, **parameters) for name, parameters in FOLLOWED.items()}


@pytest.fixture(scope="module")
def of_panel():
    return fitted("aaren", panel([60, 60, 50], ["a", "b", "c"]), shrinkage=True)


def assert_same_forecasts(stream, forecaster, rtol=1e-5):
    """Compare a stream with a forecaster of the same series."""
    found = stream.forecast(3, LEVELS)  # (series, 3, variables, 1 + levels)
    points = forecaster.predict(fh=[1, 2, 3]).to_numpy()
    bounds = forecaster.predict_quantiles(fh=[1, 2, 3], alpha=list(LEVELS)).to_numpy()
    series, steps, variables, _ = found.shape
    points = points.reshape(series, steps, variables)
    bounds = bounds.reshape(series, steps, variables, len(LEVELS))
    assert_allclose(found[..., 0], points, rtol=rtol, atol=rtol)
    assert_allclose(found[..., 1:], bounds, rtol=rtol, atol=rtol)


VALUES = st.one_of(st.none(), st.floats(-50, 50))


@pytest.mark.parametrize("name", FOLLOWED)
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    calls=st.lists(
        st.one_of(
            st.tuples(st.just("observe"), VALUES),
            st.tuples(st.sampled_from(["forecast", "pickle", "copy"]), st.none()),
        ),
        max_size=10,  # fewer than the steps of a context: one must be observed
    )
)
def test_any_interleaving_agrees_with_update_and_predict(name, calls, forecasters):
    forecaster = pickle.loads(pickle.dumps(forecasters[name]))
    stream, step = forecaster.stream(), START
    for call, value in calls:
        if call == "observe":
            value = np.nan if value is None else value
            forecaster.update(pd.Series([value], index=DAYS[step : step + 1]))
            assert stream.observe(DAYS[step], value) is stream
            step += 1
        elif call == "forecast":
            assert_same_forecasts(stream, forecaster)
        elif call == "pickle":
            stream = pickle.loads(pickle.dumps(stream))
        else:
            forecaster.stream().observe(DAYS[step], 1e3)  # another stream, which changes neither
    assert_same_forecasts(stream, forecaster)


@pytest.mark.parametrize("method", ["linear", "zero_shot", "timecma", "s2ip"])
def test_every_method_streams(method):
    y = pd.Series(season(60), index=DAYS[:60])
    make = small if method in ("timecma", "s2ip") else lambda name: METHODS[name]()
    forecaster = make(method).fit(y.iloc[:55], fh=[1, 2, 3])
    stream = forecaster.stream()
    for day, value in y.iloc[55:].items():
        stream.observe(day, value)
    assert_same_forecasts(stream, forecaster.update(y.iloc[55:]))


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("method", ["aaren", "autotimes"])
def test_some_series_of_a_panel_get_a_step(method, adaptive):
    whole = panel([64, 64, 64], ["a", "b", "c"])
    past = whole.groupby(level=0).head(60)
    backbone = {} if method == "aaren" else {"backbone": None}
    forecaster = fitted(method, past, adaptive=adaptive, **backbone)
    stream = forecaster.stream()
    for names, step in ([["c", "a"], 60], [["b"], 60], [["a", "b", "c"], 61], [["b"], 62]):
        day = DAYS[step]
        rows = [(name, day) for name in names]
        values = whole.loc[rows, "value"].to_numpy()
        stream.observe(day, values, series=names)
        for row in rows:
            forecaster.update(whole.loc[[row]])
    assert_same_forecasts(stream, forecaster)
    assert [str(day.date()) for day in stream.last_times.values()] == [
        "2024-03-02",
        "2024-03-03",
        "2024-03-02",
    ]


def test_each_series_has_a_stamp_of_its_own(of_panel):
    stream, forecaster = of_panel.stream(), pickle.loads(pickle.dumps(of_panel))
    stream.observe(DAYS[[60, 60, 50]], [1.0, np.nan, 3.0])
    index = pd.MultiIndex.from_tuples(
        [("a", DAYS[60]), ("b", DAYS[60]), ("c", DAYS[50])], names=["id", "time"]
    )
    forecaster.update(pd.DataFrame({"value": [1.0, np.nan, 3.0]}, index=index))
    assert_same_forecasts(stream, forecaster)


def test_new_series_join_with_their_past(of_panel):
    new = panel([30, 5], ["z", "y"])
    stream = of_panel.stream().add(new)
    forecaster = pickle.loads(pickle.dumps(of_panel)).update(new)
    assert stream.series == ["a", "b", "c", "z", "y"]
    assert_same_forecasts(stream.observe(DAYS[30], 5.0, series=["z"]), forecaster.update(
        pd.DataFrame({"value": [5.0]}, index=pd.MultiIndex.from_tuples([("z", DAYS[30])]))
    ))  # fmt: skip
    with pytest.raises(DataError, match="series 'z' is in the stream already"):
        stream.add(new)
    assert_same_forecasts(stream, forecaster)


def test_a_stream_of_series_that_the_model_has_not_seen(of_panel):
    new = panel([40, 40], ["x", "y"])
    stream = of_panel.stream(new)
    assert stream.series == ["x", "y"]
    found = stream.observe(DAYS[40], [1.0, 2.0]).forecast(4, (0.2,))
    contexts = [
        tsllm.Context(np.append(new.loc[name, "value"], value), series_id=name)
        for name, value in (("x", 1.0), ("y", 2.0))
    ]
    assert_allclose(found, of_panel.forecast(contexts, 4, quantiles=(0.2,)), rtol=1e-5)


def test_several_variables_and_their_names():
    y = pd.DataFrame({"x": season(50), "z": season(50, level=30.0)}, index=DAYS[:50])
    forecaster = fitted("aaren", y.iloc[:48])
    stream = forecaster.stream()
    stream.observe(DAYS[48], y.iloc[48].to_numpy())
    stream.observe(DAYS[49], y.iloc[[49]][["z", "x"]])  # by name
    assert_same_forecasts(stream, forecaster.update(y.iloc[48:]))
    table = stream.table(2, (0.5,))
    assert table.columns.tolist() == ["timestamp", "variable", "forecast", "q0.5"]
    assert table["variable"].tolist() == ["x", "x", "z", "z"]
    with pytest.raises(DataError, match=r"shape \(series, variables\) = \(1, 2\), found \(3,\)"):
        stream.observe(DAYS[50], [1.0, 2.0, 3.0])


INDEXES = {
    "hours": pd.date_range("2024-03-30 20:00", periods=60, freq="h", tz="Europe/Berlin"),
    "days across a daylight saving change": pd.date_range(
        "2024-03-01", periods=60, freq="D", tz="Europe/Berlin"
    ),
    "months": pd.date_range("2019-01-31", periods=60, freq="ME"),
    "business days": pd.date_range("2024-01-01", periods=60, freq="B"),
    "weeks": pd.date_range("2024-01-06", periods=60, freq="W-SAT"),
    "quarters": pd.period_range("2001Q1", periods=60, freq="Q"),
    "fives": pd.RangeIndex(1700, 2000, 5),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_stamps_of_every_kind(kind):
    y = pd.Series(season(60), index=INDEXES[kind])
    forecaster = METHODS["linear"]().fit(y.iloc[:57], fh=[1, 2, 3])
    stream = pickle.loads(pickle.dumps(forecaster.stream(fill="nan")))
    stream.observe(y.index[57], y.iloc[57]).observe(y.index[59], y.iloc[59])
    rest = y.iloc[57:].copy()
    rest.iloc[1] = np.nan
    assert_same_forecasts(stream, forecaster.update(rest))
    assert stream.last_times == {None: y.index[59]}
    assert_array_equal(stream.table(3).iloc[:, 0], forecaster.predict().index)
    with pytest.raises(DataError, match=r"the series has a value at .* already"):
        stream.observe(y.index[59], 1.0)


def test_a_stamp_of_another_time_zone_is_the_same_moment():
    y = pd.Series(season(60), index=INDEXES["hours"])
    stream = METHODS["linear"]().fit(y.iloc[:58], fh=[1]).stream()
    stream.observe(y.index[58].tz_convert("UTC"), 1.0).observe(y.index[59].isoformat(), 2.0)
    assert stream.last_times[None] == y.index[59]
    with pytest.raises(DataError, match="has no time zone and the series have Europe/Berlin"):
        stream.observe(y.index[59].tz_localize(None), 3.0)


MISTAKES = [
    ((DAYS[99], 1.0), "has a value at 2024-04-09 00:00:00 already"),
    ((DAYS[7], 1.0), "2024-01-08 00:00:00 lies before it"),
    ((DAYS[102], 1.0), "has a gap: the next stamp is 2024-04-10 .* fill='nan'"),
    ((DAYS[100] + pd.Timedelta("1h"), 1.0), "is no step of the series .* its frequency is D"),
    ((17, 1.0), "time must be a date, found 17"),
    (("soon", 1.0), "time must be a date, written year first .* found 'soon'"),
    (("10/04/2024", 1.0), "written year first as 2024-01-31, found '10/04/2024'"),
    (("10", 1.0), "written year first as 2024-01-31, found '10'"),
    (("2024-04-10T00:00Z", 1.0), "has UTC and the series have none: write it without an offset"),
    ((pd.NaT, 1.0), "time must be a date"),
    ((DAYS[100:102], 1.0), "time holds 2 stamps for 1 series"),
    ((DAYS[100], np.inf), "the series, the new step .*holds inf"),
    ((DAYS[100], "1.5"), "holds '1.5', which is no number"),
    ((DAYS[100], True), "holds True, which is no number"),
    ((DAYS[100], 10**500), "holds a value beyond"),
    ((DAYS[100], [[1.0], [2.0, 3.0]]), r"found \(2,\)"),
    ((DAYS[100], [[[1.0]]]), r"found \(1, 1, 1\)"),
    ((DAYS[100], [1.0, 2.0]), r"found \(2,\)"),
    ((DAYS[100], pd.DataFrame([[1.0]], index=DAYS[99:100])), "values has a row of 2024-04-09"),
    ((DAYS[100], np.ma.masked_array([np.inf, 1.0], [True, False])), r"found \(2,\)"),
    ((DAYS[100], np.ma.masked_array([True])), "holds True, which is no number"),
    ((DAYS[100], np.ma.masked_array(["1.5"])), "holds '1.5', which is no number"),
    ((np.float32(17), 1.0), "time must be a date"),
    ((DAYS[100], pd.Series([1.0])), "found a Series"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(arguments, message, forecasters):
    stream = forecasters["aaren, adaptive"].stream()
    before = stream.forecast(3, LEVELS)
    with pytest.raises(DataError, match=message):
        stream.observe(*arguments)
    assert_array_equal(stream.forecast(3, LEVELS), before)
    stream.observe(DAYS[100], None)  # missing


@pytest.mark.parametrize("n_variables", [1, 2])
def test_values_of_every_kind(n_variables):
    y = pd.DataFrame({f"v{number}": season(60) for number in range(n_variables)}, index=DAYS[:60])
    frame = pd.DataFrame(np.arange(1.0, n_variables + 1)[None], index=DAYS[60:61])
    missing = np.ma.masked_array([[7.0] * n_variables], [[True] * n_variables])
    forecaster = METHODS["linear"]().fit(y, fh=[1])
    for values in (frame, frame.to_numpy(), frame.iloc[0].tolist(), frame.astype("Float64")):
        stream = forecaster.stream().observe(DAYS[60], values)
        assert_array_equal(
            stream.forecast(), forecaster.stream().observe(DAYS[60], frame).forecast()
        )
    named = frame.set_axis(y.columns, axis=1).iloc[:, ::-1]
    assert_array_equal(forecaster.stream().observe(DAYS[60], named).forecast(), stream.forecast())
    masked = forecaster.stream().observe(DAYS[60], missing)
    unknown = forecaster.stream().observe(DAYS[60], [None] * n_variables)
    assert_array_equal(masked.forecast(), unknown.forecast())


def test_a_mistake_in_one_series_changes_none(of_panel):
    stream = of_panel.stream()
    before = stream.forecast(3)
    mistakes = {
        "series 'c' has a gap": {"time": DAYS[60], "values": [1.0, 2.0, 3.0]},
        "series 'd' is not in the stream": {"series": ["a", "d"], "values": [1.0, 2.0]},
        r"series \['a'\] is not in the stream": {"series": [["a"], "b"], "values": [1.0, 2.0]},
        "series 'a', the new step holds True": {"series": ["a", "b"], "values": [True, 2.0]},
        "series 'b', the new step holds \\[2.0\\]": {"series": ["a", "b"], "values": [1.0, [2.0]]},
        "bring them into the same order": {
            "series": ["a", "b"],
            "values": pd.DataFrame({"y": [1.0, 2.0]}, index=["b", "a"]),
        },
        r"values has the rows \['a', 'c'\]": {
            "series": ["a", "b"],
            "values": pd.DataFrame({"y": [1.0, 2.0]}, index=["a", "c"]),
        },
        r"values has the rows \['b', 'a'\]": {
            "series": ["a", "b"],
            "values": pd.DataFrame(
                {"y": [1.0, 2.0]}, index=pd.MultiIndex.from_product([["b", "a"], DAYS[60:61]])
            ),
        },
        "values has a row of 2024-03-02": {
            "series": ["a", "b"],
            "values": pd.DataFrame(
                {"y": [1.0, 2.0]}, index=pd.MultiIndex.from_product([["a", "b"], DAYS[61:62]])
            ),
        },
        r"shape \(series, variables\) = \(3, 1\), found \(1, 3\)": {"values": [[None, 1.0, 2.0]]},
        "series 'a' comes twice": {"series": ["a", "a"], "values": [1.0, 2.0]},
        "series is empty": {"series": [], "values": []},
        "series 'b', the new step holds -inf": {"series": ["a", "b"], "values": [1.0, -np.inf]},
    }
    for message, arguments in mistakes.items():
        with pytest.raises(DataError, match=message):
            stream.observe(**{"time": DAYS[60]} | arguments)
    with pytest.raises(DataTypeError, match="series must be a list of names"):
        stream.forecast(series="a")
    assert_array_equal(stream.forecast(3), before)


def test_a_gap_may_be_filled_up_to_a_length(forecasters):
    stream = forecasters["aaren"].stream(fill="nan")
    with pytest.raises(DataError, match=r"gap of 36,\d+ steps .* open a new stream"):
        stream.observe(pd.Timestamp("2124-01-01"), 1.0)
    with pytest.raises(DataError, match="fill must be 'nan' or None, found 'zero'"):
        forecasters["aaren"].stream(fill="zero")


def test_counts_keep_their_floor():
    rng = np.random.default_rng(0)
    y = pd.Series(rng.poisson(0.4, 80).astype(float), index=DAYS[:80])
    forecaster = fitted("aaren", y.iloc[:78])
    stream = forecaster.stream()
    assert stream.forecast(3, (0.01,)).min() == 0
    stream.observe(DAYS[78], y.iloc[78])
    assert_same_forecasts(stream, forecaster.update(y.iloc[78:79]))
    stream.observe(DAYS[79], -3.0)
    assert_same_forecasts(stream, forecaster.update(pd.Series([-3.0], index=DAYS[79:80])))
    assert stream.forecast(3, (0.01,)).min() < 0


def test_a_series_may_fall_silent(forecasters):
    """Adaptive intervals miss no forecast of a series that has no value in reach."""
    stream = forecasters["autotimes, adaptive"].stream()
    for day in DAYS[100:115]:
        stream.observe(day, np.nan)
    with pytest.raises(DataError, match="no observed value"):
        stream.forecast(3)
    for day in DAYS[115:120]:
        stream.observe(day, 10.0)
    assert np.isfinite(stream.forecast(3, LEVELS)).all()


@pytest.mark.parametrize("name", ["aaren, adaptive", "autotimes, adaptive"])
def test_observations_that_are_put_off_count_in_their_order(name, forecasters):
    """Adaptive streams compare many observations at once; see `MOST_PUT_OFF`."""
    forecaster = pickle.loads(pickle.dumps(forecasters[name]))
    stream, rng = forecaster.stream(), np.random.default_rng(0)
    for step in range(START, START + MOST_PUT_OFF + 8):
        value = np.nan if step % 7 == 0 else rng.normal(scale=step - 90)
        stream.observe(DAYS[step], value)
        forecaster.update(pd.Series([value], index=DAYS[step : step + 1]))
    assert_same_forecasts(stream, forecaster)
    # the forecast that was made for comparison ends at the horizon
    longer = forecaster.predict(fh=range(1, 8)).to_numpy().ravel()
    assert_allclose(stream.forecast(7)[0, :, 0, 0], longer, rtol=1e-5)


def test_a_silent_series_of_an_adaptive_panel_leaves_the_others_alone():
    past = panel([60, 60, 60], ["a", "b", "c"])
    parameters = {"backbone": None, "adaptive": True}
    forecaster = fitted("autotimes", past, **parameters)
    stream, without = forecaster.stream(), forecaster.stream(past.loc[["a", "c"]])
    rng = np.random.default_rng(0)
    for step in range(60, 90):
        a, c = rng.normal(size=2)
        stream.observe(DAYS[step], [a, np.nan, c])
        without.observe(DAYS[step], [a, c])
    with pytest.raises(DataError, match="series 'b' has no observed value"):
        stream.forecast(3)
    found = stream.forecast(3, LEVELS, series=["a", "c"])
    assert_allclose(found, without.forecast(3, LEVELS), rtol=1e-5)
    stream.observe(DAYS[90], [1.0, 2.0, 3.0])
    assert np.isfinite(stream.forecast(3, LEVELS)).all()


def test_memory_of_an_adaptive_stream_does_not_grow(forecasters):
    stream = forecasters["aaren, adaptive"].stream()
    sizes = {stream.observe(day, 1.0).nbytes for day in DAYS[START : START + 50]}
    assert len(sizes) == 1


def test_memory_does_not_grow(of_panel):
    stream = of_panel.stream()
    stream.observe(DAYS[50], 1.0, series=["c"])
    sizes = []
    for step in range(60, 150):
        stream.observe(DAYS[step], np.ones(2), series=["a", "b"])
        sizes.append(stream.nbytes)
    assert len(set(sizes)) == 1
    assert len(pickle.dumps(stream)) < 400_000


@pytest.mark.parametrize("name", ["aaren", "aaren, adaptive", "auto"])
def test_a_saved_stream_goes_on(name, forecasters, tmp_path):
    stream = forecasters[name].stream(fill="nan").observe(DAYS[101], 3.0)
    path = tsllm.save(stream, tmp_path / "stream")
    loaded = tsllm.load(path)
    assert repr(loaded) == repr(stream)
    for one in (stream, loaded):
        one.observe(DAYS[103], 7.0)
    assert_array_equal(loaded.forecast(3, LEVELS), stream.forecast(3, LEVELS))
    tsllm.save(loaded, path, overwrite=True)
    with pytest.raises(DataError, match="cannot be saved without its context"):
        tsllm.save(loaded, tmp_path / "other", include_context=False)


def test_a_stream_of_a_model_that_was_saved_without_context(of_panel, tmp_path):
    model = tsllm.load(tsllm.save(of_panel, tmp_path / "m", include_context=False))
    with pytest.raises(DataError, match="saved without its context"):
        model.stream()
    assert model.stream(panel([20], ["q"])).forecast(2).shape == (1, 2, 1, 1)


def test_models_that_have_no_stream():
    y = pd.Series(season(60), index=DAYS[:60])
    X = pd.DataFrame({"news": ["calm", "storm"] * 30}, index=DAYS[:60])
    texts = {"text_covariates": ("news",), "text_backbone": "tfidf"}
    forecaster = METHODS["linear"](adaptive=True, **texts).fit(y, X=X, fh=[1])
    with pytest.raises(DataError, match="the covariates news, and has no stream, for adaptive"):
        forecaster.stream()
    forecaster = small("autotimes", backbone=None, in_context="similar").fit(y, fh=[1])
    with pytest.raises(DataError, match="in_context='similar' reads all of the past"):
        forecaster.stream()


def test_kept_rows_are_the_last_steps():
    rng = np.random.default_rng(0)
    for keep in (1, 2, 5, 90):
        whole = [list(rng.normal(size=(n, 2))) for n in (1, keep, 3 * keep)]
        rows = KeptRows([np.array(one) for one in whole], keep)
        for _ in range(400):
            places = np.flatnonzero(rng.random(3) < 0.6)
            new = rng.normal(size=(len(places), 2))
            rows.append(places, new)
            for place, one in zip(places, new):
                whole[place].append(one)
        again = KeptRows.from_state(rows.to_state())
        for place, one in enumerate(whole):
            assert_array_equal(rows.of(place), one[-keep:])
            assert_array_equal(again.of(place), one[-keep:])


def test_a_clock_of_a_step_and_of_a_calendar_agree():
    days = pd.date_range("2024-01-01", periods=9, freq="D")
    steps, calendar = StreamClock(days, "D"), StreamClock(days.tz_localize("Europe/Paris"), "D")
    assert (steps.step is None, calendar.step is None) == (False, True)
    for clock, zone in ((steps, None), (calendar, "Europe/Paris")):
        far = clock.read("2025-06-01" if zone is None else "2025-06-01T00:00+02:00", 1)[0]
        assert clock.until(far, 2)[-1] == pd.Timestamp("2025-06-01", tz=zone)
        number = clock.read("2024-02-03" if zone is None else "2024-02-03T00:00+01:00", 1)[0]
        expected = pd.date_range("2024-01-31", periods=4, freq="D", tz=zone)
        assert clock.until(number, 4).equals(expected)
        assert clock.until(number, 4).freq == expected.freq
        assert clock.after(np.array([number]))[0] == clock.numbers(clock.ahead(number, 1))[0]
