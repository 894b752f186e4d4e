"""Readers, validation, bundled and benchmark data: tables in, checked tables out."""

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
from tsllm.datasets.event_clock import Clock
from tsllm.datasets.event_slices import time_slices
from tsllm.datasets.event_table import EventColumns, EventTable
from tsllm.datasets.events import read_events
from tsllm.datasets.long import long_to_panel, panel_to_long, read_long

__all__ = [
    "Benchmark",
    "BenchmarkSplit",
    "Clock",
    "EventColumns",
    "EventTable",
    "describe_benchmarks",
    "list_benchmarks",
    "list_datasets",
    "load_benchmark",
    "load_dataset",
    "long_to_panel",
    "panel_to_long",
    "read_events",
    "read_long",
    "time_slices",
]
