"""``tsllm ablate``: whether the language model helps on this data, or what takes its place."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tsllm.cli import options
from tsllm.cli.config import AblateJob, read_job
from tsllm.cli.data import open_data
from tsllm.cli.output import (
    check_picture,
    check_report_files,
    deliver_ablation,
    say_split,
    working,
)


def ablate(
    data: options.Data = None,
    method: options.Method = None,
    horizons: options.Horizons = None,
    variants: Annotated[
        str | None,
        typer.Option(
            "--variants",
            help="What to run besides pretrained and none, of random, attention, transformer, "
            "shuffled and few; none for none. Default: all of them.",
            metavar="NAMES",
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            "--baselines",
            help="Methods to set beside them, such as theta; none for none. Default: "
            "seasonal_naive,auto_ets,dlinear.",
            metavar="NAMES",
        ),
    ] = None,
    seeds: options.AblationSeeds = None,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric", help="Of mse, mae, mase and smape; default mse.", metavar="METRIC"
        ),
    ] = None,
    min_difference: Annotated[
        float | None,
        typer.Option(
            "--min-difference",
            help="The least difference that matters, as a share of the error; default 0.01.",
            metavar="SHARE",
        ),
    ] = None,
    test_size: options.TestSize = None,
    test_fraction: options.TestFraction = None,
    stride: options.Stride = None,
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
    out: options.ReportOut = None,
    markdown: options.Markdown = None,
    plot: options.AblationPlot = None,
    json: options.Json = False,
) -> None:
    """Find out whether the language model helps on DATA.

    The method is trained as it is, with random weights, with one attention layer or one transformer
    block in the language model's place, and without one: same head, data, seeds and budget. Paired
    differences on a held-out test part lead to a verdict, which may be no. For event streams see
    'tsllm events ablate'.
    """
    given = {
        "data": data,
        "method": method,
        "horizons": options.whole_numbers("--horizons", horizons),
        "variants": options.names(variants),
        "baselines": options.names(baselines),
        "seeds": options.whole_numbers("--seeds", seeds),
        "metric": metric,
        "min_difference": min_difference,
        "test_size": test_size,
        "test_fraction": test_fraction,
        "stride": stride,
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
    job = read_job(AblateJob, given, config, set_)
    job.check_horizons()
    check_report_files(out, markdown)
    check_picture(plot)

    with working(f"reading {job.data}"):
        frame, split = open_data(job.data, **job.data_options())
    how = job.test_options(split) | ({} if job.variants is None else {"variants": job.variants})
    say_split(how)

    # After the data, since this takes seconds to import and a wrong file is told at once.
    import tsllm
    from tsllm.tables.forecast import make_forecaster

    values, X = job.split_covariates(frame)
    report = tsllm.ablate(
        make_forecaster(job.method, **job.settings()),
        values,
        X=X,
        metric=job.metric,
        min_difference=job.min_difference,
        progress=sys.stderr.isatty(),
        **how,
    )
    deliver_ablation(report, out=out, markdown=markdown, plot=plot, json=json)
