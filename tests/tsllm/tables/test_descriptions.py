"""Descriptions of series in tables, and series without any row yet."""

import numpy as np
import pandas as pd
import pytest

import tsllm
from tsllm.errors import DataError
from tsllm.tables.forecast import fit_long, make_forecaster, predict_stored

SETTINGS = {"method": "dlinear", "max_steps": 2, "context_length": 24, "random_state": 0}
SETTINGS |= {"text_backbone": "tfidf", "static_text": "description"}


def table(count=12, steps=48):
    """Monthly values whose level is ten times as high for "large" series."""
    months = pd.date_range("2020-01-01", periods=steps, freq="MS")
    parts = []
    for number in range(count):
        size = ("small", "large")[number % 2]
        noise = np.random.default_rng(number).normal(0, 0.05, steps)
        level = {"small": 10, "large": 100}[size]
        season = 0.3 * np.sin(np.arange(steps) * np.pi / 6)
        part = pd.DataFrame({"series_id": f"s{number}", "timestamp": months})
        parts.append(part.assign(value=level * np.exp(season + noise), description=size))
    return pd.concat(parts, ignore_index=True)


NEW = pd.DataFrame({"series_id": ["new", "s0", "other"], "description": ["large", "x", "small"]})


def test_new_series_follow_the_others_and_end_where_they_end(tmp_path):
    with pytest.warns(UserWarning, match="'s0', which the data have already"):
        found = tsllm.forecast(table(), 3, new_series=NEW, **SETTINGS)
    assert found["series_id"].unique().tolist() == [f"s{n}" for n in range(12)] + ["new", "other"]
    assert list(found) == ["series_id", "timestamp", "forecast", "q0.1", "q0.5", "q0.9"]
    new, other = (found[found["series_id"] == name] for name in ("new", "other"))
    assert new["timestamp"].tolist() == found["timestamp"].tolist()[:3]
    np.testing.assert_allclose(new["forecast"], [100, 116, 130], rtol=0.2)
    np.testing.assert_allclose(other["forecast"] * 10, new["forecast"], rtol=0.2)
    assert (new["q0.1"] < new["forecast"]).all()
    files = []
    for name, frame in (("data", table()), ("new", NEW)):
        files.append(tmp_path / f"{name}.csv")
        frame.to_csv(files[-1], index=False)
    again = tsllm.forecast(files[0], 3, new_series=files[1], **SETTINGS)
    pd.testing.assert_frame_equal(again, found)


def test_a_series_with_few_rows_is_forecast_from_its_description_too():
    data = table()
    few = data[data["series_id"] == "s1"].tail(2).assign(series_id="few")
    found = tsllm.forecast(pd.concat([data, few]), 3, **SETTINGS)
    few = found[found["series_id"] == "few"]
    np.testing.assert_allclose(few["forecast"], [100, 116, 130], rtol=0.2)


def test_missing_descriptions_are_refused_or_the_mean_of_the_panel():
    nameless = NEW.assign(description=[None, "x", "small"])
    with pytest.raises(DataError, match="series 'new' needs a description"):
        tsllm.forecast(table(), 3, new_series=nameless, **SETTINGS)
    found = tsllm.forecast(table(), 3, new_series=nameless, without_text="mean", **SETTINGS)
    mean = found[found["series_id"] == "new"]["forecast"].mean()
    assert 20 < mean < 60
    data = table()
    data.loc[data["series_id"] == "s3", "description"] = None
    tsllm.forecast(data, 3, without_text="mean", **SETTINGS)
    with pytest.raises(DataError, match="series 's3' has no value in column 'description'"):
        tsllm.forecast(data, 3, **SETTINGS)
    kept = tsllm.forecast(data, 3, on_error="skip", **SETTINGS)
    assert list(kept.attrs["skipped"]) == ["s3"]
    new = pd.DataFrame({"series_id": ["s3", "new"], "description": "large"})
    kept = tsllm.forecast(data, 3, new_series=new, on_error="skip", **SETTINGS)
    assert list(kept.attrs["skipped"]) == ["s3"]
    assert set(kept["series_id"]) == {"new", *data["series_id"]} - {"s3"}


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"new_series": NEW[["description"]]},
            r"^new_series \(--new-series\): the frame has no column of identifiers",
        ),
        (
            {"new_series": NEW[["series_id"]]},
            r"^new_series \(--new-series\): the frame has no column 'description', which describes",
        ),
        ({"new_series": NEW, "id_col": "id"}, "id_col='id' is no column"),
        ({"static_text": "words"}, "'words' is no column of the frame"),
        ({"static_text": "words", "new_series": None}, "covariates='words' is no column"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        tsllm.forecast(table(), 3, **SETTINGS | {"new_series": NEW} | options)


def test_new_series_need_a_model_that_reads_descriptions():
    with pytest.raises(DataError, match="name their columns in static_text="):
        tsllm.forecast(table(), 3, new_series=NEW, covariates="description", backbone=None)


def test_static_text_puts_a_cold_start_around_any_method():
    model = make_forecaster("dlinear", static_text="about", text_backbone="tfidf", max_steps=2)
    assert (type(model).__name__, model.static_text) == ("ColdStart", ("about",))
    assert model.forecaster.max_steps == 2
    assert type(make_forecaster("dlinear", static_text=())).__name__ == "DLinearForecaster"
    with pytest.raises(DataError, match="without_text"):
        make_forecaster("dlinear", static_text="about", without_text=3)
    with pytest.raises(DataError, match=r"leave text_covariates \(--text\) out, or static_text"):
        make_forecaster("dlinear", static_text="about", text_covariates=["note"])


def test_a_new_series_without_a_row_is_told_how_to_come():
    model = make_forecaster(
        "auto", candidates=["seasonal_naive"], backbone=None, random_state=0,
        text_backbone="tfidf", static_text="description",
    )  # fmt: skip
    fit_long(model, table(), 3, covariates=["description"])
    with pytest.raises(DataError, match=r"is one row .*, no value, and its description in descr"):
        predict_stored(model, 3, series=["new"])
