"""``tsllm events evaluate``: scores of a model on events that it has not seen."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tsllm.cli import event_options, options
from tsllm.cli.config import EventsJob, job_of
from tsllm.cli.event_options import (
    column_settings,
    load_model,
    make_estimator,
    read_job_data,
    settings_of,
    slices_of,
)
from tsllm.cli.output import (
    check_output,
    check_page,
    check_picture,
    print_json,
    print_table,
    say,
    working,
    write_page,
    write_picture,
)
from tsllm.errors import DataError
from tsllm.saving.files import write_text

if TYPE_CHECKING:
    import pandas as pd

    from tsllm.pages.page import Page


def evaluate(
    context: typer.Context,
    data: event_options.Data = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="Evaluate a saved model on DATA. Default: --method learns from the first part of "
            "DATA and is evaluated on the rest.",
            metavar="MODEL_DIR",
        ),
    ] = None,
    method: event_options.Method = None,
    test_fraction: Annotated[
        float,
        typer.Option("--test-fraction", help="Share of the events to test on.", metavar="SHARE"),
    ] = 0.2,
    slices: event_options.Slices = None,
    by: event_options.By = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            "--baselines",
            help="With --slices or --by, what to compare with: pretrained, fine_tuned, retrained, "
            "joint, hawkes, naive; or none. Default: all.",
            metavar="NAMES",
        ),
    ] = None,
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
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the report to a .json file.", metavar="FILE"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Draw the residual check, or with --slices or --by the scores of each slice, to a "
            ".png, .svg or .pdf file.",
            metavar="FILE",
        ),
    ] = None,
    page: options.Report = None,
    json: options.Json = False,
) -> None:
    """Score an event model on events that it has not seen, beside simple baselines.

    With --slices or --by, the model learns the stream slice by slice. After each slice it is tested
    on all of them, which measures forgetting. Baselines learn the same slices.
    """
    job = job_of(EventsJob, context)
    if out is not None:
        check_output(out, "--out", (".json",))
    check_picture(plot)
    check_page(page)
    stream = job.slices is not None or job.by is not None
    if model is not None and (stream or method is not None or job.parameters):
        raise DataError(
            "--model is evaluated as it is: leave out --method, --set, --slices and --by, and "
            "'parameters' of the job file"
        )
    if model is not None or stream:
        what = "with --slices or --by" if stream else "with --model, which is tested on all of DATA"
        options.refuse(context, ["test_fraction"], f"{what}: leave it out")
    if not stream:
        options.refuse(context, ["baselines"], "without --slices or --by: give one of them")
    if stream:
        found = _evaluate_stream(job, options.read(context, "baselines"))
    elif model is not None:
        found = _evaluate_model(job, model)
    else:
        found = _evaluate_method(job, test_fraction)
    if out is not None:
        write_text(json_module.dumps(found.report, indent=1, allow_nan=False), out)
        say(f"wrote {out}")
    if plot is not None:
        write_picture(found.draw(), plot)
        say(f"wrote {plot}")
    if page is not None:
        write_page(found.page(), page)
    if json:
        print_json(found.report)
    else:
        found.show()


class _Found(NamedTuple):
    """The result of an evaluation, in four forms."""

    report: dict[str, Any]
    show: Callable[[], None]  # prints tables
    draw: Callable[[], Any]  # makes a figure
    page: Callable[[], Page]  # makes a page for people


def _evaluate_model(job: EventsJob, folder: Path) -> _Found:
    """Evaluate a saved model on all of DATA."""
    estimator = load_model(folder)
    settings = settings_of(estimator, column_settings(job))
    table = read_job_data(job, settings)
    return _evaluate(job, estimator, table, None)


def _evaluate_method(job: EventsJob, test_fraction: float) -> _Found:
    """Learn from the first part of DATA and evaluate on the rest."""
    if not 0 < test_fraction < 1:
        raise DataError(f"--test-fraction must be between 0 and 1, found {test_fraction}")
    settings = column_settings(job)
    table = read_job_data(job, settings)
    training, _ = table.split((1 - test_fraction, test_fraction), keep_empty=True)
    estimator = make_estimator(job, settings)
    estimator.fit(training, types=table.type_names)
    # The border is the last event of the earlier part.
    border = max(times[-1] for times in training.times if len(times))
    return _evaluate(job, estimator, table, table.clock.to_stamp(border))


def _evaluate(job: EventsJob, estimator: Any, table: Any, border: Any) -> _Found:
    """Score a model after a border; None scores it on everything."""
    with working("evaluating"):
        evaluation = estimator.evaluate(table, t_start=border)
        diagnostics = estimator.diagnostics(table, t_start=border)

    def show() -> None:
        _print_rows(evaluation.table)
        print(f"\nresiduals of {evaluation.events:,} events:")
        _print_rows(diagnostics.table)
        for note in evaluation.notes:
            print(f"\nnote: {note}")

    def draw() -> Any:
        from tsllm.events.plotting import plot_residuals

        return _figure(plot_residuals(diagnostics))

    def page() -> Page:
        from tsllm.reports import report_evaluation

        return report_evaluation(
            evaluation,
            diagnostics,
            unit=table.clock.unit if table.clock.is_stamps else None,
            title=f"Next events of {Path(job.data).name}",
            settings=asdict(job),
        )

    report = {"evaluation": evaluation.to_dict(), "diagnostics": diagnostics.to_dict()}
    return _Found(report, show, draw, page)


def _evaluate_stream(job: EventsJob, baselines: list[str] | None) -> _Found:
    """Learn the slices one after another and score each."""
    settings = column_settings(job)
    table = read_job_data(job, settings)
    parts = slices_of(table, job.slices, job.by)
    estimator = make_estimator(job, settings)
    from tsllm.events import evaluate_stream

    report = evaluate_stream(
        estimator, parts, baselines=baselines, verbose=int(sys.stderr.isatty())
    )

    def show() -> None:
        for metric, rows in report.summary.groupby("metric", sort=False):
            print(f"{metric}:")
            print_table(rows.drop(columns="metric").to_dict("records"))
            print()
        print("rescaled times after the last slice (0 is best):")
        print_table(report.fits.to_dict("records"))
        print()
        for note in report.notes:
            print(f"note: {note}")

    def draw() -> Any:
        from tsllm.events.plotting import plot_stream

        return _figure(plot_stream(report))

    def page() -> Page:
        from tsllm.reports import report_stream

        title = f"Learning the stream of {Path(job.data).name}"
        return report_stream(report, title=title, settings=asdict(job))

    return _Found(report.to_dict(), show, draw, page)


def _print_rows(table: pd.DataFrame) -> None:
    print_table([{"": str(name), **row} for name, row in table.to_dict("index").items()])


def _figure(axes: Any) -> Any:
    """Return the figure of one or several axes."""
    first = axes if hasattr(axes, "figure") else next(iter(getattr(axes, "flat", axes)))
    return first.figure
