"""The first forecast of a saved model: it imports what it needs, and no more."""

import json
import subprocess
import sys

import pytest

import tsllm
from small_forecasters import panel

#: Modules that take a second and more, and that a model without a language model does not need.
UNUSED = (
    "transformers.modeling_utils",
    "transformers.core_model_loading",
    "torch._dynamo",
    "sympy",
    "matplotlib",
    "mlflow",
    "ray",
    "typer",
)
#: Modules that a forecast may load in all; a heavy new one has hundreds.
MOST = 3700


@pytest.mark.parametrize("call", ["predict()", "stream().forecast()"])
def test_the_first_forecast_imports_nothing_heavy(call, tmp_path):
    forecaster = tsllm.LinearForecaster().fit(panel([30, 30], ["a", "b"]), fh=[1, 2])
    path = tsllm.save(forecaster, tmp_path / "model")
    code = (
        f"import json, sys, tsllm; tsllm.load({str(path)!r}).{call}\n"
        f"print(json.dumps([len(sys.modules), [m for m in {UNUSED} if m in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    number, found = json.loads(done.stdout)
    assert found == []
    assert number <= MOST
