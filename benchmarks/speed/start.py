"""What a start costs: the help of the command, the import, and the first forecast of a model.

Seconds of the processor of new processes, the least of several: other work on the machine counts
less.

    python benchmarks/speed/start.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import tsllm

sys.path.append(str(Path(__file__).parents[1]))
from measuring import parser, write

COMMANDS = {
    "python": "pass",
    "import tsllm": "import tsllm",
    "import torch": "import torch",
    "tsllm --help": "from tsllm.cli.main import main; main(['--help'])",
    "first forecast of a saved model": "import tsllm; tsllm.load({model!r}).predict()",
    "tsllm predict": "from tsllm.cli.main import main; main(['predict', {model!r}])",
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--repeats", type=int, default=3)
    args = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        y = pd.Series(np.arange(200.0) % 24, index=pd.date_range("2024", periods=200, freq="h"))
        model = str(tsllm.save(tsllm.LinearForecaster().fit(y, fh=[1, 2, 3]), f"{folder}/model"))
        least = {
            name: min(seconds_of(code.format(model=model)) for _ in range(args.repeats))
            for name, code in COMMANDS.items()
        }
    for name, seconds in least.items():
        print(f"{name:34s}{seconds:6.2f} s")
    write("start" + args.tag, {"cpu_seconds": least, "repeats": args.repeats}, args.out)


def seconds_of(code: str) -> float:
    """Return the processor's seconds of a new process that runs some code."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{code} ended with {status}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
