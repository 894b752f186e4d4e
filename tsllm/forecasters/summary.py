"""What a fitted forecaster says of itself: its summary, and the request that serves it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.context import Context
from tsllm.covariates import CovariateColumns
from tsllm.forecasters.frames import stamps_after
from tsllm.forecasters.state import FittedState


def summarise(state: FittedState) -> dict[str, Any]:
    """Say what was trained, for how long, and how it went.

    Parameters
    ----------
    state : FittedState
        Trained and calibrated.

    Returns
    -------
    dict
        Parameter counts, sizes, epochs run and best, losses, seconds, device, precision,
        calibration windows, and how much the covariates explain.
    """
    backbone, calibration = state.backbone, state.calibration
    assert calibration is not None  # training ends with it
    last = state.history[-1] if state.history else {}
    # Epochs count anew in each training: the latest one of that number is meant.
    best = next((h for h in reversed(state.history) if h["epoch"] == state.best_epoch), last)
    return {
        "backbone": None if backbone is None else backbone.spec,
        "backbone_source": None if backbone is None else backbone.source,
        "backbone_layers": None if backbone is None else backbone.n_layers,
        "trained_parameters": sum(p.numel() for p in state.model.parameters()),
        "frozen_parameters": 0 if backbone is None else backbone.parameter_count,
        "context_length": state.shape.context_length,
        "horizon": state.shape.horizon,
        **state.shape.extra,
        "epochs": len(state.history),
        "best_epoch": state.best_epoch,
        "steps": last.get("step", 0),
        "train_loss": best.get("train_loss"),
        "validation_loss": best.get("validation_loss"),
        "stopped": state.stopped,
        "seconds": state.seconds,
        "device": str(state.device),
        "dtype": "float32" if backbone is None else str(backbone.dtype).removeprefix("torch."),
        "calibration_windows": len(calibration.pooled.errors),
        "calibration_in_sample": calibration.in_sample,
        **({} if state.covariates is None else state.covariates.summary()),
    }


def card_facts(
    state: FittedState, loss: str, *, pretrained: bool, with_context: bool
) -> dict[str, Any]:
    """Return what the card of a saved forecaster says of its training.

    Parameters
    ----------
    state : FittedState
        Trained and calibrated.
    loss : str
        The name of the training loss.
    pretrained : bool
        Whether the forecaster is not fitted to series of its own yet.
    with_context : bool
        Whether it was saved with the last values of its series.

    Returns
    -------
    dict
        As `tsllm.saving.cards.model_card` reads it.
    """
    told, last = summarise(state), state.history[-1] if state.history else {}
    known = () if state.covariates is None else state.covariates.columns.known
    usage = "model.predict(fh=[1, 2, 3])"
    if pretrained:
        usage = "model.fit(y).predict(fh=[1, 2, 3])  # fit adopts the pretrained model"
    elif not with_context:
        usage = "model.update(y)  # the model was saved without its last values"
    elif known:
        usage = f"model.predict(fh=[1, 2, 3], X=X)  # X: {', '.join(known)}, of those steps"
    series = [
        f"{span['series']} series with {span['steps']} steps in all, {span['first']} to "
        f"{span['last']}"
        for span in state.trained_on
    ]
    held_out, calibration = told["validation_loss"], state.calibration
    assert calibration is not None  # training ends with it
    windows = "training windows, so likely too narrow" if calibration.in_sample else "windows"
    return {
        "kind": f"A time-series forecaster, {'pretrained' if pretrained else 'fitted'}",
        "usage": usage,
        "trained_on": [
            *series,
            f"frequency: {state.shape.freq or 'steps without dates'}",
            f"variables: {state.shape.n_variables}",
            f"context: {state.shape.context_length} steps",
        ],
        "backbone": state.backbone,
        "results": {
            "Validation": {
                "loss": f"{loss}, on standardised values",
                "best epoch": f"{state.best_epoch} of {last.get('epoch', 0)}",
                "training loss": told["train_loss"],
                "validation loss": "none held out" if held_out is None else held_out,
                "seconds": round(state.seconds, 1),
                "intervals": f"calibrated for {calibration.horizon} steps on "
                f"{told['calibration_windows']} {windows}"
                + (", and adaptive" if calibration.adaptive else ""),
            }
        },
    }


def payload(
    contexts: Sequence[Context],
    columns: pd.Index,
    horizon: int,
    quantiles: Sequence[float],
    covariates: CovariateColumns | None,
    futures: Sequence[np.ndarray | None] | None,
) -> dict[str, Any]:
    """Write the request for a forecast of these histories; see `BaseLLMForecaster.to_payload`."""
    rows: list[list[Any]] = []
    for number, context in enumerate(contexts):
        name = "series" if context.series_id is None else str(context.series_id)
        past = _plain_rows(context.values)
        if covariates is not None:
            beside = _beside(context, covariates)
            past = [[*row, *x, False] for row, x in zip(past, beside)]
        rows += [[name, stamp, *row] for stamp, row in zip(_plain_stamps(context.times), past)]
        future = None if futures is None else futures[number]
        if covariates is not None and future is not None:
            nothing = [None] * context.n_variables
            known = (dict(zip(covariates.known, row)) for row in _plain_rows(future))
            ahead = [[*map(x.get, covariates.everything), True] for x in known]
            stamps = _plain_stamps(stamps_after(context, horizon))
            rows += [[name, stamp, *nothing, *x] for stamp, x in zip(stamps, ahead)]
    names = ["y"] if list(columns) in ([None], [0]) else [str(c) for c in columns]
    if covariates is not None:
        names += [*covariates.everything, "future"]
    return {
        "dataframe_split": {"columns": ["series_id", "timestamp", *names], "data": rows},
        "params": {"horizon": int(horizon), "quantiles": [float(q) for q in quantiles]},
    }


def _beside(context: Context, covariates: CovariateColumns) -> list[list[Any]]:
    """Give the covariates and attributes of each step."""
    x = [[]] * len(context) if context.past_x is None else _plain_rows(context.past_x)
    attributes = [(context.static or {}).get(name) for name in covariates.static]
    return [[*row, *attributes] for row in x]


def _plain_rows(values: np.ndarray) -> list[list[Any]]:
    """Give rows as lists; NaN is not JSON."""
    return [[None if v != v else v for v in row] for row in values.tolist()]


def _plain_stamps(times: pd.Index) -> list[str] | list[int]:
    """Write stamps as ISO texts in UTC without a zone; integers stay."""
    if isinstance(times, pd.PeriodIndex):
        times = times.to_timestamp()
    if not isinstance(times, pd.DatetimeIndex):
        return [int(step) for step in times]
    if times.tz is not None:
        times = times.tz_convert("UTC").tz_localize(None)
    return [stamp.isoformat() for stamp in times]
