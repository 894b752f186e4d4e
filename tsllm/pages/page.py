"""A page of HTML in one file: a verdict, pictures, tables that sort, settings and versions.

The page reads nothing from elsewhere: pictures are inline SVG, style and script are part of it, and
its content security policy forbids requests and foreign scripts. Text of users is escaped.
"""

import base64
import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

import tsllm
from tsllm.pages.cells import Cell, cell
from tsllm.pages.pictures import Picture, dark_colours, draw
from tsllm.pages.rendering import render, source
from tsllm.saving.files import write_text

#: The most rows of a table on a page.
MAX_ROWS = 500
_PACKAGES = ("torch", "numpy", "pandas", "sktime", "scikit-learn", "matplotlib")


@dataclass(frozen=True)
class Table:
    """A table that readers sort by a click on the name of a column.

    Attributes
    ----------
    title : str
        The heading.
    frame : DataFrame
        The columns and rows; the index is not shown.
    note : str, default=""
        A sentence below the heading.
    """

    title: str
    frame: pd.DataFrame
    note: str = ""

    def shown(self) -> dict[str, Any]:
        """Return what the template reads: the first `MAX_ROWS` rows as cells."""
        rows = [[cell(one) for one in row] for row in _rows(self.frame.head(MAX_ROWS))]
        numeric = [
            all(one.key is not None or not one.text for one in column) and bool(column)
            for column in zip(*rows)
        ]
        return {
            "title": self.title,
            "note": self.note,
            "left_out": max(0, len(self.frame) - MAX_ROWS),
            "total": len(self.frame),
            "columns": list(zip(map(str, self.frame.columns), numeric or [False] * 1_000)),
            "rows": [list(zip(row, numeric)) for row in rows],
        }


@dataclass(frozen=True)
class Page:
    """What a report says, in the order of the page.

    Attributes
    ----------
    title : str
        The name of the page.
    verdict : str
        One plain sentence.
    details : sequence of str, default=()
        Sentences that explain it.
    pictures : sequence of Picture, default=()
        The pictures, in their order.
    pictures_note : str, default=""
        A sentence below the pictures, such as how many of the series are drawn.
    tables : sequence of Table, default=()
        The tables, in their order.
    notes : sequence of str, default=()
        Restrictions that a reader must know.
    settings : mapping of str, default={}
        The settings by name; those that are None are not shown.

    See Also
    --------
    tsllm.reports : The pages of forecasts, backtests, ablations and event streams.

    Examples
    --------
    >>> page = Page("Sales", "Sales will grow by 3 %.", settings={"horizon": 12})
    >>> html = page.to_html(created="2026-01-31")
    >>> "Sales will grow by 3 %." in html, "2026-01-31" in html
    (True, True)
    """

    title: str
    verdict: str
    details: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    pictures_note: str = ""
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_html(self, created: date | str | None = None) -> str:
        """Write the page as HTML.

        Parameters
        ----------
        created : date, str or None, default=None
            The date on the page, which is all that two pages of one result differ in. None: today
            (UTC).

        Returns
        -------
        str

        Raises
        ------
        ImportError
            There are pictures, and matplotlib is not installed.
        """
        drawn = [draw(picture, number) for number, picture in enumerate(self.pictures)]
        script = source("sort.js")
        return render(
            "page.html.jinja",
            page=self,
            created=datetime.now(UTC).date() if created is None else created,
            style=source("style.css"),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            groups=[list(some) for _, some in groupby(drawn, key=lambda one: one.place)],
            colours=dark_colours(drawn),
            tables=[table.shown() for table in self.tables],
            settings=[
                (name, cell(value)) for name, value in self.settings.items() if value is not None
            ],
            versions=_versions(),
        )  # fmt: skip

    def save(self, path: str | Path, created: date | str | None = None) -> Path:
        """Write the page to a file, in one step.

        Parameters
        ----------
        path : str or Path
            The file; one that is there is replaced.
        created : date, str or None, default=None
            As in `to_html`.

        Returns
        -------
        Path

        Raises
        ------
        DataError
            The file cannot be written.
        ImportError
            As in `to_html`.
        """
        write_text(self.to_html(created), Path(path))
        return Path(path)


def _rows(frame: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the rows of a table, with each column's own types."""
    return list(zip(*(frame.iloc[:, place].tolist() for place in range(frame.shape[1]))))


def _versions() -> list[tuple[str, Cell]]:
    """Return the versions of tsllm, Python and the packages that compute."""
    found = [("tsllm", tsllm.__version__), ("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:  # an extra that is not installed
            continue
    return [(name, Cell(text)) for name, text in found]
