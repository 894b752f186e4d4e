"""The object that MLflow's server calls with each request."""

import logging
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
from tsllm.backbone.devices import usable_processors
from tsllm.errors import DataError, StoppedError, TsllmError
from tsllm.mlflow.kinds import ServedKind
from tsllm.mlflow.limits import Limits
from tsllm.mlflow.sentences import for_client

LOG = logging.getLogger(__name__)
_LOOK = 0.2  # seconds after which a waiting request checks again whether it may go on


class RequestError(MlflowException):
    """The answer to a client whose request failed, in one sentence.

    MLflow's server would put the whole request before the message; this class keeps the sentence.

    Parameters
    ----------
    sentence : str
        As the library has it; it is changed for a client, see `for_client`.
    error_code : int, default=INVALID_PARAMETER_VALUE
        MLflow's code, which determines the status of the answer: 400 by default.
    """

    def __init__(self, sentence: str, error_code: int = INVALID_PARAMETER_VALUE) -> None:
        self._sentence = for_client(sentence)
        super().__init__(self._sentence, error_code=error_code)

    @property
    def message(self) -> str:
        """Return the sentence."""
        return self._sentence

    @message.setter
    def message(self, value: str) -> None:
        pass


def unexpected(error: Exception) -> RequestError:
    """Log an error of the server, and return the answer to the client: its class alone."""
    LOG.error("a request failed unexpectedly", exc_info=error)
    return RequestError(
        f"unexpected {type(error).__name__}: the server's log says more", INTERNAL_ERROR
    )


class ServedModel:
    """A model behind MLflow's ``pyfunc`` interface; safe to call from many threads."""

    def __init__(
        self, model: Any, kind: ServedKind, limits: Limits, *, seconds: float | None = None
    ) -> None:
        self.model = model
        self.kind = kind
        self.limits = limits
        self.seconds = min(limits.max_seconds, seconds or limits.max_seconds)
        at_once = limits.max_concurrent or max(1, usable_processors() // torch.get_num_threads())
        self._turns = threading.BoundedSemaphore(at_once)

    def get_raw_model(self) -> Any:
        """Return the forecaster."""
        return self.model

    def predict(
        self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Predict what a request asks for.

        See `tsllm.mlflow.series` and `tsllm.mlflow.events` for the request; ``params`` may hold
        ``horizon``, ``quantiles`` and ``on_error``.

        Raises
        ------
        RequestError
            The server answers with status 400; with 500 where the request is not at fault, with
            504 where it takes too long, and with 503 where the server is busy or ends.
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
            raise RequestError(str(error)) from error
        except TsllmError as error:
            raise RequestError(str(error), INTERNAL_ERROR) from error
        except Exception as error:
            raise unexpected(error) from error

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
