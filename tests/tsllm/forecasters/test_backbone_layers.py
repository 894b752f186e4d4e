"""How many layers of the language model a forecaster uses."""

import numpy as np
import pandas as pd
import pytest

from tsllm import AarenForecaster, AutoTimesForecaster, S2IPForecaster, TimeCMAForecaster
from tsllm.errors import TsllmError

THREE = "random:gpt2?hidden=16&layers=3&heads=8&positions=512"
Y = pd.Series(
    np.sin(np.arange(20.0)), index=pd.period_range("2020-01", periods=20, freq="M"), name="y"
)


def layers_used(cls, folder, **given):
    forecaster = cls(
        backbone=THREE, max_steps=1, random_state=0, embedding_store=folder, device="cpu", **given
    )
    return forecaster.fit(Y, fh=[1]).summary()["backbone_layers"]


@pytest.mark.parametrize("cls", [AutoTimesForecaster, S2IPForecaster, TimeCMAForecaster])
def test_the_default_is_the_first_two_layers_and_none_is_all(cls, tmp_path):
    assert layers_used(cls, tmp_path) == 2
    assert layers_used(cls, tmp_path, backbone_layers=None) == 3


def test_the_default_of_aaren_with_a_language_model_is_two_layers(tmp_path):
    assert layers_used(AarenForecaster, tmp_path) == 2


@pytest.mark.parametrize(
    "backbone", [THREE.replace("layers=3", "layers=1"), f"layer:transformer?like={THREE}"]
)
def test_a_model_with_fewer_layers_is_used_whole(backbone):
    forecaster = AutoTimesForecaster(backbone, max_steps=1, random_state=0, device="cpu")
    assert forecaster.fit(Y, fh=[1]).summary()["backbone_layers"] == 1


@pytest.mark.parametrize("backbone", ["", "/no/such/model", "random:t5?hidden=4"])
def test_a_wrong_model_gets_the_same_sentence_whatever_its_layers(backbone):
    said = set()
    for layers in ("auto", 1, None):
        with pytest.raises(TsllmError) as error:
            AutoTimesForecaster(backbone, backbone_layers=layers).fit(Y, fh=[1])
        said.add(str(error.value))
    assert len(said) == 1
