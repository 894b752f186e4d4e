"""Profiles of series: level, trend, season and spread; and what few observations say of them."""

from dataclasses import dataclass

import numpy as np

#: Seasons, or steps of series without one, that a profile is fitted on, and that it needs.
WINDOW_SEASONS, NEEDED_SEASONS = 3, 2
WINDOW_STEPS, NEEDED_STEPS = 20, 5
#: Most pairs of waves of a season: long seasons are smooth.
MOST_WAVES = 6
#: The least spread, as a share of the panel's median one, of its deviation, and of its largest
#: value: no series is known without error.
LEAST_SPREAD, LEAST_DEVIATION, LEAST_VALUE = 0.05, 1e-4, 1e-9


@dataclass(frozen=True)
class Profile:
    """The form of profiles: a level, a trend and the waves of a season of ``season`` steps.

    Examples
    --------
    >>> form = Profile(season=4)
    >>> form.n_terms, form.window, form.needed, form.counts
    (5, 12, 8, (1, 2, 3, 4, 8))
    """

    #: 1 for none.
    season: int

    @property
    def n_terms(self) -> int:
        """Return the number of coefficients."""
        return self.design(np.zeros(1)).shape[1]

    @property
    def window(self) -> int:
        """Return the steps at the end of a series that a profile is fitted on.

        A series with that number of observations is forecast without its description.
        """
        return WINDOW_SEASONS * self.season if self.season > 1 else WINDOW_STEPS

    @property
    def needed(self) -> int:
        """Return the least number of observations in the window."""
        return NEEDED_SEASONS * self.season if self.season > 1 else NEEDED_STEPS

    @property
    def counts(self) -> tuple[int, ...]:
        """Return the numbers of observations for which forecasts are tried on the panel."""
        season = self.season if self.season > 1 else NEEDED_STEPS
        some = {1, 2, 3, season // 2, season, 2 * season}
        return tuple(sorted(one for one in some if 0 < one < self.window))

    @property
    def groups(self) -> list[list[int]]:
        """Return the positions of level, trend, season and log spread among the quantities."""
        season = list(range(2, self.n_terms))
        return [[0], [1], *([season] if season else []), [self.n_terms]]

    def design(self, steps: np.ndarray) -> np.ndarray:
        """Return the terms at some steps, (steps, terms); step 0 is the end of the panel."""
        steps = np.asarray(steps, dtype=np.float64)
        columns = [np.ones_like(steps), steps / self.window]
        for wave in range(1, min(self.season // 2, MOST_WAVES) + 1):
            angle = 2 * np.pi * wave * steps / self.season
            columns.append(np.cos(angle))
            if 2 * wave < self.season:
                columns.append(np.sin(angle))
        return np.stack(columns, axis=1)

    def fit(self, values: np.ndarray, last_step: int = 0) -> np.ndarray:
        """Fit the profiles of series on the last steps of their window.

        Parameters
        ----------
        values : array (series, window)
            On the scale of the profiles, NaN where not observed.
        last_step : int, default=0
            The step of the last column.

        Returns
        -------
        array (series, terms + 1)
            The coefficients and the logarithm of the spread around them; NaN for a series with too
            few observations.
        """
        steps = last_step - np.arange(values.shape[1])[::-1]
        terms = self.design(steps)  # (window, terms)
        out = np.full((len(values), terms.shape[1] + 1), np.nan)
        for row, own in enumerate(values):
            seen = ~np.isnan(own)
            if seen.sum() < self.needed:
                continue
            coefficients, _, rank, _ = np.linalg.lstsq(terms[seen], own[seen], rcond=None)
            if rank < terms.shape[1]:  # whole phases of the season are missing
                continue
            residual = own[seen] - terms[seen] @ coefficients
            freedom = max(1, int(seen.sum()) - terms.shape[1])
            out[row, :-1] = coefficients
            out[row, -1] = np.sqrt((residual**2).sum() / freedom)
        spreads = out[:, -1]
        known = spreads[np.isfinite(spreads)]
        if len(known):
            inside = values[np.isfinite(values)]
            least = max(
                LEAST_SPREAD * float(np.median(known)),
                LEAST_DEVIATION * float(inside.std()),
                LEAST_VALUE * float(np.abs(inside).max()),
                1e-12,
            )
            out[:, -1] = np.log(np.maximum(spreads, least))
        return out


def posterior(
    form: Profile,
    expected: np.ndarray,
    covariance: np.ndarray,
    seen_steps: np.ndarray,
    seen: np.ndarray,
    ahead: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Forecast a series from its expected profile and its observations.

    The coefficients are normal around the expected ones, the observations around the profile
    (Lindley and Smith, "Bayes estimates for the linear model", JRSS B 1972). Without any
    observation the forecast is the expected profile; with many it is their regression.

    Parameters
    ----------
    form : Profile
    expected : array (terms + 1,)
        The expected coefficients and log spread.
    covariance : array (terms, terms)
        Of the coefficients around the expected ones.
    seen_steps, seen : array (observations,)
        The steps and values of the observations, none missing.
    ahead : array (horizon,)
        The steps to forecast.

    Returns
    -------
    forecast, deviation : array (horizon,)
        The mean and the standard deviation of the values to come.
    """
    coefficients, noise = expected[:-1], float(np.exp(2 * expected[-1]))
    if len(seen):
        terms = form.design(seen_steps)  # (observations, terms)
        shared = covariance @ terms.T  # (terms, observations)
        total = terms @ shared + noise * np.eye(len(seen))
        gain = np.linalg.solve(total, shared.T).T  # (terms, observations)
        coefficients = coefficients + gain @ (seen - terms @ coefficients)
        covariance = covariance - gain @ shared.T
    terms = form.design(ahead)  # (horizon, terms)
    variance = np.einsum("ht,tu,hu->h", terms, covariance, terms)
    return terms @ coefficients, np.sqrt(np.maximum(variance, 0.0) + noise)
