"""Readers, checks, bundled data, benchmarks and simulators of series and events."""

if __name__ == "datasets":
    raise ImportError(
        "this folder is tsllm's own 'datasets' package and is imported as 'tsllm.datasets'; "
        "install tsllm and keep the repository root off sys.path (PYTHONSAFEPATH=1)"
    )

from tsllm.datasets.benchmark import (
    Benchmark,
    BenchmarkSplit,
    describe_benchmarks,
    list_benchmarks,
    load_benchmark,
)
from tsllm.datasets.bundled import list_datasets, load_dataset
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
from tsllm.datasets.long import long_to_panel, panel_to_long, read_long

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
