"""The page of a backtest: which method is best, by how much, and how sure that is."""

import numpy as np
import pandas as pd

from small_forecasters import panel
from tsllm import backtest
from tsllm.reports import report_backtest
from tsllm.reports.backtest import MAX_PICTURES


def run(noise=1.0, steps=400, baselines=("seasonal_naive", "theta"), **given):
    rng = np.random.default_rng(0)
    values = (
        10 + np.tile([0, 1, 2, 3, 4, 5, 6], steps // 7 + 1)[:steps] + rng.normal(0, noise, steps)
    )
    y = pd.Series(values, pd.period_range("2024-01-01", periods=steps, freq="D"), name="sales")
    given = {"horizons": 7, "test_size": 140, "stride": 7, "max_windows": None} | given
    return backtest({}, y, baselines=list(baselines), **given)


def test_a_clear_difference_is_said_with_its_interval():
    page = report_backtest(run(baselines=("seasonal_naive", "linear")))
    assert page.verdict.startswith("linear forecasts best here: its mean absolute error is")
    assert page.details[0].startswith("The methods were compared on 20 windows of 1 series")
    assert "smaller than that of seasonal_naive" in page.details[0]
    assert page.details[1].startswith("Of the values that came")


def test_equal_methods_are_not_ranked():
    report = run(baselines=("seasonal_naive", "linear"))
    report._runs["linear"] = report._runs["seasonal_naive"]
    own = report.table["method"] == "linear"
    report.table.loc[own, "mae"] = report.table.loc[~own, "mae"].to_numpy()
    assert "with the same mean absolute error" in report_backtest(report).verdict


def test_few_windows_cannot_tell_and_the_page_says_so():
    report = run(baselines=("seasonal_naive", "linear"), test_size=7)
    assert "too short to tell whether that is chance" in report_backtest(report).verdict


def test_one_method_is_only_measured():
    page = report_backtest(run(baselines=("seasonal_naive",), quantiles=()))
    assert page.verdict.startswith("seasonal_naive has a mean absolute error of ")
    assert page.details == []


def test_tables_have_no_times_and_two_pages_are_alike():
    pages = [report_backtest(run(baselines=("seasonal_naive",))) for _ in range(2)]
    assert all(not name.endswith("seconds") for name in pages[0].tables[0].frame.columns)
    assert pages[0].to_html("2026-01-31") == pages[1].to_html("2026-01-31")


def test_panels_have_a_table_by_series_and_some_pictures():
    names = ["<script>", *(f"s{n}" for n in range(11))]
    y = panel([40] * 12, names)
    report = backtest({}, y, horizons=2, test_size=6, baselines=["seasonal_naive"])
    page = report_backtest(report)
    assert [one.title for one in page.tables] == [
        "Errors",
        "By series",
        "Mean absolute error by step",
    ]
    assert len(page.pictures) == MAX_PICTURES
    assert page.pictures_note.endswith(f"The first {MAX_PICTURES} of 12 series are drawn.")
    assert page.to_html().count("<script>") == 1
