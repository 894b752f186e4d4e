"""``tsllm backtest``: errors of a method and baselines on a held-out test part."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tsllm.cli import options
from tsllm.cli.config import BacktestJob, job_of
from tsllm.cli.data import open_data
from tsllm.cli.output import (
    check_page,
    check_picture,
    check_report_files,
    log_form,
    print_table,
    say,
    say_split,
    working,
    write_page,
    write_picture,
    write_report,
)


def backtest(
    context: typer.Context,
    data: options.Data = None,
    method: options.Method = None,
    horizons: options.Horizons = None,
    test_size: options.TestSize = None,
    test_fraction: options.TestFraction = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            "--baselines",
            help="Methods to compare with, such as flair or lightgbm, or none. Default: "
            "seasonal_naive,auto_ets,theta,dlinear,patchtst.",
            metavar="NAMES",
        ),
    ] = None,
    stride: options.Stride = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", help="Fit once per seed, such as 0,1,2.", metavar="SEEDS"),
    ] = None,
    scaled: Annotated[
        bool | None,
        typer.Option(
            "--scaled", help="Errors in standard deviations of the training part, as in papers."
        ),
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            "--time-limit",
            help="Seconds for each baseline, and for each other method that is fitted at every "
            "window, or none. Its windows are then fewer, or its training ends early, and a note "
            "says so. Default: 300.",
            metavar="SECONDS",
        ),
    ] = None,
    freq: options.Freq = None,
    fill: options.Fill = None,
    resample: options.Resample = None,
    sort: options.Sort = None,
    covariates: options.Covariates = None,
    past_covariates: options.PastCovariates = None,
    text: options.Text = None,
    static_text: options.StaticText = None,
    id_col: options.IdCol = None,
    time_col: options.TimeCol = None,
    target_col: options.TargetCol = None,
    tz: options.Tz = None,
    time_format: options.TimeFormat = None,
    sep: options.Sep = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    config: options.Config = None,
    set_: options.Set = None,
    out: options.ReportOut = None,
    markdown: options.Markdown = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Draw forecasts against what came, to a .png, .svg or .pdf file.",
            metavar="FILE",
        ),
    ] = None,
    page: options.Report = None,
    json: options.Json = False,
) -> None:
    """Score a method and baselines on a held-out test part.

    Methods are fitted on the data before the test part and forecast every window of it. The
    expected time comes first. Progress goes to stderr: bars on a terminal, else a line every 30
    seconds.
    """
    job = job_of(BacktestJob, context)
    job.check_horizons()
    check_report_files(out, markdown)
    check_picture(plot)
    check_page(page)

    with working(f"reading {job.data}"):
        frame, split = open_data(job.data, **job.data_options())
    how = job.test_options(split)
    say_split(how)

    # After the data, since this takes seconds to import and a wrong file is told at once.
    import tsllm
    from tsllm.tables.forecast import make_forecaster

    values, X = job.split_covariates(frame)
    report = tsllm.backtest(
        {job.method: make_forecaster(job.method, **job.settings())},
        values,
        X=X,
        scaled=job.scaled,
        time_limit=None if job.time_limit == math.inf else job.time_limit,
        progress=log_form.get() != "json",
        **how,
    )
    write_report(report, out, markdown)
    if plot is not None:
        write_picture(report.plot(), plot)
        say(f"wrote {plot}")
    if page is not None:
        from tsllm.reports import report_backtest

        title = f"Backtest on {Path(job.data).name}"
        write_page(report_backtest(report, title=title, settings=asdict(job)), page)
    if json:
        print(report.to_json())
        return
    for scored_on, rows in report.table.groupby("scored_on", sort=False):
        if scored_on == "common":
            print("\nthe same windows for every method:")
        shown = rows.drop(columns="scored_on").dropna(axis=1, how="all")
        print_table(shown.to_dict("records"))
    for note in report.notes:
        print(f"\nnote: {note}")
