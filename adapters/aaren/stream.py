"""What an Aaren forecaster remembers of series that go on: a value of constant size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tsllm.adapters.aaren.patches import RunningScale
from tsllm.adapters.aaren.state import AarenState


@dataclass(frozen=True)
class AarenStream:
    """Any number of steps of several independent series (rows), in constant size.

    Everything is per row, so streams of different lengths stand in one batch. Operations give new
    streams and change none. A model that reads series both ways follows each in two rows, as it is
    and upside down.
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

        def named(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        def states(group: str) -> tuple[AarenState, ...]:
            numbers = {int(name.split(".")[1]) for name in tensors if name.startswith(group + ".")}
            return tuple(
                AarenState.from_state_dict(named(f"{group}.{i}.")) for i in sorted(numbers)
            )

        return cls(
            layers=states("layers"),
            younger=states("younger"),
            scale=RunningScale(**named("scale.")),
            outputs=tensors["outputs"],
            tokens=tensors["tokens"],
            buffer=tensors["buffer"],
            fill=tensors["fill"],
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())
