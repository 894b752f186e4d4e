"""Simulated streams whose dynamics change from slice to slice, for models that keep learning."""

from collections.abc import Sequence

import numpy as np

from tsllm.datasets.events.simulators import Simulation, make_hawkes
from tsllm.errors import DataError

KINDS = ("permute", "rate", "decay", "new_types", "recurring")

_RATE_STEP = 1.5  # how much more often things happen in each slice of kind "rate"


def make_drift(
    kind: str = "permute",
    *,
    n_slices: int = 5,
    n_types: int = 5,
    n_sequences: int = 150,
    events_per_sequence: float = 70.0,
    branching: float = 0.7,
    decays: Sequence[float] = (1.0, 3.0, 8.0),
    mu: float = 0.1,
    random_state: int | None = None,
) -> list[Simulation]:
    """Simulate a stream in slices, each a Hawkes process of its own.

    In every slice an event of a type triggers, on average, ``branching`` events of one other type;
    which one is the slice's trigger permutation. The slices follow each other in time, with
    sequences of their own that start afresh: what one slice taught is of no use in another, but
    for what they share.

    Parameters
    ----------
    kind : {"permute", "rate", "decay", "new_types", "recurring"}
        What changes. "permute": the trigger permutation, and the decay, which takes turns through
        ``decays``. "rate": how often events happen of themselves, half as much again with each
        slice. "decay": only the decay. "new_types": each slice knows one type more than the one
        before; the first has ``n_types``. "recurring": two permutations with a decay each, in
        turn, so that what was learned comes back.
    n_slices : int, default 5
        How many slices.
    n_types : int, default 5
        How many types; called "0", "1", ...
    n_sequences : int, default 150
        Sequences in each slice, called "slice-sequence", for example "0-17".
    events_per_sequence : float, default 70
        The expected number, at the long-run rate of kinds with a constant one.
    branching : float, default 0.7
        Events that an event triggers, below 1.
    decays : sequence of float, default (1, 3, 8)
        Decays of the effect, in 1 / time.
    mu : float, default 0.1
        The rate at which each type happens of itself.
    random_state : int, optional
        Seed.

    Returns
    -------
    list of Simulation
        One a slice; parameters "mu", "alpha", "beta", and "permutation": the type that each type
        triggers.

    Raises
    ------
    DataError
        If the kind is not known, or ``branching`` is not below 1.

    Examples
    --------
    >>> stream = make_drift("recurring", n_slices=4, n_sequences=2, random_state=0)
    >>> [slice_.parameters["permutation"].tolist() for slice_ in stream[:3]]
    [[0, 3, 2, 1, 4], [4, 2, 1, 3, 0], [0, 3, 2, 1, 4]]
    """
    if kind not in KINDS:
        raise DataError(f"kind={kind!r} is not known; pass one of {', '.join(KINDS)}")
    if not 0 < branching < 1:
        raise DataError(f"branching={branching} must lie between 0 and 1")
    if n_slices < 1 or n_types < 2:
        raise DataError(f"n_slices={n_slices} must be at least 1 and n_types={n_types} at least 2")
    everyone = n_types + (n_slices - 1 if kind == "new_types" else 0)
    graph_seed, *slice_seeds = np.random.SeedSequence(random_state).spawn(n_slices + 1)
    permutations = _permutations(kind, n_slices, everyone, np.random.default_rng(graph_seed))
    length = events_per_sequence * (1 - branching) / (mu * n_types)
    stream = []
    for number, permutation in enumerate(permutations):
        present = np.arange(everyone) < (n_types + number if kind == "new_types" else everyone)
        base = mu * present * (_RATE_STEP**number if kind == "rate" else 1)
        alpha = np.zeros((everyone, everyone))
        alpha[permutation, np.arange(everyone)] = branching
        alpha *= present[:, None]  # nothing triggers a type that is not there yet
        turn = number if kind in ("permute", "decay") else number % 2 if kind == "recurring" else 0
        simulation = make_hawkes(
            base,
            alpha,
            decays[turn % len(decays)],
            t_start=number * length,
            t_end=(number + 1) * length,
            n_sequences=n_sequences,
            id_prefix=f"{number}-",
            random_state=int(slice_seeds[number].generate_state(1)[0]),
        )
        simulation.parameters["permutation"] = permutation
        stream.append(simulation)
    return stream


def _permutations(
    kind: str, n_slices: int, n_types: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Draw each slice's trigger permutation; those that follow each other differ."""
    changes = {"permute": n_slices, "recurring": 2}.get(kind, 1)
    drawn: list[np.ndarray] = []
    while len(drawn) < changes:
        permutation = generator.permutation(n_types)
        if not drawn or (permutation != drawn[-1]).any():
            drawn.append(permutation)
    return [drawn[number % changes] for number in range(n_slices)]
