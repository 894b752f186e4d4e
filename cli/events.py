"""``tsllm events``: models of event streams, and predictions of the next events."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsllm.cli import event_options, options
from tsllm.cli.config import EventsJob, checkpoint_settings, job_of, write_job
from tsllm.cli.event_options import (
    column_settings,
    load_model,
    make_estimator,
    read_job_data,
    read_table,
    settings_of,
    slices_of,
)
from tsllm.cli.events_ablate import ablate
from tsllm.cli.events_evaluate import evaluate
from tsllm.cli.output import (
    TABLE_ENDINGS,
    check_folder,
    check_output,
    check_page,
    check_picture,
    count,
    deliver,
    print_json,
    say,
    working,
    write_page,
    write_picture,
)
from tsllm.errors import DataError
from tsllm.saving.files import write_text

if TYPE_CHECKING:
    from tsllm.datasets import EventTable
    from tsllm.events import EventForecaster

app = typer.Typer(
    name="events",
    help="Forecast event streams: when the next events come, and of which type.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def fit(
    context: typer.Context,
    data: event_options.Data = None,
    out: options.ModelOut = None,
    method: event_options.Method = None,
    slices: event_options.Slices = None,
    by: event_options.By = None,
    windows: event_options.Windows = None,
    id_col: event_options.IdCol = None,
    time_col: options.TimeCol = None,
    type_col: event_options.TypeCol = None,
    time_unit: event_options.TimeUnit = None,
    sort: event_options.Sort = None,
    ties: event_options.Ties = None,
    resolution: event_options.Resolution = None,
    tz: options.Tz = None,
    time_format: options.TimeFormat = None,
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    config: options.Config = None,
    set_: options.Set = None,
    checkpoint: options.Checkpoint = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Learn from events and save the model.

    With --slices or --by the model learns the stream slice by slice, and reads no slice twice. The
    settings are written to job.yaml in the model's directory.
    """
    job = job_of(EventsJob, context)
    if out is None:
        raise DataError("--out is missing: give the directory to save the model to")
    check_folder(out.absolute().parent, "--out")

    from tsllm.saving.api import save
    from tsllm.saving.directory import JOB, check_target

    check_target(out, overwrite=overwrite)
    settings = column_settings(job)
    table = read_job_data(job, settings)
    parts = slices_of(table, job.slices, job.by)

    from tsllm.training.checkpoints import remove_checkpoints

    estimator = make_estimator(job, {**settings, **checkpoint_settings(job, checkpoint)})
    _learn(estimator, parts)
    folder = save(estimator, out, overwrite=overwrite)
    write_text(write_job(job), folder / JOB)
    if checkpoint is not None:
        remove_checkpoints(checkpoint)
    seed = job.parameters["random_state"]
    say(f"fitted {job.method} on {_described(table, len(parts))}; random_state {seed}")
    _say_choices(estimator)
    say(f"saved the model in {out}")
    if json:
        print_json({"model": str(folder), "summary": estimator.summary()})


@app.command()
def update(
    context: typer.Context,
    model: event_options.ModelDir,
    data: event_options.Data = None,
    learn: Annotated[
        bool, typer.Option("--learn", help="Learn from DATA, as the next slice of the stream.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Save to this directory instead of MODEL_DIR.",
            metavar="DIR",
        ),
    ] = None,
    windows: event_options.Windows = None,
    sort: event_options.Sort = None,
    tz: options.Tz = None,
    time_format: options.TimeFormat = None,
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model that --out names.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Add new events to the histories of a saved model, without training.

    The columns are those that the model was fitted with. With --learn, DATA is the next slice of
    the stream: the model learns it without earlier events, and predictions continue its sequences.
    """
    if data is None:
        raise DataError("there is no DATA: give a file with the new events")
    if out is None:
        options.refuse(
            context, ["overwrite"], "without --out: the model in MODEL_DIR is replaced anyway"
        )
    from tsllm.saving.api import save
    from tsllm.saving.directory import JOB, check_target

    target = model if out is None else out
    if out is not None:
        check_folder(out.absolute().parent, "--out")
        check_target(out, overwrite=overwrite)
    estimator = load_model(model)
    table = _read_for(context, estimator)
    if learn:
        if not hasattr(estimator, "partial_fit"):
            raise DataError(
                f"--learn: a {type(estimator).__name__} cannot continue to learn: fit it anew with "
                "'tsllm events fit'"
            )
        with working("learning"):
            estimator.partial_fit(table)
    else:
        estimator.update(table)
    job = (model / JOB).read_text(encoding="utf-8") if (model / JOB).is_file() else None
    folder = save(estimator, target, overwrite=out is None or overwrite)
    if job is not None:
        write_text(job, folder / JOB)
    if learn:
        _say_choices(estimator)
    say(f"{'learnt' if learn else 'updated with'} {_described(table)}; saved the model in {target}")
    if json:
        print_json({"model": str(folder), "summary": estimator.summary()})


@app.command()
def predict(
    context: typer.Context,
    model: event_options.ModelDir,
    data: event_options.Data = None,
    steps: Annotated[
        int, typer.Option("--steps", help="Number of events to predict.", metavar="N", min=1)
    ] = 1,
    quantiles: options.Quantiles = None,
    now: Annotated[
        str | None,
        typer.Option(
            "--now", help="Time until which no further event has happened.", metavar="TIME"
        ),
    ] = None,
    windows: event_options.Windows = None,
    sort: event_options.Sort = None,
    tz: options.Tz = None,
    time_format: options.TimeFormat = None,
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    out: options.Out = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Draw the first sequence's intensities to a .png, .svg or .pdf file.",
            metavar="FILE",
        ),
    ] = None,
    page: options.Report = None,
    json: options.Json = False,
) -> None:
    """Predict the times and types of the next events of each sequence.

    Each sequence of DATA is predicted from its own history. Without DATA, the model predicts the
    sequences that it was fitted on and updated with.
    """
    levels = options.read(context, "quantiles")
    _check_places(out, plot)
    check_page(page)
    estimator = load_model(model)
    history = _history(context, estimator)
    moment = None if now is None else options.time(now)
    chosen = (0.1, 0.5, 0.9) if levels is None else levels
    with working("predicting"):
        table = estimator.predict(history, n_steps=steps, levels=chosen, now=moment)
    if plot is not None:
        from tsllm.events.plotting import plot_intensity

        write_picture(plot_intensity(estimator, history).figure, plot)
        say(f"wrote {plot}, the intensities of {table.iloc[0, 0]!r}")
    if page is not None:
        from tsllm.reports import report_predictions

        source = model if data is None else Path(data)
        title = f"Next events of {source.name}"
        told = {"model": str(model), "data": data, "now": now, **estimator.summary()}
        write_page(report_predictions(estimator, table, history, title=title, settings=told), page)
    beside = {"plot": plot, "report": page}
    written = {name: None if path is None else str(path) for name, path in beside.items()}
    deliver(table, out, json, written, name="events")


@app.command()
def simulate(
    context: typer.Context,
    model: event_options.ModelDir,
    data: event_options.Data = None,
    paths: Annotated[
        int, typer.Option("--paths", help="Futures per sequence.", metavar="N", min=1, max=100_000)
    ] = 1,
    horizon: Annotated[
        str | None,
        typer.Option(
            "--horizon",
            help="Length of the futures: a number in the unit of the times, or a duration such as "
            "7D or 12h for timestamps.",
            metavar="DURATION",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Largest number of events.", metavar="N", min=1),
    ] = None,
    new: Annotated[
        int | None,
        typer.Option(
            "--new",
            help="Draw N new sequences of length --horizon that start without events.",
            metavar="N",
            min=1,
            max=1_000_000,
        ),
    ] = None,
    windows: event_options.Windows = None,
    sort: event_options.Sort = None,
    tz: options.Tz = None,
    time_format: options.TimeFormat = None,
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Seed of the draws. Default: the model's.",
            metavar="SEED",
            min=0,
            max=2**32 - 1,
        ),
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Draw possible futures of each sequence, or whole new sequences."""
    _check_places(out, None)
    if horizon is None and (steps is None or new is not None):
        raise DataError("--horizon is missing: give the length of the futures, such as 7D")
    if new is not None:
        names = ["data", "paths", "steps", "windows", "sort", *options.WRITTEN]
        options.refuse(context, names, "with --new, which needs no history: leave it out")
    estimator = load_model(model)
    if seed is not None:
        estimator.random_state = seed
    history = _history(context, estimator)
    far = None if horizon is None else options.time(horizon)
    with working("drawing"):
        if new is None:
            table = estimator.sample(paths, horizon=far, n_events=steps, history=history)
        else:
            table = estimator.simulate(new, duration=far).to_frame()
    deliver(table, out, json, {}, name="events")


app.command()(evaluate)
app.command()(ablate)


def _say_choices(estimator: EventForecaster) -> None:
    """Say what the slices of a stream changed, where there was a choice."""
    if hasattr(estimator, "slice_notes"):
        for number, note in estimator.slice_notes().items():
            say(f"slice {number + 1} {note}")


def _learn(estimator: EventForecaster, parts: list[Any]) -> None:
    """Fit an estimator on one slice, or on one after another."""
    if len(parts) > 1 and not hasattr(estimator, "partial_fit"):
        raise DataError(
            f"a {type(estimator).__name__} does not learn slice by slice: leave out --slices and "
            "--by, or use --method prompttpp"
        )
    if hasattr(estimator, "verbose"):
        estimator.verbose = int(sys.stderr.isatty())
    if len(parts) == 1:
        estimator.fit(parts[0])
        return
    types = sorted({name for part in parts for name in part.type_names})
    for number, part in enumerate(parts):
        estimator.partial_fit(part, **({} if number else {"types": types}))
        say(f"slice {number + 1} of {len(parts)}: {count(part.n_events, 'events')}")


def _history(context: typer.Context, estimator: EventForecaster) -> Any:
    """Read the history to predict from; None: the model's own."""
    if context.params["data"] is None:
        names = ["windows", "sort", *options.WRITTEN]
        options.refuse(context, names, "without DATA: give DATA, or leave it out")
        return None
    return _read_for(context, estimator)


def _read_for(context: typer.Context, estimator: EventForecaster) -> EventTable:
    """Read DATA with the columns of a model."""
    settings = settings_of(estimator, {"sort": context.params["sort"]})
    settings |= options.written_in(context)
    return read_table(context.params["data"], settings, options.read(context, "windows"))


def _check_places(out: Path | None, plot: Path | None) -> None:
    """Check that output files can be written, before any work is done for them."""
    if out is not None:
        check_output(out, "--out", TABLE_ENDINGS)
    check_picture(plot)


def _described(table: Any, slices: int = 1) -> str:
    """Describe a table in a few words."""
    text = f"{count(table.n_events, 'events')} in {count(len(table), 'sequences')}"
    return text if slices == 1 else f"{text}, in {count(slices, 'slices')}"
