"""Counted type frequencies, which help to predict types where a network has seen few events."""

from typing import Any

import torch
from torch import Tensor, nn

#: Types up to which those after each type are counted.
MOST_FOLLOWED = 1000


class TypeGuess(nn.Module):
    """Counted frequencies of types, and their share in the predicted probabilities.

    A network that has seen few events can predict types worse than a count of them. The predicted
    probabilities are (1 - ``share``) of the network's and ``share`` of the counted ones: the
    frequencies after the last type, to which those of all types add ``lean`` events. Both numbers
    are chosen on validation data; a ``share`` of 0 leaves all to the network.

    Parameters
    ----------
    n_types : int
        Number of event types. Beyond `MOST_FOLLOWED`, only the frequencies of all are counted.

    Examples
    --------
    >>> guess = TypeGuess(2)
    >>> guess.count(torch.tensor([0, 1, 0, 1]), torch.tensor([-1, 0, 1, 0]))
    >>> guess.probabilities(torch.tensor([-1, 0]))
    tensor([[0.5000, 0.5000],
            [0.1667, 0.8333]])
    """

    def __init__(self, n_types: int) -> None:
        super().__init__()
        self.share: Tensor
        self.register_buffer("share", torch.zeros(()))
        self.lean: Tensor
        self.register_buffer("lean", torch.ones(()))
        self.counts: Tensor  # (types + 1, types): after each type, and in all
        rows = n_types + 1 if n_types <= MOST_FOLLOWED else 1
        self.register_buffer("counts", torch.zeros(rows, n_types))

    def probabilities(self, last_type: Tensor) -> Tensor:
        """Return the counted probabilities after types (...), -1 for none: (..., types)."""
        overall = self.counts[-1] + 1
        overall = overall / overall.sum()
        rows = self.counts + self.lean * overall
        table = rows / rows.sum(-1, keepdim=True)
        if len(table) == 1:
            last_type = torch.full_like(last_type, -1)
        return table[last_type]

    def count(self, types: Tensor, before: Tensor) -> None:
        """Count types (n,) after the types before them (n,), -1 for none."""
        ones = torch.ones(len(types), device=self.counts.device)
        if len(self.counts) > 1:
            known = before >= 0
            self.counts.index_put_((before[known], types[known]), ones[known], accumulate=True)
        self.counts[-1].index_add_(0, types, ones)

    def merge(self, other: "TypeGuess", share: float) -> None:
        """Add the counts of another guess, which has ``share`` of the events of both."""
        self.counts += other.counts
        self.share.lerp_(other.share, share)
        self.lean.lerp_(other.lean, share)

    def grow(self, new: int) -> None:
        """Add types without a count; beyond `MOST_FOLLOWED`, only those of all types stay."""
        if self.counts.shape[1] + new > MOST_FOLLOWED:
            self.counts = self.counts[-1:]
        rows = new if len(self.counts) > 1 else 0
        after = nn.functional.pad(self.counts[:-1], (0, new, 0, rows))
        self.counts = torch.cat([after, nn.functional.pad(self.counts[-1:], (0, new))])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        """Load a model that was saved before types were counted."""
        for name in ("share", "lean", "counts"):
            state_dict.setdefault(prefix + name, getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args)


def mix_types(log_types: Tensor, guess: Tensor | None) -> Tensor:
    """Return log probabilities (..., types), mixed with `EventStates.type_guess`."""
    if guess is None:
        return log_types
    share = guess.sum(-1, keepdim=True).clamp_max(1.0)
    return torch.logaddexp(log_types + (-share).log1p(), guess.log())
