"""The event streams that the benchmarks run on, as tables and slices."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from tsllm.datasets import EventTable, read_events, time_slices

#: The clock of the Taobao file ticks every 10 s; its times are in units of 1e4 s.
TAOBAO_TICK = 1e-3


def data_folder(given: str | None) -> Path:
    """Find the folder with the data files: an argument, or TSLLM_DATA."""
    folder = given or os.environ.get("TSLLM_DATA")
    if not folder:
        raise SystemExit("give the folder with the data files with --data, or set TSLLM_DATA")
    return Path(folder)


def san_jacinto(folder: Path) -> list[EventTable]:
    """Read the San Jacinto earthquakes as ten yearly slices, typed by magnitude; times in days."""
    frame = pd.read_csv(folder / "events_quakes_sanjac.csv.gz")
    names = ["below 1.25", "1.25 to 1.5", "1.5 to 2", "2 and above"]
    bins = pd.cut(frame["magnitude"], [-np.inf, 1.25, 1.5, 2, np.inf], right=False, labels=names)
    events = read_events(
        pd.DataFrame({"time": frame["time"], "type": bins}),
        windows=("2008-01-01", "2018-01-01"),
        time_unit="D",
    )
    return time_slices(events, "YS")


def taobao_frame(folder: Path) -> pd.DataFrame:
    """Read the Taobao clicks: seq_id, split, time (1e4 s) and type."""
    return pd.read_csv(folder / "events_taobao.csv.gz")


def taobao_days(folder: Path) -> list[EventTable]:
    """Cut all of Taobao's users into the nine days of the campaign, in China's time.

    The first slice takes the 439 events of the days before, which are too few to stand alone.
    """
    events = read_events(taobao_frame(folder), id_col="seq_id", ties="batch")
    days = np.arange(17496, 17504)  # since 1970-01-01
    return time_slices(events, (days * 86400 - 8 * 3600) / 1e4)


def nyc311(folder: Path) -> EventTable:
    """Read New York's animal requests by borough, typed by complaint and descriptor; in hours.

    A descriptor that is missing is left out of the type; one request without a borough is dropped.
    Requests in one second are spread over it.
    """
    frame = pd.read_csv(folder / "events_nyc311_animals.csv.gz")
    frame = frame[frame["Borough"] != "Unspecified"]
    names = frame["Complaint Type"].str.replace("-", " ") + (
        ": " + frame["Descriptor"].fillna("")
    ).where(frame["Descriptor"].notna(), "")
    return read_events(
        pd.DataFrame(
            {"sequence_id": frame["Borough"], "time": frame["Created Date"], "type": names}
        ),
        sort=True,
        ties="jitter",
        resolution=1 / 3600,
        time_unit="h",
        random_state=0,
    )
