"""The MLflow flavor: logging, registering and serving of tsllm's models.

::

    with mlflow.start_run():
        info = tsllm.mlflow.log_model(forecaster, name="model")
    mlflow.pyfunc.load_model(info.model_uri).predict(frame, params={"horizon": 12})

A model is saved as by `tsllm.save`: without pickle and, by default, without the language model's
weights. Requests to a served model hold the history to forecast; see `tsllm.mlflow.series` for
their form and limits.

This module switches MLflow's telemetry off where it imports MLflow first
(``MLFLOW_DISABLE_TELEMETRY``); set the variable to "false" to keep it on.
"""

import os as _os

_os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
try:
    import mlflow as _mlflow  # noqa: F401
except ImportError as error:
    raise ImportError("tsllm.mlflow needs MLflow: pip install 'tsllm[mlflow]'") from error

from tsllm.mlflow.autologging import EpochLogger, autolog
from tsllm.mlflow.flavor import (
    FLAVOR_NAME,
    get_default_conda_env,
    get_default_pip_requirements,
    load_model,
    log_model,
    save_model,
)
from tsllm.mlflow.flavor import (
    _load_pyfunc as _load_pyfunc,  # MLflow calls it by this name
)

__all__ = [
    "FLAVOR_NAME",
    "EpochLogger",
    "autolog",
    "get_default_conda_env",
    "get_default_pip_requirements",
    "load_model",
    "log_model",
    "save_model",
]
