"""``tsllm events ablate``: what PromptTPP's prompts and its language model are good for on DATA."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tsllm.cli import event_options, options
from tsllm.cli.config import EventsJob, read_job
from tsllm.cli.event_options import column_settings, read_table, read_windows, slices_of
from tsllm.cli.output import check_picture, check_report_files, deliver_ablation


def ablate(
    data: options.Data = None,
    slices: event_options.Slices = None,
    by: event_options.By = None,
    variants: Annotated[
        str | None,
        typer.Option(
            "--variants",
            help="What to change, of prompts, base and text. Default: all of them.",
            metavar="NAMES",
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            "--baselines",
            help="What to set beside it, of hawkes and naive; none for none. Default: both.",
            metavar="NAMES",
        ),
    ] = None,
    seeds: options.AblationSeeds = None,
    min_difference: Annotated[
        float | None,
        typer.Option(
            "--min-difference",
            help="The least difference that matters, in nats an event; default 0.01.",
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
    config: options.Config = None,
    set_: options.Set = None,
    out: options.ReportOut = None,
    markdown: options.Markdown = None,
    plot: options.AblationPlot = None,
    json: options.Json = False,
) -> None:
    """Find out what PromptTPP's prompts, base and language model are good for on DATA.

    The slices of --slices or --by are learnt one after another, by PromptTPP and by variants that
    differ from it in one thing. Paired differences on the test part of every slice lead to a
    verdict. For series see 'tsllm ablate'.
    """
    given = {
        "data": data,
        "slices": slices,
        "by": by,
        "windows": read_windows(windows),
        "id_col": id_col,
        "time_col": time_col,
        "type_col": type_col,
        "time_unit": time_unit,
        "sort": sort,
        "ties": ties,
        "resolution": resolution,
    }
    job = read_job(EventsJob, given, config, set_)
    how: dict[str, Any] = {
        "variants": options.names(variants),
        "baselines": options.names(baselines),
        "seeds": options.whole_numbers("--seeds", seeds),
        "min_difference": min_difference,
    }
    check_report_files(out, markdown)
    check_picture(plot)
    settings = column_settings(job)
    parts = slices_of(read_table(job.data, settings, job.windows), job.slices, job.by)

    from tsllm import events

    report = events.ablate(
        events.make_event_forecaster(job.method, **settings, **job.parameters),
        parts,
        verbose=int(sys.stderr.isatty()),
        **{name: value for name, value in how.items() if value is not None},
    )
    deliver_ablation(report, out=out, markdown=markdown, plot=plot, json=json)
