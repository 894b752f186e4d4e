"""`tsllm.forecast` with on_error="skip": the good series are forecast, the bad ones listed."""

import numpy as np
import pandas as pd
import pytest
from covariate_frames import covariate_frames
from long_frames import long_frame

import tsllm
from tsllm.datasets import read_long
from tsllm.datasets.bad_series import SkippedSeries
from tsllm.errors import DataError, NoSeriesLeftError
from tsllm.tables.forecast import predict_long

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
SMALL = {
    "method": "autotimes",
    "backbone": None,
    "max_steps": 2,
    "context_length": 12,
    "token_length": 6,
    "random_state": 0,
}


def spoilt(frame):
    """The frame with a bad series of each kind, and the words of each refusal."""
    rows = frame.groupby("series_id").indices
    frame = frame.copy()
    frame.loc[rows["s0001"], "value"] = np.nan
    frame.loc[rows["s0002"][-15:], "value"] = np.nan
    frame.loc[rows["s0003"][5], "value"] = np.inf
    doubled = frame.iloc[rows["s0004"][[5]]]
    frame = pd.concat([frame.drop(rows["s0005"][1:]), doubled], ignore_index=True)
    return frame, {
        "s0001": "series 's0001' has no observed value",
        "s0002": "series 's0002' has no observed value",
        "s0003": "column 'value' holds inf",
        "s0004": "have the same stamp 2024-01-06",
        "s0005": "series 's0005' has 1 step",
    }


def test_one_call_forecasts_the_rest_and_lists_the_bad():
    frame, words = spoilt(long_frame(9))
    with pytest.warns(UserWarning, match="left out 5 of 9 series, which attrs"):
        table = tsllm.forecast(frame, 3, sort=True, on_error="skip", **SMALL)
    skipped = table.attrs["skipped"]
    assert skipped.keys() == words.keys()
    for name, text in words.items():
        assert text in skipped[name]
    assert table["series_id"].unique().tolist() == ["s0000", "s0006", "s0007", "s0008"]
    assert np.isfinite(table[["forecast", "q0.1", "q0.9"]]).all(axis=None)
    with pytest.raises(DataError):
        tsllm.forecast(frame, 3, sort=True, **SMALL)


def test_nothing_bad_changes_nothing():
    frame = long_frame(4)
    found = tsllm.forecast(frame, 3, on_error="skip", **SMALL)
    assert found.attrs == {"skipped": {}}
    pd.testing.assert_frame_equal(found, tsllm.forecast(frame, 3, **SMALL))


def test_series_of_several_frequencies_need_one_to_be_stated():
    hourly = long_frame(1, freq="h").assign(series_id="hourly")
    frame = pd.concat([long_frame(3), hourly])
    with pytest.raises(
        DataError, match=r"mixes frequencies.*; with freq= \(--freq\) those of other"
    ):
        tsllm.forecast(frame, 3, on_error="skip", **SMALL)
    with pytest.warns(UserWarning, match="left out 1 of 4 series"):
        table = tsllm.forecast(frame, 3, freq="D", on_error="skip", **SMALL)
    assert list(table.attrs["skipped"]) == ["hourly"]


def test_all_bad_is_an_error():
    frame = long_frame(3).assign(value=np.inf)
    with pytest.raises(NoSeriesLeftError, match="none of the 3 series"):
        tsllm.forecast(frame, 3, on_error="skip", **SMALL)
    with pytest.raises(DataError, match="on_error"):
        tsllm.forecast(frame, 3, on_error="ignore", **SMALL)


def test_the_default_method_skips_as_well():
    frame = long_frame(4)
    bad = frame.assign(value=frame["value"].mask(frame["series_id"] == "s0001", np.inf))
    candidates = {"candidates": ["seasonal_naive"], "backbone": None}
    with pytest.warns(UserWarning, match="left out 1 of 4 series"):
        table = tsllm.forecast(bad, 3, on_error="skip", **candidates)
    good = frame[frame["series_id"] != "s0001"]
    expected = tsllm.forecast(good, 3, **candidates)
    pd.testing.assert_frame_equal(table, expected, rtol=1e-6)


def test_a_saved_model_skips_as_well():
    frame = long_frame(9)
    model = tsllm.DLinearForecaster(max_steps=2, context_length=12, random_state=0)
    model.fit(frame.set_index(["series_id", "timestamp"]), fh=[1, 2, 3])
    bad, words = spoilt(frame)
    del words["s0005"]  # one step is enough for a fitted model
    skipped = SkippedSeries()
    table = predict_long(model, read_long(bad, sort=True, skipped=skipped), 3, skipped=skipped)
    assert skipped.reasons.keys() == words.keys()
    alone = predict_long(model, read_long(frame[frame["series_id"] == "s0007"]), 3)
    found = table[table["series_id"] == "s0007"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, alone, rtol=1e-6)


@pytest.mark.parametrize("fault", ["no row", "a step less", "no value", "unknown"])
def test_a_series_without_its_future_is_left_out(fault):
    data, future = covariate_frames(["a", "b", "c", "d"])
    rows = np.flatnonzero(future["series_id"] == "b")
    if fault == "no row":
        future = future.drop(future.index[rows])
    elif fault == "a step less":
        future = future.drop(future.index[rows[2:]])
    elif fault == "no value":
        future.loc[future.index[rows[0]], "warm"] = np.inf
    else:
        future.loc[future.index[rows[0]], "sky"] = "green"
    with pytest.warns(UserWarning, match="left out 1 of 4 series"):
        table = tsllm.forecast(
            data, 3, covariates=["warm", "sky"], future=future, on_error="skip", **SMALL
        )
    assert list(table.attrs["skipped"]) == ["b"]
    assert "'b'" in table.attrs["skipped"]["b"]
    assert "the future (future=, --future)" in table.attrs["skipped"]["b"]
    assert table["series_id"].unique().tolist() == ["a", "c", "d"]
