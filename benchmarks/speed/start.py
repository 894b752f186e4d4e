"""What a start costs: the help of the command, the import, and the first forecast of a model.

Seconds of the processor of new processes. Each forecast stands beside its floor: the imports of
other packages that it cannot do without. The processes take turns, so that other work on the
machine slows all of them alike; the figures are medians.

    python benchmarks/speed/start.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

import tsllm

sys.path.append(str(Path(__file__).parents[1]))
from measuring import parser, write

SKTIME = "import torch; from sktime.forecasting.base import BaseForecaster"
#: What is started: its code, and the name of its floor.
STARTS = {
    "python": ("pass", ""),
    "import tsllm": ("import tsllm", ""),
    "tsllm --help": ("from tsllm.cli.main import main; main(['--help'])", ""),
    "torch": ("import torch", ""),
    "torch, scikit-learn, pandas": ("import torch, sklearn.base, pandas", ""),
    "torch, sktime": (SKTIME, ""),
    "torch, sktime, transformers": (f"{SKTIME}; from transformers import BertModel", ""),
    "first forecast, linear": ("{load}/linear').predict()", "torch, sktime"),
    "first forecast, aaren": ("{load}/aaren').predict()", "torch, sktime"),
    "first forecast, autotimes": ("{load}/autotimes').predict()", "torch, sktime, transformers"),
    "first forecast, hawkes": ("{load}/hawkes').predict()", "torch, scikit-learn, pandas"),
    "tsllm predict, linear": (
        "from tsllm.cli.main import main; main(['predict', '{folder}/linear'])",
        "torch, sktime",
    ),
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=5)
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        save_models(folder)
        words = {"folder": folder, "load": f"import tsllm; tsllm.load('{folder}"}
        commands = {name: code.format(**words) for name, (code, _) in STARTS.items()}
        for code in commands.values():
            seconds_of(code)  # compiles what was not compiled
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(args.repeats):
            for name, code in commands.items():
                taken[name].append(seconds_of(code))
    rows = []
    for name, (_, floor) in STARTS.items():
        seconds = median(taken[name])
        row: dict[str, str | float] = {"start": name, "cpu_seconds": seconds}
        if floor:
            row |= {"floor": floor, "above_floor": seconds - median(taken[floor])}
        rows.append(row)
        print(f"{name:32s}{seconds:6.2f} s" + (f"{row['above_floor']:8.2f} s" if floor else ""))
    write("start" + args.tag, {"rows": rows, "repeats": args.repeats}, args.out)


def save_models(folder: str) -> None:
    """Fit the models and save them; how well they forecast does not matter here."""
    y = pd.Series(np.arange(200.0) % 24, index=pd.date_range("2024", periods=200, freq="h"))
    for name, forecaster in {
        "linear": tsllm.LinearForecaster(),
        "aaren": tsllm.AarenForecaster(max_steps=1),
        "autotimes": tsllm.AutoTimesForecaster(max_steps=1),
    }.items():
        tsllm.save(forecaster.fit(y, fh=[1, 2, 3]), f"{folder}/{name}")
    events = pd.DataFrame({"sequence_id": "a", "time": np.arange(60.0) ** 1.01, "type": "click"})
    tsllm.save(tsllm.HawkesForecaster().fit(events), f"{folder}/hawkes")


def seconds_of(code: str) -> float:
    """Return the processor's seconds of a new process that runs some code."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{code} ended with {status}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
