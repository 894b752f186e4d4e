"""Whether the language model helps: the ablation report on ETTh1 and on bundled data.

The settings are small, so that each run takes about ten minutes on one core. ETTh1 is this
project's development set: settings were tried on its test part, so its figures are not a clean
test. co2 and elnino come with tsllm.

    python benchmarks/ablation.py --data FOLDER --runs autotimes_etth1
    python benchmarks/ablation.py --runs autotimes_co2 s2ip_elnino
"""

from __future__ import annotations

import time
from typing import Any

from common import parser, write

from tsllm import AutoTimesForecaster, S2IPForecaster, ablate
from tsllm.datasets import load_benchmark, load_dataset

#: Method, data, the method's parameters, and how the arms are compared.
RUNS: dict[str, tuple[type, str, dict[str, Any], dict[str, Any]]] = {
    "autotimes_etth1": (
        AutoTimesForecaster,
        "ETTh1",
        {"context_length": 672, "token_length": 96, "batch_size": 256, "max_steps": 200},
        {"horizons": [96, 192], "stride": 4, "baselines": ["seasonal_naive", "dlinear"]},
    ),
    "autotimes_co2": (
        AutoTimesForecaster,
        "co2",
        {"context_length": 208, "token_length": 26, "max_steps": 150},
        {"horizons": [13, 26]},
    ),
    "s2ip_elnino": (
        S2IPForecaster,
        "elnino",
        {"context_length": 72, "patch_length": 12, "stride": 6, "batch_size": 32, "max_steps": 200},
        {"horizons": [6, 12]},
    ),
}


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = arguments.parse_args()
    for name in args.runs:
        method, data, parameters, how = RUNS[name]
        estimator = method(args.backbone, backbone_layers=args.layers, **parameters)
        started = time.perf_counter()
        report = ablate(estimator, seeds=args.seeds, progress=True, **_data(data, args), **how)
        print(report)
        args.out.mkdir(parents=True, exist_ok=True)
        report.plot().figure.savefig(args.out / f"ablation_{name}{args.tag}.png", dpi=120)
        seconds = time.perf_counter() - started
        write(f"ablation_{name}{args.tag}", {**report.to_dict(), "seconds": seconds}, args.out)


def _data(name: str, args: Any) -> dict[str, Any]:
    """Read a data set; a benchmark is cut as published."""
    if name != "ETTh1":
        return {"y": load_dataset(name)}
    benchmark = load_benchmark(name, folder=args.data, allow_download=False)
    return {
        "y": benchmark.frame,
        "train_size": benchmark.split.train,
        "validation_size": benchmark.split.validation,
        "test_size": benchmark.split.test,
    }


if __name__ == "__main__":
    main()
