"""The method of docs/add_a_method.md, word for word, keeps the contract of all forecasters."""

import importlib
import re
from pathlib import Path

import pytest
from sklearn.base import clone
from sktime.datasets import load_airline
from sktime.utils.estimator_checks import check_estimator

import tsllm
from tsllm.errors import DataError
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.parameters import SHARED, SharedParameters
from tsllm.saving import api

#: Checks of sktime that take most of the time: forecasts for every kind of index and horizon,
#: which do not depend on the method.
MANY = [
    "test_deepcopy_fitted_predict",
    "test_methods_have_no_side_effects",
    "test_multiprocessing_idempotent",
    "test_no_between_test_case_side_effects",
    "test_non_state_changing_method_contract",
    "test_persistence_via_pickle",
    "test_predict_interval",
    "test_predict_quantiles",
    "test_predict_time_index",
    "test_predict_time_index_in_sample_full",
    "test_predict_time_index_with_X",
    "test_raises_not_fitted_error",
    "test_save_estimators_to_file",
    "test_update_predict_predicted_index",
    "test_update_predict_single",
]
PAGE = Path(__file__).parents[3] / "docs" / "add_a_method.md"


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The class of the page's first block, in a module of its own."""
    block = re.search(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "weighted_mean.py").write_text(block[1])
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("weighted_mean").WeightedMeanForecaster
    monkeypatch.delitem(importlib.sys.modules, "weighted_mean")


def test_it_fits_forecasts_and_follows(added):
    y = load_airline()
    forecaster = added(max_steps=5, random_state=0).fit(y.iloc[:-1], fh=[1, 2, 3])
    first = forecaster.predict()
    assert first.index.astype(str).tolist() == ["1960-12", "1961-01", "1961-02"]
    assert first.between(y.min(), y.max()).all()
    bounds = forecaster.predict_interval(coverage=0.8)
    assert (bounds.iloc[:, 0] < bounds.iloc[:, 1]).all()
    assert forecaster.update(y.tail(1)).predict().index.astype(str)[0] == "1961-01"
    again = added(max_steps=5, random_state=0).fit(y.iloc[:-1], fh=[1, 2, 3])
    assert again.predict().equals(first)


def test_its_arguments_are_those_of_its_constructor(added):
    names = ["context_length", "max_steps", "prediction_length", "random_state"]
    assert added.get_param_names() == names
    assert clone(added(context_length=24)).get_params()["context_length"] == 24
    assert "max_steps : int or None, default=None" in added.__doc__  # the base documented it
    with pytest.raises(DataError, match="context_length must be a whole number"):
        added(context_length=-1).fit(load_airline())


def test_the_base_has_a_value_for_each_shared_argument_that_no_language_model_needs(added):
    for_language_models = {"backbone", "backbone_layers", "lora", "dtype"}
    of_some_methods = {"flip_invariance", "prompt_template"}  # each declares it itself
    missing = {name for name in SHARED if not hasattr(SharedParameters, name)}
    assert missing == for_language_models | of_some_methods


def test_a_registered_method_is_saved_and_loaded(added, tmp_path, monkeypatch):
    forecaster = added(max_steps=2, random_state=0).fit(load_airline(), fh=[1, 2])
    with pytest.raises((DataError, TypeError), match="WeightedMeanForecaster"):
        tsllm.save(forecaster, tmp_path / "model")
    monkeypatch.setitem(api._SERIES, "WeightedMeanForecaster", "weighted_mean")
    monkeypatch.setitem(api._ESTIMATORS, "WeightedMeanForecaster", "weighted_mean")
    tsllm.save(forecaster, tmp_path / "model")
    assert tsllm.load(tmp_path / "model").predict().equals(forecaster.predict())


def test_it_passes_the_checks_of_sktime(added):
    results = check_estimator(added, tests_to_exclude=MANY, raise_exceptions=False, verbose=False)
    assert len(results) > 100
    assert {name: result for name, result in results.items() if result != "PASSED"} == {}


def test_a_method_without_a_constructor_says_what_to_write():
    class Bare(DirectForecaster):
        def _build_model(self, backbone, shape):
            raise AssertionError("never called")

    with pytest.raises(TypeError, match=r"Bare has no constructor .* super\(\).__init__\(locals"):
        Bare()


def test_a_module_without_parameters_is_not_trained(added):
    mean = type(
        "Mean",
        (importlib.import_module("torch").nn.Module,),
        {"quantile_head": None, "forward": lambda self, x, mask=None: x.mean(1, keepdim=True)},
    )

    class MeanForecaster(added):
        shrinkage = False

        def _build_model(self, backbone, shape):
            return mean()

    y = load_airline()
    forecaster = MeanForecaster(context_length=6).fit(y, fh=[1])
    assert forecaster.predict().iloc[0] == pytest.approx(y.tail(6).mean(), rel=1e-5)
    assert forecaster.summary()["trained_parameters"] == 0
