"""The page of a forecast: its verdict in words, user's own tables, panels of any size."""

import numpy as np
import pandas as pd
import pytest

import tsllm
from tsllm.errors import DataError
from tsllm.reports import report_forecast
from tsllm.reports.forecast import MAX_PICTURES

pytestmark = [
    pytest.mark.filterwarnings("ignore:the intervals "),
    pytest.mark.filterwarnings("ignore:.*left out beside the target"),
]


def months(values, name="series", start="2020-01-01", freq="MS"):
    stamps = pd.date_range(start, periods=len(values), freq=freq)
    return pd.DataFrame({"series_id": name, "timestamp": stamps, "value": np.float64(values)})


def ahead(past, values):
    """Return a forecast of values after the end of a series."""
    step = past["timestamp"].iloc[-1] - past["timestamp"].iloc[-2]
    freq = "MS" if step > pd.Timedelta("27D") else step
    stamps = pd.date_range(past["timestamp"].iloc[-1], periods=len(values) + 1, freq=freq)[1:]
    names = past["series_id"].iloc[0]
    return pd.DataFrame({"series_id": names, "timestamp": stamps, "forecast": np.float64(values)})


def test_a_year_is_compared_with_the_year_before():
    past = months([5.0] * 12 + [10.0] * 12)
    assert report_forecast(past, ahead(past, [12.0] * 12)).verdict == (
        "Over the next 12 months (2022-01 to 2022-12), value is expected to average 12: 20.0 % "
        "more than over the 12 months before."
    )


def test_half_a_year_is_compared_with_the_same_half_of_the_last_year():
    past = months([1.0] * 12 + [10.0] * 6 + [50.0] * 6)
    assert report_forecast(past, ahead(past, [9.0] * 6)).verdict == (
        "Over the next 6 months (2022-01 to 2022-06), value is expected to average 9: 10.0 % "
        "less than 12 months earlier."
    )


def test_values_below_zero_have_no_percent_and_gaps_are_left_out():
    past = months([-2.0, np.nan, 2.0, np.nan, 1.0], freq="D")
    page = report_forecast(past, ahead(past, [5.0]))
    assert page.verdict.startswith("In the next day (2020-01-06), value is expected to be 5: ")
    assert page.tables[0].frame["change in %"].tolist() == [400.0]
    past = months([-2.0, -4.0], freq="D")
    page = report_forecast(past, ahead(past, [5.0, 5.0]))
    assert page.verdict.endswith(
        "8 more than over the 2 steps before."
    )  # two rows have no frequency
    assert page.tables[0].frame["change in %"].isna().all()


def test_series_that_are_new_have_nothing_before_them():
    past = months([1.0] * 9, freq="D")
    new = ahead(past, [5.0] * 2).assign(series_id="new")
    page = report_forecast(past, new)
    assert page.verdict == (
        "Over the next 2 days (2020-01-10 to 2020-01-11), new is expected to average 5."
    )


def test_the_users_own_table_is_read_as_the_forecast_was():
    days = pd.date_range("2024-01-01", periods=30, freq="D").strftime("%Y-%m-%d")
    day = np.tile([-3.0, -2, -1, 0, 1, 5], 5)
    rows = [
        pd.DataFrame({"shop": k, "day": days, "promo": [0, 1] * 15, "sales": 10.0 + k + day})
        for k in range(3)
    ]
    table = pd.concat(rows, ignore_index=True)
    forecast = tsllm.forecast(table, 2, id_col="shop", target_cols="sales", method="linear")
    page = report_forecast(table, forecast, variable="sales")
    assert "sales, as a mean of 3 series, is expected to average " in page.verdict
    assert list(page.tables[1].frame.columns[:2]) == ["shop", "day"]
    assert len(page.pictures) == 3
    page.to_html()


def test_several_variables_are_all_named_up_to_three():
    past = months(range(1, 31), freq="D")
    for name in ("b", "c", "d"):
        past[name] = past["value"]
    variables = ["value", "b", "c", "d"]
    rows = [ahead(past, [60.0]).assign(variable=name) for name in variables]
    page = report_forecast(past, pd.concat(rows))
    assert "value 60 (150.0 % more), b 60 (150.0 % more), c 60" in page.verdict
    assert page.verdict.endswith("and 1 more.")


def test_large_panels_are_of_bounded_size():
    past = pd.concat(months([k] * 10, f"s{k}", freq="D") for k in range(1, 301))
    forecast = pd.concat(
        ahead(one, [one["value"].iloc[0]] * 7) for _, one in past.groupby("series_id")
    )
    page = report_forecast(past, forecast)
    assert len(page.pictures) == MAX_PICTURES
    assert page.pictures_note.startswith(f"{MAX_PICTURES} of 300 series are drawn")
    assert page.pictures[-1].label.endswith("s300")  # those with the largest values
    html = page.to_html()
    assert "The first 500 of 2,100 rows." in html
    assert len(html) < 1_500_000


def test_the_held_out_error_and_left_out_series_are_stated():
    past = months([10.0] * 24)
    forecast = ahead(past, [10.0] * 3).assign(**{"q0.1": 9.0, "q0.9": 13.0})
    forecast.attrs["skipped"] = {"x": "it is too short"}
    summary = {
        "error": 0.7312,
        "windows": 24,
        "language_model": "the language model lowered it",
        "candidates": [{"candidate": "theta", "error": 0.8, "weight": 1.0, "seconds": 3.0}],
        "seconds": 3.0,
    }
    page = report_forecast(past, forecast, summary=summary, settings={"method": "auto"})
    assert page.verdict.endswith("as much as 12 months earlier.")
    assert [one[:30] for one in page.details] == [
        "The model expects 80 of 100 va",
        "On 24 windows of the past, whi",
        "The language model lowered it.",
    ]
    assert page.notes == ["x was left out: it is too short"]
    assert page.settings == {"method": "auto", "windows": 24}
    assert list(page.tables[-1].frame.columns) == ["candidate", "error", "weight"]


@pytest.mark.parametrize(
    ("history", "forecast", "words"),
    [
        (months([1.0]), pd.DataFrame({"a": [1]}), "column 'forecast'"),
        (months([1.0, 2.0]).drop(columns="timestamp"), None, "no column 'timestamp'"),
        (months([1.0, 2.0]).drop(columns="value"), None, "no column of numbers"),
        (months([1.0, 2.0]).assign(timestamp="last May"), None, "texts that are no ISO times"),
        (months([1.0, 2.0]).to_dict("list"), None, "history must be a DataFrame, found dict"),
    ],
)
def test_tables_that_do_not_fit_are_refused(history, forecast, words):
    forecast = ahead(months([1.0, 2.0]), [3.0]) if forecast is None else forecast
    with pytest.raises(DataError, match=words):
        report_forecast(history, forecast)


def test_periods_and_steps_have_no_stamps_to_cut():
    past = months([1.0] * 24)
    forecast = ahead(past, [2.0] * 12)
    for table in (past, forecast):
        table["timestamp"] = pd.PeriodIndex(table["timestamp"], freq="M")
    assert "12 months (2022-01 to 2022-12)" in report_forecast(past, forecast).verdict
    past["timestamp"], forecast["timestamp"] = range(24), range(24, 36)
    page = report_forecast(past, forecast)
    assert "the next 12 steps (24 to 35)" in page.verdict
    page.to_html()
