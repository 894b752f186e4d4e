"""Evaluation of next-event predictions, beside naive guesses."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsllm.events.batching import Intervals
from tsllm.pages.notebook import piece

#: Mean predicted times of less than this share of the true ones are next to zero.
NEXT_TO_ZERO = 0.02


@dataclass(frozen=True)
class EventEvaluation:
    """Errors of a model's next-event predictions, beside those of naive guesses.

    Attributes
    ----------
    table : DataFrame
        One row for the model and one for each guess. ``log_likelihood`` per event,
        ``type_error`` (the share of wrong types), ``time_rmse`` (of the mean) and ``time_mae`` (of
        the median) in the user's unit of time; NaN where a guess has no such value.
    events : int
        Number of predicted events.
    notes : tuple of str
        Warnings: guesses that the model does not beat, predictions next to zero.
    next_to_zero : bool
        True where the model's inter-event times are next to zero: its time predictions are
        useless then, whatever their errors.
    """

    table: pd.DataFrame
    events: int
    notes: tuple[str, ...]
    next_to_zero: bool = False

    def __getitem__(self, metric: str) -> float:
        """Return one of the model's figures."""
        return float(self.table[metric].iloc[0])

    def __str__(self) -> str:
        table = self.table.to_string(float_format=lambda value: f"{value:.4g}", na_rep="")
        return "\n".join([f"{self.events} events predicted", table, *self.notes])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = self.table.rename_axis("").reset_index()
        return piece(f"{self.events:,} events predicted", {"": table}, self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON; NaN becomes None."""
        rows = {
            str(name): {metric: None if np.isnan(v) else float(v) for metric, v in row.items()}
            for name, row in self.table.iterrows()
        }
        return {"events": self.events, "table": rows, "notes": list(self.notes)}


def compare_with_guesses(
    forecaster: Any,
    intervals: Intervals,
    log_likelihoods: np.ndarray,
    lower: np.ndarray,
    means: np.ndarray,
    medians: np.ndarray,
    types: np.ndarray,
) -> EventEvaluation:
    """Compare predictions of the next event, and naive guesses, with the observed events.

    The guesses use the statistics of the forecaster's training events. Predictions are evaluated
    where an event ends an interval. ``log_likelihoods``, ``lower``, ``means`` and ``medians`` (n,)
    are scaled: of each interval, its given part, and the predicted mean and median time from the
    event before. ``types`` (n, types) are predicted probabilities.
    """
    seen, scale = intervals.observed, forecaster.time_scale_
    mean, name = forecaster.mean_inter_event_time_, type(forecaster).__name__
    n = int(seen.sum())
    truth, code, lower = (
        (intervals.end - intervals.start)[seen],
        intervals.code[seen],
        lower[seen],
    )
    last = intervals.length_before[seen]
    last = np.where(np.isnan(last), mean, last)
    times = {
        "mean gap": np.full(n, mean),
        "median gap": np.full(n, forecaster.median_inter_event_time_),
        "last gap": last,
        "zero gap": np.zeros(n),
    }
    majority = int(forecaster.type_counts_.argmax())
    # Where a type was never followed by any, argmax would be class 0: the majority is better.
    followed = forecaster.transition_counts_.sum(1) > 0
    usual = np.where(followed, forecaster.transition_counts_.argmax(1), majority)
    before = intervals.code_before[seen]
    guesses = {
        "majority type": np.full(n, majority),
        "Markov type": np.where(before < 0, majority, usual[before]),
    }
    rows: dict[str, dict[str, float]] = {
        name: {
            "log_likelihood": log_likelihoods.sum() / n - np.log(scale) if n else np.nan,
            "type_error": _mean(types[seen].argmax(1) != code),
            "time_rmse": np.sqrt(_mean((scale * means[seen] - truth) ** 2)),
            "time_mae": _mean(np.abs(scale * medians[seen] - truth)),
        }
    }
    for label, time in times.items():
        error = np.maximum(time, scale * lower) - truth  # the given part has passed already
        rows[label] = {"time_rmse": np.sqrt(_mean(error**2)), "time_mae": _mean(np.abs(error))}
    for label, guess in guesses.items():
        rows[label] = {"type_error": _mean(guess != code)}
    columns = ["log_likelihood", "type_error", "time_rmse", "time_mae"]
    table = pd.DataFrame(list(rows.values()), index=list(rows), columns=columns)
    notes = [_unbeaten(table, metric) for metric in ("type_error", "time_rmse", "time_mae")]
    ahead, left = scale * (means[seen] - lower), truth - scale * lower
    zero = n > 0 and _mean(ahead) < NEXT_TO_ZERO * _mean(left)
    if zero:
        flag = (
            f"the predicted gaps are next to zero (mean {_mean(ahead):.3g}, true "
            f"{_mean(left):.3g}): the time predictions say nothing, whatever their errors"
        )
        warnings.warn(f"{name}: {flag}", UserWarning, stacklevel=3)
        notes.append(flag)
    return EventEvaluation(table, n, tuple(note for note in notes if note), zero)


def _mean(values: np.ndarray) -> float:
    """Compute a mean, NaN for no values."""
    return float(np.mean(values)) if len(values) else np.nan


def _unbeaten(table: pd.DataFrame, metric: str) -> str:
    """Describe the best guess where it is at least as good as the model, else return ""."""
    model, guesses = table[metric].iloc[0], table[metric].iloc[1:].dropna()
    if not len(guesses) or not guesses.min() <= model or model == 0:
        return ""
    return (
        f"{metric}: the guess {guesses.idxmin()!r} ({guesses.min():.4g}) is at least as good as "
        f"the model ({model:.4g})"
    )
