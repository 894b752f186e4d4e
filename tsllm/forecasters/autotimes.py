"""AutoTimes: a frozen language model continues a series the way it continues text."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from tsllm.adapters.autotimes import AutoTimesModel
from tsllm.adapters.losses import next_segment_loss
from tsllm.arguments import check_choice
from tsllm.backbone import DEFAULT_BACKBONE, Backbone, tuned
from tsllm.context import Context, ContextBatch, typical_length
from tsllm.covariates import CovariateColumns
from tsllm.datasets.frequency import season_length
from tsllm.embeddings import open_store
from tsllm.errors import DataError
from tsllm.forecasters.frames import frequency_of
from tsllm.forecasters.language_model import LLMForecaster
from tsllm.forecasters.parameters import DECILES, choose_flips
from tsllm.forecasters.shapes import best_shape
from tsllm.forecasters.state import FittedState, ModelShape
from tsllm.forecasters.zero_shot import ZeroShotForecaster
from tsllm.prompts.segments import context_sentences, segment_sentences
from tsllm.training.settings import Loss
from tsllm.training.windows import WindowBatch, Windows

#: The paper reads 7 tokens of 96 steps.
MAX_TOKENS = 7
MAX_TOKEN_LENGTH = 96
ROLLOUTS = ("sliding", "cached")
IN_CONTEXT = ("earliest", "recent_period", "similar")


class AutoTimesForecaster(LLMForecaster):
    """Forecast any horizon with a frozen language model (Liu et al., NeurIPS 2024).

    The series is cut into segments, each becomes one token of the language model, and the model's
    next token is projected back to the next segment. Only the projections are trained. Longer
    horizons are rolled out segment by segment, so one fitted model serves every horizon.

    The arguments that matter most: ``backbone`` (None: no language model), ``backbone_layers``
    ("auto" is faster), ``context_length``, ``max_steps`` (the time of the training) and
    ``random_state``.

    Examples
    --------
    >>> from sktime.datasets import load_airline
    >>> from tsllm import AutoTimesForecaster
    >>> forecaster = AutoTimesForecaster(
    ...     backbone="random:gpt2?hidden=16&layers=1&heads=2", max_steps=5, random_state=0
    ... )
    >>> forecaster.fit(load_airline(), fh=[1, 2, 3]).predict().index.astype(str).tolist()
    ['1961-01', '1961-02', '1961-03']

    Parameters
    ----------
    context_length : int or "auto", default="auto"
        Steps of history that a forecast reads, a multiple of the token length. "auto": up to seven
        tokens, and at most half of a typical series. Where series of fewer than 300 steps are
        typical, and ``token_length`` is "auto" too, a few lengths are compared on the held-out
        part, by short trainings without the language model: tokens of the horizon, of whole seasons
        and of this rule, with a long and a short context.
    token_length : int or "auto", default="auto"
        Steps of one token. "auto": whole seasons that cover the horizon, at most 96 steps and at
        most a sixth of a typical series.
    prediction_length : int or None, default=None
        The horizon that intervals are calibrated for. None: the ``fh`` of `fit`, else one token.
    mlp_layers : int, default=0
        Linear layers in each projection's MLP; 0: one linear layer.
    mlp_hidden : int, default=256
        Width inside the MLPs.
    dropout : float, default=0.2
        Dropout on the tokens; with ``mlp_layers``, inside the MLPs instead.
    timestamps : bool, default=False
        Add the language model's embedding of each segment's dates to its token (section 3.1).
    loss_on : {"all", "last", "auto"}, default="all"
        The segments whose forecasts training compares. "all", as published: each segment of the
        window. A window is normalised by the statistics of its whole context, which contain the
        targets of all segments but the last; a model without positions, as with ``backbone=None``,
        then learns to revert to the mean. "last": only the segment after the context. "auto": train
        with both and keep the model with the lower loss on the last segments of the held-out part,
        which takes twice the time; ``summary()["loss_on"]`` names it.
    rollout : {"sliding", "cached"}, default="sliding"
        Method for horizons beyond one token. "sliding" reads the last context again for each token;
        "cached" reads one token more on the key-value cache.
    in_context : None, "earliest", "recent_period", "similar" or array, default=None
        Earlier steps of the series that the model reads before the lookback (section 3.3).
    in_context_length : int or "auto", default="auto"
        Steps of ``context_length`` that the earlier steps take. "auto": half of the tokens.

    Attributes
    ----------
    fitted_ : FittedState
        The trained model, its sizes, its calibration and its history.

    See Also
    --------
    ZeroShotForecaster : Forecast without training.
    TimeCMAForecaster, S2IPForecaster, AarenForecaster

    References
    ----------
    Liu et al., "AutoTimes: Autoregressive Time Series Forecasters via Large Language Models",
    NeurIPS 2024, arXiv 2402.02370, section 3.
    """

    _free_parameters = LLMForecaster._free_parameters | {
        "dropout",
        "in_context",
        "in_context_length",
        "prediction_length",
        "rollout",
    }

    flip_invariance: bool | str

    def __init__(
        self,
        backbone: str | None = DEFAULT_BACKBONE,
        *,
        backbone_layers: int | str | None = "auto",
        lora: dict[str, Any] | None = None,
        context_length: int | str = "auto",
        token_length: int | str = "auto",
        prediction_length: int | None = None,
        loss: str = "mse",
        quantiles: tuple[float, ...] = DECILES,
        adaptive: bool = False,
        update_epochs: int = 0,
        mlp_layers: int = 0,
        mlp_hidden: int = 256,
        dropout: float = 0.2,
        flip_invariance: bool | str = "auto",
        timestamps: bool = False,
        loss_on: str = "all",
        rollout: str = "sliding",
        in_context: str | np.ndarray | pd.DataFrame | None = None,
        in_context_length: int | str = "auto",
        max_epochs: int | str = "auto",
        batch_size: int = 64,
        window_stride: int | str = "auto",
        learning_rate: float = 5e-4,
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
        self.token_length = token_length
        self.mlp_layers = mlp_layers
        self.mlp_hidden = mlp_hidden
        self.dropout = dropout
        self.timestamps = timestamps
        self.loss_on = loss_on
        self.rollout = rollout
        self.in_context = in_context
        self.in_context_length = in_context_length
        super().__init__(locals())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Return small settings for sktime's tests; there is one ``parameter_set``."""
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

    @classmethod
    def from_pretrained(cls, name: str = "zero-shot", **parameters: Any) -> ZeroShotForecaster:
        """Return a forecaster with weights that come with the package: it needs no training.

        Its model takes AutoTimes' segments as tokens, and more beside; it is a class of its own,
        without the arguments of a training.

        Parameters
        ----------
        name : {"zero-shot"}, default="zero-shot"
            The weights.
        **parameters
            Arguments of `ZeroShotForecaster`.

        Returns
        -------
        ZeroShotForecaster

        Raises
        ------
        DataError
            An unknown name.

        Examples
        --------
        >>> from sktime.datasets import load_airline
        >>> from tsllm import AutoTimesForecaster
        >>> forecaster = AutoTimesForecaster.from_pretrained("zero-shot")
        >>> forecaster.fit(load_airline(), fh=[1]).predict().index.astype(str).tolist()
        ['1961-01']
        """
        check_choice("name", name, ("zero-shot",))
        return ZeroShotForecaster(**parameters)

    # ------------------------------------------------------------------ the method's hooks

    def _choose_shape(self, contexts: Sequence[Context], horizon: int | None) -> ModelShape:
        self._check_own_parameters()
        freq = frequency_of(contexts)
        season = season_length(freq)
        token, context_length = self._choose_lengths(contexts, season, horizon)
        if context_length % token:
            raise DataError(
                f"context_length={context_length} is no multiple of token_length={token}: "
                f"use {context_length // token * token or token}, or another token_length"
            )
        flips = choose_flips(
            self.flip_invariance,
            self._head_levels(),
            contexts,
            context_length=context_length,
            target_length=token,
            held_out=self.validation_fraction,
        )
        extra: dict[str, Any] = {"token_length": token, "season": season, "flip_invariance": flips}
        if self.loss_on != "all":
            extra["loss_on"] = self.loss_on
        if self.in_context is not None:
            self._in_context_steps(context_length, token)  # checks them
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
        return AutoTimesModel(
            tuned(backbone, lora=self.lora),
            shape.extra["token_length"],
            mlp_layers=self.mlp_layers,
            mlp_hidden=self.mlp_hidden,
            dropout=self.dropout,
            mix_timestamps=self.timestamps,
            quantiles=self._head_levels(),
            flip_invariance=shape.extra.get("flip_invariance", False),
        )

    def _train_new(
        self,
        contexts: Sequence[Context],
        columns: CovariateColumns | None,
        horizon: int | None,
        *,
        calibrate: bool = True,
    ) -> FittedState:
        if self.loss_on != "auto":
            return super()._train_new(contexts, columns, horizon, calibrate=calibrate)
        found: list[tuple[float, int, FittedState]] = []
        covariates = None
        for segments in ("all", "last"):
            state = self._new_state(contexts, horizon)
            state.shape.extra["loss_on"] = segments
            if not found:
                covariates = self._learn_effects(contexts, columns, state.shape)
            state.covariates = covariates
            self._train(state, contexts, self.max_epochs, recalibrate=False)
            held_out = [epoch.get("validation_loss") for epoch in state.history]
            lowest = min((loss for loss in held_out if loss is not None), default=np.inf)
            found.append((lowest, len(found), state))
        state = min(found)[-1]  # "all" where both are equal, or nothing was held out
        residuals = state.residuals(contexts)
        _, _, steps = self._windows(state.shape, residuals)
        self._learn_from_held_out(state, residuals, steps, calibrate=calibrate)
        return state

    def _target_length(self, shape: ModelShape) -> int:
        return int(shape.extra["token_length"])

    def _make_loss(
        self, state: FittedState, contexts: Sequence[Context], windows: Sequence[Windows]
    ) -> Callable[[nn.Module, WindowBatch], Loss]:
        token = state.shape.extra["token_length"]
        n_tokens = state.shape.context_length // token
        segments = state.shape.extra.get("loss_on", "all")
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
            dates = None
            if table is not None:
                starts = batch.start.cpu()[:, None] + token * torch.arange(n_tokens)
                picked = torch.stack(
                    [
                        rows[series][start.clamp(0, len(rows[series]) - 1)]
                        for series, start in zip(batch.series.tolist(), starts)
                    ]
                )  # (batch, tokens)
                dates = table[picked.to(table.device)]  # (batch, tokens, width)
            total, count = next_segment_loss(
                cast(AutoTimesModel, model),
                batch.values,
                dates,
                mask=batch.mask,
                loss=self.loss,
                last_only=segments == "last" or (self.loss_on == "auto" and not model.training),
            )
            return Loss(total, count)

        return loss

    def _run_model(
        self, state: FittedState, batch: ContextBatch, contexts: Sequence[Context], horizon: int
    ) -> Tensor:
        token = state.shape.extra["token_length"]
        # The batch is standardised in float64 so that float32 is enough; the module normalises each
        # context again, as published.
        dates = None
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
            dates = embedded.unflatten(0, (len(contexts), n_tokens))  # (batch, tokens, width)
            dates = dates.repeat_interleave(state.shape.n_variables, dim=0)
        model = state.model
        assert isinstance(model, AutoTimesModel)  # _build_model made it
        out = model.rollout(
            batch.values, horizon, dates, mask=batch.mask, mode=self.rollout
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
        length = self._in_context_steps(state.shape.context_length, token)
        return prepend_in_context(
            context,
            self.in_context,
            length=length,
            lookback=state.shape.context_length - length,
            token_length=token,
            season=state.shape.extra["season"],
        )

    def _steps_to_keep(self, state: FittedState) -> int | None:
        if isinstance(self.in_context, str):
            return None  # it may come from anywhere in the past
        return super()._steps_to_keep(state)

    def _needs_language_model(self) -> dict[str, Any]:
        dates = {"timestamps": False} if self.timestamps else {}
        return super()._needs_language_model() | dates

    # ------------------------------------------------------------------ helpers

    def _choose_lengths(
        self, contexts: Sequence[Context], season: int, horizon: int | None
    ) -> tuple[int, int]:
        """Choose the steps of a token and of the context; both free, short series decide."""
        typical = typical_length(contexts)
        token = self._choose_token_length(typical, season, horizon)
        if self.context_length != "auto":
            return token, int(self.context_length)
        usual = token, token * int(np.clip(typical // 2 // token, 1, MAX_TOKENS))
        if self.token_length != "auto" or horizon is None or self.in_context is not None:
            return usual
        shapes = [usual]
        for one in (horizon, -(-horizon // season) * season, token):
            if one <= min(MAX_TOKEN_LENGTH, typical // 2):
                room = self._most_context(typical, one) // one
                long = int(np.clip(room, 1, MAX_TOKENS))
                shapes += [(one, one * long), (one, one * max(1, long // 2))]
        settings = [{"token_length": t, "context_length": length} for t, length in shapes]
        off: dict[str, Any] = {"backbone": None, "backbone_layers": None, "lora": None}
        best = best_shape(self, contexts, horizon, settings, off | {"timestamps": False})
        return best["token_length"], best["context_length"]

    def _choose_token_length(self, typical: int, season: int, horizon: int | None) -> int:
        """Choose whole seasons that cover the horizon, if the series are long enough."""
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

    def _in_context_steps(self, context_length: int, token: int) -> int:
        """Return the steps in context: half of the tokens, or the argument's."""
        if self.in_context_length == "auto":
            length = context_length // token // 2 * token
        else:
            length = int(self.in_context_length)
        if length < token or length % token or length >= context_length:
            raise DataError(
                f"in_context_length={length} must be a multiple of token_length={token} and leave "
                f"at least one token of context_length={context_length} for the lookback"
            )
        return length

    def _check_own_parameters(self) -> None:
        """Check the parameters that only AutoTimes has."""
        check_choice("rollout", self.rollout, ROLLOUTS)
        check_choice("loss_on", self.loss_on, ("all", "last", "auto"))
        if self.loss_on == "auto" and self.checkpoint_dir is not None:
            raise DataError(
                "checkpoint_dir resumes one training, and loss_on='auto' runs two: choose 'all' or "
                "'last', or leave checkpoint_dir out"
            )
        if self.mlp_layers == 1:
            raise DataError(
                f"mlp_layers counts the linear layers of an MLP, 2 or more, or is 0 for a linear "
                f"projection, found {self.mlp_layers!r}"
            )
        if self.timestamps and self.backbone is None:
            raise DataError(
                "timestamps=True embeds dates with the language model, and backbone=None has none: "
                "set timestamps=False"
            )

    def _embed(self, state: FittedState, sentences: list[str]) -> Tensor:
        """Embed sentences with the language model, through the store: (sentences, width)."""
        assert state.backbone is not None  # timestamps=True needs one: _check_own_parameters
        return open_store(self.embedding_store).encode(
            sentences, state.backbone, progress=self.verbose > 0 and len(sentences) > 1000
        )


# ---------------------------------------------------------------------- in-context forecasting


def prepend_in_context(
    context: Context,
    in_context: str | np.ndarray | pd.DataFrame,
    *,
    length: int,
    lookback: int,
    token_length: int,
    season: int,
) -> Context:
    """Join earlier steps and the lookback (AutoTimes, section 3.3 and appendix).

    Parameters
    ----------
    context : Context
        The whole known past of a series.
    in_context : {"earliest", "recent_period", "similar"} or array (steps, variables)
        ``"earliest"``: the first steps of the series. ``"recent_period"``: the latest steps before
        the lookback that begin in the same phase of the season (the latest ones if the history
        holds none such). ``"similar"``: the past window that correlates best with the lookback, and
        the steps after it. An array: the last steps of that series, scaled to the lookback's mean
        and standard deviation.
    length, lookback, token_length, season : int
        Steps.

    Returns
    -------
    Context
        At most ``length + lookback`` steps; the last steps if the history is too short for both.
    """
    recent = context.tail(lookback)
    if not isinstance(in_context, str):
        return _with_foreign_series(recent, in_context, length)
    if in_context not in IN_CONTEXT:
        raise DataError(
            f"in_context must be None, one of {', '.join(IN_CONTEXT)} or an array of values, "
            f"found {in_context!r}"
        )
    free = len(context) - lookback  # steps before the lookback
    if free <= length:
        return context.tail(length + lookback)
    if in_context == "earliest":
        begin = 0
    elif in_context == "recent_period":
        back = -(-length // season) * season  # whole seasons that cover them
        begin = free - (back if back <= free else length)
    else:
        begin = _most_similar(context, free, length, lookback, token_length)
    rows = np.r_[begin : begin + length, free : len(context)]
    return context.with_values(context.values[rows], times=context.times[rows])


def _most_similar(
    context: Context, free: int, length: int, lookback: int, token_length: int
) -> int:
    """Find the first step of the past window that correlates best with the lookback's end.

    The steps in context hold that window and at least one token after it.
    """
    compared = min(lookback, max(token_length, length - token_length), length)
    target = context.values[-compared:]  # (compared, variables)
    past = np.lib.stride_tricks.sliding_window_view(
        context.values[: free - length + compared], compared, axis=0
    )  # (begins, variables, compared)
    similarity = np.zeros(len(past))
    for variable in range(context.n_variables):
        similarity += _correlations(past[:, variable], target[:, variable])
    return int(np.argmax(similarity))


def _correlations(windows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Correlate every row with a target over the steps that both observed; -1 where undefined."""
    both = ~np.isnan(windows) & ~np.isnan(target)  # (windows, steps)
    count = np.maximum(both.sum(axis=1), 1)
    x = np.where(both, windows, 0.0)
    y = np.where(both, target, 0.0)
    mean_x, mean_y = x.sum(axis=1) / count, y.sum(axis=1) / count
    x = np.where(both, x - mean_x[:, None], 0.0)
    y = np.where(both, y - mean_y[:, None], 0.0)
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.where(norm > 0, (x * y).sum(axis=1) / np.where(norm > 0, norm, 1.0), -1.0)


def _with_foreign_series(
    recent: Context, series: np.ndarray | pd.DataFrame, length: int
) -> Context:
    """Prepend another series' steps to the lookback, in the lookback's units."""
    values = np.asarray(series, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != recent.n_variables or len(values) < length:
        raise DataError(
            f"in_context must hold at least {length} steps of {recent.n_variables} "
            f"variable(s), found an array of shape {values.shape}"
        )
    values = values[-length:]
    spread = np.nanstd(values, axis=0)
    standard = (values - np.nanmean(values, axis=0)) / np.where(spread > 0, spread, 1.0)
    values = standard * np.nanstd(recent.values, axis=0) + np.nanmean(recent.values, axis=0)
    # They have no dates of their own: each stamp is the first one of the lookback.
    return recent.with_values(
        np.concatenate([values, recent.values]),
        times=recent.times[np.r_[np.zeros(length, dtype=int), : len(recent)]],
    )
