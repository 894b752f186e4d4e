"""What a panel says of a series with few observations: the prior of its profile, by its text."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tsllm.errors import ModelFormatError, NotEnoughDataError
from tsllm.intervals.calibration import extend_steps
from tsllm.intervals.conformal import conformal_quantile
from tsllm.saving.fields import read_fields
from tsllm.text.profiles import Profile, posterior
from tsllm.text.regression import TextRegression

#: Fewest series with a profile that a panel learns from.
LEAST_SERIES = 8
#: Most times, a horizon apart, at which series are forecast without their observations.
MOST_ORIGINS = 3
#: Most series that are forecast as if they had a few observations, by the profile and by the
#: forecaster around it, which may take long.
MOST_SCORED, MOST_TRIED = 512, 48
#: Observations after which the own forecast counts as much as the profile; infinite: never.
HALF_WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, math.inf)
#: The own forecast must lower the error of the profile by this share.
LEAST_GAIN = 0.01
#: Share of the covariance of profiles that is moved to its diagonal.
DIAGONAL_SHARE = 0.1

#: Forecasts (rows, horizon, variables) of some series of the panel, from a number of observations
#: before an origin (a step, 0 being the end of the panel); NaN for a series without a forecast.
OwnForecasts = Callable[[Sequence[int], int, int], np.ndarray]


@dataclass(frozen=True)
class ValueScale:
    """The scale of the profiles: logarithms, or the values as they are.

    Examples
    --------
    >>> ValueScale(1.0).forward(np.array([0.0])).tolist(), ValueScale(None).forward(3.0)
    ([0.0], 3.0)
    """

    #: Added before the logarithm; None: no logarithm.
    offset: float | None

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Convert values to the scale of the profiles; a value without a logarithm becomes NaN."""
        if self.offset is None:
            return values
        moved = np.asarray(values) + self.offset
        return np.log(np.where(moved > 0, moved, np.nan))

    def backward(self, values: np.ndarray) -> np.ndarray:
        """Convert values back to the units of the series."""
        if self.offset is None:
            return values
        return np.exp(np.minimum(values, 320.0)) - self.offset

    @classmethod
    def possible(cls, values: np.ndarray) -> list["ValueScale"]:
        """List the scales for a panel's values: logarithms only where none is negative."""
        seen = values[np.isfinite(values)]
        plain = [cls(None)]
        if not len(seen) or seen.min() < 0 or seen.max() <= 0:
            return plain
        offset = 0.0 if seen.min() > 0 else float(np.quantile(seen[seen > 0], 0.05))
        return [cls(offset), *plain]


@dataclass(frozen=True)
class ProfilePrior:
    """The expected profile of a series, its uncertainty, and what observations change.

    Each field is of one variable.
    """

    scale: ValueScale
    regression: TextRegression
    #: (terms, terms): of coefficients around the expected ones, left-out series only.
    covariance: np.ndarray
    #: Decides the weight of the own forecast; see `own_weight`.
    half_weight: float
    #: By the number of observations: errors of left-out series in deviations, (windows, horizon).
    scores: dict[int, np.ndarray]
    #: Origins that each series was scored at without observations.
    origins: int
    #: Mean absolute error of left-out series without observations, in usual changes of a season.
    error: float

    def quantiles(self, count: int, horizon: int, levels: Sequence[float]) -> np.ndarray:
        """Return conformal quantiles of the errors, in deviations: (levels, horizon).

        The errors are those of other series forecast from the same number of observations, or from
        fewer.
        """
        tried = max(one for one in self.scores if one <= count)
        ordered = np.sort(self.scores[tried], axis=0)[..., None]  # (windows, horizon, 1)
        overlap = float(self.origins if tried == 0 else 1)
        at = np.asarray(levels)[:, None, None]
        return extend_steps(conformal_quantile(ordered, at, overlap), horizon)[..., 0]

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""
        return {
            **vars(self),
            "scale": self.scale.offset,
            "regression": self.regression.to_state(),
            "scores": list(self.scores.values()),
            "counts": list(self.scores),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ProfilePrior":
        """Build the prior from the output of `to_state`."""
        read = dict(state)
        read["scores"] = dict(zip(read.pop("counts"), read["scores"], strict=True))
        read["scale"] = read_fields(ValueScale, {"offset": read["scale"]})
        read["regression"] = TextRegression.from_state(read["regression"])
        prior = read_fields(cls, read)
        regression, terms = prior.regression, len(prior.covariance)
        arrays = (regression.means, regression.centre, regression.weights, prior.covariance)
        offset = prior.scale.offset
        if (
            not all(np.isfinite(one).all() for one in arrays)
            or prior.covariance.shape != (terms, terms)
            or regression.means.shape != (terms + 1,)
            or regression.weights.shape != (len(regression.centre), terms + 1)
            or not all(isinstance(count, int) for count in prior.scores)
            or min(prior.scores, default=-1) != 0
            or not all(_is_table(one) for one in prior.scores.values())
            or len({one.shape[1] for one in prior.scores.values()}) != 1
            or prior.origins < 1
            or not prior.half_weight >= 0
            or (offset is not None and not 0 <= offset < math.inf)
        ):
            raise _not_usable()
        return prior


@dataclass(frozen=True)
class PanelProfiles:
    """The priors of a panel: of series with a text, and of any series where that was asked for."""

    form: Profile
    #: For each variable, by the text of a series; None where the panel has no texts.
    by_text: list[ProfilePrior] | None
    #: For each variable, for a series without a text; None where it must have one.
    without_text: list[ProfilePrior] | None

    def priors(self, vector: np.ndarray | None) -> list[ProfilePrior] | None:
        """Return the priors of a series with the vector of its text, or None for no text."""
        return self.without_text if vector is None else self.by_text

    def forecast(
        self,
        values: np.ndarray,
        last_step: int,
        vector: np.ndarray | None,
        own: np.ndarray | None,
        horizon: int,
        levels: Sequence[float] = (),
    ) -> np.ndarray:
        """Forecast one series from its observations, its text and the forecast of its own.

        Parameters
        ----------
        values : array (time, variables)
            Its history, NaN where not observed.
        last_step : int
            The step of the last row; 0 is the end of the panel.
        vector : array (width,) or None
            Of its text; None for no text.
        own : array (horizon, variables) or None
            A forecast from the observations alone; None where there is none.
        horizon : int
        levels : sequence of float, default=()

        Returns
        -------
        array (horizon, variables, 1 + levels)
            The medians and the quantiles, in the units of the series.
        """
        priors = self.priors(vector)
        assert priors is not None  # the caller says what is missing
        window = self.form.window
        steps = last_step - np.arange(len(values))[::-1]
        ahead = last_step + np.arange(1, horizon + 1)
        text = np.zeros((1, 0)) if vector is None else vector[None]
        out = np.empty((horizon, len(priors), 1 + len(levels)))
        for variable, prior in enumerate(priors):
            recent = prior.scale.forward(values[-window:, variable])
            seen = np.flatnonzero(~np.isnan(recent))
            mean, deviation = posterior(
                self.form,
                prior.regression.predict(text)[0],
                prior.covariance,
                steps[-window:][seen],
                recent[seen],
                ahead,
            )
            if own is not None and len(seen):
                weight = own_weight(prior.half_weight, len(seen), window)
                mean += weight * (_own_on_scale(prior.scale, own[:, variable], recent) - mean)
            offsets = np.zeros((1, horizon))
            if levels:
                found = prior.quantiles(len(seen), horizon, levels)
                at = np.asarray(levels)[:, None]
                # as every interval of a forecaster, they hold the point, which is the median
                found = np.where(at <= 0.5, np.minimum(found, 0.0), found)
                found = np.where(at >= 0.5, np.maximum(found, 0.0), found)
                offsets = np.concatenate([offsets, found])
            out[:, variable] = prior.scale.backward(mean + offsets * deviation).T
        return out

    def summary(self) -> dict[str, Any]:
        """Summarise the priors in plain values."""
        told: dict[str, Any] = {"season": self.form.season}
        for name, priors in (("by_text", self.by_text), ("panel_mean", self.without_text)):
            if priors is not None:
                told[name] = [_summary(prior) for prior in priors]
        return told

    def to_state(self) -> dict[str, Any]:
        """Return the fields as plain values and arrays."""

        def states(priors: list[ProfilePrior] | None) -> list[dict[str, Any]] | None:
            return None if priors is None else [prior.to_state() for prior in priors]

        return {
            "season": self.form.season,
            "by_text": states(self.by_text),
            "without_text": states(self.without_text),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "PanelProfiles":
        """Build the profiles from the output of `to_state`."""

        def priors(states: list[dict[str, Any]] | None) -> list[ProfilePrior] | None:
            return None if states is None else list(map(ProfilePrior.from_state, states))

        form = read_fields(Profile, {"season": state["season"]})
        profiles = cls(form, priors(state["by_text"]), priors(state["without_text"]))
        every = [profiles.by_text, profiles.without_text]
        if form.season < 1 or not any(every) or [] in every:
            raise _not_usable()
        terms = {len(prior.covariance) for one in every for prior in one or ()}
        if terms != {form.n_terms}:
            raise _not_usable()
        return profiles


@dataclass(frozen=True)
class Panel:
    """The ends of the series of a panel on common steps.

    Attributes
    ----------
    values : array (series, steps, variables)
        The last column is step 0, the end of the panel; NaN where not observed.
    usual : array (series, variables)
        The usual change of each series over a season, which errors are compared with.
    form : Profile
    horizon : int
        Steps of the held-out ends.
    """

    values: np.ndarray
    usual: np.ndarray
    form: Profile
    horizon: int

    def window(self, origin: int, scale: ValueScale, variable: int) -> np.ndarray:
        """Return the window that ends with a step, (series, window), on a scale."""
        end = self.values.shape[1] + origin
        return scale.forward(self.values[:, end - self.form.window : end, variable])

    def future(self, origin: int, scale: ValueScale, variable: int) -> np.ndarray:
        """Return the steps after a step, (series, horizon), on a scale."""
        end = self.values.shape[1] + origin
        return scale.forward(self.values[:, end : end + self.horizon, variable])


def panel_form(values: np.ndarray, season: int, horizon: int) -> tuple[Profile, int, int] | None:
    """Choose the form of profiles for a panel, and the held-out ends that it leaves room for.

    Parameters
    ----------
    values : array (series, steps, variables)
        As in `Panel`; the more steps, the better.
    season : int
        Steps of a season; 1 for none.
    horizon : int
        Steps that forecasts shall have.

    Returns
    -------
    form, horizon, origins : Profile, int, int
        The form without season where too few series have two seasons; the steps of a held-out end,
        fewer than ``horizon`` in short panels; the number of ends.
    None
        The panel is too small or too short.
    """
    seen = (~np.isnan(values)).all(axis=2)  # (series, steps)
    for form in [Profile(season)] * (season > 1) + [Profile(1)]:
        for steps in range(horizon, 0, -1):
            origins = 0
            while origins < MOST_ORIGINS and values.shape[1] >= (origins + 1) * steps + form.needed:
                end = values.shape[1] - (origins + 1) * steps
                counts = seen[:, max(0, end - form.window) : end].sum(axis=1)
                ahead = seen[:, end : end + steps].any(axis=1)
                if ((counts >= form.needed) & ahead).sum() < LEAST_SERIES:
                    break
                origins += 1
            if origins:
                return form, steps, origins
    return None


def learn_priors(
    panel: Panel, vectors: np.ndarray | None, origins: int, own: OwnForecasts
) -> list[ProfilePrior]:
    """Learn the prior of each variable from the series of a panel.

    Each series is left out in turn: the regression on the other series forecasts the end of it, as
    if it had no observation, or a few. These errors choose the scale and the weight of the
    forecasts of its own, and calibrate the intervals.

    Parameters
    ----------
    panel : Panel
    vectors : array (series, width) or None
        Of the texts of the series. None: the mean of the panel.
    origins : int
        Number of held-out ends.
    own : callable
        The forecasts of the forecaster itself.

    Returns
    -------
    list of ProfilePrior
        One a variable.
    """
    n_series, _, n_variables = panel.values.shape
    texts = np.zeros((n_series, 0)) if vectors is None else vectors
    tried = _spread_out(n_series, MOST_TRIED)
    own_forecasts = {count: own(tried, -panel.horizon, count) for count in panel.form.counts}
    priors = []
    for variable in range(n_variables):
        best: _LeftOut | None = None
        for scale in ValueScale.possible(panel.values[..., variable]):
            found = _leave_out(panel, texts, scale, variable, origins)
            if best is None or found.error < best.error:
                best = found
        assert best is not None  # a scale is always possible
        forecasts = {n: one[..., variable] for n, one in own_forecasts.items()}
        half_weight, scores = _with_observations(panel, best, variable, tried, forecasts)
        regression, without, chosen = _fit(panel, texts, best.scale, variable, 0)
        priors.append(
            ProfilePrior(
                best.scale,
                regression,
                _covariance(chosen - without),
                half_weight,
                {0: best.scores, **scores},
                origins,
                best.error,
            )
        )
    return priors


# ---------------------------------------------------------------------- leaving series out


@dataclass(frozen=True)
class _LeftOut:
    """Series that were forecast without their observations, on one scale."""

    scale: ValueScale
    #: (windows, horizon): errors in deviations.
    scores: np.ndarray
    error: float
    #: At the last origin, (series, terms + 1): the profile expected without the series, NaN where
    #: it has none; and the covariance around it.
    expected: np.ndarray
    covariance: np.ndarray


def _fit(
    panel: Panel, texts: np.ndarray, scale: ValueScale, variable: int, origin: int
) -> tuple[TextRegression, np.ndarray, np.ndarray]:
    """Regress the profiles at a step on the texts of the series.

    The regression comes with the profiles that it predicts of each series from the others, and the
    profiles themselves, both (series, terms + 1), NaN for a series without a profile.
    """
    fitted = panel.form.fit(panel.window(origin, scale, variable), origin)
    known = np.flatnonzero(np.isfinite(fitted).all(axis=1))
    if len(known) < LEAST_SERIES:
        raise NotEnoughDataError(
            f"only {len(known)} series have a profile of level, trend and season, and at least "
            f"{LEAST_SERIES} are needed: pass more series, or longer ones"
        )
    regression, predicted = TextRegression.fit(texts[known], fitted[known], panel.form.groups)
    without = np.full_like(fitted, np.nan)
    without[known] = predicted
    return regression, without, fitted


def _leave_out(
    panel: Panel, texts: np.ndarray, scale: ValueScale, variable: int, origins: int
) -> _LeftOut:
    """Forecast the end of each series without its observations."""
    scores, errors = [], []
    form, nothing = panel.form, np.empty(0)
    expected = covariance = np.empty(0)
    for number in range(origins, 0, -1):  # the last origin last
        origin = -panel.horizon * number
        _, expected, fitted = _fit(panel, texts, scale, variable, origin)
        covariance = _covariance(fitted - expected)
        future = panel.future(origin, scale, variable)
        ahead = origin + np.arange(1, panel.horizon + 1)
        for row in np.flatnonzero(np.isfinite(expected).all(axis=1)).tolist():
            mean, deviation = posterior(form, expected[row], covariance, nothing, nothing, ahead)
            scores.append((future[row] - mean) / deviation)
            miss = np.abs(scale.backward(future[row]) - scale.backward(mean))
            usual = panel.usual[row, variable]
            if usual > 0 and np.isfinite(miss).any():
                errors.append(np.nanmean(miss) / usual)
    mean_error = float(np.mean(errors)) if errors else math.inf
    return _LeftOut(scale, np.stack(scores), mean_error, expected, covariance)


def _with_observations(
    panel: Panel,
    left_out: _LeftOut,
    variable: int,
    tried: Sequence[int],
    own_forecasts: Mapping[int, np.ndarray],
) -> tuple[float, dict[int, np.ndarray]]:
    """Forecast series as if they had a few observations; choose the weight of their own forecasts.

    The result is the half weight, and by the number of observations the errors in deviations,
    (series, horizon).
    """
    form, scale, origin = panel.form, left_out.scale, -panel.horizon
    past = panel.window(origin, scale, variable)
    future = panel.future(origin, scale, variable)
    ahead = origin + np.arange(1, panel.horizon + 1)
    steps = origin - np.arange(form.window)[::-1]
    described = np.isfinite(left_out.expected).all(axis=1)
    found: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for count in form.counts:
        recent = past[:, -count:]
        usable = described & ~np.isnan(recent).any(axis=1) & ~np.isnan(future).all(axis=1)
        rows = np.flatnonzero(usable)
        rows = rows[_spread_out(len(rows), MOST_SCORED)]
        if not len(rows):
            continue
        made = [
            posterior(
                form,
                left_out.expected[row],
                left_out.covariance,
                steps[-count:],
                recent[row],
                ahead,
            )
            for row in rows.tolist()
        ]
        own = np.full((len(rows), panel.horizon), np.nan)
        place = {row: number for number, row in enumerate(tried)}
        for number, row in enumerate(rows.tolist()):
            if row in place:
                own[number] = _own_on_scale(scale, own_forecasts[count][place[row]], recent[row])
        mean, deviation = (np.stack(one) for one in zip(*made))
        noise = np.exp(left_out.expected[rows, -1])[:, None]
        # (rows, horizon) each, in deviations: the errors, those of the own forecast, in noises
        found[count] = (
            (future[rows] - mean) / deviation,
            (future[rows] - own) / deviation,
            deviation / noise,
        )
    half_weight = _choose_half_weight(found, form.window)
    scores = {}
    for count, (profile, own_error, _) in found.items():
        weight = own_weight(half_weight, count, form.window)
        tested = ~np.isnan(own_error).all(axis=1)
        if weight > 0 and tested.any():
            scores[count] = (profile + weight * (own_error - profile))[tested]
        else:
            scores[count] = profile
    return half_weight, scores


def _choose_half_weight(
    found: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray]], enough: int
) -> float:
    """Choose the half weight with the least error over all numbers of observations."""
    totals = {}
    for half_weight in HALF_WEIGHTS:
        shares = []
        for count, (profile, own, size) in found.items():
            tested = ~np.isnan(own).all(axis=1)
            if not tested.any():
                continue
            weight = own_weight(half_weight, count, enough)
            mixed = np.abs(profile + weight * (own - profile)) * size
            alone = np.nanmean((np.abs(profile) * size)[tested])
            shares.append(np.nanmean(mixed[tested]) / max(float(alone), 1e-300))
        totals[half_weight] = float(np.mean(shares)) if shares else 1.0
    best = min(totals, key=lambda one: totals[one])
    return best if totals[best] < (1 - LEAST_GAIN) * totals[math.inf] else math.inf


def own_weight(half_weight: float, count: int, enough: int) -> float:
    """Return the weight of the own forecast from a number of observations; 1 at ``enough``.

    Examples
    --------
    >>> [round(own_weight(4.0, count, 36), 2) for count in (0, 1, 12, 35, 36)]
    [0.0, 0.2, 0.82, 1.0, 1]
    """
    if count == 0 or count >= enough or half_weight == 0:
        return float(count > 0)
    return count / (count + half_weight * (1 - count / enough))


def _own_on_scale(scale: ValueScale, own: np.ndarray, recent: np.ndarray) -> np.ndarray:
    """Bring an own forecast to the scale of the profiles, at least half its least observation."""
    if scale.offset is None:
        return own
    least = float(np.nanmin(recent)) - math.log(2)
    return np.fmax(scale.forward(own), np.where(np.isnan(own), np.nan, least))


def _is_table(scores: object) -> bool:
    """Return whether scores are finite or missing numbers (windows, horizon)."""
    if not isinstance(scores, np.ndarray) or scores.ndim != 2 or not scores.size:
        return False
    return scores.dtype.kind == "f" and not np.isinf(scores).any()


def _not_usable() -> ModelFormatError:
    return ModelFormatError(
        "the saved model's profiles of new series have sizes or values that no forecast can be "
        "made of: fit and save it again"
    )


def _covariance(errors: np.ndarray) -> np.ndarray:
    """Return the covariance of the coefficients' errors (series, terms + 1), kept regular."""
    known = errors[np.isfinite(errors).all(axis=1), :-1]
    square = known.T @ known / len(known)
    diagonal = np.diag(np.diag(square))
    return (1 - DIAGONAL_SHARE) * square + DIAGONAL_SHARE * diagonal


def _spread_out(total: int, most: int) -> list[int]:
    """Return at most ``most`` evenly spaced positions."""
    chosen = np.linspace(0, total - 1, min(total, most)).round().astype(int)
    return chosen.tolist() if total else []


def _summary(prior: ProfilePrior) -> dict[str, Any]:
    """Summarise the prior of a variable."""
    names = ["level", "trend", "season", "spread"]
    if len(prior.regression.chosen) == 3:
        names.remove("season")
    return {
        "scale": "as it is" if prior.scale.offset is None else "logarithm",
        "error": prior.error,
        "half_weight": prior.half_weight,
        "error_left": {
            name: round(left, 3) for name, (_, _, left) in zip(names, prior.regression.chosen)
        },
        "components": {name: size for name, (size, _, _) in zip(names, prior.regression.chosen)},
    }
