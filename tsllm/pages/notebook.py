"""Small pieces of HTML that notebooks show: results, summaries, fitted models."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tsllm.pages.cells import cell
from tsllm.pages.rendering import render

#: The most rows of a table in a notebook.
MAX_ROWS = 30


def piece(
    verdict: str = "",
    tables: Mapping[str, pd.DataFrame] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return a sentence, tables by their titles, and notes as HTML.

    Examples
    --------
    >>> piece("Yes.", {"Errors": pd.DataFrame({"method": ["<a>"]})}).count("&lt;a&gt;")
    1
    """
    shown = [
        {
            "title": title,
            "columns": list(map(str, table.columns)),
            "rows": [
                [cell(value) for value in row]
                for row in table.head(MAX_ROWS).itertuples(index=False, name=None)
            ],
            "total": len(table),
        }
        for title, table in (tables or {}).items()
    ]
    return render("piece.html.jinja", verdict=verdict, tables=shown, notes=notes)


class Summary(dict[str, Any]):
    """A summary: a dict that notebooks show as a table.

    Examples
    --------
    >>> summary = Summary(epochs=3)
    >>> summary["epochs"], "<th>epochs</th>" in summary._repr_html_()
    (3, True)
    """

    def _repr_html_(self) -> str:
        """Return the summary as a table of HTML, and its lists of records as tables below."""
        records = {
            name: pd.DataFrame(value)
            for name, value in self.items()
            if isinstance(value, list) and value and isinstance(value[0], Mapping)
        }
        rows = [(name, cell(value)) for name, value in self.items() if name not in records]
        below = piece(tables=records) if records else ""
        return render("summary.html.jinja", rows=rows) + below


class ShownFitted(ABC):
    """A mixin for estimators: notebooks show what was fitted below the estimator's own display."""

    @abstractmethod
    def _fitted_summary(self) -> Mapping[str, Any] | None:
        """Return the facts to show; None where nothing is fitted."""

    def _repr_html_inner(self) -> str:
        """Return the estimator's own HTML, and the table of its summary."""
        own: str = super()._repr_html_inner()  # type: ignore[misc]
        return own + self._fitted_html()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        """Return what Jupyter shows."""
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += self._fitted_html()
        return bundle

    def _fitted_html(self) -> str:
        """Return the table of the summary, or nothing."""
        facts = self._fitted_summary()
        return "" if facts is None else Summary(facts)._repr_html_()
