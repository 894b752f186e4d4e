"""``tsllm embed``: fill the embedding store ahead of time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tsllm.cli import options
from tsllm.cli.config import FitJob, read_job
from tsllm.cli.data import open_data
from tsllm.cli.output import check_folder, print_json


def embed(
    data: options.Data = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            help="The store's folder; default: TSLLM_STORE, else the user's cache folder.",
            metavar="DIR",
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", help="Default: timecma.", metavar="METHOD")
    ] = None,
    horizon: options.Horizon = None,
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
    json: options.Json = False,
) -> None:
    """Embed ahead of time everything that fitting a method to DATA would embed.

    Fitting with the same settings and 'embedding_store' then never runs the language model. What
    was embedded before is left alone, so a command that was stopped goes on where it was.
    """
    given = {
        "data": data,
        "horizon": horizon,
        "method": method or (None if config else "timecma"),
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
    job = read_job(FitJob, given, config, set_)
    settings: dict[str, Any] = {"verbose": 1, **job.settings()}
    if store is not None:
        check_folder(store.absolute(), "--store")
        settings["embedding_store"] = str(store)
    frame, _ = open_data(job.data, **job.data_options())

    # After the data, since this takes seconds to import and a wrong file is told at once.
    from tsllm.tables.covariates import split_frame
    from tsllm.tables.forecast import check_request, make_forecaster

    check_request(1 if job.horizon is None else job.horizon, ())
    estimator = make_forecaster(job.method, **settings)
    steps = None if job.horizon is None else list(range(1, job.horizon + 1))
    y, X = split_frame(frame, job.all_covariates())
    done = estimator.embed(y, fh=steps, X=X)
    if json:
        print_json(done)
    else:
        print(
            f"{done['texts']:,} texts, {done['computed']:,} embedded now in {done['seconds']:.1f} "
            f"s, kept in {done['path']}"
        )
