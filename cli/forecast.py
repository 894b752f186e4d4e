"""``tsllm forecast`` and ``tsllm fit``: models of series, and forecasts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsllm.cli import options
from tsllm.cli.config import FitJob, ForecastJob, checkpoint_settings, job_of, write_job
from tsllm.cli.data import check_table_file, open_data
from tsllm.cli.output import (
    TABLE_ENDINGS,
    check_folder,
    check_output,
    check_page,
    check_picture,
    count,
    deliver,
    deliver_skipped,
    print_json,
    say,
    silence,
    working,
    write_page,
    write_picture,
)
from tsllm.errors import DataError
from tsllm.saving.files import write_text

if TYPE_CHECKING:
    import pandas as pd

    from tsllm.datasets.bad_series import SkippedSeries
    from tsllm.forecasters.base import SeriesForecaster


def forecast(
    context: typer.Context,
    data: options.Data = None,
    horizon: options.Horizon = None,
    method: options.FittedMethod = None,
    quantiles: options.Quantiles = None,
    freq: options.Freq = None,
    fill: options.Fill = None,
    resample: options.Resample = None,
    sort: options.Sort = None,
    skip_bad: options.SkipBad = None,
    covariates: options.Covariates = None,
    past_covariates: options.PastCovariates = None,
    text: options.Text = None,
    static_text: options.StaticText = None,
    future: options.Future = None,
    new_series: options.NewSeries = None,
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
    out: options.Out = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Draw the forecasts of the first six series and variables to a .png, .svg or .pdf "
            "file.",
            metavar="FILE",
        ),
    ] = None,
    page: options.Report = None,
    json: options.Json = False,
) -> None:
    """Fit one model on all series and forecast each of them."""
    job = job_of(ForecastJob, context)
    if job.horizon is None:
        raise DataError("--horizon is missing: give the steps to forecast")
    if out is not None:
        check_output(out, "--out", TABLE_ENDINGS)
    check_picture(plot)
    check_page(page)
    check_table_file("--future", job.future)
    check_table_file("--new-series", job.new_series)
    frame, estimator, skipped = _prepare(job, job.horizon, job.quantiles)

    from tsllm.datasets.labels import labels_of
    from tsllm.tables.covariates import read_future_ahead, variables_of
    from tsllm.tables.descriptions import read_descriptions
    from tsllm.tables.forecast import add_new, predict_long

    labels = labels_of(frame)
    new = read_descriptions(job.new_series, estimator, job.reading(), labels)
    known = read_future_ahead(
        job.future,
        estimator,
        frame,
        job.all_covariates(),
        job.horizon,
        skipped=skipped,
        **job.reading(),
    )
    if skipped is not None:
        frame = skipped.without(frame)
    _train(job, frame, estimator, job.horizon)
    with working("forecasting"):
        table = predict_long(
            estimator,
            frame,
            job.horizon,
            quantiles=job.quantiles,
            freq=job.freq,
            future=known,
            skipped=skipped,
        )
        table = add_new(
            table, estimator, new, job.horizon, quantiles=job.quantiles, skipped=skipped
        )
    if plot is not None:
        from tsllm.plotting.forecasts import plot_panel

        figure = plot_panel(frame, table, future=known, variables=variables_of(estimator))
        write_picture(figure, plot)
        say(f"wrote {plot}")
    if page is not None:
        from tsllm.reports import report_forecast

        reasons = {} if skipped is None else skipped.reasons
        made = report_forecast(
            frame,
            labels.restore(table),
            future=known,
            variable=variables_of(estimator)[0],
            title=f"Forecast of {Path(job.data).name}",
            summary=estimator.summary(),
            settings=asdict(job),
            notes=[f"{name} was left out: {reason}" for name, reason in reasons.items()],
        )
        write_page(made, page)
    drawn_to = None if plot is None else str(plot)
    left_out = deliver_skipped(skipped, table["series_id"].nunique(), out, id_col=labels.id)
    deliver(
        labels.restore(table),
        out,
        json,
        {
            "plot": drawn_to,
            "report": None if page is None else str(page),
            "summary": estimator.summary(),
            **left_out,
        },
    )


def fit(
    context: typer.Context,
    data: options.Data = None,
    out: options.ModelOut = None,
    method: options.FittedMethod = None,
    horizon: options.Horizon = None,
    freq: options.Freq = None,
    fill: options.Fill = None,
    resample: options.Resample = None,
    sort: options.Sort = None,
    skip_bad: options.SkipBad = None,
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
    checkpoint: options.Checkpoint = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Fit one model on all series and save it.

    The settings are written to job.yaml in the model's directory. On several devices: accelerate
    launch --multi_gpu --num_processes 2 -m tsllm.cli fit DATA --out MODEL_DIR
    """
    job = job_of(FitJob, context)
    if out is None:
        raise DataError("--out is missing: give the directory to save the model to")
    check_folder(out.absolute().parent, "--out")

    from tsllm.datasets.labels import labels_of
    from tsllm.saving.api import save
    from tsllm.saving.directory import JOB, check_target
    from tsllm.training import distributed
    from tsllm.training.checkpoints import remove_checkpoints

    check_target(out, overwrite=overwrite)
    together = distributed.join()
    seeded = checkpoint is not None or job.parameters.get("random_state") is not None
    if together.size > 1 and not seeded:
        job.parameters["random_state"] = distributed.agreed_seed()
    with nullcontext() if together.leads else silence():
        frame, estimator, skipped = _prepare(job, job.horizon, checkpoint=checkpoint)
        known = job.known_covariates()
        if known:
            say(
                f"predictions of the model will need the future of {', '.join(known)} (--future): "
                "name covariates whose future is not known in --past-covariates"
            )
        _train(job, frame, estimator, job.horizon)
    if together.leads:
        folder = save(estimator, out, overwrite=overwrite)
        write_text(write_job(job), folder / JOB)
        if checkpoint is not None:
            remove_checkpoints(checkpoint)
        series = frame["series_id"].nunique()
        beside = out.with_name(f"{out.name}.csv")
        left_out = deliver_skipped(skipped, series, beside, id_col=labels_of(frame).id)
        say(f"saved the model in {out}")
        if json:
            print_json({"model": str(folder), "summary": estimator.summary(), **left_out})
    distributed.leave()


def _prepare(
    job: FitJob,
    horizon: int | None,
    quantiles: Sequence[float] = (),
    checkpoint: Path | None = None,
) -> tuple[pd.DataFrame, SeriesForecaster, SkippedSeries | None]:
    """Read the data and make the forecaster, with all checks before the training.

    The last value collects the series that are left out; None without --skip-bad.
    """
    from tsllm.datasets.bad_series import SkippedSeries
    from tsllm.datasets.labels import labels_of

    skipped = SkippedSeries() if job.skip_bad else None
    with working(f"reading {job.data}"):
        frame, _ = open_data(job.data, skipped=skipped, **job.data_options())

    # After the data, since this takes seconds to import and a wrong file is told at once.
    from tsllm.tables.forecast import check_request, fittable, make_forecaster, result_columns

    check_request(1 if horizon is None else horizon, quantiles)
    variables = len(frame.columns) - 2 - len(job.all_covariates())
    labels_of(frame).check_beside(result_columns(variables, quantiles))
    settings: dict[str, Any] = {
        "prediction_length": horizon,
        "verbose": int(sys.stderr.isatty()),
        **checkpoint_settings(job, checkpoint),
        **job.settings(),
    }
    estimator = make_forecaster(job.method, **settings)
    if skipped is not None:
        frame = fittable(estimator, frame, job.all_covariates(), skipped)
    return frame, estimator, skipped


def _train(
    job: FitJob, frame: pd.DataFrame, estimator: SeriesForecaster, horizon: int | None
) -> None:
    """Fit the forecaster and print a line about it."""
    from tsllm.tables.forecast import fit_long

    fit_long(estimator, frame, horizon, covariates=job.all_covariates())
    summary = estimator.summary()
    say(_in_a_line(job, frame, summary))
    for line in _lines_of_candidates(summary):
        say(line)


def _lines_of_candidates(summary: dict[str, Any]) -> list[str]:
    """Write the table of an AutoForecaster's candidates, and what its language model added."""
    if "candidates" not in summary:
        return []
    lines = [f"  {'candidate':<24} {'error':>8} {'weight':>7} {'seconds':>8}"]
    for row in summary["candidates"]:
        if "note" in row:
            lines.append(f"  {row['candidate']:<24} {row['note']}")
            continue
        error = "-" if row["error"] is None else f"{row['error']:.4g}"
        lines.append(
            f"  {row['candidate']:<24} {error:>8} {row['weight']:>7.2f} {row['seconds']:>8.1f}"
        )
    error = "-" if summary["error"] is None else f"{summary['error']:.4g}"
    lines.append(f"  {'combination':<24} {error:>8} {1:>7.2f} {summary['seconds']:>8.1f}")
    said: str = summary["language_model"]
    return [*lines, f"{said[0].upper()}{said[1:]}."]


def _in_a_line(job: FitJob, frame: pd.DataFrame, summary: dict[str, Any]) -> str:
    """Describe a training in one line."""
    model = "no language model"
    if summary["backbone"] is not None:
        model = (
            f"{summary['backbone']} ({summary['backbone_source']}), "
            f"{count(summary['backbone_layers'], 'layers')}"
        )
    start = (
        f"fitted {job.method} on {count(frame['series_id'].nunique(), 'series')}: {model}; "
        f"random_state {job.parameters['random_state']}; "
    )
    trained = f"{count(summary['trained_parameters'], 'parameters')} trained"
    if "candidates" in summary:
        compared = f"compared on {summary['windows']} windows"
        return f"{start}{trained}, {summary['seconds']:.1f} s, {compared}"
    if summary["stopped"] == "not trained":
        return f"{start}nothing trained, {summary['seconds']:.1f} s"
    held_out = summary["validation_loss"]
    loss = "none held out" if held_out is None else f"{held_out:.4g}"
    return (
        f"{start}{trained}, {count(summary['epochs'], 'epochs')}, {summary['seconds']:.1f} s, "
        f"validation loss {loss}"
    )
