"""Aaren's parameters: held against each other, and the patch that "auto" stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsllm.adapters.aaren import MIXERS, QUERIES
from tsllm.adapters.aaren_patches import NORMALISATIONS
from tsllm.errors import DataError
from tsllm.forecasters.parameters import check_choice, check_multiple, check_whole

if TYPE_CHECKING:
    from tsllm.forecasters.aaren import AarenForecaster

MEMORIES = ("decay", "full", "window", "reencode")
#: ``patch_length="auto"``: without a season; at most; and the shortest part of a season.
PLAIN_PATCH, LONGEST_PATCH, SHORTEST_PATCH = 16, 32, 4


def check_aaren_parameters(estimator: AarenForecaster) -> None:
    """Check the parameters that only Aaren has.

    Raises
    ------
    DataError
        Naming the parameter, its value and what would do.
    """
    for name, choices in (
        ("mixer", MIXERS),
        ("memory", MEMORIES),
        ("normalisation", NORMALISATIONS),
        ("query", QUERIES),
    ):
        check_choice(name, getattr(estimator, name), choices)
    if estimator.patch_length != "auto":
        check_whole("patch_length", estimator.patch_length, or_auto=True)
    for name in ("hidden", "layers", "heads", "feedforward", "soft_tokens"):
        check_whole(name, getattr(estimator, name))
    check_multiple(estimator, "hidden", "heads")
    for name, value in (("mixer", "attention"), ("normalisation", "window")):
        if getattr(estimator, name) == value and estimator.memory != "reencode":
            raise DataError(
                f"{name}={value!r} needs the whole context at once: set memory='reencode', or "
                f"another {name}"
            )


def choose_patch_length(season: int, context_length: int, *, divides: bool) -> int:
    """Choose the steps of a patch: a season, or a part of one, where there is one.

    Parameters
    ----------
    season, context_length : int
        Steps of a season and of the context, which holds at least four patches where it can.
    divides : bool
        Whether the context must be a multiple of the patch.

    Returns
    -------
    int
        Steps.

    Examples
    --------
    >>> choose_patch_length(24, 520, divides=False), choose_patch_length(24, 512, divides=True)
    (24, 8)
    """
    most = min(max(1, context_length // 4), LONGEST_PATCH)
    possible = [p for p in range(1, most + 1) if not divides or context_length % p == 0]
    seasonal = [p for p in possible if season % p == 0 and p >= SHORTEST_PATCH]
    return max(seasonal or [p for p in possible if p <= PLAIN_PATCH])
