"""Exact Hawkes processes with exponential kernels: simulation and log-likelihood in float64.

This is the reference for the tests of the neural models and of `tsllm.HawkesForecaster`: numpy
only, one event at a time, independent of the torch modules. The intensity of type k is

    lambda_k(t) = mu_k + sum over earlier events j of alpha[k, k_j] beta_k exp(-beta_k (t - t_j))

so that one event of type j directly triggers ``alpha[k, j]`` events of type k.
"""

from typing import NamedTuple

import numpy as np

from tsllm.errors import DataError


class HawkesParameters(NamedTuple):
    """The parameters of a multivariate Hawkes process."""

    #: Shape (types,): the base rates.
    mu: np.ndarray
    #: Shape (types, types): the branching matrix, triggered type by triggering type.
    alpha: np.ndarray
    #: Shape (types,): the decay of the effect on each type, in 1 / time.
    beta: np.ndarray


def check_hawkes(mu: object, alpha: object, beta: object) -> HawkesParameters:
    """Check the shapes, signs and spectral radius of Hawkes parameters and return arrays."""
    rates = np.atleast_1d(np.asarray(mu, dtype=np.float64))
    n_types = len(rates)
    branching = np.asarray(alpha, dtype=np.float64)
    branching = branching.reshape(1, 1) if branching.ndim == 0 else branching
    decays = np.asarray(beta, dtype=np.float64)
    decays = np.full(n_types, decays) if decays.ndim == 0 else decays
    if branching.shape != (n_types, n_types) or decays.shape != (n_types,):
        raise DataError(
            f"mu has {n_types} types, alpha the shape {branching.shape} and beta {decays.shape}; "
            "pass alpha as (types, types) and beta as one number or one a type"
        )
    for name, values in (("mu", rates), ("alpha", branching), ("beta", decays)):
        if not np.isfinite(values).all() or (values < 0).any():
            raise DataError(f"{name}={values.tolist()} must be finite and not negative")
    if rates.sum() == 0 or (decays == 0).any():
        raise DataError(
            f"mu={rates.tolist()} and beta={decays.tolist()}: some rate mu and every decay beta "
            "must be positive"
        )
    radius = float(np.abs(np.linalg.eigvals(branching)).max())
    if radius >= 1:
        raise DataError(
            f"alpha has the spectral radius {radius:.4g}, so that events trigger ever more events; "
            "scale it below 1"
        )
    return HawkesParameters(rates, branching, decays)


def simulate_hawkes(
    parameters: HawkesParameters, start: float, end: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the times and types (events,) of one sequence on ``(start, end]``, started empty.

    Ogata's thinning is exact, because the intensity decreases between events.
    """
    mu, alpha, beta = parameters
    jumps = (alpha * beta[:, None]).T  # row j: the increase of each intensity at an event of type j
    excited = np.zeros(len(mu))
    base, now = float(mu.sum()), start
    times: list[float] = []
    types: list[int] = []
    while True:
        bound = base + float(excited.sum())
        interval = generator.exponential() / bound
        now += interval
        if now > end:
            return np.array(times), np.array(types, dtype=np.int64)
        excited *= np.exp(-beta * interval)
        cumulative = np.cumsum(mu + excited)
        drawn = generator.uniform() * bound
        if drawn < cumulative[-1]:
            kind = int(np.searchsorted(cumulative, drawn, side="right"))
            times.append(now)
            types.append(kind)
            excited += jumps[kind]


def hawkes_log_likelihood(
    times: np.ndarray, types: np.ndarray, parameters: HawkesParameters, start: float, end: float
) -> float:
    """Compute the log-likelihood in nats of one sequence on ``(start, end]``, started empty.

    Times (events,) do not decrease and types (events,) are int. The value is the sum of the
    log-intensities at the events minus the integral of all intensities.

    Examples
    --------
    >>> parameters = check_hawkes(0.4, 0.6, 1.2)
    >>> times = np.array([0.5, 1, 1.1, 3, 7])
    >>> round(hawkes_log_likelihood(times, np.zeros(5, int), parameters, 0, 10), 12)
    -9.252111223861
    """
    mu, alpha, beta = parameters
    jumps = (alpha * beta[:, None]).T
    excited, last, total = np.zeros(len(mu)), start, 0.0
    for time, kind in zip(times, types, strict=True):
        excited *= np.exp(-beta * (time - last))
        total += float(np.log(mu[kind] + excited[kind]))
        excited += jumps[kind]
        last = time
    ends = -np.expm1(-beta[:, None] * (end - times)) * alpha[:, types]  # (types, events)
    return total - float(mu.sum()) * (end - start) - float(ends.sum())
