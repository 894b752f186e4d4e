"""How the library is built: its size, and the files and functions that a call crosses.

A call that crosses few files is easy to follow. Each call runs after all modules are imported, so
that only the call itself counts. `tests/test_architecture.py` checks that no modules import each
other in a circle.

    python benchmarks/structure.py
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import parser, write

import tsllm
from tsllm.cli.main import main as command

ROOT = Path(tsllm.__file__).parent
TINY = "random:gpt2?hidden=16&layers=1&heads=2&positions=256"
ESTIMATORS = (
    *("AutoTimesForecaster", "TimeCMAForecaster", "S2IPForecaster", "AarenForecaster"),
    *("DLinearForecaster", "PatchTSTForecaster", "PromptTPP", "HawkesForecaster"),
)
#: Run in a process of its own: the modules that saving a DLinear loads, beside the standard ones.
SAVING = """
import sys, tempfile
import numpy as np, pandas as pd, tsllm
y = pd.Series(np.sin(np.arange(60.0)))
tsllm.save(tsllm.DLinearForecaster(max_steps=2).fit(y, fh=[1]), tempfile.mkdtemp() + "/model")
print(len([name for name in sys.modules if name.split(".")[0] == "tsllm"]))
"""


def main() -> None:
    args = parser(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for module in pkgutil.walk_packages(tsllm.__path__, "tsllm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    files = [
        Path(folder) / name
        for folder, _, names in os.walk(ROOT, followlinks=True)
        for name in names
        if name.endswith(".py")
    ]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    loaded = subprocess.run([sys.executable, "-P", "-c", SAVING], capture_output=True, text=True)
    rows = [{"call": name, **figures} for name, figures in calls().items()]
    arguments = {
        name: len(inspect.signature(getattr(tsllm, name)).parameters) for name in ESTIMATORS
    }
    results = {
        "library": {"files": len(files), "lines": lines},
        "modules loaded by a process that saves a DLinear": int(loaded.stdout),
        "constructor arguments": arguments,
        "table": rows,
    }
    print(results)
    write("structure" + args.tag, results, args.out)


def calls() -> dict[str, dict[str, int]]:
    """Count what a fit, a predict, a save and a batch job of a tiny AutoTimes cross."""
    times = pd.date_range("2024-01-01", periods=60, freq="D")
    y = pd.Series(10 + np.sin(np.arange(60) * 2 * np.pi / 12), index=times)
    forecaster = tsllm.AutoTimesForecaster(
        TINY, max_steps=2, context_length=12, token_length=6, random_state=0
    )
    with tempfile.TemporaryDirectory() as folder:
        model, data, out = (f"{folder}/{name}" for name in ("model", "data.parquet", "out"))
        frame = pd.DataFrame({"series_id": "a", "timestamp": times, "value": y.to_numpy()})
        frame.to_parquet(data, index=False)
        return {
            "fit": crossed(lambda: forecaster.fit(y, fh=[1, 2, 3])),
            "predict": crossed(forecaster.predict),
            "predict_quantiles": crossed(lambda: forecaster.predict_quantiles(alpha=[0.1, 0.9])),
            "save": crossed(lambda: tsllm.save(forecaster, model)),
            "tsllm predict, in blocks": crossed(lambda: run(["predict", model, data, "-o", out])),
        }


def run(arguments: list[str]) -> None:
    """Run a command in this process."""
    try:
        command(arguments)
    except SystemExit as end:
        assert not end.code, arguments


def crossed(call: Callable[[], Any]) -> dict[str, int]:
    """Count the library's files and functions whose code runs during a call."""
    seen: set[tuple[str, str]] = set()

    def profile(frame: Any, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:  # no module, no class body
            seen.add((code.co_filename, code.co_qualname))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    ours = {one for one in seen if one[0].startswith(f"{ROOT}/")}
    return {"files": len({path for path, _ in ours}), "functions": len(ours)}


if __name__ == "__main__":
    main()
