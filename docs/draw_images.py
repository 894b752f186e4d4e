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
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

DOCS = Path(__file__).resolve().parent
_BLOCK = re.compile(r"(?<!-->\n)^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def co2_forecast() -> Any:
    """Draw the forecast of `make forecast`."""
    import tsllm
    from tsllm.datasets import load_dataset
    from tsllm.plotting.forecasts import plot_forecast

    history = load_dataset("co2")
    forecast = tsllm.forecast(history, 52, random_state=0)
    return plot_forecast(history, forecast, title="Atmospheric CO₂, ppm").figure


def quickstart() -> Any:
    """Draw the forecast of the quickstart as `tsllm forecast --plot` does."""
    from tsllm.plotting.forecasts import plot_panel

    names = run_blocks("quickstart.md", 2)
    return plot_panel(names["table"], names["forecast"], variables=["sales"], last=60)


def covariates() -> Any:
    """Draw the shares of the covariates in the forecast of the guide."""
    from tsllm.plotting.explanations import plot_explanation

    names = run_blocks("guides/covariates.md", 1)
    return plot_explanation(names["forecaster"].explain(X=names["future"])).figure


def text_forecast() -> Any:
    """Draw the forecasts of the guide on texts, with the notes and without them."""
    from tsllm import AutoForecaster
    from tsllm.plotting.style import label_times, legend_below, line_style, new_axes

    names = run_blocks("guides/text.md", 1)
    y, X = names["y"], names["X"]
    blind = AutoForecaster(backbone=None, random_state=0).fit(y.iloc[:730], fh=range(1, 15))
    ax = new_axes(3.4)
    known, told = y.iloc[709:], names["forecaster"].predict(X=X)
    when = known.index.to_timestamp()
    ax.plot(when, known, color="black", lw=1, marker=".", label="sales")
    ahead = when[-14:]
    ax.plot(ahead, told, **line_style(0), label="forecast with the notes")
    ax.plot(ahead, blind.predict(), **line_style(1), label="without")
    for day, note, value in zip(ahead, X["note"].iloc[730:], y.iloc[730:]):
        if isinstance(note, str):
            rises = value > known.mean()
            place = {"xytext": (0, 8 if rises else -8), "va": "bottom" if rises else "top"}
            place |= {"xy": (day, value), "textcoords": "offset points", "ha": "center"}
            ax.annotate(fill(note, 22), **place, fontsize=8.5)
    ax.margins(y=0.25)
    ax.set_ylabel("sales")
    label_times(ax, when)
    legend_below(ax)
    return ax.figure


def streaming() -> Any:
    """Draw the weeks of the guide: each forecast is made before its value is observed."""
    from tsllm import AarenForecaster
    from tsllm.plotting.style import COLOURS, label_times, legend_below, new_axes

    names = run_blocks("guides/streaming.md", 0, until="forecaster = ")
    past, stream = names["past"], names["stream"]
    forecaster = AarenForecaster(context_length=104, adaptive=True, random_state=0)
    settings = {"normalisation": "anchored", "adaptive": True, "random_state": 0}
    forecaster = AarenForecaster(context_length=104, **settings).fit(past, fh=[1])
    bounds = []
    for week in range(len(stream)):
        bounds.append(forecaster.predict_interval(coverage=0.8))
        forecaster.update(stream.iloc[week : week + 1])
    interval = pd.concat(bounds)
    ax = new_axes(3.2)
    low, high = interval.iloc[:, 0], interval.iloc[:, 1]
    band = {"color": COLOURS[0], "alpha": 0.3, "lw": 0}
    ax.fill_between(interval.index, low, high, label="80 %, before the value came", **band)
    shown = pd.concat([past.iloc[-20:], stream])
    ax.plot(shown, color="black", lw=1, marker=".", label="observed")
    ax.set_ylabel("CO₂, ppm")
    label_times(ax, shown.index)
    legend_below(ax)
    return ax.figure


def events() -> Any:
    """Draw the intensity that a Hawkes process finds in simulated clicks."""
    from tsllm import HawkesForecaster
    from tsllm.datasets import make_hawkes
    from tsllm.events.plotting import plot_intensity

    clicks = make_hawkes(
        [0.3, 0.2], [[0.3, 0.4], [0.1, 0.3]], [2.0, 2.0], t_end=60, n_sequences=3, random_state=0
    )
    return plot_intensity(HawkesForecaster().fit(clicks.events)).figure


def backtests() -> Any:
    """Draw what the report of the guide draws."""
    drawn = run_blocks("guides/backtests.md", 1)["report"].plot()
    return getattr(drawn, "figure", drawn)


PICTURES: dict[str, Callable[[], Any]] = {
    drawn.__name__: drawn
    for drawn in (
        co2_forecast,
        quickstart,
        covariates,
        text_forecast,
        streaming,
        events,
        backtests,
    )
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
    target = io.BytesIO()
    figure.savefig(target, dpi=120, facecolor="white")
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


if __name__ == "__main__":
    main()
