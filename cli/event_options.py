"""Options and functions that the ``tsllm events`` commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsllm.cli import options
from tsllm.cli.config import EventsJob
from tsllm.cli.data import open_events
from tsllm.cli.output import working
from tsllm.errors import DataError

if TYPE_CHECKING:
    from tsllm.datasets import EventTable
    from tsllm.events import EventForecaster

ModelDir = Annotated[
    Path,
    typer.Argument(metavar="MODEL_DIR", help="The directory that 'tsllm events fit' saved to."),
]
IdCol = Annotated[
    str | None,
    typer.Option("--id-col", help="Column with the sequences' names.", metavar="NAME"),
]
TypeCol = Annotated[
    str | None, typer.Option("--type-col", help="Column with the events' types.", metavar="NAME")
]
TimeUnit = Annotated[
    str | None,
    typer.Option(
        "--time-unit", help="Unit of time of timestamps: s, min, h, D, W, ms, us. Default: s."
    ),
]
Sort = Annotated[bool | None, typer.Option("--sort", help="Sort each sequence by time.")]
Ties = Annotated[
    str | None,
    typer.Option(
        "--ties",
        help="Events of a sequence at the same time: error, jitter (move the later ones by less "
        "than the clock's step) or batch (keep them). Default: error.",
        metavar="HOW",
    ),
]
Resolution = Annotated[
    float | None,
    typer.Option(
        "--resolution",
        help="Step of the clock, for --ties. Default: the longest step that all times lie whole "
        "numbers of apart.",
    ),
]
Windows = Annotated[
    str | None,
    typer.Option(
        "--windows",
        help="Start and end of the observation of all sequences. Default: the columns "
        "window_start and window_end, if there are any.",
        metavar="START,END",
    ),
]
Data = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="A .csv, .csv.gz, .parquet, .jsonl, .json or .json.gz file (also EasyTPP's records), "
        "a directory of such files without .json, - for CSV from stdin, or a data set that "
        "'tsllm datasets' lists; a file has priority.",
        show_default=False,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="prompttpp, hawkes, naive or zero_shot. Default: prompttpp.",
        metavar="METHOD",
    ),
]
Slices = Annotated[
    int | None,
    typer.Option("--slices", help="Split the stream into N slices of time.", metavar="N"),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by", help="Split the stream by the calendar: 1D, MS, YS and so on.", metavar="STEP"
    ),
]

#: Options that are parameters of every event forecaster too.
COLUMNS = ("id_col", "time_col", "type_col", "time_unit", "sort", "ties", "resolution")


def column_settings(job: EventsJob) -> dict[str, Any]:
    """Return the arguments of reading events that the job sets."""
    settings = {name: getattr(job, name) for name in COLUMNS}
    doubled = [name for name in COLUMNS if name in job.parameters]
    if doubled:
        option = f"--{doubled[0].replace('_', '-')}"
        raise DataError(
            f"{doubled[0]} belongs to the data, not to the method: give it with {option}"
        )
    return {name: value for name, value in settings.items() if value is not None}


def read_table(data: str, settings: Mapping[str, Any], windows: Any = None) -> EventTable:
    """Read DATA; ``settings`` are other arguments of `read_events`."""
    with working(f"reading {data}"):
        bounds = None if windows is None else tuple(windows)
        return open_events(data, windows=bounds, **settings)


def read_job_data(job: EventsJob, settings: Mapping[str, Any]) -> EventTable:
    """Read the data of a job; ``settings`` are its columns, as `column_settings` returns them."""
    seed = job.parameters.get("random_state", 0)
    reading = {**settings, **options.written(vars(job)), "random_state": seed}
    table = read_table(job.data, reading, job.windows)
    if job.time_unit is not None and table.clock.origin is None:
        raise DataError(
            f"--time-unit has no effect on the times of {job.data!r}, which are numbers and keep "
            "their unit: leave it out"
        )
    return table


def make_estimator(job: EventsJob, settings: Mapping[str, Any]) -> EventForecaster:
    """Make the forecaster of a job, with the seed 0 unless another is given.

    ``settings`` are its columns and the directory of checkpoints.
    """
    from tsllm.events import make_event_forecaster

    job.parameters.setdefault("random_state", 0)  # two runs agree
    return make_event_forecaster(job.method, **settings, **job.parameters)


def load_model(folder: Path) -> EventForecaster:
    """Load a saved model of events."""
    from tsllm.events import EventForecaster
    from tsllm.saving.api import load

    with working("loading the model"):
        estimator = load(folder)
    if not isinstance(estimator, EventForecaster):
        raise DataError(
            f"{str(folder)!r} holds a {type(estimator).__name__}, which forecasts series: use "
            "'tsllm predict'"
        )
    return estimator


def settings_of(estimator: EventForecaster, changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of reading events of a model, with those that are changed."""
    own = {name: getattr(estimator, name) for name in COLUMNS}
    own |= {name: value for name, value in changed.items() if value is not None}
    seed = estimator.random_state
    return {**own, "random_state": seed if isinstance(seed, int) else None}


def slices_of(table: EventTable, slices: int | None, by: str | None) -> list[EventTable]:
    """Split a stream by ``--slices`` or ``--by``; without them it is one slice."""
    from tsllm.datasets import time_slices

    if slices is not None and by is not None:
        raise DataError("--slices and --by are two ways to split the stream: give one of them")
    cuts = by if slices is None else slices
    return [table] if cuts is None else time_slices(table, cuts, keep_empty=True)
