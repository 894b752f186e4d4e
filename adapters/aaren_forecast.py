"""Aaren as a forecaster: patches in, all horizons out, from every prefix and from a stream."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tsllm.adapters.aaren import AarenStack
from tsllm.adapters.aaren_state import AarenState
from tsllm.adapters.aaren_stream import AarenStream, RunningScale
from tsllm.adapters.layers import MonotoneQuantileHead, instance_normalise
from tsllm.adapters.losses import elementwise_loss
from tsllm.adapters.soft_tokens import SoftTokenReader

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone

NORMALISATIONS = ("causal", "anchored", "window")
#: So many tokens of a stream go one by one, so that an update at once is bit for bit what single
#: updates are; more go in blocks.
STEPWISE = 16
BLOCK = 1024


class AarenModel(nn.Module):
    """Forecast with Aaren over patches (Feng et al., arXiv 2405.13956, applied to forecasting).

    Every channel is a series of its own. It is cut into patches from its first step on; a patch,
    normalised by what was seen up to its end, becomes a token, with which of its steps were
    observed and how level and scale have moved since the last patch. Blocks of Aaren mix each
    token with those before it, and one linear layer forecasts the horizon after every token.

    Parameters
    ----------
    backbone : Backbone, PrivateBackbone or None
        A language model that reads the last outputs of the blocks as soft tokens behind a prompt.
    patch_length, horizon : int
        Steps of a patch, and steps that are forecast at once.
    hidden, layers, heads, feedforward : int
        Width of a token, blocks, heads, width inside the feed-forward parts.
    mixer, query, decay
        See `AarenBlock`.
    normalisation : {"causal", "anchored", "window"}
        "causal": by running mean and deviation; "anchored": by the last value and the running
        deviation; both stream exactly. "window": by the mean and deviation of the whole context.
    half_life : int
        Steps after which a step weighs half in the running statistics.
    restart : int, optional
        Tokens after which a stream starts over, with a second one half as old to take its place:
        forecasts then read the last ``restart`` to ``2 * restart`` tokens. None: never.
    dropout : float
        In the blocks.
    quantiles : tuple of float
        Levels to forecast; empty for a point forecast.
    soft_tokens : int
        Outputs that the language model reads.
    prompt : str
        The text that it reads before them.

    Raises
    ------
    ValueError
        Sizes that do not fit, or an unknown name.

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
        soft_tokens: int = 8,
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
        self.normalisation, self.restart = normalisation, restart
        self.forget = 0.5 ** (patch_length / half_life)
        self.quantiles = tuple(quantiles)
        self.quantile_head = MonotoneQuantileHead(quantiles) if quantiles else None
        # The patch, which of it was observed, the moves of level and scale.
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
        # From the first step of its own patch on, complete or not: were forecasts counted from the
        # last step seen, a patch of each length would need a head of its own.
        self.head = nn.Linear(hidden, (patch_length + horizon) * max(1, len(quantiles)))
        self.kept = 1 if backbone is None else soft_tokens
        self.reader = (
            None if backbone is None else SoftTokenReader(backbone, hidden, soft_tokens, prompt)
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
        mask : Tensor, optional
            Bool, the shape of ``x``, True where observed. None: everything is.
        fill : Tensor, optional
            ``(batch,)``, how many steps of the last patch there are. None: all.
        prefixes : bool
            Whether to forecast after every patch.

        Returns
        -------
        Tensor
            ``(batch, horizon, channels)``, and a last axis over the levels with quantiles; with
            ``prefixes`` the tokens after the batch: ``(batch, tokens, horizon, channels)``.
        """
        batch, context, channels = x.shape
        if context % self.patch_length:
            raise ValueError(
                f"the context has {context} steps, which is no multiple of patch_length="
                f"{self.patch_length}: pad it on the left and mask the padding"
            )
        mask = torch.ones_like(x, dtype=torch.bool) if mask is None else mask
        patches = self._patches(x)  # (batch * channels, tokens, patch_length)
        seen = self._patches(mask)
        if fill is not None:
            places = torch.arange(self.patch_length, device=x.device)
            there = places < fill.repeat_interleave(channels)[:, None]
            seen = torch.cat([seen[:, :-1], (seen[:, -1] & there)[:, None]], 1)
        if self.normalisation == "window":
            _, mean, std = instance_normalise(x, mask)  # (batch, 1, channels)
            location = mean.mT.flatten(0, 1).expand(-1, patches.shape[1])
            scale = std.mT.flatten(0, 1).expand_as(location)
            features = self._features(patches, seen, location, scale, location, scale)
        else:
            start = RunningScale.empty(len(patches), x.device)
            features, location, scale, _ = self._normalised(start, patches.double(), seen)
        tokens = self.token_layer(features.to(self.token_layer.weight.dtype))
        elapsed = torch.ones_like(tokens[..., 0])
        out = self.norm(self.stack(tokens, mask=seen.any(-1), elapsed=elapsed))
        if not prefixes and self.reader is None:
            out, location, scale = out[:, -1:], location[:, -1:], scale[:, -1:]
        if self.reader is not None:
            if prefixes:
                out = self.reader(out)
            else:
                counts = torch.full((len(out),), min(self.kept, out.shape[1]), device=x.device)
                out = self.reader.last(out[:, -self.kept :], counts)[:, None]
                location, scale = location[:, -1:], scale[:, -1:]
        there = torch.full(out.shape[:2], self.patch_length, device=x.device)  # (rows, tokens)
        if fill is not None:
            there[:, -1] = fill.repeat_interleave(channels)
        forecast = self._decode(out, there, location.to(out.dtype), scale.to(out.dtype))
        forecast = forecast.unflatten(0, (batch, channels)).movedim(1, 3)
        # (batch, tokens, horizon, channels[, levels])
        return forecast if prefixes else forecast[:, -1]

    def loss(
        self,
        model: nn.Module,
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
        model : nn.Module
            This module, or a wrapper around it.
        values, mask : Tensor
            ``(batch, context + horizon, 1)``.
        loss : str
            See `elementwise_loss`.
        fill : Tensor
            ``(batch,)``, how many steps of the last patch are seen: so forecasts from incomplete
            patches are learnt too.
        last_weight : float
            What the forecast after the last patch counts.

        Returns
        -------
        total, count : Tensor
            The weighted sum over the targets that count, and the sum of their weights.
        """
        context = values.shape[1] - self.horizon
        tokens = context // self.patch_length
        # A series that begins in what would be cut away keeps it.
        left = mask[:, : context - self.patch_length, 0].any(1)
        places = torch.arange(self.patch_length, device=values.device)
        left |= (mask[:, context - self.patch_length : context, 0] & (places < fill[:, None])).any(
            1
        )
        fill = torch.where(left, fill, self.patch_length)
        forecast = model(values[:, :context], mask=mask[:, :context], fill=fill, prefixes=True)
        forecast = forecast[:, :, :, 0]  # (batch, tokens, horizon[, levels])
        ends = torch.arange(1, tokens + 1, device=values.device) * self.patch_length
        ends = ends.expand(len(values), -1).clone()  # (batch, tokens)
        ends[:, -1] += fill - self.patch_length
        rows = torch.arange(len(values), device=values.device)[:, None]
        target = values[..., 0].unfold(1, self.horizon, 1)[rows, ends]  # (batch, tokens, horizon)
        counted = mask[..., 0].unfold(1, self.horizon, 1)[rows, ends]
        # Where nothing has been observed yet there is nothing to forecast from.
        known = mask[..., 0].cumsum(1)[rows, ends - 1] > 0  # (batch, tokens)
        counted = counted & known[..., None]
        weights = torch.ones(tokens, device=values.device)
        weights[-1] = last_weight
        weighted = torch.where(counted, weights[:, None], 0.0)
        errors = elementwise_loss(loss, forecast, target, self.quantiles)
        return (torch.where(counted, errors, 0.0) * weighted).sum(), weighted.sum()

    # ------------------------------------------------------------------ streams

    def exact(self) -> AarenModel:
        """Copy the model with float64 weights, but for the language model's part, for streams.

        However a history was cut into updates, its forecasts then agree to some 1e-12.
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

    def empty_stream(self, rows: int) -> AarenStream:
        """Make streams before their first step."""
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
        """Take in further steps, in time and memory that do not depend on those before.

        Parameters
        ----------
        stream : AarenStream
            It is left as it is.
        values : Tensor
            ``(rows, steps)`` in raw units, NaN where not observed.
        lengths : Tensor, optional
            ``(rows,)``, how many of the steps each row has. None: all.
        """
        rows, steps = values.shape
        if lengths is None:
            lengths = torch.full((rows,), steps, device=values.device)
        length = self.patch_length
        # The steps that wait in the buffer, then the new ones, without the room between them.
        joined = torch.cat([stream.buffer, values.double()], 1)  # (rows, length + steps)
        joined = torch.nn.functional.pad(joined, (0, length), value=torch.nan)
        places = torch.arange(joined.shape[1], device=values.device)
        fill, total = stream.fill[:, None], (stream.fill + lengths)[:, None]
        source = torch.where(places < fill, places, places + length - fill)
        joined = joined.gather(1, source.clamp_max(joined.shape[1] - 1))
        joined = torch.where(places < total, joined, torch.nan)
        complete = torch.div(total[:, 0], length, rounding_mode="floor")  # (rows,)
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
    def forecast(self, stream: AarenStream, horizon: int) -> Tensor:
        """Forecast after streams: (rows, horizon, 1 + levels), float64, in raw units.

        The first of the last axis is the point forecast. Beyond the model's horizon its own point
        forecasts are taken for observations, in a copy of the streams.
        """
        parts = []
        for done in range(0, horizon, self.horizon):
            out = self._read(stream).double()  # (rows, horizon of the model[, levels])
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

    def spread(self, stream: AarenStream) -> Tensor:
        """Give the running deviation of streams, (rows,); 0 where they are constant so far."""
        return self._scale_now(stream).scale()

    def observed(self, stream: AarenStream) -> Tensor:
        """Tell of which streams anything was observed, (rows,)."""
        return self._scale_now(stream).weight > 0

    def _scale_now(self, stream: AarenStream) -> RunningScale:
        """Take the incomplete patch into the statistics."""
        patch = stream.buffer[:, None]  # (rows, 1, patch_length)
        running, _ = stream.scale.over(patch, ~patch.isnan(), self.forget)
        return RunningScale(*(part[:, -1] for part in running))

    def _read(self, stream: AarenStream) -> Tensor:
        """Forecast the model's horizon; the incomplete patch is one more token."""
        begun = stream.fill > 0  # (rows,)
        if bool(begun.any()):
            stream = self._advance_tokens(stream, stream.buffer[:, None], begun[:, None])
        location, scale = self._location(stream.scale), stream.scale.scale()
        out = stream.outputs  # (rows, kept, hidden)
        if self.reader is None:
            out = out[:, -1]
        else:
            counts = stream.tokens.clamp_max(self.kept)
            out = self.reader.last(out.to(self.reader.in_layer.weight.dtype), counts)
        there = torch.where(begun, stream.fill, self.patch_length)
        return self._decode(out[:, None], there[:, None], location[:, None], scale[:, None])[:, 0]

    def _advance_tokens(self, stream: AarenStream, patches: Tensor, valid: Tensor) -> AarenStream:
        """Take in complete patches (rows, tokens, patch_length), of which rows have the first."""
        seen = ~patches.isnan() & valid[..., None]
        features, _, _, scale = self._normalised(stream.scale, patches, seen)
        x = self.token_layer(features.to(self.token_layer.weight.dtype))
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
        """Run the blocks over tokens (rows, tokens, hidden), and start over where that is due."""
        if self.restart is None:
            x, layers = self._extend_plainly(stream.layers, x, seen, valid)
            return x, layers, ()
        older, younger, age = stream.layers, stream.younger, stream.tokens
        empty, parts, done = self.stack.empty_states(len(x)), [], 0
        while done < x.shape[1]:
            due = (age > 0) & (age % self.restart == 0) & valid[:, done]
            older = tuple(y.where(due, o) for o, y in zip(older, younger))
            younger = tuple(e.where(due, y) for e, y in zip(empty, younger))
            # Up to where the next row starts over.
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
        if x.shape[1] > 1:
            return self.stack.extend(states, x, mask=seen, elapsed=valid)
        y, states = self.stack.step(states, x[:, 0], mask=seen[:, 0], elapsed=valid[:, 0])
        return y[:, None], states

    # ------------------------------------------------------------------ patches and units

    def _patches(self, x: Tensor) -> Tensor:
        """Cut (batch, time, channels) into (batch * channels, tokens, patch_length)."""
        return x.mT.flatten(0, 1).unflatten(1, (-1, self.patch_length))

    def _normalised(
        self, start: RunningScale, patches: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, RunningScale]:
        """Give features, locations and scales of patches, and the statistics after them."""
        running, known = start.over(patches, seen, self.forget)  # each (rows, tokens)
        location, scale = self._location(running), running.scale()
        before = RunningScale(
            *(torch.cat([old[:, None], new[:, :-1]], 1) for old, new in zip(start, running))
        )
        old_location = torch.where(known, self._location(before), location)
        old_scale = torch.where(known, before.scale(), scale)
        features = self._features(patches, seen, location, scale, old_location, old_scale)
        return features, location, scale, RunningScale(*(part[:, -1] for part in running))

    def _features(
        self,
        patches: Tensor,
        seen: Tensor,
        location: Tensor,
        scale: Tensor,
        old_location: Tensor,
        old_scale: Tensor,
    ) -> Tensor:
        """Describe patches in their own units: (rows, tokens, 2 * patch_length + 2)."""
        divisor = torch.where(scale > 0, scale, 1.0)
        values = torch.where(seen, patches - location[..., None], 0.0) / divisor[..., None]
        moved = (location - old_location) / divisor
        grown = torch.where(old_scale > 0, divisor / old_scale, 1.0).log()
        return torch.cat([values, seen.to(values.dtype), moved[..., None], grown[..., None]], -1)

    def _location(self, running: RunningScale) -> Tensor:
        # A series that has been constant is forecast as its value, to the last bit.
        if self.normalisation == "anchored":
            return running.last
        return torch.where(running.scale() > 0, running.mean, running.last)

    def _decode(self, out: Tensor, fill: Tensor, location: Tensor, scale: Tensor) -> Tensor:
        """Forecast from outputs (rows, tokens, hidden): (rows, tokens, horizon[, levels]).

        ``fill`` (rows, tokens) is how many steps of each token's patch were there.
        """
        raw = self.head(out).unflatten(-1, (self.patch_length + self.horizon, -1))
        ahead = fill[..., None] + torch.arange(self.horizon, device=out.device)
        raw = raw.gather(2, ahead[..., None].expand(-1, -1, -1, raw.shape[-1])).flatten(-2)
        if self.quantile_head is None:
            return raw * scale[..., None] + location[..., None]
        levels = self.quantile_head(raw)  # (rows, tokens, horizon, levels)
        return levels * scale[..., None, None] + location[..., None, None]
