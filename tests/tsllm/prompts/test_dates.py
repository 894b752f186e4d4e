"""Frequencies and stamps as words, for everything that pandas calls a frequency."""

import pandas as pd
import pytest
from pandas._libs.tslibs.offsets import prefix_mapping

from tsllm.errors import DataError
from tsllm.prompts.dates import frequency_in_words, stamps_in_words

WORDS = {
    "YS": "year",
    "YE": "year",
    "BYS": "year",
    "BYE": "year",
    "B": "business day",
    "BMS": "month",
    "BME": "month",
    "BQE": "quarter",
    "BQS": "quarter",
    "BHYE": "half year",
    "BHYS": "half year",
    "bh": "business hour",
    "C": "business day",
    "CBME": "month",
    "CBMS": "month",
    "cbh": "business hour",
    "ME": "month",
    "MS": "month",
    "ns": "nanosecond",
    "SME": "half month",
    "SMS": "half month",
    "W": "week",
    "s": "second",
    "min": "minute",
    "us": "microsecond",
    "QE": "quarter",
    "QS": "quarter",
    "HYE": "half year",
    "HYS": "half year",
    "ms": "millisecond",
    "h": "hour",
    "D": "day",
    "WOM": "month",
    "LWOM": "month",
    "RE": "fiscal year",
    "REQ": "fiscal quarter",
}
ANCHORS = {"WOM": "WOM-1MON", "LWOM": "LWOM-MON", "RE": "RE-N-DEC-MON", "REQ": "REQ-N-DEC-MON-1"}


@pytest.mark.parametrize("alias", sorted(prefix_mapping))
def test_every_alias_of_pandas_has_words(alias):
    name = ANCHORS.get(alias, alias)
    offset = pd.tseries.frequencies.to_offset(name)
    assert frequency_in_words(name) == frequency_in_words(offset) == WORDS[alias]
    assert frequency_in_words(offset * 3) == f"3 {WORDS[alias]}s"


@pytest.mark.parametrize(
    ("freq", "words"),
    [
        ("W-MON", "week"),
        ("2W-SAT", "2 weeks"),
        ("QS-FEB", "quarter"),
        ("YE-JUN", "year"),
        ("SME-10", "half month"),
        ("15min", "15 minutes"),
        ("60min", "hour"),
        ("90min", "90 minutes"),
        ("24h", "day"),
        ("48h", "2 days"),
        ("36h", "36 hours"),
        ("1500ms", "1500 milliseconds"),
        ("3600s", "hour"),
        ("7D", "7 days"),
        (pd.DateOffset(months=2), "step"),  # no name
        (pd.offsets.Easter(), "step"),
        (None, "step"),
    ],
)
def test_counts_and_anchors(freq, words):
    assert frequency_in_words(freq) == words


@pytest.mark.parametrize(
    ("freq", "words"),
    [
        ("M", "month"),
        ("Q-NOV", "quarter"),
        ("Y", "year"),
        ("W-WED", "week"),
        ("2M", "2 months"),
        ("D", "day"),
        ("B", "business day"),
        ("h", "hour"),
        ("5min", "5 minutes"),
        ("s", "second"),
    ],
)
@pytest.mark.filterwarnings("ignore:PeriodDtype")
def test_frequencies_of_periods(freq, words):
    periods = pd.period_range("2024-01-01", periods=2, freq=freq)
    assert frequency_in_words(periods.freq) == frequency_in_words(periods.freqstr) == words


@pytest.mark.parametrize("freq", ["fortnight", "xyz", "", 7])
def test_what_is_no_frequency_is_refused(freq):
    with pytest.raises(DataError, match=f"freq={freq!r} is not a frequency"):
        frequency_in_words(freq)


# ---------------------------------------------------------------- stamps


@pytest.mark.parametrize(
    ("freq", "texts"),
    [
        ("D", ["05/02/2024", "06/02/2024"]),
        ("W-MON", ["05/02/2024", "12/02/2024"]),
        ("MS", ["01/03/2024", "01/04/2024"]),
        ("h", ["05/02/2024 06:00", "05/02/2024 07:00"]),
        ("24h", ["05/02/2024", "06/02/2024"]),
        ("36h", ["05/02/2024 06:00", "06/02/2024 18:00"]),
        ("15min", ["05/02/2024 06:00", "05/02/2024 06:15"]),
        ("bh", ["05/02/2024 09:00", "05/02/2024 10:00"]),
        ("30s", ["05/02/2024 06:00:00", "05/02/2024 06:00:30"]),
        ("250ms", ["05/02/2024 06:00:00.000", "05/02/2024 06:00:00.250"]),
        ("us", ["05/02/2024 06:00:00.000000", "05/02/2024 06:00:00.000001"]),
        ("7ns", ["05/02/2024 06:00:00.000000000", "05/02/2024 06:00:00.000000007"]),
    ],
)
def test_stamps_show_what_the_frequency_asks_for(freq, texts):
    times = pd.date_range("2024-02-05 06:00", periods=2, freq=freq)
    assert stamps_in_words(times) == texts
    assert stamps_in_words(pd.DatetimeIndex(times, freq=None), freq) == texts


def test_a_change_of_the_clocks_names_every_hour_once():
    for day, hours in [("2024-03-31", 23), ("2024-10-27", 25)]:
        times = pd.date_range(day, periods=hours, freq="h", tz="Europe/Berlin")
        texts = stamps_in_words(times)
        assert len(set(texts)) == hours
        read = pd.to_datetime(texts, format="%d/%m/%Y %H:%M %z", utc=True)
        assert (read == times).all()
    assert stamps_in_words(times)[2:4] == ["27/10/2024 02:00 +0200", "27/10/2024 02:00 +0100"]


def test_days_of_a_time_zone_need_no_offset():
    times = pd.date_range("2024-03-30", periods=3, freq="D", tz="America/New_York")
    assert stamps_in_words(times) == ["30/03/2024", "31/03/2024", "01/04/2024"]
    seconds = pd.date_range("2024-03-30", periods=1, freq="s", tz="Asia/Kolkata")
    assert stamps_in_words(seconds) == ["30/03/2024 00:00:00 +0530"]


@pytest.mark.parametrize(
    ("freq", "text"), [("M", "01/02/2024"), ("Q", "01/01/2024"), ("h", "05/02/2024 06:00")]
)
def test_a_period_is_named_by_its_first_moment(freq, text):
    assert stamps_in_words(pd.PeriodIndex(["2024-02-05 06:10"], freq=freq)) == [text]


def test_integers_count_steps():
    assert stamps_in_words(pd.Index([7, -1])) == ["step 7", "step -1"]
