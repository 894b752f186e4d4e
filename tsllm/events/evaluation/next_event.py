"""Predictions of the next event held to the truth, with the plainest guesses beside them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsllm.events.batching import Intervals

if TYPE_CHECKING:
    from tsllm.events.base import EventForecaster

#: Predicted gaps of less than this share of the true ones, in the mean, are next to zero.
NEXT_TO_ZERO = 0.02


@dataclass(frozen=True)
class EventEvaluation:
    """How a model and the plainest guesses predict the next event.

    Attributes
    ----------
    table : DataFrame
        One row for the model and one for each guess. ``log_likelihood`` per event,
        ``type_error`` (the share of wrong types), ``time_rmse`` (of the mean) and ``time_mae`` (of
        the median) in the user's unit of time; NaN where a guess says nothing.
    events : int
        How many events were predicted.
    notes : tuple of str
        What a reader must know: guesses that the model does not beat, predictions next to zero.
    next_to_zero : bool
        Whether the model's gaps are next to zero: its time predictions say nothing then, whatever
        their errors.
    """

    table: pd.DataFrame
    events: int
    notes: tuple[str, ...]
    next_to_zero: bool = False

    def __getitem__(self, metric: str) -> float:
        """Give one of the model's figures."""
        return float(self.table[metric].iloc[0])

    def __str__(self) -> str:
        table = self.table.to_string(float_format=lambda value: f"{value:.4g}", na_rep="")
        return "\n".join([f"{self.events} events predicted", table, *self.notes])

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values, for JSON; what a guess does not say is None."""
        rows = {
            str(name): {metric: None if np.isnan(v) else float(v) for metric, v in row.items()}
            for name, row in self.table.iterrows()
        }
        return {"events": self.events, "table": rows, "notes": list(self.notes)}


def compare_with_guesses(
    forecaster: EventForecaster,
    intervals: Intervals,
    log_likelihoods: np.ndarray,
    waited: np.ndarray,
    means: np.ndarray,
    medians: np.ndarray,
    types: np.ndarray,
) -> EventEvaluation:
    """Hold predictions of the next event to the truth.

    Parameters
    ----------
    forecaster : EventForecaster
        Fitted; gives the time scale and the statistics of the guesses.
    intervals : Intervals
        Those that were scored, n of them; predictions are judged where an event ends them.
    log_likelihoods, waited, means, medians : float arrays (n,)
        Scaled: of each interval, the part of it that was given, the predicted mean and median time
        from the event before.
    types : array (n, types)
        Predicted probabilities.

    Returns
    -------
    EventEvaluation

    Warns
    -----
    UserWarning
        The predicted gaps are next to zero.
    """
    seen, scale = intervals.observed, forecaster.time_scale_
    n = int(seen.sum())
    truth, code, waited = (
        (intervals.end - intervals.start)[seen],
        intervals.code[seen],
        waited[seen],
    )
    last = intervals.gap_before[seen]
    last = np.where(np.isnan(last), forecaster.mean_gap_, last)
    gaps = {
        "mean gap": np.full(n, forecaster.mean_gap_),
        "median gap": np.full(n, forecaster.median_gap_),
        "last gap": last,
        "zero gap": np.zeros(n),
    }
    majority = int(forecaster.type_counts_.argmax())
    # Where a type was never followed by any, argmax would say class 0: the majority is better.
    followed = forecaster.transition_counts_.sum(1) > 0
    usual = np.where(followed, forecaster.transition_counts_.argmax(1), majority)
    before = intervals.code_before[seen]
    guesses = {
        "majority type": np.full(n, majority),
        "Markov type": np.where(before < 0, majority, usual[before]),
    }
    rows: dict[str, dict[str, float]] = {
        type(forecaster).__name__: {
            "log_likelihood": log_likelihoods.sum() / n - np.log(scale) if n else np.nan,
            "type_error": _mean(types[seen].argmax(1) != code),
            "time_rmse": np.sqrt(_mean((scale * means[seen] - truth) ** 2)),
            "time_mae": _mean(np.abs(scale * medians[seen] - truth)),
        }
    }
    for name, gap in gaps.items():
        error = np.maximum(gap, scale * waited) - truth  # what has passed is known
        rows[name] = {"time_rmse": np.sqrt(_mean(error**2)), "time_mae": _mean(np.abs(error))}
    for name, guess in guesses.items():
        rows[name] = {"type_error": _mean(guess != code)}
    columns = ["log_likelihood", "type_error", "time_rmse", "time_mae"]
    table = pd.DataFrame(list(rows.values()), index=list(rows), columns=columns)
    notes = [_beaten(table, metric) for metric in ("type_error", "time_rmse", "time_mae")]
    ahead, left = scale * (means[seen] - waited), truth - scale * waited
    zero = n > 0 and _mean(ahead) < NEXT_TO_ZERO * _mean(left)
    if zero:
        flag = (
            f"the predicted gaps are next to zero (mean {_mean(ahead):.3g}, true "
            f"{_mean(left):.3g}): the time predictions say nothing, whatever their errors"
        )
        warnings.warn(f"{type(forecaster).__name__}: {flag}", UserWarning, stacklevel=3)
        notes.append(flag)
    return EventEvaluation(table, n, tuple(note for note in notes if note), zero)


def _mean(values: np.ndarray) -> float:
    """Give a mean, NaN of nothing."""
    return float(np.mean(values)) if len(values) else np.nan


def _beaten(table: pd.DataFrame, metric: str) -> str:
    """Say which guess is at least as good as the model, if one is."""
    model, guesses = table[metric].iloc[0], table[metric].iloc[1:].dropna()
    if not len(guesses) or not guesses.min() <= model or model == 0:
        return ""
    return (
        f"{metric}: the guess {guesses.idxmin()!r} ({guesses.min():.4g}) is at least as good as "
        f"the model ({model:.4g})"
    )
