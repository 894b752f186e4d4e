"""Draw the pictures of the guides, small enough to load anywhere.

python docs/draw_images.py             # all: some minutes
python docs/draw_images.py streaming   # one

The pictures of a page are drawn from the values that the code of the page computes.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

DOCS = Path(__file__).resolve().parent
_BLOCK = re.compile(r"(?<!-->\n)^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SIZE = (6.4, 3.2)


def quickstart() -> Any:
    """Draw the forecast of the quickstart as `tsllm forecast --plot` does."""
    from tsllm.datasets import read_long
    from tsllm.plotting.forecasts import plot_forecast

    names = run_blocks("quickstart.md", 2)
    columns = {"id_col": "shop", "time_col": "day", "target_cols": "sales"}
    history = read_long(names["table"], **columns)
    forecast = names["forecast"].rename(columns={"shop": "series_id", "day": "timestamp"})
    figure, axes = plt.subplots(3, 1, figsize=(6.4, 5.4), sharex=True)
    for ax, shop in zip(axes, ["north", "south", "west"]):
        plot_forecast(history, forecast, series_id=shop, last=70, ax=ax)
        ax.set_ylabel("sales")
        if shop != "north":
            ax.get_legend().remove()
    return figure


def covariates() -> Any:
    """Draw the shares of the covariates in the forecast of the guide."""
    from tsllm.plotting.explanations import plot_explanation

    names = run_blocks("guides/covariates.md", 1)
    figure, ax = plt.subplots(figsize=_SIZE)
    plot_explanation(names["forecaster"].explain(X=names["future"]), ax=ax)
    return figure


def text_forecast() -> Any:
    """Draw the forecasts of the guide on texts, with the notes and without them."""
    from tsllm import AutoForecaster

    names = run_blocks("guides/text.md", 1)
    y, X = names["y"], names["X"]
    blind = AutoForecaster(backbone=None, random_state=0).fit(y.iloc[:730], fh=range(1, 15))
    figure, ax = plt.subplots(figsize=_SIZE)
    known, ahead = y.iloc[700:730], y.iloc[730:]
    when = [index.to_timestamp() for index in (known.index, ahead.index)]
    ax.plot(when[0], known, color="black", lw=1)
    ax.plot(when[1], ahead, color="black", lw=1, marker="o", ms=3, label="sales")
    told, untold = names["forecaster"].predict(X=X), blind.predict()
    ax.plot(when[1], told, color="tab:blue", lw=2, label="forecast with the notes")
    ax.plot(when[1], untold, color="0.5", lw=2, ls="--", label="forecast without")
    for day, note in zip(when[1], X["note"].iloc[730:]):
        if note:
            place = {"xy": (day, told[pd.Period(day, "D")]), "xytext": (0, 14)}
            ax.annotate(note, **place, textcoords="offset points", ha="center", fontsize=7)
    ax.set_ylabel("sales")
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    figure.autofmt_xdate()
    return figure


def streaming() -> Any:
    """Draw the weeks of the guide: each forecast is made before its value is observed."""
    from tsllm import AarenForecaster

    names = run_blocks("guides/streaming.md", 0, until="forecaster = ")
    past, stream = names["past"], names["stream"]
    forecaster = AarenForecaster(context_length=104, adaptive=True, random_state=0)
    forecaster.fit(past, fh=[1])
    bounds = []
    for week in range(len(stream)):
        bounds.append(forecaster.predict_interval(coverage=0.8))
        forecaster.update(stream.iloc[week : week + 1])
    interval = pd.concat(bounds)
    figure, ax = plt.subplots(figsize=_SIZE)
    low, high = interval.iloc[:, 0], interval.iloc[:, 1]
    band = {"color": "tab:blue", "alpha": 0.25, "lw": 0}
    ax.fill_between(interval.index, low, high, label="80 %, before the value came", **band)
    ax.plot(past.iloc[-20:], color="black", lw=1)
    ax.plot(stream, color="black", lw=1, marker="o", ms=3, label="CO₂, observed")
    ax.set_ylabel("ppm")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    figure.autofmt_xdate()
    return figure


def events() -> Any:
    """Draw the intensity that a Hawkes process finds in simulated clicks."""
    from tsllm import HawkesForecaster
    from tsllm.datasets import make_hawkes
    from tsllm.events.plotting import plot_intensity

    clicks = make_hawkes(
        [0.3, 0.2], [[0.3, 0.4], [0.1, 0.3]], [2.0, 2.0], t_end=60, n_sequences=3, random_state=0
    )
    figure, ax = plt.subplots(figsize=_SIZE)
    plot_intensity(HawkesForecaster().fit(clicks.events), ax=ax)
    return figure


def backtests() -> Any:
    """Draw what the report of the guide draws."""
    report = run_blocks("guides/backtests.md", 1)["report"]
    return report.plot().figure


def ablation() -> Any:
    """Draw the differences of the variants, as `tsllm ablate --plot` does."""
    from sktime.datasets import load_airline

    import tsllm

    model = tsllm.AutoTimesForecaster(backbone_layers=1, max_steps=200, random_state=0)
    report = tsllm.ablate(model, load_airline(), horizons=[12], seeds=[0, 1], test_size=36)
    print(report.verdict)
    return report.plot().figure


PICTURES: dict[str, Callable[[], Any]] = {
    drawn.__name__: drawn
    for drawn in (quickstart, covariates, text_forecast, streaming, events, backtests, ablation)
}


def run_blocks(page: str, count: int, *, until: str | None = None) -> dict[str, Any]:
    """Run the first blocks of Python of a page, or the first one up to a line; return its names."""
    blocks = [block[1] for block in _BLOCK.finditer((DOCS / page).read_text(encoding="utf-8"))]
    if until is not None:
        blocks, count = [blocks[0][: blocks[0].index(until)]], 1
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks[:count]:
        exec(compile(block, page, "exec"), names)
    return names


def save(figure: Any, path: Path) -> None:
    """Write a figure as PNG with a palette of 32 colours."""
    figure.tight_layout()
    target = io.BytesIO()
    figure.savefig(target, dpi=110, facecolor="white")
    image = Image.open(target).convert("RGB")
    image.quantize(32, dither=Image.Dither.NONE).save(path, "PNG", optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draw the pictures that are named, or all."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    for name in sys.argv[1:] or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            before = Path.cwd()
            os.chdir(folder)  # the blocks of a page write files
            try:
                save(PICTURES[name](), DOCS / "images" / f"{name}.png")
            finally:
                os.chdir(before)
        plt.close("all")


if __name__ == "__main__":
    main()
