"""Follow earthquakes as they happen: fit on three weeks, predict the next one, check the model.

python examples/events.py
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import tsllm
from tsllm import NaiveEventForecaster, PromptTPP
from tsllm.datasets import read_events
from tsllm.events import EventDiagnostics

FITTED_UNTIL = pd.Timestamp("2015-08-22", tz="UTC")
FOLLOWED = 60


def main() -> None:
    # A month of earthquakes, by region; the type is the magnitude. Some have the same millisecond.
    events = read_events(
        "usgs_earthquakes", time_unit="h", ties="jitter", resolution=1e-3, random_state=0
    )
    busiest = sorted(events.ids, key=lambda name: -len(events.times[events.ids.index(name)]))[:4]
    events = events.select(busiest)
    past, future = events.between(None, FITTED_UNTIL), events.between(FITTED_UNTIL, None)
    print(past)

    model = PromptTPP(
        "aaren", hidden=16, layers=1, heads=2, max_steps=120, time_unit="h", random_state=0
    ).fit(past)
    naive = NaiveEventForecaster(time_unit="h").fit(past)
    whole = past.extend(future)
    for name, one in (("PromptTPP", model), ("constant rate", naive)):
        score = one.score(whole, t_start=FITTED_UNTIL)
        print(f"{name}: {score:.3f} nats an event on the days after")
    print(model.evaluate(whole, t_start=FITTED_UNTIL))
    checks = model.diagnostics(whole, t_start=FITTED_UNTIL)
    print(checks.table.head(1).to_string())

    stream = future.to_frame().sort_values("time", kind="stable").head(FOLLOWED)
    misses = []
    for row in range(len(stream)):
        event = stream.iloc[row : row + 1][["sequence_id", "time", "type"]]
        region = event["sequence_id"].iloc[0]
        predicted = model.predict().set_index("sequence_id").loc[region]  # before it is known
        misses.append((event["time"].iloc[0] - predicted["time_median"]) / pd.Timedelta("1h"))
        model.update(event)  # constant time, however long the stream
    print(f"median miss over {FOLLOWED} events: {np.median(np.abs(misses)):.2f} h")
    print(model.predict()[["sequence_id", "time_median", "q0.1", "q0.9", "type"]].to_string())
    draw(checks)

    with tempfile.TemporaryDirectory() as folder:
        tsllm.save(model, Path(folder) / "model")  # the running states are saved with it
        again = tsllm.load(Path(folder) / "model")
        print("equal after loading:", again.predict().equals(model.predict()))


def draw(checks: EventDiagnostics) -> None:
    """Draw the residual check, where matplotlib is installed."""
    try:
        axes = checks.plot()
    except ImportError:
        return
    path = Path(tempfile.gettempdir()) / "earthquake_residuals.png"
    np.ravel(axes)[0].figure.savefig(path)
    print(f"drawn in {path}")


if __name__ == "__main__":
    main()
