"""Embedding ahead of time what fitting will embed: it then never runs the language model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from sktime.forecasting.base import ForecastingHorizon

from tsllm.context import Context
from tsllm.embeddings import open_store
from tsllm.errors import DataError
from tsllm.forecasters.parameters import check_parameters

if TYPE_CHECKING:
    from tsllm.forecasters.base import BaseLLMForecaster


def embed_ahead(
    forecaster: BaseLLMForecaster, contexts: Sequence[Context], fh: Any, X: pd.DataFrame | None
) -> dict[str, Any]:
    """Fill the store with the texts of a method; see `BaseLLMForecaster.embed`."""
    check_parameters(forecaster)
    steps = None if fh is None else ForecastingHorizon(fh)
    contexts, columns = forecaster._learn_columns(contexts, X)
    shape = forecaster._choose_shape(contexts, forecaster._asked_horizon(steps, contexts))
    covariates = forecaster._learn_effects(contexts, columns, shape)
    if covariates is not None:
        contexts = [covariates.remainder(context) for context in contexts]
    backbone, store = forecaster._load_backbone(), open_store(forecaster.embedding_store)
    started, before = time.perf_counter(), store.stats()["misses"]
    texts = 0
    if backbone is not None:
        for part in forecaster._texts_to_embed(shape, contexts, backbone):
            store.fill(part, backbone, progress=forecaster.verbose > 0)
            texts += len(part)
    if not texts:
        raise DataError(
            f"{type(forecaster).__name__} embeds no text with these settings: there is nothing to "
            "do ahead of time"
        )
    return {
        "texts": texts,
        "computed": store.stats()["misses"] - before,
        "seconds": time.perf_counter() - started,
        "path": str(store.path),
    }
