"""Columns of text in long tables: frames and files, gaps, the future, a saved model."""

import numpy as np
import pandas as pd
import pytest
from texts import SAID, promoted

import tsllm
from tsllm.datasets import read_long
from tsllm.errors import DataError, GapError
from tsllm.tables.forecast import predict_long

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ", "ignore:no window scores")

HORIZON = 4
HOW = {"method": "dlinear", "text_backbone": "tfidf", "max_steps": 30, "random_state": 0}


def ahead(texts, frame):
    """The future of the panel with some texts, the same for each series."""
    start = frame["timestamp"].max() + pd.Timedelta(days=1)
    stamps = pd.date_range(start, periods=len(texts), freq="D")
    names = frame["series_id"].unique()
    table = pd.DataFrame([(n, t, x) for n in names for t, x in zip(stamps, texts)])
    return table.set_axis(["series_id", "timestamp", "news"], axis=1)


def forecast(frame, texts, **how):
    return tsllm.forecast(
        frame, HORIZON, future=ahead(texts, frame), text_covariates=["news"], **(HOW | how)
    )


def test_texts_of_the_steps_to_come_move_the_forecast():
    frame = promoted(steps=200)
    texts = ["Sale today.", None, "Closed. Holiday.", None]
    told = forecast(frame, texts)["forecast"].to_numpy().reshape(2, HORIZON)
    quiet = forecast(frame, [None] * HORIZON)["forecast"].to_numpy().reshape(2, HORIZON)
    np.testing.assert_allclose(told - quiet, [[SAID[text] for text in texts]] * 2, atol=1.5)


def test_files_and_frames_agree(tmp_path):
    frame, texts = promoted(), ["Sale today.", None, None, "Sale today."]
    expected = forecast(frame, texts)
    frame.to_csv(tmp_path / "data.csv", index=False)
    ahead(texts, frame).to_parquet(tmp_path / "future.parquet", index=False)
    found = tsllm.forecast(
        tmp_path / "data.csv",
        HORIZON,
        future=tmp_path / "future.parquet",
        text_covariates=["news"],
        **HOW,
    )
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)


def test_a_saved_model_reads_the_texts_of_new_data(tmp_path):
    frame, texts = promoted(), ["Sale today.", None, None, None]
    y = frame.set_index(["series_id", "timestamp"])
    model = tsllm.DLinearForecaster(
        text_covariates=("news",), text_backbone="tfidf", max_steps=30, random_state=0
    ).fit(y[["value"]], X=y[["news"]], fh=range(1, HORIZON + 1))
    loaded = tsllm.load(tsllm.save(model, tmp_path / "model"))
    expected = forecast(frame, texts)
    table = predict_long(loaded, frame, HORIZON, future=ahead(texts, frame))
    pd.testing.assert_frame_equal(table, expected, rtol=1e-5)


def test_rows_that_fill_inserts_have_no_text():
    frame = promoted(steps=30).assign(day=1.0)
    frame["news"] = "Sale today."
    whole = read_long(
        frame.drop(index=[3, 4]),
        target_cols="value",
        covariates=["news", "day"],
        text=["news"],
        fill="ffill",
        freq="D",
    )
    assert whole["news"].isna().to_numpy().nonzero()[0].tolist() == [3, 4]
    assert (whole["day"] == 1).all() and whole["value"].notna().all()


def test_a_gap_in_the_future_is_told_with_the_remedy_for_it():
    frame = promoted(steps=40)
    future = ahead(["Sale today.", None, None, None], frame).drop(index=[1])
    with pytest.raises(
        GapError, match=r"^the future \(future=, --future\): series .* has a gap"
    ) as refusal:
        tsllm.forecast(frame, 4, future=future, text_covariates=["news"], **HOW)
    assert (
        refusal.value.remedy
        == "add a row for each missing step, without a text where there is none"
    )


def test_a_column_is_either_a_covariate_or_a_text():
    frame = promoted(steps=40)
    with pytest.raises(DataError, match=r"column 'news' is given both in covariates= .* and as a "):
        tsllm.forecast(frame, 3, future=frame, covariates="news", text_covariates=["news"], **HOW)


@pytest.mark.parametrize(
    ("change", "how", "part"),
    [
        ({"news": 3.0}, {}, "series 'north', row 0, column 'news' holds 3.0"),
        ({}, {"resample": "sum", "freq": "W"}, "column 'news' of the frame holds texts"),
        ({}, {"text_covariates": ["new"]}, "covariates='new' is no column of the frame"),
    ],
)
def test_texts_that_cannot_be_read(change, how, part):
    frame = promoted(steps=40).assign(**change)
    with pytest.raises(DataError) as refusal:
        tsllm.forecast(
            frame,
            2,
            future=frame,
            target_cols="value",
            **{"text_covariates": ["news"]} | HOW | how,
        )
    assert part in str(refusal.value)
