"""The first forecast of a saved model: it imports what it needs, and no more."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import tsllm
from small_forecasters import panel

#: Modules that take a second and more, and that a model without a language model does not need.
UNUSED = (
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "torch._dynamo",
    "sympy",
    "matplotlib",
    "mlflow",
    "ray",
    "typer",
    "tsllm.forecasters.auto",
    "tsllm.events.prompttpp",
)
#: Modules that a forecast may load in all. 2,700 of them are torch's and sktime's; those of events
#: do without sktime. A heavy new one has hundreds.
MOST_OF_SERIES, MOST_OF_EVENTS = 3300, 2600


def modules_after(call, path):
    """Return the names of the modules that are loaded after a call on a model's first load."""
    code = (
        f"import json, sys, tsllm; tsllm.load({str(path)!r}).{call}\n"
        "print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("call", ["predict()", "stream().forecast()"])
def test_the_first_forecast_imports_nothing_heavy(call, tmp_path):
    forecaster = tsllm.LinearForecaster().fit(panel([30, 30], ["a", "b"]), fh=[1, 2])
    modules = modules_after(call, tsllm.save(forecaster, tmp_path / "model"))
    assert modules & {*UNUSED} == set()
    assert len(modules) <= MOST_OF_SERIES


def test_the_first_forecast_of_events_does_without_sktime(tmp_path):
    events = pd.DataFrame({"sequence_id": "a", "time": np.arange(30.0), "type": ["x", "y"] * 15})
    forecaster = tsllm.HawkesForecaster().fit(events)
    modules = modules_after("predict()", tsllm.save(forecaster, tmp_path / "model"))
    assert modules & {*UNUSED, "sktime"} == set()
    assert len(modules) <= MOST_OF_EVENTS
