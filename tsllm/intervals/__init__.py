"""Conformal intervals and the correction of points, from errors on held-out windows."""
