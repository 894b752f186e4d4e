"""Simulators of event streams, with their true parameters and exact log-likelihoods."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import integrate, stats

from tsllm.datasets.events.hawkes import check_hawkes, hawkes_log_likelihood, simulate_hawkes
from tsllm.datasets.events.table import EventTable, sequence_name
from tsllm.errors import DataError

#: Computes the log-likelihood of one sequence from its times (events,), its type numbers (events,),
#: and the start and the end of its window.
SequenceScore = Callable[[np.ndarray, np.ndarray, float, float], float]

# The events of a theme trigger events of the next theme, those of the last theme of the first.
_THEMES: dict[str, tuple[str, ...]] = {
    "storm": (
        "thunderstorm", "heavy rain", "hurricane", "hailstorm", "strong winds", "lightning strike",
        "snow storm", "tropical cyclone",
    ),
    "power": (
        "power outage", "electricity blackout", "voltage drop", "transformer failure",
        "broken power line", "substation fault", "electric grid overload", "generator breakdown",
    ),
    "computers": (
        "server crash", "network outage", "database error", "software failure", "data loss",
        "website offline", "disk failure", "system reboot",
    ),
    "customers": (
        "customer complaint", "refund request", "angry phone call", "bad product review",
        "cancelled subscription", "support ticket", "request for compensation",
        "unhappy client letter",
    ),
    "sports": (
        "football match", "basketball game", "tennis tournament", "marathon race",
        "swimming competition", "cycling championship", "ice hockey final", "boxing fight",
    ),
    "traffic": (
        "traffic jam", "car accident", "road closure", "crowded subway", "delayed train",
        "parking shortage", "bus breakdown", "highway congestion",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Simulation:
    """Simulated events with their true parameters and log-likelihood.

    Parameters
    ----------
    events : EventTable
        The sequences, each with its observation window.
    parameters : dict
        The true parameters, by the names of the simulator's arguments.
    log_likelihood : callable
        Computes the exact log-likelihood of each sequence of an `EventTable` of the same types
        with known windows, in nats, shape (sequences,), float64. Each sequence starts empty at
        the start of its window.

    See Also
    --------
    make_hawkes, make_poisson, make_renewal, make_self_correcting : Simulate one.
    """

    events: EventTable
    parameters: dict[str, Any]
    log_likelihood: Callable[[EventTable], np.ndarray]


def make_poisson(
    rate: float | Sequence[float] | Callable[[float], Any],
    *,
    bound: float | None = None,
    t_end: float = 100.0,
    n_sequences: int = 1,
    t_start: float = 0.0,
    type_names: Sequence[str] | None = None,
    random_state: int | None = None,
) -> Simulation:
    """Simulate a Poisson process, whose events are independent of each other.

    Parameters
    ----------
    rate : float, sequence of float, or callable
        The rate, the rate of each type, or a function of time that returns one of these.
    bound : float or None, default=None
        For a function: an upper bound of the sum of the rates.
    t_end : float, default=100.0
    n_sequences : int, default=1
    t_start : float, default=0.0
    type_names : sequence of str or None, default=None
    random_state : int or None, default=None
        As for `make_hawkes`.

    Returns
    -------
    Simulation
        Parameters "rate" and "bound". The log-likelihood of a function is integrated adaptively
        to 1e-10.

    Raises
    ------
    DataError
        If a rate is negative, or exceeds the bound at a time that is evaluated.

    Examples
    --------
    >>> make_poisson(lambda t: 1 + np.sin(t), bound=2, t_end=50, random_state=0).events.n_events
    64
    """

    def rates(time: float) -> np.ndarray:
        found = np.atleast_1d(np.asarray(rate(time) if callable(rate) else rate, dtype=np.float64))
        if not np.isfinite(found).all() or (found < 0).any():
            raise DataError(f"the rate at {time} is {found.tolist()}; it must not be negative")
        return found

    if callable(rate) and bound is None:
        raise DataError("a rate that is a function needs bound=, which it never exceeds")
    highest = float(rates(t_start).sum()) if bound is None else float(bound)
    names = _checked_type_names(type_names, len(rates(t_start)))
    if highest <= 0:
        raise DataError(f"the highest rate is {highest}; it must be positive")

    def draw(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        count = generator.poisson(highest * (t_end - t_start))
        # 1 - uniform lies in (0, 1]: the window does not contain its start
        candidates = t_start + (t_end - t_start) * (
            1 - np.sort(generator.uniform(size=count))[::-1]
        )
        times, types = [], []
        for time, level in zip(candidates, generator.uniform(0, highest, count), strict=True):
            cumulative = np.cumsum(rates(time))
            if cumulative[-1] > highest * (1 + 1e-12):
                raise DataError(
                    f"the rate at {time} is {cumulative[-1]}, above bound={bound}; raise the bound"
                )
            if level < cumulative[-1]:
                times.append(time)
                types.append(int(np.searchsorted(cumulative, level, side="right")))
        return np.array(times), np.array(types, dtype=np.int64)

    @cache  # most sequences have the same window
    def integral(start: float, end: float) -> float:
        if not callable(rate):
            return float(rates(start).sum()) * (end - start)
        return float(
            integrate.quad_vec(
                lambda time: rates(time).sum(), start, end, epsabs=1e-10, epsrel=1e-10
            )[0]
        )

    def score(times: np.ndarray, types: np.ndarray, start: float, end: float) -> float:
        logs = [float(np.log(rates(time)[kind])) for time, kind in zip(times, types, strict=True)]
        return sum(logs) - integral(start, end)

    parameters = {"rate": rate if callable(rate) else rates(t_start), "bound": bound}
    return _simulate(draw, score, parameters, names, (t_start, t_end), n_sequences, random_state)


def make_hawkes(
    mu: object,
    alpha: object,
    beta: object,
    *,
    t_end: float = 100.0,
    n_sequences: int = 1,
    t_start: float = 0.0,
    type_names: Sequence[str] | None = None,
    id_prefix: str = "",
    random_state: int | None = None,
) -> Simulation:
    """Simulate a Hawkes process with exponential kernels, in which events trigger events.

    The intensity is ``lambda_k(t) = mu_k + sum_j alpha[k, k_j] beta_k exp(-beta_k (t - t_j))``
    over the events j before t. Ogata's thinning draws it exactly.

    Parameters
    ----------
    mu : float or array-like, (types,)
        The base rate of each type.
    alpha : float or array-like, (types, types)
        The branching matrix: one event of type j triggers ``alpha[k, j]`` events of type k.
    beta : float or array-like, (types,)
        The decay of the effect on each type, in 1 / time.
    t_end : float, default=100.0
        The end of every window.
    n_sequences : int, default=1
        Number of independent sequences, called "0", "1", ...
    t_start : float, default=0.0
        The start of every window, with no event before it.
    type_names : sequence of str or None, default=None
        The names of the types. None names them "0", "1", ...
    id_prefix : str, default=""
        A prefix of the names of the sequences.
    random_state : int or None, default=None
        Seed. Each sequence has its own random generator, so that more sequences do not change
        the first ones.

    Returns
    -------
    Simulation
        Parameters "mu", "alpha" and "beta" as arrays.

    Raises
    ------
    DataError
        If the shapes disagree, or the spectral radius of ``alpha`` is not below 1.

    References
    ----------
    Ogata, "On Lewis' simulation method for point processes", IEEE Trans. Inf. Theory, 1981.

    Examples
    --------
    >>> simulation = make_hawkes([0.5, 0.3], [[0.3, 0.1], [0.2, 0.4]], [2.0, 1.5], random_state=0)
    >>> simulation.events.n_events, simulation.log_likelihood(simulation.events).round(2)
    (160, array([-173.93]))
    """
    parameters = check_hawkes(mu, alpha, beta)
    names = _checked_type_names(type_names, len(parameters.mu))
    return _simulate(
        lambda generator: simulate_hawkes(parameters, t_start, t_end, generator),
        lambda times, types, *own: hawkes_log_likelihood(times, types, parameters, *own),
        parameters._asdict(),
        names,
        (t_start, t_end),
        n_sequences,
        random_state,
        id_prefix,
    )


def make_self_correcting(
    mu: float = 1.0,
    alpha: float = 1.0,
    *,
    t_end: float = 100.0,
    n_sequences: int = 1,
    t_start: float = 0.0,
    type_names: Sequence[str] | None = None,
    random_state: int | None = None,
) -> Simulation:
    """Simulate a self-correcting process, in which each event lowers the intensity.

    The intensity is ``lambda(t) = exp(mu t - alpha N(t))``, with t from the start of the window
    and N(t) the number of events since. The long-run rate is ``mu / alpha``. Inverting the
    compensator draws it exactly.

    Parameters
    ----------
    mu, alpha : float, default=1.0
        The increase of the log-intensity with time, and its decrease at an event; both positive.
    t_end : float, default=100.0
    n_sequences : int, default=1
    t_start : float, default=0.0
    type_names : sequence of str or None, default=None
    random_state : int or None, default=None
        As for `make_hawkes`; there is one type.

    Returns
    -------
    Simulation
        Parameters "mu" and "alpha".

    References
    ----------
    Isham and Westcott, "A self-correcting point process", Stoch. Proc. Appl., 1979.

    Examples
    --------
    >>> make_self_correcting(t_end=50, random_state=0).events.n_events
    51
    """
    if not (0 < mu < np.inf and 0 < alpha < np.inf):
        raise DataError(f"mu={mu} and alpha={alpha} must be positive numbers")
    names = _checked_type_names(type_names, 1)

    def draw(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        now, level = t_start, 0.0  # the time and the log-intensity
        times: list[float] = []
        while True:
            # the integral e^level (e^(mu interval) - 1) / mu reaches an Exp(1) draw
            interval = np.log1p(generator.exponential() * mu * np.exp(-level)) / mu
            now += interval
            if now > t_end:
                return np.array(times), np.zeros(len(times), dtype=np.int64)
            times.append(now)
            level += mu * interval - alpha

    def score(times: np.ndarray, types: np.ndarray, start: float, end: float) -> float:
        intervals = np.diff(np.concatenate([[start], times, [end]]))
        before = np.concatenate([[start], times]) - start
        levels = mu * before - alpha * np.arange(len(intervals))  # right after each event
        integral = np.exp(levels) * np.expm1(mu * intervals) / mu
        return float((levels[:-1] + mu * intervals[:-1]).sum() - integral.sum())

    parameters = {"mu": mu, "alpha": alpha}
    return _simulate(draw, score, parameters, names, (t_start, t_end), n_sequences, random_state)


def make_renewal(
    distribution: str = "lognormal",
    *,
    mean: float = 1.0,
    cv: float = 1.0,
    probabilities: Sequence[float] = (1.0,),
    t_end: float = 100.0,
    n_sequences: int = 1,
    t_start: float = 0.0,
    type_names: Sequence[str] | None = None,
    random_state: int | None = None,
) -> Simulation:
    """Simulate a renewal process, with independent inter-event times and independent types.

    Parameters
    ----------
    distribution : {"lognormal", "gamma"}, default="lognormal"
        The distribution of the inter-event times, the first from the start of the window.
    mean : float, default=1.0
        The mean inter-event time.
    cv : float, default=1.0
        The coefficient of variation of the inter-event times. Below 1 events are more regular
        than those of a Poisson process, above 1 more clustered.
    probabilities : sequence of float, default=(1.0,)
        The probability of each type.
    t_end : float, default=100.0
    n_sequences : int, default=1
    t_start : float, default=0.0
    type_names : sequence of str or None, default=None
    random_state : int or None, default=None
        As for `make_hawkes`.

    Returns
    -------
    Simulation
        Parameters "distribution", "mean", "cv" and "probabilities", and those of the
        distribution: "mu" and "sigma" (of the log), or "shape" and "scale".

    Examples
    --------
    >>> make_renewal("gamma", cv=0.5, t_end=50, random_state=0).events.n_events
    48
    """
    if not (0 < mean < np.inf and 0 < cv < np.inf):
        raise DataError(f"mean={mean} and cv={cv} must be positive numbers")
    chances = np.asarray(probabilities, dtype=np.float64)
    if chances.ndim != 1 or (chances < 0).any() or not np.isclose(chances.sum(), 1):
        raise DataError(f"probabilities={probabilities} must not be negative and add up to 1")
    own: dict[str, float]
    if distribution == "lognormal":
        sigma = float(np.sqrt(np.log1p(cv**2)))
        own = {"mu": float(np.log(mean) - sigma**2 / 2), "sigma": sigma}
        inter_event = stats.lognorm(s=sigma, scale=np.exp(own["mu"]))
    elif distribution == "gamma":
        own = {"shape": 1 / cv**2, "scale": mean * cv**2}
        inter_event = stats.gamma(own["shape"], scale=own["scale"])
    else:
        raise DataError(f"distribution={distribution!r} is not known; pass 'lognormal' or 'gamma'")
    names = _checked_type_names(type_names, len(chances))

    def draw(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        times = np.empty(0)
        while not len(times) or times[-1] <= t_end:
            more = inter_event.rvs(16 + int((t_end - t_start) / mean), random_state=generator)
            times = np.concatenate([times, (times[-1] if len(times) else t_start) + more.cumsum()])
        times = times[times <= t_end]
        return times, generator.choice(len(chances), len(times), p=chances)

    def score(times: np.ndarray, types: np.ndarray, start: float, end: float) -> float:
        intervals = np.diff(np.concatenate([[start], times]))
        last = end - (times[-1] if len(times) else start)
        densities = inter_event.logpdf(intervals).sum() + np.log(chances[types]).sum()
        return float(densities + inter_event.logsf(last))

    parameters = {"distribution": distribution, "mean": mean, "cv": cv, "probabilities": chances}
    parameters |= own
    return _simulate(draw, score, parameters, names, (t_start, t_end), n_sequences, random_state)


def make_text_events(
    *,
    words_per_theme: int = 8,
    unseen_per_theme: int = 0,
    types: str = "seen",
    branching: float = 0.8,
    beta: float = 2.0,
    rate: float = 1.0,
    t_end: float = 70.0,
    n_sequences: int = 100,
    t_start: float = 0.0,
    random_state: int | None = None,
) -> Simulation:
    """Simulate events whose types are phrases, with effects that depend on the meaning.

    There are six themes (storms, power cuts, computer failures, customers' complaints, sports,
    traffic) of up to eight phrases. An event triggers on average ``branching`` events of the
    next theme, each of its phrases with the same probability. A model of type numbers has to
    learn every pair of types; a model that reads the phrases has to learn six pairs of themes,
    and can predict phrases that were held out of training.

    Parameters
    ----------
    words_per_theme : int, default=8
        Phrases of each theme, 1 to 8.
    unseen_per_theme : int, default=0
        Number of phrases of each theme to hold out; the same ones for every seed.
    types : {"seen", "all"}, default="seen"
        "seen" simulates without the held-out phrases, for training; "all" with them.
    branching : float, default=0.8
        Events that one event triggers, below 1.
    beta : float, default=2.0
        Decay of the effect, in 1 / time.
    rate : float, default=1.0
        Long-run events per unit of time.
    t_end : float, default=70.0
    n_sequences : int, default=100
    t_start : float, default=0.0
    random_state : int or None, default=None
        As for `make_hawkes`.

    Returns
    -------
    Simulation
        Parameters "mu", "alpha", "beta", "themes" (the theme of each phrase) and "unseen" (the
        held-out phrases). The log-likelihood accepts the simulated phrases.

    Raises
    ------
    DataError
        If there are not so many phrases, or all would be held out.

    Examples
    --------
    >>> simulation = make_text_events(words_per_theme=3, n_sequences=5, random_state=0)
    >>> simulation.events.type_counts().index[:3].tolist()
    ['power outage', 'angry phone call', 'car accident']
    >>> simulation.parameters["themes"]["thunderstorm"]
    'storm'
    """
    if not (1 <= words_per_theme <= 8 and 0 <= unseen_per_theme < words_per_theme):
        raise DataError(
            f"words_per_theme={words_per_theme} and unseen_per_theme={unseen_per_theme} do not "
            "leave phrases: there are 8 a theme, and at least one must be seen"
        )
    if types not in ("seen", "all"):
        raise DataError(f"types={types!r} is not known; pass 'seen' or 'all'")
    if not 0 < branching < 1:
        raise DataError(f"branching={branching} must lie between 0 and 1")
    seen = words_per_theme - unseen_per_theme
    kept = {theme: phrases[:words_per_theme] for theme, phrases in _THEMES.items()}
    unseen = [phrase for phrases in kept.values() for phrase in phrases[seen:]]
    used = {theme: phrases if types == "all" else phrases[:seen] for theme, phrases in kept.items()}
    names = [phrase for phrases in used.values() for phrase in phrases]
    theme_of = np.repeat(np.arange(len(used)), [len(phrases) for phrases in used.values()])
    size = len(names) // len(used)
    follows = (theme_of[None, :] + 1) % len(used) == theme_of[:, None]  # (triggered, triggering)
    simulation = make_hawkes(
        np.full(len(names), rate * (1 - branching) / len(names)),
        branching / size * follows,
        beta,
        t_start=t_start,
        t_end=t_end,
        n_sequences=n_sequences,
        type_names=names,
        random_state=random_state,
    )
    themes = {phrase: theme for theme, phrases in kept.items() for phrase in phrases}
    simulation.parameters.update(themes=themes, unseen=unseen)
    return simulation


def _simulate(
    draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]],
    score: SequenceScore,
    parameters: dict[str, Any],
    names: list[str],
    window: tuple[float, float],
    n_sequences: int,
    random_state: int | None,
    prefix: str = "",
) -> Simulation:
    """Draw sequences of (times, type numbers) in one window, each with its own generator."""
    t_start, t_end = window
    if n_sequences < 1:
        raise DataError(f"n_sequences={n_sequences} must be at least 1")
    if not (np.isfinite(t_start) and np.isfinite(t_end) and t_start < t_end):
        raise DataError(f"t_end={t_end} must lie after t_start={t_start}, both finite")
    seeds = np.random.SeedSequence(random_state).spawn(n_sequences)
    parts = [draw(np.random.default_rng(seed)) for seed in seeds]
    labels = np.array(names, dtype=object)
    events = EventTable(
        ids=tuple(f"{prefix}{number}" for number in range(n_sequences)),
        times=tuple(times for times, _ in parts),
        types=tuple(labels[types] for _, types in parts),
        starts=np.full(n_sequences, t_start),
        ends=np.full(n_sequences, t_end),
    )
    return Simulation(events, parameters, _table_scorer(names, score))


def _checked_type_names(type_names: Sequence[str] | None, n_types: int) -> list[str]:
    """Check that there is a different name for each type; None numbers the types."""
    names = [str(kind) for kind in range(n_types)] if type_names is None else list(type_names)
    if len(names) != n_types or len(set(names)) != n_types:
        raise DataError(f"type_names={names} must be {n_types} different names")
    return names


def _table_scorer(names: list[str], score: SequenceScore) -> Callable[[EventTable], np.ndarray]:
    """Build `Simulation.log_likelihood` from the log-likelihood of one sequence."""
    codes = {name: code for code, name in enumerate(names)}

    def log_likelihood(events: EventTable) -> np.ndarray:
        values = np.empty(len(events))
        for number, types in enumerate(events.types):
            start, end = float(events.starts[number]), float(events.ends[number])
            if np.isnan(start) or np.isnan(end):
                raise DataError(
                    f"{sequence_name(events.ids[number])} has no known window; the exact "
                    "log-likelihood needs its start and end"
                )
            strange = [event for event, name in enumerate(types) if name not in codes]
            if strange:
                raise DataError(
                    f"{events.place(number, strange[0])} has the type {types[strange[0]]!r}, "
                    f"which the simulation does not have; its types are {', '.join(names[:8])}"
                )
            kinds = np.array([codes[name] for name in types], dtype=np.int64)
            values[number] = score(events.times[number], kinds, start, end)
        return values

    return log_likelihood
