"""The history that a forecast is conditioned on, for one series and in batches."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from tsllm.arguments import shown
from tsllm.datasets.checks import LARGEST, check_values, in_column, series_name
from tsllm.datasets.frequency import set_frequency
from tsllm.errors import DataError, DataTypeError, ModelFormatError

#: A spread of at most this share of the level is within the rounding of the values.
ROUNDING = 1e-12

# Columns before the values in a table of contexts.
_LABELS = ("series", "series_id", "timestamp")


@dataclass(frozen=True)
class Context:
    """The history of one series, oldest step first.

    Parameters
    ----------
    values : array (time, variables)
        In the units of the series; NaN where not observed. A DataFrame brings its ``columns``.
    times : pandas Index (time,) or None, default=None
        The stamps of the rows, with their frequency set. None counts the steps 0, 1, 2, ...
    mask : bool array (time, variables) or None, default=None
        True where observed. None: wherever ``values`` is not NaN.
    past_x : array (time, covariates) or None, default=None
        The covariates up to the last step, in the order of the fitted X: numbers, and texts for
        categories and text covariates. The columns of a DataFrame are found by name.
    static : dict or None, default=None
        Constant attributes of the series, by name. TimeCMA writes them into its prompts.
    series_id : hashable, default=None
        The name of the series in the fit: intervals then use its own calibration.
    x_scale : array (variables,) or None, default=None
        The scale of the covariates' effects on this series. None: measured on ``values``.
    x_level : array (variables,) or None, default=None
        The usual level of this series, which effects of texts are relative to. None: measured on
        ``values``.
    stops_at_zero : bool array (variables,) or None, default=None
        Which variables do not fall below zero, for ``floor="auto"``. None: decided by ``values``.
    columns : tuple of str or None, default=None
        The names of the variables: `forecast` finds the variables by them, and error messages have
        them. None: the variables are in the order of the fit.

    See Also
    --------
    tsllm.forecast : Forecast from long tables.

    Examples
    --------
    >>> import numpy as np
    >>> context = Context(np.arange(6.0)[:, None])
    >>> len(context), context.n_variables, context.tail(2).values.ravel().tolist()
    (6, 1, [4.0, 5.0])
    """

    values: np.ndarray
    times: pd.Index = None  # type: ignore[assignment]  # filled in where None is given
    mask: np.ndarray = None  # type: ignore[assignment]
    past_x: np.ndarray | None = None
    static: dict[str, object] | None = None
    series_id: Hashable = None
    x_scale: np.ndarray | None = None
    x_level: np.ndarray | None = None
    stops_at_zero: np.ndarray | None = None
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.columns is None and isinstance(self.values, pd.DataFrame):
            object.__setattr__(self, "columns", column_names(self.values.columns))
        try:
            values = np.asarray(self.values, dtype=np.float64)
        except (ValueError, TypeError, OverflowError):
            raise DataTypeError(
                f"a context's values must be numbers, found {shown(self.values)}"
            ) from None
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2 or len(values) == 0:
            raise DataError(
                f"a context's values must have the shape (time, variables) with at least one "
                f"step, found {values.shape}"
            )
        if self.mask is not None:
            mask = np.asarray(self.mask, dtype=bool)
            if mask.size != values.size:
                raise DataError(
                    f"a context's mask must have the shape of its values, {values.shape}, found "
                    f"{mask.shape}"
                )
            mask = mask.reshape(values.shape)
            values = np.where(mask, values, np.nan)
        if self.times is None:
            object.__setattr__(self, "times", pd.RangeIndex(len(values)))
        elif not isinstance(self.times, pd.Index) or len(self.times) != len(values):
            raise DataError(
                f"a context's times must be a pandas Index of {len(values)} stamps, one a step, "
                f"found {shown(self.times)}"
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "mask", ~np.isnan(values))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def n_variables(self) -> int:
        """Return the number of variables."""
        return self.values.shape[1]

    def in_column(self, variable: int) -> str:
        """Return the words that name a variable in an error message; see `in_column`."""
        return in_column(variable, self.n_variables, self.columns)

    def tail(self, steps: int | None) -> "Context":
        """Return the last ``steps`` steps, or all of them if None."""
        if steps is None or steps >= len(self):
            return self
        return self._slice(slice(len(self) - steps, None))

    def until(self, origin: int) -> "Context":
        """Return the steps before position ``origin``."""
        return self._slice(slice(0, origin))

    def with_values(self, values: np.ndarray, **changes: Any) -> "Context":
        """Replace the values, and other fields if the number of steps changes; the mask follows."""
        return replace(self, values=values, mask=None, **changes)  # type: ignore[arg-type]

    def _slice(self, rows: slice) -> "Context":
        past_x = None if self.past_x is None else self.past_x[rows]
        return self.with_values(self.values[rows], times=self.times[rows], past_x=past_x)


@dataclass
class ContextBatch:
    """A batch of standardised contexts of equal length, ready for a model.

    ``values`` are ``(raw - location) / scale``, and 0 where not observed. Shorter contexts are
    padded on the left. Location and scale are computed in float64 for each context and variable
    over the observed steps, so that small variations around a large level survive in float32.
    """

    values: torch.Tensor  # (batch, context, variables) float32
    mask: torch.Tensor  # (batch, context, variables) bool
    location: np.ndarray  # (batch, variables) float64
    scale: np.ndarray  # (batch, variables) float64, 1 where the context is constant
    constant: np.ndarray  # (batch, variables) bool

    def to(self, device: torch.device) -> "ContextBatch":
        """Move the tensors to a device."""
        return replace(self, values=self.values.to(device), mask=self.mask.to(device))


def batch_contexts(contexts: Sequence[Context], context_length: int) -> ContextBatch:
    """Standardise the last ``context_length`` steps of each context and stack them.

    The result has the shape (contexts, context_length, variables).

    Raises
    ------
    DataError
        If a variable of a context has no observed step in this range, or if the numbers of
        variables differ.
    """
    batch, variables = len(contexts), contexts[0].n_variables
    raw = np.full((batch, context_length, variables), np.nan)  # (batch, context, variables)
    for row, context in enumerate(contexts):
        if context.n_variables != variables:
            raise DataError(
                f"contexts must have the same number of variables, found {variables} and "
                f"{context.n_variables}: forecast them apart"
            )
        tail = context.values[-context_length:]
        raw[row, context_length - len(tail) :] = tail
    mask = ~np.isnan(raw)
    counts = mask.sum(axis=1)  # (batch, variables)
    if (counts == 0).any():
        row, variable = (int(i) for i in np.argwhere(counts == 0)[0])
        raise DataError(
            f"{series_name(contexts[row].series_id)} has no observed value"
            f"{contexts[row].in_column(variable)} in its last {context_length} steps: drop it, or "
            "give a longer context_length"
        )
    filled = np.where(mask, raw, 0.0)
    location = filled.sum(axis=1) / counts  # (batch, variables)
    centred = np.where(mask, raw - location[:, None], 0.0)
    spread = np.sqrt((centred**2).sum(axis=1) / counts)
    constant = within_rounding(spread, location)  # (batch, variables)
    scale = np.where(constant, 1.0, spread)
    standard = np.where(constant[:, None], 0.0, centred / scale[:, None])
    return ContextBatch(
        values=torch.from_numpy(standard.astype(np.float32)),
        mask=torch.from_numpy(mask),
        location=location,
        scale=scale,
        constant=constant,
    )


def check_contexts(contexts: Sequence[Context]) -> None:
    """Check that the values of contexts are missing or can be computed with.

    Raises
    ------
    DataError
        A value is infinite or beyond 1e140; the message names series, row and column.
    """
    for context in contexts:
        if not (~context.mask | (np.abs(context.values) <= LARGEST)).all():
            check_values(context.values, series=context.series_id, times=context.times)


def typical_length(contexts: Sequence[Context]) -> int:
    """Return the steps of a typical series: the median, rounded down."""
    return int(np.median([len(context) for context in contexts]))


def within_rounding(spread: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Return where a spread is no larger than the rounding of values at a level."""
    return spread <= ROUNDING * np.maximum(np.abs(level), 1e-300)


def faint_spread(context: Context) -> np.ndarray:
    """Return the standard deviation of each variable, (variables,); 0 where all values are equal.

    Models read a variable as constant if its deviation is within rounding; its intervals are still
    as wide as the deviation.

    Examples
    --------
    >>> faint_spread(Context(np.array([[1e12, 5.0], [1e12 + 0.5, 5.0]]))).tolist()
    [0.25, 0.0]
    """
    least = np.where(context.mask, context.values, np.inf).min(axis=0)  # (variables,)
    from_least = np.where(context.mask, context.values - least, 0.0)  # (time, variables)
    counts = np.maximum(context.mask.sum(axis=0), 1)
    mean = from_least.sum(axis=0) / counts
    centred = np.where(context.mask, from_least - mean, 0.0)
    changes = from_least.max(axis=0) > 0
    return np.where(changes, np.sqrt((centred**2).sum(axis=0) / counts), 0.0)


def column_names(columns: pd.Index) -> tuple[str, ...] | None:
    """Return the names of variables for error messages; None for a Series without a name."""
    return None if list(columns) in ([None], [0]) else tuple(map(str, columns))


def contexts_to_state(
    contexts: Sequence[Context], columns: Sequence[Hashable], covariates: Sequence[str] = ()
) -> dict[str, Any]:
    """Return contexts as one table that other programs can read, with the fields that it lacks.

    ``columns`` are the names of the variables, ``covariates`` those of the columns of ``past_x``.

    Returns
    -------
    dict
        ``table``, a row for each step: ``series`` (the number of the context), ``series_id`` as
        text, ``timestamp`` (UTC if it has a time zone; the start of a period), the variables and
        the covariates. ``series``, the other fields of each context. ``n_covariates``.
    """
    lengths = [len(context) for context in contexts]
    names = [*map(str, columns), *covariates]
    if len({*names, *_LABELS}) < len(names) + len(_LABELS):
        names = [f"value_{i}" for i in range(len(columns))]
        names += [f"covariate_{i}" for i in range(len(covariates))]
    stamps = [_plain_stamps(context.times) for context in contexts]
    ids = [_text(context.series_id) for context in contexts]
    labels = {
        "series": np.repeat(np.arange(len(contexts)), lengths),
        "series_id": np.repeat(np.array(ids), lengths),
        "timestamp": stamps[0].append(stamps[1:]),
    }
    values = np.concatenate([context.values for context in contexts])  # (steps, variables)
    parts = [pd.DataFrame(labels), pd.DataFrame(values)]
    if covariates:
        x = np.concatenate([context.past_x for context in contexts])
        parts.append(pd.DataFrame(x).infer_objects())  # (steps, covariates)
    series = [
        {
            "series_id": context.series_id,
            "times": context.times[:0],  # holds unit, time zone, frequency and name
            "x_scale": context.x_scale,
            "x_level": context.x_level,
            "stops_at_zero": context.stops_at_zero,
            "static": context.static,
        }
        for context in contexts
    ]
    table = pd.concat(parts, axis=1).set_axis([*labels, *names], axis=1)
    return {"table": table, "series": series, "n_covariates": len(covariates)}


def contexts_from_state(state: Mapping[str, Any]) -> list[Context]:
    """Build the contexts from the output of `contexts_to_state`."""
    table, series, n_covariates = state["table"], state["series"], state["n_covariates"]
    borders = np.searchsorted(table["series"].to_numpy(), np.arange(len(series) + 1))
    stamps = pd.Index(table["timestamp"])
    last = table.shape[1] - n_covariates
    values = table.iloc[:, len(_LABELS) : last].to_numpy(dtype=np.float64)  # (steps, variables)
    if np.isinf(values).any():
        raise ModelFormatError(
            "the saved model has infinite values in its series, so that every forecast would be "
            "NaN: save it again from series without them"
        )
    for one in series:
        for name in ("x_scale", "x_level", "stops_at_zero"):
            found = one.get(name)  # models of earlier versions lack the last
            if found is not None and np.shape(found) != values.shape[1:]:
                raise ModelFormatError(
                    f"the saved model has {values.shape[1]} variables, and the {name} of "
                    f"{series_name(one['series_id'])} is of the shape {np.shape(found)}: save it "
                    "again"
                )
    x = table.iloc[:, last:].to_numpy() if n_covariates else None  # (steps, covariates)
    return [
        Context(
            values[first:end].copy(),
            times=_like(one["times"], stamps[first:end]),
            past_x=None if x is None else x[first:end].copy(),
            static=one["static"],
            series_id=one["series_id"],
            x_scale=one["x_scale"],
            x_level=one["x_level"],
            stops_at_zero=one.get("stops_at_zero"),
        )
        for one, first, end in zip(series, borders[:-1], borders[1:])
    ]


def _text(series_id: object) -> str:
    """Return a series id as text."""
    if isinstance(series_id, tuple):
        return "/".join(map(str, series_id))
    return "" if series_id is None else str(series_id)


def _plain_stamps(times: pd.Index) -> pd.Index:
    """Convert stamps to a type that Parquet stores exactly."""
    if isinstance(times, pd.PeriodIndex):
        return times.to_timestamp()
    if isinstance(times, pd.DatetimeIndex) and times.tz is not None:
        return times.tz_convert("UTC")
    return times


def _like(template: pd.Index, stamps: pd.Index) -> pd.Index:
    """Convert Parquet's stamps to an index like an empty one."""
    if isinstance(template, pd.PeriodIndex):
        return pd.DatetimeIndex(stamps).to_period(template.freqstr).rename(template.name)
    if isinstance(template, pd.DatetimeIndex):
        dates = pd.DatetimeIndex(stamps).as_unit(template.unit).rename(template.name)
        dates = dates if template.tz is None else dates.tz_convert(template.tz)
        return dates if template.freq is None else set_frequency(dates, template.freq)
    if isinstance(template, pd.RangeIndex):
        stop = stamps[-1] + template.step
        return pd.RangeIndex(stamps[0], stop, template.step, name=template.name)
    return pd.Index(stamps.to_numpy(), dtype=template.dtype, name=template.name)
