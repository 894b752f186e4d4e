"""Paired differences of each class, for the tests of verdicts."""

import math

from tsllm.evaluation.paired import PairedDifference


def pair(relative, low, high, name="variant"):
    """Return the relative difference of a variant from "pretrained", with its interval."""
    return PairedDifference(
        name, "pretrained", "mse", "all", relative, low, high, 0.95, 100, 10,
        relative, low, high, "origins", 10.0, 3,
    )  # fmt: skip


WORSE, BETTER = pair(0.10, 0.05, 0.15), pair(-0.10, -0.15, -0.05)
SAME, OPEN = pair(0.002, -0.004, 0.008), pair(0.03, -0.02, 0.08)
UNKNOWN = pair(0.5, math.nan, math.nan)
