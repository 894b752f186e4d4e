"""Jobs: the settings of a command, from its options, a YAML file and ``--set``."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import typer
import yaml

import tsllm
from tsllm.arguments import shown, wanted_instead
from tsllm.cli import options
from tsllm.cli.output import check_folder
from tsllm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from tsllm.datasets import BenchmarkSplit

#: Parameters of forecasters that describe the data, with the fields of jobs for them.
_OF_THE_DATA = {
    "freq": "freq",
    "past_covariates": "past_covariates",
    "text_covariates": "text",
    "static_text": "static_text",
}


@dataclass
class Job:
    """The data and the method of a command that trains.

    The fields are the keys of a job file; `read_job` checks the types of their values.
    """

    data: str = ""
    id_col: str | None = None
    time_col: str | None = None
    target_cols: str | list[str] | None = None
    freq: str | None = None
    fill: str | dict[str, str] | None = None
    resample: str | None = None
    sort: bool = False
    tz: str | None = None
    time_format: str | None = None
    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    covariates: list[str] | None = None
    past_covariates: list[str] | None = None
    #: Columns with texts, whose future is known unless they are past covariates, too.
    text: list[str] | None = None
    #: Columns that describe a series in words.
    static_text: list[str] | None = None
    method: str = "autotimes"
    #: Of the method's forecaster.
    parameters: dict[str, Any] = field(default_factory=dict)

    def data_options(self) -> dict[str, Any]:
        """Return the arguments of `tsllm.cli.data.open_data`."""
        names = ("target_cols", "fill", "resample")
        own = {name: getattr(self, name) for name in names}
        beside = {"covariates": self.all_covariates(), "text": self.text or []}
        return {**own, **self.reading(), **beside}

    def reading(self) -> dict[str, Any]:
        """Return how DATA and the known future are read: arguments of `read_long`."""
        names = ("id_col", "time_col", "freq", "sort")
        return {name: getattr(self, name) for name in names} | options.written(vars(self))

    def all_covariates(self) -> list[str]:
        """List the columns that are covariates, those with a known future first."""
        from tsllm.datasets.covariates import all_covariates  # pandas: not for --help

        return all_covariates(self.covariates, *self._without_future(), texts=self.text or [])

    def known_covariates(self) -> list[str]:
        """List the covariates whose future a forecast needs."""
        others = {name for names in self._without_future() for name in names}
        return [name for name in self._with_future() if name not in others]

    def _with_future(self) -> list[str]:
        """Return the covariates and the texts, whose future is known unless they are past ones."""
        return list(dict.fromkeys([*(self.covariates or []), *(self.text or [])]))

    def _without_future(self) -> tuple[list[str], ...]:
        """Return the past covariates, the static attributes and the descriptions of series."""
        attributes = self.parameters.get("static_attributes") or []
        return self.past_covariates or [], attributes, self.static_text or []

    def split_covariates(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Split a long frame into values and covariates X; X is None where there is none."""
        names = self.all_covariates()
        if not names:
            return frame, None
        return frame.drop(columns=names), frame[["series_id", "timestamp", *names]]

    def settings(self) -> dict[str, Any]:
        """Return the forecaster's parameters, with those that describe the data."""
        given = {name: getattr(self, one) for name, one in _OF_THE_DATA.items()}
        columns = {name: value for name, value in given.items() if value and name != "freq"}
        return {"freq": self.freq, **columns, **self.parameters}


@dataclass
class FitJob(Job):
    """The job of ``tsllm fit``."""

    method: str = "auto"
    horizon: int | None = None
    #: Leave out series that cannot be used.
    skip_bad: bool = False

    def __post_init__(self) -> None:
        self.parameters.setdefault("random_state", 0)  # two runs agree


@dataclass
class ForecastJob(FitJob):
    """The job of ``tsllm forecast``."""

    quantiles: list[float] = field(default_factory=lambda: [0.1, 0.5, 0.9])
    future: str | None = None
    #: A table of series without any row.
    new_series: str | None = None


@dataclass
class EvaluationJob(Job):
    """A job that scores methods on a test part."""

    horizons: list[int] = field(default_factory=list)
    test_size: int | None = None
    test_fraction: float | None = None
    stride: int = 1
    baselines: list[str] | None = None
    seeds: list[int] | None = None

    def __post_init__(self) -> None:
        self.parameters.setdefault("random_state", 0)  # two runs agree

    def check_horizons(self) -> None:
        """Check that the job has horizons."""
        if not self.horizons:
            raise DataError("--horizons is missing: give the steps to forecast, such as 96,192")

    def test_options(self, split: BenchmarkSplit | None) -> dict[str, Any]:
        """Return the arguments that `tsllm.backtest` and `tsllm.ablate` share.

        Without a size in the job a benchmark has its published split.
        """
        sizes: dict[str, Any] = {"test_size": self.test_size, "test_fraction": self.test_fraction}
        if split is not None and self.test_size is None and self.test_fraction is None:
            sizes = {
                "train_size": split.train,
                "validation_size": split.validation,
                "test_size": split.test,
            }
        given = {"baselines": self.baselines, "seeds": self.seeds}
        sizes |= {name: value for name, value in given.items() if value is not None}
        return {"horizons": self.horizons, "stride": self.stride, "freq": self.freq, **sizes}


@dataclass
class BacktestJob(EvaluationJob):
    """The job of ``tsllm backtest``."""

    scaled: bool = False
    #: Seconds for each baseline; None or infinite: no limit.
    time_limit: float | None = 300.0


@dataclass
class AblateJob(EvaluationJob):
    """The job of ``tsllm ablate``."""

    variants: list[str] | None = None
    metric: str = "mse"
    min_difference: float = 0.01
    as_given: bool = False


@dataclass
class EventsJob:
    """The job of ``tsllm events fit``, ``evaluate`` and ``ablate``."""

    data: str = ""
    id_col: str | None = None
    time_col: str | None = None
    type_col: str | None = None
    time_unit: str | None = None
    sort: bool | None = None
    ties: str | None = None
    resolution: float | None = None
    tz: str | None = None
    time_format: str | None = None
    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    windows: list[float | str] | None = None
    slices: int | None = None
    by: str | None = None
    method: str = "prompttpp"
    #: Of the method's forecaster.
    parameters: dict[str, Any] = field(default_factory=dict)


AnyJob = TypeVar("AnyJob", bound=Job | EventsJob)


def job_of(kind: type[AnyJob], context: typer.Context, **given: Any) -> AnyJob:
    """Build the job of the command that runs, from all its options; see `read_job`.

    ``given`` are values in place of the command's options.
    """
    for one in fields(kind):
        option = "target_col" if one.name == "target_cols" else one.name
        given.setdefault(one.name, options.read(context, option))
    return read_job(kind, given, context.params["config"], context.params["set_"])


def read_job(
    kind: type[AnyJob],
    given: Mapping[str, Any],
    config: Path | None,
    sets: Sequence[str] | None,
) -> AnyJob:
    """Merge defaults, a job file, options and ``--set``; the later ones have priority.

    ``given`` holds the options by field, None where one was not given; ``sets`` are texts
    ``key=value``, with values in YAML.

    Raises
    ------
    DataError
        The file cannot be read, or has an unknown key or a value of the wrong kind; a ``--set``
        is malformed; or there is no DATA.
    """
    settings = {} if config is None else _read_file(kind, config)
    settings |= {name: value for name, value in given.items() if value is not None}
    settings["parameters"] = {**settings.get("parameters", {}), **_read_sets(sets or [])}
    for name, field_of_job in _OF_THE_DATA.items():
        if name in settings["parameters"] and hasattr(kind, field_of_job):
            option = f"--{field_of_job.replace('_', '-')}"
            raise DataError(f"{name} belongs to the data, not to the method: give it with {option}")
    job = kind(**settings)
    if not job.data:
        raise DataError("there is no DATA: give a file or the name of a data set")
    return job


def write_job(job: Job | EventsJob) -> str:
    """Write a job as a file that `read_job` reads."""
    settings = yaml.safe_dump(asdict(job), sort_keys=False, allow_unicode=True)
    return f"# Settings of a tsllm {tsllm.__version__} command, for its --config.\n{settings}"


def checkpoint_settings(job: Job | EventsJob, checkpoint: Path | None) -> dict[str, Any]:
    """Return the parameters of a fit under ``--checkpoint``; it draws the same in each run."""
    if checkpoint is None:
        return {}
    check_folder(checkpoint.absolute(), "--checkpoint")
    if job.parameters.get("random_state") is None:
        job.parameters["random_state"] = 0
    return {"checkpoint_dir": str(checkpoint)}


class _Loader(yaml.SafeLoader):
    """YAML's safe loader that also knows 5e-4 as a number, and none and NONE as null."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("(?i:none|null)$"), list("nN"))


def _read_file(kind: type[AnyJob], path: Path) -> dict[str, Any]:
    """Read a job file; check its keys and the types of its values."""
    if path.exists() and not path.is_file():
        raise DataError(f"--config {str(path)!r} is no file: give a file of YAML")
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_Loader)
        settings = yaml.load(text, Loader=_Loader)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"--config {str(path)!r} cannot be read ({reason})") from None
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"--config {str(path)!r} is no YAML: {_complaint(error)}") from None
    except RecursionError:
        raise DataError(f"--config {str(path)!r} is nested too deeply: write it flat") from None
    if not isinstance(node, yaml.MappingNode):
        raise DataError(f"--config {str(path)!r} must hold lines of 'key: value'")
    hints = get_type_hints(kind)
    known = [one.name for one in fields(kind)]
    _refuse_doubles(node, path.name)
    for key_node, _ in node.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        place = f"{path.name}, line {line}"
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise DataError(f"{place}: unknown key {key!r}; {remedy}")
        wanted = wanted_instead(settings[key], hints[key])
        if wanted:
            # not repr: aliases can make a value that is short to write and endless to print
            found = reprlib.repr(settings[key])
            raise DataError(f"{place}: {key} must be {wanted}, found {found}")
    return dict(settings)


def _refuse_doubles(root: yaml.Node, file: str) -> None:
    """Refuse a key that stands twice in one mapping: YAML takes the last without a word."""
    nodes, looked_at = [root], set()
    while nodes:
        node = nodes.pop()
        if id(node) in looked_at:  # an alias
            continue
        looked_at.add(id(node))
        keys: set[str] = set()
        for key_node, value in node.value if isinstance(node, yaml.MappingNode) else ():
            key = str(key_node.value)
            if key in keys:
                line = key_node.start_mark.line + 1
                raise DataError(f"{file}, line {line}: {key!r} is there twice; drop one")
            keys.add(key)
            nodes.append(value)
        if isinstance(node, yaml.SequenceNode):
            nodes.extend(node.value)


def _complaint(error: Exception) -> str:
    """Describe in a few words what is wrong in YAML, and where."""
    mark = getattr(error, "problem_mark", None)
    return str(error) if mark is None else f"line {mark.line + 1}, {getattr(error, 'problem', '')}"


def _read_sets(sets: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs."""
    parameters: dict[str, Any] = {}
    for one in sets:
        key, equals, text = one.partition("=")
        if not equals or not key:
            raise DataError(f"--set takes key=value, such as max_steps=100, found {one!r}")
        try:
            parameters[key.strip()] = yaml.load(text, Loader=_Loader)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise DataError(
                f"--set {key} has a value that is no YAML: {shown(text)}; put text with odd signs "
                "in quotes"
            ) from None
    return parameters
