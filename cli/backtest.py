"""``tsllm backtest``: a method and baselines on a test part that none of them has seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tsllm.cli import options
from tsllm.cli.config import BacktestJob, read_job
from tsllm.cli.data import open_data
from tsllm.cli.output import check_output, print_table, say, working, write_text
from tsllm.errors import DataError


def backtest(
    data: options.Data = None,
    method: options.Method = None,
    horizons: Annotated[
        str | None,
        typer.Option("--horizons", help="Steps to forecast, such as 96,192.", metavar="STEPS"),
    ] = None,
    test_size: Annotated[
        int | None,
        typer.Option(
            "--test-size",
            help="Steps of each series' test part. Default: a fifth of the series, or for a "
            "benchmark its published split.",
            metavar="STEPS",
        ),
    ] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option("--test-fraction", help="Its share of the series.", metavar="SHARE"),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            "--baselines",
            help="Methods to compare with, such as seasonal_naive,theta; none for none. Default: "
            "seasonal_naive,auto_ets,theta,dlinear,patchtst.",
            metavar="NAMES",
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            "--stride", help="Steps between forecast origins, default 1.", metavar="STEPS"
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", help="Fit once for each seed, such as 0,1,2.", metavar="SEEDS"),
    ] = None,
    scaled: Annotated[
        bool | None,
        typer.Option(
            "--scaled", help="Errors in standard deviations of the training part, as published."
        ),
    ] = None,
    freq: options.Freq = None,
    fill: options.Fill = None,
    resample: options.Resample = None,
    sort: options.Sort = None,
    covariates: options.Covariates = None,
    past_covariates: options.PastCovariates = None,
    id_col: options.IdCol = None,
    time_col: options.TimeCol = None,
    target_col: options.TargetCol = None,
    config: options.Config = None,
    set_: options.Set = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the report to a .json file.", metavar="FILE"),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", help="Write the table to a .md file.", metavar="FILE"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Score a method and baselines on a held-out test part.

    Methods are fitted on what lies before the test part and forecast every window of it.
    """
    given = {
        "data": data,
        "method": method,
        "horizons": options.whole_numbers("--horizons", horizons),
        "test_size": test_size,
        "test_fraction": test_fraction,
        "baselines": options.names(baselines),
        "stride": stride,
        "seeds": options.whole_numbers("--seeds", seeds),
        "scaled": scaled,
        "freq": freq,
        "fill": fill,
        "resample": resample,
        "sort": sort,
        "covariates": options.names(covariates),
        "past_covariates": options.names(past_covariates),
        "id_col": id_col,
        "time_col": time_col,
        "target_cols": target_col or None,
    }
    job = read_job(BacktestJob, given, config, set_)
    if not job.horizons:
        raise DataError("--horizons is missing: give the steps to forecast, such as 96,192")
    for path, option, ending in ((out, "--out", ".json"), (markdown, "--markdown", ".md")):
        if path is not None:
            check_output(path, option, (ending,))

    with working(f"reading {job.data}"):
        frame, split = open_data(job.data, **job.data_options())

    # After the data, since this takes seconds to import and a wrong file is told at once.
    import tsllm
    from tsllm.long_format import make_forecaster

    estimator = make_forecaster(job.method, **job.settings())
    sizes: dict[str, Any] = {"test_size": job.test_size, "test_fraction": job.test_fraction}
    if split is not None and job.test_size is None and job.test_fraction is None:
        sizes = {
            "train_size": split.train,
            "validation_size": split.validation,
            "test_size": split.test,
        }
        say(f"published split: {split.train}, {split.validation} and {split.test} steps")
    if job.baselines is not None:
        sizes["baselines"] = job.baselines
    names = job.all_covariates()
    report = tsllm.backtest(
        {job.method: estimator},
        frame.drop(columns=names),
        X=frame[["series_id", "timestamp", *names]] if names else None,
        horizons=job.horizons,
        stride=job.stride,
        seeds=job.seeds,
        scaled=job.scaled,
        freq=job.freq,
        progress=sys.stderr.isatty(),
        **sizes,
    )
    if out is not None:
        write_text(report.to_json(), out)
        say(f"wrote {out}")
    if markdown is not None:
        write_text(report.to_markdown(), markdown)
        say(f"wrote {markdown}")
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
