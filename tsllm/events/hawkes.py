"""The multivariate Hawkes process, fitted by maximum likelihood."""

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import OptimizeResult, minimize
from torch import Tensor

from tsllm.adapters.events.batch import EventBatch, EventStates, length_buckets
from tsllm.adapters.events.decoders.base import EventDecoder, log_likelihood
from tsllm.adapters.events.hawkes import HawkesProcess
from tsllm.arguments import Limits
from tsllm.datasets.events import EventTable
from tsllm.errors import DataError, TrainingDivergedError
from tsllm.events.arguments import LIMITS, in_chunks
from tsllm.events.attributes import COMMON, Attribute
from tsllm.events.base import EventForecaster
from tsllm.events.batching import EventWindows
from tsllm.events.sampling import copies_of

#: Bounds of the logs of the scaled parameters; a parameter at the lower bound is taken as 0.
LOG_BOUNDS = (-18.0, 12.0)
#: First decays of the search, in multiples of the mean inter-event time; the best is continued.
FIRST_DECAYS = (0.5, 2.0, 8.0)
FIRST_STEPS = 8


class HawkesForecaster(EventForecaster):
    """The multivariate Hawkes process, the statistical baseline for event streams.

    The intensity of type k is ``mu_k + sum_j alpha[k, k_j] beta_k exp(-beta_k (t - t_j))`` over the
    earlier events j. All parameters are fitted at once by maximum
    likelihood: L-BFGS in the logs of the parameters, in float64, with the exact gradient of the
    closed likelihood. Each sequence starts without earlier events.

    A process explodes where the spectral radius of its branching matrix is 1 or more. Such a fit is
    kept, with ``stationary_`` False and a warning.

    The arguments that matter most: ``id_col``, ``time_col`` and ``type_col`` (the columns of the
    table), ``ties`` (events at the same time) and ``random_state``.

    Examples
    --------
    >>> from tsllm.datasets.events import make_hawkes
    >>> from tsllm.events import HawkesForecaster
    >>> truth = make_hawkes([0.4], [[0.6]], [1.2], t_end=2000, random_state=1)
    >>> model = HawkesForecaster().fit(truth.events)
    >>> model.alpha_.round(2).tolist(), model.stationary_
    ([[0.59]], True)

    Parameters
    ----------
    max_steps : int, default=200
        Most steps of L-BFGS.
    standard_errors : bool, default=False
        Compute standard errors from the observed information (the Hessian at the maximum), at the
        cost of two gradients per parameter.

    Attributes
    ----------
    mu_ : array (types,)
        Base rates, events per unit of the user's time.
    alpha_ : array (types, types)
        Branching matrix: number of events of type ``row`` that an event of type ``column`` causes.
    beta_ : array (types,)
        Decay rates, per unit of the user's time.
    branching_radius_ : float
        Spectral radius of ``alpha_``.
    stationary_ : bool
        True where the radius is below 1.
    mu_error_, alpha_error_, beta_error_ : arrays
        Standard errors, with ``standard_errors=True``; NaN where the likelihood is flat or the
        parameter lies at its bound.
    n_steps_ : int
        Number of L-BFGS steps.
    converged_ : bool
        True where the search ended at a maximum.

    See Also
    --------
    PromptTPP : A neural model of event streams.
    NaiveEventForecaster : Typical inter-event times and types.

    References
    ----------
    Hawkes (1971), "Spectra of some self-exciting and mutually exciting point processes",
    Biometrika 58.
    """

    _dtype = torch.float64
    _limits = LIMITS | {"max_steps": Limits(1, 1_000_000_000)}

    def __init__(
        self,
        *,
        max_steps: int = 200,
        standard_errors: bool = False,
        id_col: str | None = "sequence_id",
        time_col: str = "time",
        type_col: str = "type",
        time_unit: str = "s",
        sort: bool = False,
        ties: str = "error",
        resolution: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.max_steps = max_steps
        self.standard_errors = standard_errors
        super().__init__(locals())

    _attributes: ClassVar[Mapping[str, Attribute]] = {
        **COMMON,
        "mu_": Attribute(np.ndarray, by_type=1, least=0.0),
        "alpha_": Attribute(np.ndarray, by_type=2, least=0.0),
        "beta_": Attribute(np.ndarray, by_type=1, least=0.0),
        "branching_radius_": Attribute(float),
        "stationary_": Attribute(bool),
        "n_steps_": Attribute(int),
        "converged_": Attribute(bool),
        "mu_error_": Attribute(np.ndarray, by_type=1, finite=False, needed=False),
        "alpha_error_": Attribute(np.ndarray, by_type=2, finite=False, needed=False),
        "beta_error_": Attribute(np.ndarray, by_type=1, finite=False, needed=False),
    }

    def _fit(self, table: EventTable, validation: EventTable | None) -> None:
        max_steps = int(self.max_steps)
        whole = table if validation is None else table.extend(validation)
        objective = _Objective(self._fitted().rows(whole), len(self.classes_))
        found = _search(objective, max_steps)
        k = len(self.classes_)
        mu, alpha, beta = _split(np.exp(found.x), k)
        self.mu_, self.alpha_, self.beta_ = mu / self.time_scale_, alpha, beta / self.time_scale_
        self.branching_radius_ = float(np.abs(np.linalg.eigvals(alpha)).max())
        self.stationary_ = self.branching_radius_ < 1
        self.n_steps_, self.converged_ = int(found.nit), bool(found.success)
        if self.standard_errors:
            errors = _standard_errors(objective, found.x)
            mu, alpha, beta = _split(errors, k)
            self.mu_error_, self.alpha_error_ = mu / self.time_scale_, alpha
            self.beta_error_ = beta / self.time_scale_
        if not self.converged_:
            warnings.warn(
                f"HawkesForecaster stopped after {self.n_steps_} steps short of the maximum: raise "
                "max_steps",
                UserWarning,
                stacklevel=3,
            )
        if not self.stationary_:
            warnings.warn(
                "the fitted Hawkes process is not stationary: the spectral radius of alpha_ is "
                f"{self.branching_radius_:.3f}, so that events cause ever more events; sampled "
                "futures explode, and long ones are refused",
                UserWarning,
                stacklevel=3,
            )

    def _encode(self, batch: EventBatch) -> tuple[EventDecoder, EventStates]:
        process = self._decoder()
        return process, process.encode(batch)

    def _decoder(self) -> HawkesProcess:
        return HawkesProcess(
            len(self.classes_),
            mu=self.mu_ * self.time_scale_,
            alpha=self.alpha_,
            beta=self.beta_ * self.time_scale_,
        ).eval()

    def _stream_states(self, table: EventTable | None) -> tuple[Tensor, Tensor]:
        rows = self._fitted().rows(self.history_ if table is None else table)
        process = self._decoder()
        with torch.no_grad():
            parts = []
            for some in in_chunks(len(rows), self._rows_at_once):
                batch = rows.gather(some)
                parts.append(process.encode(batch).at(batch.lengths).hidden[:, 0])
        excitation = torch.cat(parts)  # (sequences, types)
        return excitation, excitation[:, None].clone()

    def _step(
        self, decoder: HawkesProcess, states: Tensor, types: Tensor, gaps: Tensor
    ) -> tuple[Tensor, EventStates]:
        return decoder.step(states, types, gaps)

    def _start_paths(self, batch: EventBatch, copies: int) -> "_HawkesPaths":
        process, states = self._encode(batch)
        rows = copies_of(len(batch), copies, batch.types.device)
        return _HawkesPaths(process, states.select(rows, batch.lengths[rows]))


class _HawkesPaths:
    """Sampled futures of a Hawkes process, from its running excitation."""

    def __init__(self, process: Any, states: EventStates) -> None:
        self.decoder: HawkesProcess = process
        self.states = states

    def append(self, types: Tensor, gaps: Tensor) -> None:
        _, self.states = self.decoder.step(self.states.hidden[:, 0], types, gaps)


class _Objective:
    """The negative log-likelihood per event, and its gradient, in the logs of the parameters."""

    def __init__(self, windows: EventWindows, n_types: int) -> None:
        groups = length_buckets(windows.lengths, max_tokens=1 << 16)
        self._batches = [windows.gather(indices) for indices in groups]
        self._n_types = n_types
        self.events = sum(int(batch.events_scored) for batch in self._batches)
        if self.events == 0:
            raise DataError("no event can be scored: each sequence has one event and no window")

    def __call__(self, logs: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the value and the gradient (parameters,)."""
        mu, alpha, beta = _split(np.exp(logs), self._n_types)
        process = HawkesProcess(self._n_types, mu=mu, alpha=alpha, beta=beta)
        total = 0.0
        for batch in self._batches:
            loss = -log_likelihood(process, process.encode(batch), batch).sum() / self.events
            loss.backward()
            total += float(loss.detach())
        grads = [process.log_mu.grad, process.log_alpha.grad, process.log_beta.grad]
        return total, np.concatenate([grad.numpy().ravel() for grad in grads if grad is not None])


def _search(objective: _Objective, max_steps: int) -> OptimizeResult:
    """Find the maximum: take a few steps from several decays, then continue the best."""
    k = objective._n_types
    starts = []
    for decay in FIRST_DECAYS:
        # Half of all events are base events, half are caused.
        start = np.log(np.concatenate([np.full(k + k * k, 0.5 / k), np.full(k, decay)]))
        starts.append(_minimise(objective, start, min(FIRST_STEPS, max_steps)))
    found = min(starts, key=lambda result: result.fun)
    if not found.success and found.nit < max_steps:
        steps = found.nit
        found = _minimise(objective, found.x, max_steps - steps)
        found.nit += steps
    if not np.isfinite(found.fun):
        raise TrainingDivergedError(
            "the likelihood of the Hawkes process is not finite: check times"
        )
    return found


def _minimise(objective: _Objective, start: np.ndarray, steps: int) -> OptimizeResult:
    return minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[LOG_BOUNDS] * len(start),
        options={"maxiter": steps, "ftol": 1e-12, "gtol": 1e-7, "maxcor": 20},
    )


def _standard_errors(objective: _Objective, logs: np.ndarray) -> np.ndarray:
    """Compute the parameters' standard errors by the delta method, NaN at the bounds."""
    free = np.flatnonzero((logs > LOG_BOUNDS[0] + 1e-6) & (logs < LOG_BOUNDS[1] - 1e-6))
    step = 1e-4
    hessian = np.empty((len(free), len(free)))
    for row, place in enumerate(free):
        shift = np.zeros_like(logs)
        shift[place] = step
        slope = objective(logs + shift)[1] - objective(logs - shift)[1]
        hessian[row] = slope[free] / (2 * step)
    hessian = objective.events * (hessian + hessian.T) / 2
    errors = np.full(len(logs), np.nan)
    try:
        variances = np.diag(np.linalg.inv(hessian))
    except np.linalg.LinAlgError:
        return errors
    known = variances > 0
    errors[free[known]] = np.sqrt(variances[known]) * np.exp(logs[free[known]])
    return errors


def _split(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split into mu (types,), alpha (types, types) and beta (types,)."""
    return values[:k], values[k : k + k * k].reshape(k, k), values[k + k * k :]
