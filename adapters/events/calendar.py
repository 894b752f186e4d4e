"""The time of the day, the week and the year in the states of an event encoder."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Sines and cosines of a period: its first so many harmonics.
HARMONICS = 3


class CalendarChange(nn.Module):
    """A change of the states by the phases of calendar periods, which starts at nothing.

    Position i gets the phases at the time of event i; the decoder's distribution of the time to the
    next event then covers the part of the period that follows.

    Parameters
    ----------
    hidden : int
        Width of the states.
    periods : sequence of float
        Lengths of the periods, in scaled time.

    Examples
    --------
    >>> change = CalendarChange(8, [24.0])
    >>> hidden, time = torch.randn(2, 5, 8), torch.arange(10.0).double().reshape(2, 5)
    >>> torch.equal(change(hidden, time), hidden)
    True
    """

    def __init__(self, hidden: int, periods: Sequence[float]) -> None:
        super().__init__()
        rates = [2 * math.pi * k / period for period in periods for k in range(1, HARMONICS + 1)]
        self.rates: Tensor
        self.register_buffer("rates", torch.tensor(rates, dtype=torch.float64), persistent=False)
        self.inner = nn.Linear(hidden + 2 * len(rates), 2 * hidden)
        self.outer = nn.Linear(2 * hidden, hidden)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: Tensor, time: Tensor) -> Tensor:
        """Change states (batch, positions, hidden) at times (batch, positions) float64."""
        angles = time[..., None] * self.rates
        code = torch.cat([angles.sin(), angles.cos()], -1).to(hidden.dtype)
        out: Tensor = self.outer(functional.gelu(self.inner(torch.cat([hidden, code], -1))))
        return hidden + out
