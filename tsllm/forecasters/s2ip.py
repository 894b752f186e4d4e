"""S²IP-LLM: patches prompted with the word embeddings most similar to them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.layers import count_patches
from tsllm.adapters.s2ip.anchors import ANCHORS
from tsllm.adapters.s2ip.model import Alignment, S2IPModel
from tsllm.arguments import Limits, check_choice
from tsllm.backbone import DEFAULT_BACKBONE, Backbone, tuned
from tsllm.context import Context, batch_contexts
from tsllm.datasets.frequency import season_length
from tsllm.errors import DataError
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.frames import join_covariates, split_series
from tsllm.forecasters.inputs import match_columns, read_container
from tsllm.forecasters.language_model import LLMForecaster
from tsllm.forecasters.parameters import DECILES
from tsllm.forecasters.state import ModelShape


def readable_words(backbone: Backbone) -> dict[str, int]:
    """List the tokens of a language model that a person can read: decoded word to token id.

    The list excludes special and reserved tokens, rows of the embeddings without a token, pieces
    that continue a word if the tokenizer marks them, and tokens without a letter or a digit. Of
    tokens that read alike ("up", " Up") it keeps the one of the lowest id.

    Examples
    --------
    >>> from tsllm import load_backbone
    >>> backbone = load_backbone("random:gpt2", device="cpu")
    >>> list(readable_words(backbone))[8:13]
    ['8', '9', 'A', 'B', 'C']
    """
    tokenizer = backbone.tokenizer
    ids = [i for i in sorted(tokenizer.get_vocab().values()) if i < backbone.vocab_size]
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    texts = tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)
    words: dict[str, int] = {}
    seen: set[str] = set()
    for number, token, text in zip(ids, tokens, texts):
        word = text.strip()
        reserved = token.startswith(("[", "<", "##")) and len(token) > 2
        if number in special or reserved or not _readable(word) or word.casefold() in seen:
            continue
        seen.add(word.casefold())
        words[word] = number
    return words


def nearest_words(
    vectors: Tensor, backbone: Backbone, top: int
) -> tuple[list[list[str]], list[list[float]]]:
    """Find the words whose embeddings are closest, by cosine, to vectors (vectors, width).

    Return the ``top`` words of each vector, the closest first, and their similarities; fewer if
    the vocabulary has fewer readable ones.
    """
    known = readable_words(backbone)
    ids = torch.tensor(list(known.values()), device=vectors.device)
    rows = functional.normalize(backbone.word_embeddings[ids].float(), dim=-1)  # (words, width)
    cosines = functional.normalize(vectors.float(), dim=-1) @ rows.T  # (vectors, words)
    similarities, order = cosines.topk(min(top, len(known)), dim=-1)  # (vectors, top)
    texts = list(known)
    return [[texts[i] for i in row] for row in order.tolist()], similarities.tolist()


def _readable(word: str) -> bool:
    """Return whether a text has a letter or a digit and only printable characters."""
    return word.isprintable() and "\ufffd" not in word and any(c.isalnum() for c in word)


TUNABLE = ("layer_norms", "positions")
#: The published patch; shorter contexts take a quarter of their steps.
MAX_PATCH_LENGTH = 16
#: Steps of the moving average without a season (DLinear's).
TREND_WITHOUT_SEASON = 25


class S2IPForecaster(DirectForecaster, LLMForecaster):
    """Forecast with a prompted language model (S²IP-LLM; Pan et al., ICML 2024).

    Each window is split into trend, season and residual, and patches of the three become tokens of
    the language model. Anchors made of the model's own word embeddings, the most similar ones to
    the window, precede them as a prompt. One model forecasts ``prediction_length`` steps at once;
    longer horizons are rolled out on its own forecasts. `anchors` names the chosen ones.

    The arguments that matter most: ``backbone`` (None: no language model), ``context_length``,
    ``prediction_length`` (the steps forecast at once), ``max_steps`` (the time of the training) and
    ``random_state``.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import S2IPForecaster
    >>> forecaster = S2IPForecaster(
    ...     backbone="random:gpt2?hidden=16&layers=1&heads=2",
    ...     pool_size=50, max_steps=5, random_state=0,
    ... )
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    >>> forecaster.anchors(top=2)["rank"].tolist()
    [1, 2, 3, 4]

    Parameters
    ----------
    backbone : str or None, default="sentence-transformers/all-MiniLM-L6-v2"
        The language model: a Hugging Face id, a local directory, or ``"random:..."``. None trains
        the same forecaster without a language model, as a control: anchors are then free rows that
        start at random.
    tune : tuple of {"layer_norms", "positions"}, default=("layer_norms", "positions")
        The parts of the language model that are trained, as published; empty: none.
    context_length : int or "auto", default="auto"
        Steps of history that a forecast reads. "auto": 512, and at most half of a typical series.
    anchor_pool : {"free", "prototypes", "clusters"}, default="free"
        The kind of anchors. "prototypes", as published: mixtures of the whole vocabulary, by a
        linear layer that takes most of a small model's training time and memory. "free": a matrix
        that starts from such mixtures and is trained itself; it reaches the same anchors, for the
        mixtures have no more dimensions than a token. "clusters": centres of words of similar
        meaning, frozen, and the easiest to name.
    pool_size : int, default=1000
        Number of anchors.
    prompt_length : int, default=4
        Number of anchors that prompt the language model.
    similarity_coef : float, default=-0.05
        Weight of the similarity of windows and chosen anchors in the training loss; negative, so
        that they approach each other. Validation compares forecasts alone.
    patch_length : int or "auto", default="auto"
        Steps of a patch. "auto": 16, or a quarter of the context if that is less.
    stride : int or "auto", default="auto"
        Steps between the starts of two patches. "auto": half a patch.
    trend_length : int or "auto", default="auto"
        Steps of the moving average that is the trend. "auto": one season, so that it averages out;
        without a season 25, or a quarter of the context if that is less.
    seasonal_length : int or "auto", default="auto"
        Steps of a season. "auto": that of the frequency, if the context holds two.
    dropout : float, default=0.1
        On the prompted tokens.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history. An epoch of the history holds
        the mean ``similarity`` of query and anchors, summed over the prompt.

    See Also
    --------
    AutoTimesForecaster, TimeCMAForecaster

    References
    ----------
    Pan et al., "S²IP-LLM: Semantic Space Informed Prompt Learning with LLM for Time Series
    Forecasting", ICML 2024, arXiv 2403.05798, section 3.
    """

    _free_parameters = DirectForecaster._free_parameters | {"dropout", "similarity_coef"}
    # A step reads 128 windows of some 40 tokens each.
    _language_model_steps: ClassVar[int] = 250
    # The paper's lookback.
    _max_context: ClassVar[int] = 512

    def __init__(
        self,
        backbone: str | None = DEFAULT_BACKBONE,
        *,
        backbone_layers: int | str | None = "auto",
        tune: tuple[str, ...] = TUNABLE,
        lora: dict[str, Any] | None = None,
        context_length: int | str = "auto",
        prediction_length: int | None = None,
        anchor_pool: str = "free",
        pool_size: int = 1000,
        prompt_length: int = 4,
        similarity_coef: float = -0.05,
        patch_length: int | str = "auto",
        stride: int | str = "auto",
        trend_length: int | str = "auto",
        seasonal_length: int | str = "auto",
        dropout: float = 0.1,
        loss: str = "mse",
        quantiles: tuple[float, ...] = DECILES,
        adaptive: bool = False,
        update_epochs: int = 0,
        max_epochs: int | str = "auto",
        batch_size: int = 128,
        window_stride: int | str = "auto",
        learning_rate: float = 1e-4,
        weight_decay: float = 0.0,
        patience: int = 3,
        validation_fraction: float = 0.1,
        shrinkage: bool | str = "auto",
        max_steps: int | None = None,
        checkpoint_dir: str | Path | None = None,
        floor: float | str | None = "auto",
        past_covariates: tuple[str, ...] = (),
        text_covariates: tuple[str, ...] = (),
        text_backbone: str = DEFAULT_BACKBONE,
        embedding_store: Any = None,
        freq: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.tune = tune
        self.anchor_pool = anchor_pool
        self.pool_size = pool_size
        self.prompt_length = prompt_length
        self.similarity_coef = similarity_coef
        self.patch_length = patch_length
        self.stride = stride
        self.trend_length = trend_length
        self.seasonal_length = seasonal_length
        self.dropout = dropout
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
        tiny = {
            "backbone": "random:gpt2?hidden=8&layers=1&heads=2&positions=128",
            "pool_size": 10,
            "prompt_length": 2,
            "batch_size": 16,
        }
        return [
            {**tiny, "context_length": 8, "patch_length": 4, "max_steps": 2, "random_state": 42},
            {
                **tiny,
                "context_length": 6,
                "prediction_length": 2,
                "anchor_pool": "clusters",
                "tune": (),
                "loss": "quantile",
                "quantiles": (0.1, 0.5, 0.9),
                "max_steps": 1,
                "update_epochs": 1,
                "device": "cpu",
            },
        ]

    # ------------------------------------------------------------------ anchors

    def anchors(self, y: Any = None, *, X: Any = None, top: int = 5) -> pd.DataFrame:
        """Name the anchors that prompt the forecast of each series, by their nearest words.

        Parameters
        ----------
        y : Series, DataFrame or None, default=None
            The histories, in the form of `fit`. None: those that this forecaster keeps.
        X : DataFrame or None, default=None
            Their covariates, if the model was fitted with some.
        top : int, default=5
            Words that name an anchor.

        Returns
        -------
        DataFrame
            One row per chosen anchor of each series and variable: ``series_id``, ``variable``,
            ``rank`` (1: the closest), ``anchor`` (its number in the pool), ``similarity`` (cosine,
            to the window's mean token), ``words`` and ``word_similarities`` (lists; cosine, of
            anchor and word embedding, the closest first).

        Raises
        ------
        DataError
            The model was fitted without a language model, ``top`` is no positive whole number, or
            a series does not fit the model.
        """
        self.check_is_fitted()
        Limits(1, 1_000).check("top", top)
        state = self.fitted_
        if state.backbone is None:
            raise DataError(
                "anchors are named by the language model's words, and backbone=None has none: fit "
                "with a backbone"
            )
        contexts = self._known_or(y, X)
        aligned = self._align(contexts)
        chosen, place = aligned.found.indices.unique(return_inverse=True)  # place: (samples, k)
        words, cosines = nearest_words(aligned.pool[chosen], state.backbone, top)
        owners = [(c.series_id, v) for c in contexts for v in self._layout.columns]
        similarities = aligned.found.similarities.tolist()
        return pd.DataFrame(
            [
                {
                    "series_id": series_id,
                    "variable": variable,
                    "rank": rank + 1,
                    "anchor": int(chosen[number]),
                    "similarity": similarities[row][rank],
                    "words": words[number],
                    "word_similarities": cosines[number],
                }
                for row, (series_id, variable) in enumerate(owners)
                for rank, number in enumerate(place[row].tolist())
            ]
        )

    def plot_anchors(
        self, y: Any = None, *, X: Any = None, method: str = "pca", ax: Any = None
    ) -> Any:
        """Draw anchors and the series' tokens in one plane, the chosen anchors with their words.

        Rows are first scaled to length one, for anchors are chosen by angle.

        Parameters
        ----------
        y : Series, DataFrame or None, default=None
            The histories to draw, in the form of `fit`. None: those that this forecaster keeps.
        X : DataFrame or None, default=None
            Their covariates, if the model was fitted with some.
        method : {"pca", "tsne"}, default="pca"
            Method that finds the plane.
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        DataError
            An unknown method, or a series that does not fit the model.
        """
        from tsllm.plotting.anchors import plot_joint_space

        self.check_is_fitted()
        aligned = self._align(self._known_or(y, X))
        chosen = aligned.found.indices.unique()
        backbone = self.fitted_.backbone
        names = None
        if backbone is not None:
            nearest, _ = nearest_words(aligned.pool[chosen], backbone, 1)
            names = [" ".join(words) for words in nearest]
        return plot_joint_space(
            aligned.pool.detach().cpu().numpy(),
            aligned.tokens.flatten(0, 1).cpu().numpy(),
            chosen.cpu().numpy(),
            names,
            method=method,
            ax=ax,
        )

    def plot_alignment(self, ax: Any = None) -> Any:
        """Draw the similarity of windows and their anchors over the training.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib Axes
            The mean cosine similarity over the epochs.
        """
        from tsllm.plotting.anchors import draw_similarities

        self.check_is_fitted()
        similarities = [h["similarity"] / self.prompt_length for h in self.fitted_.history]
        return draw_similarities(similarities, best_epoch=self.fitted_.best_epoch, ax=ax)

    # ------------------------------------------------------------------ the method's hooks

    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        self._check_own_parameters()
        shape = super()._choose_shape(contexts, horizon)
        steps = shape.context_length
        season = season_length(shape.freq)
        has_season = 1 < season <= steps // 2
        patch = self._chosen_length(
            "patch_length", most=steps, automatic=min(MAX_PATCH_LENGTH, max(1, steps // 4))
        )
        stride = self._chosen_length("stride", most=patch, automatic=max(1, patch // 2))
        trend = self._chosen_length(
            "trend_length",
            most=steps,
            automatic=season if has_season else min(TREND_WITHOUT_SEASON, max(1, steps // 4)),
        )
        seasonal = self.seasonal_length
        if seasonal == "auto":
            seasonal = season if has_season else 1
        extra = {
            "patch_length": patch,
            "stride": stride,
            "trend_length": trend,
            "seasonal_length": int(seasonal),
        }
        return replace(shape, extra=extra)

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        if backbone is not None:
            self._check_fits(backbone, shape)
        return S2IPModel(
            tuned(backbone, train=self.tune, lora=self.lora),
            shape.context_length,
            shape.horizon,
            **shape.extra,
            anchors=self.anchor_pool,
            pool_size=self.pool_size,
            prompt_length=self.prompt_length,
            dropout=self.dropout,
            quantiles=self._head_levels(),
        )

    def _read_output(self, out: Any) -> tuple[Tensor, dict[str, Tensor], Tensor | float]:
        forecast, similarity = out
        return forecast, {"similarity": similarity}, self.similarity_coef * similarity

    # ------------------------------------------------------------------ helpers

    def _known_or(self, y: Any, X: Any) -> list[Context]:
        """Return the residuals of `y`, or of the contexts that this forecaster keeps."""
        if y is not None:
            y = match_columns(read_container(y, "y"), self._layout.columns, other_series=True)
            contexts = split_series(y, freq=self._known_frequency())
            self.fitted_.check_same_series(contexts)
            contexts = join_covariates(contexts, X, self.fitted_.covariates)
            return self.fitted_.residuals(contexts)
        if not self._contexts:
            raise DataError(
                "the model was saved without its context: pass the recent past of the series as y"
            )
        return self.fitted_.residuals(list(self._contexts.values()))

    @torch.inference_mode()
    def _align(self, contexts: Sequence[Context]) -> Alignment:
        """Locate contexts among the model's anchors."""
        state = self.fitted_
        assert isinstance(state.model, S2IPModel)  # _build_model made it
        tails = [self._arrange_context(state, context) for context in contexts]
        batch = batch_contexts(tails, state.shape.context_length).to(state.device)
        return state.model.align(batch.values, batch.mask)

    def _chosen_length(self, name: str, *, most: int, automatic: int) -> int:
        """Choose a length in steps; a given one is limited to an automatic context."""
        asked = getattr(self, name)
        if asked == "auto":
            return automatic
        if asked <= most:
            return int(asked)
        if name != "stride" and self.context_length == "auto":
            return most
        raise DataError(
            f"{name}={asked} must be at most {most}, the steps of the "
            f"{'patch' if name == 'stride' else 'context'}: use a smaller {name}"
        )

    def _check_own_parameters(self) -> None:
        """Check the parameters that only S²IP-LLM has."""
        check_choice("anchor_pool", self.anchor_pool, ANCHORS)
        unknown = [self.tune] if isinstance(self.tune, str) else set(self.tune) - set(TUNABLE)
        if unknown:
            raise DataError(
                f"tune lists some of {', '.join(TUNABLE)}, or nothing, found {self.tune!r}"
            )
        if self.prompt_length > self.pool_size:
            raise DataError(
                f"prompt_length={self.prompt_length} must be at most pool_size={self.pool_size}"
            )

    def _check_fits(self, backbone: Backbone, shape: ModelShape) -> None:
        """Check that the language model reads so many tokens and has so many words."""
        patch, stride = shape.extra["patch_length"], shape.extra["stride"]
        tokens = self.prompt_length + count_patches(shape.context_length, patch, stride)
        if backbone.max_positions and tokens > backbone.max_positions:
            raise DataError(
                f"context_length={shape.context_length} with patch_length={patch} and "
                f"stride={stride} makes {tokens} tokens, and the backbone {backbone.spec} reads at "
                f"most {backbone.max_positions}: use a longer stride and patch_length, or a "
                "shorter context_length"
            )
        if self.anchor_pool == "clusters" and self.pool_size > backbone.vocab_size:
            raise DataError(
                f"pool_size={self.pool_size} clusters are more than the {backbone.vocab_size} "
                f"words of the backbone {backbone.spec}: use a smaller pool_size"
            )
