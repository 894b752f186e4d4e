"""The base of the forecasters that put a frozen language model to work."""

import time
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch

from tsllm.backbone import DEFAULT_BACKBONE, Backbone, count_layers, load_backbone, native_bfloat16
from tsllm.context import Context
from tsllm.embeddings import open_store
from tsllm.errors import DataError
from tsllm.forecasters.base import ModelForecaster
from tsllm.forecasters.frames import split_series
from tsllm.forecasters.horizons import read_horizon
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.pages.notebook import Summary

#: ``backbone_layers="auto"``: the first layers of a language model. Of 2, 4, 6, 8 and 30, two were
#: the most accurate on validation parts at equal cost (benchmarks/backbones.py).
AUTO_LAYERS = 2


class LLMForecaster(ModelForecaster):
    """Base class of the forecasters that put a frozen language model to work.

    A method whose language model embeds texts lists them in `_texts_to_embed`.
    """

    #: `_most_steps` of a training with a language model, whose steps are costly.
    _language_model_steps: ClassVar[int] = 500
    #: Whether the language model runs inside the model; else only its embeddings are read.
    _runs_backbone: ClassVar[bool] = True

    backbone: str | None = DEFAULT_BACKBONE
    backbone_layers: int | str | None = "auto"
    lora: dict[str, Any] | None = None
    dtype: str = "auto"

    def embed(self, y: Any, fh: Any = None, X: Any = None) -> dict[str, Any]:
        """Embed ahead of time every text that `fit` on these series would embed.

        Nothing is trained and this forecaster does not change. Texts that the store has are
        skipped, so a call that was interrupted continues where it was.

        Parameters
        ----------
        y : Series or DataFrame
            In the form of `fit`.
        fh : forecasting horizon or None, default=None
            In the form of `fit`.
        X : DataFrame or None, default=None
            In the form of `fit`.

        Returns
        -------
        dict
            Number of ``texts``, how many were ``computed`` now, ``seconds``, the store's ``path``.

        Raises
        ------
        DataError
            The series or the parameters cannot be used, or the method embeds no text with them.
        """
        self._check_parameters()
        contexts = split_series(y, freq=self.freq, at_least=2)
        steps = None if fh is None else read_horizon(fh, contexts)
        contexts, columns = self._learn_columns(contexts, X)
        shape = self._choose_shape(contexts, self._asked_horizon(steps, contexts))
        covariates = self._learn_effects(contexts, columns, shape)
        if covariates is not None:
            contexts = covariates.residuals(contexts)
        backbone, store = self._load_backbone(), open_store(self.embedding_store)
        started, before = time.perf_counter(), store.stats()["misses"]
        texts = 0
        if backbone is not None:
            for part in self._texts_to_embed(shape, contexts, backbone):
                store.fill(part, backbone, progress=self.verbose > 0)
                texts += len(part)
        if not texts:
            raise DataError(
                f"{type(self).__name__} embeds no text with these settings: there is nothing to "
                "do ahead of time"
            )
        return {
            "texts": texts,
            "computed": store.stats()["misses"] - before,
            "seconds": time.perf_counter() - started,
            "path": str(store.path),
        }

    def summary(self) -> dict[str, Any]:  # noqa: D102 (inherited)
        store = open_store(self.embedding_store)
        return Summary({**super().summary(), "embedding_store": store.stats()})

    def _texts_to_embed(
        self, shape: ModelShape, contexts: Sequence[Context], backbone: Backbone
    ) -> Iterable[Sequence[str]]:
        """List the texts that fitting to these series embeds, some at a time."""
        return ()

    def _needs_language_model(self) -> dict[str, Any]:
        """Return the parameters that need a language model, with the values that turn them off."""
        return {} if self.lora is None else {"lora": None}

    def _load_backbone(self) -> Backbone | None:
        if self.backbone is None:
            return None
        layers = self.backbone_layers
        if isinstance(layers, str):
            layers = auto_layers(self.backbone)
        return load_backbone(self.backbone, layers=layers, device=self.device, dtype=self.dtype)

    def _budget(self) -> int:
        return self._most_steps if self.backbone is None else self._language_model_steps

    def _shorter(self) -> str:
        layers = "backbone_layers='auto', " if self.backbone_layers is None else ""
        return ("" if self.backbone is None else layers) + super()._shorter()

    def _autocast(self, state: FittedState) -> torch.dtype | None:
        # A CPU that multiplies bfloat16 natively trains in it at the same accuracy; forecasts stay
        # float32 there, so that single and batched ones agree.
        if (
            self.dtype == "auto"
            and state.backbone is not None
            and state.device.type == "cpu"
            and native_bfloat16(state.device)
        ):
            return torch.bfloat16
        return None

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.backbone is None and self.lora is not None:
            raise DataError("lora tunes the language model, and backbone=None has none: drop one")


def auto_layers(backbone: str) -> int:
    """Return the layers of a language model that ``backbone_layers="auto"`` uses."""
    return min(AUTO_LAYERS, count_layers(backbone))
