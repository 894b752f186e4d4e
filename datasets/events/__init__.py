"""Event streams: readers, checked tables, slices of time and simulators."""

from tsllm.datasets.events.clock import Clock
from tsllm.datasets.events.drift import make_drift
from tsllm.datasets.events.reading import read_events
from tsllm.datasets.events.simulators import (
    Simulation,
    make_hawkes,
    make_poisson,
    make_renewal,
    make_self_correcting,
    make_text_events,
)
from tsllm.datasets.events.slices import time_slices
from tsllm.datasets.events.table import EventColumns, EventTable

__all__ = [
    "Clock",
    "EventColumns",
    "EventTable",
    "Simulation",
    "make_drift",
    "make_hawkes",
    "make_poisson",
    "make_renewal",
    "make_self_correcting",
    "make_text_events",
    "read_events",
    "time_slices",
]
