import gzip
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
from data_files import complaint_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.datasets import EventTable, load_dataset, read_events

CSV = "sequence_id,time,type\na,0.5,view\nb,0.7,view\na,2,buy\nb,2.25,view\na,3,view\n"


def canonical() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sequence_id": ["a", "b", "a", "b", "a"],
            "time": [0.5, 0.7, 2.0, 2.25, 3.0],
            "type": ["view", "view", "buy", "view", "view"],
        }
    )


def stamped() -> pd.DataFrame:
    times = ["2024-01-01 10:00:00.250", "2024-01-01 10:00:01", "2024-01-02 00:00:00.000001"]
    return pd.DataFrame({"time": pd.DatetimeIndex(times), "type": ["a", "b", "a"]})


complaint = partial(complaint_of, read_events)


# What is read


def test_rows_of_several_sequences_may_interleave(tmp_path):
    table = read_events(write(tmp_path, CSV))
    assert table.ids == ("a", "b")
    assert [times.tolist() for times in table.times] == [[0.5, 2, 3], [0.7, 2.25]]
    assert [types.tolist() for types in table.types] == [["view", "buy", "view"], ["view", "view"]]
    assert np.isnan(table.starts).all() and np.isnan(table.ends).all()
    assert table.type_counts().to_dict() == {"view": 4, "buy": 1}


def test_every_kind_of_source_holds_the_same(tmp_path):
    frame = canonical()
    expected = read_events(frame)
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    write(tmp_path, "\n".join(map(json.dumps, frame.to_dict("records"))), "data.jsonl")
    frame.to_parquet(tmp_path / "data.parquet")
    (tmp_path / "parts").mkdir()
    frame[:2].to_parquet(tmp_path / "parts" / "part-0.parquet")
    frame[2:].to_parquet(tmp_path / "parts" / "part-1.parquet")
    for name in ["data.csv.gz", "data.jsonl", "data.parquet", "parts"]:
        assert read_events(str(tmp_path / name)) == expected, name
    assert read_events(expected) is expected


def test_a_bundled_data_set_is_read_by_its_name():
    table = read_events("usgs_earthquakes", ties="batch")
    frame = load_dataset("usgs_earthquakes")
    assert table.n_events == len(frame)
    again = table.to_frame().sort_values("time", kind="stable")["time"].reset_index(drop=True)
    assert (again == frame["time"].sort_values(ignore_index=True)).all()
    assert "holds series, not events; pass 'usgs_earthquakes'" in complaint("airline")


def test_columns_go_by_any_name_and_one_sequence_needs_none(tmp_path):
    frame = canonical().set_axis(["who", "when", "what"], axis=1)
    table = read_events(frame, id_col="who", time_col="when", type_col="what")
    assert table == read_events(canonical())
    assert list(table.to_frame().columns) == ["who", "when", "what"]
    alone = read_events(frame, id_col=None, time_col="when", type_col="what", sort=True)
    assert alone.ids == ("sequence",) and alone.n_events == 5


def test_types_and_ids_become_text():
    frame = canonical().assign(sequence_id=[1, 2, 1, 2, 1], type=[3, 3, 4, 3, 3])
    table = read_events(frame)
    assert table.ids == ("1", "2")
    assert table.types[0].tolist() == ["3", "4", "3"]
    category = read_events(frame.assign(type=frame["type"].astype("category")))
    assert category == table


# Times


def test_timestamps_keep_what_is_below_the_second():
    table = read_events(stamped())
    assert table.times[0].tolist() == [0.0, 0.75, 50399.750001]
    assert (table.to_frame()["time"] == stamped()["time"]).all()
    hours = read_events(stamped(), time_unit="h")
    assert hours.times[0][2] == pytest.approx(50399.750001 / 3600, abs=1e-12)
    assert hours == table


def test_nanoseconds_are_kept():
    stamps = pd.DatetimeIndex(["2024-01-01 10:00:00.000000001", "2024-01-01 10:00:00.000000004"])
    table = read_events(pd.DataFrame({"time": stamps, "type": "a"}))
    assert np.allclose(np.diff(table.times[0]), 3e-9, rtol=1e-9)
    assert (table.to_frame()["time"].array == stamps).all()


def test_thirty_years_of_microseconds_come_back_exactly():
    stamps = pd.DatetimeIndex(["1990-01-01", "2020-06-01 12:34:56.789123", "2020-06-01 12:34:57"])
    table = read_events(pd.DataFrame({"time": stamps, "type": "a"}))
    assert (table.to_frame()["time"].array == stamps).all()


def test_text_in_a_file_is_numbers_or_timestamps(tmp_path):
    dated = write(tmp_path, "time,type\n2024-01-01T10:00:00.250Z,a\n2024-01-01T10:00:01Z,b\n")
    table = read_events(dated)
    assert table.times[0].tolist() == [0.0, 0.75]
    assert str(table.to_frame()["time"].dt.tz) == "UTC"
    numbers = write(tmp_path, "time,type\n1e2,a\n 101.5,b\n", "numbers.csv")
    assert read_events(numbers).times[0].tolist() == [100.0, 101.5]


def test_zones_are_kept_through_a_change_of_the_clocks():
    stamps = pd.date_range("2024-03-30 23:00", periods=6, freq="6h", tz="Europe/Berlin")
    table = read_events(pd.DataFrame({"time": stamps, "type": "a"}), time_unit="h")
    assert table.times[0].tolist() == [0, 6, 12, 18, 24, 30]
    assert (table.to_frame()["time"].array == stamps).all()
    assert table.between("2024-03-31 12:00+02:00").n_events == 3


# Windows


def test_one_window_for_all_and_one_for_each():
    everywhere = read_events(canonical(), windows=(0, 4))
    assert everywhere.starts.tolist() == [0, 0] and everywhere.ends.tolist() == [4, 4]
    each = {"b": (0.5, None), "a": (0, 3), "c": (0, 1)}
    table = read_events(canonical(), windows=each)
    assert table.ids == ("a", "b", "c")
    assert table.starts.tolist() == [0, 0.5, 0]
    assert table.ends.tolist()[0] == 3 and np.isnan(table.ends[1]) and table.ends[2] == 1
    assert len(table.times[2]) == 0
    assert read_events(canonical(), windows=table.windows()) == table
    indexed = table.windows().set_index("sequence_id")
    assert read_events(canonical(), windows=indexed) == table


def test_windows_in_columns(tmp_path):
    frame = canonical().assign(window_start=[0.0, 0.5, 0.0, 0.5, 0.0], window_end=[4, 5, 4, 5, 4])
    table = read_events(frame)
    assert table.starts.tolist() == [0, 0.5] and table.ends.tolist() == [4, 5]
    frame.to_csv(tmp_path / "data.csv", index=False)
    assert read_events(tmp_path / "data.csv") == table
    half = read_events(frame.drop(columns="window_end"))
    assert half.starts.tolist() == [0, 0.5] and np.isnan(half.ends).all()
    assert np.isnan(read_events(frame.assign(window_start=None)).starts).all()


def test_windows_of_timestamps():
    window = ("2024-01-01", pd.Timestamp("2024-01-03"))
    table = read_events(stamped(), windows=window)
    assert table.clock.origin == pd.Timestamp("2024-01-01")
    assert table.starts.tolist() == [0] and table.ends.tolist() == [172800]
    assert read_events(table.to_frame()) == table
    aware = stamped().assign(time=stamped()["time"].dt.tz_localize("UTC"))
    own = read_events(aware, windows=("2024-01-01T00:00Z", "2024-01-03T01:00+01:00"))
    assert own.ends.tolist() == [172800]


# Ties


def tied() -> pd.DataFrame:
    return pd.DataFrame({"time": [1.0, 2.0, 2.0, 2.0, 2.5, 4.0, 4.0], "type": list("abcdefg")})


def test_jitter_keeps_the_order_and_stays_before_the_next_event():
    table = read_events(tied(), ties="jitter", random_state=0)
    times = table.times[0]
    assert (np.diff(times) > 0).all()
    assert "".join(table.types[0]) == "abcdefg"
    assert times[[0, 1, 4, 5]].tolist() == [1.0, 2.0, 2.5, 4.0]
    assert times[3] < 2.5 and times[6] < 4.5  # the smallest gap is the resolution
    again = read_events(tied(), ties="jitter", random_state=0)
    assert again == table
    assert read_events(tied(), ties="jitter", random_state=1) != table
    assert read_events(tied(), ties="jitter", resolution=0.01, random_state=0).times[0][3] < 2.01


def test_jitter_is_uniform_over_the_resolution():
    times = np.repeat(np.arange(2000.0), 2)
    table = read_events(
        pd.DataFrame({"time": times, "type": "a"}), ties="jitter", resolution=0.5, random_state=0
    )
    moved = table.times[0][1::2] - times[1::2]
    assert abs(moved.mean() - 0.25) < 4 * 0.5 / np.sqrt(12 * 2000)
    assert moved.max() < 0.5


def feed(*stamps: str) -> pd.DataFrame:
    """A feed of a catalogue: stamps in milliseconds, hours apart."""
    return pd.DataFrame({"time": pd.to_datetime(list(stamps)), "type": "quake"})


CATALOGUE = feed(
    *("2015-08-01 00:07:41.000", "2015-08-01 03:02:57.012", "2015-08-01 03:02:57.012"),
    *("2015-08-01 09:31:05.440", "2015-08-01 22:00:00.003"),
)


@pytest.mark.parametrize(("unit", "step"), [("s", 1e-3), ("h", 1e-3 / 3600)])
def test_jitter_stays_below_the_step_of_the_clock_and_not_of_the_events(unit, step):
    kept = read_events(CATALOGUE, ties="batch", time_unit=unit).times[0]
    times = read_events(CATALOGUE, ties="jitter", time_unit=unit, random_state=0).times[0]
    assert 0 < times[2] - times[1] < step
    assert np.delete(times, 2).tolist() == np.delete(kept, 2).tolist()


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (CATALOGUE, "by less than the clock's step, 0.001 s"),
        (tied(), "by less than the clock's step, 0.5"),
        (pd.DataFrame({"time": [0.1, 0.1, 0.4, 7.3], "type": "a"}), "step, 0.3"),
        (pd.DataFrame({"time": [0.1, 0.1, 0.4, 7.25], "type": "a"}), "step, 0.05"),
        (pd.DataFrame({"time": [np.pi, np.pi, 10 * np.pi], "type": "a"}), "step, 28.2743"),
        (pd.DataFrame({"time": [3, 3], "type": "a"}), "resolution=, the step of the clock"),
    ],
)
def test_the_error_about_ties_says_how_many_there_are_and_how_far_jitter_moves(frame, told):
    message = complaint(frame)
    ties = int(frame["time"].duplicated().sum())
    assert f"{ties} of {len(frame)} events are tied so" in message
    assert "ties='jitter' (--ties jitter)" in message and told in message


def test_batch_keeps_ties_as_they_are():
    assert read_events(tied(), ties="batch").times[0].tolist() == tied()["time"].tolist()


def test_jitter_respects_the_window():
    table = read_events(tied(), ties="jitter", windows=(0, 4.125), random_state=0)
    assert table.times[0][-1] <= 4.125
    message = complaint(tied(), ties="jitter", windows=(0, 4), random_state=0)
    assert "sequence 'sequence' has tied events at 4.0 with no room after them" in message


# What is refused: the message names the sequence, the row and the remedy


def test_ties_are_an_error_that_names_both_rows(tmp_path):
    message = complaint(tied())
    assert "sequence 'sequence', row 1 and row 2 have the same time 2.0" in message
    assert "ties='jitter'" in message
    path = write(tmp_path, CSV.replace("a,3,", "a,2,"))
    assert "sequence 'a', line 4 and line 6 have the same time" in complaint(path)


def test_rows_out_of_order(tmp_path):
    path = write(tmp_path, CSV.replace("a,3,", "a,1,"))
    message = complaint(path)
    assert "sequence 'a', line 6 (1.0) is earlier than line 4 (2.0); pass sort=True" in message
    assert read_events(path, sort=True).times[0].tolist() == [0.5, 1, 2]


@pytest.mark.parametrize("cell", ["", "NA", " ", "nan"])
def test_missing_times_and_types_in_text(tmp_path, cell):
    path = write(tmp_path, CSV.replace("a,2,", f"a,{cell},"))
    assert "sequence 'a', line 4 has no time in column 'time'" in complaint(path)
    path = write(tmp_path, CSV.replace("buy", cell), "types.csv")
    assert "line 4 of 'types.csv' has no type in column 'type'" in complaint(path)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("time", np.nan, "sequence 'a', row 2 has no time in column 'time'; give it one or drop"),
        ("time", np.inf, "sequence 'a', row 2 has no finite time in column 'time'"),
        ("type", None, "row 2 of the frame has no type in column 'type'"),
        ("sequence_id", None, "row 2 of the frame has no sequence in column 'sequence_id'"),
    ],
)
def test_missing_values_in_a_frame(column, value, expected):
    frame = canonical()
    frame.loc[2, column] = value
    assert expected in complaint(frame)


def test_missing_timestamps():
    frame = stamped()
    frame.loc[1, "time"] = pd.NaT
    assert "sequence 'sequence', row 1 has no time" in complaint(frame)


def test_missing_columns():
    frame = canonical()
    assert "has no column 'time'; pass time_col=" in complaint(frame.drop(columns="time"))
    renamed = frame.rename(columns={"type": "typ"})
    assert "has no column 'type'; pass type_col= (--type-col): did you mean 'typ'?" in complaint(
        renamed
    )
    assert "has no column 'user'; pass id_col=" in complaint(frame, id_col="user")
    near = complaint(frame.rename(columns={"sequence_id": "seq_id"}))
    assert "no column 'sequence_id' but one called 'seq_id'; pass id_col='seq_id'" in near
    assert "are not different" in complaint(frame, type_col="time")


def test_names_that_would_become_one():
    frame = canonical().assign(sequence_id=pd.Series([1, "b", "1", "b", 1], dtype=object))
    assert "sequence '1', row 2 has its identifier as str" in complaint(frame)
    frame = canonical().assign(type=pd.Series(["1", "1", 1, "1", "1"], dtype=object))
    assert "sequence 'a', row 2 has its type as int" in complaint(frame)


def test_times_of_other_kinds(tmp_path):
    frame = stamped()
    assert "holds durations" in complaint(frame.assign(time=frame["time"] - frame["time"][0]))
    assert "holds periods" in complaint(frame.assign(time=frame["time"].dt.to_period("D")))
    assert "no date" in complaint(frame.assign(time=["2024-01-01", "01.02.2024", "2024-01-03"]))
    mixed = write(tmp_path, CSV.replace("a,2,", "a,2024-01-01,"))
    assert "line 4 has the time '2024-01-01', no number as in the rows before" in complaint(mixed)
    flags = pd.DataFrame({"time": [True, False], "type": ["a", "b"]})
    assert "row 0 has the stamp True of type bool" in complaint(flags)


def test_mixed_time_zones(tmp_path):
    path = write(tmp_path, "time,type\n2024-01-01T10:00Z,a\n2024-01-01T10:30+01:00,b\n")
    assert "line 3 has the stamp" in complaint(path) and "another time zone" in complaint(path)
    zoned = stamped().assign(time=stamped()["time"].dt.tz_localize("UTC"))
    assert "differ in having a time zone" in complaint(zoned, windows=("2024-01-01", None))


def test_empty_sources(tmp_path):
    assert "is empty" in complaint(write(tmp_path, ""))
    assert "has no rows" in complaint(write(tmp_path, "time,type\n"))
    assert "has no rows" in complaint(canonical()[:0])
    assert "there is no file or directory 'nowhere.csv'" in complaint("nowhere.csv")


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ((0, 2.5), "sequence 'a', row 4 at 3.0 is after its window's end 2.5; end the window"),
        ((0.5, 4), "sequence 'a', row 0 at 0.5 is not after its window's start 0.5"),
        ((0.6, 4), "sequence 'a', row 0 at 0.5 is not after its window's start 0.6"),
        ((5, 4), "sequence 'a' has a window that ends at 4.0 and starts at 5.0; give it an end"),
        ((4, 4), "give it an end after its start"),
        ((0, np.inf), "leave a bound that is not known missing"),
        ({"a": (0, 1, 2)}, "windows= has (0, 1, 2) for 'a'; pass (start, end)"),
        ({"c": (0, None)}, "sequence 'c' has no events and no known window"),
        (("2024-01-01", None), "are not numbers, but this table's times are"),
        (pd.DataFrame({"sequence_id": ["a"]}), "windows= has no column 'window_start'"),
    ],
)
def test_windows_that_do_not_fit(windows, expected):
    assert expected in complaint(canonical(), windows=windows)


def test_a_sequence_has_one_window_however_its_number_is_written():
    frame = pd.DataFrame({"sequence_id": "1", "time": [0.5, 0.7], "type": "view"})
    for names in (["1", 1], ["1", "1.0"], [1.0, "1"]):
        indexed = pd.DataFrame({"window_start": 0, "window_end": [4, 5]}, index=names)
        for windows in (dict.fromkeys(names, (0, 4)), indexed):
            assert "windows= names sequence '1' twice" in complaint(frame, windows=windows)


def test_windows_in_frames_that_do_not_fit():
    windows = pd.DataFrame({"sequence_id": ["a", "a"], "window_start": 0, "window_end": 4})
    assert "windows= names sequence 'a' twice" in complaint(canonical(), windows=windows)
    frame = canonical().assign(window_start=[0, 0, 0.25, 0, 0])
    message = complaint(frame)
    assert "sequence 'a', row 2 has 0.25 in column 'window_start'" in message
    assert "the sequence's first row has 0.0" in message
    mixed = canonical().assign(window_start=pd.Timestamp("2024-01-01"))
    assert "column 'window_start' of the frame is not of the kind that the times are" in complaint(
        mixed
    )
    assert "are numbers, but this table's times are timestamps" in complaint(
        stamped(), windows=(0, 1)
    )


def test_arguments_that_are_not_known():
    assert "ties='drop' is not known; pass one of error, jitter" in complaint(tied(), ties="drop")
    assert "time_unit='fortnight' is not known" in complaint(stamped(), time_unit="fortnight")
    assert "resolution=-1 does not say" in complaint(tied(), ties="jitter", resolution=-1)
    assert "resolution=nan does not say" in complaint(tied(), ties="batch", resolution=np.nan)
    assert "resolution=0.1 has no effect" in complaint(tied(), resolution=0.1)
    every = pd.DataFrame({"time": [1.0, 1.0], "type": "a"})
    assert "resolution=inf does not say" in complaint(every, ties="jitter")


# Round trips

SEQUENCES = st.dictionaries(
    st.text("abc1 é", min_size=1, max_size=3).filter(str.strip),
    st.lists(
        st.tuples(st.integers(1, 10**9), st.sampled_from(["buy", "view", "7", "köp"])),
        max_size=6,
        unique_by=lambda pair: pair[0],
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=30, deadline=None)
@given(sequences=SEQUENCES, stamps=st.booleans(), known=st.booleans(), data=st.data())
def test_a_table_comes_back_from_its_frame(sequences, stamps, known, data):
    rows = [(name, time, kind) for name, pairs in sequences.items() for time, kind in pairs]
    if not rows:
        return
    rows = data.draw(st.permutations(rows))
    frame = pd.DataFrame(rows, columns=["sequence_id", "time", "type"])
    windows = dict.fromkeys(sequences, (0, 10**9 + 1)) if known else None
    if stamps:
        start = pd.Timestamp("2020-02-28 23:59:59.999", tz="America/New_York")
        frame["time"] = start + pd.to_timedelta(frame["time"], unit="us")
        windows = (
            {name: (start, start + pd.Timedelta("1h")) for name in sequences} if known else None
        )
    table = read_events(frame, sort=True, windows=windows)
    back = read_events(table.to_frame(), windows=table.windows() if known else None)
    assert back == table
    assert isinstance(back, EventTable)
    assert sorted(table.to_frame()["time"]) == sorted(frame["time"])


# How events are written


@pytest.mark.parametrize("argument", ["tz", "format", "sep", "decimal", "encoding"])
def test_a_table_that_is_read_has_no_way_to_be_written(argument):
    table = read_events(canonical())
    assert f"{argument}= has no effect on an EventTable" in complaint(table, **{argument: "UTC"})
    assert read_events(table, sort=True) is table


def test_european_csv_and_offsets(tmp_path):
    stamps = pd.date_range("2024-03-30 23:30", periods=6, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame({"time": stamps, "type": list("ababab"), "sequence_id": "Zürich"})
    expected = read_events(frame)
    frame.to_csv(tmp_path / "offsets.csv", index=False)
    assert "tz='Europe/Berlin'" in complaint(tmp_path / "offsets.csv")
    assert read_events(tmp_path / "offsets.csv", tz="Europe/Berlin") == expected
    written = frame.assign(time=stamps.strftime("%d.%m.%Y %H:%M %z"))
    written.to_csv(tmp_path / "german.csv", index=False, sep=";", encoding="latin-1")
    assert "latin-1" in complaint(tmp_path / "german.csv", sep=";")
    how = {"sep": ";", "encoding": "latin-1", "format": "%d.%m.%Y %H:%M %z"}
    read = read_events(tmp_path / "german.csv", tz="Europe/Berlin", **how)
    assert read == expected and read.ids == ("Zürich",)


def test_decimal_commas_and_numbers_that_are_dates(tmp_path):
    (tmp_path / "commas.csv").write_text("time;type\n0,5;a\n2,25;b\n")
    read = read_events(tmp_path / "commas.csv", sep=";", decimal=",")
    assert read.times[0].tolist() == [0.5, 2.25]
    days = pd.DataFrame({"time": [20240131, 20240201], "type": ["a", "b"]})
    read = read_events(days, format="%Y%m%d", time_unit="D")
    assert np.diff(read.times[0]).tolist() == [1.0]
    assert "holds numbers" in complaint(days, tz="UTC")
    windows = days.assign(window_start=20240101, window_end=[None, None])
    read = read_events(windows, format="%Y%m%d", time_unit="D")
    assert read.times[0].tolist() == [30.0, 31.0] and np.isnan(read.ends[0])
