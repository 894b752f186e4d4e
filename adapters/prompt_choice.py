"""Which prompts each position of a batch attends to: what a pool gives and encoders take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PromptChoice:
    """The prompts that each position of a batch attends to.

    The rows of all slots in question are there once; which of them a position sees is a mask, so
    that retrieval by position costs no more than one prefix.
    """

    rows: Tensor
    """(slots, parts, layers, length, width): the structural prompts. ``parts`` is 2, what keys and
    what values are made of, or 1, soft tokens."""
    visible: Tensor
    """(batch, positions, slots) bool."""
    mean_gap: Tensor
    """(batch, positions), the mean scaled gap so far: the temporal prompt is its code."""
    numbers: tuple[int, ...]
    """The number in the pool of each slot here."""

    def key_rows(self, layer: int) -> Tensor:
        """Give what a layer makes keys of, (slots * length, width)."""
        return self.rows[:, 0, layer].flatten(0, 1)

    def value_rows(self, layer: int) -> Tensor:
        """Give what a layer makes values of, (slots * length, width)."""
        return self.rows[:, -1, layer].flatten(0, 1)

    @property
    def visible_rows(self) -> Tensor:
        """Say which rows a position sees, (batch, positions, slots * length)."""
        return self.visible.repeat_interleave(self.rows.shape[3], -1)

    def at(self, positions: Tensor) -> PromptChoice:
        """Take one position (batch,) of each sequence."""
        rows = torch.arange(len(positions), device=positions.device)
        visible = self.visible[rows, positions][:, None]
        return PromptChoice(
            self.rows, visible, self.mean_gap[rows, positions][:, None], self.numbers
        )
