"""AutoForecaster: it fits several methods, scores them on held-out windows, and combines them."""

import copy
import time
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sktime.forecasting.base import BaseForecaster
from torch import nn

from tsllm.backbone import DEFAULT_BACKBONE, Backbone, load_backbone
from tsllm.context import Context
from tsllm.datasets.checks import series_name
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError, NotEnoughDataError
from tsllm.forecasters.aaren import AarenForecaster
from tsllm.forecasters.autotimes import AutoTimesForecaster
from tsllm.forecasters.base import ModelForecaster
from tsllm.forecasters.baselines import DLinearForecaster, PatchTSTForecaster
from tsllm.forecasters.candidates import (
    STATISTICAL,
    Candidate,
    StatisticalCandidate,
    TrainedCandidate,
    longest_history,
)
from tsllm.forecasters.combining import Combination, HeldOutForecasts, learn_combination
from tsllm.forecasters.composed import ComposedForecaster, typical_steps
from tsllm.forecasters.forecasting import Prediction, Reader
from tsllm.forecasters.held_out import HeldOut, choose_origins, usual_change
from tsllm.forecasters.language_model import auto_layers
from tsllm.forecasters.linear import LinearForecaster
from tsllm.forecasters.s2ip import S2IPForecaster
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.forecasters.timecma import TimeCMAForecaster
from tsllm.forecasters.zero_shot import ZeroShotForecaster

#: The candidates that are trained, by name.
TRAINED: dict[str, type[ModelForecaster]] = {
    "dlinear": DLinearForecaster,
    "linear": LinearForecaster,
    "patchtst": PatchTSTForecaster,
    "autotimes": AutoTimesForecaster,
    "timecma": TimeCMAForecaster,
    "s2ip": S2IPForecaster,
    "aaren": AarenForecaster,
    "zero_shot": ZeroShotForecaster,
}
#: ``candidates="auto"``: each method, and the steps that a typical series must have for it.
AUTO_CANDIDATES = {
    "seasonal_naive": 1,
    "auto_theta": 1,
    "auto_ets": 1,
    "dlinear": 24,
    "zero_shot": 8,
    "autotimes": 100,
}
#: Most training steps of a candidate, without and with a language model.
TRAINING_STEPS = 2000
LANGUAGE_MODEL_STEPS = 300


@dataclass
class CombinedState(FittedState):
    """The fitted candidates and the weights that combine them.

    Attributes
    ----------
    candidates : list of Candidate
        In the order of the table.
    combination : Combination or None
        Their weights; None before the first fit.
    table : list of dict
        A row a candidate: its name, held-out error, weight, seconds and a note.
    facts : dict
        The error of the combination, the number of windows, and what the language model added.
    """

    candidates: list[Candidate] = field(default_factory=list)
    combination: Combination | None = None
    table: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Summarise the candidates, beside what every forecaster summarises."""
        parameters = sum(one.trained_parameters for one in self.candidates)
        told = super().summary() | {"trained_parameters": parameters}
        return {**told, "candidates": copy.deepcopy(self.table), **self.facts}

    def card_facts(self, loss: str, *, pretrained: bool, with_context: bool) -> dict[str, Any]:
        """Return the facts for the card of a saved forecaster."""
        facts = super().card_facts(loss, pretrained=pretrained, with_context=with_context)
        facts["results"] = {
            "Candidates (mean absolute scaled error on held-out windows, weight)": {
                row["candidate"]: _short(row) for row in self.table
            },
            "Combination": {
                "error": _error_in_words(self.facts["error"]),
                "windows": self.facts["windows"],
                "language model": self.facts["language_model"],
                "seconds": round(self.seconds, 1),
            },
        }
        return facts

    def to_state(self) -> dict[str, Any]:
        """Return everything but the backbone as plain values, arrays and tensors."""
        assert self.combination is not None  # training ends with it
        return super().to_state() | {
            "names": [one.name for one in self.candidates],
            "candidates": [one.to_state() for one in self.candidates],
            "combination": self.combination.to_state(),
            "table": self.table,
            "facts": self.facts,
        }


@dataclass(frozen=True)
class CombinedReader(Reader):
    """Forecasts contexts with each candidate that has a weight, and combines them."""

    state: CombinedState

    def predict(self, contexts: Sequence[Context], horizon: int) -> Prediction:
        """Combine the forecasts of the candidates."""
        assert self.state.combination is not None  # training ends with it
        variables = self.state.shape.n_variables
        weights = np.stack(
            [self.state.combination.weights(c.series_id, horizon, variables) for c in contexts]
        )  # (contexts, horizon, variables, candidates)
        weights = self._of_readers(weights, contexts)
        values = np.zeros(weights.shape[:-1])
        for number, candidate in enumerate(self.state.candidates):
            share = weights[..., number]
            rows = np.flatnonzero(share.any(axis=(1, 2)))
            if len(rows):
                forecast = candidate.forecast([contexts[row] for row in rows.tolist()], horizon)
                values[rows] += share[rows] * forecast
        season = season_length(self.state.shape.freq)
        keep = self.state.shape.context_length
        read = [context.tail(keep).values for context in contexts]
        lowest, highest = (np.stack([f(v, axis=0) for v in read]) for f in (np.nanmin, np.nanmax))
        constant = (lowest == highest)[:, None]  # (contexts, 1, variables)
        values = np.where(constant, lowest[:, None], values)  # without the weights' rounding
        scales = np.stack([usual_change(v, season) for v in read])
        return values[..., None], scales

    def _of_readers(self, weights: np.ndarray, contexts: Sequence[Context]) -> np.ndarray:
        """Share the weight of candidates that cannot read a context among the others; warn."""
        readers = np.array(
            [[one.can_read(context) for one in self.state.candidates] for context in contexts]
        )  # (contexts, candidates)
        if readers.all():
            return weights
        left = np.where(readers[:, None, None], weights, 0.0)
        total = left.sum(axis=-1, keepdims=True)
        if not (total > 0).all():  # a candidate says what is missing
            return weights
        row, number = (int(i) for i in np.argwhere(~readers)[0])
        warnings.warn(
            f"{series_name(contexts[row].series_id)} has no observed value in the last "
            f"{self.state.candidates[number].steps_to_keep()} steps, which candidate "
            f"{self.state.candidates[number].name} reads: the others forecast it",
            stacklevel=2,
        )
        whole = np.asarray(readers.all(axis=1))[
            :, None, None, None
        ]  # as in a batch without the others
        return np.where(whole, weights, left / total)


class AutoForecaster(ComposedForecaster):
    """Combine statistical, linear and language-model forecasters by their held-out errors.

    Each candidate forecasts windows at the end of the series that it was not fitted on. Weights
    that are not negative and sum to one combine the candidates, by block of the horizon; few
    windows shrink them towards equal weights. A series with enough windows has its own weights.
    The intervals are conformal, on the combination's own errors.

    The arguments that matter most: ``candidates``, ``backbone`` (None: no language model),
    ``prediction_length`` (the horizon, if `fit` gets no ``fh``), ``time_limit`` and
    ``random_state``.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import AutoForecaster
    >>> forecaster = AutoForecaster(backbone=None, random_state=0)
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    >>> [row["candidate"] for row in forecaster.summary()["candidates"]]
    ['seasonal_naive', 'auto_theta', 'auto_ets', 'dlinear']

    Parameters
    ----------
    candidates : "auto" or list of names and forecasters, default="auto"
        "auto": ``seasonal_naive``, ``auto_theta``, ``auto_ets``; for series of at least 24 steps
        ``dlinear``; from 8 steps on ``zero_shot``, if ``backbone`` is the default, which its
        weights were trained around; and from 100 steps on ``autotimes``, if there is a
        ``backbone``. Other names are ``theta``, ``linear``, ``patchtst``, ``timecma``, ``s2ip`` and
        ``aaren``. A forecaster of tsllm is trained once; any other one of sktime is fitted to each
        series anew.
    backbone_layers : int, None or "auto", default="auto"
        The first layers of the language model to use. None: all. "auto": two.
    prediction_length : int or None, default=None
        The horizon that the candidates are compared on and that the intervals are calibrated for.
        None: the ``fh`` of `fit`, else a season.
    n_origins : int or "auto", default="auto"
        Held-out windows of each series. "auto": up to 24, and about 150 for a whole panel.
    time_limit : float or None, default=None
        Seconds that fitting may take. Candidates are fitted in their order; one that would take
        longer is left out, with a warning. The first is always fitted.
    batch_size : int, default=64
        Windows of a training step, and contexts of a forecast, of trained candidates.
    checkpoint_dir : path or None, default=None
        Directory that saves the trainings, so that a killed fit continues. Needs a whole number as
        ``random_state``.

    Attributes
    ----------
    fitted_ : CombinedState
        The fitted candidates, their weights, the calibration.

    See Also
    --------
    AutoTimesForecaster, DLinearForecaster
    tsllm.forecast : Forecast from long tables; its default method is this one.

    References
    ----------
    Y. Yang, "Combining forecasting procedures: some theoretical results", Econometric Theory 2004.
    """

    _free_parameters: ClassVar[frozenset[str]] = frozenset(
        (
            "adaptive",
            "batch_size",
            "checkpoint_dir",
            "freq",
            "device",
            "random_state",
            "verbose",
            "floor",
        )
    )

    def __init__(
        self,
        candidates: str | list[Any] = "auto",
        *,
        backbone: str | None = DEFAULT_BACKBONE,
        backbone_layers: int | str | None = "auto",
        prediction_length: int | None = None,
        n_origins: int | str = "auto",
        time_limit: float | None = None,
        adaptive: bool = False,
        batch_size: int = 64,
        checkpoint_dir: str | Path | None = None,
        floor: float | str | None = "auto",
        past_covariates: tuple[str, ...] = (),
        text_covariates: tuple[str, ...] = (),
        text_backbone: str = DEFAULT_BACKBONE,
        embedding_store: Any = None,
        freq: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.candidates = candidates
        self.backbone = backbone
        self.backbone_layers = backbone_layers
        self.n_origins = n_origins
        self.time_limit = time_limit
        self.embedding_store = embedding_store
        self.dtype = dtype
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
        tiny = "random:gpt2?hidden=8&layers=1&heads=2&positions=128"
        return [
            {"candidates": ["seasonal_naive", "theta"], "n_origins": 2, "random_state": 42},
            {
                "candidates": ["seasonal_naive", AutoTimesForecaster(tiny, max_steps=1)],
                "backbone": None,
                "n_origins": 1,
                "device": "cpu",
                "random_state": 42,
            },
        ]

    # ------------------------------------------------------------------ fitting

    def _new_state(self, contexts: Sequence[Context], horizon: int | None) -> CombinedState:
        shape = self._choose_shape(contexts, horizon)
        candidates = self._make_candidates(contexts, shape.freq)
        # A missing language model ends the fit before other candidates take their time.
        backbones = [candidate.load_backbone() for candidate in candidates]
        backbone = next((one for one in backbones if one is not None), None)
        return CombinedState(nn.ModuleDict(), backbone, shape, self.device, candidates=candidates)

    def _restore_state(self, saved: Mapping[str, Any], backbone: Backbone | None) -> CombinedState:
        read = dict(saved)
        names, states = read.pop("names"), read.pop("candidates")
        combination = read.pop("combination")
        state = CombinedState.from_state(
            read, lambda shape: nn.ModuleDict(), backbone, self.device, self._restore_encoder
        )
        assert isinstance(state, CombinedState)
        variables = state.shape.n_variables
        state.combination = Combination.from_state(combination, len(names), variables)
        state.candidates = [self._candidate(name, state.shape.freq) for name in names]
        for candidate, learnt in zip(state.candidates, states, strict=True):
            candidate.restore(learnt)
        return state

    def _fit_parts(self, state: FittedState, contexts: Sequence[Context]) -> None:
        """Fit every candidate before the held-out windows, and combine them by their errors."""
        assert isinstance(state, CombinedState)  # _new_state made it
        residuals = state.residuals(contexts)
        horizon = state.shape.horizon
        count = self.n_origins if self.n_origins == "auto" else int(self.n_origins)
        origins_of = choose_origins(residuals, horizon, count)
        before = [
            context.until(int(origins[0])) if len(origins) else context
            for context, origins in zip(residuals, origins_of)
        ]
        scored = [context for context, origins in zip(before, origins_of) if len(origins)]
        held_out = HeldOut.of(
            residuals,
            origins_of,
            horizon=horizon,
            season=season_length(state.shape.freq),
            history=longest_history(contexts),
        )
        held_out = _without_effects(held_out, state, residuals)
        forecasts, left_out = self._fit_candidates(state, before, scored, held_out)
        windows = held_out.with_forecasts(_filled(forecasts))
        ids = [context.series_id for context in residuals]
        state.combination = learn_combination(windows, ids)
        state.table, state.facts = _report(state, windows, ids)
        if self.candidates == "auto" and self.backbone is not None:
            typical, least = typical_steps(contexts), AUTO_CANDIDATES["autotimes"]
            if typical < least:
                state.facts["language_model"] += (
                    f": a typical series has {typical} steps, and autotimes joins from {least} on"
                )
        state.table += left_out
        keep = max(longest_history(contexts), *(one.steps_to_keep() for one in state.candidates))
        state.shape = ModelShape(**vars(state.shape) | {"context_length": keep})
        combined = state.combination.combine(windows, ids)
        state.calibration = held_out.calibrate(combined, ids, history=keep, adaptive=self.adaptive)

    def _fit_candidates(
        self,
        state: CombinedState,
        before: Sequence[Context],
        scored: Sequence[Context],
        held_out: HeldOut,
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """Fit the candidates of a state and keep those that can be; forecast the held-out windows.

        ``before`` are all series before their windows, ``scored`` those that have windows. The
        result is (windows, horizon, variables, candidates), NaN for windows that a candidate cannot
        read, and a row of the table for each candidate that is left out.
        """
        started = time.perf_counter()
        horizon = state.shape.horizon
        fitted: list[Candidate] = []
        forecasts: list[np.ndarray] = []
        left_out: list[dict[str, Any]] = []
        for candidate in state.candidates:
            if fitted and self._takes_too_long(
                candidate, before, scored, held_out, horizon, started
            ):
                left_out.append({"candidate": candidate.name, "note": "left out: time_limit"})
                continue
            begun = time.perf_counter()
            try:
                candidate.fit(before if candidate.learns else scored, horizon)
            except NotEnoughDataError as error:
                if len(state.candidates) == 1:
                    raise
                warnings.warn(f"candidate {candidate.name} is left out: {error}", stacklevel=2)
                left_out.append({"candidate": candidate.name, "note": "left out: too few steps"})
                continue
            forecast = _forecasts_of(candidate, held_out)
            candidate.seconds = time.perf_counter() - begun
            if np.isnan(forecast).all() and len(state.candidates) > 1:
                warnings.warn(
                    f"candidate {candidate.name} is left out: the last "
                    f"{candidate.steps_to_keep()} steps before every held-out window, which it "
                    "reads, have a variable without an observed value",
                    stacklevel=2,
                )
                left_out.append(
                    {"candidate": candidate.name, "note": "left out: values are missing"}
                )
                continue
            forecasts.append(forecast)
            fitted.append(candidate)
        if not fitted:
            raise NotEnoughDataError("no candidate can be fitted: pass longer series")
        state.candidates = fitted
        read = {one.name: one.load_backbone() for one in fitted}
        if any(one is not None and name in TRAINED for name, one in read.items()):
            # As `from_state` loads it: the backbone of a candidate may have fewer layers.
            state.backbone = self._load_backbone()
        else:
            state.backbone = next((one for one in read.values() if one is not None), None)
        return np.stack(forecasts, axis=-1), left_out

    def _takes_too_long(
        self,
        candidate: Candidate,
        before: Sequence[Context],
        scored: Sequence[Context],
        held_out: HeldOut,
        horizon: int,
        started: float,
    ) -> bool:
        """Check whether a candidate would not be ready within the time limit; warn if so."""
        if self.time_limit is None:
            return False
        contexts = before if candidate.learns else scored
        needed = candidate.estimate_seconds(contexts, horizon, len(held_out.pasts))
        spent = time.perf_counter() - started
        if spent + needed <= self.time_limit:
            return False
        warnings.warn(
            f"candidate {candidate.name} is left out: it would take about {needed:.0f} s, and "
            f"{max(0.0, self.time_limit - spent):.0f} s of time_limit={self.time_limit:g} are left",
            stacklevel=2,
        )
        return True

    # ------------------------------------------------------------------ candidates

    def _make_candidates(self, contexts: Sequence[Context], freq: str | None) -> list[Candidate]:
        """Make the unfitted candidates for some series."""
        given = self.candidates
        if isinstance(given, str):
            typical = typical_steps(contexts)
            names = [name for name, least in AUTO_CANDIDATES.items() if typical >= least]
            # The packaged weights belong to the default language model. A machine with another one
            # need not have it.
            own = {None: {"zero_shot", "autotimes"}, DEFAULT_BACKBONE: set()}
            without = own.get(self.backbone, {"zero_shot"})
            names = [name for name in names if name not in without]
            return [self._candidate(name, freq) for name in names]
        return [
            self._candidate(one, freq)
            if isinstance(one, str)
            else self._from_forecaster(f"{type(one).__name__}_{number}", one, freq)
            for number, one in enumerate(given)
        ]

    def _candidate(self, name: str, freq: str | None) -> Candidate:
        """Make an unfitted candidate by its name in the table."""
        if name in STATISTICAL:
            return StatisticalCandidate(name, freq)
        if name in TRAINED:
            return TrainedCandidate(name, self._trained(name))
        _, _, number = name.rpartition("_")
        return self._from_forecaster(name, self.candidates[int(number)], freq)

    def _trained(self, name: str) -> ModelForecaster:
        """Make the forecaster of a trained candidate with the settings of this one."""
        cls = TRAINED[name]
        checkpoints = self.checkpoint_dir
        settings: dict[str, Any] = {
            "batch_size": self.batch_size,
            "max_steps": TRAINING_STEPS,
            "checkpoint_dir": None if checkpoints is None else Path(checkpoints) / name,
            "device": self.device,
            "random_state": self._seed(),
            "verbose": self.verbose,
        }
        if name in ("autotimes", "timecma"):
            settings["embedding_store"] = self.embedding_store
        if name not in ("dlinear", "linear", "patchtst", "aaren"):
            settings |= {
                "backbone": self.backbone,
                "backbone_layers": self._layers(),
                "dtype": self.dtype,
                "max_steps": LANGUAGE_MODEL_STEPS,
            }
        taken = cls.get_param_names()  # a closed form has no steps to limit
        return cls(**{name: value for name, value in settings.items() if name in taken})

    def _layers(self) -> int | None:
        """Return the number of the language model's layers to use."""
        if isinstance(self.backbone_layers, str):
            return None if self.backbone is None else auto_layers(self.backbone)
        return self.backbone_layers

    def _load_backbone(self) -> Backbone | None:
        if self.backbone is None:
            return None
        return load_backbone(
            self.backbone, layers=self._layers(), device=self.device, dtype=self.dtype
        )

    # ------------------------------------------------------------------ the hooks of a method

    def _reader(self, state: FittedState, *, followed: bool = False) -> Reader:
        assert isinstance(state, CombinedState)  # _new_state made it
        return CombinedReader(state)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._check_candidates()

    def _check_candidates(self) -> None:
        """Check the argument ``candidates``."""
        given = self.candidates
        if given == "auto":
            return
        names = ", ".join((*STATISTICAL, *TRAINED))
        if isinstance(given, str) or not isinstance(given, Sequence) or not given:
            raise DataError(
                f"candidates must be 'auto' or a list of names and forecasters, found {given!r}: "
                f"the names are {names}"
            )
        for number, one in enumerate(given):
            composed = isinstance(one, ComposedForecaster)
            if composed or not isinstance(one, str | BaseForecaster):
                kind = type(one).__name__ if composed else "AutoForecaster"
                raise DataError(
                    f"candidates[{number}] must be one of {names}, or an sktime forecaster that is "
                    f"no {kind}, found {one!r}"
                )
            if isinstance(one, str) and one not in (*STATISTICAL, *TRAINED):
                raise DataError(f"candidates[{number}] must be one of {names}, found {one!r}")
            if isinstance(one, str) and list(given).count(one) > 1:
                raise DataError(f"candidates names {one!r} twice: drop one")


# ---------------------------------------------------------------------- what is told


def _without_effects(
    held_out: HeldOut, state: CombinedState, residuals: Sequence[Context]
) -> HeldOut:
    """Subtract the effects of past covariates and texts, which candidates do not forecast."""
    horizon = held_out.actual.shape[1]
    known = [
        state.known_ahead(residuals[number], origin, horizon)
        for number, origin in zip(held_out.series.tolist(), held_out.origins.tolist())
    ]
    effects = state.with_lagged_effects(np.zeros((*held_out.actual.shape, 1)), held_out.pasts)
    effects = state.with_text_effects(effects, held_out.pasts, known)
    return replace(held_out, actual=held_out.actual - effects[..., 0])


def _forecasts_of(candidate: Candidate, held_out: HeldOut) -> np.ndarray:
    """Forecast the held-out windows; those that the candidate cannot read are NaN."""
    out = np.full(held_out.actual.shape, np.nan)
    rows = [row for row, past in enumerate(held_out.pasts) if candidate.can_read(past)]
    if rows:
        pasts, horizon = [held_out.pasts[row] for row in rows], held_out.actual.shape[1]
        out[rows] = candidate.forecast(pasts, horizon)
    return out


def _filled(forecasts: np.ndarray) -> np.ndarray:
    """Replace what a candidate cannot forecast, NaN, by the mean of the others.

    The shape is (windows, horizon, variables, candidates). The weights of a forecast are shared
    among the candidates that can read its context, too.
    """
    known = ~np.isnan(forecasts)
    total = np.where(known, forecasts, 0.0).sum(axis=-1, keepdims=True)
    count = known.sum(axis=-1, keepdims=True)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.where(known, forecasts, mean)


def _report(
    state: CombinedState, windows: HeldOutForecasts, ids: Sequence[Hashable]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Write the table of candidates, and the facts of the combination."""
    assert state.combination is not None
    horizon = windows.actual.shape[1]
    n_candidates = len(state.candidates)
    single = windows.mean_errors(np.eye(n_candidates), 0, horizon)
    errors = np.nanmean(single.reshape(-1, n_candidates), axis=0) if _any(single) else None
    weights = state.combination.mean_weights()
    table = [
        {
            "candidate": candidate.name,
            "error": None if errors is None else float(errors[number]),
            "weight": float(weights[number]),
            "seconds": candidate.seconds,
        }
        for number, candidate in enumerate(state.candidates)
    ]
    whole = _combined_error(state.combination, windows, ids)
    facts: dict[str, Any] = {
        "error": whole,
        "windows": len(windows.actual),
        "validation_loss": whole,
        "language_model": _what_it_added(state.candidates, windows, ids, whole),
    }
    return table, facts


def _what_it_added(
    candidates: Sequence[Candidate],
    windows: HeldOutForecasts,
    ids: Sequence[Hashable],
    whole: float | None,
) -> str:
    """Write in a sentence what the language model added to the combination."""
    without = [number for number, one in enumerate(candidates) if not one.uses_language_model]
    if len(without) == len(candidates):
        return "no candidate with a language model took part"
    if not without:
        return "every candidate has a language model"
    if whole is None:
        return "no held-out window could be scored"
    rest = HeldOutForecasts(
        windows.forecasts[..., without], windows.actual, windows.scale, windows.series
    )
    error = _combined_error(learn_combination(rest, ids), rest, ids)
    assert error is not None  # the same windows are scored
    change = 0.0 if error == 0 else 100 * (whole / error - 1)
    verb = "lowers" if change < -0.5 else "raises" if change > 0.5 else "does not change"
    by = f" by {abs(change):.0f} %" if abs(change) > 0.5 else ""
    return (
        f"the language model {verb} the held-out error of the combination{by} "
        f"({error:.3f} without, {whole:.3f} with it)"
    )


def _combined_error(
    combination: Combination, windows: HeldOutForecasts, ids: Sequence[Hashable]
) -> float | None:
    """Compute the mean scaled error of a combination on its windows; None without a score."""
    combined = combination.combine(windows, ids)[..., None]
    one = HeldOutForecasts(combined, windows.actual, windows.scale, windows.series)
    errors = one.mean_errors(np.ones((1, 1)), 0, combined.shape[1])
    return float(np.nanmean(errors)) if _any(errors) else None


def _any(errors: np.ndarray) -> bool:
    """Return whether there is any error."""
    return bool((~np.isnan(errors)).any())


def _short(row: Mapping[str, Any]) -> str:
    """Write a row of the table for the card."""
    if "note" in row:
        return str(row["note"])
    return f"{_error_in_words(row['error'])}, {row['weight']:.2f}"


def _error_in_words(error: float | None) -> str:
    """Write a held-out error."""
    return "not scored" if error is None else f"{error:.4g}"
