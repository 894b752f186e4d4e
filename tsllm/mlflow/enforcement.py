"""The functions of MLflow that stand between a request and our models, replaced by ours.

MLflow has no hook before the model. Its own functions read the name 007 in CSV as the number 7,
leave unknown parameters out, put the whole request or a stack trace into an error, and write NaN,
which is no JSON. Decision 27 says what is replaced and why. Models of other flavors keep MLflow's
functions.
"""

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server
from mlflow.types.schema import AnyType, Schema

from tsllm.arguments import shown
from tsllm.backbone.stopping import end_when
from tsllm.datasets.strict_json import parse_json
from tsllm.errors import DataError
from tsllm.mlflow.csv_requests import read_csv
from tsllm.mlflow.serving import LOG, RequestError, unexpected

_MODULE = "tsllm.mlflow"
#: The environment variables that MLflow sets in its server, and in ``mlflow models predict``.
_OF_SERVER, _OF_COMMAND = "__pyfunc_model_path__", "_MLFLOW_IS_IN_SERVING_ENVIRONMENT"
#: MLflow's server gives up after its own time limit; ours must end before.
_SHARE_OF_TIMEOUT = 5 / 6
_JSON, _CSV, _PARQUET = (
    scoring_server.CONTENT_TYPE_JSON,
    scoring_server.CONTENT_TYPE_CSV,
    scoring_server.CONTENT_TYPE_PARQUET,
)
_TABLES = scoring_server.SUPPORTED_FORMATS


def seconds_of_server() -> float | None:
    """Return the seconds that a request may take in MLflow's server; None: this is no server."""
    if not _is_serving():
        return None
    return float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get()) * _SHARE_OF_TIMEOUT


def prepare_requests() -> None:
    """Replace MLflow's functions; called when a model is loaded, and effective once.

    In every process our models get their requests as they are. A process of MLflow's server or of
    ``mlflow models predict`` serves one model. There MLflow's reading of CSV, its errors and its
    JSON are replaced too, and a request to end the process stops the forecasts.
    """
    # sys.modules, because the attribute mlflow.pyfunc may be a module that is loaded lazily
    _replace(sys.modules[PyFuncModel.__module__], "_validate_prediction_input", _hand_over)
    if not _is_serving():
        return
    _replace(scoring_server, "parse_csv_input", _read_csv)
    _replace(scoring_server, "invocations", _answer)
    _replace(scoring_server, "predictions_to_json", _write_json)
    end_when(_server_ends)


def _is_serving() -> bool:
    """Return whether this process is MLflow's server, or ``mlflow models predict``."""
    return _OF_SERVER in os.environ or os.environ.get(_OF_COMMAND, "false").lower() == "true"


def _replace(module: Any, name: str, ours: Callable[..., Any]) -> None:
    """Replace a function of MLflow by ours, which gets MLflow's as its first argument."""
    theirs = getattr(module, name, None)
    if theirs is None:
        LOG.warning("this version of MLflow has no %s: it reads requests in its own way", name)
    elif getattr(theirs, "func", None) is not ours:
        setattr(module, name, functools.partial(ours, theirs))


def _hand_over(
    theirs: Callable[..., Any],
    data: Any,
    params: Any,
    input_schema: Schema | None,
    params_schema: Any,
    flavor: str | None = None,
) -> tuple[Any, Any]:
    """Hand a request to our model as it is, in place of MLflow's enforcement of the schema."""
    if flavor != _MODULE:
        return theirs(data, params, input_schema, params_schema, flavor)
    if params is not None and not isinstance(params, dict):
        raise RequestError(
            f"params must be an object with horizon and quantiles, found {type(params).__name__}",
        )
    if input_schema is not None and not _is_ours(input_schema):  # the user's own signature
        try:
            data, _ = theirs(data, None, input_schema, None, flavor)
        except MlflowException as error:
            raise RequestError(error.message) from error
    return _as_table(data), params


def _is_ours(schema: Schema) -> bool:
    """Return whether a schema is that of our models, which takes every type."""
    return all(isinstance(column.type, AnyType) for column in schema.inputs)


def _as_table(data: Any) -> pd.DataFrame:
    """Return a table, or the lists that MLflow takes for one, as a table."""
    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, np.ndarray) or not isinstance(data, dict | list):
        raise RequestError(
            f"the request is a {type(data).__name__} and must be a table: send dataframe_split or "
            "dataframe_records",
        )
    try:
        return pd.DataFrame(data)
    except (ValueError, TypeError, AttributeError) as error:
        raise RequestError(
            f"the request is no table ({error}): send dataframe_split or dataframe_records",
        ) from error


def _read_csv(theirs: Callable[..., Any], csv_input: Any, schema: Any = None) -> pd.DataFrame:
    """Read CSV as text, in place of MLflow's guesses."""
    try:
        return read_csv(csv_input)
    except (DataError, UnicodeDecodeError, OSError) as error:
        raise RequestError(str(error)) from error


def _answer(
    theirs: Callable[..., Any], data: Any, content_type: Any, model: Any, input_schema: Any
) -> Any:
    """Answer a request over HTTP; every error is one sentence."""
    if model.loader_module != _MODULE:
        return theirs(data, content_type, model, input_schema)
    if not content_type:
        raise RequestError(
            f"the request has no Content-Type: send {_JSON}, {_CSV} or {_PARQUET}",
        )
    kind = str(content_type).partition(";")[0].strip()
    if kind in (_JSON, _CSV):
        data = _read_text(data)
    if kind == _JSON:
        data = _read_json(data)
    try:
        return theirs(data, content_type, model, input_schema)
    except RequestError:
        raise
    except MlflowException as error:  # MLflow's own reading of the table
        raise RequestError(_short(error)) from error
    except Exception as error:
        raise unexpected(error) from error


def _read_text(data: bytes | str) -> str:
    """Decode the body of a request."""
    try:
        return data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise RequestError(
            f"the request is not UTF-8 (byte {error.start}): send text in that encoding",
        ) from None  # the error holds the whole request


def _read_json(text: str) -> dict[str, Any]:
    """Read the body of a request: one table, and the parameters."""
    try:
        data = parse_json(text, "the request")
    except DataError as error:
        raise RequestError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"the request is no JSON: {getattr(error, 'msg', None) or _short(error)}",
        ) from None  # the error holds the whole request
    if not isinstance(data, dict):
        raise RequestError(
            f"the request is a JSON {type(data).__name__}: send an object with dataframe_split or "
            "dataframe_records",
        )
    unknown = [key for key in data if key not in (*_TABLES, scoring_server.SERVING_PARAMS_KEY)]
    if unknown or len(data.keys() & _TABLES) != 1:
        found = f", and not {shown(unknown[0])}" if unknown else ""
        raise RequestError(
            "the request must hold one table, as dataframe_split, dataframe_records, inputs or "
            f"instances, and may hold params{found}",
        )
    return data


def _short(error: Exception) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _write_json(
    theirs: Callable[..., Any], raw_predictions: Any, output: Any, metadata: Any = None
) -> Any:
    """Write an answer as JSON; missing values are null."""
    if not isinstance(raw_predictions, pd.DataFrame):
        return theirs(raw_predictions, output, metadata)
    plain = raw_predictions.apply(_plain_cells).to_dict(orient="records")
    # MLflow writes piece by piece, which takes ten times as long.
    answer = {"predictions": plain, **(metadata or {})}
    return output.write(json.dumps(answer, allow_nan=False, cls=scoring_server.NumpyEncoder))


def _plain_cells(column: pd.Series) -> pd.Series:
    """Convert a column to what JSON has: texts for stamps, and null for what is missing."""
    if column.dtype.kind == "M" or isinstance(column.dtype, pd.DatetimeTZDtype):
        stamps = [None if pd.isna(stamp) else stamp.isoformat() for stamp in column]
        return pd.Series(stamps, index=column.index, dtype=object)
    known = column.notna()
    if not known.all():
        return column.astype(object).where(known, None)
    return column


def _server_ends() -> bool:
    """Return whether uvicorn, MLflow's server, is asked to end.

    It then waits for the requests that are computed. Its handler of SIGTERM is a method of the
    server object.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
