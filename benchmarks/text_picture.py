"""Draw the picture of the guide to text: a forecast with and without the notes of a shop.

The series is that of the guide, which this script reads.

    python benchmarks/text_picture.py
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from tsllm import AutoForecaster

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^forecaster = ", re.MULTILINE | re.DOTALL)


def main() -> None:
    code = BLOCK.search((ROOT / "docs" / "guides" / "text.md").read_text())
    assert code is not None, "the guide begins with its series"
    names: dict[str, Any] = {}
    exec(compile(code[1], "docs/guides/text.md", "exec"), names)
    y, X = names["y"], names["X"]
    past, actual = y.iloc[:730], y.iloc[730:]
    ways = {
        "without the notes": {},
        "notes as a bag of words": {"text_covariates": ("note",), "text_backbone": "tfidf"},
        "notes read by the language model": {"text_covariates": ("note",)},
    }
    figure, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
    shown = y.iloc[710:]
    ax.plot(range(-20, len(shown) - 20), shown, color="black", lw=1.2, label="sales")
    for (name, more), color in zip(ways.items(), ("0.6", "C1", "C0")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            forecaster = AutoForecaster(backbone=None, random_state=0, **more)
            forecaster.fit(past, X=X if more else None, fh=range(1, 15))
            found = forecaster.predict(X=X) if more else forecaster.predict()
        error = float((pd.Series(found.to_numpy().ravel()) - actual.to_numpy()).abs().mean())
        print(f"{name}: mean absolute error {error:.1f}")
        label = f"{name} (mean absolute error {error:.1f})"
        ax.plot(range(14), found.to_numpy().ravel(), color=color, marker="o", ms=3, label=label)
    for day in (3, 8):
        text = X["note"].iloc[730 + day]
        ax.annotate(text, (day, actual.iloc[day]), (day, 262 if day == 3 else 82), ha="center",
                    fontsize=8, arrowprops={"arrowstyle": "-", "color": "0.7"})  # fmt: skip
    ax.set_xlabel("days from the last known one")
    ax.set_ylim(70, 275)
    ax.legend(fontsize=8, loc="upper left", frameon=False)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    figure.savefig(ROOT / "docs" / "images" / "text_forecast.png", dpi=110)


if __name__ == "__main__":
    main()
