"""A panel whose steps have texts that move them, as a long table."""

import numpy as np
import pandas as pd

#: What each text adds to the values of its step.
SAID = {"Sale today.": 5.0, "Closed. Holiday.": -5.0, None: 0.0}


def promoted(steps=90, names=("north", "south"), *, seed=0):
    """Two daily series that the texts of their steps move by `SAID`."""
    rng = np.random.default_rng(seed)
    parts = []
    for number, name in enumerate(names):
        texts = rng.choice(np.array([*SAID], dtype=object), steps, p=[0.2, 0.1, 0.7])
        part = pd.DataFrame({"series_id": name}, index=range(steps))
        part["timestamp"] = pd.date_range("2024-01-01", periods=steps, freq="D")
        part["value"] = 20.0 * (number + 1) + rng.normal(0, 0.2, steps)
        part["value"] += [SAID[text] for text in texts]
        part["news"] = texts
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
