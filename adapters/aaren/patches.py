"""Patches of series, each normalised by the observations up to its end."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tsllm.adapters.layers import instance_normalise

NORMALISATIONS = ("causal", "anchored", "window")
#: A deviation below this share of the level is rounding: the series is constant so far.
ROUNDING = 1e-12


class RunningScale(NamedTuple):
    """Mean and deviation of all observations so far, with less weight for older patches.

    Each part is (rows,), or (rows, tokens) with one value after each patch; float64.
    """

    weight: Tensor
    """The sum of the weights of the observed steps; 0 before the first."""
    mean: Tensor
    m2: Tensor
    """The weighted sum of squared differences from the mean."""
    last: Tensor
    """The last observed value."""

    @classmethod
    def empty(cls, rows: int, device: torch.device | str | None = None) -> "RunningScale":
        """Create the statistics of no observation."""
        zeros = torch.zeros(rows, dtype=torch.float64, device=device)
        return cls(zeros, zeros, zeros, zeros)

    def last_patch(self) -> "RunningScale":
        """Return the parts (rows,) after the last token of parts (rows, tokens)."""
        return RunningScale(*(part[:, -1] for part in self))

    def over(self, patches: Tensor, seen: Tensor, forget: float) -> "tuple[RunningScale, Tensor]":
        """Update the statistics by patches (rows, tokens, length), one after the other.

        The update of Chan, Golub and LeVeque (1979) needs no sum of squares, which loses its digits
        at a large level. ``forget`` is the share of a patch's weight that remains after each
        further patch. Returns the statistics after each patch, parts (rows, tokens), and whether
        anything was observed before it.
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
        """Return the standard deviation; 0 where it is not larger than rounding."""
        spread = (self.m2 / self.weight.clamp_min(1e-300)).sqrt()
        return torch.where(spread > ROUNDING * self.mean.abs(), spread, 0.0)


class Patches(NamedTuple):
    """The inputs of a model at patches, and the statistics that invert their normalisation."""

    features: Tensor
    """(rows, tokens, 2 * patch_length + 2): the normalised values, their mask, and the changes of
    location and log scale since the patch before."""
    location: Tensor
    """(rows, tokens), in raw units, subtracted from the values."""
    scale: Tensor
    """(rows, tokens), in raw units, the divisor of the values; 0 where the series is constant."""


@dataclass(frozen=True)
class PatchUnits:
    """The normalisation of patches.

    Parameters
    ----------
    normalisation : {"causal", "anchored", "window"}
        See `AarenModel`.
    forget : float
        Share of a step's weight in the running statistics that remains one patch later.
    """

    normalisation: str
    forget: float

    def of_windows(self, x: Tensor, mask: Tensor, patches: Tensor, seen: Tensor) -> Patches:
        """Normalise the patches of whole windows.

        ``x`` and ``mask`` are (batch, time, channels), ``patches`` and ``seen`` their segments,
        (batch * channels, tokens, patch_length).
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
        """Normalise the next patches (rows, tokens, patch_length) of streams.

        Also returns the statistics after them; ``start`` holds those before, parts (rows,).
        """
        running, known = start.over(patches, seen, self.forget)  # each (rows, tokens)
        before = RunningScale(
            *(torch.cat([old[:, None], new[:, :-1]], 1) for old, new in zip(start, running))
        )
        location, scale = self.location(running), running.deviation()
        # The first patch of a series has no change.
        old_location = torch.where(known, self.location(before), location)
        old_scale = torch.where(known, before.deviation(), scale)
        read = _described(patches, seen, location, scale, old_location, old_scale)
        return read, running.last_patch()

    def after(self, start: RunningScale, patch: Tensor) -> RunningScale:
        """Update the statistics by a patch (rows, patch_length), NaN where not observed."""
        running, _ = start.over(patch[:, None], ~patch[:, None].isnan(), self.forget)
        return running.last_patch()

    def location(self, running: RunningScale) -> Tensor:
        """Return the value that is subtracted, in the shape of the statistics' parts."""
        # The forecast of a constant series is exactly its value.
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
    """Normalise patches, and append masks and changes of location and scale."""
    divisor = torch.where(scale > 0, scale, 1.0)
    values = torch.where(seen, patches - location[..., None], 0.0) / divisor[..., None]
    moved = (location - old_location) / divisor
    grown = torch.where(old_scale > 0, divisor / old_scale, 1.0).log()
    parts = [values, seen.to(values.dtype), moved[..., None], grown[..., None]]
    return Patches(torch.cat(parts, -1), location, scale)
