"""Small data sets without download, for first steps, documentation and tests."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib.resources import files
from typing import NamedTuple

import pandas as pd

from tsllm.errors import DataError


class _Dataset(NamedTuple):
    """A description of a data set, and its loader."""

    name: str
    kind: str  # "series" or "events"
    series: int
    rows: int
    variables: int
    freq: str | None
    licence: str
    description: str
    load: Callable[[], pd.DataFrame]


def list_datasets() -> pd.DataFrame:
    """List the bundled data sets without loading them.

    Returns
    -------
    pandas.DataFrame
        One row for each data set: ``name``, ``kind`` ("series" or "events"), ``series`` (number
        of series or of sequences), ``rows``, ``variables``, ``freq`` (missing for events),
        ``licence`` and ``description``.

    Examples
    --------
    >>> list_datasets()["name"].tolist()[:3]
    ['airline', 'co2', 'elec_equip']
    """
    return pd.DataFrame([dataset[:-1] for dataset in _DATASETS], columns=_Dataset._fields[:-1])


def load_dataset(name: str) -> pd.DataFrame:
    """Load a bundled data set.

    Parameters
    ----------
    name : str
        A name of `list_datasets`.

    Returns
    -------
    pandas.DataFrame
        Series in the long form of `read_long`: ``series_id, timestamp`` and the values (float64,
        NaN where missing). Events as ``sequence_id, time`` (UTC), ``type`` and other columns,
        one event for each row, in order of time.

    Raises
    ------
    DataError
        If there is no such data set. The message suggests the closest name.

    Examples
    --------
    >>> load_dataset("airline").head(2)
      series_id  timestamp  passengers
    0   airline 1949-01-01       112.0
    1   airline 1949-02-01       118.0
    """
    for dataset in _DATASETS:
        if dataset.name == name:
            return dataset.load()
    names = [dataset.name for dataset in _DATASETS]
    near = get_close_matches(str(name), names, n=2, cutoff=0.5) or names
    raise DataError(
        f"there is no bundled data set {name!r}; did you mean {' or '.join(map(repr, near))}?"
    )


def _long(name: str, times: pd.DatetimeIndex, values: pd.DataFrame) -> pd.DataFrame:
    """Convert one series to a long frame."""
    frame = pd.DataFrame({"series_id": pd.Series([name] * len(times)).astype(str)})
    frame["timestamp"] = times
    frame[list(values.columns)] = values.to_numpy(dtype=float)
    return frame


def _load_airline() -> pd.DataFrame:
    from sktime.datasets import load_airline

    y = load_airline()
    return _long("airline", y.index.to_timestamp(), y.to_frame("passengers"))


def _load_co2() -> pd.DataFrame:
    from statsmodels.datasets import co2

    data = co2.load_pandas().data
    return _long("co2", data.index, data)


def _load_elec_equip() -> pd.DataFrame:
    from statsmodels.datasets import elec_equip

    data = elec_equip.load_pandas().data
    return _long("elec_equip", data.index, data.set_axis(["turnover"], axis=1))


def _load_elnino() -> pd.DataFrame:
    from statsmodels.datasets import elnino

    years = elnino.load_pandas().data.set_index("YEAR")
    start = pd.Timestamp(year=int(years.index[0]), month=1, day=1)
    times = pd.date_range(start, periods=years.size, freq="MS")
    return _long("elnino", times, pd.DataFrame({"temperature": years.to_numpy().ravel()}))


def _load_macrodata() -> pd.DataFrame:
    from statsmodels.datasets import macrodata

    data = macrodata.load_pandas().data
    times = pd.date_range(f"{int(data['year'].iloc[0])}-01-01", periods=len(data), freq="QS")
    return _long("macrodata", times, data.drop(columns=["year", "quarter"]))


def _load_sunspots() -> pd.DataFrame:
    from statsmodels.datasets import sunspots

    data = sunspots.load_pandas().data
    times = pd.date_range(f"{int(data['YEAR'].iloc[0])}-01-01", periods=len(data), freq="YS")
    return _long("sunspots", times, pd.DataFrame({"sunspots": data["SUNACTIVITY"]}))


def _load_usgs_earthquakes() -> pd.DataFrame:
    path = files("tsllm.datasets") / "data" / "usgs_earthquakes_2015_08.csv.gz"
    with path.open("rb") as file:
        return pd.read_csv(file, compression="gzip", parse_dates=["time"])


_PUBLIC = "public domain"

_DATASETS = (
    _Dataset(
        "airline", "series", 1, 144, 1, "MS", "none stated; read from sktime",
        "international airline passengers in thousands, 1949-1960 (Box and Jenkins)",
        _load_airline,
    ),
    _Dataset(
        "co2", "series", 1, 2284, 1, "W-SAT", _PUBLIC,
        "weekly CO2 at Mauna Loa in ppm, 1958-2001 (Keeling and Whorf), 59 values missing",
        _load_co2,
    ),
    _Dataset(
        "elec_equip", "series", 1, 257, 1, "MS", _PUBLIC,
        "turnover of makers of electrical equipment in the euro area, index, 1995-2016 (ECB)",
        _load_elec_equip,
    ),
    _Dataset(
        "elnino", "series", 1, 732, 1, "MS", _PUBLIC,
        "sea surface temperature of the Nino 1+2 region in degrees Celsius, 1950-2010 (NOAA)",
        _load_elnino,
    ),
    _Dataset(
        "macrodata", "series", 1, 203, 12, "QS", _PUBLIC,
        "twelve macroeconomic variables of the United States, 1959-2009 (FRED)",
        _load_macrodata,
    ),
    _Dataset(
        "sunspots", "series", 1, 309, 1, "YS", _PUBLIC,
        "yearly sunspot numbers, 1700-2008 (NGDC)",
        _load_sunspots,
    ),
    _Dataset(
        "usgs_earthquakes", "events", 15, 8826, 1, None, _PUBLIC,
        "seismic events of August 2015 by region, typed by magnitude, with place (USGS)",
        _load_usgs_earthquakes,
    ),
)  # fmt: skip
