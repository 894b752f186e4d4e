"""--text and --static-text: forecasts, saved models, ablations and the store."""

import numpy as np
import pandas as pd
import pytest
from texts import promoted

import tsllm as library

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ", "ignore:no window scores")

FAST = ["--method", "dlinear", "--set", "max_steps=30", "--set", "text_backbone=tfidf"]
TINY = "random:bert?hidden=16&layers=1&heads=2"


@pytest.fixture
def data(tmp_path):
    frame = promoted()
    frame.to_csv(tmp_path / "data.csv", index=False)
    ahead = frame.groupby("series_id").head(4).drop(columns="value")
    ahead["timestamp"] += pd.Timedelta(days=90)
    ahead.to_csv(tmp_path / "ahead.csv", index=False)
    return frame


def test_forecast_and_predict_read_texts_as_python_does(tsllm, data):
    asked = ["data.csv", "--horizon", 4, "--text", "news", *FAST]
    direct = tsllm("forecast", *asked, "--future", "ahead.csv")
    assert direct.code == 0, direct.err
    expected = library.forecast(
        data,
        4,
        future="ahead.csv",
        method="dlinear",
        text_covariates=["news"],
        text_backbone="tfidf",
        max_steps=30,
        random_state=0,
    )
    np.testing.assert_allclose(direct.table["forecast"], expected["forecast"], rtol=1e-6)
    fitted = tsllm("fit", *asked, "--out", "model")
    assert "will need the future of news (--future)" in fitted.err
    assert "--future" in tsllm("predict", "model", "data.csv").err
    saved = tsllm("predict", "model", "data.csv", "--future", "ahead.csv").table
    np.testing.assert_allclose(saved["forecast"], expected["forecast"], rtol=1e-5)


def test_texts_known_up_to_the_last_step_need_no_future(tsllm, data):
    result = tsllm(
        "forecast", "data.csv", "--horizon", 2, "--text", "news", "--past-covariates", "news", *FAST
    )
    assert result.code == 0 and len(result.table) == 4


def test_descriptions_forecast_series_without_rows(tsllm, tmp_path):
    names = [f"shop{number}" for number in range(12)]
    frame = promoted(60, names).drop(columns="news")
    kinds = {name: "ice cream" if number % 2 else "gloves" for number, name in enumerate(names)}
    frame["kind"] = frame["series_id"].map(kinds)
    frame["value"] += frame["kind"].map({"ice cream": 500.0, "gloves": 0.0})
    frame.to_csv(tmp_path / "data.csv", index=False)
    new = pd.DataFrame(
        {"series_id": ["a", "b", "shop1"], "kind": ["gloves", "ice cream", "gloves"]}
    )
    new.to_csv(tmp_path / "new.csv", index=False)
    asked = ["data.csv", "--horizon", 2, "--static-text", "kind", *FAST]
    result = tsllm("forecast", *asked, "--new-series", "new.csv")
    assert result.code == 0, result.err
    table = result.table.set_index("series_id")
    assert table.index.unique().tolist() == [*names, "a", "b"]
    means = table["forecast"].groupby(level=0).mean()
    assert means["b"] > means["a"] + 250
    assert tsllm("fit", *asked, "--out", "model").code == 0
    again = tsllm("predict", "model", "--new-series", "new.csv")
    assert again.code == 0, again.err
    again = again.table.set_index("series_id")
    np.testing.assert_allclose(again.loc["b", "forecast"], table.loc["b", "forecast"], rtol=1e-5)


def test_embed_fills_the_store_with_the_texts_of_columns(tsllm, data):
    asked = ["data.csv", "--text", "news", "--store", "store", "--set", f"text_backbone={TINY}"]
    first = tsllm("embed", *asked)
    assert first.out.startswith("4 texts, 4 embedded now"), first.err
    assert tsllm("embed", *asked).out.startswith("4 texts, 0 embedded now")
    other = tsllm("embed", *asked, "--set", "dtype=bfloat16")  # as a fit with this dtype needs
    assert other.out.startswith("4 texts, 4 embedded now"), other.err
    wrong = tsllm("embed", *asked, "--set", "text_backbon=tfidf")
    assert wrong.code == 2 and "did you mean 'text_backbone'?" in wrong.err
    refused = tsllm("embed", *asked, "--method", "timecma")
    assert refused.code == 2 and "--method has no effect on the texts of columns" in refused.err


def test_a_text_is_given_with_its_option(tsllm, data):
    refused = tsllm("forecast", "data.csv", "--horizon", 2, "--set", "text_covariates=[news]")
    assert refused.code == 2 and "give it with --text" in refused.err


def test_backtest_compares_with_the_forecaster_without_texts(tsllm, data):
    how = ["data.csv", "--horizons", 2, "--test-size", 10, "--stride", 4, "--text", "news", *FAST]
    result = tsllm("backtest", *how, "--baselines", "seasonal_naive")
    assert result.code == 0 and "dlinear, no X" in result.out, result.err
