"""Covariates in requests: beside the history, and in rows of the future."""

import json

import mlflow
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from covariate_frames import covariate_frames
from numpy.testing import assert_allclose

import tsllm.mlflow
from small_forecasters import SMALL
from tsllm.datasets import read_long
from tsllm.tables.forecast import fit_long, make_forecaster

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
DATA, FUTURE = covariate_frames()
AHEAD = FUTURE.groupby("series_id", sort=False).head(3).drop(columns="value").assign(future=True)


def fitted(method="autotimes", data=DATA, beside=("warm", "sky"), **parameters):
    frame = read_long(data, covariates=list(beside), target_cols="value")
    model = make_forecaster(method, **SMALL[method], **parameters)
    return fit_long(model, frame, 3, covariates=list(beside))


@pytest.fixture(scope="module")
def model():
    return fitted()


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("mlflow") / "model"
    tsllm.mlflow.save_model(model, str(path))
    return mlflow.pyfunc.load_model(str(path))


@pytest.fixture(scope="module")
def expected(model):
    X = AHEAD.drop(columns="future").set_index(["series_id", "timestamp"])
    return model.predict(X=X)["value"].to_numpy()


def asked(payload):
    split = json.loads(json.dumps(payload, allow_nan=False))["dataframe_split"]
    return pd.DataFrame(split["data"], columns=split["columns"])


def test_a_request_brings_history_and_future(served, expected):
    request = pd.concat([DATA, AHEAD], ignore_index=True)
    assert_allclose(served.predict(request)["forecast"], expected, rtol=1e-5)
    jumbled = pd.concat([AHEAD, DATA.astype(object)], ignore_index=True)
    assert_allclose(served.predict(jumbled)["forecast"], expected, rtol=1e-5)


def test_rows_of_the_future_alone_ask_for_what_the_model_keeps(served, expected):
    answer = served.predict(AHEAD)
    assert answer["series_id"].tolist() == ["b"] * 3 + ["a"] * 3
    assert_allclose(answer["forecast"], expected, rtol=1e-5)
    one = served.predict(AHEAD[AHEAD["series_id"] == "a"])
    assert_allclose(one["forecast"], expected[3:], rtol=1e-5)


def test_a_payload_brings_covariates(model, served, expected):
    X = AHEAD.drop(columns="future").set_index(["series_id", "timestamp"])
    payload = model.to_payload(3, X=X)
    assert payload["dataframe_split"]["columns"][2:] == ["value", "warm", "sky", "future"]
    assert_allclose(served.predict(asked(payload))["forecast"], expected, rtol=1e-5)


def test_the_example_is_answered_and_the_signature_names_the_columns(served, model, tmp_path):
    names = served.metadata.signature.inputs.input_names()
    assert names == ["series_id", "timestamp", "value", "warm", "sky", "future"]
    tsllm.mlflow.save_model(model, str(tmp_path / "model"))
    example = served.metadata.load_input_example(str(tmp_path / "model"))
    assert len(served.predict(example)) == 3


def test_past_covariates_and_attributes_come_with_the_history(tmp_path):
    data = DATA.assign(shop=DATA["series_id"].map({"a": 1, "b": 2}))
    model = fitted(
        "timecma",
        data,
        ("warm", "shop"),
        past_covariates=["warm"],
        static_attributes=["shop"],
    )
    tsllm.mlflow.save_model(model, str(tmp_path / "model"))
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    own = model.predict()["value"].to_numpy()
    request = data.drop(columns="sky")
    assert_allclose(served.predict(request)["forecast"], own, rtol=1e-5)
    assert_allclose(served.predict(asked(model.to_payload(3)))["forecast"], own, rtol=1e-5)
    assert len(served.predict(served.metadata.load_input_example(str(tmp_path / "model")))) == 3
    with pytest.raises(mlflow.MlflowException, match="the model reads none"):
        served.predict(pd.concat([request, AHEAD]))


BAD = {
    "no future": (DATA, "the future of the covariates warm, sky is missing for series 'b'"),
    "short": (pd.concat([DATA, AHEAD[:2]]), "the future has no row of series 'b' at 2024-04-02"),
    "no covariates": (DATA[["series_id", "timestamp", "value"]], "covariates='warm' is no column"),
    "hole": (
        pd.concat([DATA, AHEAD.assign(warm=np.nan)]),
        "series 'b', 2024-03-31.*, column 'warm' of the future has no value",
    ),
    "text": (
        pd.concat([DATA, AHEAD.assign(warm="hot")], ignore_index=True),
        "series 'b', row 180, column 'warm' holds 'hot', which is no number",
    ),
    "category": (
        pd.concat([DATA, AHEAD.assign(sky="hail")]),
        "column 'sky' of the future holds 'hail', which was not seen in fitting",
    ),
    "no stamp": (AHEAD.drop(columns="timestamp"), "no column 'timestamp'"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_requests_get_one_sentence(served, bad):
    request, words = BAD[bad]
    with pytest.raises(mlflow.MlflowException, match=words) as caught:
        served.predict(request)
    assert caught.value.get_http_status_code() == 400
    assert "\n" not in caught.value.message
