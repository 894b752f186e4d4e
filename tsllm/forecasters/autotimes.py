"""AutoTimes: a frozen language model continues a series the way it continues text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from tsllm.adapters.autotimes import AutoTimesModel
from tsllm.adapters.losses import next_segment_loss
from tsllm.backbone import DEFAULT_BACKBONE, Backbone, tuned
from tsllm.context import Context, ContextBatch
from tsllm.datasets.frequency import season_length
from tsllm.embeddings import open_store
from tsllm.errors import DataError
from tsllm.forecasters.base import BaseLLMForecaster
from tsllm.forecasters.flips import choose_flips
from tsllm.forecasters.frames import frequency_of
from tsllm.forecasters.in_context import prepend_prompt
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.prompts.segments import context_sentences, segment_sentences
from tsllm.training.settings import Loss
from tsllm.training.windows import WindowBatch, Windows

#: The paper reads 7 tokens of 96 steps.
MAX_TOKENS = 7
MAX_TOKEN_LENGTH = 96
ROLLOUTS = ("sliding", "cached")


class AutoTimesForecaster(BaseLLMForecaster):
    """Forecast any horizon with a frozen language model (Liu et al., NeurIPS 2024, 2402.02370).

    The series is cut into segments, each becomes one token of the language model, and the model's
    next token is projected back to the next segment. Only the projections are trained. Longer
    horizons are rolled out segment by segment, so one fitted model serves every horizon.

    Parameters
    ----------
    backbone : str or None
        The language model: a Hugging Face id, a local directory, or ``"random:..."``. None leaves
        it out, the control for whether it helps.
    backbone_layers : int, optional
        Use the first layers only. None uses all.
    lora : dict, optional
        Fine-tune the language model with LoRA (Hu et al., 2021, 2106.09685), through peft:
        ``{"r": 8, "alpha": 16, "dropout": 0.0, "target_modules": None}``, where each entry may be
        left out and None means the query and value projections. The adapters are this
        forecaster's own; the shared weights are never changed.
    context_length : int or "auto"
        Steps of history that a forecast reads, a multiple of the token length. "auto": up to seven
        tokens, and at most half of a typical series.
    token_length : int or "auto"
        Steps of one token. "auto": whole seasons that cover the horizon, at most 96 steps and at
        most a sixth of a typical series.
    prediction_length : int, optional
        The horizon that intervals are calibrated for. None: the ``fh`` of `fit`, else one token.
    loss : {"mse", "mae", "huber", "quantile"}
        "quantile" trains a head that gives ``quantiles`` without crossing.
    quantiles : tuple of float
        Levels of the quantile head.
    adaptive : bool
        Keep the intervals' calibration current in `update`; costs one forecast per update.
    update_epochs : int
        Epochs to train on new data in `update`, and in `fit` after `pretrain`. 0: none.
    mlp_layers : int
        Linear layers in each projection's MLP; 0: one linear layer.
    mlp_hidden : int
        Width inside the MLPs.
    dropout : float
        On the tokens, or inside the MLPs.
    flip_invariance : bool or "auto"
        Let the forecast of a series turned upside down be the forecast turned upside down: training
        turns each window over by chance, and a forecast is the average of both readings, which
        takes twice the time. Not in the paper. "auto": where the series rise and fall alike, in at
        least a third of the windows each; a model of this kind cannot know that a series grows.
    timestamps : bool
        Add the language model's embedding of each segment's dates to its token (section 3.1).
    rollout : {"sliding", "cached"}
        How horizons beyond one token are reached. "sliding" re-reads the last context for each
        token; "cached" reads one token more on the key-value cache.
    in_context : None, "earliest", "recent_period", "similar" or array
        Show the model an earlier stretch of the series before the lookback (section 3.3).
    in_context_length : int or "auto"
        Steps of ``context_length`` that the prompt takes. "auto": half of the tokens.
    max_epochs : int or "auto"
        "auto": ten, or more where the series are so few that ten make less than 400 steps;
        ``patience`` then grows alike.
    batch_size : int
        Windows a training step; each variable is a window of its own.
    learning_rate, weight_decay : float
        Of Adam, with a cosine schedule over the epochs.
    patience : int
        Epochs without a better validation loss before training stops.
    validation_fraction : float
        Share of each series, at its end, for early stopping and for calibrating intervals.
    max_steps : int, optional
        Stop after so many training steps.
    past_covariates : tuple of str
        Columns of X that end with y; the other columns must be given for the steps to forecast.
    embedding_store : EmbeddingStore or path, optional
        Where the embeddings of timestamps are kept. None: in the user's cache folder.
    freq : str, optional
        Frequency of the series, where their index does not tell it.
    device, dtype : str
        "auto" takes the GPU with bfloat16 where there is one.
    random_state : int, RandomState or None
        One random state gives one result.
    verbose : int
        1 shows progress on stderr.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import AutoTimesForecaster
    >>> forecaster = AutoTimesForecaster(
    ...     backbone="random:gpt2?hidden=16&layers=1&heads=2", max_steps=5, random_state=0
    ... )
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']
    """

    _architecture = BaseLLMForecaster._architecture | {
        "token_length",
        "mlp_layers",
        "mlp_hidden",
        "flip_invariance",
        "timestamps",
    }

    def __init__(
        self,
        backbone: str | None = DEFAULT_BACKBONE,
        *,
        backbone_layers: int | None = None,
        lora: dict[str, Any] | None = None,
        context_length: int | str = "auto",
        token_length: int | str = "auto",
        prediction_length: int | None = None,
        loss: str = "mse",
        quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        adaptive: bool = False,
        update_epochs: int = 0,
        mlp_layers: int = 0,
        mlp_hidden: int = 256,
        dropout: float = 0.2,
        flip_invariance: bool | str = "auto",
        timestamps: bool = False,
        rollout: str = "sliding",
        in_context: str | np.ndarray | pd.DataFrame | None = None,
        in_context_length: int | str = "auto",
        max_epochs: int | str = "auto",
        batch_size: int = 64,
        learning_rate: float = 5e-4,
        weight_decay: float = 0.0,
        patience: int = 3,
        validation_fraction: float = 0.1,
        max_steps: int | None = None,
        past_covariates: tuple[str, ...] = (),
        embedding_store: Any = None,
        freq: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.backbone_layers = backbone_layers
        self.lora = lora
        self.context_length = context_length
        self.token_length = token_length
        self.prediction_length = prediction_length
        self.loss = loss
        self.quantiles = quantiles
        self.adaptive = adaptive
        self.update_epochs = update_epochs
        self.mlp_layers = mlp_layers
        self.mlp_hidden = mlp_hidden
        self.dropout = dropout
        self.flip_invariance = flip_invariance
        self.timestamps = timestamps
        self.rollout = rollout
        self.in_context = in_context
        self.in_context_length = in_context_length
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.max_steps = max_steps
        self.past_covariates = past_covariates
        self.embedding_store = embedding_store
        self.freq = freq
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
        super().__init__()

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Give small settings for sktime's tests.

        Parameters
        ----------
        parameter_set : str
            Ignored: there is one set.

        Returns
        -------
        list of dict
        """
        tiny = "random:gpt2?hidden=8&layers=1&heads=2&positions=128"
        return [
            {
                "backbone": tiny,
                "context_length": 8,
                "token_length": 4,
                "max_steps": 2,
                "batch_size": 16,
                "random_state": 42,
            },
            {
                "backbone": tiny,
                "context_length": 6,
                "token_length": 3,
                "loss": "quantile",
                "quantiles": (0.1, 0.5, 0.9),
                "rollout": "cached",
                "timestamps": True,
                "max_steps": 1,
                "batch_size": 16,
                "update_epochs": 1,
                "device": "cpu",
            },
        ]

    # ------------------------------------------------------------------ the method's hooks

    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        self._check_own_parameters()
        freq = frequency_of(contexts)
        season = season_length(freq)
        typical = int(np.median([len(context) for context in contexts]))
        token = self._choose_token_length(typical, season, horizon)
        if self.context_length == "auto":
            context_length = token * int(np.clip(typical // 2 // token, 1, MAX_TOKENS))
        else:
            context_length = int(self.context_length)
        if context_length % token:
            raise DataError(
                f"context_length={context_length} is no multiple of token_length={token}: "
                f"use {context_length // token * token or token}, or another token_length"
            )
        flips = choose_flips(self, contexts, context_length=context_length, target_length=token)
        extra = {"token_length": token, "season": season, "flip_invariance": flips}
        if self.in_context is not None:
            self._prompt_length(context_length, token)  # refuses what does not fit
        return ModelShape(context_length, horizon or token, contexts[0].n_variables, freq, extra)

    def _build_model(self, backbone: Backbone | None, shape: ModelShape) -> nn.Module:
        tokens = shape.context_length // shape.extra["token_length"]
        if backbone is not None and backbone.max_positions and tokens > backbone.max_positions:
            raise DataError(
                f"context_length={shape.context_length} makes {tokens} tokens of "
                f"{shape.extra['token_length']} steps, and the backbone {backbone.spec} reads at "
                f"most {backbone.max_positions}: use a shorter context_length or a longer "
                "token_length"
            )
        core = tuned(backbone, lora=self.lora)
        return AutoTimesModel(
            core,
            shape.extra["token_length"],
            mlp_layers=self.mlp_layers,
            mlp_hidden=self.mlp_hidden,
            dropout=self.dropout,
            mix_timestamps=self.timestamps,
            quantiles=tuple(self.quantiles) if self.loss == "quantile" else (),
            flip_invariance=shape.extra.get("flip_invariance", False),
        )

    def _target_length(self, shape: ModelShape) -> int:
        return int(shape.extra["token_length"])

    def _make_loss(
        self, state: FittedState, contexts: Sequence[Context], windows: Sequence[Windows]
    ) -> Callable[[nn.Module, WindowBatch], Loss]:
        token = state.shape.extra["token_length"]
        n_tokens = state.shape.context_length // token
        # Sentences repeat over series and variables: one row each, and a row number per step.
        table, rows = None, []
        if self.timestamps:
            sentences: dict[str, int] = {}
            for context in contexts:
                numbers = [
                    sentences.setdefault(sentence, len(sentences))
                    for sentence in segment_sentences(context.times, token)
                ]
                rows.extend([torch.tensor(numbers)] * context.n_variables)
            table = self._embed(state, list(sentences)).to(state.device)  # (sentences, width)

        def loss(model: nn.Module, batch: WindowBatch) -> Loss:
            marks = None
            if table is not None:
                starts = batch.start.cpu()[:, None] + token * torch.arange(n_tokens)
                picked = torch.stack(
                    [
                        rows[series][start.clamp(0, len(rows[series]) - 1)]
                        for series, start in zip(batch.series.tolist(), starts)
                    ]
                )  # (batch, tokens)
                marks = table[picked.to(table.device)]  # (batch, tokens, width)
            total, count = next_segment_loss(
                cast(AutoTimesModel, model),
                batch.values,
                marks,
                mask=batch.mask,
                loss=self.loss,
            )
            return Loss(total, count)

        return loss

    def _run_model(
        self, state: FittedState, batch: ContextBatch, contexts: Sequence[Context], horizon: int
    ) -> Tensor:
        token = state.shape.extra["token_length"]
        marks = None
        if self.timestamps:
            n_tokens = state.shape.context_length // token + -(-horizon // token) - 1
            sentences = [
                sentence
                for context in contexts
                for sentence in context_sentences(
                    context,
                    n_tokens,
                    token_length=token,
                    context_length=state.shape.context_length,
                    freq=state.shape.freq,
                )
            ]
            embedded = self._embed(state, sentences).to(state.device)
            marks = embedded.unflatten(0, (len(contexts), n_tokens))  # (batch, tokens, width)
            marks = marks.repeat_interleave(state.shape.n_variables, dim=0)
        model = state.model
        assert isinstance(model, AutoTimesModel)  # _build_model made it
        out = model.rollout(
            batch.values, horizon, marks, mask=batch.mask, mode=self.rollout
        )  # (batch, horizon, variables[, levels])
        if model.quantile_head is None:
            return out.unsqueeze(-1)
        median = model.quantile_head.median
        return torch.cat([out[..., median : median + 1], out], dim=-1)

    def _texts_to_embed(
        self, shape: ModelShape, contexts: Sequence[Context], backbone: Backbone
    ) -> Iterator[Sequence[str]]:
        if self.timestamps:
            token = shape.extra["token_length"]
            yield list({s: None for c in contexts for s in segment_sentences(c.times, token)})

    def _arrange_context(self, state: FittedState, context: Context) -> Context:
        if self.in_context is None:
            return super()._arrange_context(state, context)
        token = state.shape.extra["token_length"]
        prompt = self._prompt_length(state.shape.context_length, token)
        return prepend_prompt(
            context,
            self.in_context,
            prompt_length=prompt,
            lookback=state.shape.context_length - prompt,
            token_length=token,
            season=state.shape.extra["season"],
        )

    def _steps_to_keep(self, state: FittedState) -> int | None:
        if isinstance(self.in_context, str):
            return None  # a prompt may come from anywhere in the past
        return state.shape.context_length

    def _needs_language_model(self) -> dict[str, Any]:
        dates = {"timestamps": False} if self.timestamps else {}
        return super()._needs_language_model() | dates

    # ------------------------------------------------------------------ helpers

    def _choose_token_length(self, typical: int, season: int, horizon: int | None) -> int:
        """Take whole seasons that cover the horizon, as far as the series are long enough."""
        if self.token_length != "auto":
            return int(self.token_length)
        most = max(1, min(MAX_TOKEN_LENGTH, typical // 6))
        if self.context_length != "auto":
            most = min(most, int(self.context_length))
        wanted = min(horizon or max(season, 8), most)
        token = min(-(-wanted // season) * season, most // season * season or most)
        if self.context_length != "auto":
            while int(self.context_length) % token:  # the largest divisor that is not above it
                token -= 1
        return token

    def _prompt_length(self, context_length: int, token: int) -> int:
        """Take half of the tokens for the prompt, or what was asked for."""
        if self.in_context_length == "auto":
            prompt = context_length // token // 2 * token
        else:
            prompt = int(self.in_context_length)
        if prompt < token or prompt % token or prompt >= context_length:
            raise DataError(
                f"in_context_length={prompt} must be a multiple of token_length={token} and leave "
                f"at least one token of context_length={context_length} for the lookback"
            )
        return prompt

    def _check_own_parameters(self) -> None:
        """Check the parameters that only AutoTimes has."""
        if self.rollout not in ROLLOUTS:
            raise DataError(f"rollout must be one of {', '.join(ROLLOUTS)}, found {self.rollout!r}")
        if self.mlp_layers < 0 or self.mlp_layers == 1:
            raise DataError(
                f"mlp_layers counts the linear layers of an MLP, 2 or more, or is 0 for a linear "
                f"projection, found {self.mlp_layers!r}"
            )
        if self.timestamps and self.backbone is None:
            raise DataError(
                "timestamps=True embeds dates with the language model, and backbone=None has none: "
                "set timestamps=False"
            )
        token = self.token_length
        if token != "auto" and (not isinstance(token, Integral) or token < 1):
            raise DataError(
                f"token_length must be a whole number of steps or 'auto', found {token!r}"
            )

    def _embed(self, state: FittedState, sentences: list[str]) -> Tensor:
        """Embed sentences with the language model, through the store: (sentences, width)."""
        assert state.backbone is not None  # timestamps=True needs one: _check_own_parameters
        return open_store(self.embedding_store).encode(
            sentences, state.backbone, progress=self.verbose > 0 and len(sentences) > 1000
        )
