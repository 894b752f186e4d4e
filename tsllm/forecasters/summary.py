"""What a fitted forecaster says of itself: its summary, and the request that serves it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from tsllm.context import Context
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


def payload(
    contexts: Iterable[Context], columns: pd.Index, horizon: int, quantiles: Sequence[float]
) -> dict[str, Any]:
    """Write the request for a forecast of these histories; see `BaseLLMForecaster.to_payload`."""
    rows: list[list[Any]] = []
    for context in contexts:
        name = "series" if context.series_id is None else str(context.series_id)
        values = context.values.tolist()
        for stamp, row in zip(_plain_stamps(context.times), values):
            rows.append([name, stamp, *(None if v != v else v for v in row)])  # NaN is not JSON
    names = ["y"] if list(columns) in ([None], [0]) else [str(c) for c in columns]
    return {
        "dataframe_split": {"columns": ["series_id", "timestamp", *names], "data": rows},
        "params": {"horizon": int(horizon), "quantiles": [float(q) for q in quantiles]},
    }


def _plain_stamps(times: pd.Index) -> list[str] | list[int]:
    """Write stamps as ISO texts in UTC without a zone; integers stay."""
    if isinstance(times, pd.PeriodIndex):
        times = times.to_timestamp()
    if not isinstance(times, pd.DatetimeIndex):
        return [int(step) for step in times]
    if times.tz is not None:
        times = times.tz_convert("UTC").tz_localize(None)
    return [stamp.isoformat() for stamp in times]
