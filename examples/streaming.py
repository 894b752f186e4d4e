"""Follow a series as it arrives: forecast, observe, adapt; every step costs the same.

python examples/streaming.py
"""

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import tsllm
from tsllm import AarenForecaster
from tsllm.datasets import load_dataset

STREAMED = 260
COVERAGE = 0.8


def main() -> None:
    frame = load_dataset("co2")  # weekly, with 59 weeks missing
    y = pd.Series(frame["co2"].to_numpy(), index=pd.DatetimeIndex(frame["timestamp"], freq="W-SAT"))
    past, stream = y.iloc[:-STREAMED], y.iloc[-STREAMED:]

    forecaster = AarenForecaster(
        context_length=104, adaptive=True, max_steps=120, batch_size=32, random_state=0
    ).fit(past, fh=[1])

    hits, seconds, rows = [], [], []
    for week in range(STREAMED):
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            low, high = forecaster.predict_interval(coverage=COVERAGE).to_numpy().ravel()
        forecaster.update(stream.iloc[week : week + 1])  # NaN where nothing was measured
        seconds.append(time.perf_counter() - started)
        observed = stream.iloc[week]
        rows.append((low, high, observed))
        if not np.isnan(observed):
            hits.append(low <= observed <= high)
        if (week + 1) % 26 == 0:
            share = float(np.mean(hits[-100:]))
            drawn = "#" * round(40 * share)
            print(f"{stream.index[week]:%Y-%m}  coverage {share:4.0%}  |{drawn:<40}|")

    print(f"coverage over all: {np.mean(hits):.0%} of {COVERAGE:.0%}")
    first, last = (1e3 * np.median(part) for part in (seconds[:100], seconds[-100:]))
    print(f"a step took {first:.1f} ms at first and {last:.1f} ms at last")
    draw(rows, stream.index)

    with tempfile.TemporaryDirectory() as folder:
        tsllm.save(forecaster, Path(folder) / "model")  # the state of the stream is saved with it
        again = tsllm.load(Path(folder) / "model")
        print("equal after loading:", bool((again.predict() == forecaster.predict()).all()))


def draw(rows: list[tuple[float, float, float]], index: pd.DatetimeIndex) -> None:
    """Draw interval and observations, where matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    low, high, observed = np.array(rows).T
    axes = Figure(figsize=(9, 4), layout="constrained").add_subplot()
    axes.fill_between(index, low, high, alpha=0.3, lw=0, label=f"{COVERAGE:.0%} interval")
    axes.plot(index, observed, "k.", ms=3, label="observed a week later")
    axes.set_ylabel("CO2 at Mauna Loa, ppm")
    axes.legend(frameon=False)
    path = Path(tempfile.gettempdir()) / "aaren_stream.png"
    axes.figure.savefig(path)
    print(f"drawn in {path}")


if __name__ == "__main__":
    main()
