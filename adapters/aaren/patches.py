"""How a series becomes patches that Aaren reads: each in units of what was seen up to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tsllm.adapters.layers import instance_normalise

NORMALISATIONS = ("causal", "anchored", "window")
#: A spread below this share of the level is rounding, and the series constant so far.
ROUNDING = 1e-12


class RunningScale(NamedTuple):
    """Mean and deviation of all that was observed so far, older patches counting less.

    Each part is (rows,), or (rows, tokens) where there is one after each patch; float64.
    """

    weight: Tensor
    """The sum of the weights of the observed steps; 0 before the first."""
    mean: Tensor
    m2: Tensor
    """The weighted sum of squared differences from the mean."""
    last: Tensor
    """The last observed value."""

    @classmethod
    def empty(cls, rows: int, device: torch.device | str | None = None) -> RunningScale:
        """Make the statistics of nothing."""
        zeros = torch.zeros(rows, dtype=torch.float64, device=device)
        return cls(zeros, zeros, zeros, zeros)

    def last_patch(self) -> RunningScale:
        """Keep of parts (rows, tokens) those after the last token: (rows,)."""
        return RunningScale(*(part[:, -1] for part in self))

    def over(self, patches: Tensor, seen: Tensor, forget: float) -> tuple[RunningScale, Tensor]:
        """Take in patches, one after the other.

        Chan's update: no sum of squares, which a large level would swamp.

        Parameters
        ----------
        patches : Tensor
            ``(rows, tokens, length)``, float64; what it holds where ``seen`` is False has no
            influence.
        seen : Tensor
            Bool, the shape of ``patches``, True where observed.
        forget : float
            The share that is left of a patch's weight after each further patch; 1 weighs all alike.

        Returns
        -------
        RunningScale
            After each patch: parts (rows, tokens).
        Tensor, (rows, tokens), bool
            Whether anything had been observed before each patch.
        """
        counts = seen.sum(-1)  # (rows, tokens)
        values = torch.where(seen, patches, 0.0)
        means = values.sum(-1) / counts.clamp_min(1)
        squares = torch.where(seen, patches - means[..., None], 0.0).square().sum(-1)
        places = torch.arange(1, patches.shape[-1] + 1, device=patches.device)
        latest = (seen * places).amax(-1).sub(1).clamp_min(0)  # the last observed step
        lasts = values.gather(-1, latest[..., None])[..., 0]
        now, after = self, []
        for count, mean, square, last in zip(
            counts.unbind(1), means.unbind(1), squares.unbind(1), lasts.unbind(1)
        ):
            any_seen = count > 0
            old = torch.where(any_seen, forget * now.weight, now.weight)
            total = old + count
            share = count / total.clamp_min(1e-300)
            difference = mean - now.mean
            now = RunningScale(
                total,
                torch.where(any_seen, now.mean + difference * share, now.mean),
                torch.where(
                    any_seen, forget * now.m2 + square + difference.square() * old * share, now.m2
                ),
                torch.where(any_seen, last, now.last),
            )
            after.append(now)
        joined = RunningScale(*(torch.stack(part, 1) for part in zip(*after)))
        known = torch.cat([self.weight[:, None], joined.weight[:, :-1]], 1) > 0
        return joined, known

    def deviation(self) -> Tensor:
        """Give the standard deviation; 0 where nothing but rounding was seen."""
        spread = (self.m2 / self.weight.clamp_min(1e-300)).sqrt()
        return torch.where(spread > ROUNDING * self.mean.abs(), spread, 0.0)


class Patches(NamedTuple):
    """Patches as a model reads them, and what brings its forecasts back to raw units."""

    features: Tensor
    """(rows, tokens, 2 * patch_length + 2): the values in the patch's units, which of them were
    observed, and how location and log scale have moved since the patch before."""
    location: Tensor
    """(rows, tokens), in raw units: what is taken off the values."""
    scale: Tensor
    """(rows, tokens), in raw units: what they are divided by; 0 where the series is constant."""


@dataclass(frozen=True)
class PatchUnits:
    """The units that patches are read in.

    Parameters
    ----------
    normalisation : {"causal", "anchored", "window"}
        See `AarenModel`.
    forget : float
        The share of a step's weight in the running statistics that is left a patch later.
    """

    normalisation: str
    forget: float

    def of_windows(self, x: Tensor, mask: Tensor, patches: Tensor, seen: Tensor) -> Patches:
        """Normalise the patches of whole windows.

        Parameters
        ----------
        x, mask : Tensor
            ``(batch, time, channels)``, the windows and what was observed of them.
        patches, seen : Tensor
            ``(batch * channels, tokens, patch_length)``, their segments (`to_segments`).
        """
        if self.normalisation != "window":
            start = RunningScale.empty(len(patches), x.device)
            return self.of_stream(start, patches.double(), seen)[0]
        _, mean, std = instance_normalise(x, mask)  # (batch, 1, channels)
        location = mean.mT.flatten(0, 1).expand(-1, patches.shape[1])
        scale = std.mT.flatten(0, 1).expand_as(location)
        return _described(patches, seen, location, scale, location, scale)

    def of_stream(
        self, start: RunningScale, patches: Tensor, seen: Tensor
    ) -> tuple[Patches, RunningScale]:
        """Normalise the next patches of streams, and give the statistics after them.

        Parameters
        ----------
        start : RunningScale
            Of what came before, parts (rows,).
        patches, seen : Tensor
            ``(rows, tokens, patch_length)``, float64 and bool.
        """
        running, known = start.over(patches, seen, self.forget)  # each (rows, tokens)
        before = RunningScale(
            *(torch.cat([old[:, None], new[:, :-1]], 1) for old, new in zip(start, running))
        )
        location, scale = self.location(running), running.deviation()
        # The first patch of a series has moved from nowhere.
        old_location = torch.where(known, self.location(before), location)
        old_scale = torch.where(known, before.deviation(), scale)
        read = _described(patches, seen, location, scale, old_location, old_scale)
        return read, running.last_patch()

    def after(self, start: RunningScale, patch: Tensor) -> RunningScale:
        """Take a patch (rows, patch_length), NaN where not observed, into the statistics."""
        running, _ = start.over(patch[:, None], ~patch[:, None].isnan(), self.forget)
        return running.last_patch()

    def location(self, running: RunningScale) -> Tensor:
        """Give what is taken off values, in the shape of the statistics' parts."""
        # A series that has been constant is forecast as its value, to the last bit.
        if self.normalisation == "anchored":
            return running.last
        return torch.where(running.deviation() > 0, running.mean, running.last)


def _described(
    patches: Tensor,
    seen: Tensor,
    location: Tensor,
    scale: Tensor,
    old_location: Tensor,
    old_scale: Tensor,
) -> Patches:
    """Describe patches in their own units."""
    divisor = torch.where(scale > 0, scale, 1.0)
    values = torch.where(seen, patches - location[..., None], 0.0) / divisor[..., None]
    moved = (location - old_location) / divisor
    grown = torch.where(old_scale > 0, divisor / old_scale, 1.0).log()
    parts = [values, seen.to(values.dtype), moved[..., None], grown[..., None]]
    return Patches(torch.cat(parts, -1), location, scale)
