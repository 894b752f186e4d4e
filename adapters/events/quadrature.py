"""Gauss-Legendre quadrature of compensators, the integrals of intensities after an event."""

from functools import cache

import numpy as np
import torch
from torch import Tensor


def squared_rule(elapsed: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Compute points and weights that integrate from 0 to ``elapsed``, dense near 0.

    Gauss-Legendre (Davis and Rabinowitz 1984, section 2.7) in u where ``s = elapsed u²``:
    intensities change fastest right after an event. With 16 nodes, softplus intensities that decay
    at 50 a unit are integrated over 5 units to 0.012 %, slower decays more exactly; the mean of 20
    equally spaced points is 68 % too large.

    Parameters
    ----------
    elapsed : Tensor
        ``(...)``, at least 0.
    nodes : int
        Number of points.

    Returns
    -------
    points, weights : Tensor
        ``(..., nodes)``; the integral of f is ``(weights * f(points)).sum(-1)``.

    Examples
    --------
    >>> points, weights = squared_rule(torch.tensor(5.0, dtype=torch.float64), 16)
    >>> round(float((weights * (-2 * points).exp()).sum()), 6)  # (1 - exp(-10)) / 2
    0.499977
    """
    u, w = (part.to(elapsed) for part in gauss_legendre(nodes))
    return elapsed[..., None] * u.square(), elapsed[..., None] * (2 * u * w)


def gauss_legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """Return the points and weights of the Gauss-Legendre rule on (0, 1), float64."""
    points, weights = _rule(nodes)
    return torch.from_numpy(points), torch.from_numpy(weights)


@cache
def _rule(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    points, weights = np.polynomial.legendre.leggauss(nodes)
    return (points + 1) / 2, weights / 2
