"""The pages of event streams: scores, learning slice by slice, and predictions."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tsllm.events.base import EventForecaster
from tsllm.events.evaluation.diagnostics import EventDiagnostics
from tsllm.events.evaluation.next_event import EventEvaluation
from tsllm.events.evaluation.stream_report import GAINS, METRICS, StreamReport
from tsllm.events.plotting import plot_intensity, plot_residuals, plot_stream
from tsllm.pages.cells import moment, number
from tsllm.pages.page import Page, Table
from tsllm.pages.pictures import NARROW, Picture, axes_of
from tsllm.reports.settings import settings_to_show

#: The most sequences whose intensities are drawn.
MAX_SEQUENCES = 6
#: A model is not refuted by its residuals above this p-value.
_SIGNIFICANT = 0.01
_UNITS = (
    ("weeks", 604_800.0),
    ("days", 86_400.0),
    ("hours", 3_600.0),
    ("minutes", 60.0),
    ("seconds", 1.0),
    ("ms", 1e-3),
    ("us", 1e-6),
)
_NAMES = {
    "log_likelihood": "log-likelihood per event",
    "type_error": "share of wrong types",
    "time_rmse": "error of the mean time",
    "time_mae": "error of the median time",
}


def report_evaluation(
    evaluation: EventEvaluation,
    diagnostics: EventDiagnostics | None = None,
    *,
    unit: str | None = None,
    title: str = "Next events",
    settings: Mapping[str, Any] | None = None,
) -> Page:
    """Make the page of an event model that was scored on events it had not seen.

    Parameters
    ----------
    evaluation : EventEvaluation
        From `EventForecaster.evaluate`.
    diagnostics : EventDiagnostics or None, default=None
        From `EventForecaster.diagnostics`: its residuals are drawn.
    unit : str or None, default=None
        The unit of time, such as "h". None: it is not named.
    title : str, default="Next events"
        The name of the page.
    settings : mapping or None, default=None
        Settings to list.

    Returns
    -------
    Page

    Examples
    --------
    >>> from tsllm.events import NaiveEventForecaster
    >>> rng = np.random.default_rng(0)
    >>> events = pd.DataFrame({"time": rng.exponential(size=60).cumsum(), "type": "a"})
    >>> model = NaiveEventForecaster().fit(events)
    >>> report_evaluation(model.evaluate(events), unit="h").verdict.startswith("The model")
    True
    """
    pictures, tables = [], [Table("Scores", _named(evaluation.table, "method"))]
    details = [f"{evaluation.events:,} events were predicted, each from the events before it."]
    if diagnostics is not None:
        details.append(_fit(diagnostics))
        pictures.append(
            Picture(
                lambda size: _of(plot_residuals(diagnostics, axes=axes_of(size, rows=2))),
                "Residuals against an exponential, and the probabilities of earlier events",
                "Of a model that is right, the points lie in the band and the bars are level.",
                wide=(9.0, 7.0),
                narrow=(NARROW[0], 6.2),
            )
        )
        tables.append(Table("Tests of the residuals", _named(diagnostics.table, "events of")))
        if diagnostics.calibration["type"].nunique() > 1:
            tables.append(
                Table(
                    "Probabilities of the types",
                    diagnostics.calibration,
                    "The predicted probability of a type, and the share of events that had it.",
                )
            )
    return Page(
        title,
        _beside_guesses(evaluation.table, unit),
        details=details,
        pictures=pictures,
        tables=tables,
        notes=evaluation.notes,
        settings=settings_to_show(settings or {}),
    )


def report_stream(
    report: StreamReport,
    *,
    title: str = "Learning an event stream",
    settings: Mapping[str, Any] | None = None,
) -> Page:
    """Make the page of a model that learnt a stream slice by slice.

    Parameters
    ----------
    report : StreamReport
        From `tsllm.events.evaluate_stream`.
    title : str, default="Learning an event stream"
        The name of the page.
    settings : mapping or None, default=None
        Settings to list.

    Returns
    -------
    Page
    """
    slices = pd.DataFrame(report.events, columns=["to train", "to validate", "to test"])
    slices.insert(0, "slice", range(len(slices)))
    tables = []
    for metric in METRICS:
        own = report.summary[report.summary["metric"] == metric].drop(columns="metric")
        way = "Greater" if metric in GAINS else "Less"
        name = _NAMES[metric]
        note = f"{way} is better. Prequential: on the next slice, before it is learnt."
        tables.append(Table(f"{name[0].upper()}{name[1:]}", own.dropna(axis=1, how="all"), note))
    if len(report.guesses):
        tables.append(Table("Simple guesses", _named(report.guesses, "guess")))
    if len(report.diagnostics):
        note = (
            "After the last slice, means over the slices. ks: the distance from the exponential; "
            "lag1: the correlation of neighbours. Both are near 0 for a right model."
        )
        tables.append(Table("Rescaled times", report.fits, note))
    tables.append(Table("Events of the slices", slices))
    return Page(
        title,
        *_beside_others(report),
        pictures=[
            Picture(
                partial(_draw_stream, report, variant),
                f"Log-likelihood of {variant} by slice learnt and slice tested",
                wide=None,
            )
            for variant in report.variants
        ],
        tables=tables,
        notes=report.notes,
        settings=settings_to_show(settings or {}),
    )


def report_predictions(
    forecaster: EventForecaster,
    predictions: pd.DataFrame,
    history: Any = None,
    *,
    windows: Any = None,
    title: str = "Next events",
    settings: Mapping[str, Any] | None = None,
) -> Page:
    """Make the page of predicted events.

    Parameters
    ----------
    forecaster : EventForecaster
        Fitted.
    predictions : DataFrame
        From its ``predict``.
    history, windows : default=None
        The events that were continued, as in ``predict``; their intensities are drawn.
    title : str, default="Next events"
        The name of the page.
    settings : mapping or None, default=None
        Settings to list.

    Returns
    -------
    Page
    """
    ids = predictions.iloc[:, 0]
    drawn = list(ids.unique()[:MAX_SEQUENCES])
    total = ids.nunique()
    alone = len(drawn) == 1
    pictures = []
    for name in drawn:
        figure = partial(_draw_intensity, forecaster, history, windows, name)
        label = f"Intensities of {name}"
        pictures.append(Picture(figure, label) if alone else Picture(figure, label, wide=None))
    note = f"The first {len(drawn)} of {total:,} sequences are drawn." if total > len(drawn) else ""
    return Page(
        title,
        _next_event(predictions, total, forecaster),
        pictures=pictures,
        pictures_note=note,
        tables=[Table("Predicted events", predictions)],
        settings=settings_to_show(settings or {}),
    )


def _named(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table with its index as the first column."""
    return table.rename_axis(name).reset_index()


def _beside_guesses(table: pd.DataFrame, unit: str | None) -> str:
    """Compare the model with the best guesses in one sentence."""
    known = {
        metric: (float(table[metric].iloc[0]), float(table[metric].iloc[1:].min()))
        for metric in ("time_mae", "type_error")
    }
    parts, better = [], []
    model, guess = known["time_mae"]
    if not math.isnan(model + guess):
        better.append(("times", model < guess))
        parts.append(
            f"its times are {_duration(model, unit)} off on average (the best simple guess "
            f"{_duration(guess, unit)})"
        )
    model, guess = known["type_error"]
    if not math.isnan(model + guess) and guess > 0:  # a single type is no prediction
        better.append(("types", model < guess))
        parts.append(
            f"{100 * model:.0f} % of its types are wrong (the best simple guess "
            f"{100 * guess:.0f} %)"
        )
    if not better:
        return "There are too few events to compare the model with simple guesses."
    won = [name for name, is_better in better if is_better]
    lost = [name for name, is_better in better if not is_better]
    said = f"The model predicts the {' and '.join(won)} of events better than simple guesses"
    if lost and won:
        said += f", but not their {lost[0]}"
    elif lost:
        said = (
            f"The model predicts the {' and '.join(lost)} of events no better than simple guesses"
        )
    return f"{said}: {', and '.join(parts)}."


def _duration(value: float, unit: str | None) -> str:
    """Write a time with its unit, in the largest unit of which it has at least one."""
    if unit is None:
        return number(value)
    seconds = value * pd.Timedelta(f"1{unit}").total_seconds()
    name, length = next((one for one in _UNITS if abs(seconds) >= one[1]), _UNITS[-1])
    return f"{seconds / length:.3g} {name}"


def _fit(diagnostics: EventDiagnostics) -> str:
    """Say whether the residuals refute the model."""
    p_value = float(diagnostics.table["p_value"].iloc[0])  # of all types together
    if math.isnan(p_value):
        return "There are too few events to test whether the model fits."
    if p_value < _SIGNIFICANT:
        return (
            "Its probabilities over time do not fit the events: such residuals would be rare under "
            f"a model that is right (p = {p_value:.2g})."
        )
    return f"Its probabilities over time are in line with the events (p = {p_value:.2g})."


def _beside_others(report: StreamReport) -> tuple[str, list[str]]:
    """Compare the model with the other variants of a stream."""
    own = report.summary[report.summary["metric"] == "log_likelihood"].set_index("variant")
    measure, where = "prequential", "the next slice"
    if own[measure].isna().all():
        measure, where = "final", "the slices"
    model = report.variants[0]
    scores = own[measure].dropna()
    if model not in scores:
        return f"{model} could not be scored on this stream.", []
    others = scores.drop(model)
    own_score = f"a log-likelihood of {number(scores[model])} per event"
    said = f"{model} predicts {where} with {own_score}"
    if len(others):
        best, value = str(others.idxmax()), number(float(others.max()))
        if scores[model] > others.max():
            said = (
                f"Of {len(scores)} ways to learn this stream, {model} predicts {where} best: with "
            )
            said += f"{own_score} (the next is {best}, {value})"
        else:
            said = f"{model} is not the best way to learn this stream: {best} predicts {where} "
            said += f"as well or better (log-likelihood per event {value}, {number(scores[model])})"
    details = [
        f"The stream has {len(report.events):,} slices. Each is predicted before it is learnt."
    ]
    lost = float(own.loc[[model], "forgetting"].to_numpy()[0])
    if not math.isnan(lost):
        details.append(
            f"Of what it knew of earlier slices, {model} lost {number(lost)} of log-likelihood per "
            "event by the end."
        )
    return f"{said}.", details


def _next_event(predictions: pd.DataFrame, total: int, forecaster: EventForecaster) -> str:
    """Say which event comes next, and when."""
    first = predictions[predictions["step"] == 1]
    times = first[f"{forecaster.time_col}_median"].replace(np.inf, np.nan).dropna()
    if times.empty:
        return "No further event is expected."
    place = int(np.argmin(times.to_numpy()))
    row, when = first.loc[times.index].iloc[place], times.iloc[place]
    at = moment(when.floor("s")) if isinstance(when, pd.Timestamp) else number(float(when))
    name = f" in {row.iloc[0]}" if total > 1 else ""
    many = f" of {total:,} sequences" if total > 1 else ""
    kind, share = row[forecaster.type_col], 100 * row["probability"]
    return (
        f"The next event{many} is expected{name} around {at}, most likely of type {kind} "
        f"(probability {share:.0f} %)."
    )


def _draw_stream(report: StreamReport, variant: str, size: tuple[float, float]) -> Any:
    """Draw the matrix of one variant."""
    return _of(plot_stream(report, variants=[variant], axes=axes_of(size)))


def _draw_intensity(
    forecaster: EventForecaster,
    history: Any,
    windows: Any,
    sequence: Any,
    size: tuple[float, float],
) -> Any:
    """Draw the intensities of one sequence."""
    ax = axes_of(size)
    return plot_intensity(forecaster, history, windows=windows, sequence=sequence, ax=ax).figure


def _of(axes: Any) -> Any:
    """Return the figure of one or several axes."""
    return np.atleast_1d(np.asarray(axes, dtype=object)).ravel()[0].figure
