"""What the reports of ablations have in common: their fields, JSON, and how figures are written."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tsllm.evaluation.report import plain


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
            document[name] = [
                {str(column): plain(value) for column, value in row.items()}
                for row in frame.to_dict("records")
            ]
        return document

    def to_json(self) -> str:
        """Write `to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)


def bounds(value: Any, lower: Any, upper: Any, *, percent: bool = False) -> str:
    """Write a difference with its interval; shares in percent."""
    if value is None or math.isnan(value):
        return ""
    factor, digits, unit = (100, 1, " %") if percent else (1, 4, "")
    text = f"{factor * value:+.{digits}f}{unit}"
    if lower is None or math.isnan(lower):
        return text
    return f"{text} [{factor * lower:+.{digits}f}, {factor * upper:+.{digits}f}]"


def cost(value: Any) -> str:
    """Write a cost for people."""
    if value is None or math.isnan(value):
        return ""
    if value >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_page(title: str, parts: Sequence[str], notes: Sequence[str]) -> str:
    """Put a report together."""
    return "\n\n".join([f"# {title}", *parts, *(f"Note: {note}." for note in notes)]) + "\n"
