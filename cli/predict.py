"""``tsllm predict``: forecasts of a saved model, at once or block by block."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tsllm.cli import options
from tsllm.cli.data import check_future_file, open_data
from tsllm.cli.output import (
    TABLE_ENDINGS,
    check_folder,
    check_output,
    count,
    deliver,
    log_form,
    print_json,
    say,
    working,
)
from tsllm.errors import DataError


def predict(
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
    future: options.Future = None,
    id_col: options.IdCol = None,
    time_col: options.TimeCol = None,
    target_col: options.TargetCol = None,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--engine",
            help="Where to run: local, in this process; or ray, on the cluster that RAY_ADDRESS "
            "names, else on this machine.",
        ),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Ray's workers; else all there is room for."),
    ] = None,
    worker_cpus: Annotated[
        float, typer.Option("--worker-cpus", min=0, help="Processors, and threads, of each.")
    ] = 1.0,
    worker_gpus: Annotated[float, typer.Option("--worker-gpus", min=0, help="GPUs of each.")] = 0.0,
    batch_size: Annotated[
        str | None,
        typer.Option(
            "--batch-size",
            help="Series forecast at a time, or auto to measure which number is fastest; else the "
            "model's own.",
            metavar="SERIES",
        ),
    ] = None,
    block_rows: Annotated[
        int | None,
        typer.Option("--block-rows", min=1, help="Rows of a block; memory grows with it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write one table to a .csv, .parquet or .jsonl file, or any number of series as "
            "Parquet parts to a directory; else CSV on stdout.",
            metavar="FILE_OR_DIR",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Forecast with a saved model.

    Each series of DATA is forecast from its own history. Without DATA, the series that the model
    was fitted on are forecast from the history that it keeps of them. Without --horizon, as many
    steps as it was fitted for.

    With a directory as --out, Parquet is forecast block by block in bounded memory: a job that was
    killed goes on when it is started again.
    """
    size = _batch_size(batch_size)
    chosen = options.levels("--quantiles", quantiles)
    in_blocks = out is not None and (out.is_dir() or not out.suffix)
    if out is not None and not in_blocks:
        check_output(out, "--out", TABLE_ENDINGS)
    if not in_blocks and (engine == "ray" or block_rows is not None):
        asked = "--engine ray" if engine == "ray" else "--block-rows"
        raise DataError(f"{asked} writes parts: give --out the name of a directory")

    check_future_file(future)

    from tsllm.tables.forecast import DEFAULT_QUANTILES, check_request

    levels = DEFAULT_QUANTILES if chosen is None else chosen
    check_request(1 if horizon is None else horizon, levels)
    how: dict[str, Any] = {
        "id_col": id_col,
        "time_col": time_col,
        "target_cols": target_col or None,
        "freq": freq,
        "fill": fill,
        "sort": bool(sort),
    }
    if in_blocks:
        assert out is not None
        if data is None:
            raise DataError("there is no DATA: give a Parquet file or a directory of Parquet parts")
        check_folder(out.absolute().parent, "--out")
        if resample is not None:
            raise DataError(
                "--resample is not for jobs in blocks: resample the data first, or write one file"
            )

        from tsllm.batch import Workers, predict_batch

        result = predict_batch(
            model,
            data,
            out,
            horizon=horizon,
            quantiles=levels,
            engine=engine,
            workers=Workers(workers, worker_cpus, worker_gpus),
            batch_size=size,
            block_rows=block_rows,
            future=future,
            progress=log_form.get() != "json",
            **how,
        )
        _tell(result.series, result.horizon, result.seconds)
        say(f"wrote {out}, {count(result.blocks, 'parts')}")
        if json:
            print_json({"out": str(out), "summary": {**vars(result), "out": str(result.out)}})
        return

    from tsllm.batch.sizing import measure_batch_size
    from tsllm.saving.api import load_forecaster
    from tsllm.tables.covariates import columns_to_read, read_future
    from tsllm.tables.forecast import predict_long, predict_stored

    with working("loading the model"):
        estimator = load_forecaster(model)
    started = time.perf_counter()
    steps = estimator.fitted_.shape.horizon if horizon is None else horizon
    known = read_future(future, estimator, id_col=id_col, time_col=time_col, sort=bool(sort))
    # Set on the instance: set_params would take the model for a new one.
    if data is None:
        if size == "auto":
            raise DataError("--batch-size auto measures on DATA: give a number, or DATA")
        estimator.batch_size = size or estimator.batch_size
        table = predict_stored(estimator, steps, quantiles=levels, future=known)
    else:
        frame, _ = open_data(data, resample=resample, **columns_to_read(estimator), **how)
        with working("forecasting"):
            if size == "auto":
                size = measure_batch_size(estimator, frame, steps, freq=freq)
            estimator.batch_size = size or estimator.batch_size
            table = predict_long(estimator, frame, steps, quantiles=levels, freq=freq, future=known)
    seconds = time.perf_counter() - started
    series = table["series_id"].nunique()
    _tell(series, steps, seconds)
    summary = {"series": series, "horizon": steps, "seconds": seconds}
    deliver(table, out, json, {"summary": summary})


def _tell(series: int, steps: int, seconds: float) -> None:
    """Say in a line how it went."""
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
