"""Event models whose parameters are known, and the gold values of two Hawkes processes."""

import numpy as np
import pandas as pd

from tsllm.datasets.events import read_events
from tsllm.events import HawkesForecaster

GOLD = {"mu": [0.5, 0.3], "alpha": [[0.3, 0.1], [0.2, 0.4]], "beta": [2.0, 1.5]}
GOLD_EVENTS = pd.DataFrame(
    {"time": [0.3, 0.7, 1.2, 2.5, 2.6, 4.0], "type": ["0", "1", "0", "1", "1", "0"]}
)
GOLD_LOG_LIKELIHOOD = -10.431166433487  # on the window (0, 5]


def hawkes_with(mu, alpha, beta, *, types=None, events=None, **params):
    """A HawkesForecaster with these parameters, fitted to nothing in particular."""
    types = [str(k) for k in range(len(mu))] if types is None else types
    if events is None:
        events = pd.DataFrame({"time": np.arange(1.0, len(types) + 2), "type": [types[0], *types]})
    model = HawkesForecaster(max_steps=1, **params)
    table = read_events(events)
    model._begin(table, types)
    model._describe(table)
    model._remember(table)
    model.mu_ = np.array(mu, dtype=float)
    model.alpha_ = np.array(alpha, dtype=float)
    model.beta_ = np.array(beta, dtype=float)
    model.branching_radius_ = float(np.abs(np.linalg.eigvals(model.alpha_)).max())
    model.stationary_ = model.branching_radius_ < 1
    return model
