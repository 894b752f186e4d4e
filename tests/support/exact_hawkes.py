"""Exact values of a Hawkes process: its compensators and its stationary rates."""

import numpy as np


def hawkes_compensators(times, types, parameters, start):
    """Integrate each type's intensity from event to event: (events, types).

    The first integral begins at ``start``. Under the true parameters the sums of a type's column
    between its own events are independent draws from Exp(1), and so are the row sums (time
    rescaling theorem).
    """
    mu, alpha, beta = parameters
    excited, last = np.zeros(len(mu)), start  # of unit mass: the integral that is still to come
    increments = np.empty((len(times), len(mu)))
    for number, (time, kind) in enumerate(zip(times, types, strict=True)):
        kept = np.exp(-beta * (time - last))
        increments[number] = mu * (time - last) + excited * (1 - kept)
        excited = excited * kept + alpha[:, kind]
        last = time
    return increments


def stationary_rates(parameters):
    """Compute the long-run rate of each type, ``(I - alpha)^-1 mu``."""
    return np.linalg.solve(np.eye(len(parameters.mu)) - parameters.alpha, parameters.mu)
