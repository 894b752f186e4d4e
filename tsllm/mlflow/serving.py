"""The object that MLflow's server calls with each request."""

import logging
import os
import threading
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

from tsllm.errors import DataError, TsllmError
from tsllm.mlflow.kinds import Limits, ServedKind

_LOG = logging.getLogger(__name__)


class RequestError(MlflowException):
    """The answer to a client whose request failed, in one sentence.

    MLflow's server would put the whole request before the message; this class keeps the sentence.
    """

    def __init__(self, sentence: str, error_code: int) -> None:
        self._sentence = " ".join(sentence.split())
        super().__init__(self._sentence, error_code=error_code)

    @property
    def message(self) -> str:
        """Return the sentence."""
        return self._sentence

    @message.setter
    def message(self, value: str) -> None:
        pass


class ServedModel:
    """A model behind MLflow's ``pyfunc`` interface; safe to call from many threads."""

    def __init__(self, model: Any, kind: ServedKind, limits: Limits) -> None:
        self.model = model
        self.kind = kind
        self.limits = limits
        processors = os.cpu_count() or 1
        at_once = limits.max_concurrent or max(1, processors // torch.get_num_threads())
        self._turns = threading.BoundedSemaphore(at_once)

    def get_raw_model(self) -> Any:
        """Return the forecaster."""
        return self.model

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict what a request asks for.

        See `tsllm.mlflow.series` and `tsllm.mlflow.events` for the request; ``params`` may hold
        ``horizon`` and ``quantiles``.

        Raises
        ------
        RequestError
            The server answers with status 400, or 500 where the request is not at fault.
        """
        try:
            with self._turns:
                return self.kind.answer(self.model, model_input, params or {}, self.limits)
        except DataError as error:
            raise RequestError(str(error), INVALID_PARAMETER_VALUE) from error
        except TsllmError as error:
            raise RequestError(str(error), INTERNAL_ERROR) from error
        except Exception as error:
            _LOG.exception("a request failed unexpectedly")
            raise RequestError(
                f"unexpected {type(error).__name__}: the server's log says more", INTERNAL_ERROR
            ) from error
