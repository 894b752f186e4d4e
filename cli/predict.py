"""``tsllm predict``: forecasts of a saved model, in one table or in a job of many blocks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tsllm.cli import options
from tsllm.cli.data import check_table_file, open_data
from tsllm.cli.output import (
    TABLE_ENDINGS,
    check_folder,
    check_output,
    count,
    deliver,
    deliver_skipped,
    log_form,
    print_json,
    say,
    working,
)
from tsllm.errors import DataError

# Options that a job in blocks does not take.
_NOT_IN_BLOCKS = ("resample", "sep", "decimal", "encoding", "new_series")


@dataclass(frozen=True)
class _Asked:
    """The settings of ``tsllm predict``, with or without blocks.

    ``reading`` holds how DATA are read: arguments of `read_long`.
    """

    model: Path
    data: str | None
    horizon: int | None
    quantiles: Sequence[float]
    batch_size: int | Literal["auto"] | None
    future: str | None
    new_series: str | None
    out: Path | None
    json: bool
    reading: dict[str, Any]
    skip_bad: bool
    backbone: str | None


def predict(
    context: typer.Context,
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="The directory that 'tsllm fit' saved to.")
    ],
    data: options.Data = None,
    horizon: options.Horizon = None,
    quantiles: options.Quantiles = None,
    freq: options.Freq = None,
    fill: options.Fill = None,
    resample: options.Resample = None,
    sort: options.Sort = None,
    skip_bad: options.SkipBad = None,
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
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--engine",
            help="local: this process; ray: the cluster at RAY_ADDRESS, else this machine.",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Number of Ray workers. Default: as many as fit."),
    ] = None,
    worker_cpus: Annotated[
        float, typer.Option("--worker-cpus", min=0, help="Processors and threads per worker.")
    ] = 1.0,
    worker_gpus: Annotated[
        float, typer.Option("--worker-gpus", min=0, help="GPUs per worker.")
    ] = 0.0,
    batch_size: Annotated[
        str | None,
        typer.Option(
            "--batch-size",
            help="Series per batch, or auto to measure the fastest number. Default: the model's.",
            metavar="SERIES",
        ),
    ] = None,
    block_rows: Annotated[
        int | None,
        typer.Option("--block-rows", min=1, help="Rows per block; memory grows with it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write one table to a .csv, .parquet or .jsonl file, or Parquet parts to a "
            "directory. Default: CSV on stdout.",
            metavar="FILE_OR_DIR",
        ),
    ] = None,
    backbone: options.Backbone = None,
    json: options.Json = False,
) -> None:
    """Forecast with a saved model.

    Each series of DATA is forecast from its own history. Without DATA, the model forecasts the
    series that it was fitted on. The default of --horizon is the model's horizon.

    With a directory as --out, Parquet is forecast block by block in bounded memory. A job that was
    killed continues when it is started again.
    """
    in_blocks = out is not None and (out.is_dir() or not out.suffix)
    _refuse_what_has_no_effect(context, in_blocks=in_blocks)
    check_table_file("--future", future)
    check_table_file("--new-series", new_series)

    from tsllm.tables.forecast import DEFAULT_QUANTILES, check_request

    levels = options.read(context, "quantiles")
    asked = _Asked(
        model,
        data,
        horizon,
        DEFAULT_QUANTILES if levels is None else levels,
        _batch_size(batch_size),
        future,
        new_series,
        out,
        json,
        {
            "id_col": id_col,
            "time_col": time_col,
            "target_cols": target_col or None,
            "freq": freq,
            "fill": options.read(context, "fill"),
            "sort": bool(sort),
            "resample": resample,
            **options.written_in(context),
        },
        bool(skip_bad),
        backbone,
    )
    if out is not None and not in_blocks:
        check_output(out, "--out", TABLE_ENDINGS, directory=True)
    check_request(1 if horizon is None else horizon, asked.quantiles)
    if in_blocks:
        from tsllm.batch import Workers

        ray_workers = Workers(workers, worker_cpus, worker_gpus)
        _forecast_in_blocks(asked, engine, ray_workers, block_rows)
    else:
        _forecast_at_once(asked)


def _refuse_what_has_no_effect(context: typer.Context, *, in_blocks: bool) -> None:
    """Refuse options that a run like this one does not read."""
    given = context.params
    if in_blocks:
        remedy = "on a job in blocks: prepare the data first, or give --out the name of a file"
        options.refuse(context, _NOT_IN_BLOCKS, remedy)
    else:
        blocks = ["block_rows"] + ["engine"] * (given["engine"] == "ray")
        remedy = "on one table: give --out the name of a directory for a job in blocks"
        options.refuse(context, blocks, remedy)
    if given["engine"] != "ray":
        workers = ["workers", "worker_cpus", "worker_gpus"]
        options.refuse(context, workers, "without --engine ray: leave it out")
    if given["data"] is None and not in_blocks:
        read = ["target_col", "freq", "fill", "resample"]
        options.refuse(context, read, "without DATA: give DATA, or leave it out")
        if given["future"] is None:  # --new-series has no times
            read = ["time_col", "sort", "tz", "time_format"]
            options.refuse(context, read, "without DATA or --future: give one, or leave it out")
            if given["new_series"] is None:
                read = ["id_col", "sep", "decimal", "encoding"]
                remedy = "without DATA, --future or --new-series: give one, or leave it out"
                options.refuse(context, read, remedy)


def _forecast_at_once(asked: _Asked) -> None:
    """Forecast DATA, or the series that the model keeps, and write one table."""
    from tsllm.batch.sizing import measure_batch_size
    from tsllm.datasets.bad_series import SkippedSeries
    from tsllm.datasets.counts import count_step
    from tsllm.datasets.labels import labels_of
    from tsllm.saving.api import load_forecaster
    from tsllm.tables.covariates import (
        columns_to_read,
        labels_of_model,
        read_future,
        variables_of,
    )
    from tsllm.tables.descriptions import read_descriptions
    from tsllm.tables.forecast import (
        add_new,
        predict_long,
        predict_stored,
        result_columns,
        stored_series,
    )

    skipped = SkippedSeries() if asked.skip_bad else None
    ahead = None if skipped is None else SkippedSeries()  # of the future
    with working("loading the model"):
        estimator = load_forecaster(asked.model, backbone=asked.backbone)
    started = time.perf_counter()
    steps = estimator.fitted_.shape.horizon if asked.horizon is None else asked.horizon
    others = ("target_cols", "freq", "fill", "resample")
    names = {name: value for name, value in asked.reading.items() if name not in others}
    future = read_future(asked.future, estimator, skipped=ahead, **names)
    labels = labels_of_model(estimator)
    new = read_descriptions(asked.new_series, estimator, asked.reading, labels)
    size, freq = asked.batch_size, asked.reading["freq"]
    if freq is None and count_step(estimator.fitted_.shape.freq):
        freq = asked.reading["freq"] = estimator.fitted_.shape.freq  # the data count steps, too
    if asked.data is None and size == "auto":
        raise DataError("--batch-size auto measures on DATA: give a number, or DATA")
    if asked.data is not None:
        columns = columns_to_read(estimator)
        frame, _ = open_data(asked.data, skipped=skipped, **columns, **asked.reading)
        labels = labels_of(frame)
    labels.check_beside(result_columns(len(variables_of(estimator)), asked.quantiles))
    if skipped is not None and ahead is not None:
        there = stored_series(estimator) if asked.data is None else frame["series_id"].unique()
        skipped.adopt(ahead, there)
    with working("forecasting"):
        if size == "auto":
            size = measure_batch_size(estimator, frame, steps, freq=freq, skipped=skipped)
        # Set on the instance: set_params would reset the model.
        estimator.batch_size = size or estimator.batch_size
        how: dict[str, Any] = {
            "quantiles": asked.quantiles,
            "future": future,
            "skipped": skipped,
        }
        if asked.data is None:
            table = predict_stored(estimator, steps, **how)
        else:
            table = predict_long(estimator, frame, steps, freq=freq, **how)
        table = add_new(table, estimator, new, steps, quantiles=asked.quantiles, skipped=skipped)
    seconds = time.perf_counter() - started
    series = table["series_id"].nunique()
    _report(series, steps, seconds)
    left_out = deliver_skipped(skipped, series, asked.out, id_col=labels.id)
    summary = {"series": series, "horizon": steps, "seconds": seconds}
    deliver(labels.restore(table), asked.out, asked.json, {"summary": summary, **left_out})


def _forecast_in_blocks(
    asked: _Asked, engine: Literal["local", "ray"], workers: Any, block_rows: int | None
) -> None:
    """Run a batch job: forecast DATA block by block into a directory."""
    from tsllm.batch import predict_batch
    from tsllm.batch.job import SKIPPED
    from tsllm.datasets.bad_series import SkippedSeries

    out = asked.out
    assert out is not None  # else there are no blocks
    if asked.data is None:
        raise DataError("there is no DATA: give a Parquet file or a directory of Parquet parts")
    check_folder(out.absolute().parent, "--out")
    result = predict_batch(
        asked.model,
        asked.data,
        out,
        horizon=asked.horizon,
        quantiles=asked.quantiles,
        engine=engine,
        workers=workers,
        batch_size=asked.batch_size,
        block_rows=block_rows,
        future=asked.future,
        backbone=asked.backbone,
        on_error="skip" if asked.skip_bad else "raise",
        progress=log_form.get() != "json",
        **{name: value for name, value in asked.reading.items() if name not in _NOT_IN_BLOCKS},
    )
    _report(result.series, result.horizon, result.seconds)
    say(f"wrote {out}, {count(result.blocks, 'parts')}")
    skipped = SkippedSeries() if asked.skip_bad else None
    if skipped is not None:
        skipped.reasons = result.skipped
    left_out = deliver_skipped(skipped, result.series, out, out / SKIPPED, id_col=result.id_col)
    if asked.json:
        summary = {
            name: value for name, value in vars(result).items() if name not in ("skipped", "id_col")
        }
        print_json({"out": str(out), "summary": {**summary, "out": str(result.out)}, **left_out})


def _report(series: int, steps: int, seconds: float) -> None:
    """Print the number of forecasts and the time they took."""
    say(f"forecast {count(series, 'series')} for {count(steps, 'steps')} in {seconds:.1f} s")


def _batch_size(text: str | None) -> int | Literal["auto"] | None:
    """Read --batch-size."""
    if text is None:
        return None
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise DataError(f"--batch-size must be a number of series, or auto, found {text!r}")
    return int(text)
