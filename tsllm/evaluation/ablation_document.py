"""What the reports of ablations have in common: their fields, and JSON of them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tsllm.evaluation.writing import plain, plain_rows


@dataclass
class AblationDocument(ABC):
    """A verdict and what it rests on.

    Attributes
    ----------
    verdict, answer : str
        In plain words, and in a word.
    table, differences, costs : DataFrame
        Errors by arm; paired differences; what the arms, its index, cost.
    left_out : dict of str to str
        Arms that cannot be, with the reason.
    settings : dict
    notes : list of str
        What a reader must know.
    """

    verdict: str
    answer: str
    table: pd.DataFrame
    differences: pd.DataFrame
    costs: pd.DataFrame
    left_out: dict[str, str]
    settings: dict[str, Any]
    notes: list[str]

    @abstractmethod
    def summary(self) -> pd.DataFrame:
        """Give one row per arm, as text."""

    @abstractmethod
    def to_markdown(self) -> str:
        """Write a page: verdict, tables, differences and how to read them."""

    @abstractmethod
    def plot(self, ax: Any = None) -> Any:
        """Draw the differences and their intervals; needs matplotlib."""

    def __str__(self) -> str:
        summary = self.summary().to_string(index=False, na_rep="")
        return "\n".join([self.verdict, "", summary, *(f"note: {note}" for note in self.notes)])

    __repr__ = __str__

    def to_dict(self) -> dict[str, Any]:
        """Give everything but the windows as plain values, for JSON; NaN becomes None."""
        costs = self.costs.reset_index()
        frames = {"table": self.table, "differences": self.differences, "costs": costs}
        document: dict[str, Any] = {
            "verdict": self.verdict,
            "answer": self.answer,
            "settings": plain(self.settings),
            "left_out": self.left_out,
            "notes": self.notes,
        }
        for name, frame in frames.items():
            document[name] = plain_rows(frame)
        return document

    def to_json(self) -> str:
        """Write `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)
