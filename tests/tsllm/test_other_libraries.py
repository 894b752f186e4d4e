"""The lines of the guide to data that take series from Darts and GluonTS.

The two libraries are not installed: the stand-ins have the methods and fields that they document.
"""

import ast
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tsllm
from tsllm.datasets import panel_to_long

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "data.md"


class DartsSeries:
    """`darts.TimeSeries.to_dataframe`: a column for each component, the times in the index."""

    def __init__(self, start):
        self._times = pd.date_range(start, periods=40, freq="D", name="time")

    def to_dataframe(
        self, copy=True, backend="pandas", time_as_index=True, suppress_warnings=False
    ):
        return pd.DataFrame({"units": np.arange(40.0) % 7}, self._times)


#: What the lines of the guide name.
NAMES = {
    "pd": pd,
    "series": DartsSeries("2025-01-01"),
    "named": {"a": DartsSeries("2025-01-01"), "b": DartsSeries("2025-01-03")},
    "dataset": [
        {"item_id": item, "start": pd.Period("2025-01-01", "D"), "target": np.arange(40.0) % 7}
        for item in ("a", "b")
    ],
}


def lines():
    page = GUIDE.read_text(encoding="utf-8")
    block = re.search(r"## From Darts and GluonTS.*?```python\n(.*?)```", page, re.DOTALL)[1]
    return [ast.unparse(statement) for statement in ast.parse(block).body]


@pytest.mark.parametrize("line", lines())
def test_the_line_of_the_guide_makes_a_y(line):
    values = dict(NAMES)
    exec(line, values)
    y = values["y"]
    forecast = tsllm.LinearForecaster().fit(y, fh=[1, 2]).predict()
    assert forecast.index.names == y.index.names and np.isfinite(forecast.to_numpy()).all()
    table = tsllm.forecast(panel_to_long(y), 2, method="linear", quantiles=[], freq=None)
    assert len(table) == len(forecast)


def test_the_guide_has_a_line_for_each_form():
    assert len(lines()) == 3
