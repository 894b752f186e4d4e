"""``tsllm ablate``: a test of whether the language model helps on DATA."""

from dataclasses import asdict
from typing import Annotated

import typer

from tsllm.cli import options
from tsllm.cli.config import AblateJob, job_of
from tsllm.cli.data import open_data
from tsllm.cli.output import (
    check_page,
    check_picture,
    check_report_files,
    deliver_ablation,
    log_form,
    say_split,
    working,
)


def ablate(
    context: typer.Context,
    data: options.Data = None,
    method: options.Method = None,
    horizons: options.Horizons = None,
    variants: Annotated[
        str | None,
        typer.Option(
            "--variants",
            help="Variants besides pretrained and none: random, attention, transformer, shuffled, "
            "few, or with --text shuffled, past, tfidf, random; or none. Default: all.",
            metavar="NAMES",
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            "--baselines",
            help="Methods to compare with, such as theta or flair, or none. Default: "
            "seasonal_naive,auto_ets,dlinear.",
            metavar="NAMES",
        ),
    ] = None,
    seeds: options.AblationSeeds = None,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="mse, mae, mase or smape. Default: mse.", metavar="METRIC"),
    ] = None,
    min_difference: Annotated[
        float | None,
        typer.Option(
            "--min-difference",
            help="Smallest difference that matters, as a share of the error. Default: 0.01.",
            metavar="SHARE",
        ),
    ] = None,
    as_given: Annotated[
        bool | None,
        typer.Option(
            "--as-given",
            help="All variants keep the settings of the method. Default: each chooses its loss.",
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
    text: options.Text = None,
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
    plot: options.AblationPlot = None,
    page: options.Report = None,
    json: options.Json = False,
) -> None:
    """Test whether the language model helps on DATA.

    The method is trained with its language model, with random weights, with one attention layer or
    one transformer block instead, and without a language model: same head, data, seeds and budget.
    Each of these chooses its loss by itself. Paired differences on a held-out test part lead to a
    verdict. For event streams see 'tsllm events ablate'.

    With --text the question is whether these columns help, and whether the language model that
    reads them does: no text, texts in random order, texts of the past only, a bag of words, and
    random weights.
    """
    job = job_of(AblateJob, context)
    job.check_horizons()
    if job.text:
        options.refuse(context, ["as_given"], "with --text: all variants have the same settings")
    check_report_files(out, markdown)
    check_picture(plot)
    check_page(page)

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
        text=job.text,
        metric=job.metric,
        min_difference=job.min_difference,
        as_given=job.as_given,
        progress=log_form.get() != "json",
        **how,
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
