import sys

import pandas as pd
import pytest

import tsllm.datasets.bundled
from tsllm.datasets import list_datasets, load_dataset, long_to_panel, read_long
from tsllm.errors import DataError

LISTED = list_datasets().set_index("name")
SERIES = LISTED.index[LISTED["kind"] == "series"]


def test_listing_loads_nothing(monkeypatch):
    for module in ("statsmodels", "statsmodels.datasets", "sktime", "sktime.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    assert list_datasets().equals(LISTED.reset_index())
    assert set(LISTED.index) == {
        "airline",
        "co2",
        "elec_equip",
        "elnino",
        "macrodata",
        "sunspots",
        "usgs_earthquakes",
    }


@pytest.mark.parametrize("name", SERIES)
def test_series_are_canonical_and_as_listed(name):
    frame = load_dataset(name)
    variables = list(frame.columns[2:])
    pd.testing.assert_frame_equal(read_long(frame, target_cols=variables), frame)
    y = long_to_panel(frame)
    listed = LISTED.loc[name]
    assert y.shape == (listed["rows"], listed["variables"])
    assert frame["series_id"].unique().tolist() == [name]
    assert len(frame["series_id"].unique()) == listed["series"]
    assert y.index.equals(pd.date_range(y.index[0], periods=len(y), freq=listed["freq"]))


# Values printed in the sources: Box and Jenkins' series G, Keeling and Whorf's record, NOAA's
# Nino 1+2 table, FRED's real GDP and the NGDC's yearly sunspot numbers.
@pytest.mark.parametrize(
    ("name", "stamp", "column", "value"),
    [
        ("airline", "1949-01-01", "passengers", 112),
        ("airline", "1960-12-01", "passengers", 432),
        ("co2", "1958-03-29", "co2", 316.1),
        ("elec_equip", "1995-02-01", "turnover", 65.15),
        ("elnino", "1950-02-01", "temperature", 24.20),
        ("elnino", "1951-01-01", "temperature", 24.19),
        ("macrodata", "1959-04-01", "realgdp", 2778.801),
        ("sunspots", "1701-01-01", "sunspots", 11),
    ],
)
def test_values_stand_at_their_dates(name, stamp, column, value):
    assert long_to_panel(load_dataset(name)).loc[stamp, column] == value


def test_co2_keeps_its_missing_values():
    assert load_dataset("co2")["co2"].isna().sum() == 59


def test_earthquakes_are_an_event_table():
    events = load_dataset("usgs_earthquakes")
    assert events.columns.tolist()[:3] == ["sequence_id", "time", "type"]
    assert len(events) == LISTED.loc["usgs_earthquakes", "rows"]
    assert events["sequence_id"].nunique() == LISTED.loc["usgs_earthquakes", "series"]
    assert events["time"].is_monotonic_increasing
    assert str(events["time"].dt.tz) == "UTC"
    assert events["time"].dt.month.unique().tolist() == [8]
    assert not events.isna().any().any()


def test_types_of_earthquakes_follow_from_their_magnitudes():
    events = load_dataset("usgs_earthquakes")
    quakes = events[events["type"].str.startswith("earthquake")]
    bounds = quakes.groupby("type")["magnitude"].agg(["min", "max"])
    assert bounds.loc["earthquake below magnitude 1", "max"] < 1
    assert bounds.loc["earthquake of magnitude 1 to 2"].between(1, 2, inclusive="left").all()
    assert bounds.loc["earthquake of magnitude 2 to 3"].between(2, 3, inclusive="left").all()
    assert bounds.loc["earthquake of magnitude 3 or more", "min"] >= 3
    others = events[~events["type"].str.startswith("earthquake")]
    assert others["type"].value_counts().to_dict() == {"quarry blast": 108, "explosion": 43}


def test_the_shipped_file_is_small_and_its_origin_is_stated():
    folder = tsllm.datasets.bundled.files("tsllm.datasets") / "data"
    shipped = [path for path in folder.iterdir() if path.name != "README.md"]
    readme = (folder / "README.md").read_text()
    for path in shipped:
        assert len(path.read_bytes()) <= 300_000
        assert path.name in readme


def test_an_unknown_name_points_to_the_nearest():
    with pytest.raises(DataError, match="'c02'; did you mean 'co2'"):
        load_dataset("c02")
    with pytest.raises(DataError, match="'airline' or 'co2' or"):
        load_dataset("???")
