"""``tsllm embed``: fill the embedding store before fitting."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsllm.cli import options
from tsllm.cli.config import FitJob, job_of
from tsllm.cli.data import open_data
from tsllm.cli.output import check_folder, deliver_skipped, print_json
from tsllm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from tsllm.datasets.bad_series import SkippedSeries


def embed(
    context: typer.Context,
    data: options.Data = None,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            help="Folder of the store. Default: TSLLM_STORE, else the user's cache folder.",
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
    json: options.Json = False,
) -> None:
    """Embed all texts that fitting a method to DATA needs, or the texts of columns.

    With --text or --static-text the texts of these columns are embedded, for any method. A fit with
    the same settings and 'embedding_store' then does not run the language model on them. Texts in
    the store are skipped, so a command that was stopped continues when it is started again.
    """
    of_columns = text is not None or static_text is not None
    if of_columns:
        unread = ["method", "horizon", "covariates", "past_covariates"]
        options.refuse(context, unread, "on the texts of columns: leave it out")
    job = job_of(FitJob, context, method=method or (None if config else "timecma"))
    settings: dict[str, Any] = {"verbose": 1, **job.settings()}
    if store is not None:
        check_folder(store.absolute(), "--store")
        settings["embedding_store"] = str(store)

    from tsllm.datasets.bad_series import SkippedSeries

    skipped = SkippedSeries() if job.skip_bad else None
    frame, _ = open_data(job.data, skipped=skipped, **job.data_options())

    if of_columns:
        _check_parameters(job.parameters)
        done = _embed_columns(job, frame, store)
    else:
        done, frame = _embed_for_method(job, frame, settings, skipped)
    left_out = deliver_skipped(skipped, frame["series_id"].nunique(), None, listed_by="--json")
    if json:
        print_json(done | left_out)
    else:
        print(
            f"{done['texts']:,} texts, {done['computed']:,} embedded now in {done['seconds']:.1f} "
            f"s, kept in {done['path']}"
        )


def _embed_columns(job: FitJob, frame: pd.DataFrame, store: Path | None) -> dict[str, Any]:
    """Embed the sentences of the columns of text."""
    from tsllm.backbone import DEFAULT_BACKBONE
    from tsllm.text import embed_ahead

    columns = [*(job.text or []), *(job.static_text or [])]
    texts = [None if text is None else str(text) for name in columns for text in frame[name]]
    # The store keeps each precision apart: a fit reads texts with its dtype, descriptions without.
    read = ["device"] if job.static_text else ["device", "dtype"]
    how = {name: job.parameters[name] for name in read if name in job.parameters}
    return embed_ahead(
        texts,
        job.parameters.get("text_backbone", DEFAULT_BACKBONE),
        store=store or job.parameters.get("embedding_store"),
        progress=sys.stderr.isatty(),
        **how,
    )


def _check_parameters(parameters: Iterable[str]) -> None:
    """Check that some method has each of the parameters, which a fit shares with this command."""
    from tsllm.forecasters.methods import METHODS
    from tsllm.tables.descriptions import OWN_ARGUMENTS

    known = {
        *OWN_ARGUMENTS,
        *(name for cls in METHODS.values() for name in cls().get_param_names()),
    }
    for name in parameters:
        if name not in known:
            near = get_close_matches(name, sorted(known), n=1)
            remedy = f"did you mean {near[0]!r}?" if near else "leave it out"
            raise DataError(f"no method has a parameter {name!r}: {remedy}")


def _embed_for_method(
    job: FitJob, frame: pd.DataFrame, settings: dict[str, Any], skipped: SkippedSeries | None
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Embed what a fit of the method embeds; return the counts, and the rows without bad series."""
    from tsllm.tables.covariates import split_frame
    from tsllm.tables.forecast import check_request, fittable, make_forecaster

    check_request(1 if job.horizon is None else job.horizon, ())
    estimator = make_forecaster(job.method, **settings)
    if not hasattr(estimator, "embed"):
        raise DataError(f"method {job.method!r} embeds no text itself: name timecma or autotimes")
    if skipped is not None:
        frame = fittable(estimator, frame, job.all_covariates(), skipped)
    steps = None if job.horizon is None else list(range(1, job.horizon + 1))
    y, X = split_frame(frame, job.all_covariates())
    done = estimator.embed(y, fh=steps, X=X)
    return done, frame
