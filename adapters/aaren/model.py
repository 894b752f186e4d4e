"""Aaren as a forecaster of patches, from whole contexts and from streams."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsllm.adapters.aaren.attention import AarenStack
from tsllm.adapters.aaren.patches import NORMALISATIONS, PatchUnits, RunningScale
from tsllm.adapters.aaren.soft_prompt import SoftPromptReader
from tsllm.adapters.aaren.state import AarenState, AarenStream
from tsllm.adapters.layers import (
    MonotoneQuantileHead,
    check_mirrored,
    flip_sign,
    sign_equivariant,
    to_segments,
)
from tsllm.adapters.losses import elementwise_loss

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone


#: Up to this many tokens of a stream are processed one by one: one update is then bit for bit equal
#: to several. More are processed in blocks.
STEPWISE = 16
BLOCK = 1024


class AarenModel(nn.Module):
    """Aaren over patches (Feng et al., arXiv 2405.13956, section 3, applied to forecasting).

    Each channel is a series of its own, cut into patches from its first step on. A patch is
    normalised by the observations up to its end; its values, its mask and the changes of level and
    scale since the last patch become a token. Blocks of Aaren mix each token with those before it,
    and one linear layer forecasts the horizon after each token.

    Parameters
    ----------
    backbone : Backbone, PrivateBackbone or None
        A language model that reads the last outputs of the blocks as soft tokens behind a prompt.
    patch_length : int
        Steps of a patch.
    horizon : int
        Steps that are forecast at once.
    hidden : int, default=64
        Width of a token.
    layers : int, default=2
        Number of blocks.
    heads : int, default=4
        Heads of a block.
    feedforward : int, default=128
        Width inside the feed-forward parts.
    mixer : {"aaren", "mingru", "attention", "none"}, default="aaren"
        See `AarenBlock`.
    query : {"folded", "token"}, default="folded"
        See `AarenAttention`.
    decay : bool, default=True
        See `AarenAttention`.
    normalisation : {"causal", "anchored", "window"}, default="causal"
        "causal": by running mean and deviation; "anchored": by the last value and the running
        deviation; both stream exactly. "window": by the mean and deviation of the whole context.
    half_life : int, default=512
        Steps after which a step weighs half in the running statistics.
    restart : int or None, default=None
        Tokens after which a stream is replaced by a second one, half as old: forecasts then depend
        on the last ``restart`` to ``2 * restart`` tokens. None: never.
    dropout : float, default=0.0
        Dropout in the blocks.
    quantiles : tuple of float, default=()
        Levels to forecast; empty for a point forecast.
    flip_invariance : bool, default=False
        Whether to make the model equivariant to sign flips, ``forecast(-x) == -forecast(x)``: see
        `tsllm.adapters.layers.sign_equivariant`. A stream then has two rows for each series.
    soft_prompt_length : int, default=8
        Outputs that the language model reads.
    prompt : str, default=""
        The text before them.

    See Also
    --------
    tsllm.AarenForecaster : The estimator that trains this model.

    Examples
    --------
    >>> model = AarenModel(None, patch_length=4, horizon=6).eval()
    >>> model(torch.randn(2, 24, 3)).shape
    torch.Size([2, 6, 3])
    >>> stream = model.advance(model.empty_stream(2), torch.randn(2, 1003))
    >>> model.forecast(stream, 10).shape, stream.tokens.tolist(), stream.fill.tolist()
    (torch.Size([2, 10, 1]), [250, 250], [3, 3])
    """

    def __init__(
        self,
        backbone: Backbone | PrivateBackbone | None,
        patch_length: int,
        horizon: int,
        *,
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        feedforward: int = 128,
        mixer: str = "aaren",
        query: str = "folded",
        decay: bool = True,
        normalisation: str = "causal",
        half_life: int = 512,
        restart: int | None = None,
        dropout: float = 0.0,
        quantiles: tuple[float, ...] = (),
        flip_invariance: bool = False,
        soft_prompt_length: int = 8,
        prompt: str = "",
    ) -> None:
        super().__init__()
        if normalisation not in NORMALISATIONS:
            raise ValueError(
                f"normalisation must be one of {list(NORMALISATIONS)}, got {normalisation!r}"
            )
        if patch_length < 1 or horizon < 1:
            raise ValueError(
                f"patch_length={patch_length} and horizon={horizon} must be at least 1 step"
            )
        self.patch_length, self.horizon, self.hidden = patch_length, horizon, hidden
        self.restart = restart
        self.units = PatchUnits(normalisation, forget=0.5 ** (patch_length / half_life))
        self.quantiles = tuple(quantiles)
        self.quantile_head = MonotoneQuantileHead(quantiles) if quantiles else None
        self.flip_invariance = flip_invariance
        #: Rows of a stream for each series.
        self.ways = 2 if flip_invariance else 1
        if flip_invariance:
            check_mirrored(quantiles)
        # The patch, its mask, and the changes of level and scale.
        self.token_layer = nn.Linear(2 * patch_length + 2, hidden)
        self.stack = AarenStack(
            layers,
            hidden,
            heads,
            feedforward=feedforward,
            mixer=mixer,
            query=query,
            decay=decay,
            dropout=dropout,
        )
        self.norm = nn.LayerNorm(hidden)
        # Outputs count from the first step of the token's own patch, complete or not. Counted from
        # the last observed step, each number of steps in the patch would need a head of its own.
        self.head = nn.Linear(hidden, (patch_length + horizon) * max(1, len(quantiles)))
        self.kept = 1 if backbone is None else soft_prompt_length
        self.reader = (
            None
            if backbone is None
            else SoftPromptReader(backbone, hidden, soft_prompt_length, prompt)
        )

    # ------------------------------------------------------------------ whole contexts

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        fill: Tensor | None = None,
        prefixes: bool = False,
    ) -> Tensor:
        """Forecast the steps after a context, or after each of its patches.

        Parameters
        ----------
        x : Tensor
            ``(batch, context, channels)`` in raw units; a multiple of ``patch_length`` steps.
        mask : Tensor or None, default=None
            Bool, the shape of ``x``, True where observed. None: everything is observed.
        fill : Tensor or None, default=None
            ``(batch,)``, the number of steps in the last patch. None: all.
        prefixes : bool, default=False
            Whether to forecast after each patch.

        Returns
        -------
        Tensor
            ``(batch, horizon, channels)``, and a last axis over the levels with quantiles; with
            ``prefixes`` an axis of tokens after the batch: ``(batch, tokens, horizon, channels)``.
        """
        if x.shape[1] % self.patch_length:
            raise ValueError(
                f"the context has {x.shape[1]} steps, which is no multiple of patch_length="
                f"{self.patch_length}: pad it on the left and mask the padding"
            )
        mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        read = partial(self._forecast, prefixes=prefixes)
        if not self.flip_invariance:
            return read(x, mask, fill)
        quantiles = self.quantile_head is not None
        return sign_equivariant(read, x, mask, fill, training=self.training, quantiles=quantiles)

    def _forecast(self, x: Tensor, mask: Tensor, fill: Tensor | None, *, prefixes: bool) -> Tensor:
        """Forecast from contexts as they are; see `forward`."""
        batch, _, channels = x.shape
        patches = to_segments(x, self.patch_length)  # (rows = batch * channels, tokens, length)
        seen = to_segments(mask, self.patch_length)  # (rows, tokens, length)
        present = torch.full(patches.shape[:2], self.patch_length, device=x.device)
        if fill is not None:
            present[:, -1] = fill.repeat_interleave(channels)
            places = torch.arange(self.patch_length, device=x.device)
            seen = seen & (places < present[..., None])
        features, location, scale = self.units.of_windows(x, mask, patches, seen)
        tokens = self.token_layer(features.to(self.token_layer.weight.dtype))
        elapsed = torch.ones_like(tokens[..., 0])  # (rows, tokens)
        # (rows, tokens, hidden)
        out = self.norm(self.stack(tokens, mask=seen.any(-1), elapsed=elapsed))
        if prefixes:
            out = out if self.reader is None else self.reader(out)
        else:
            location, scale, present = location[:, -1:], scale[:, -1:], present[:, -1:]
            if self.reader is None:
                out = out[:, -1:]
            else:
                counts = torch.full((len(out),), min(self.kept, out.shape[1]), device=x.device)
                out = self.reader.last(out[:, -self.kept :], counts)[:, None]
        forecast = self._decode(out, present, location.to(out.dtype), scale.to(out.dtype))
        forecast = forecast.unflatten(0, (batch, channels)).movedim(1, 3)
        # (batch, tokens, horizon, channels[, levels])
        return forecast if prefixes else forecast[:, -1]

    # ------------------------------------------------------------------ streams

    def exact(self) -> AarenModel:
        """Copy the model with float64 weights, except the language model's part, for streams.

        Forecasts then agree to some 1e-12 for any division of a history into updates.
        """
        twin = copy.copy(self)
        twin._modules = {
            name: module if name == "reader" else copy.deepcopy(module)
            for name, module in self._modules.items()
        }
        for name, module in twin._modules.items():
            if module is not None and name != "reader" and (name != "head" or self.reader is None):
                module.double()
        return twin

    def empty_stream(self, series: int) -> AarenStream:
        """Create the streams of so many series before their first step."""
        rows = series * self.ways
        weight = self.token_layer.weight
        states = self.stack.empty_states(rows)
        return AarenStream(
            layers=states,
            younger=() if self.restart is None else states,
            scale=RunningScale.empty(rows, weight.device),
            outputs=weight.new_zeros(rows, self.kept, self.hidden),
            tokens=torch.zeros(rows, dtype=torch.int64, device=weight.device),
            buffer=weight.new_full((rows, self.patch_length), torch.nan, dtype=torch.float64),
            fill=torch.zeros(rows, dtype=torch.int64, device=weight.device),
        )

    @torch.no_grad()
    def advance(
        self, stream: AarenStream, values: Tensor, lengths: Tensor | None = None
    ) -> AarenStream:
        """Update streams by further steps; time and memory do not depend on the steps before.

        Parameters
        ----------
        stream : AarenStream
            It is not changed.
        values : Tensor
            ``(series, steps)`` in raw units, NaN where not observed.
        lengths : Tensor or None, default=None
            ``(series,)``, the number of steps of each series. None: all.

        Returns
        -------
        AarenStream
            The streams after these steps.
        """
        if self.flip_invariance:
            values = torch.stack([values, -values], 1).flatten(0, 1)  # (rows * ways, steps)
            lengths = None if lengths is None else lengths.repeat_interleave(self.ways)
        rows, steps = values.shape
        if lengths is None:
            lengths = torch.full((rows,), steps, device=values.device)
        length = self.patch_length
        # The steps in the buffer, followed by the new ones without a gap.
        joined = torch.cat([stream.buffer, values.double()], 1)  # (rows, length + steps)
        joined = torch.nn.functional.pad(joined, (0, length), value=torch.nan)
        places = torch.arange(joined.shape[1], device=values.device)
        fill, total = stream.fill[:, None], (stream.fill + lengths)[:, None]
        source = torch.where(places < fill, places, places + length - fill)
        joined = joined.gather(1, source.clamp_max(joined.shape[1] - 1))
        joined = torch.where(places < total, joined, torch.nan)
        complete = torch.div(total[:, 0], length, rounding_mode="floor")  # (rows,) patches
        most = int(complete.max())
        rest = (complete * length)[:, None] + torch.arange(length, device=values.device)
        buffer = joined.gather(1, rest.clamp_max(joined.shape[1] - 1))
        patches = joined[:, : most * length].unflatten(1, (most, length)) if most else None
        stream = replace(stream, buffer=buffer, fill=total[:, 0] - complete * length)
        size = 1 if most <= STEPWISE else BLOCK
        for first in range(0, most, size):
            assert patches is not None
            block = patches[:, first : first + size]  # (rows, tokens, patch_length)
            valid = torch.arange(first, first + block.shape[1], device=values.device)
            stream = self._advance_tokens(stream, block, valid < complete[:, None])
        return stream

    @torch.no_grad()
    def forecast(
        self,
        stream: AarenStream,
        horizon: int,
        *,
        before_step: Callable[[], None] | None = None,
    ) -> Tensor:
        """Forecast after streams: (series, horizon, 1 + levels), float64, in raw units.

        The last axis holds the point forecast, then the quantiles. Beyond the model's horizon the
        point forecasts are read as observations, in a copy of the streams. ``before_step`` is
        called before each reading and may raise, to stop a long forecast.
        """
        parts = []
        for done in range(0, horizon, self.horizon):
            if before_step is not None:
                before_step()
            out = self._read_both_ways(stream).double()  # (rows, horizon of the model[, levels])
            point = out
            if self.quantile_head is not None:
                point = out[..., self.quantile_head.median]
                out = torch.cat([point[..., None], out], -1)
            else:
                out = out[..., None]
            parts.append(out)
            if done + self.horizon < horizon:
                stream = self.advance(stream, point)
        return torch.cat(parts, 1)[:, :horizon]

    def statistics(self, stream: AarenStream) -> tuple[Tensor, Tensor]:
        """Return the running deviation of series, and whether they have an observation, (series,).

        The deviation is 0 where a series is constant so far; the incomplete patch counts.
        """
        now = self.units.after(stream.scale, stream.buffer)
        return now.deviation()[:: self.ways], now.weight[:: self.ways] > 0

    def _read_both_ways(self, stream: AarenStream) -> Tensor:
        """Forecast the model's horizon, (series, horizon[, levels]), averaged over both signs."""
        out = self._read(stream)
        if not self.flip_invariance:
            return out
        flipped = flip_sign(out[1::2], quantiles=self.quantile_head is not None)
        return (out[::2] + flipped) / 2

    def _read(self, stream: AarenStream) -> Tensor:
        """Forecast the model's horizon, (rows, horizon[, levels]); an incomplete patch counts."""
        begun = stream.fill > 0  # (rows,)
        if bool(begun.any()):
            stream = self._advance_tokens(stream, stream.buffer[:, None], begun[:, None])
        location, scale = self.units.location(stream.scale), stream.scale.deviation()
        out = stream.outputs  # (rows, kept, hidden)
        if self.reader is None:
            out = out[:, -1]
        else:
            counts = stream.tokens.clamp_max(self.kept)
            out = self.reader.last(out.to(self.reader.in_layer.weight.dtype), counts)
        present = torch.where(begun, stream.fill, self.patch_length)
        return self._decode(out[:, None], present[:, None], location[:, None], scale[:, None])[:, 0]

    def _advance_tokens(self, stream: AarenStream, patches: Tensor, valid: Tensor) -> AarenStream:
        """Update streams by patches (rows, tokens, patch_length), those that are ``valid``."""
        seen = ~patches.isnan() & valid[..., None]
        read, scale = self.units.of_stream(stream.scale, patches, seen)
        x = self.token_layer(read.features.to(self.token_layer.weight.dtype))
        x, layers, younger = self._extend(stream, x, seen.any(-1), valid)
        outputs = torch.cat([stream.outputs, self.norm(x)], 1)  # (rows, kept + tokens, hidden)
        new = valid.sum(1)
        last = new[:, None] + torch.arange(self.kept, device=x.device)
        outputs = outputs.gather(1, last[..., None].expand(-1, -1, self.hidden))
        return replace(
            stream,
            layers=layers,
            younger=younger,
            scale=scale,
            outputs=outputs,
            tokens=stream.tokens + new,
        )

    def _extend(
        self, stream: AarenStream, x: Tensor, seen: Tensor, valid: Tensor
    ) -> tuple[Tensor, tuple[AarenState, ...], tuple[AarenState, ...]]:
        """Run the blocks over tokens (rows, tokens, hidden), and restart streams where due."""
        if self.restart is None:
            x, layers = self._extend_plainly(stream.layers, x, seen, valid)
            return x, layers, ()
        older, younger, age = stream.layers, stream.younger, stream.tokens
        empty, parts, done = self.stack.empty_states(len(x)), [], 0
        while done < x.shape[1]:
            due = (age > 0) & (age % self.restart == 0) & valid[:, done]
            older = tuple(y.where(due, o) for o, y in zip(older, younger))
            younger = tuple(e.where(due, y) for e, y in zip(empty, younger))
            # Up to the next restart of any row.
            piece = slice(done, done + int((self.restart - age % self.restart).min()))
            out, older = self._extend_plainly(older, x[:, piece], seen[:, piece], valid[:, piece])
            _, younger = self._extend_plainly(younger, x[:, piece], seen[:, piece], valid[:, piece])
            parts.append(out)
            age = age + valid[:, piece].sum(1)
            done += out.shape[1]
        return torch.cat(parts, 1), older, younger

    def _extend_plainly(
        self, states: tuple[AarenState, ...], x: Tensor, seen: Tensor, valid: Tensor
    ) -> tuple[Tensor, tuple[AarenState, ...]]:
        """Run the blocks over tokens (rows, tokens, hidden) without a restart."""
        if x.shape[1] > 1:
            return self.stack.extend(states, x, mask=seen, elapsed=valid)
        y, states = self.stack.step(states, x[:, 0], mask=seen[:, 0], elapsed=valid[:, 0])
        return y[:, None], states

    # ------------------------------------------------------------------ the head

    def _decode(self, out: Tensor, present: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        """Forecast from outputs (rows, tokens, hidden): (rows, tokens, horizon[, levels]).

        ``present`` (rows, tokens) is the number of steps in each token's patch.
        """
        raw = self.head(out).unflatten(-1, (self.patch_length + self.horizon, -1))
        ahead = present[..., None] + torch.arange(self.horizon, device=out.device)
        raw = raw.gather(2, ahead[..., None].expand(-1, -1, -1, raw.shape[-1])).flatten(-2)
        if self.quantile_head is None:
            return raw * scale[..., None] + location[..., None]
        levels = self.quantile_head(raw)  # (rows, tokens, horizon, levels)
        return levels * scale[..., None, None] + location[..., None, None]


def prefix_loss(
    model: AarenModel,
    values: Tensor,
    mask: Tensor,
    *,
    loss: str,
    fill: Tensor,
    last_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Compute the loss of the forecasts after all patches of some windows.

    Parameters
    ----------
    model : AarenModel
        The model; its quantile levels are those of the loss.
    values : Tensor
        ``(batch, context + horizon, 1)`` in raw units.
    mask : Tensor
        Bool, the shape of ``values``, True where observed.
    loss : {"mse", "mae", "huber", "quantile"}
        See `elementwise_loss`.
    fill : Tensor
        ``(batch,)``, the number of steps of the last patch that are visible, at least 1, so that
        the model also learns from incomplete patches. A window without any other observation keeps
        the whole patch.
    last_weight : float, default=1.0
        Weight of the forecast after the last patch; the others have weight 1.

    Returns
    -------
    total : Tensor
        Scalar, the weighted sum over the observed targets with an observation before them.
    count : Tensor
        Scalar, the sum of their weights.

    Examples
    --------
    >>> values = torch.randn(2, 12 + 6, 1)
    >>> model = AarenModel(None, patch_length=4, horizon=6)
    >>> mask, fill = values.isfinite(), torch.tensor([4, 2])
    >>> total, count = prefix_loss(model, values, mask, loss="mse", fill=fill)
    >>> count
    tensor(36.)
    """
    length, horizon = model.patch_length, model.horizon
    context = values.shape[1] - horizon
    tokens = context // length
    steps = torch.arange(context, device=values.device)
    seen = mask[:, :context, 0] & (steps < context - length + fill[:, None])  # (batch, context)
    fill = torch.where(seen.any(1), fill, length)
    forecast = model(values[:, :context], mask=mask[:, :context], fill=fill, prefixes=True)
    forecast = forecast[:, :, :, 0]  # (batch, tokens, horizon[, levels])
    # The first step after each prefix, at which its forecast begins.
    ends = torch.arange(1, tokens + 1, device=values.device) * length
    ends = ends.expand(len(values), -1).clone()  # (batch, tokens)
    ends[:, -1] += fill - length
    rows = torch.arange(len(values), device=values.device)[:, None]
    target = values[..., 0].unfold(1, horizon, 1)[rows, ends]  # (batch, tokens, horizon)
    counted = mask[..., 0].unfold(1, horizon, 1)[rows, ends]
    # Without any observation before it, a target does not count.
    known = mask[..., 0].cumsum(1)[rows, ends - 1] > 0  # (batch, tokens)
    counted = counted & known[..., None]
    weights = torch.ones(tokens, device=values.device)
    weights[-1] = last_weight
    weighted = torch.where(counted, weights[:, None], 0.0)
    errors = elementwise_loss(loss, forecast, target, model.quantiles)
    return (torch.where(counted, errors, 0.0) * weighted).sum(), weighted.sum()
