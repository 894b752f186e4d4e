"""States of constant size: of a softmax average over tokens, and of a stream that is forecast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from tsllm.adapters.aaren.patches import RunningScale


class AarenState(NamedTuple):
    """A set of scored tokens, reduced to the sums that their softmax average needs.

    Feng et al., "Attention as an RNN" (arXiv 2405.13956, section 3): for tokens with scores s and
    values v, ``m = max s``, ``u = sum exp(s - m)`` and ``w = sum exp(s - m) v``; the average is ``w
    / u``. `merge` combines two states into that of the union of their tokens, which is associative
    and commutative (section 3.2). The empty set is ``(-inf, 0, 0)``.

    A state is a value: each method returns a new one. It is kept in float64, because float32 sums
    stop growing near 1.7e7 equal tokens.

    Examples
    --------
    >>> state = AarenState.empty(1, heads=1, width=2)
    >>> state = state.add(torch.zeros(1, 1), torch.tensor([[[1.0, 3.0]]]))
    >>> state = state.add(torch.zeros(1, 1), torch.tensor([[[3.0, 5.0]]]))
    >>> state.average().tolist(), state.nbytes
    ([[[2.0, 4.0]]], 32)
    """

    m: Tensor
    """(batch, heads), the largest score; -inf before the first token."""
    u: Tensor
    """(batch, heads), the sum of the weights relative to the largest."""
    w: Tensor
    """(batch, heads, width), the sum of the weighted values."""

    @classmethod
    def empty(
        cls,
        batch: int,
        *,
        heads: int,
        width: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str | None = None,
    ) -> "AarenState":
        """Create the state of no token."""
        zeros = torch.zeros(batch, heads, dtype=dtype, device=device)
        return cls(zeros - torch.inf, zeros, zeros.new_zeros(batch, heads, width))

    def add(self, scores: Tensor, values: Tensor) -> "AarenState":
        """Add one token: scores (batch, heads), values (batch, heads, width).

        A score of -inf adds nothing, for any finite value.
        """
        scores = scores.to(self.m.dtype)
        return self.merge(AarenState(scores, torch.ones_like(scores), values.to(self.w.dtype)))

    def merge(self, other: "AarenState") -> "AarenState":
        """Combine two sets of tokens."""
        m = torch.maximum(self.m, other.m)  # (batch, heads)
        finite = finite_or_zero(m)
        ours, theirs = (self.m - finite).exp(), (other.m - finite).exp()
        w = ours[..., None] * self.w + theirs[..., None] * other.w
        return AarenState(m, ours * self.u + theirs * other.u, w)

    def fade(self, log_weight: Tensor | float) -> "AarenState":
        """Scale the weight of each token so far by exp(-log_weight), (batch, heads)."""
        return self._replace(m=self.m - log_weight)

    def average(self) -> Tensor:
        """Return the softmax average, (batch, heads, width); 0 where there is no token."""
        return self.w / torch.where(self.u > 0, self.u, 1.0)[..., None]

    def where(self, rows: Tensor, other: "AarenState") -> "AarenState":
        """Select this state where ``rows`` (batch,) is True and ``other`` elsewhere."""
        return AarenState(
            *(
                torch.where(rows.view(-1, *[1] * (mine.ndim - 1)), mine, its)
                for mine, its in zip(self, other)
            )
        )

    def to(self, device: torch.device | str) -> "AarenState":
        """Move to a device."""
        return AarenState(*(part.to(device) for part in self))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return self._asdict()

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> "AarenState":
        """Read a state from `state_dict`."""
        return cls(tensors["m"], tensors["u"], tensors["w"])

    @property
    def nbytes(self) -> int:
        """Count the bytes of the tensors."""
        return sum(part.nbytes for part in self)


@dataclass(frozen=True)
class AarenStream:
    """The state of an Aaren forecaster after any number of steps of several series (rows).

    Its size is constant, and everything is per row: streams of different lengths stand in one
    batch. Operations return new streams and change none. A model that is equivariant to sign flips
    follows each series in two rows, one of each sign.
    """

    layers: tuple[AarenState, ...]
    """The states that the next token continues, one a layer."""
    younger: tuple[AarenState, ...]
    """The states that replace the others at a restart; empty without restarts."""
    scale: RunningScale
    outputs: Tensor
    """(rows, kept, hidden), the outputs of the last tokens, the newest last."""
    tokens: Tensor
    """(rows,), the number of complete patches so far."""
    buffer: Tensor
    """(rows, patch_length), the steps after the last complete patch; NaN where not observed."""
    fill: Tensor
    """(rows,), the number of those steps."""

    @classmethod
    def cat(cls, streams: "Sequence[AarenStream]") -> "AarenStream":
        """Concatenate streams to one batch."""
        names = streams[0].state_dict().keys()
        tensors = [stream.state_dict() for stream in streams]
        return cls.from_state_dict({n: torch.cat([t[n] for t in tensors]) for n in names})

    def split(self, sizes: Sequence[int]) -> "list[AarenStream]":
        """Split a batch into streams of so many rows, each with its own memory."""
        parts = {name: tensor.split(list(sizes)) for name, tensor in self.state_dict().items()}
        return [
            self.from_state_dict({name: part[i].clone() for name, part in parts.items()})
            for i in range(len(sizes))
        ]

    def to(self, device: torch.device | str) -> "AarenStream":
        """Move to a device."""
        return self.from_state_dict({n: t.to(device) for n, t in self.state_dict().items()})

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
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
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> "AarenStream":
        """Read a stream from `state_dict`."""

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
        """Count the bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())


def finite_or_zero(m: Tensor) -> Tensor:
    """Replace -inf by 0, so that ``exp(-inf - m)`` is 0 and not NaN."""
    return torch.where(m > -torch.inf, m, 0.0)
