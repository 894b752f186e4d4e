"""Readers, checks, bundled data, benchmarks and simulators of series and events."""

if __name__ == "datasets":
    raise ImportError(
        "this folder is tsllm's own 'datasets' package and is imported as 'tsllm.datasets'; "
        "install tsllm and keep the repository root off sys.path (PYTHONSAFEPATH=1)"
    )

from importlib import import_module
from typing import TYPE_CHECKING

from tsllm.datasets.benchmark import (
    Benchmark,
    BenchmarkSplit,
    describe_benchmarks,
    list_benchmarks,
    load_benchmark,
)
from tsllm.datasets.bundled import list_datasets, load_dataset
from tsllm.datasets.long import long_to_panel, panel_to_long, read_long

if TYPE_CHECKING:
    from tsllm.datasets.events import (
        Clock,
        EventColumns,
        EventTable,
        Simulation,
        make_drift,
        make_hawkes,
        make_poisson,
        make_renewal,
        make_self_correcting,
        make_text_events,
        read_events,
        time_slices,
    )

__all__ = [
    "Benchmark",
    "BenchmarkSplit",
    "Clock",
    "EventColumns",
    "EventTable",
    "Simulation",
    "describe_benchmarks",
    "list_benchmarks",
    "list_datasets",
    "load_benchmark",
    "load_dataset",
    "long_to_panel",
    "make_drift",
    "make_hawkes",
    "make_poisson",
    "make_renewal",
    "make_self_correcting",
    "make_text_events",
    "panel_to_long",
    "read_events",
    "read_long",
    "time_slices",
]

# Forecasters of series need no module of events: these names are imported on first use.


def __getattr__(name: str) -> object:
    """Import a name of `tsllm.datasets.events` on first use."""
    if name in __all__:
        return getattr(import_module("tsllm.datasets.events"), name)
    raise AttributeError(f"module 'tsllm.datasets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
