"""Fit, forecast, look at the intervals, stream new observations, save and load: in one page.

python examples/quickstart.py
"""

import tempfile
from pathlib import Path

from sktime.datasets import load_airline

import tsllm
from tsllm import AutoTimesForecaster


def main() -> None:
    y = load_airline()
    past, future = y.iloc[:-24], y.iloc[-24:]

    # One layer of the embedded language model; more layers and steps for real work.
    forecaster = AutoTimesForecaster(backbone_layers=1, max_steps=150, random_state=0)
    forecaster.fit(past, fh=range(1, 13))
    print(forecaster.predict().round(0).head(3))
    print(forecaster.predict_interval(coverage=0.8).round(0).head(3))

    # New observations move the context; nothing is trained unless update_epochs says so.
    forecaster.update(future.iloc[:12])
    forecast = forecaster.predict()
    print(f"MAE of the second year: {(forecast - future.iloc[12:]).abs().mean():.1f} passengers")

    # Does the language model help here? The same model without it is the control.
    control = AutoTimesForecaster(backbone=None, max_steps=150, random_state=0)
    control.fit(past, fh=range(1, 13)).update(future.iloc[:12])
    error = (control.predict() - future.iloc[12:]).abs().mean()
    print(f"without the language model: {error:.1f}")

    with tempfile.TemporaryDirectory() as folder:
        tsllm.save(forecaster, Path(folder) / "model")  # safetensors and JSON, no pickle
        again = tsllm.load(Path(folder) / "model")
        print("equal after loading:", bool((again.predict() == forecast).all()))


if __name__ == "__main__":
    main()
