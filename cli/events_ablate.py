"""``tsllm events ablate``: the use of PromptTPP's prompts and language model on DATA."""

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tsllm.cli import event_options, options
from tsllm.cli.config import EventsJob, job_of
from tsllm.cli.event_options import (
    column_settings,
    make_estimator,
    read_job_data,
    slices_of,
)
from tsllm.cli.output import check_page, check_picture, check_report_files, deliver_ablation


def ablate(
    context: typer.Context,
    data: event_options.Data = None,
    slices: event_options.Slices = None,
    by: event_options.By = None,
    variants: Annotated[
        str | None,
        typer.Option(
            "--variants",
            help="Parts to change: prompts, base, text. Default: all.",
            metavar="NAMES",
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            "--baselines",
            help="Methods to compare with, or none. Default: hawkes,naive.",
            metavar="NAMES",
        ),
    ] = None,
    seeds: options.AblationSeeds = None,
    min_difference: Annotated[
        float | None,
        typer.Option(
            "--min-difference",
            help="Smallest difference that matters, in nats per event. Default: 0.01.",
            metavar="NATS",
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
    out: options.ReportOut = None,
    markdown: options.Markdown = None,
    plot: options.AblationPlot = None,
    page: options.Report = None,
    json: options.Json = False,
) -> None:
    """Measure the use of PromptTPP's prompts, base and language model on DATA.

    PromptTPP, and variants that differ from it in one thing, learn the slices of --slices or --by
    one after another. Paired differences on the test part of every slice lead to a verdict. For
    series see 'tsllm ablate'.
    """
    job = job_of(EventsJob, context)
    names = ("variants", "baselines", "seeds", "min_difference")
    how: dict[str, Any] = {name: options.read(context, name) for name in names}
    check_report_files(out, markdown)
    check_picture(plot)
    check_page(page)
    settings = column_settings(job)
    parts = slices_of(read_job_data(job, settings), job.slices, job.by)

    from tsllm import events

    report = events.ablate(
        make_estimator(job, settings),
        parts,
        verbose=int(sys.stderr.isatty()),
        **{name: value for name, value in how.items() if value is not None},
    )
    deliver_ablation(
        report,
        out=out,
        markdown=markdown,
        plot=plot,
        page=page,
        settings=asdict(job),
        json=json,
    )
