"""Simulated streams whose dynamics change between slices, for continual learning."""

from collections.abc import Sequence

import numpy as np

from tsllm.datasets.events.simulators import Simulation, make_hawkes
from tsllm.errors import DataError

KINDS = ("permute", "rate", "decay", "new_types", "recurring")

_RATE_STEP = 1.5  # growth of the base rate from slice to slice of kind "rate"


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

    In each slice an event of a type triggers on average ``branching`` events of one other type,
    given by the trigger permutation of the slice. Slices follow each other in time. Each has its
    own sequences, which start empty.

    Parameters
    ----------
    kind : {"permute", "rate", "decay", "new_types", "recurring"}, default="permute"
        What changes. "permute": the trigger permutation, and the decay, which cycles through
        ``decays``. "rate": the base rate, which grows by half in each slice. "decay": only the
        decay. "new_types": each slice has one type more; the first has ``n_types``. "recurring":
        two permutations, each with its decay, alternate.
    n_slices : int, default=5
        Number of slices.
    n_types : int, default=5
        Number of types, called "0", "1", ...
    n_sequences : int, default=150
        Sequences in each slice, called "slice-sequence", for example "0-17".
    events_per_sequence : float, default=70.0
        The expected number of events, for kinds with a constant long-run rate.
    branching : float, default=0.7
        Events that one event triggers, below 1.
    decays : sequence of float, default=(1.0, 3.0, 8.0)
        Decays of the effect, in 1 / time.
    mu : float, default=0.1
        The base rate of each type.
    random_state : int or None, default=None
        Seed.

    Returns
    -------
    list of Simulation
        One for each slice, with parameters "mu", "alpha", "beta", and "permutation": the type
        that each type triggers.

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
        alpha *= present[:, None]  # nothing triggers a type before it appears
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
    """Draw the trigger permutation of each slice; consecutive ones differ."""
    changes = {"permute": n_slices, "recurring": 2}.get(kind, 1)
    drawn: list[np.ndarray] = []
    while len(drawn) < changes:
        permutation = generator.permutation(n_types)
        if not drawn or (permutation != drawn[-1]).any():
            drawn.append(permutation)
    return [drawn[number % changes] for number in range(n_slices)]
