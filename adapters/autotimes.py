"""AutoTimes: a frozen language model continues a series whose segments are its tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.layers import (
    MonotoneQuantileHead,
    build_token_layer,
    check_mask,
    check_mirrored,
    from_segments,
    instance_normalise,
    sign_equivariant,
    to_segments,
)

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone

#: The keys of the authors' checkpoints: what they train, and the LLM's own weights.
_OFFICIAL_KEY = re.compile(r"add_scale|(encoder|decoder)\.(layers\.\d+\.)?(weight|bias)")
_OFFICIAL_LLM_PREFIXES = ("gpt2.", "llama.", "opt.", "model.")


class AutoTimesModel(nn.Module):
    """AutoTimes (Liu et al., NeurIPS 2024, arXiv 2402.02370, sections 3.1 and 3.2).

    Each channel is a sample of its own. Its window is normalised by its own statistics and cut into
    segments. Each segment becomes one token of the LLM, and each output token is projected to the
    forecast of the next segment. Only the two projections (and the scale of the timestamps) are
    trained, in float32.

    Parameters
    ----------
    backbone : Backbone, PrivateBackbone or None
        The LLM. A plain `Backbone` is a handle: ``parameters()`` and ``state_dict()`` do not
        contain its weights. A `PrivateBackbone` is a submodule with the weights that it trains.
        None leaves the LLM out: each forecast then depends on one segment only.
    token_length : int
        Steps of a segment.
    mlp_layers : int, default=0
        Linear layers in the MLP of each projection; 0 for linear projections.
    mlp_hidden : int, default=256
        Width inside the MLPs.
    dropout : float, default=0.0
        Dropout in the MLPs, after each activation; with linear projections, on the tokens.
    activation : {"tanh", "relu", "gelu"}, default="tanh"
        Activation of the MLPs.
    mix_timestamps : bool, default=False
        Whether to add timestamp embeddings to the tokens (the paper's position embedding).
    quantiles : tuple of float, default=()
        Levels to forecast, strictly increasing; empty for a point forecast.
    flip_invariance : bool, default=False
        Whether to make the model equivariant to sign flips, ``forecast(-x) == -forecast(x)``: see
        `tsllm.adapters.layers.sign_equivariant`. Not part of the paper.
    width : int, default=384
        Token width when ``backbone`` is None; otherwise the backbone's width is used.

    Raises
    ------
    ValueError
        For a ``token_length`` below 1, one MLP layer, an unknown activation, invalid levels, or
        levels that are not symmetric around 0.5 with ``flip_invariance``.

    See Also
    --------
    tsllm.AutoTimesForecaster : The estimator that trains this model.

    Examples
    --------
    >>> model = AutoTimesModel(None, token_length=4, width=8)
    >>> x = torch.randn(2, 12, 3)
    >>> model(x).shape, model.rollout(x, horizon=10).shape
    (torch.Size([2, 12, 3]), torch.Size([2, 10, 3]))
    """

    def __init__(
        self,
        backbone: Backbone | PrivateBackbone | None,
        token_length: int,
        *,
        mlp_layers: int = 0,
        mlp_hidden: int = 256,
        dropout: float = 0.0,
        activation: str = "tanh",
        mix_timestamps: bool = False,
        quantiles: tuple[float, ...] = (),
        flip_invariance: bool = False,
        width: int = 384,
    ) -> None:
        super().__init__()
        if token_length < 1:
            raise ValueError(f"token_length must be at least 1 step, got {token_length}")
        self.backbone = backbone
        self.token_length = token_length
        self.width = width if backbone is None else backbone.hidden_size
        self.mix_timestamps = mix_timestamps
        self.quantiles = tuple(quantiles)
        self.quantile_head = MonotoneQuantileHead(quantiles) if quantiles else None
        self.flip_invariance = flip_invariance
        if flip_invariance:
            check_mirrored(self.quantiles)
        if mix_timestamps:
            self.add_scale = nn.Parameter(torch.ones(()))
        mlp: dict[str, Any] = {
            "mlp_layers": mlp_layers,
            "mlp_hidden": mlp_hidden,
            "dropout": dropout,
            "activation": activation,
        }
        self.encoder = build_token_layer(token_length, self.width, **mlp)
        self.decoder = build_token_layer(self.width, token_length * max(1, len(quantiles)), **mlp)
        self.token_dropout = nn.Dropout(dropout if mlp_layers == 0 else 0.0)

    @classmethod
    def from_official(
        cls,
        state_dict: Mapping[str, Tensor],
        backbone: Backbone | PrivateBackbone | None,
        *,
        activation: str = "tanh",
    ) -> AutoTimesModel:
        """Load a state dict of the authors' code; the outputs equal theirs to 1e-5.

        Token length, number and width of the MLP layers and the use of timestamps are read from the
        shapes. The LLM's weights in the state dict are ignored: ``backbone`` is used.

        Parameters
        ----------
        state_dict : mapping of str to Tensor
            ``encoder.*``, ``decoder.*`` and, with timestamps, ``add_scale``; a leading ``module.``
            (distributed training) is removed.
        backbone : Backbone, PrivateBackbone or None
            The LLM that the checkpoint was trained with.
        activation : {"tanh", "relu", "gelu"}, default="tanh"
            Activation of the MLPs, which no shape shows; the authors' scripts use tanh.

        Returns
        -------
        AutoTimesModel
            In training mode, like any new module.

        Raises
        ------
        ValueError
            For keys that are unknown, missing or of the wrong shape, and when the checkpoint's
            width is not the backbone's.
        """
        trained, weights = _encoder_and_decoder(state_dict)
        token_length, width = weights[0].shape[1], weights[-1].shape[0]
        if backbone is not None and backbone.hidden_size != width:
            raise ValueError(
                f"the checkpoint's tokens have width {width}, but backbone has hidden_size "
                f"{backbone.hidden_size}; load the LLM that the checkpoint was trained with"
            )
        model = cls(
            backbone,
            token_length,
            mlp_layers=0 if "encoder.weight" in trained else len(weights),
            mlp_hidden=weights[0].shape[0],
            activation=activation,
            mix_timestamps="add_scale" in trained,
            width=width,
        )
        _check_fit(trained, model)
        model.load_state_dict(trained, strict=False)  # a PrivateBackbone has weights of its own
        return model

    def forward(
        self, x: Tensor, timestamps: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Forecast the segment after each segment of the context.

        Masked steps are left out of the statistics and are zero in normalised space. The LLM does
        not attend to tokens without any observed step, except the last one, from which the forecast
        is made. The forecasts of hidden tokens are finite and have no meaning.

        Parameters
        ----------
        x : Tensor
            Context in raw units, ``(batch, context, channels)``; ``context`` is a multiple of
            ``token_length``.
        timestamps : Tensor or None, default=None
            Embeddings of the segments' timestamps, ``(batch * channels, tokens, width)``, channels
            fastest. Required exactly when the model mixes timestamps.
        mask : Tensor or None, default=None
            Bool, the shape of ``x``, True where observed. None: everything is observed.

        Returns
        -------
        Tensor
            ``(batch, context, channels)``, with quantiles ``(batch, context, channels, levels)``,
            in raw units: step t is the forecast of step t + token_length.
        """
        mask = self._checked_mask(x, mask)
        self._check_timestamps(timestamps, x, steps=1)
        return self._forecast(x, timestamps, mask)

    @torch.no_grad()
    def rollout(
        self,
        x: Tensor,
        horizon: int,
        timestamps: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        mode: str = "sliding",
    ) -> Tensor:
        """Forecast any horizon by feeding forecasts back as context (paper, section 3.2).

        With quantiles, the forecast of the median level is fed back: levels after the first segment
        are conditional on it and need calibration to serve as intervals.

        Parameters
        ----------
        x : Tensor
            Context in raw units, ``(batch, context, channels)``.
        horizon : int
            Steps to forecast.
        timestamps : Tensor or None, default=None
            ``(batch * channels, tokens + steps - 1, width)`` with ``steps = ceil(horizon /
            token_length)``: the segments of the context, then those that are forecast.
        mask : Tensor or None, default=None
            Bool, the shape of ``x``, True where observed.
        mode : {"sliding", "cached"}, default="sliding"
            "sliding", as published: each forecast replaces the oldest segment, and the new context
            is normalised and read from the start. "cached": the statistics of the observed context
            are kept, and each forecast adds one token to the LLM's key-value cache.

        Returns
        -------
        Tensor
            ``(batch, horizon, channels)``, with quantiles ``(batch, horizon, channels, levels)``.
        """
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1 step, got {horizon}")
        modes = {"sliding": self._roll_sliding, "cached": self._roll_cached}
        if mode not in modes:
            raise ValueError(f"mode must be one of {list(modes)}, got {mode!r}")
        mask = self._checked_mask(x, mask)
        steps = -(-horizon // self.token_length)
        self._check_timestamps(timestamps, x, steps)
        return modes[mode](x, steps, timestamps, mask)[:, :horizon]

    def _roll_sliding(
        self, x: Tensor, steps: int, timestamps: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Forecast `steps` segments, each from a context of the same length."""
        n_tokens = x.shape[1] // self.token_length
        forecasts = []
        for step in range(steps):
            dates = None if timestamps is None else timestamps[:, step : step + n_tokens]
            forecast = self._forecast(x, dates, mask, last_only=True)  # (batch, S, channels, ...)
            forecasts.append(forecast)
            path = self._path(forecast)  # (batch, S, channels)
            x = torch.cat([x[:, self.token_length :], path], dim=1)
            if mask is not None:
                observed = torch.ones_like(path, dtype=torch.bool)
                mask = torch.cat([mask[:, self.token_length :], observed], dim=1)
        return torch.cat(forecasts, dim=1)

    def _roll_cached(
        self, x: Tensor, steps: int, timestamps: Tensor | None, mask: Tensor | None
    ) -> Tensor:
        """Forecast `steps` segments, each of which adds one token to the LLM's cache."""
        n_tokens = x.shape[1] // self.token_length
        values, mean, std = instance_normalise(x, mask)
        segments = to_segments(values, self.token_length)  # (batch * channels, tokens, S)
        dates = None if timestamps is None else timestamps[:, :n_tokens]
        attended = self._attended(mask)
        past: Any = None
        forecasts: list[Tensor] = []
        for step in range(steps):
            if step > 0:
                segments = self._path(forecasts[-1])  # (batch * channels, 1, S)
                if timestamps is not None:
                    dates = timestamps[:, n_tokens + step - 1 : n_tokens + step]
                if attended is not None:
                    attended = functional.pad(attended, (0, 1), value=True)
            decoded, past = self._next_segments(
                segments, dates, attended, past, last_only=True, use_cache=steps > 1
            )
            forecasts.append(decoded)  # (batch * channels, 1, S, ...)
        forecast = from_segments(torch.cat(forecasts, dim=1), x.shape[2])
        return self._denormalise(forecast, mean, std)

    def _forecast(
        self, x: Tensor, timestamps: Tensor | None, mask: Tensor | None, *, last_only: bool = False
    ) -> Tensor:
        """Forecast the segments after all tokens, or after the last one only."""
        values, mean, std = instance_normalise(x, mask)  # (batch, context, channels)
        segments = to_segments(values, self.token_length)  # (batch * channels, tokens, S)
        decoded, _ = self._next_segments(
            segments, timestamps, self._attended(mask), last_only=last_only
        )
        forecast = from_segments(decoded, x.shape[2])  # (batch, time, channels, ...)
        return self._denormalise(forecast, mean, std)

    def _next_segments(
        self,
        segments: Tensor,
        timestamps: Tensor | None,
        attended: Tensor | None,
        past: Any = None,
        *,
        last_only: bool = False,
        use_cache: bool = False,
    ) -> tuple[Tensor, Any]:
        """Forecast the segment after each, and return the LLM's cache.

        With flip invariance the cache holds the samples and the samples of opposite sign.
        """

        def read(segments: Tensor, timestamps: Tensor | None, attended: Tensor | None) -> Tensor:
            nonlocal past
            tokens = self.token_dropout(self.encoder(segments))  # (samples, tokens, width)
            if timestamps is not None:
                # normalize() divides by the norm itself wherever that is above 1e-12.
                tokens = functional.normalize(tokens, dim=-1, eps=1e-12)
                timestamps = functional.normalize(timestamps.to(tokens.dtype), dim=-1, eps=1e-12)
                tokens = tokens + self.add_scale * timestamps
            if self.backbone is not None:
                hidden = self.backbone.hidden(
                    tokens,
                    past,
                    attention_mask=attended,
                    use_cache=use_cache,
                    last_only=last_only,
                )
                tokens, past = hidden.states, hidden.past  # (samples, tokens or 1, width)
            elif last_only:
                tokens = tokens[:, -1:]
            raw: Tensor = self.decoder(tokens)  # (samples, tokens, S * max(1, levels))
            return raw if self.quantile_head is None else self.quantile_head(raw)

        if not self.flip_invariance:
            return read(segments, timestamps, attended), past
        decoded = sign_equivariant(
            read,
            segments,
            timestamps,
            attended,
            training=self.training,
            quantiles=self.quantile_head is not None,
        )  # (samples, tokens, S[, levels])
        return decoded, past

    def _path(self, forecast: Tensor) -> Tensor:
        """Return the forecast that is fed back: the point forecast or the median level."""
        return forecast if self.quantile_head is None else forecast[..., self.quantile_head.median]

    def _denormalise(self, forecast: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Convert a forecast (batch, time, channels[, levels]) to raw units."""
        if self.quantile_head is not None:
            mean, std = mean.unsqueeze(-1), std.unsqueeze(-1)  # (batch, 1, channels, 1)
        return forecast * std + mean

    def _attended(self, mask: Tensor | None) -> Tensor | None:
        """Return which tokens the LLM attends to, (batch * channels, tokens); None for all."""
        if mask is None:
            return None
        attended = to_segments(mask, self.token_length).any(-1)
        # The forecast is made from the last token, so the LLM has to attend to it.
        attended[:, -1] = True
        return None if bool(attended.all()) else attended

    def _checked_mask(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """Check a context and its mask, and return None for a mask that hides nothing."""
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[1] % self.token_length:
            raise ValueError(
                "x must be (batch, context, channels) with a context that is a multiple of "
                f"token_length={self.token_length} steps, got shape {tuple(x.shape)}; "
                "pad the context on the left and mask the padding"
            )
        return check_mask(x, mask)

    def _check_timestamps(self, timestamps: Tensor | None, x: Tensor, steps: int) -> None:
        """Check that timestamps are given exactly when they are mixed, in the right shape."""
        if (timestamps is not None) != self.mix_timestamps:
            raise ValueError(
                f"the model was built with mix_timestamps={self.mix_timestamps}, but timestamps "
                f"{'are missing' if timestamps is None else 'were given'}"
            )
        n_tokens = x.shape[1] // self.token_length + steps - 1
        expected = (x.shape[0] * x.shape[2], n_tokens, self.width)
        if timestamps is not None and tuple(timestamps.shape) != expected:
            raise ValueError(
                "timestamps must be (batch * channels, tokens, width) = "
                f"{expected}, got {tuple(timestamps.shape)}"
            )


def _encoder_and_decoder(
    state_dict: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Return the trained tensors by name, and the encoder's weights from first to last."""
    named = {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}
    trained = {key: tensor for key, tensor in named.items() if _OFFICIAL_KEY.fullmatch(key)}
    unknown = [
        key for key in named if key not in trained and not key.startswith(_OFFICIAL_LLM_PREFIXES)
    ]
    if unknown:
        raise ValueError(
            f"state_dict holds keys that AutoTimes does not know: {sorted(unknown)}; known "
            f"are encoder.*, decoder.*, add_scale and the LLM's, {_OFFICIAL_LLM_PREFIXES}"
        )
    # By length first: encoder.layers.12.weight comes after encoder.layers.9.weight.
    names = sorted(trained, key=lambda key: (len(key), key))
    weights = [trained[key] for key in names if re.fullmatch(r"encoder\..*weight", key)]
    if not weights:
        raise ValueError(f"state_dict has no weights of the encoder; its keys: {sorted(named)}")
    return trained, weights


def _check_fit(trained: Mapping[str, Tensor], model: nn.Module) -> None:
    """Check that tensors are the model's own in name and shape, the LLM's left out."""
    state = model.state_dict()
    expected = {key: state[key].shape for key in state if not key.startswith("backbone.")}
    given = {key: tensor.shape for key, tensor in trained.items()}
    wrong = {key for key in given | expected if given.get(key) != expected.get(key)}
    if wrong:
        details = [f"{key} {given.get(key)}, not {expected.get(key)}" for key in sorted(wrong)]
        raise ValueError(f"state_dict's tensors do not fit together: {'; '.join(details)}")
