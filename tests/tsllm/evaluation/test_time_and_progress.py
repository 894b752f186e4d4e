"""The time of a backtest: bounded, told first, and with lines at intervals in a log."""

import sys

import numpy as np
import pandas as pd
import pytest
from sktime.datasets import load_airline

from small_forecasters import tiny
from tsllm import DLinearForecaster, LinearForecaster, backtest
from tsllm.evaluation import progress, statistical
from tsllm.evaluation.holdout import hold_out, list_windows
from tsllm.forecasters.statistical import choose_ets_form, fit_and_forecast

Y = load_airline()
HOW = {"horizons": [6], "test_size": 24, "quantiles": ()}


def panel():
    """Three series of one year's test part each."""
    return pd.concat([Y + i for i in range(3)], keys=list("abc"), names=["id", "month"]).to_frame()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_the_first_windows_are_spread_over_all_series_and_over_time(count):
    held = hold_out(panel(), [6], test_size=24)
    windows = list_windows(held, [6], stride=1)
    picked = windows.thin(count)
    order = windows.spread(picked)
    assert sorted(order) == picked.tolist()
    assert len(set(windows.series[order[:3]])) == 3
    if count >= 7:  # of a series, the first two lie half of the test part apart
        own = windows.origin[order][windows.series[order] == 0]
        assert abs(own[0] - own[1]) >= (own.max() - own.min()) / 3


def test_auto_ets_chooses_its_form_once_and_its_parameters_at_each_window(monkeypatch):
    chosen = []

    def choose(values, season, longest):
        chosen.append(values)
        return choose_ets_form(values, season, longest)

    monkeypatch.setattr(statistical, "choose_ets_form", choose)
    report = backtest({}, Y, baselines=["auto_ets"], max_windows=3, seeds=[0, 1], **HOW)
    assert len(chosen) == 1
    assert chosen[0].tolist() == Y.to_numpy()[:-24].tolist()  # nothing of the test part
    form = choose_ets_form(chosen[0], 12, len(Y))
    found = report.forecasts
    for cutoff, rows in found.groupby("cutoff"):
        past = Y.loc[:cutoff].to_numpy()
        own = fit_and_forecast("auto_ets", past, 6, 12, form=form)
        np.testing.assert_allclose(rows["forecast"], own[:, 0], rtol=1e-9)


def test_auto_ets_is_seasonal_at_windows_that_hold_two_seasons_for_the_first_time():
    y = Y[:44]  # the part before the test part has 20 months
    found = backtest({}, y, baselines=["auto_ets"], max_windows=None, **HOW).forecasts
    cutoff = y.index[37]
    own = fit_and_forecast("auto_ets", y.loc[:cutoff].to_numpy(), 6, 12)
    rows = found[found["cutoff"] == cutoff]
    np.testing.assert_allclose(rows["forecast"], own[:, 0], rtol=1e-9)


def test_a_time_limit_leaves_fewer_windows_that_all_methods_share(monkeypatch):
    clock = iter(np.arange(0.0, 1e6))
    monkeypatch.setattr("tsllm.evaluation.protocol.time.perf_counter", lambda: next(clock))
    # Each window takes a second of this clock, and so does the fit of the fallback.
    estimator = LinearForecaster(context_length=12)
    report = backtest(estimator, panel(), baselines=["theta"], time_limit=7, max_windows=6, **HOW)
    common = report.table[report.table["scored_on"] == "common"].set_index("method")
    assert common["windows"].tolist() == [7, 7]
    assert set(report.forecasts.query("method == 'theta'")["series_id"]) == set("abc")
    assert report.settings["time_limit"] == 7
    assert report.notes == [
        "theta forecast 7 of 18 windows in its time limit of 7 s: time_limit= (--time-limit) "
        "raises it"
    ]
    assert report.paired("LinearForecaster", "theta").windows == 7
    assert '"time_limit": 7' in report.to_json()


def test_a_time_limit_ends_the_training_of_a_baseline_and_not_of_an_estimator():
    report = backtest(
        {"own": DLinearForecaster(max_steps=9, random_state=0)},
        Y,
        baselines=["dlinear"],
        time_limit=1e-9,
        **HOW,
    )
    assert len(report.notes) == 1
    assert report.notes[0].startswith(
        "dlinear: its time limit of 1e-09 s ended the training at step 1 of up to "
    )


def test_a_log_gets_the_expected_time_first_and_lines_at_intervals(monkeypatch, capsys):
    monkeypatch.setattr(progress, "INTERVAL", 0.001)
    quiet = backtest(tiny(), Y, baselines=["theta"], max_windows=3, **HOW)
    assert capsys.readouterr().err == ""
    told = backtest(tiny(), Y, baselines=["theta"], max_windows=3, progress=True, **HOW)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "backtest of 19 windows; fitted once: AutoTimesForecaster; fitted anew at each of up to 3 "
        "windows: theta"
    )
    expected = next(i for i, line in enumerate(lines) if line.startswith("expected time: "))
    assert "AutoTimesForecaster " in lines[expected] and "theta " in lines[expected]
    ends = [i for i, line in enumerate(lines) if ": fitted in " in line]
    assert [lines[i].partition(":")[0] for i in ends] == ["AutoTimesForecaster", "theta"]
    assert expected < ends[0]
    assert any(": training step " in line and " of up to 4" in line for line in lines)
    # What is told changes nothing.
    columns = ["method", "horizon", "windows", "mse"]
    pd.testing.assert_frame_equal(told.table[columns], quiet.table[columns])


def test_the_time_of_methods_that_were_not_measured_is_not_made_up(capsys):
    backtest({}, Y, baselines=["seasonal_naive"], progress=True, **HOW)
    assert "expected time not measured: seasonal_naive" in capsys.readouterr().err.splitlines()
    backtest({}, Y, baselines=["seasonal_naive", "theta"], max_windows=3, progress=True, **HOW)
    line = next(i for i in capsys.readouterr().err.splitlines() if i.startswith("expected time: "))
    assert line.startswith("expected time: theta ")
    assert line.endswith(" (not measured: seasonal_naive)")


def test_a_kernel_that_is_only_imported_makes_no_notebook(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    progress.Progress(True).say("a line")
    progress.Progress(True).finish("theta", 1, 0.1, 0.2)
    assert capsys.readouterr().err.splitlines() == [
        "a line",
        "theta: fitted in 0.1 s, forecast 1 window in 0.2 s",
    ]


def test_a_task_says_how_much_is_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with progress.Progress(shown=False).over("theta", 10) as task:
        now[0] = 4.0
        assert task.sentence() == "theta: fitting for 4.0 s"
        task.train(20, 100)
        assert task.sentence() == "theta: training step 20 of up to 100, at most 16 s left"
        task.update(2)
        assert task.sentence() == "theta: 2 of 10 windows"
        now[0] = 8.0
        task.update(2)
        assert task.sentence() == "theta: 4 of 10 windows, about 12 s left"
