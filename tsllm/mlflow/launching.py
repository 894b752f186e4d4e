"""A server of a saved model: MLflow's, with its environment, limits and threads."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.models.utils import load_serving_example

from tsllm.backbone.devices import usable_processors
from tsllm.backbone.specs import absolute_spec
from tsllm.errors import DataError
from tsllm.mlflow.flavor import FLAVOR_NAME, save_model
from tsllm.mlflow.limits import Limits
from tsllm.saving.api import load
from tsllm.saving.directory import CONFIG

#: A name that MLflow looks up, and no path.
_URIS = ("runs:/", "models:/", "file:", "s3:", "gs:", "dbfs:", "wasbs:", "http:", "https:")
#: An archive that claims to hold more than this many times its size is refused.
_MOST_COMPRESSED = 200
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Launch:
    """A server that is ready to be started."""

    #: The command, and the variables that it adds to the environment.
    command: list[str]
    variables: dict[str, str]
    #: The address that a client on this machine asks.
    address: str
    #: The directory of the MLflow model.
    model: Path
    #: The directory in which the server runs. uvicorn imports from there first, so nothing of the
    #: user's may lie in it.
    folder: Path
    workers: int
    threads: int


def prepare_server(
    model: str,
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 5000,
    workers: int = 1,
    threads: int | None = None,
    seconds: int = 60,
    limits: Mapping[str, int] | None = None,
    device: str | None = None,
    backbone: str | None = None,
    allow_download: bool = False,
) -> Launch:
    """Make a server's command and environment.

    The server runs in this environment, where tsllm is installed. Each worker computes as many
    requests at the same time as its processors allow.

    Parameters
    ----------
    model : str
        A directory that `tsllm.save` wrote, a zip archive of one, or an MLflow model: a directory
        or a URI.
    folder : Path
        A temporary directory, which must exist as long as the server runs.
    host : str, default="127.0.0.1"
        The address to listen at; ``"0.0.0.0"`` for all.
    port : int, default=5000
        The port; 0 chooses a free one.
    workers : int, default=1
        Processes; each holds the model.
    threads : int or None, default=None
        Threads of one forecast. None: the processors of a worker, at most 4.
    seconds : int, default=60
        Seconds of a request, after which the server gives up.
    limits : mapping or None, default=None
        Fields of `tsllm.mlflow.limits.Limits`, in place of the saved ones.
    device, backbone : str or None, default=None
    allow_download : bool, default=False
        As for `tsllm.load`.

    Returns
    -------
    Launch

    Raises
    ------
    DataError
        There is no such model, or it is no model of tsllm; the port is taken; a number is wrong.
    """
    for name, value in (("workers", workers), ("threads", threads), ("timeout", seconds)):
        if value is not None and value < 1:
            raise DataError(f"{name} must be a whole number, at least 1, found {value}")
    processors = max(1, usable_processors() // workers)
    used = threads or min(4, processors)
    given = dict(limits or {})
    _check_limits(given)
    given.setdefault("max_concurrent", max(1, processors // used))
    settings: dict[str, Any] = {**given, "allow_download": allow_download}
    settings |= {} if device is None else {"device": device}
    settings |= {} if backbone is None else {"backbone": absolute_spec(backbone)}
    port = _free_port(host, port)
    place = _mlflow_model(model, folder, device, backbone, allow_download)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(place)]
    command += ["--host", host, "--port", str(port), "--workers", str(workers)]
    # MLflow would build a second environment of the model's requirements, in minutes.
    command += ["--env-manager", "local", "--timeout", str(seconds)]
    variables = {
        "OMP_NUM_THREADS": str(used),
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_DISABLE_TELEMETRY": os.environ.get("MLFLOW_DISABLE_TELEMETRY", "true"),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "SERVING_MODEL_CONFIG": json.dumps(settings),
        # MLflow starts uvicorn by its name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    asked = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    address = f"http://{f'[{asked}]' if ':' in asked else asked}:{port}"
    inside = folder / "server"
    inside.mkdir()
    return Launch(command, variables, address, place, inside, workers, used)


class Server:
    """A running server.

    Parameters
    ----------
    launch : Launch
        From `prepare_server`.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.process = subprocess.Popen(
            launch.command,
            env=os.environ | launch.variables,
            cwd=launch.folder,
            stdout=2,  # stdout belongs to the caller, who prints a command on it
            # A group of its own: it ends together, and a Ctrl-C reaches it once, from `stop`.
            start_new_session=True,
        )

    def wait_until_ready(self, seconds: float = 600.0) -> None:
        """Return when the server answers ``/ping``.

        Parameters
        ----------
        seconds : float, default=600.0
            The longest wait.

        Raises
        ------
        DataError
            It has ended, or does not answer in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (code := self.process.poll()) is not None:
                raise DataError(
                    f"the server ended while it started (exit code {code}): its messages above say "
                    "why"
                )
            try:
                with urllib.request.urlopen(f"{self.launch.address}/ping", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise DataError(
            f"the server at {self.launch.address} did not answer within {seconds:.0f} seconds: see "
            "its messages above"
        )

    def find_request(self) -> str | None:
        """Return the JSON of a short request that the server has just answered, None for none.

        It asks for one series that the model stores; for a model without stored series it is the
        model's input example.
        """
        first = _request_columns(self.launch.model)[0]
        everything = {"dataframe_split": {"columns": [first], "data": []}}
        answer = self._ask(everything | {"params": {"horizon": 1, "quantiles": []}})
        candidates: list[Any] = []
        if answer and answer.get("predictions"):
            name = answer["predictions"][0].get(first)
            candidates.append({"dataframe_split": {"columns": [first], "data": [[name]]}})
            candidates.append(everything)
        if example := load_serving_example(str(self.launch.model)):
            candidates.append(json.loads(example))
        for candidate in candidates:
            if self._ask(candidate):
                return json.dumps(candidate)
        return None

    def stop(self, seconds: float = 30.0) -> int:
        """Stop the server, in time for its clients to get an answer.

        Parameters
        ----------
        seconds : float, default=30.0
            How long to wait before the server is killed.

        Returns
        -------
        int
            Its exit code.
        """
        for sign, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, seconds)):
            if self.process.poll() is None:
                os.killpg(self.process.pid, sign)
                try:
                    self.process.wait(wait)
                except subprocess.TimeoutExpired:
                    continue
        return self.process.wait()

    def _ask(self, body: Any) -> dict[str, Any] | None:
        """Post a request, and return the answer to one that succeeds."""
        request = urllib.request.Request(
            f"{self.launch.address}/invocations", data=json.dumps(body).encode(), headers=_JSON
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except OSError:  # also of a server that has just ended
            return None


def curl(launch: Launch, request: str) -> str:
    """Write the command that sends a request.

    Examples
    --------
    >>> launch = Launch([], {}, "http://127.0.0.1:5000", Path("model"), Path("server"), 1, 1)
    >>> print(curl(launch, '{"inputs": []}'))
    curl http://127.0.0.1:5000/invocations -H 'Content-Type: application/json' -d '{"inputs": []}'
    """
    header = shlex.quote("Content-Type: application/json")
    return f"curl {launch.address}/invocations -H {header} -d {shlex.quote(request)}"


def _check_limits(given: Mapping[str, Any]) -> None:
    """Check the names and values of limits."""
    known = list(Limits.__dataclass_fields__)
    for name in given:
        if name not in known:
            raise DataError(f"there is no limit {name!r}: use {', '.join(known)}")
    Limits(**given)


def _free_port(host: str, port: int) -> int:
    """Check that a port is free; 0 chooses one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise DataError(
                f"the server cannot listen at {host}:{port} ({error}): choose another --port "
                "(0 for a free one) or --host"
            ) from error
        return int(probe.getsockname()[1])


def _mlflow_model(
    model: str, folder: Path, device: str | None, backbone: str | None, allow_download: bool
) -> Path:
    """Return the directory of an MLflow model, made here of a model that `tsllm.save` wrote."""
    place = Path(model).expanduser()
    if not place.exists():
        if not model.startswith(_URIS):
            raise DataError(
                f"{model!r} does not exist: give a directory that tsllm.save or 'tsllm fit' wrote, "
                "a zip archive of one, or an MLflow model such as models:/demand/1"
            )
        try:
            place = Path(download_artifacts(model, dst_path=str(folder)))
        except (MlflowException, OSError) as error:
            first = str(error).strip().partition("\n")[0]
            raise DataError(f"MLflow does not find {model!r}: {first}") from error
    elif place.is_file():
        place = _unpack(place, folder / "archive")
    if (place / MLMODEL_FILE_NAME).is_file():
        _request_columns(place)  # refuses those of others
        return place.resolve()
    if not (place / CONFIG).is_file():
        raise DataError(
            f"{model!r} holds no model: give a directory that tsllm.save or 'tsllm fit' wrote, or "
            "an MLflow model"
        )
    target = folder / "model"
    forecaster = load(place, device=device, backbone=backbone, allow_download=allow_download)
    save_model(forecaster, str(target))
    return target


def _unpack(archive: Path, target: Path) -> Path:
    """Unpack a model's zip archive, and return the directory with the model."""
    if not zipfile.is_zipfile(archive):
        raise DataError(
            f"{str(archive)!r} is a file and no zip archive: give the directory of a model"
        )
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        if {"_metadata", "_obj"} <= set(names):
            raise DataError(
                f"{str(archive)!r} was written by sktime's own save and holds pickles, which a "
                "server does not run: load it with sktime, and save it with tsllm.save"
            )
        size = sum(entry.file_size for entry in packed.infolist())
        if size > _MOST_COMPRESSED * archive.stat().st_size:
            raise DataError(
                f"{str(archive)!r} would unpack to {size:,} bytes: it is damaged, or made to fill "
                "the disk"
            )
        packed.extractall(target)
    for place in (target, *(path for path in target.iterdir() if path.is_dir())):
        if (place / MLMODEL_FILE_NAME).is_file() or (place / CONFIG).is_file():
            return place
    raise DataError(f"{str(archive)!r} holds no model: zip a directory that tsllm.save wrote")


def _request_columns(place: Path) -> list[str]:
    """Return the columns of requests of an MLflow model, and raise for one not of tsllm."""
    try:
        written = yaml.safe_load((place / MLMODEL_FILE_NAME).read_text(encoding="utf-8"))
        flavors = list(written["flavors"])
        if FLAVOR_NAME in flavors:
            return [column["name"] for column in json.loads(written["signature"]["inputs"])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise DataError(
            f"the MLflow model {str(place)!r} is damaged ({type(error).__name__} in "
            f"{MLMODEL_FILE_NAME}): save it again with tsllm.mlflow.save_model"
        ) from error
    raise DataError(
        f"the MLflow model {str(place)!r} is of {', '.join(map(str, flavors))} and not of tsllm: "
        "serve it with 'mlflow models serve'"
    )
