"""Saving, logging and loading of models in MLflow's format, after MLflow's own flavors."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME, ModelInfo
from mlflow.models.utils import _save_example
from mlflow.tracking.artifact_utils import _download_artifact_from_uri
from mlflow.utils.environment import (
    _CONDA_ENV_FILE_NAME,
    _CONSTRAINTS_FILE_NAME,
    _PYTHON_ENV_FILE_NAME,
    _REQUIREMENTS_FILE_NAME,
    _mlflow_conda_env,
    _process_conda_env,
    _process_pip_requirements,
    _PythonEnv,
    _validate_env_arguments,
)
from mlflow.utils.file_utils import get_total_file_size, write_to
from mlflow.utils.model_utils import (
    _add_code_from_conf_to_system_path,
    _get_flavor_configuration,
    _validate_and_copy_code_paths,
    _validate_and_prepare_target_save_path,
)

import tsllm
from tsllm.arguments import checked_flag
from tsllm.backbone import Backbone
from tsllm.backbone.export import export_backbone
from tsllm.backbone.packaged import DEFAULT_BACKBONE, MINILM_PACKAGE
from tsllm.errors import DataError, ModelFormatError
from tsllm.mlflow.enforcement import prepare_requests, seconds_of_server
from tsllm.mlflow.limits import Limits
from tsllm.mlflow.registry import kind_named, kind_of
from tsllm.mlflow.serving import ServedModel
from tsllm.saving.api import reads_texts

FLAVOR_NAME = "tsllm"
_DATA, _MODEL, _BACKBONE, _KIND = "data", "model", "backbone", "kind.yaml"
_REQUIREMENTS = (
    "torch",
    "transformers",
    "peft",
    "safetensors",
    "numpy",
    "pandas",
    "pyarrow",
    "sktime",
)


def save_model(
    model: Any,
    path: str,
    *,
    include_backbone: bool = False,
    include_context: bool = True,
    limits: Limits | None = None,
    signature: ModelSignature | None = None,
    input_example: pd.DataFrame | None = None,
    conda_env: Any = None,
    code_paths: list[str] | None = None,
    mlflow_model: Model | None = None,
    pip_requirements: Any = None,
    extra_pip_requirements: Any = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Save a model in MLflow's format.

    Parameters
    ----------
    model : forecaster
        Fitted, and of one of tsllm's classes. No pickle is written.
    path : str
        A directory that does not exist or is empty.
    include_backbone : bool, default=False
        Whether the language model's weights are included. Without them the model is small; the
        language model is found again when the model is loaded, and checked by its digest.
    include_context : bool, default=True
        Whether the last values of each series are included; without them every request must hold
        its history.
    limits : Limits or None, default=None
        The limits of one request.
    signature : ModelSignature or None, default=None
        None: the kind's own, which accepts every type, so that tsllm's own sentences name what is
        wrong.
    input_example : DataFrame or None, default=None
        None: a small one is built.
    conda_env, pip_requirements, extra_pip_requirements : default=None
    code_paths, mlflow_model, metadata : default=None
        As for MLflow's own flavors.

    Raises
    ------
    DataError
        It is no model of tsllm, or has no language model to include.
    NotFittedError
        It is not fitted.

    See Also
    --------
    log_model : Save a model in a run.
    load_model : Load the forecaster again.

    Examples
    --------
    >>> import tempfile, tsllm.mlflow, mlflow.pyfunc
    >>> from sktime.datasets import load_airline
    >>> forecaster = tsllm.DLinearForecaster(max_steps=2, context_length=24)
    >>> forecaster = forecaster.fit(load_airline().to_timestamp(), fh=[1, 2])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tsllm.mlflow.save_model(forecaster, f"{folder}/model")
    ...     served = mlflow.pyfunc.load_model(f"{folder}/model")
    >>> request = forecaster.to_payload(2)["dataframe_split"]
    >>> request = pd.DataFrame(request["data"], columns=request["columns"])
    >>> served.predict(request, params={"horizon": 3, "quantiles": [0.5]}).shape
    (3, 4)
    """
    kind = kind_of(model)
    kind.check_fitted(model)
    backbone = kind.backbone(model)
    if include_backbone and backbone is None:
        raise DataError("include_backbone=True and the model uses no language model: leave it out")
    _validate_env_arguments(conda_env, pip_requirements, extra_pip_requirements)
    target = Path(path).absolute()
    _validate_and_prepare_target_save_path(str(target))
    code = _validate_and_copy_code_paths(code_paths, str(target))

    data = target / _DATA
    data.mkdir()
    kind.save(model, data / _MODEL, include_context=include_context)
    write_to(str(data / _KIND), yaml.safe_dump({"kind": kind.name}))
    if include_backbone:
        assert backbone is not None  # checked above
        export_backbone(backbone, data / _BACKBONE)

    described = mlflow_model if mlflow_model is not None else Model()
    described.signature = kind.signature(model) if signature is None else signature
    example = kind.input_example(model) if input_example is None else input_example
    _save_example(described, example, str(target))
    if metadata is not None:
        described.metadata = metadata
    chosen = limits or Limits()
    pyfunc.add_to_model(
        described,
        loader_module="tsllm.mlflow",
        data=_DATA,
        conda_env=_CONDA_ENV_FILE_NAME,
        python_env=_PYTHON_ENV_FILE_NAME,
        code=code,
        # Every entry has a value, because MLflow leaves an empty configuration out.
        model_config={"device": "auto", "allow_download": False, **asdict(chosen)},
    )
    described.add_flavor(
        FLAVOR_NAME,
        tsllm_version=tsllm.__version__,
        data=_DATA,
        code=code,
        kind=kind.name,
        model_class=type(model).__name__,
        backbone=None if backbone is None else backbone.spec,
        backbone_digest=None if backbone is None else backbone.digest,
        backbone_quantisation=None if backbone is None else backbone.quantisation,
        includes_backbone=include_backbone,
    )
    if size := get_total_file_size(str(target)):
        described.model_size_bytes = size
    described.save(str(target / MLMODEL_FILE_NAME))
    requirements = _requirements_of(model, backbone, included=include_backbone)
    _write_environment(target, requirements, conda_env, pip_requirements, extra_pip_requirements)


def log_model(
    model: Any,
    name: str = "model",
    *,
    registered_model_name: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    step: int = 0,
    **how: Any,
) -> ModelInfo:
    """Log a model as an artefact of the active run, or of a new one.

    Parameters
    ----------
    model : forecaster
        Fitted.
    name : str, default="model"
        The model's name in the run.
    registered_model_name : str or None, default=None
        The name to register it under.
    params, tags : mapping or None, default=None
        Parameters and tags of the logged model.
    step : int, default=0
        The step of the logged model.
    **how
        As for `save_model`.

    Returns
    -------
    ModelInfo
        Pass its ``model_uri`` to `load_model` or ``mlflow.pyfunc.load_model``.
    """
    return Model.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules["tsllm.mlflow"],
        model=model,
        registered_model_name=registered_model_name,
        params=None if params is None else dict(params),
        tags=None if tags is None else dict(tags),
        step=step,
        **how,
    )


def load_model(
    model_uri: str,
    *,
    dst_path: str | None = None,
    device: str | None = None,
    backbone: str | None = None,
    allow_download: bool = False,
) -> Any:
    """Load a forecaster that `save_model` or `log_model` wrote.

    Parameters
    ----------
    model_uri : str
        A path, ``runs:/<run id>/model``, ``models:/<name>/<version>`` or
        ``models:/<name>@<alias>``.
    dst_path : str or None, default=None
        The directory to download to.
    device, backbone : str or None, default=None
    allow_download : bool, default=False
        As for `tsllm.load`.

    Returns
    -------
    forecaster

    Raises
    ------
    ModelFormatError
        It is damaged, or was not written by this flavor.
    """
    folder = _download_artifact_from_uri(artifact_uri=model_uri, output_path=dst_path)
    configuration = _get_flavor_configuration(model_path=folder, flavor_name=FLAVOR_NAME)
    _add_code_from_conf_to_system_path(folder, configuration)
    return _load(Path(folder) / _DATA, device, backbone, allow_download)[0]


def get_default_pip_requirements() -> list[str]:
    """List the packages that a saved model needs, in the versions installed here.

    tsllm itself comes from where it was installed: the package index, a repository at its commit,
    or a file or directory of this machine.
    """
    pins = [f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS]
    return [_own_requirement(), *pins]


def _own_requirement() -> str:
    """Return the requirement that installs this tsllm; see PEP 610."""
    origin = distribution("tsllm").read_text("direct_url.json")
    if origin is None:
        return f"tsllm=={tsllm.__version__}"
    written = json.loads(origin)
    place = written["url"]
    if "vcs_info" in written:
        place = f"{written['vcs_info']['vcs']}+{place}@{written['vcs_info']['commit_id']}"
    if written.get("subdirectory"):
        place += f"#subdirectory={written['subdirectory']}"
    return f"tsllm @ {place}"


def _requirements_of(model: Any, backbone: Backbone | None, *, included: bool) -> list[str]:
    """List the packages that a model needs, that of its language model's weights among them."""
    parameters = model.get_params(deep=True)
    used = [] if backbone is None or included else [backbone.spec]
    if reads_texts(parameters):
        used += [
            value
            for name, value in parameters.items()
            if name.rpartition("__")[2] == "text_backbone"
        ]
    packages = get_default_pip_requirements()
    # SmolLM2 is not among them: its package needs a compiler, and its weights lie in a cache.
    if DEFAULT_BACKBONE in used and find_spec(MINILM_PACKAGE.module) is not None:
        packages.append(f"{MINILM_PACKAGE.name}=={MINILM_PACKAGE.version}")
    return packages


def get_default_conda_env() -> dict[str, Any]:
    """Return the conda environment that a saved model needs."""
    environment: dict[str, Any] = _mlflow_conda_env(
        additional_pip_deps=get_default_pip_requirements()
    )
    return environment


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> ServedModel:
    """Load a model for serving; MLflow calls this by its name.

    ``model_config`` may hold ``device``, ``backbone``, ``allow_download`` and the fields of
    `Limits`. A server reads it from the environment variable ``SERVING_MODEL_CONFIG``.
    """
    asked = dict(model_config or {})
    device, backbone = asked.pop("device", None), asked.pop("backbone", None)
    allow_download = checked_flag("allow_download", asked.pop("allow_download", False))
    known = [field.name for field in fields(Limits)]
    unknown = sorted(asked.keys() - set(known))
    if unknown:
        raise DataError(
            f"the model's configuration has no {unknown[0]!r}: it takes device, backbone, "
            f"allow_download, {', '.join(known)}"
        )
    device = None if device == "auto" else device
    model, kind = _load(Path(path), device, backbone, allow_download)
    limits = Limits(**asked)
    prepare_requests()
    return ServedModel(model, kind, limits, seconds=seconds_of_server())


def _load(
    data: Path, device: str | None, backbone: str | None, allow_download: bool
) -> tuple[Any, Any]:
    """Load a model and its kind."""
    try:
        written = yaml.safe_load((data / _KIND).read_text(encoding="utf-8"))
        name = written["kind"]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ModelFormatError(
            f"{data} holds no model of tsllm ({type(error).__name__} while reading {_KIND}): save "
            "it again with tsllm.mlflow.save_model"
        ) from error
    kind = kind_named(name)
    if backbone is None and (data / _BACKBONE).is_dir():
        backbone = str(data / _BACKBONE)
    model = kind.load(
        data / _MODEL, device=device, backbone=backbone, allow_download=allow_download
    )
    return model, kind


def _write_environment(
    target: Path,
    requirements: list[str],
    conda_env: Any,
    pip_requirements: Any,
    extra_pip_requirements: Any,
) -> None:
    """Write the requirements that MLflow installs to run the model."""
    if conda_env is None:
        defaults = requirements if pip_requirements is None else None
        conda_env, requirements, constraints = _process_pip_requirements(
            defaults, pip_requirements, extra_pip_requirements
        )
    else:
        conda_env, requirements, constraints = _process_conda_env(conda_env)
    with (target / _CONDA_ENV_FILE_NAME).open("w") as file:
        yaml.safe_dump(conda_env, stream=file, default_flow_style=False)
    if constraints:
        write_to(str(target / _CONSTRAINTS_FILE_NAME), "\n".join(constraints))
    write_to(str(target / _REQUIREMENTS_FILE_NAME), "\n".join(requirements))
    _PythonEnv.current().to_yaml(str(target / _PYTHON_ENV_FILE_NAME))
