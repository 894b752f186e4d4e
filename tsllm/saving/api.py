"""Fitted forecasters on disk: safetensors, JSON, Parquet and a card; never pickle.

A model is a directory with `model.safetensors` (trained tensors, not the frozen backbone's),
`config.json`, `context.parquet` (the last context of each series, or the history of each event
sequence) and `card.md`. The whole directory appears in one step. The `to_state` of a class returns
what is saved of it.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
import platform
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import safetensors.torch
import torch
from sklearn.utils.validation import check_is_fitted

from tsllm.arguments import check_arguments
from tsllm.backbone import resolve_device
from tsllm.backbone.loading import restricted_backbones
from tsllm.backbone.specs import absolute_spec
from tsllm.errors import BackboneNotFoundError, DataError, ModelFormatError
from tsllm.saving.cards import MACHINE_PARAMETERS, model_card
from tsllm.saving.damage import readable
from tsllm.saving.directory import (
    CARD,
    CONFIG,
    CONTEXT,
    FORMAT,
    LARGEST_CONFIG,
    TENSORS,
    check_target,
    find_model,
    full_path,
    read_file,
    write_files,
)
from tsllm.saving.typed_json import Blobs, from_json, parse_json, to_json
from tsllm.training.memory import memory_of

if TYPE_CHECKING:
    from tsllm.events.base import EventForecaster
    from tsllm.forecasters.base import SeriesForecaster

FORMAT_VERSION = 1

# Loading builds no other class and imports no other module, whatever a file holds.
_SERIES = {
    "AarenForecaster": "tsllm.forecasters.aaren",
    "AutoForecaster": "tsllm.forecasters.auto",
    "AutoTimesForecaster": "tsllm.forecasters.autotimes",
    "ColdStart": "tsllm.forecasters.cold_start",
    "DLinearForecaster": "tsllm.forecasters.baselines",
    "LinearForecaster": "tsllm.forecasters.linear",
    "PatchTSTForecaster": "tsllm.forecasters.baselines",
    "S2IPForecaster": "tsllm.forecasters.s2ip",
    "TextContext": "tsllm.forecasters.text_context",
    "TimeCMAForecaster": "tsllm.forecasters.timecma",
    "ZeroShotForecaster": "tsllm.forecasters.zero_shot",
}
_EVENTS = {
    "HawkesForecaster": "tsllm.events.hawkes",
    "NaiveEventForecaster": "tsllm.events.naive",
    "PromptTPP": "tsllm.events.prompttpp.estimator",
    "ZeroShotEventForecaster": "tsllm.events.zero_shot",
}
_STREAMS = {
    "EventStream": "tsllm.events.stream",
    "SeriesStream": "tsllm.forecasters.series_stream",
}
_FORECASTERS = _SERIES | _EVENTS
_ESTIMATORS = dict(sorted((_FORECASTERS | _STREAMS).items()))
# Constant columns take almost no space in Parquet; 5,000,000 steps of four columns always pass.
_VALUES_PER_BYTE, _LEAST_VALUES = 100, 2 * 10**7
_PACKAGES = ("tsllm", "torch", "transformers", "numpy", "pandas", "sktime")


def save(
    estimator: SeriesForecaster | EventForecaster,
    directory: str | os.PathLike[str],
    *,
    include_context: bool = True,
    overwrite: bool = False,
) -> Path:
    """Save a fitted or pretrained forecaster, or a stream of one, to a directory.

    The directory appears whole or not at all, and a save that is killed leaves a model that was
    there before loadable. One process at a time may save to a directory.

    Parameters
    ----------
    estimator : forecaster, SeriesStream or EventStream
        One of tsllm's, fitted or pretrained; of series or of events. Not saved: the frozen backbone
        (it is found again when the model is loaded), ``embedding_store`` and ``checkpoint_dir``
        (None after loading), sktime's ``set_config`` settings, and the labels of a DataFrame given
        as ``in_context`` (an array after loading).
    directory : path
        Made where it is missing. An existing one must be empty, or see ``overwrite``.
    include_context : bool, default=True
        Whether to write the last values of each series, or the last events of each sequence.
        Without them the loaded model can predict only after an `update` with the recent past;
        `forecast` needs only its contexts, and event forecasters accept a ``history``.
    overwrite : bool, default=False
        Replace the model that the directory holds. Nothing but a model is ever replaced.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    DataError
        The directory holds something else, or a parameter, series id or column has no exact form
        in a file, such as a ``random_state`` that is no whole number.
    NotFittedError
        The forecaster is neither fitted nor pretrained.

    See Also
    --------
    load : Load the forecaster again.

    Examples
    --------
    >>> import tempfile, tsllm
    >>> from sktime.datasets import load_airline
    >>> forecaster = tsllm.AutoTimesForecaster(
    ...     "random:gpt2?hidden=16&layers=1&heads=2", max_steps=2, random_state=0
    ... ).fit(load_airline(), fh=[1, 2])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = tsllm.save(forecaster, f"{folder}/airline")
    ...     files = sorted(file.name for file in path.iterdir())
    ...     same = tsllm.load(path).predict().equals(forecaster.predict())
    >>> files
    ['card.md', 'config.json', 'context.parquet', 'model.safetensors']
    >>> same
    True
    """
    cls = type(estimator)
    if _ESTIMATORS.get(cls.__name__) != cls.__module__:
        raise DataError(
            f"a {cls.__name__} cannot be saved: save one of {', '.join(_ESTIMATORS)}; for "
            "a pipeline around one use sktime's own save"
        )
    if cls.__name__ in _EVENTS:
        check_is_fitted(estimator)
    elif cls.__name__ in _SERIES and estimator.state == "new":
        estimator.check_is_fitted()
    target = check_target(directory, overwrite=overwrite)
    write_files(_contents(estimator, include_context), target)
    return target


def load(
    directory: str | os.PathLike[str],
    *,
    device: str | None = None,
    backbone: str | None = None,
    text_backbone: str | None = None,
    allow_download: bool = False,
) -> SeriesForecaster | EventForecaster:
    """Load a forecaster that `save` wrote.

    A model from a stranger can be loaded: nothing in the files is executed or imported, nothing is
    downloaded unless ``allow_download``, and sizes are checked before memory is allocated.

    Parameters
    ----------
    directory : path
        As given to `save`.
    device : str or None, default=None
        The device to run on instead of the one of fitting: "auto", "cpu" or "cuda". A forecaster
        without a ``device`` runs on the CPU.
    backbone : str or None, default=None
        The place of the backbone now, if that has changed: a directory or a Hugging Face id. It
        must hold the same weights.
    text_backbone : str or None, default=None
        Likewise, the place of the language model that reads the texts of X.
    allow_download : bool, default=False
        Whether a backbone may be downloaded where this machine does not have it. The environment
        variable ``TSLLM_ALLOW_DOWNLOAD=1`` allows it too.

    Returns
    -------
    forecaster or stream
        In the state in which it was saved.

    Raises
    ------
    ModelFormatError
        There is no model, or it is damaged, of an unknown class, or of a newer format.
    BackboneMismatchError
        The backbone found has other weights than the one the model was trained with.
    BackboneNotFoundError
        No place holds the backbone.

    See Also
    --------
    save : Save a forecaster.

    Examples
    --------
    >>> import tempfile, tsllm
    >>> from sktime.datasets import load_airline
    >>> forecaster = tsllm.DLinearForecaster(max_steps=2).fit(load_airline(), fh=[1, 2])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     loaded = tsllm.load(tsllm.save(forecaster, f"{folder}/airline"), device="cpu")
    >>> loaded.predict().equals(forecaster.predict())
    True
    """
    folder = find_model(directory)
    config = _read_config(folder)
    with readable():
        files = config["files"]
        tensors = _read(folder, TENSORS, files[TENSORS])
        blobs = Blobs(safetensors.torch.load(tensors))
        if CONTEXT in files:
            blobs.table = _read_table(_read(folder, CONTEXT, files[CONTEXT]))
        parameters = from_json(config["parameters"], blobs)
        state = from_json(config["state"], blobs)
        cls = getattr(import_module(_ESTIMATORS[config["class"]]), config["class"])
        _check_parameters(cls, parameters)
        inner = {
            name: _read_inner(written, blobs, device=device, backbone=backbone)
            for name, written in config.get("forecasters", {}).items()
        }
        if device is not None and "device" in inspect.signature(cls).parameters:
            parameters["device"] = device
        if backbone is not None:
            if state["backbone"] is None:
                raise DataError(
                    f"backbone={backbone!r} was given and the saved model uses none: leave it out"
                )
            if "backbone" in inspect.signature(cls).parameters:
                parameters["backbone"] = backbone
        if text_backbone is not None:
            if not reads_texts(parameters):
                raise DataError(
                    f"text_backbone={text_backbone!r} was given and the saved model reads no texts "
                    "of X: leave it out"
                )
            parameters["text_backbone"] = text_backbone
        if "device" in parameters:
            resolve_device(parameters["device"])
        any_size = backbone is not None  # the caller names it, not the file
        try:
            with restricted_backbones(allow_download=allow_download, any_size=any_size):
                return cls.from_state(state, parameters | inner)
        except BackboneNotFoundError as error:
            raise _elsewhere(error, parameters, inner) from error


def reads_texts(parameters: Mapping[str, Any]) -> bool:
    """Return True where parameters, also those of a forecaster among them, name texts of X.

    Examples
    --------
    >>> reads_texts({"forecaster__static_text": "about"}), reads_texts({"static_text": None})
    (True, False)
    """
    names = ("text_covariates", "static_text")
    return any(
        bool(value) for name, value in parameters.items() if name.rpartition("__")[2] in names
    )


def _elsewhere(
    error: BackboneNotFoundError, parameters: Mapping[str, Any], inner: Mapping[str, Any]
) -> BackboneNotFoundError:
    """Add to an error which argument of `load` names the place of the weights now."""
    texts = any(map(reads_texts, [parameters, *(one.get_params() for one in inner.values())]))
    also = " (text_backbone=... for the one that reads texts)" if texts else ""
    return BackboneNotFoundError(
        f"{error} The saved model needs it: if its files lie elsewhere now, pass their directory "
        f"as backbone=...{also} to tsllm.load, or as --backbone on the command line."
    )


def load_forecaster(
    directory: str | os.PathLike[str],
    *,
    device: str | None = None,
    backbone: str | None = None,
    text_backbone: str | None = None,
    allow_download: bool = False,
) -> SeriesForecaster:
    """Load a forecaster of series, and nothing else; otherwise as `load`."""
    name = _read_config(find_model(directory))["class"]
    if name not in _SERIES:
        remedy = "which forecasts events: use 'tsllm events predict', or tsllm.load and its predict"
        if name in _STREAMS:
            remedy = "which 'tsllm stream' and tsllm.load open: give the model that it was made of"
        raise DataError(f"{os.fspath(directory)!r} holds a {name}, {remedy}")
    loaded = load(
        directory,
        device=device,
        backbone=backbone,
        text_backbone=text_backbone,
        allow_download=allow_download,
    )
    return cast("SeriesForecaster", loaded)


def fingerprint(directory: str | os.PathLike[str]) -> str:
    """Return the checksum of a saved model, over its parameters, weights and contexts."""
    checksum: str = _read_config(full_path(directory))["checksum"]
    return checksum


# ---------------------------------------------------------------------- the contents of the files


def _contents(
    estimator: SeriesForecaster | EventForecaster, include_context: bool
) -> dict[str, bytes]:
    """Write a model's files in memory."""
    blobs = Blobs()
    raw = estimator.to_state(include_context=include_context)
    used = raw["backbone"]["spec"] if raw["backbone"] is not None else None
    plain, inner = _without_forecasters(_parameters(estimator, used))
    parameters = to_json(plain, "parameters", blobs)
    forecasters = {
        name: {
            "class": type(one).__name__,
            "parameters": to_json(_parameters(one, used), f"forecasters.{name}", blobs),
        }
        for name, one in inner.items()
    }
    state = to_json(raw, "state", blobs)
    files = {TENSORS: safetensors.torch.save(blobs.tensors)}
    if blobs.table is not None:
        files[CONTEXT] = blobs.table.to_parquet(index=False)
    versions = {package: version(package) for package in _PACKAGES}
    versions["python"] = platform.python_version()
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class": type(estimator).__name__,
        "versions": versions,
        "parameters": parameters,
        "state": state,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    if forecasters:
        config["forecasters"] = forecasters
    config["checksum"] = _checksum(config)
    files[CONFIG] = json.dumps(config, indent=1, allow_nan=False).encode()
    files[CARD] = model_card(estimator, versions, CONTEXT in files).encode()
    return files


def _parameters(
    estimator: SeriesForecaster | EventForecaster, backbone: str | None
) -> dict[str, Any]:
    """Return the constructor's arguments without places on this machine and labels of frames.

    ``backbone`` is the spec of the one in use. Its path is full, and a typed one may not be.
    """
    parameters = estimator.get_params(deep=False)
    for name in MACHINE_PARAMETERS:
        parameters.pop(name, None)
    for name in ("backbone", "text_backbone"):
        if isinstance(parameters.get(name), str):
            parameters[name] = absolute_spec(parameters[name])
    if backbone is not None and isinstance(parameters.get("backbone"), str):
        parameters["backbone"] = backbone
    for name, value in parameters.items():
        if isinstance(value, pd.DataFrame | pd.Series):
            value = parameters[name] = value.to_numpy()
        if isinstance(value, np.ndarray) and value.dtype.kind not in "biuf":
            raise DataError(
                f"{name} cannot be saved: it is an array of {value.dtype}; fit with an array of "
                "numbers"
            )
        if name == "random_state" and not isinstance(value, int | np.integer | None):
            raise DataError(
                f"random_state cannot be saved: it is a {type(value).__name__}, whose state is no "
                "parameter; fit with a whole number as random_state"
            )
    return parameters


def _without_forecasters(
    parameters: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, SeriesForecaster]]:
    """Split the arguments of a constructor into plain ones and forecasters."""
    inner = {name: value for name, value in parameters.items() if hasattr(value, "get_params")}
    for name, value in inner.items():
        cls = type(value)
        if _FORECASTERS.get(cls.__name__) != cls.__module__:
            raise DataError(
                f"{name} cannot be saved: a {cls.__name__} is no forecaster of tsllm and has no "
                "form in a file without pickle; name a statistical one, or use sktime's own save, "
                "which pickles the whole"
            )
    return {name: value for name, value in parameters.items() if name not in inner}, inner


def _read_inner(
    written: Mapping[str, Any], blobs: Blobs, *, device: str | None, backbone: str | None
) -> Any:
    """Build the unfitted forecaster that is an argument of another one."""
    name = written["class"]
    if name not in list(_FORECASTERS):  # a list: the value may have no hash
        raise ModelFormatError(
            f"the saved model is made of a {name!r}, which this tsllm does not know; it knows "
            f"{', '.join(_FORECASTERS)}: load it with the version that saved it"
        )
    cls = getattr(import_module(_FORECASTERS[name]), name)
    parameters = from_json(written["parameters"], blobs)
    _check_parameters(cls, parameters)
    known = inspect.signature(cls).parameters
    given = {"device": device, "backbone": backbone}
    changed = {key: value for key, value in given.items() if value is not None and key in known}
    return cls(**parameters | changed)


def _read_config(folder: Path) -> dict[str, Any]:
    """Read config.json and check everything that can be checked without the other files."""
    try:
        content = read_file(folder / CONFIG, largest=LARGEST_CONFIG)
    except FileNotFoundError as error:
        raise ModelFormatError(
            f"{folder} holds no model, for it has no {CONFIG}: give the directory that tsllm.save "
            "wrote"
        ) from error
    except OSError as error:
        raise ModelFormatError(
            f"{folder / CONFIG} cannot be read ({error.strerror}): copy the model again"
        ) from error
    try:
        config = parse_json(content)
    except ValueError as error:
        raise ModelFormatError(
            f"{folder / CONFIG} is damaged ({error}): restore it, or save the model again"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ModelFormatError(
            f'{folder} holds no tsllm model: its {CONFIG} does not say "format": "{FORMAT}"'
        )
    saved_version = config.get("format_version")
    if isinstance(saved_version, int) and saved_version > FORMAT_VERSION:
        raise ModelFormatError(
            f"the model in {folder} has format version {saved_version} and this tsllm reads up to "
            f"{FORMAT_VERSION}: upgrade it with pip install --upgrade tsllm"
        )
    if config.get("checksum") != _checksum(config):
        raise ModelFormatError(
            f"{folder / CONFIG} is not as it was written: restore it, or save the model again"
        )
    if config.get("class") not in list(_ESTIMATORS):  # a list: the value may have no hash
        raise ModelFormatError(
            f"the model in {folder} is a {config.get('class')!r}, which this tsllm does not know; "
            f"it knows {', '.join(_ESTIMATORS)}: load it with the version that saved it"
        )
    return config


def _checksum(config: Mapping[str, Any]) -> str:
    """Hash everything in config.json but the hash."""
    rest = {key: value for key, value in config.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check_parameters(cls: type, parameters: Any) -> None:
    """Check the constructor's arguments that a file holds."""
    known = inspect.signature(cls).parameters
    for name in parameters:
        if name not in known:
            raise ModelFormatError(
                f"the saved model has the parameter {name!r}, which {cls.__name__} does not "
                "know: load it with the version of tsllm that saved it"
            )
        if name in MACHINE_PARAMETERS:
            raise ModelFormatError(
                f"the saved model names a place on this machine as {name}: tsllm.save writes none; "
                "do not use this model unless you know who made it"
            )
    try:
        check_arguments(cls, list(known), parameters)
    except DataError as error:
        raise ModelFormatError(
            f"the saved model's parameters are no parameters: {error}"
        ) from error


def _read(folder: Path, name: str, facts: Mapping[str, Any]) -> bytes:
    """Read a file and check that it is as it was written."""
    size = facts["bytes"]
    try:
        found = (folder / name).stat().st_size
        if found != size:
            raise ModelFormatError(
                f"{folder / name} has {found} bytes instead of {size}: copy it again"
            )
        content = read_file(folder / name, largest=memory_of(torch.device("cpu")))
    except OSError as error:
        raise ModelFormatError(
            f"the model in {folder} is incomplete: {name} cannot be read ({error.strerror}); copy "
            "the whole directory"
        ) from error
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise ModelFormatError(f"{folder / name} is not as it was written: copy it again")
    return content


def _read_table(content: bytes) -> pd.DataFrame:
    """Read a Parquet file; refuse one whose values take far more memory than the file."""
    file = pq.ParquetFile(io.BytesIO(content))
    values = file.metadata.num_rows * file.metadata.num_columns
    if values > _VALUES_PER_BYTE * len(content) + _LEAST_VALUES:
        raise ModelFormatError(
            f"{CONTEXT} of the saved model claims {values:,} values in {len(content):,} bytes: it "
            "is damaged, or made to fill the memory; restore it, or save the model again"
        )
    return pd.read_parquet(io.BytesIO(content))
