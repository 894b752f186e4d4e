"""The object that MLflow's server calls with each request."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    TEMPORARILY_UNAVAILABLE,
)

from tsllm.backbone import stopping
from tsllm.errors import DataError, StoppedError, TsllmError
from tsllm.mlflow.kinds import ServedKind
from tsllm.mlflow.limits import Limits
from tsllm.mlflow.sentences import for_client

LOG = logging.getLogger(__name__)
_LOOK = 0.2  # seconds between two looks whether a waiting request may go on


class RequestError(MlflowException):
    """The answer to a client whose request failed, in one sentence.

    MLflow's server would put the whole request before the message; this class keeps the sentence.
    """

    def __init__(self, sentence: str, error_code: int) -> None:
        self._sentence = for_client(sentence)
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

    def __init__(
        self, model: Any, kind: ServedKind, limits: Limits, *, seconds: float | None = None
    ) -> None:
        self.model = model
        self.kind = kind
        self.limits = limits
        self.seconds = min(limits.max_seconds, seconds or limits.max_seconds)
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
            The server answers with status 400, or 500 where the request is not at fault; with 504
            where it takes too long, and with 503 where the server is busy or ends.
        """
        too_long = (
            f"the request took longer than {self.seconds:g} seconds and was stopped: ask for fewer "
            "series, steps or quantiles at a time"
        )
        try:
            with stopping.deadline(self.seconds, too_long), self._turn():
                return self.kind.answer(self.model, model_input, params or {}, self.limits)
        except RequestError:
            raise
        except StoppedError as error:
            code = TEMPORARILY_UNAVAILABLE if stopping.ends() else DEADLINE_EXCEEDED
            raise RequestError(str(error), code) from error
        except DataError as error:
            raise RequestError(str(error), INVALID_PARAMETER_VALUE) from error
        except TsllmError as error:
            raise RequestError(str(error), INTERNAL_ERROR) from error
        except Exception as error:
            LOG.exception("a request failed unexpectedly")
            raise RequestError(
                f"unexpected {type(error).__name__}: the server's log says more", INTERNAL_ERROR
            ) from error

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until fewer than ``max_concurrent`` requests are computed."""
        while not self._turns.acquire(timeout=_LOOK):
            if stopping.seconds_left() == 0:
                raise RequestError(
                    f"the server computed other requests for {self.seconds:g} seconds: send the "
                    "request again later",
                    TEMPORARILY_UNAVAILABLE,
                )
            stopping.check_time()
        try:
            yield
        finally:
            self._turns.release()
