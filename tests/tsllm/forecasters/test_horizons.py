"""Horizons of every kind: the answer carries the stamps that were asked for, or a sentence says no.

The oracle is pandas: an index of the frequency that goes on after the series.
"""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sktime.forecasting.base import ForecastingHorizon

import tsllm
from small_forecasters import panel, season
from tsllm import Context, DLinearForecaster
from tsllm.errors import DataError, DataTypeError, InSampleError
from tsllm.forecasters.horizons import read_horizon, steps_after

FREQUENCIES = [
    *("s", "15min", "h", "6h", "D", "2D", "B", "bh", "W-SUN", "W-WED", "MS", "ME", "2MS", "BMS"),
    *("BME", "SMS", "SME", "SMS-10", "SME-20", "WOM-3FRI", "LWOM-FRI", "QS-FEB", "QE", "BQE"),
    *("YS", "YE-MAR", "RE-N-DEC-MON", "REQ-L-JAN-SAT-2"),
]
#: Frequencies that make sense in local time, and starts before clock changes.
LOCAL = ["15min", "h", "6h", "D", "B", "W-SUN", "MS", "ME", "BME"]
ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]


def context(times, series_id=None):
    return Context(np.zeros(len(times)), times=times, series_id=series_id)


def steps(fh, *contexts):
    return [one.tolist() for one in steps_after(read_horizon(fh, contexts), contexts)]


def fitted(times):
    y = pd.Series(season(len(times)), index=times)
    return DLinearForecaster(
        context_length=8, prediction_length=3, max_steps=1, random_state=0
    ).fit(y)


# ---------------------------------------------------------------- stamps, whatever the frequency


@st.composite
def continued_indexes(draw):
    """Draw a frequency, an index of it, the number of stamps before its end, and later ones."""
    zone = draw(st.sampled_from([None, *ZONES]))
    freq = draw(st.sampled_from(FREQUENCIES if zone is None else LOCAL))
    start = draw(st.sampled_from(["2024-03-29 00:00", "2024-10-25 00:00", "2023-12-31 00:00"]))
    unit = draw(st.sampled_from(["s", "us", "ns"]))
    ahead = draw(st.lists(st.integers(1, 300), min_size=1, max_size=6, unique=True))
    known = draw(st.integers(3, 40))
    periods = known + max(ahead)
    if freq[:2] in ("YS", "YE", "RE", "QS", "QE", "BQ"):  # no years beyond the calendar of "ns"
        ahead, periods = [1 + step % 60 for step in ahead], known + 60
    times = pd.date_range(start, periods=periods, freq=freq, tz=zone, unit=unit)
    return times, known, sorted(set(ahead))


@settings(deadline=None, max_examples=100)
@given(continued_indexes())
def test_stamps_are_counted_as_pandas_counts_them(drawn):
    times, known, ahead = drawn
    series, asked = context(times[:known]), times[[known - 1 + step for step in ahead]]
    mixed = asked[::-1].append(asked[:0])
    for fh in (
        asked,
        mixed,
        ForecastingHorizon(asked, is_relative=False),
        asked.tolist(),
        [stamp.isoformat() for stamp in asked],
    ):
        assert steps(fh, series) == [ahead]


@settings(deadline=None, max_examples=100)
@given(continued_indexes(), st.data())
def test_a_stamp_between_two_steps_is_refused_with_both(drawn, data):
    times, known, ahead = drawn
    place = known - 1 + ahead[0] - 1
    before, after = times[place], times[place + 1]
    share = data.draw(st.sampled_from([0.25, 0.5, 0.75]))
    between = before + ((after - before) * share).floor("1s")
    if between == before:
        between = (before + pd.Timedelta(1, unit="ms")).as_unit("ms")
    assume(between > times[known - 1])
    with pytest.raises(DataError) as error:
        read_horizon(between, [context(times[:known], "a")])
    assert str(error.value) == (
        f"fh asks for {between}, where series 'a' has no step at freq={times.freqstr!r}: its steps "
        f"around it are {before} and {after}"
    )


@settings(deadline=None, max_examples=50)
@given(
    freq=st.sampled_from(["15min", "h", "6h", "D", "W-SUN"]),
    zone=st.sampled_from([None, *ZONES]),
    start=st.sampled_from(["2024-03-25", "2024-10-21"]),
    ahead=st.lists(st.integers(1, 14), min_size=1, max_size=4, unique=True),
)
def test_durations_are_elapsed_hours_and_calendar_days(freq, zone, start, ahead):
    times = pd.date_range(start, periods=5, freq=freq, tz=zone)
    last, series = times[-1], context(times)
    length = pd.Timedelta(7 if freq == "W-SUN" else 1, unit="D")
    if freq in ("D", "W-SUN"):
        expected = [last + pd.offsets.Day(step * length.days) for step in ahead]
    else:
        expected = [last + step * length for step in ahead]
    wanted = steps(pd.DatetimeIndex(expected), series)
    durations = pd.TimedeltaIndex([step * length for step in ahead])
    for fh in (durations, durations.tolist(), durations.to_numpy(), durations.to_pytimedelta()):
        assert steps(fh, series) == wanted


@pytest.mark.parametrize("freq", ["M", "Q-DEC", "Q-MAR", "W-SAT", "D", "h", "2M", "Y"])
def test_periods_dates_and_texts_on_an_index_of_periods(freq):
    times = pd.period_range("2024-01-01", periods=30, freq=freq)
    series, asked = context(times[:20]), times[[21, 25, 29]]
    for fh in (asked, asked.to_timestamp(), asked.astype(str).tolist(), asked.tolist()):
        assert steps(fh, series) == [[2, 6, 10]]
    if freq not in ("D", "h", "2M"):
        assert steps(asked.end_time.normalize(), series) == [[2, 6, 10]]
        with pytest.raises(DataError, match="which lies within the period"):
            read_horizon(asked.to_timestamp() + pd.Timedelta("2D"), [series])


@pytest.mark.parametrize(
    ("freq", "period"),
    [("MS", "M"), ("ME", "M"), ("BME", "M"), ("QS", "Q"), ("W-SUN", "W-SUN"), ("D", "D"),
     ("h", "h"), ("WOM-3FRI", "M"), ("YE", "Y")],
)  # fmt: skip
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_a_period_names_the_only_date_in_it(freq, period, zone):
    times = pd.date_range("2024-03-15", periods=30, freq=freq, tz=zone)
    asked = times[[21, 25, 29]].tz_localize(None).to_period(period)
    assert steps(asked, context(times[:20])) == [[2, 6, 10]]


@pytest.mark.parametrize(
    ("freq", "period", "complaint"),
    [("D", "2024-05", "several steps"), ("MS", "2024-05-02", "no step")],
)
def test_a_period_of_several_dates_or_none_is_refused(freq, period, complaint):
    times = pd.date_range("2024-01-01", periods=4, freq=freq)
    with pytest.raises(DataError, match=rf"{period}, in which the series has {complaint}"):
        read_horizon(pd.Period(period), [context(times)])


@pytest.mark.parametrize(
    ("fh", "expected"),
    [
        (pd.offsets.MonthEnd(3), [3]),
        ([pd.offsets.YearEnd(1), pd.offsets.MonthEnd(1)], [1, 11]),
        (pd.Timestamp("2024-03-31"), [2]),
        (datetime.date(2024, 3, 31), [2]),
        (np.datetime64("2024-03-31"), [2]),
        (np.array(["2024-03-31", "2024-02-29"], dtype="M8[D]"), [1, 2]),
        ("2024-03-31", [2]),
        (pd.Timedelta(days=29), [1]),
        (4, [1, 2, 3, 4]),
        (range(2, 5), [2, 3, 4]),
        ((3, 1), [1, 3]),
        ({3, 1}, [1, 3]),
        (np.int32([5]), [5]),
        (pd.Series([2, 1]), [1, 2]),
    ],
)
def test_one_value_or_several(fh, expected):
    times = pd.date_range("2023-01-31", periods=13, freq="ME")
    assert steps(fh, context(times)) == [expected]


@pytest.mark.parametrize(
    "fh",
    [
        [pd.offsets.MonthEnd(1), pd.DateOffset(months=1)],
        [pd.offsets.MonthEnd(2), pd.offsets.QuarterEnd(1)],
    ],
)
def test_two_offsets_to_one_step_are_refused(fh):
    times = pd.date_range("2023-01-31", periods=13, freq="ME")
    with pytest.raises(DataError, match="twice"):
        read_horizon(fh, [context(times)])


@pytest.mark.parametrize(
    ("fh", "complaint"),
    [
        (1.5, "fh holds 1.5 .type float.: pass steps such as"),
        ([1.0, 2.0], "type float"),
        (True, "fh=True is no horizon"),
        ([], "fh is empty"),
        ({1: 2}, "fh is of type dict, which is no list of steps"),
        (np.ones((2, 2), int), "fh is of type ndarray, which is no list of steps"),
        ([1, 1], "fh holds 1 twice"),
        ([1, "2024-03-01"], "type int and str"),
        (["2024-03-01", None], "type NoneType and str|type float and str"),
        ([pd.NaT, pd.Timestamp("2024-03-01")], "missing value"),
        ("31.03.2024", "fh holds '31.03.2024', which is no date: write it as 2024-01-31"),
        (pd.Timestamp("2024-03-01", tz="UTC"), r"zone UTC .* zone None: drop it"),
        (ForecastingHorizon([70], is_relative=False), "absolute integers and the series has dates"),
    ],
)
def test_what_is_no_horizon(fh, complaint):
    times = pd.date_range("2024-01-01", periods=20, freq="D")
    with pytest.raises(DataError, match=complaint):
        read_horizon(fh, [context(times)])


@pytest.mark.parametrize(
    "fh", [pd.Timedelta("1D"), "2024-01-01", pd.Timestamp("2024"), pd.Period("2024", "Y"),
           pd.offsets.Day()]
)  # fmt: skip
def test_integers_have_no_dates(fh):
    with pytest.raises(DataError, match="the series counts its steps with integers"):
        read_horizon(fh, [context(pd.RangeIndex(20))])


def test_types_of_values_are_type_errors_too():
    with pytest.raises(DataTypeError):
        read_horizon([1.5], [context(pd.RangeIndex(20))])


# ---------------------------------------------------------------- time zones


def test_the_hour_that_autumn_repeats_has_two_names():
    times = pd.date_range("2024-10-26 20:00", periods=12, freq="h", tz="Europe/Berlin")
    series, twice = context(times[:4]), times[times.hour == 2]
    assert len(twice) == 2
    assert steps(twice, series) == [[3, 4]]
    assert steps(["2024-10-27 02:00+02:00", "2024-10-27 02:00+01:00"], series) == [[3, 4]]
    assert steps("2024-10-27 03:00", series) == [[5]]
    with pytest.raises(DataError, match="with its offset from UTC where the clock of Europe/Ber"):
        read_horizon("2024-10-27 02:00", [series])


def test_other_zones_are_the_same_instants_and_no_zone_is_refused():
    times = pd.date_range("2024-10-20", periods=30, freq="h", tz="Europe/Berlin")
    series = context(times[:20])
    assert steps(times[22:24].tz_convert("Asia/Tokyo"), series) == [[3, 4]]
    with pytest.raises(DataError, match=r"add it with tz_localize\('Europe/Berlin'\)"):
        read_horizon(times[22:24].tz_localize(None), [series])


def test_a_midnight_that_the_clock_skips_is_a_sentence():
    times = pd.date_range("2024-08-20", periods=12, freq="D", tz="America/Santiago")
    with pytest.raises(DataError, match=r"2024-09-08 00:00:00 is a nonexistent time.*UTC"):
        fitted(times).predict(fh=30)


# ---------------------------------------------------------------- panels, in-sample


def test_series_that_end_apart_are_asked_for_the_same_stamps():
    long, short = (pd.date_range("2024-01-01", periods=n, freq="D") for n in (30, 20))
    series = [context(long, "a"), context(short, "b")]
    assert steps(["2024-02-02", "2024-02-05"], *series) == [[3, 6], [13, 16]]
    assert steps(pd.to_timedelta([2, 5], unit="D"), *series) == [[2, 5], [2, 5]]
    assert steps(pd.offsets.Day(2), *series) == [[2], [2]]
    with pytest.raises(DataError, match=r"are \[1\] steps for series 'a' and \[11\] .*'b'"):
        read_horizon(pd.offsets.MonthEnd(1), series)
    with pytest.raises(InSampleError, match=r"series 'a'.*last observation \(2024-01-30"):
        read_horizon("2024-01-25", series)


@pytest.mark.parametrize("index", [pd.RangeIndex(40), pd.Index(range(40))])
@pytest.mark.parametrize("values", [[20, 41], range(20, 60, 21), pd.RangeIndex(39, 40)])
def test_absolute_integers_in_the_past(index, values):
    fh = ForecastingHorizon(values, is_relative=False)
    with pytest.raises(InSampleError, match="in-sample"):
        read_horizon(fh, [context(index)])
    later = ForecastingHorizon([value + 40 for value in values], is_relative=False)
    assert steps(later, context(index)) == [[value + 1 for value in values]]


# ---------------------------------------------------------------- forecasters


@pytest.mark.parametrize("freq", ["D", "B", "BME", "SMS", "WOM-3FRI", "RE-N-DEC-MON", "h"])
def test_forecasts_carry_the_stamps_asked_for(freq, tmp_path):
    zone = "Europe/Berlin" if freq == "h" else None
    times = pd.date_range("2024-03-30", periods=70, freq=freq, tz=zone)
    model, test = fitted(times[:30]), times[40:70:3]
    forecast = model.predict(fh=ForecastingHorizon(test, is_relative=False))
    assert forecast.index.equals(test._with_freq(None))
    np.testing.assert_array_equal(forecast, model.predict(fh=range(11, 41, 3)))
    assert model.predict_interval(fh=test).index.equals(forecast.index)
    tsllm.save(model, tmp_path / "model")
    again = tsllm.load(tmp_path / "model")
    assert again.predict().index.equals(forecast.index)
    again.update(pd.Series(season(2), index=times[30:32]))
    assert again.predict(fh=[1]).index[0] == times[32]


@pytest.mark.parametrize(
    ("freq", "zone"), [("BME", None), ("D", "Europe/Berlin"), ("h", "Europe/Berlin"), ("SMS", None)]
)
def test_residuals_are_those_of_the_stamps_of_y(freq, zone):
    times = pd.date_range("2024-03-29", periods=34, freq=freq, tz=zone)
    y = pd.Series(season(34), index=times)
    model = fitted(times[:30])
    model.predict(fh=[2])
    residuals = model.predict_residuals(y[30:])
    np.testing.assert_allclose(residuals, y[30:] - model.predict(fh=times[30:]), rtol=1e-12)
    assert residuals.index.equals(times[30:])
    with pytest.raises(InSampleError):
        model.predict_residuals(y[28:])


def test_the_horizon_of_a_saved_forecaster_stays(tmp_path):
    times = pd.date_range("2024-01-01", periods=60, freq="D")
    y = pd.Series(season(40), index=times[:40])
    kinds = [pd.to_timedelta([2, 3], unit="D"), pd.offsets.Day(2), "2024-02-11", times[[41, 43]]]
    for number, fh in enumerate(kinds):
        model = DLinearForecaster(context_length=8, max_steps=1).fit(y, fh=fh)
        tsllm.save(model, tmp_path / str(number))
        assert tsllm.load(tmp_path / str(number)).predict().equals(model.predict())


def test_a_refused_horizon_is_not_remembered():
    model = fitted(pd.date_range("2024-01-01", periods=30, freq="D"))
    expected = model.predict(fh=[2])
    for fh in ("2024-02-01 12:00", "2024-01-05", 1.5):
        with pytest.raises(DataError):
            model.predict(fh=fh)
    assert model.predict().equals(expected)
    with pytest.raises(DataError, match="fh is missing"):
        fitted(pd.RangeIndex(30)).predict()


def test_a_horizon_of_one_forecaster_serves_another():
    fh = ForecastingHorizon([1, 2])
    for freq in ("D", "h"):
        times = pd.date_range("2024-01-01", periods=30, freq=freq)
        assert len(fitted(times).predict(fh=fh)) == 2
    assert fh.freq is None


@pytest.mark.parametrize("call", ["fit", "pretrain"])
def test_training_takes_every_kind_and_checks_every_series(call):
    y = panel([30, 20], ["a", "b"])
    model = DLinearForecaster(context_length=8, max_steps=1)
    getattr(model, call)(y, fh=pd.offsets.Day(4))
    state = model.fitted_ if call == "fit" else model.pretrained_
    assert state.shape.horizon == 4
    with pytest.raises(InSampleError, match="series 'a'"):
        getattr(model, call)(y, fh="2024-01-22")
