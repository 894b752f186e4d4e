"""ColdStart: it forecasts series with few observations from their descriptions."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import nn

from tsllm.arguments import check_choice, shown
from tsllm.backbone import DEFAULT_BACKBONE, Backbone
from tsllm.context import Context
from tsllm.covariates import CovariateColumns
from tsllm.covariates.columns import attribute_text
from tsllm.datasets.checks import series_name, series_names
from tsllm.datasets.frequency import season_length, set_frequency
from tsllm.embeddings.store import check_store
from tsllm.errors import DataError, DataTypeError, ModelFormatError, NotEnoughDataError
from tsllm.forecasters.auto import AutoForecaster
from tsllm.forecasters.base import SeriesForecaster
from tsllm.forecasters.cold_start_state import ColdStartState
from tsllm.forecasters.composed import OuterForecaster
from tsllm.forecasters.forecasting import Reader, check_finite
from tsllm.forecasters.frames import descriptions_of_new, learn_covariates
from tsllm.forecasters.held_out import usual_change
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.text.encoder import TextVectors
from tsllm.text.panel import (
    LEAST_SERIES,
    MOST_ORIGINS,
    Panel,
    PanelProfiles,
    ProfilePrior,
    learn_priors,
    panel_form,
)
from tsllm.text.profiles import Profile


def _of_the_forecaster_inside(name: str) -> Any:
    """Make a property that reads and sets an attribute of the forecaster inside.

    Batch jobs set ``batch_size``, for example.
    """

    def assign(forecaster: "ColdStart", value: Any) -> None:
        setattr(forecaster._inside, name, value)

    return property(lambda self: getattr(self._inside, name), assign)


class ColdStart(OuterForecaster):
    """Forecast series with few or no observations from their descriptions.

    The forecaster inside is trained on the panel. Level, trend, season and spread of each series of
    the panel are regressed on the embedding of its description (ridge regression, shrunk to the
    panel's mean), on a logarithmic scale where that forecasts series better that are left out. A
    series without observations is forecast from its expected profile; the observations that it has
    correct the profile (empirical Bayes), and count more in the forecast of the forecaster inside
    the more there are. A series with three seasons of observations is forecast by the forecaster
    inside alone. All choices are made, and the intervals calibrated, on series of the panel that
    are left out: a panel needs at least eight series.

    The arguments that matter most: ``forecaster`` (the one inside), ``static_text`` (the columns of
    descriptions), ``text_backbone`` and ``without_text``.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from tsllm import AutoForecaster, ColdStart
    >>> months = pd.period_range("2020-01", periods=72, freq="M", name="month")
    >>> def sales(number):
    ...     kind, level = ("ice cream", 1) if number % 2 else ("gloves", -1)
    ...     season = level * 3 * np.sin(np.arange(72) * np.pi / 6) + 20 + 10 * level
    ...     index = pd.MultiIndex.from_product([[f"p{number}"], months], names=["id", "month"])
    ...     return pd.DataFrame({"sales": season + number / 10, "description": kind}, index)
    >>> panel = pd.concat(map(sales, range(12)))
    >>> inside = AutoForecaster(["seasonal_naive"], backbone=None)
    >>> forecaster = ColdStart(inside, static_text=("description",), text_backbone="tfidf")
    >>> forecaster = forecaster.fit(panel[["sales"]], X=panel[["description"]], fh=[1, 2])
    >>> new = forecaster.new_contexts(pd.DataFrame({"description": ["gloves"]}, index=["p99"]))
    >>> forecaster.forecast(new, 2, quantiles=[0.1, 0.9]).round(0)[0, :, 0, 0].tolist()
    [11.0, 9.0]

    Parameters
    ----------
    forecaster : forecaster of tsllm or None, default=None
        Forecasts series with enough observations. None: `AutoForecaster`.
    static_text : tuple of str, default=()
        Columns of X that describe a series in words, the same in each of its rows. Several are
        joined to one text. (Categories that a prompt lists are ``static_attributes`` of
        `TimeCMAForecaster`.)
    text_backbone : str, default=DEFAULT_BACKBONE
        The language model that reads descriptions, or ``"tfidf"`` for a bag of words. Independent
        of the ``backbone`` of the forecaster inside.
    without_text : {"raise", "mean"}, default="raise"
        The treatment of a series with few observations and no description. "raise": it is an error.
        "mean": it is forecast from the mean of the panel.

    Attributes
    ----------
    fitted_ : ColdStartState
        The state of the forecaster inside, and the expected profiles.

    See Also
    --------
    AutoForecaster : The default forecaster inside.

    Notes
    -----
    The weight of the forecaster inside, and the intervals of series with few values, are learnt
    from its forecasts of the panel's last steps. It was trained on these steps, too. So for a
    forecaster that is trained, the weight may be too large and the intervals too narrow. Forecasts
    of series without any value are not affected: the profiles are learnt with the series left out.

    References
    ----------
    D. V. Lindley and A. F. M. Smith, "Bayes estimates for the linear model", JRSS B 1972.
    """

    # The forecaster inside has the random state.
    _tags: ClassVar[dict[str, Any]] = {
        "capability:random_state": False,
        "property:randomness": "stochastic",
    }
    _shares_effects: ClassVar[bool] = False
    _free_parameters: ClassVar[frozenset[str]] = frozenset(("embedding_store",))

    past_covariates = ()
    random_state = None
    loss: Any = _of_the_forecaster_inside("loss")
    quantiles: Any = _of_the_forecaster_inside("quantiles")
    prediction_length: Any = _of_the_forecaster_inside("prediction_length")
    batch_size: Any = _of_the_forecaster_inside("batch_size")
    validation_fraction: Any = _of_the_forecaster_inside("validation_fraction")
    floor: Any = _of_the_forecaster_inside("floor")
    freq: Any = _of_the_forecaster_inside("freq")
    device: Any = _of_the_forecaster_inside("device")
    verbose: Any = _of_the_forecaster_inside("verbose")
    fitted_: ColdStartState

    def __init__(
        self,
        forecaster: Any = None,
        *,
        static_text: tuple[str, ...] = (),
        text_backbone: str = DEFAULT_BACKBONE,
        embedding_store: Any = None,
        without_text: str = "raise",
    ) -> None:
        self.forecaster = forecaster
        self.static_text = static_text
        self.text_backbone = text_backbone
        self.embedding_store = embedding_store
        self.without_text = without_text
        self._inside: SeriesForecaster = AutoForecaster() if forecaster is None else forecaster
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
        from tsllm.forecasters.baselines import DLinearForecaster

        inside = AutoForecaster(["seasonal_naive", "theta"], n_origins=2, random_state=42)
        linear = DLinearForecaster(max_steps=2, device="cpu", random_state=42)
        return [{"forecaster": inside}, {"forecaster": linear, "text_backbone": "tfidf"}]

    # ------------------------------------------------------------------ the forecaster inside

    @property
    def static_attributes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the columns of X that are constant within a series."""
        return (*self.static_text, *self._inside.static_attributes)

    @property
    def _learns_panel(self) -> bool:
        """Return whether series with few observations are forecast from the panel."""
        return bool(self.static_text) or self.without_text == "mean"

    # ------------------------------------------------------------------ new series

    def new_contexts(self, descriptions: Any, *, after: Any = None) -> list[Context]:
        """Make the contexts of series that have no observation yet, for `forecast`.

        Parameters
        ----------
        descriptions : DataFrame or Series
            Indexed by the ids of the new series, with the columns of ``static_text``; a Series
            where that is one.
        after : stamp or None, default=None
            The last step before the forecasts, of the frequency of the panel. None: the last one of
            the panel.

        Returns
        -------
        list of Context
            Each has one step without a value, at ``after``, its id and its description.

        Raises
        ------
        DataError
            A column or a description is missing, an id is given twice, or it is that of a series
            whose history this forecaster keeps.
        """
        self.check_is_fitted()
        frame = descriptions
        if isinstance(frame, pd.Series):
            frame = frame.to_frame(self.static_attributes[0] if self.static_attributes else None)
        if not isinstance(frame, pd.DataFrame):
            raise DataTypeError(
                "descriptions must be a DataFrame indexed by the ids of the new series, found "
                f"{shown(descriptions)}"
            )
        wanted = self.static_attributes
        given = [str(name) for name in frame.columns]
        if sorted(given) != sorted(wanted):
            raise DataError(
                f"descriptions have the columns {', '.join(given)}, and the model was fitted with "
                f"{', '.join(wanted) or 'none'}: pass these columns"
            )
        if not frame.index.is_unique:
            twice = frame.index[frame.index.duplicated()][0]
            raise DataError(f"descriptions hold {series_name(twice)} twice: keep one row of it")
        for series_id in frame.index:
            if series_id in self._contexts:
                raise DataError(
                    f"{series_name(series_id)} is not new: the model keeps its history, which "
                    "predict forecasts; leave it out, or give the new series another id"
                )
        texts = frame.set_axis(given, axis=1)
        times = self._end() if after is None else self._stamp(after)
        nothing = np.full((1, self.fitted_.shape.n_variables), np.nan)
        return [
            Context(
                nothing,
                times=times,
                series_id=series_id,
                static={name: _text(texts[name].iloc[row], name, series_id) for name in wanted},
            )
            for row, series_id in enumerate(frame.index)
        ]

    def _end(self) -> pd.Index:
        """Return the last stamp of the series that are kept, else of the fit."""
        ends = [context.times[-1:] for context in self._contexts.values()]
        assert self.fitted_.end is not None  # fit ends with it
        return max([self.fitted_.end, *ends], key=lambda one: one[0])

    def _stamp(self, after: Any) -> pd.Index:
        """Return an index of one stamp, of the kind of the panel's."""
        end = self._end()
        try:
            if not pd.api.types.is_scalar(after) or pd.isna(after):
                raise TypeError("not one stamp")
            if isinstance(end, pd.PeriodIndex):
                return pd.PeriodIndex([after], freq=end.freqstr)
            if isinstance(end, pd.DatetimeIndex):
                stamp = pd.DatetimeIndex([pd.Timestamp(after)])
                if end.tz is not None and stamp.tz is None:
                    stamp = stamp.tz_localize(end.tz)
                return stamp if end.freq is None else set_frequency(stamp, end.freq)
            return pd.RangeIndex(int(after), int(after) + 1)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"after={shown(after)} is no stamp of the kind of the panel's, whose last one is "
                f"{end[0]}"
            ) from error

    def _contexts_to_predict(self, X: pd.DataFrame | None) -> list[Context]:
        """Return the fitted series, and those that only X has."""
        kept = self._kept_contexts()
        if X is None or not self.static_attributes or not self._layout.is_panel:
            return kept
        new = descriptions_of_new(X, kept, self.static_attributes)
        return kept if new.empty else [*kept, *self.new_contexts(new)]

    # ------------------------------------------------------------------ fitting

    def _learn_columns(
        self, contexts: Sequence[Context], X: pd.DataFrame | None
    ) -> tuple[list[Context], CovariateColumns | None]:
        """Join the descriptions to the series; without any, X is read as by the one inside."""
        if not self._learns_panel:
            return super()._learn_columns(contexts, X)
        names = [] if X is None else [str(name) for name in X.columns]
        for name in self.static_text:
            if name not in names:
                has = f"X has the columns {', '.join(names)}" if names else "there is no X"
                raise DataError(
                    f"static_text names {name!r} and {has}: pass the description of each series "
                    "as a column of X"
                )
        others = [name for name in names if name not in self.static_attributes]
        if others:
            raise DataError(
                f"ColdStart reads descriptions and no other covariates, and X has the column "
                f"{others[0]!r}: leave it out, or name it in static_text"
            )
        optional = self.static_text if self.without_text == "mean" else ()
        return learn_covariates(contexts, X, static=self.static_attributes, optional=optional)

    def _new_state(self, contexts: Sequence[Context], horizon: int | None) -> ColdStartState:
        shape = self._inside._choose_shape(contexts, horizon)
        backbone = self._inside._load_backbone()
        return ColdStartState(nn.ModuleDict(), backbone, shape, self.device)

    def _restore_state(self, saved: Mapping[str, Any], backbone: Backbone | None) -> ColdStartState:
        read = dict(saved)
        inner, encoder, panel = read.pop("inner"), read.pop("encoder"), read.pop("panel")
        state = ColdStartState.from_state(
            read, lambda shape: nn.ModuleDict(), backbone, self.device
        )
        assert isinstance(state, ColdStartState)
        state.inner = self._inside._restore_state(inner, backbone)
        state.calibration = state.inner.calibration
        state.panel = None if panel is None else PanelProfiles.from_state(panel)
        if encoder is not None:
            state.encoder = self._restore_encoder(encoder)
        _check_fit(state)
        return state

    def _train(
        self,
        state: FittedState,
        contexts: Sequence[Context],
        epochs: int | str,
        *,
        recalibrate: bool = True,
        resumable: bool = False,
    ) -> None:
        """Train the forecaster inside, and learn the profiles of the panel."""
        assert isinstance(state, ColdStartState)  # _new_state made it
        residuals = state.residuals(contexts)
        plain = [replace(one, past_x=None) for one in self._plain(residuals)]
        with warnings.catch_warnings():
            # the base warns of constant series
            warnings.filterwarnings("ignore", message=".* never changes?:")
            if state.inner is None:
                state.inner = self._inside._train_new(plain, None, state.shape.horizon)
            else:
                self._inside._train(state.inner, plain, epochs, recalibrate=recalibrate)
        inner = state.inner
        state.backbone, state.calibration = inner.backbone, inner.calibration
        state.end = max((c.times[-1:] for c in contexts), key=lambda one: one[0])
        state.panel = self._learn_panel(state, contexts)
        keep = self._inside._steps_to_keep(inner) or max(len(c) for c in contexts)
        if state.panel is not None:
            keep = max(keep, 2 * state.panel.form.window)
        state.shape = ModelShape(**vars(inner.shape) | {"context_length": keep})
        state.history, state.best_epoch = inner.history, inner.best_epoch
        state.seconds, state.stopped = inner.seconds, inner.stopped
        state.trained_on = inner.trained_on

    def _learn_panel(
        self, state: ColdStartState, contexts: Sequence[Context]
    ) -> PanelProfiles | None:
        """Learn to expect the profile of a series from its description."""
        if not self._learns_panel:
            return None
        season, horizon = season_length(state.shape.freq), state.shape.horizon
        longest = max(Profile(season).window, Profile(1).window) + MOST_ORIGINS * horizon
        lasts = [state.last_step(context) for context in contexts]
        values = np.full((len(contexts), longest, state.shape.n_variables), np.nan)
        for row, (context, last) in enumerate(zip(contexts, lasts)):
            end = longest + last  # below 0 for a series that ended long before the panel
            kept = context.values[-end:] if end > 0 else context.values[:0]
            values[row, end - len(kept) : end] = kept
        chosen = panel_form(values, season, horizon)
        if chosen is None:
            raise NotEnoughDataError(
                f"ColdStart learns from at least {LEAST_SERIES} series with "
                f"{Profile(1).needed} observed values and a step to hold out, near the end of the "
                "panel: pass more or longer series, or leave static_text and without_text out"
            )
        form, held_out, origins = chosen
        usual = np.stack([usual_change(context.values, season) for context in contexts])
        panel = Panel(values, usual, form, held_out)

        def own(rows: Sequence[int], origin: int, count: int) -> np.ndarray:
            return self._own_forecasts(state, contexts, lasts, rows, origin, count, held_out)

        by_text = without_text = None
        texts = [self._text_of(context) for context in contexts]
        if self.static_text:
            state.encoder = self._make_encoder(texts)
            found = state.encoder.encode(texts)
            if found.present.sum() < LEAST_SERIES:
                raise NotEnoughDataError(
                    f"{int(found.present.sum())} series of the panel have a description in "
                    f"{', '.join(self.static_text)}, and at least {LEAST_SERIES} are needed: "
                    "describe more series"
                )
            by_text = _priors_of(panel, _unit_vectors(found), found.present, origins, own)
        if self.without_text == "mean":
            without_text = learn_priors(panel, None, origins, own)
        return PanelProfiles(form, by_text, without_text)

    def _own_forecasts(
        self,
        state: ColdStartState,
        contexts: Sequence[Context],
        lasts: Sequence[int],
        rows: Sequence[int],
        origin: int,
        count: int,
        horizon: int,
    ) -> np.ndarray:
        """Forecast some series of the panel as if they had only a few observations."""
        assert state.inner is not None  # trained before
        out = np.full((len(rows), horizon, state.shape.n_variables), np.nan)
        pasts, places = [], []
        for place, row in enumerate(rows):
            before = len(contexts[row]) + origin - lasts[row]
            past = None if before < count else contexts[row].until(before).tail(count)
            if past is not None and past.mask.all():
                pasts.append(replace(past, series_id=None))
                places.append(place)
        if not pasts:
            return out
        reader = self._inside._reader(state.inner)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # short series are what is tried
                found, _ = reader.predict(self._plain(pasts), horizon)
        except DataError:  # a method that needs more observations has no forecast of its own
            return out
        out[places] = found[..., 0]
        return out

    # ------------------------------------------------------------------ forecasting

    def _reader(self, state: FittedState, *, followed: bool = False) -> Reader:
        assert isinstance(state, ColdStartState) and state.inner is not None
        return self._inside._reader(state.inner)

    def _rows_at_once(self, state: FittedState) -> int:
        assert isinstance(state, ColdStartState) and state.inner is not None
        return self._inside._rows_at_once(state.inner)

    def _forecast(
        self,
        reader: Reader,
        contexts: Sequence[Context],
        horizon: int,
        quantiles: Sequence[float],
        futures: Sequence[np.ndarray | None] | None,
    ) -> np.ndarray:
        """Forecast series with enough observations by the forecaster inside, others by their text.

        A series is forecast in the same way whatever the others are.
        """
        state = self.fitted_
        cold = np.array([state.is_cold(context) for context in contexts], dtype=bool)
        shape = (len(contexts), horizon, state.shape.n_variables, 1 + len(quantiles))
        values = np.empty(shape)
        warm = np.flatnonzero(~cold).tolist()
        if warm:
            some = self._plain([contexts[row] for row in warm])
            _check_observed(some, state)
            ahead = None if futures is None else [futures[row] for row in warm]
            values[warm] = super()._forecast(reader, some, horizon, quantiles, ahead)
        if cold.any():
            few = [contexts[row] for row in np.flatnonzero(cold).tolist()]
            values[cold] = self._forecast_cold(reader, few, horizon, quantiles)
            check_finite(values, contexts)
        return values

    def _forecast_cold(
        self, reader: Reader, contexts: Sequence[Context], horizon: int, levels: Sequence[float]
    ) -> np.ndarray:
        """Forecast series with few observations: (series, horizon, variables, 1 + levels)."""
        state = self.fitted_
        panel, inner = state.panel, state.inner
        assert panel is not None and inner is not None
        vectors = self._vectors_of(contexts)
        reads = inner.shape.context_length
        readable = [
            row
            for row, context in enumerate(contexts)
            if context.tail(reads).mask.any(axis=0).all()
            and any(prior.half_weight < np.inf for prior in panel.priors(vectors[row]) or [])
        ]
        own: dict[int, np.ndarray] = {}
        if readable:
            found, _ = reader.predict(self._plain([contexts[row] for row in readable]), horizon)
            own = dict(zip(readable, found[..., 0]))
        return np.stack(
            [
                panel.forecast(
                    context.values,
                    state.last_step(context),
                    vectors[row],
                    own.get(row),
                    horizon,
                    levels,
                )
                for row, context in enumerate(contexts)
            ]
        )

    def _vectors_of(self, contexts: Sequence[Context]) -> list[np.ndarray | None]:
        """Return the vector of each series' description; None without one, where that may be."""
        state = self.fitted_
        assert state.panel is not None
        found: list[np.ndarray | None] = [None] * len(contexts)
        if state.encoder is not None:
            vectors = state.encoder.encode([self._text_of(context) for context in contexts])
            unit = _unit_vectors(vectors)
            found = [unit[row] if present else None for row, present in enumerate(vectors.present)]
        bare = [c.series_id for c, one in zip(contexts, found) if one is None]
        if bare and state.panel.without_text is None:
            raise DataError(
                f"{series_names(bare)} need{'s' * (len(bare) == 1)} a description, for fewer than "
                f"{state.panel.form.window} values are observed: pass it as "
                f"{', '.join(self.static_text)}, or fit with without_text='mean' to forecast such "
                "series from the mean of the panel"
            )
        return found

    def _text_of(self, context: Context) -> str | None:
        """Return the description of a series; None where it has none."""
        static = context.static or {}
        texts = [_text(static.get(name), name, context.series_id) for name in self.static_text]
        return ", ".join(text for text in texts if text) or None

    def _plain(self, contexts: Sequence[Context]) -> list[Context]:
        """Return contexts as the forecaster inside reads them, without the descriptions."""
        wanted = self._inside.static_attributes
        plain = []
        for context in contexts:
            static = {n: v for n, v in (context.static or {}).items() if n in wanted}
            missing = [name for name in wanted if name not in static]
            if missing:
                raise DataError(
                    f"{series_name(context.series_id)} comes without its attribute {missing[0]!r}, "
                    "which the model was fitted with: pass it as a column of X (static of a "
                    "context)"
                )
            plain.append(replace(context, static=static or None))
        return plain

    # ------------------------------------------------------------------ updating and checking

    def _update(self, y: pd.DataFrame, X: Any = None, update_params: bool = True) -> "ColdStart":
        if X is None and self.static_attributes:
            X = self._known_descriptions(y)
        super()._update(y, X, update_params)
        return self

    def _known_descriptions(self, y: pd.DataFrame) -> pd.DataFrame | None:
        """Return the descriptions of y's rows; None where a series is new."""
        index = y.index
        ids = list(index.droplevel(-1)) if isinstance(index, pd.MultiIndex) else [None] * len(y)
        if any(series_id not in self._contexts for series_id in set(ids)):
            return None
        known: dict[Hashable, Mapping[str, object]] = {
            series_id: self._contexts[series_id].static or {} for series_id in set(ids)
        }
        columns = {
            name: [known[one].get(name) or None for one in ids] for name in self.static_attributes
        }
        return pd.DataFrame(columns, index=y.index)

    def _head_levels(self) -> tuple[float, ...]:
        return self._inside._head_levels()

    def _load_backbone(self) -> Backbone | None:
        return self._inside._load_backbone()

    def _check_parameters(self) -> None:
        inside = self.forecaster
        if inside is not None and (
            not isinstance(inside, SeriesForecaster) or isinstance(inside, ColdStart)
        ):
            raise DataError(
                f"forecaster must be one of tsllm's forecasters of series, found {shown(inside)}; "
                "pass another one of sktime as AutoForecaster(candidates=[...])"
            )
        if isinstance(self.static_text, str):
            raise DataError(
                f"static_text must be a list of columns, found {self.static_text!r}: write "
                f"[{self.static_text!r}]"
            )
        super()._check_parameters()
        self._inside._check_parameters()
        check_choice("without_text", self.without_text, ("raise", "mean"))
        check_store(self.embedding_store)
        options = {"adaptive": "", "past_covariates": "", "text_covariates": " (--text)"}
        for name, option in options.items():
            if getattr(self._inside, name):
                raise DataError(
                    f"ColdStart cannot hold a forecaster with {name}: leave {name}{option} out, or "
                    "static_text (--static-text)"
                )
        both = [name for name in self.static_text if name in self._inside.static_attributes]
        if both:
            raise DataError(
                f"{both[0]!r} is named in static_text and in static_attributes: give it one role"
            )


# ---------------------------------------------------------------------- helpers


def _unit_vectors(vectors: TextVectors) -> np.ndarray:
    """Return the vector of each row at length 1, as language models compare texts: (rows, width).

    Before the test year of the benchmark this lowered the error of series without values by a
    tenth. Rows without a text stay zero.
    """
    dense = vectors.dense()
    lengths = np.linalg.norm(dense, axis=1, keepdims=True)
    return dense / np.where(lengths > 0, lengths, 1.0)


def _priors_of(
    panel: Panel, vectors: np.ndarray, present: np.ndarray, origins: int, own: Any
) -> list[ProfilePrior]:
    """Learn priors from the series with a text alone."""
    rows = np.flatnonzero(present)
    some = replace(panel, values=panel.values[rows], usual=panel.usual[rows])

    def own_of_some(chosen: Sequence[int], origin: int, count: int) -> np.ndarray:
        found: np.ndarray = own(rows[list(chosen)].tolist(), origin, count)
        return found

    return learn_priors(some, vectors[rows], origins, own_of_some)


def _check_fit(state: ColdStartState) -> None:
    """Check that the parts of a saved state belong together."""
    panel, encoder = state.panel, state.encoder
    if panel is None:
        return
    by_text, without_text = panel.by_text or [], panel.without_text or []
    variables = {len(one) for one in (by_text, without_text) if one}
    widths = {len(prior.regression.centre) for prior in by_text}
    wanted = set() if encoder is None else {encoder.width}
    if (
        not isinstance(state.end, pd.Index)
        or len(state.end) != 1
        or not pd.api.types.is_scalar(state.end[0])
        or variables != {state.shape.n_variables}
        or widths != wanted
        or any(len(prior.regression.centre) for prior in without_text)
    ):
        raise ModelFormatError(
            "the saved model's profiles of new series belong to another model: fit and save it "
            "again"
        )


def _check_observed(contexts: Sequence[Context], state: ColdStartState) -> None:
    """Check that series have observations, where the panel knows nothing of others."""
    if state.panel is not None:
        return
    bare = [context.series_id for context in contexts if not context.mask.any()]
    if bare:
        raise DataError(
            f"{series_names(bare)} {'has' if len(bare) == 1 else 'have'} no observed value, and "
            "the model was fitted without descriptions: fit with static_text="
        )


def _text(value: Any, column: str, series_id: Hashable) -> str:
    """Return a cell as text; nothing for a missing one."""
    if not pd.api.types.is_list_like(value) and pd.isna(value):
        return ""
    return attribute_text(value, f"{series_name(series_id)}, the description {column!r}")
