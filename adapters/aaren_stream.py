"""What an Aaren forecaster remembers of series that go on: a value of constant size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from tsllm.adapters.aaren_state import AarenState

#: A spread below this share of the level is rounding, and the series constant so far.
ROUNDING = 1e-12


class RunningScale(NamedTuple):
    """Mean and deviation of all that was observed so far, older patches counting less.

    Each part is (rows,), float64. ``forget`` in `add` is the share that is left of a patch's
    weight after each further patch; 1 weighs all alike.
    """

    weight: Tensor
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

    def over(self, patches: Tensor, seen: Tensor, forget: float) -> tuple[RunningScale, Tensor]:
        """Take in patches (rows, tokens, length), float64, one after the other.

        Chan's update: no sum of squares, which a large level would swamp.

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

    def scale(self) -> Tensor:
        """Give the standard deviation; 0 where nothing but rounding was seen."""
        spread = (self.m2 / self.weight.clamp_min(1e-300)).sqrt()
        return torch.where(spread > ROUNDING * self.mean.abs(), spread, 0.0)


@dataclass(frozen=True)
class AarenStream:
    """Any number of steps of several independent series (rows), in constant size.

    Everything is per row, so streams of different lengths stand in one batch. Operations give new
    streams and change none.
    """

    layers: tuple[AarenState, ...]
    """The states that the next token continues, one a layer."""
    younger: tuple[AarenState, ...]
    """The states that take over when the others are restarted; empty where none ever are."""
    scale: RunningScale
    outputs: Tensor
    """(rows, kept, hidden), the outputs of the last tokens, the newest last."""
    tokens: Tensor
    """(rows,), the number of complete patches so far."""
    buffer: Tensor
    """(rows, patch_length), the steps after the last complete patch; NaN where not observed."""
    fill: Tensor
    """(rows,), how many steps those are."""

    @classmethod
    def cat(cls, streams: Sequence[AarenStream]) -> AarenStream:
        """Put streams into one batch."""
        names = streams[0].state_dict().keys()
        tensors = [stream.state_dict() for stream in streams]
        return cls.from_state_dict({n: torch.cat([t[n] for t in tensors]) for n in names})

    def split(self, sizes: Sequence[int]) -> list[AarenStream]:
        """Take a batch apart into streams of so many rows, each with memory of its own."""
        parts = {name: tensor.split(list(sizes)) for name, tensor in self.state_dict().items()}
        return [
            self.from_state_dict({name: part[i].clone() for name, part in parts.items()})
            for i in range(len(sizes))
        ]

    def to(self, device: torch.device | str) -> AarenStream:
        """Move to a device."""
        return self.from_state_dict({n: t.to(device) for n, t in self.state_dict().items()})

    def state_dict(self) -> dict[str, Tensor]:
        """Give all tensors by name, as safetensors holds them."""
        tensors = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                tensors[field.name] = value
            elif isinstance(value, RunningScale):
                tensors |= {f"scale.{name}": part for name, part in value._asdict().items()}
            else:
                for i, state in enumerate(value):
                    named = state.state_dict().items()
                    tensors |= {f"{field.name}.{i}.{name}": part for name, part in named}
        return tensors

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> AarenStream:
        """Read what `state_dict` gave."""

        def states(group: str) -> tuple[AarenState, ...]:
            numbers = {int(name.split(".")[1]) for name in tensors if name.startswith(group + ".")}
            return tuple(
                AarenState(*(tensors[f"{group}.{i}.{part}"] for part in AarenState._fields))
                for i in sorted(numbers)
            )

        return cls(
            states("layers"),
            states("younger"),
            RunningScale(*(tensors[f"scale.{part}"] for part in RunningScale._fields)),
            tensors["outputs"],
            tensors["tokens"],
            tensors["buffer"],
            tensors["fill"],
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def __len__(self) -> int:
        return len(self.tokens)
