"""Horizons: the answer carries exactly the stamps asked for, in every frequency and zone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sktime.forecasting.base import ForecastingHorizon
from sktime.forecasting.naive import NaiveForecaster

from fuzz.cases import Attack, Case, check
from fuzz.shared import (
    HORIZON,
    NAMES,
    check_index,
    check_values,
    fitted,
    new,
    panel,
    series,
    stamps_after,
    waves,
)

ZONES = (None, "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
#: With a start from which 40 steps cross a change of the clocks, where the steps are short.
CLOCKED = {
    "h": "2024-03-30 05:00",
    "15min": "2024-03-30 23:00",
    "30min": "2024-10-26 20:00",
    "2h": "2024-10-25 02:00",
    "6h": "2024-03-25 06:00",
    "D": "2024-03-01",
    "7D": "2024-01-01",
    "min": "2024-03-31 01:30",
}
CALENDAR = (
    *("D", "B", "W-SUN", "W-WED", "MS", "ME", "BME", "BMS", "SMS", "SME", "WOM-3FRI", "QS-OCT"),
    *("QE-NOV", "BQE-DEC", "BQS-JAN", "YS", "YE-JUN", "BYE-DEC", "2D", "2W-SUN", "3MS", "2B"),
    *("LWOM-FRI", "5YS", "2QS-JAN", "bh"),
)
#: Those that no one can tell from the stamps alone.
UNEVEN = ("2B", "LWOM-FRI", "bh")
ROWS = 40


def _indexed(index: Any) -> pd.Series:
    return pd.Series(waves(len(index)), index=index, name="value")


def _calendar_index(case: Case, rows: int) -> tuple[pd.DatetimeIndex, str]:
    freq = case.pick("freq", CALENDAR)
    start = pd.Timestamp("1990-01-03") + pd.Timedelta(days=case.whole("start", 0, 400))
    return pd.date_range(start, periods=rows, freq=freq), freq


def clocks(case: Case) -> None:
    """Ask for stamps before, in and after a change of the clocks, in several zones."""
    freq = case.pick("freq", list(CLOCKED))
    zone = case.pick("zone", ZONES)
    gap = case.whole("gap", 0, 30)
    length = case.whole("length", 1, 24)
    whole = pd.date_range(CLOCKED[freq], periods=ROWS + gap + length, freq=freq, tz=zone)
    y, test = _indexed(whole[:ROWS]), whole[ROWS + gap :]
    asked: Any = {
        "horizon": ForecastingHorizon(test, is_relative=False),
        "index": test,
        "no freq": ForecastingHorizon(test._with_freq(None), is_relative=False),
    }[case.pick("form", ["horizon", "index", "no freq"])]
    if case.pick("index", ["freq", "array"]) == "array":
        y.index = y.index._with_freq(None)
    kind = case.pick("kind", ["one", "panel"])
    forecaster = new(case.pick("method", NAMES)).fit(panel(y) if kind == "panel" else y)
    case.expect("answer")
    answer = forecaster.predict(fh=asked)
    check_values(answer)
    if kind == "panel":
        answer = answer.loc["a"]
    check_index(answer.index, test)


def calendars(case: Case) -> None:
    """Ask for steps and for stamps in every frequency of pandas."""
    steps = sorted({case.whole("first", 1, 5), case.whole("second", 1, 30)})
    index, freq = _calendar_index(case, ROWS + 30)
    y = _indexed(index[:ROWS])
    wanted = index[[ROWS - 1 + step for step in steps]]
    if case.pick("index", ["freq", "array"]) == "array":
        y.index = y.index._with_freq(None)
    form = case.pick("form", ["steps", "stamps", "list of stamps", "at fit"])
    forecaster = new(case.pick("method", NAMES))
    asked: Any = {
        "steps": steps,
        "stamps": ForecastingHorizon(wanted, is_relative=False),
        "list of stamps": list(wanted),
        "at fit": steps,
    }[form]
    case.expect("either" if freq in UNEVEN else "answer")
    answer = (
        forecaster.fit(y, fh=asked).predict()
        if form == "at fit"
        else forecaster.fit(y).predict(fh=asked)
    )
    check_values(answer)
    check_index(answer.index, wanted)


def durations(case: Case) -> None:
    """Take durations as distances from the last stamp."""
    case.expect("answer")
    freq, unit = case.pick("freq", [("D", "D"), ("h", "h"), ("15min", "min"), ("W-SUN", "D")])
    y = series(ROWS, freq=freq)
    steps = case.pick("steps", [[1], [1, 3], [2, 7]])
    step = pd.Timedelta(15 if unit == "min" else 7 if freq == "W-SUN" else 1, unit=unit)
    asked = pd.TimedeltaIndex([step * one for one in steps])
    forms: dict[str, Any] = {
        "index": asked,
        "array": asked.to_numpy(),
        "relative": lambda: ForecastingHorizon(asked, is_relative=True),
        "list": list(asked),
    }
    form = case.pick_named("form", forms)
    forecaster = new(case.pick("method", NAMES)).fit(y)
    answer = forecaster.predict(fh=form() if callable(form) else form)
    check_index(answer.index, pd.DatetimeIndex([y.index[-1] + step * one for one in steps]))


def off_the_grid(case: Case) -> None:
    """Refuse stamps between the steps of the series; never answer with others."""
    freq, days = case.pick(
        "case",
        [("B", ["2024-05-04"]), ("B", ["2024-05-03", "2024-05-05"]), ("D", ["2024-05-04 12:00"]),
         ("MS", ["2024-07-15"]), ("W-SUN", ["2024-05-07"]), ("h", ["2024-05-04 00:30"]),
         ("ME", ["2024-07-30"]), ("QS-OCT", ["2024-08-01"]),
         ("D", ["2024-05-04", "2024-05-04 06:00"])],
    )  # fmt: skip
    index = pd.date_range(end="2024-04-30", periods=ROWS, freq=freq)
    asked = pd.DatetimeIndex(days)
    form = case.pick("form", ["horizon", "index", "text", "list", "panel"])
    forms: dict[str, Any] = {"text": days, "list": list(asked), "index": asked}
    fh = forms.get(form, ForecastingHorizon(asked, is_relative=False))
    y = _indexed(index)
    forecaster = new(case.pick("method", NAMES)).fit(panel(y) if form == "panel" else y)
    case.expect("refusal")
    forecaster.predict(fh=fh)


def texts(case: Case) -> None:
    """Read ISO texts as the stamps they name."""
    case.expect("answer")
    freq = case.pick("freq", ["D", "h", "B", "MS", "W-SUN"])
    whole = pd.date_range("2024-01-01", periods=ROWS + 5, freq=freq)
    wanted = whole[[ROWS, ROWS + 3]]
    forecaster = new(case.pick("method", NAMES)).fit(_indexed(whole[:ROWS]))
    form = case.pick("form", ["list", "array", "index", "one"])
    written = list(wanted.astype(str))
    asked: Any = {
        "list": written,
        "array": np.array(written),
        "index": pd.Index(written),
        "one": written[0],
    }[form]
    answer = forecaster.predict(fh=asked)
    check_index(answer.index, wanted[:1] if form == "one" else wanted)


def periods(case: Case) -> None:
    """Answer periods with periods, and dates with dates."""
    freq = case.pick("freq", ["M", "Q", "Y", "D", "W-SUN", "h", "B", "Q-NOV"])
    whole = pd.period_range("2001-01", periods=ROWS + 6, freq=freq)
    on, asked_as = case.pick("on", ["periods", "dates"]), case.pick("as", ["periods", "dates"])
    index = whole if on == "periods" else whole.to_timestamp()
    wanted = whole[ROWS + case.whole("gap", 0, 3) :]
    fh: Any = wanted if asked_as == "periods" else wanted.to_timestamp()
    forecaster = new(case.pick("method", NAMES)).fit(_indexed(index[:ROWS]))
    if on == asked_as == "periods":
        case.expect("answer")
    absolute = case.pick("form", ["horizon", "index"]) == "horizon"
    answer = forecaster.predict(fh=ForecastingHorizon(fh, is_relative=False) if absolute else fh)
    check_values(answer)
    check_index(answer.index, wanted if on == "periods" else wanted.to_timestamp())


def steps_of_integers(case: Case) -> None:
    """Continue integers by their own step."""
    step = case.pick("step", [1, 2, 5, 7, 10, 24, 1000])
    first = case.pick("first", [0, 1, -40, 1825, 2003])
    rows = case.whole("rows", 12, 40)
    whole = np.arange(rows + 20) * step + first
    dtype = case.pick("dtype", ["int64", "int32", "range", "uint64"])
    index: Any = (
        pd.RangeIndex(first, first + rows * step, step)
        if dtype == "range"
        else pd.Index(
            abs(whole[:rows]) if dtype == "uint64" and first < 0 else whole[:rows], dtype=dtype
        )
    )
    if dtype == "uint64" and first < 0:
        index = pd.Index(whole[:rows] - first, dtype=dtype)
        whole = whole - first
    kind = case.pick("kind", ["one", "panel"])
    y = _indexed(index)
    forecaster = new(case.pick("method", NAMES)).fit(panel(y) if kind == "panel" else y)
    form = case.pick("form", ["steps", "absolute"])
    steps = [1, 2, case.whole("far", 3, 15)]
    wanted = pd.Index(whole[[rows - 1 + one for one in steps]])
    if dtype != "uint64":
        case.expect("answer")
    fh: Any = steps if form == "steps" else ForecastingHorizon(wanted, is_relative=False)
    answer = forecaster.predict(fh=fh)
    check_values(answer)
    check_index(answer.loc["a"].index if kind == "panel" else answer.index, wanted)
    more = _indexed(pd.Index(whole[rows : rows + 3]))
    forecaster.update(panel(more) if kind == "panel" else more)
    answer = forecaster.predict(fh=[1])
    answer = answer.loc["a"] if kind == "panel" else answer
    check_index(answer.index, pd.Index(whole[[rows + 3]]))


def integers_that_are_dates(case: Case) -> None:
    """Refuse integers that read as dates and do not step evenly; never continue them by one."""
    kinds = {
        "months": [year * 100 + month for year in range(2020, 2024) for month in range(1, 13)],
        "short months": [year * 100 + month for year in range(20, 24) for month in range(1, 13)],
        "days": [int(f"{day:%Y%m%d}") for day in pd.date_range("2024-01-10", periods=48)],
        "weeks": [year * 100 + week for year in (2023, 2024) for week in range(1, 53)],
        "quarters": [year * 10 + quarter for year in range(2005, 2020) for quarter in range(1, 5)],
        "days of the year": [int(f"{day:%Y%j}") for day in pd.date_range("2023-12-10", periods=48)],
    }
    kind = case.pick("kind", list(kinds))
    rows = case.whole("rows", 24, 48)
    y = _indexed(pd.Index(kinds[kind][:rows]))
    case.expect("refusal")
    new(case.pick("method", NAMES)).fit(y, fh=[1, 2]).predict()


def unequal_ends(case: Case) -> None:
    """Step from the end of each series of a panel, or take one stamp for all."""
    lengths = [case.whole("long", 30, 45), case.whole("short", 20, 29)]
    freq = case.pick("freq", ["D", "h", "MS", "B", "W-SUN"])
    zone = case.pick("zone", [None, "Europe/Berlin"])
    index = pd.date_range("2024-01-01", periods=60, freq=freq, tz=zone)
    parts = {name: _indexed(index[:n]).to_frame() for name, n in zip("ab", lengths)}
    y = pd.concat(parts, names=["series_id", "timestamp"])
    forecaster = new(case.pick("method", NAMES)).fit(y)
    case.expect("answer")
    if case.pick("form", ["steps", "stamps"]) == "steps":
        answer = forecaster.predict(fh=[1, 4])
        for name, n in zip("ab", lengths):
            check_index(answer.loc[name].index, index[[n, n + 3]])
    else:
        asked = index[[50, 55]]
        answer = forecaster.predict(fh=ForecastingHorizon(asked, is_relative=False))
        for name in "ab":
            check_index(answer.loc[name].index, asked)
    check_values(answer)


def after_an_update(case: Case) -> None:
    """Step from the end of the update."""
    index, freq = _calendar_index(case, ROWS + 20)
    case.expect("either" if freq in UNEVEN else "answer")
    more = case.whole("more", 1, 8)
    zone = case.pick("zone", [None, "UTC", "Europe/Berlin"])
    index = index.tz_localize(zone)
    new_rows = _indexed(index[ROWS : ROWS + more])
    if case.pick("index", ["freq", "array"]) == "array":
        new_rows.index = new_rows.index._with_freq(None)
    forecaster = new(case.pick("method", NAMES)).fit(_indexed(index[:ROWS]), fh=[1, 2])
    forecaster.update(new_rows)
    answer = forecaster.predict()
    check_values(answer)
    check_index(answer.index, index[[ROWS + more, ROWS + more + 1]])
    if case.pick("then", ["", "absolute"]):
        asked = index[[ROWS + more + 2]]
        answer = forecaster.predict(fh=ForecastingHorizon(asked, is_relative=False))
        check_index(answer.index, asked)


def other_zones(case: Case) -> None:
    """Answer the instants asked for, or refuse another zone."""
    of, asked_in = case.pick("of", ZONES), case.pick("asked", ZONES)
    whole = pd.date_range("2024-03-30", periods=ROWS + 4, freq="h", tz=of)
    asked = whole[ROWS:]
    asked = asked.tz_localize(asked_in) if of is None else asked.tz_convert(asked_in)
    forecaster = new(case.pick("method", NAMES)).fit(_indexed(whole[:ROWS]))
    answer = forecaster.predict(fh=ForecastingHorizon(asked, is_relative=False))
    check((of is None) == (asked_in is None), "a zone was made up")
    check(bool((answer.index == asked).all()), f"asked for {asked[0]}, got {answer.index[0]}")


def stamps_that_are_past(case: Case) -> None:
    """Refuse stamps at or before the last row."""
    index, _ = _calendar_index(case, ROWS)
    back = case.whole("back", 0, ROWS - 1)
    form = case.pick("form", ["stamp", "step"])
    forecaster = new(case.pick("method", NAMES)).fit(_indexed(index))
    case.expect("refusal")
    stamp = ForecastingHorizon(index[[ROWS - 1 - back]], is_relative=False)
    forecaster.predict(fh=stamp if form == "stamp" else [-back])


def quantiles_have_the_same_stamps(case: Case) -> None:
    """Give every kind of forecast the same stamps, those of sktime's own forecaster."""
    index, _ = _calendar_index(case, ROWS + 10)
    zone = case.pick("zone", [None, "Europe/Berlin"])
    y = _indexed(index[:ROWS].tz_localize(zone))
    steps = [1, case.whole("far", 2, 9)]
    forecaster = new(case.pick("method", NAMES)).fit(y)
    call = case.pick("call", ["predict_quantiles", "predict_interval", "predict_var"])
    point = forecaster.predict(fh=steps)
    check_index(getattr(forecaster, call)(fh=steps).index, point.index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            theirs = NaiveForecaster().fit(y).predict(fh=steps).index
        except Exception:  # what sktime cannot do is no oracle
            return
    check_index(point.index, theirs)


def far_stamps(case: Case) -> None:
    """Refuse a stamp so far away that no one can compute the steps to it."""
    freq = case.pick("freq", ["D", "h", "min", "s"])
    y = series(ROWS, freq=freq)
    forecaster = new(case.pick("method", NAMES)).fit(y)
    year = case.pick("year", [2200, 2260, 9999])
    case.expect("refusal")
    if freq == "D" and year < 9999:
        case.expect("either")
    stamp = pd.Timestamp(f"{year}-01-01")
    asked = pd.DatetimeIndex([stamp], dtype="datetime64[us]")
    forecaster.predict(fh=ForecastingHorizon(asked, is_relative=False))


def horizons_of_the_shared_fit(case: Case) -> None:
    """Take the horizon of the fit, a shorter and a longer one."""
    kind = case.pick("kind", ["one", "two", "panel"])
    forecaster = fitted(case.pick("method", NAMES), kind)
    form = case.pick("form", ["None", "shorter", "longer", "range", "index", "turned", "number"])
    last = pd.Timestamp("2024-02-29")
    asked: dict[str, tuple[Any, list[int]]] = {
        "None": (None, list(range(1, HORIZON + 1))),
        "shorter": ([2], [2]),
        "longer": ([1, 40], [1, 40]),
        "range": (range(2, 5), [2, 3, 4]),
        "index": (pd.RangeIndex(1, 6, 2), [1, 3, 5]),
        "turned": ([3, 1], [1, 3]),
        "number": (np.int64(2), [1, 2]),
    }
    fh, steps = asked[form]
    case.expect("answer")
    answer = forecaster.predict(fh=fh)
    check_values(answer)
    index = answer.loc["a"].index if kind == "panel" else answer.index
    check_index(index, stamps_after(last, "D", steps))


ATTACKS: list[Attack] = [
    clocks,
    calendars,
    durations,
    off_the_grid,
    clocks,
    texts,
    periods,
    steps_of_integers,
    calendars,
    integers_that_are_dates,
    unequal_ends,
    after_an_update,
    other_zones,
    clocks,
    stamps_that_are_past,
    quantiles_have_the_same_stamps,
    far_stamps,
    horizons_of_the_shared_fit,
]
