"""Continual learning of a stream, slice by slice, with tests on every slice after each."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from tqdm.auto import tqdm

from tsllm.arguments import Limits, check_call
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.events.base import EventForecaster
from tsllm.events.evaluation.diagnostics import ALL_TYPES
from tsllm.events.evaluation.next_event import EventEvaluation
from tsllm.events.evaluation.stream_report import METRICS, StreamReport
from tsllm.events.hawkes import HawkesForecaster
from tsllm.events.naive import NaiveEventForecaster

#: What the numbers among the arguments of `evaluate_stream` and of the ablation may be.
LIMITS: dict[str, Limits] = {
    "fractions": Limits(0, 1, whole=False, above=True, below=True),
    "seeds": Limits(0, 2**32 - 1),
    "min_difference": Limits(0, math.inf, whole=False),
    "confidence": Limits(0, 1, whole=False, above=True, below=True),
}
BASELINES = ("pretrained", "fine_tuned", "retrained", "joint", "hawkes", "naive")


class SlicePart(NamedTuple):
    """A slice of the stream, with its training and validation parts; the rest is the test part."""

    whole: EventTable
    train: EventTable
    validation: EventTable
    #: Start of the test part, in the table's numbers; earlier events are history.
    test_from: float


def evaluate_stream(
    estimator: EventForecaster,
    slices: Sequence[Any],
    *,
    baselines: Sequence[str] | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    verbose: int = 0,
) -> StreamReport:
    """Learn the slices of a stream one after another, and test on all slices after each.

    Every slice is split by time into a training, a validation and a test part. After learning slice
    T, a model predicts the test part of each slice j, with the slice's earlier events as history:
    R[T, j]. The model does not know which slice it is tested on.

    Parameters
    ----------
    estimator : EventForecaster
        Its clones learn; it is not changed. With a `partial_fit` it learns slice by slice, else it
        is fitted to each slice anew.
    slices : sequence of DataFrame, EventTable or path
        In order of time, for example from `tsllm.datasets.time_slices`.
    baselines : sequence of str or None, default=None
        Variants beside the estimator. None: all of these.

        - "pretrained": the network, trained on the first slice only;
        - "fine_tuned": the network without prompts, trained on each slice in turn;
        - "retrained": a new network for each slice;
        - "joint": a new network for all slices so far, an upper bound that a stream does not allow;
        - "hawkes": a Hawkes process, fitted to the latest slice;
        - "naive": the latest slice's mean inter-event time and type shares.
    fractions : tuple of float, default=(0.7, 0.1, 0.2)
        Sizes of the three parts of a slice.
    verbose : int, default=0
        1 shows progress on stderr.

    Returns
    -------
    StreamReport

    Raises
    ------
    DataError
        An unknown baseline, or fewer than two slices.
    NotEnoughDataError
        A slice is too short to be split; the message names it.

    Examples
    --------
    >>> from tsllm.datasets.events import make_hawkes
    >>> from tsllm.datasets.events import time_slices
    >>> from tsllm.events import NaiveEventForecaster
    >>> events = make_hawkes([1.0], [[0.4]], [2.0], t_end=300, random_state=0).events
    >>> report = evaluate_stream(NaiveEventForecaster(), time_slices(events, 3), baselines=[])
    >>> report.matrix("time_mae").shape
    (3, 3)
    """
    check_call(evaluate_stream, locals(), LIMITS)
    baselines = BASELINES if baselines is None else baselines
    unknown = [name for name in baselines if name not in BASELINES]
    if unknown:
        raise DataError(f"baselines must be among {', '.join(BASELINES)}, found {unknown[0]!r}")
    tables = read_slices(estimator, slices)
    if len(tables) < 2:
        raise DataError(f"a stream needs at least two slices, found {len(tables)}")
    parts = [split_slice(table, fractions, number) for number, table in enumerate(tables)]
    types = sorted({name for table in tables for name in table.type_names})
    learners, notes = _learners(estimator, baselines, parts, types)
    matrices, seconds, guesses, fits = {}, {}, [], []
    with tqdm(total=len(learners) * len(parts), disable=not verbose, desc="stream") as progress:
        for name, learn in learners.items():
            rows, took = [], []
            for latest in range(len(parts)):
                begun = time.perf_counter()
                fitted = learn(latest)
                took.append(time.perf_counter() - begun)
                found = [_test(fitted, part) for part in parts]
                rows.append([[one[metric] for metric in METRICS] for one in found])
                notes += [
                    f"{name}: after slice {latest} the predicted gaps on slice {tested} are next "
                    "to zero and say nothing"
                    for tested, one in enumerate(found)
                    if one.next_to_zero
                ]
                progress.update()
            guesses.append(found)
            fits += [
                {"variant": name, "tested": tested, **_fit_of(fitted, part)}
                for tested, part in enumerate(parts)
            ]
            if name == type(estimator).__name__ and hasattr(fitted, "slice_notes"):
                told = fitted.slice_notes().items()
                notes += [f"{name}: slice {number} {note}" for number, note in told]
            matrices[name] = np.array(rows)  # (learned, tested, metrics)
            seconds[name] = took
    blank = naive_like(estimator).fit(parts[0].train, validation=parts[0].validation, types=types)
    tests = [_test(blank, part) for part in parts]
    reference = np.array([[one[metric] for metric in METRICS] for one in tests])
    counts = [(part.train.n_events, part.validation.n_events, _test_events(part)) for part in parts]
    return StreamReport(
        matrices,
        reference,
        seconds,
        counts,
        tuple(notes),
        _guesses(guesses[0]),
        pd.DataFrame(fits),
    )


def read_slices(estimator: EventForecaster, slices: Sequence[Any]) -> list[EventTable]:
    """Read the slices of a stream with the columns that the estimator names."""
    tables = []
    for number, one in enumerate(slices):
        try:
            tables.append(estimator._read(one))
        except DataError as error:
            raise type(error)(f"slice {number} of the stream: {error}") from error
    return tables


def split_slice(table: EventTable, fractions: tuple[float, float, float], number: int) -> SlicePart:
    """Split a slice by time."""
    if len(fractions) != 3 or not 0.99 < sum(fractions) < 1.01:
        raise DataError(f"fractions must be three shares that add up to 1, found {fractions!r}")
    try:
        train, validation, _ = table.split(fractions, keep_empty=True)
    except NotEnoughDataError as error:
        raise NotEnoughDataError(f"slice {number} of the stream: {error}") from error
    # The cut is at the last event of the earlier part.
    test_from = max(times[-1] for times in validation.times if len(times))
    return SlicePart(table, train, validation, float(test_from))


def _learners(
    estimator: EventForecaster,
    baselines: Sequence[str],
    parts: list[SlicePart],
    types: list[str],
) -> tuple[dict[str, Callable[[int], EventForecaster]], list[str]]:
    """Return, for each variant, a function from the latest slice to a fitted model; and notes."""
    notes: list[str] = []
    name = type(estimator).__name__
    plain = estimator._fine_tuned()
    network = clone(estimator) if plain is None else plain

    def without_checkpoints(model: EventForecaster) -> EventForecaster:
        # A directory belongs to one of many fits.
        none = {"checkpoint_dir": None} if "checkpoint_dir" in model.get_params() else {}
        return clone(model).set_params(**none)

    def anew(model: EventForecaster, part: SlicePart) -> EventForecaster:
        return without_checkpoints(model).fit(part.train, validation=part.validation, types=types)

    def continued(model: EventForecaster) -> Callable[[int], EventForecaster]:
        model = without_checkpoints(model)

        def learn(latest: int) -> EventForecaster:
            part = parts[latest]
            # Later slices are tested on from the beginning, so their types must be known.
            named = types if latest == 0 else None
            return model.partial_fit(part.train, validation=part.validation, types=named)

        return learn

    pretrained: list[EventForecaster] = []

    def first(latest: int) -> EventForecaster:
        if not pretrained:
            pretrained.append(anew(network, parts[0]))
        return pretrained[0]

    if hasattr(estimator, "partial_fit"):
        learners = {name: continued(estimator)}
    else:
        learners = {name: lambda latest: anew(estimator, parts[latest])}
        notes.append(f"{name} has no partial_fit: it is fitted to each slice anew")
    known: dict[str, Callable[[int], EventForecaster]] = {
        "pretrained": first,
        "retrained": lambda latest: anew(network, parts[latest]),
        "joint": lambda latest: anew(network, stack_slices(parts[: latest + 1])),
        "hawkes": lambda latest: anew(hawkes_like(estimator), parts[latest]),
        "naive": lambda latest: anew(naive_like(estimator), parts[latest]),
    }
    if plain is not None:
        known["fine_tuned"] = continued(plain)
    elif "fine_tuned" in baselines:
        notes.append(f"no variant 'fine_tuned': {name} has nothing that could be trained on")
    learners.update({variant: known[variant] for variant in baselines if variant in known})
    return learners, notes


def _test(model: EventForecaster, part: SlicePart) -> EventEvaluation:
    """Evaluate a model on the test part of a slice."""
    return model.evaluate(part.whole, t_start=part.whole.clock.to_stamp(part.test_from))


def _fit_of(model: EventForecaster, part: SlicePart) -> dict[str, float]:
    """Test the rescaled times of the test part of a slice."""
    found = model.diagnostics(part.whole, t_start=part.whole.clock.to_stamp(part.test_from))
    return {name: float(found.table[name].loc[ALL_TYPES]) for name in ("ks", "lag1")}


def _guesses(found: list[EventEvaluation]) -> pd.DataFrame:
    """Average the errors of the naive guesses over the slices."""
    tables = pd.concat([one.table.iloc[1:] for one in found])
    return tables.groupby(level=0, sort=False)[list(METRICS[1:])].mean()


def _test_events(part: SlicePart) -> int:
    """Count the events after the cut."""
    return sum(int((times > part.test_from).sum()) for times in part.whole.times)


def stack_slices(parts: list[SlicePart]) -> SlicePart:
    """Stack slices side by side: each part of a sequence becomes a sequence of its own."""
    return SlicePart(
        parts[0].whole,
        _side_by_side([part.train for part in parts]),
        _side_by_side([part.validation for part in parts]),
        np.nan,
    )


def _side_by_side(tables: list[EventTable]) -> EventTable:
    """Concatenate tables; the sequences are renamed with the number of their slice."""
    renamed = [
        replace(table, ids=tuple(f"{number}/{name}" for name in table.ids))
        for number, table in enumerate(tables)
    ]
    whole = renamed[0]
    for table in renamed[1:]:
        whole = whole.extend(table)
    return whole


def hawkes_like(estimator: EventForecaster) -> HawkesForecaster:
    """Make a Hawkes process that treats ties as the estimator does."""
    return HawkesForecaster(ties=estimator.ties, resolution=estimator.resolution)


def naive_like(estimator: EventForecaster) -> NaiveEventForecaster:
    """Make a naive forecaster that treats ties as the estimator does."""
    return NaiveEventForecaster(ties=estimator.ties, resolution=estimator.resolution)
