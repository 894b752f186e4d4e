"""Forecasts from a long frame to a long frame, for `tsllm.forecast`, the command and serving."""

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from tsllm.arguments import check_arguments, check_choice, checked_levels
from tsllm.context import Context
from tsllm.datasets.bad_series import SkippedSeries, skipping
from tsllm.datasets.checks import series_names
from tsllm.datasets.counts import count_step
from tsllm.datasets.foreign import kind_of
from tsllm.datasets.labels import labels_of
from tsllm.datasets.layout import rows_by_name
from tsllm.datasets.long import read_long
from tsllm.datasets.named import find_series
from tsllm.errors import DataError
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.cold_start import ColdStart
from tsllm.forecasters.frames import (
    join_covariates,
    own_frequency,
    split_series,
    stamps_after,
)
from tsllm.forecasters.parameters import check_horizon
from tsllm.tables.covariates import (
    covariates_of,
    futures_for,
    read_future_ahead,
    split_frame,
    variables_of,
)
from tsllm.tables.descriptions import (
    describe_series,
    read_descriptions,
    split_arguments,
)

DEFAULT_QUANTILES = (0.1, 0.5, 0.9)
# Number of series that are forecast together while bad ones are skipped: only these are computed
# again to find a bad one.
_AT_ONCE = 1024


def forecast(
    data: Any,
    horizon: int,
    *,
    method: str = "auto",
    quantiles: Sequence[float] = DEFAULT_QUANTILES,
    id_col: str | None = None,
    time_col: str | None = None,
    target_cols: str | Sequence[str] | None = None,
    freq: str | None = None,
    fill: str | Mapping[str, str] | None = None,
    resample: str | None = None,
    sort: bool = False,
    covariates: str | Sequence[str] = (),
    future: Any = None,
    static_text: str | Sequence[str] = (),
    new_series: Any = None,
    tz: str | None = None,
    format: str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
    encoding: str | None = None,
    on_error: str = "raise",
    **parameters: Any,
) -> Any:
    """Fit one model on all series of a long frame and forecast each of them.

    Parameters
    ----------
    data : DataFrame, table of polars or Arrow, path, or name of a data set
        Long format, as `tsllm.datasets.read_long` reads it: a table, or a CSV, Parquet or
        JSON-lines file or a folder of them. Or a name of `tsllm.datasets.list_datasets` or
        `list_benchmarks`, whose variables are all forecast.
    horizon : int
        Steps to forecast after the end of each series.
    method : str, default="auto"
        The forecaster: "auto", "zero_shot", "autotimes", "timecma", "s2ip", "aaren", "linear",
        "dlinear" or "patchtst". "auto" combines several; see `tsllm.AutoForecaster`.
    quantiles : sequence of float, default=(0.1, 0.5, 0.9)
        Levels between 0 and 1; empty for point forecasts only.
    id_col, time_col : str or None, default=None
        The columns of the series' identifiers and of the times. None: recognised by name.
    target_cols : str, sequence of str or None, default=None
        The columns of the values. None: the column ``value``, ``y`` or ``target``, else the only
        column of numbers beside the covariates; several are an error.
    freq : str or None, default=None
        Frequency of the series. None: from the stamps.
    fill : {"nan", "zero", "ffill", "interpolate"}, dict or None, default=None
        The treatment of gaps: "zero" for counts, "nan" to leave values missing; a dict gives
        columns a word of their own, as in ``{"sales": "zero", "promo": "ffill"}``. Covariates
        never get NaN; see `tsllm.datasets.read_long`. None: gaps are an error.
    resample : {"mean", "sum", "last"} or None, default=None
        Aggregate rows at irregular times, or several rows at one time, to ``freq``. None: they are
        an error.
    sort : bool, default=False
        Sort each series by time. False: unordered rows are an error.
    covariates : str or sequence of str, default=()
        Columns of ``data`` with covariates whose future is known. Those of ``text_covariates``,
        ``past_covariates`` and ``static_attributes`` need not be listed.
    future : DataFrame, other table, path or None, default=None
        A second long table with the covariates of the steps to forecast, texts too.
    static_text : str or sequence of str, default=()
        Columns of ``data`` that describe a series in words. Series with few observations are then
        forecast from their descriptions and the others; see `tsllm.ColdStart`.
    new_series : DataFrame, other table, path or None, default=None
        A table of series that have no row in ``data`` yet: their identifiers and the columns of
        ``static_text``. They are forecast for the steps after the end of ``data``, and follow the
        others in the result. Those that ``data`` has are forecast from their rows there, and a
        warning names them.
    tz : str or None, default=None
        The time zone of the series, for example ``"Europe/Berlin"``; the forecasts have it too. It
        is needed where one column has different offsets, as after a clock change.
    format : str or None, default=None
        How times in text and integers are written, in the codes of ``strptime``, for example
        ``"%d.%m.%Y"`` or ``"%Y%m"``. None: year first.
    sep, decimal, encoding : str or None, default=None
        How CSV is written, for example ``sep=";"``, ``decimal=","``, ``encoding="latin-1"``. None:
        comma, point and UTF-8.
    on_error : {"raise", "skip"}, default="raise"
        The treatment of a series that cannot be used. "raise": it is an error. "skip": it is left
        out; a warning tells the number, and ``attrs["skipped"]`` of the result is a dict with the
        reason for each; where the result is no pandas frame, the warning names them. If every
        series is bad, it is an error.
    **parameters
        Of the method's forecaster, for example ``backbone``, ``random_state`` or
        ``past_covariates``.

    Returns
    -------
    DataFrame
        Or a table of polars or pyarrow, where ``data`` are a table of polars or of another library
        that exports Arrow. The identifier and the time, in columns named as in ``data``
        (``series_id`` where ``data`` are one series without an identifier), then ``forecast, q0.1,
        ...``; with several value columns also a column ``variable``.

    Raises
    ------
    DataError
        The data, the method, or an argument cannot be used.

    See Also
    --------
    tsllm.AutoTimesForecaster : One of the forecasters, for sktime's ``fit`` and ``predict``.
    tsllm.predict_batch : Forecast many series from files.

    Examples
    --------
    >>> import pandas as pd, tsllm
    >>> days = pd.date_range("2024-01-01", periods=60, freq="D")
    >>> frame = pd.DataFrame({"unique_id": "a", "ds": days, "y": range(60)})
    >>> tsllm.forecast(
    ...     frame, 2, quantiles=[], backbone=None, random_state=0
    ... ).columns.tolist()
    ['unique_id', 'ds', 'forecast']
    """
    check_request(horizon, quantiles)
    kind = kind_of(data)
    skipped = skipping(on_error)
    settings: dict[str, Any] = {"freq": freq, "prediction_length": horizon, **parameters}
    if static_text:
        settings["static_text"] = static_text
    estimator = make_forecaster(method, **settings)
    beside = covariates_of(estimator, covariates)
    reading: dict[str, Any] = {
        "id_col": id_col,
        "time_col": time_col,
        "freq": freq,
        "sort": sort,
        "tz": tz,
        "format": format,
        "sep": sep,
        "decimal": decimal,
        "encoding": encoding,
    }
    if isinstance(data, str):
        found = find_series(data)
        data = found.source
        target_cols = found.targets(beside) if target_cols is None else target_cols
    frame = read_long(
        data,
        target_cols=target_cols,
        fill=fill,
        resample=resample,
        covariates=beside,
        text=estimator.text_covariates,
        skipped=skipped,
        **reading,
    )
    labels = labels_of(frame)
    labels.check_beside(result_columns(len(frame.columns) - 2 - len(beside), quantiles))
    new = read_descriptions(new_series, estimator, reading, labels)
    if skipped is not None:
        frame = fittable(estimator, frame, beside, skipped)
    known = read_future_ahead(future, estimator, frame, beside, horizon, skipped=skipped, **reading)
    if skipped is not None:
        frame = skipped.without(frame)
    fit_long(estimator, frame, horizon, covariates=beside)
    table = predict_long(
        estimator, frame, horizon, quantiles=quantiles, freq=freq, future=known, skipped=skipped
    )
    table = add_new(table, estimator, new, horizon, quantiles=quantiles, skipped=skipped)
    if skipped is not None:
        table.attrs["skipped"] = dict(skipped.reasons)
        _warn_of_skipped(skipped, table["series_id"].nunique(), listed=kind is None)
    table = labels.restore(table)
    return table if kind is None else kind.give(table, [labels.id, labels.time])


def _warn_of_skipped(skipped: SkippedSeries, series: int, *, listed: bool) -> None:
    """Warn of the series that were left out, beside ``series`` that were forecast.

    ``listed`` says that the result's ``attrs`` list them; else the warning does.
    """
    if not skipped.reasons:
        return
    where = ", which attrs['skipped'] of the result lists" if listed else ""
    said = skipped.sentence(series + len(skipped.reasons), where)
    if not listed:
        said = f"{said}; all of them: {', '.join(map(repr, skipped.reasons))}"
    warnings.warn(said, UserWarning, stacklevel=3)


def check_request(horizon: object, quantiles: Sequence[float]) -> None:
    """Check horizon and quantiles of a request, before any training."""
    check_horizon(horizon)
    checked_levels(quantiles)
    columns: dict[str, float] = {}
    for q in quantiles:
        if (column := quantile_column(q)) in columns:
            raise DataError(
                f"quantiles must differ from each other, found {q!r} twice"
                if q == columns[column]
                else f"the quantiles {columns[column]!r} and {q!r} would both be {column}: leave "
                "one out"
            )
        columns[column] = q


def result_columns(variables: int, quantiles: Sequence[float] = ()) -> list[str]:
    """List the columns of a table of forecasts beside the series and the times."""
    return ["forecast", *["variable"] * (variables > 1), *map(quantile_column, quantiles)]


def quantile_column(level: float) -> str:
    """Return the name of a quantile's column."""
    return f"q{level:g}"


def make_forecaster(method: str, **parameters: Any) -> SeriesForecaster:
    """Make the unfitted forecaster of a method by its short name.

    With ``static_text``, or ``without_text="mean"``, it is a `ColdStart` around that forecaster.
    """
    from tsllm.forecasters.methods import METHODS

    check_choice("method", method, METHODS)
    forecaster = METHODS[method]()
    own = forecaster.get_param_names()
    parameters, around = split_arguments(parameters, own)
    for name in parameters if method == "auto" else ():
        others = [other for other, cls in METHODS.items() if name in cls().get_param_names()]
        if name not in own and others:
            raise DataError(
                f"method 'auto' has no parameter {name!r}: name the method that it belongs to "
                f"({', '.join(others)}) with method= (--method), or leave it out"
            )
    check_arguments(type(forecaster), own, parameters)
    return describe_series(forecaster.set_params(**parameters), around)


def fittable(
    estimator: SeriesForecaster,
    frame: pd.DataFrame,
    covariates: Sequence[str],
    skipped: SkippedSeries,
) -> pd.DataFrame:
    """Return the rows of the series that a forecaster can be fitted on; collect the others."""
    rows = _Rows(frame)

    def check(names: list[str]) -> list[str]:
        y, X = split_frame(rows.of(names), covariates)
        contexts = split_series(y, freq=estimator.freq, at_least=2)
        estimator._learn_columns(contexts, X)
        return names

    groups = skipped.each(rows.names, check)
    if not groups:
        raise skipped.none_left()
    try:
        if len(groups) > 1:
            check([name for names in groups for name in names])
    except DataError as error:  # each group is good, but they do not fit together
        raise DataError(
            f"{error}; with freq= (--freq) those of other frequencies are left out"
        ) from None
    return skipped.without(rows.frame)


def fit_long(
    estimator: SeriesForecaster,
    frame: pd.DataFrame,
    horizon: int | None = None,
    *,
    covariates: Sequence[str] = (),
) -> SeriesForecaster:
    """Fit a forecaster on all series of a canonical long frame, always as a panel with names.

    ``frame`` is a table of `read_long`. Without a ``horizon`` the estimator chooses its own.
    """
    steps = None if horizon is None else list(range(1, horizon + 1))
    with warnings.catch_warnings():
        # read_long has warned of constant series already.
        warnings.filterwarnings("ignore", message=".* never changes?: the forecast is the constant")
        y, X = split_frame(frame, covariates)
        return estimator.fit(y, X=X, fh=steps)


def predict_long(
    estimator: SeriesForecaster,
    frame: pd.DataFrame,
    horizon: int,
    *,
    quantiles: Sequence[float] = DEFAULT_QUANTILES,
    freq: str | None = None,
    future: pd.DataFrame | None = None,
    skipped: SkippedSeries | None = None,
) -> pd.DataFrame:
    """Forecast every series of a canonical long frame from its own history.

    Parameters
    ----------
    estimator : SeriesForecaster
        Fitted on the same variables and frequency; the series may be others.
    frame : DataFrame
        As `read_long` returns it. Several value columns are matched to the fitted ones by name, and
        the model's covariates must be there.
    horizon : int
        Steps after the end of each series.
    quantiles : sequence of float, default=(0.1, 0.5, 0.9)
        Levels between 0 and 1.
    freq : str or None, default=None
        Frequency of the series. None: from the stamps.
    future : DataFrame or None, default=None
        The known future of the covariates, as `read_future` returns it.
    skipped : SkippedSeries or None, default=None
        Collects the series that cannot be forecast, which are then left out; those that it holds
        already are not looked at. None: such a series is an error.

    Returns
    -------
    DataFrame
        In the order of the frame's series.
    """
    check_request(horizon, quantiles)
    if skipped is not None:
        return _predict_good(estimator, frame, horizon, quantiles, freq, future, skipped)
    contexts, variables = contexts_of(estimator, frame, freq)
    futures = futures_for(estimator, contexts, future, horizon)
    ids = [context.series_id for context in contexts]
    contexts = _without_name(estimator, contexts)
    values = estimator.forecast(contexts, horizon, quantiles=quantiles, future_x=futures)
    return forecasts_to_long(values, contexts, ids, variables, quantiles)


def add_new(
    table: pd.DataFrame,
    estimator: SeriesForecaster,
    descriptions: pd.DataFrame | None,
    horizon: int,
    *,
    quantiles: Sequence[float] = DEFAULT_QUANTILES,
    skipped: SkippedSeries | None = None,
) -> pd.DataFrame:
    """Add the forecasts of series that have no row yet, for the steps after the end of the panel.

    ``table`` has the forecasts of the others. ``estimator`` is fitted, and ``descriptions`` is the
    result of `read_descriptions`. Series that are in ``table``, or were skipped, are not added. The
    other arguments are those of `predict_long`.
    """
    if descriptions is None:
        return table
    assert isinstance(estimator, ColdStart)  # others read no descriptions
    there = [*table["series_id"].unique(), *({} if skipped is None else skipped.reasons)]
    known = descriptions.index.isin(there)
    if known.any():
        warnings.warn(
            f"new_series (--new-series) has {series_names(list(descriptions.index[known]))}, which "
            "the data have already: only the rows of the data are used for them",
            UserWarning,
            stacklevel=3,
        )
    new = descriptions[~known]
    if new.empty:
        return table
    contexts = estimator.new_contexts(new)
    values = estimator.forecast(contexts, horizon, quantiles=quantiles)
    ids, variables = list(new.index), variables_of(estimator)
    added = forecasts_to_long(values, contexts, ids, variables, quantiles)
    return pd.concat([table, added], ignore_index=True)


def contexts_of(
    estimator: SeriesForecaster, frame: pd.DataFrame, freq: str | None = None
) -> tuple[list[Context], list[str]]:
    """Return the series of a long frame as a fitted forecaster reads them, and the value columns.

    The columns are in the order of the contexts' variables; see `predict_long`.
    """
    covariates = estimator.fitted_.covariates
    beside = () if covariates is None else covariates.columns.everything
    missing = [name for name in beside if name not in frame]
    if missing:
        raise DataError(
            f"the data have no column {missing[0]!r}, a covariate that the model was fitted with: "
            f"pass {', '.join(beside)} beside the values"
        )
    y, X = split_frame(frame, beside)
    variables = _fitted_variables(estimator, y)
    y = y[variables]
    counted = pd.api.types.is_integer_dtype(frame["timestamp"].dtype)
    fitted = estimator.fitted_.shape.freq
    if freq is None and counted and count_step(fitted):
        freq = fitted  # they count steps as those of the fit did
    elif freq is None and not counted and frame.groupby("series_id").size().min() < 3:
        freq = fitted  # too short to determine its own
    contexts = split_series(y, freq=freq)
    estimator.fitted_.check_same_series(contexts)
    return join_covariates(contexts, X, covariates), variables


def predict_stored(
    estimator: SeriesForecaster,
    horizon: int,
    *,
    quantiles: Sequence[float] = DEFAULT_QUANTILES,
    series: Sequence[str] | None = None,
    future: pd.DataFrame | None = None,
    skipped: SkippedSeries | None = None,
) -> pd.DataFrame:
    """Forecast the series that a forecaster was fitted on, from its stored history.

    ``series`` names the series to forecast as text, None: all; the rows have their order, or that
    of the fit. The other arguments are those of `predict_long`.
    """
    check_request(horizon, quantiles)
    kept = stored_series(estimator)
    if not kept:
        raise DataError("the model was saved without its context: pass the data to forecast from")
    ids = list(kept) if series is None else list(series)

    described = getattr(estimator, "static_text", ())
    of_new = (
        "; a new series is one row with the last stamp before its forecast, no value, and its "
        f"description in {', '.join(described)}"
        if described
        else ""
    )

    def check(names: list[str]) -> None:
        for name in names:
            if name not in kept:
                raise DataError(
                    f"the model keeps no history of series {name!r}: pass the data to forecast "
                    f"from{of_new}"
                )

    if skipped is None:
        check(ids)
    else:
        ids = skipped.keep([name for name in ids if name not in skipped.reasons], check)

    def forecast(names: list[str]) -> tuple[list[str], np.ndarray]:
        named = [replace(kept[name], series_id=name) for name in names]
        futures = futures_for(estimator, named, future, horizon)
        contexts = [kept[name] for name in names]
        return names, estimator._forecast_kept(contexts, horizon, quantiles, futures)

    ids, values = (
        forecast(ids) if skipped is None else _in_batches(estimator, ids, forecast, skipped)
    )
    variables = variables_of(estimator)
    return forecasts_to_long(values, [kept[name] for name in ids], ids, variables, quantiles)


def stored_series(estimator: SeriesForecaster) -> dict[str, Context]:
    """Return the stored context of each series, by the series' names as text."""
    return {
        "series" if context.series_id is None else _as_text(context.series_id): context
        for context in estimator._contexts.values()
    }


def forecasts_to_long(
    values: np.ndarray,
    contexts: Sequence[Context],
    series_ids: Sequence[Hashable],
    variables: Sequence[str],
    quantiles: Sequence[float],
) -> pd.DataFrame:
    """Convert forecasts (series, horizon, variables, 1 + quantiles) to a long frame."""
    n_series, horizon, n_variables, _ = values.shape
    rows = n_series * n_variables * horizon
    stamps = _stamps_after_each(contexts, horizon)
    columns: dict[str, Any] = {
        "series_id": np.repeat(np.asarray(series_ids), n_variables * horizon),
        "timestamp": _joined([s for s in stamps for _ in range(n_variables)]),
    }
    if n_variables > 1:
        columns["variable"] = np.tile(np.repeat(list(variables), horizon), n_series)
    by_variable = values.transpose(0, 2, 1, 3).reshape(rows, -1)
    columns["forecast"] = by_variable[:, 0]
    for i, q in enumerate(quantiles):
        columns[quantile_column(q)] = by_variable[:, 1 + i]
    return pd.DataFrame(columns)


def _stamps_after_each(contexts: Sequence[Context], horizon: int) -> list[pd.Index]:
    """Return the stamps after each context; those of series that end together are made once."""
    made: dict[Hashable, pd.Index] = {}
    found = []
    for context in contexts:
        times = context.times
        # Stamps of two time zones may be equal; their dtypes differ.
        key = (times[-1], times.dtype, own_frequency(times))
        if key not in made:
            made[key] = stamps_after(context, horizon)
        found.append(made[key])
    return found


def _predict_good(
    estimator: SeriesForecaster,
    frame: pd.DataFrame,
    horizon: int,
    quantiles: Sequence[float],
    freq: str | None,
    future: pd.DataFrame | None,
    skipped: SkippedSeries,
) -> pd.DataFrame:
    """Forecast the series that can be forecast, and collect the others; see `predict_long`."""
    rows = _Rows(skipped.without(frame))

    def prepare(names: list[str]) -> tuple[list[Context], list[str], list[np.ndarray | None]]:
        contexts, variables = contexts_of(estimator, rows.of(names), freq)
        futures = futures_for(estimator, contexts, future, horizon)
        return contexts, variables, [None] * len(contexts) if futures is None else futures

    groups = skipped.each(rows.names, prepare)
    contexts = {str(c.series_id): c for some, _, _ in groups for c in some}
    futures = dict(zip(contexts, [one for _, _, some in groups for one in some]))
    if len(contexts) == 1:
        (name,) = contexts
        contexts = {name: _without_name(estimator, list(contexts.values()))[0]}

    def forecast(names: list[str]) -> tuple[list[str], np.ndarray]:
        ahead = [futures[name] for name in names]
        known = None if future is None else ahead
        some = [contexts[name] for name in names]
        return names, estimator.forecast(some, horizon, quantiles=quantiles, future_x=known)

    names, values = _in_batches(estimator, list(contexts), forecast, skipped)
    variables = groups[0][1]
    return forecasts_to_long(values, [contexts[n] for n in names], names, variables, quantiles)


def _in_batches(
    estimator: SeriesForecaster,
    names: list[str],
    forecast: Callable[[list[str]], tuple[list[str], np.ndarray]],
    skipped: SkippedSeries,
) -> tuple[list[str], np.ndarray]:
    """Forecast whole batches of series; a bad one makes only its own be computed again."""
    rows = estimator._rows_at_once(estimator.fitted_)
    size = rows * -(-_AT_ONCE // rows)
    found = [
        one
        for first in range(0, len(names), size)
        for one in skipped.each(names[first : first + size], forecast)
    ]
    if not found:
        raise skipped.none_left()
    return [name for some, _ in found for name in some], np.concatenate([one for _, one in found])


class _Rows:
    """The rows of a canonical long frame by series."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self._rows = rows_by_name(frame["series_id"])
        self.names = list(self._rows)

    def of(self, names: Sequence[str]) -> pd.DataFrame:
        """Return the rows of some series."""
        if len(names) == len(self.names):
            return self.frame
        return self.frame.iloc[np.concatenate([self._rows[name] for name in names])]


def _without_name(estimator: SeriesForecaster, contexts: list[Context]) -> list[Context]:
    """Drop the name of the only series if the model knows no names."""
    if len(contexts) == 1 and not estimator._layout.is_panel:
        return [replace(contexts[0], series_id=None)]
    return contexts


def _fitted_variables(estimator: SeriesForecaster, y: pd.DataFrame) -> list[str]:
    """Return the value columns in the order of the fit."""
    found = list(y.columns)
    fitted = variables_of(estimator)
    if len(found) == len(fitted) == 1:
        return found
    if sorted(found) != sorted(fitted):
        raise DataError(
            f"the model was fitted on the variables {', '.join(fitted)} and the data have "
            f"{', '.join(found)}: pass the same with target_cols= (--target-col)"
        )
    return fitted


def _as_text(series_id: Hashable) -> str:
    return "/".join(map(str, series_id)) if isinstance(series_id, tuple) else str(series_id)


def _joined(stamps: Sequence[pd.Index]) -> pd.Index:
    return stamps[0].append(list(stamps[1:])) if len(stamps) > 1 else stamps[0]
