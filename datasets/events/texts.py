"""Simulated events whose types are phrases: what triggers what follows from what they mean."""

import numpy as np

from tsllm.datasets.events.simulators import Simulation, make_hawkes
from tsllm.errors import DataError

# Each theme's events trigger events of the next theme; the last theme's trigger the first's.
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
    """Simulate events named by phrases, where the meaning says what triggers what.

    Six themes (storms, power cuts, computer failures, customers' complaints, sports, traffic) of up
    to eight phrases each. An event triggers, on average, ``branching`` events of the next theme,
    each of its phrases being as likely. A model that knows the phrases only as numbers has to learn
    every pair of types; one that reads them has to learn six. With phrases held out of
    training, only the latter knows what they do.

    Parameters
    ----------
    words_per_theme : int, default 8
        Phrases of each theme, 1 to 8.
    unseen_per_theme : int, default 0
        How many of them are held out; which ones is the same for every seed.
    types : {"seen", "all"}
        "seen" simulates without the phrases held out, for training; "all" with them.
    branching : float, default 0.8
        Events that an event triggers, below 1.
    beta : float, default 2
        Decay of the effect, in 1 / time.
    rate : float, default 1
        Events per unit of time in the long run.
    t_end, n_sequences, t_start, random_state
        As for `make_hawkes`.

    Returns
    -------
    Simulation
        Parameters "mu", "alpha", "beta", "themes" (each phrase's theme) and "unseen" (the phrases
        held out). The log-likelihood knows the phrases that were simulated.

    Raises
    ------
    DataError
        If so many phrases do not exist, or none would be left.

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
