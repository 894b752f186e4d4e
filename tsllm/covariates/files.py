"""Effects of covariates as JSON facts and tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsllm.covariates.columns import CovariateColumns
from tsllm.covariates.contemporaneous import ColumnBasis, ContemporaneousEffects
from tsllm.covariates.effects import Covariates
from tsllm.covariates.lagged import LaggedEffects


def write_covariates(
    covariates: Covariates, prefix: str, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    """Take the effects apart, for a file.

    Parameters
    ----------
    covariates : Covariates
    prefix : str
        Stands before the names of the tensors.
    tensors : dict of str to Tensor
        The arrays are put into it.

    Returns
    -------
    dict
        The rest, as JSON takes it.
    """
    columns = covariates.columns
    facts: dict[str, Any] = {
        "names": list(columns.names),
        "categories": [None if known is None else list(known) for known in columns.categories],
        "past": list(columns.past),
        "static": list(columns.static),
        "block": covariates.block,
        "known": None,
        "leading": None,
    }
    known, past = covariates.known, covariates.past
    if known is not None:
        facts["known"] = {"bases": _basis_facts(known.bases)}
        tensors[f"{prefix}known.weights"] = torch.from_numpy(known.weights)
        tensors[f"{prefix}known.explained"] = torch.from_numpy(known.explained)
    if past is not None:
        facts["leading"] = {
            "bases": _basis_facts(past.bases),
            "window": past.window,
            "own_lags": past.own_lags,
            "lags": past.lags,
        }
        tensors[f"{prefix}leading.weights"] = torch.from_numpy(past.weights)
        tensors[f"{prefix}leading.explained"] = torch.from_numpy(past.explained)
    return facts


def read_covariates(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Covariates:
    """Put together what `write_covariates` took apart; the tensors come without the prefix."""
    categories = tuple(None if one is None else tuple(one) for one in facts["categories"])
    columns = CovariateColumns(
        tuple(facts["names"]), categories, tuple(facts["past"]), tuple(facts["static"])
    )
    covariates = Covariates(columns, int(facts["block"]), None, None)
    if facts["known"] is not None:
        covariates.known = ContemporaneousEffects(
            _bases(facts["known"]["bases"]),
            tensors["known.weights"].numpy().copy(),
            tensors["known.explained"].numpy().copy(),
        )
    leading = facts["leading"]
    if leading is not None:
        covariates.past = LaggedEffects(
            _bases(leading["bases"]),
            int(leading["window"]),
            int(leading["own_lags"]),
            int(leading["lags"]),
            tensors["leading.weights"].numpy().copy(),
            tensors["leading.explained"].numpy().copy(),
        )
    return covariates


def _basis_facts(bases: Sequence[ColumnBasis]) -> list[dict[str, Any]]:
    return [
        {
            "levels": basis.n_categories,
            "mean": basis.mean,
            "deviation": basis.deviation,
            "knots": basis.knots.tolist(),
        }
        for basis in bases
    ]


def _bases(facts: Sequence[Mapping[str, Any]]) -> list[ColumnBasis]:
    return [
        ColumnBasis(
            n_categories=one["levels"],
            mean=one["mean"],
            deviation=one["deviation"],
            knots=np.array(one["knots"], dtype=float),
        )
        for one in facts
    ]
