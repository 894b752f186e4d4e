import gzip
import json
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
from data_files import complaint_of, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsllm.datasets import long_to_panel, panel_to_long, read_long
from tsllm.datasets.layout import Columns
from tsllm.errors import DataError

CSV = (
    "series_id,timestamp,y\n"
    "a,2024-01-01,1\nb,2024-01-01,10\na,2024-01-02,2\nb,2024-01-02,20\na,2024-01-03,4\nb,2024-01-03,5\n"
)


def canonical() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "series_id": ["a"] * 3 + ["b"] * 3,
            "timestamp": pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-03"] * 2),
            "y": [1.0, 2.0, 4.0, 10.0, 20.0, 5.0],
        }
    )


complaint = partial(complaint_of, read_long)


# What is read


def test_rows_of_several_series_may_interleave(tmp_path):
    pd.testing.assert_frame_equal(read_long(write(tmp_path, CSV)), canonical())


def test_every_kind_of_file_holds_the_same(tmp_path):
    frame = canonical()
    rows = frame.assign(timestamp=frame["timestamp"].astype(str)).to_dict("records")
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    write(tmp_path, "\ufeff" + CSV.replace("\n", "\r\n"), "windows.csv")
    write(tmp_path, "\n".join(map(json.dumps, rows)), "data.jsonl")
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress((tmp_path / "data.jsonl").read_bytes()))
    frame.to_parquet(tmp_path / "data.parquet")
    parts = tmp_path / "parts"
    parts.mkdir()
    frame[:4].to_parquet(parts / "part-00000.parquet")
    frame[4:].to_parquet(parts / "part-00001.parquet")
    (parts / "_SUCCESS").touch()
    names = ["data.csv.gz", "windows.csv", "data.jsonl", "data.jsonl.gz", "data.parquet", "parts"]
    for name in names:
        pd.testing.assert_frame_equal(read_long(str(tmp_path / name)), frame, obj=name)
    pd.testing.assert_frame_equal(read_long(frame), frame)


@pytest.mark.parametrize(
    ("header", "targets"),
    [
        ("unique_id,ds,y", ["y"]),
        ("item_id,timestamp,target", ["target"]),
        ("series_id,timestamp,load", ["load"]),
        ("Unique_ID,DS,Y", ["Y"]),
    ],
)
def test_known_layouts_with_identifiers(tmp_path, header, targets):
    frame = read_long(write(tmp_path, CSV.replace("series_id,timestamp,y", header)))
    assert frame.columns.tolist() == ["series_id", "timestamp", *targets]
    assert frame["series_id"].tolist() == list("aaabbb")


def test_one_time_column_and_several_value_columns_are_one_multivariate_series(tmp_path):
    text = "date,HUFL,OT\n2016-07-01 00:00:00,5.8,30\n2016-07-01 01:00:00,5.6,\n"
    path = write(tmp_path, text + "2016-07-01 02:00:00,5.1,27.5\n")
    frame = read_long(path, target_cols=["HUFL", "OT"])
    assert frame.columns.tolist() == ["series_id", "timestamp", "HUFL", "OT"]
    assert frame["series_id"].unique().tolist() == ["series"]
    np.testing.assert_array_equal(frame["OT"], [30, np.nan, 27.5])


@pytest.mark.parametrize(
    ("header", "row", "target", "left_out"),
    [
        ("ds,price,y", "2.5,7", "y", ["price"]),
        ("ds,promo,Value,holiday", "0,7,1", "Value", ["promo", "holiday"]),
        ("ds,shop,sold", "north,7", "sold", ["shop"]),
        ("unique_id,ds,target,note", "7,", "target", ["note"]),
    ],
)
def test_the_target_is_known_by_name_or_is_the_only_column_of_numbers(
    tmp_path, header, row, target, left_out
):
    start = "a," if header.startswith("unique_id") else ""
    days = "".join(f"{start}2024-01-0{day},{row}\n" for day in (1, 2, 3))
    path = write(tmp_path, f"{header}\n{days}")
    with pytest.warns(UserWarning) as caught:
        frame = read_long(path)
    assert frame.columns.tolist() == ["series_id", "timestamp", target]
    assert (frame[target] == 7).all()
    said = str(caught[0].message)
    assert [name for name in left_out if f"{name!r}" not in said] == []
    assert f"{target!r} is read as the target" in said
    assert caught[0].filename == __file__


def test_the_variables_of_a_model_are_the_targets_where_the_table_has_them(tmp_path):
    path = write(
        tmp_path, "ds,price,sold,left\n2024-01-01,2.5,7,1\n2024-01-02,2,6,3\n2024-01-03,2,5,1\n"
    )
    frame = read_long(path, model=Columns(None, "ds", ["sold", "left"]))
    assert frame.columns.tolist() == ["series_id", "timestamp", "sold", "left"]
    with pytest.raises(DataError, match=r"'price', 'sold', 'left'.*target_cols='price'"):
        read_long(path, model=Columns(None, "ds", ["sold", "returned"]))


def test_another_column_than_the_variable_of_a_model_is_told(tmp_path):
    path = write(tmp_path, "ds,price\n2024-01-01,2.5\n2024-01-02,2\n2024-01-03,1\n")
    with pytest.warns(UserWarning, match="no column 'sold', the variable of the model: .*'price'"):
        frame = read_long(path, model=Columns(None, "ds", ["sold"]))
    assert frame.columns.tolist() == ["series_id", "timestamp", "price"]


def test_a_first_column_of_dates_is_the_time_whatever_its_name(tmp_path):
    frame = read_long(write(tmp_path, "Month,Passengers\n1949-01,112\n1949-02,118\n1949-03,132\n"))
    assert frame["timestamp"].tolist() == list(pd.date_range("1949-01", periods=3, freq="MS"))


def test_dates_with_slashes_and_without_padding(tmp_path):
    text = "date,OT\n1990/1/9 0:00,1\n1990/1/10 0:00,2\n1990/1/11 0:00,3\n"
    assert read_long(write(tmp_path, text))["timestamp"].iloc[1] == pd.Timestamp("1990-01-10")


def test_columns_given_by_name(tmp_path):
    text = "shop,week,sold,price\nx,1,5,2.5\nx,2,6,3.5\ny,1,3,2\ny,2,4,1\n"
    path = write(tmp_path, text)
    frame = read_long(path, id_col="shop", time_col="week", target_cols="sold")
    assert frame.columns.tolist() == ["series_id", "timestamp", "sold"]
    assert frame["timestamp"].dtype == np.int64
    both = read_long(path, id_col="shop", time_col="week", target_cols=["price", "sold"])
    assert both.columns.tolist() == ["series_id", "timestamp", "price", "sold"]


def test_identifiers_keep_their_text(tmp_path):
    text = "series_id,timestamp,y\n007,1,1\n007,2,2\nNA,1,1\nNA,2,3\n"
    assert read_long(write(tmp_path, text))["series_id"].tolist() == ["007", "007", "NA", "NA"]


def test_missing_values_of_text_become_nan(tmp_path):
    cells = ["", "NA", "NaN", "n/a", "null", " 1.5 ", "+2e3", "-.5"]
    text = "timestamp,y\n" + "".join(f"{step},{cell}\n" for step, cell in enumerate(cells))
    np.testing.assert_array_equal(
        read_long(write(tmp_path, text))["y"], [np.nan] * 5 + [1.5, 2000, -0.5]
    )


def test_numbers_of_text_are_read_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    text = "timestamp,y\n" + "".join(f"{i},{value!r}\n" for i, value in enumerate(values.tolist()))
    np.testing.assert_array_equal(read_long(write(tmp_path, text))["y"], values)


def test_time_zones_and_periods_are_kept():
    times = pd.date_range("2024-03-30 20:00", periods=8, freq="h", tz="Europe/Berlin")
    assert (
        read_long(pd.DataFrame({"timestamp": times, "y": range(8)}))["timestamp"].dtype
        == times.dtype
    )
    months = pd.period_range("2024-01", periods=3, freq="M")
    frame = read_long(pd.DataFrame({"timestamp": months, "y": range(3)}))
    assert frame["timestamp"].dtype == "period[M]"


def test_gluonts_lines_are_laid_out(tmp_path):
    lines = [
        {
            "item_id": "a",
            "start": "2024-01-31",
            "freq": "ME",
            "target": [1, None, "NaN"],
            "cat": [0],
        },
        {"item_id": "b", "start": "2024-02-29", "freq": "ME", "target": [4.5]},
    ]
    path = write(tmp_path, "\n".join(map(json.dumps, lines)), "data.jsonl")
    with pytest.warns(UserWarning, match="not used: cat"):
        frame = read_long(path)
    assert frame["series_id"].tolist() == list("aaab")
    assert frame["timestamp"].tolist() == [
        *pd.date_range("2024-01", periods=3, freq="ME"),
        pd.Timestamp("2024-02-29"),
    ]
    np.testing.assert_array_equal(frame["target"], [1, np.nan, np.nan, 4.5])
    lines[0]["target"][1] = "x"
    message = complaint(write(tmp_path, json.dumps(lines[0]), "bad.jsonl"))
    assert "series 'a', line 1, step 1 holds 'x'" in message


def test_a_short_series_borrows_the_frequency_of_the_others():
    times = pd.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01", "2024-02-01", "2024-04-01"])
    frame = pd.DataFrame({"series_id": list("aaabb"), "timestamp": times, "y": range(5)})
    assert "series 'b' has a gap" in complaint(frame)
    assert read_long(frame, fill="nan")["timestamp"].iloc[4] == pd.Timestamp("2024-03-01")
    assert "series 'b' has 2 stamps, too few" in complaint(frame[3:])
    assert len(read_long(frame[3:], freq="2MS")) == 2


# What is filled, sorted, warned about


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        ("nan", [1, np.nan, np.nan, 4, np.nan, np.nan, 6]),
        ("ffill", [1, 1, 1, 4, np.nan, np.nan, 6]),
        ("interpolate", [1, 2, 3, 4, np.nan, np.nan, 6]),
        ("zero", [1, 0, 0, 4, np.nan, 0, 6]),
        ({"y": "zero"}, [1, 0, 0, 4, np.nan, 0, 6]),
    ],
)
@pytest.mark.parametrize("kind", ["dates", "periods", "integers"])
def test_fill_inserts_rows_and_leaves_missing_values_missing(kind, fill, expected):
    present = [0, 3, 4, 6]
    times = {
        "dates": pd.date_range("2024-01-01", periods=7, freq="D", tz="UTC")[present],
        "periods": pd.period_range("2024-01", periods=7, freq="M")[present],
        "integers": pd.Index(present),
    }[kind]
    frame = pd.DataFrame({"timestamp": times, "y": [1, 4, np.nan, 6]})
    freq = "D" if kind == "dates" else None
    assert "gap" in complaint(frame, freq=freq)
    filled = read_long(frame, freq=freq, fill=fill)
    np.testing.assert_array_equal(filled["y"], expected)
    assert filled["timestamp"].isin(frame["timestamp"]).sum() == 4
    pd.testing.assert_frame_equal(read_long(filled), filled)


def test_sorting_is_asked_for(tmp_path):
    text = CSV.replace("a,2024-01-01,1\n", "") + "a,2024-01-01,1\n"
    message = complaint(write(tmp_path, text))
    assert "series 'a', line 7 (2024-01-01 00:00:00) is earlier than line 5" in message
    assert "sort=True (--sort" in message
    frame = read_long(write(tmp_path, text), sort=True)
    assert sorted(frame["y"]) == sorted(canonical()["y"])
    assert frame[frame["series_id"] == "a"]["y"].tolist() == [1, 2, 4]


def test_constant_series_are_warned_about_once():
    frame = canonical().assign(y=[1, 1, 1, 2, 2, 3], z=[0, 1, 2, np.nan, 5, 5])
    with pytest.warns(UserWarning) as caught:
        read_long(frame, target_cols=["y", "z"])
    assert len(caught) == 1
    assert "series 'a', column 'y'; series 'b', column 'z'; such" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_the_callers_frame_stays_as_it_was():
    frame = canonical().sample(frac=1, random_state=0).set_axis([5, 5, 1, 2, 3, 9])
    before = frame.copy()
    read_long(frame, sort=True)
    pd.testing.assert_frame_equal(frame, before)


SALES = pd.DataFrame(
    {
        "series_id": list("ababaaba"),
        "timestamp": pd.to_datetime(
            ["2024-01-01 09:00", "2024-01-02", "2024-01-01 09:00", "2024-01-02", "2024-01-01 18:00",
             "2024-01-02 11:00", "2024-01-03", "2024-01-03"],
            format="ISO8601",
        ),
        "y": [1.0, 5, 2, 7, 4, np.nan, 9, 6],
    }
)  # fmt: skip


@pytest.mark.parametrize("how", ["sum", "mean", "last"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_several_rows_a_stamp_are_aggregated(how, zone):
    assert "resample='sum' and freq= (--resample, --freq)" in complaint(SALES)
    frame = SALES.assign(timestamp=SALES["timestamp"].dt.tz_localize(zone))
    read = read_long(frame, resample=how, freq="D")
    expected = {"sum": [7, np.nan, 6], "mean": [7 / 3, np.nan, 6], "last": [4, np.nan, 6]}[how]
    np.testing.assert_allclose(read["y"][read["series_id"] == "a"], expected)
    assert read["y"][read["series_id"] == "b"].tolist() == [
        {"sum": 12, "mean": 6, "last": 7}[how],
        9,
    ]
    assert read["timestamp"].drop_duplicates().tolist() == list(
        pd.date_range("2024-01-01", periods=3, freq="D", tz=zone)
    )
    shuffled = frame.sample(frac=1.0, random_state=1)
    if how != "last":
        again = read_long(shuffled, resample=how, freq="D", sort=True)
        assert sorted(again["y"].dropna()) == pytest.approx(sorted(read["y"].dropna()))


def test_too_many_steps_are_refused_before_they_are_made():
    times = pd.to_datetime(["2020-01-01", "2024-01-01"])
    frame = pd.DataFrame({"timestamp": times, "y": [1.0, 2.0]})
    assert "5,000,000 steps of freq='s'" in complaint(frame, resample="sum", freq="s")


@settings(deadline=None, max_examples=30)
@given(
    stamps=st.lists(st.integers(0, 24 * 12), min_size=1, max_size=30),
    zone=st.sampled_from([None, "Europe/Berlin"]),
    freq=st.sampled_from(["h", "6h", "D", "2D", "MS"]),
)
def test_sums_of_steps_keep_the_total(stamps, zone, freq):
    times = pd.DatetimeIndex(["2024-03-25"]).tz_localize(zone)[0] + pd.to_timedelta(
        sorted(stamps), unit="h"
    )
    values = np.arange(1.0, len(times) + 1)
    frame = pd.DataFrame({"timestamp": times, "y": values})
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        read = read_long(frame, resample="sum", freq=freq, fill="nan")
    assert read["y"].sum() == values.sum()
    if freq == "2D":  # one grid for every series, whatever its start
        local = pd.DatetimeIndex(read["timestamp"]).tz_localize(None)
        assert ((local - pd.Timestamp(0)).days % 2 == 0).all()


# What is refused


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("a,2024-01-02,2", 'a,2024-01-02,"12,5"', ["series 'a', line 4, column 'y' holds '12,5'"]),
        ("a,2024-01-02,2", "a,2024-01-02,1_000", ["line 4", "'1_000', which is no number"]),
        ("a,2024-01-02,2", "a,2024-01-02,-inf", ["series 'a', line 4, column 'y' holds -inf"]),
        ("a,2024-01-02,2", "a,2024-01-01,2", ["series 'a', line 2 and line 4", "same stamp"]),
        ("a,2024-01-02,2", "a,,2", ["series 'a', line 4 has no stamp in column 'timestamp'"]),
        ("a,2024-01-02,2", ",2024-01-02,2", ["line 4", "no series in column 'series_id'"]),
        ("a,2024-01-02,2", "a,02.01.2024,2", ["series 'a', line 4", "'02.01.2024', no date"]),
        ("a,2024-01-02,2", "a,01/02/2024,2", ["line 4", "year first"]),
        ("a,2024-01-02,2", "a,today,2", ["line 4", "'today', no date"]),
        ("a,2024-01-02,2", "a,2024-02-30,2", ["line 4", "'2024-02-30', no date"]),
        ("a,2024-01-02,2", "a,5,2", ["line 4", "'5', no date"]),
        ("a,2024-01-02,2", "a,2024-01-02T00:00Z,2", ["line 4", "another time zone", "offset"]),
        ("a,2024-01-02,2", "a,2024-01-02", ["line 4 has 2 cells where the header has 3"]),
        ("a,2024-01-02,2", "\n\na,2024-01-02,2,5", ["line 6 has 4 cells where the header has 3"]),
        ("a,2024-01-02,2", "a,2024-01-02 07:00,2", ["series 'a' has", "line", "resample"]),
        ("series_id", "timestamp", ["two columns named 'timestamp'", "rename"]),
        ("timestamp,y", "y,timestamp", ["series 'a', line 2", "which is no number"]),
        (CSV, "series_id,timestamp,y\n", ["no rows"]),
        (CSV, "", ["is empty"]),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, old, new, parts):
    message = complaint(write(tmp_path, CSV.replace(old, new)))
    assert [part for part in parts if part not in message] == [], message


def test_lines_are_counted_as_editors_do(tmp_path):
    text = 'series_id,timestamp,y\n\n"two\nlines",2024-01-01,1\n\n"two\nlines",2024-01-02,x\n'
    assert "line 6, column 'y'" in complaint(write(tmp_path, text))


@pytest.mark.parametrize(
    ("stamps", "parts"),
    [
        ([1700000000, 1702000000, 1705000000], ["row 2", "irregular", "unit='s'"]),
        ([20240101, 20240102], ["days written YYYYMMDD", "--time-format", "%Y%m%d"]),
        ([2**63, 2**63 + 1], ["row 0", "64 bits"]),
        ([0.5, 1.5], ["row 0", "0.5 of type float"]),
        ([True, False], ["row 0", "bool"]),
        ([1, 2, 4], ["3 is missing after row 1"]),
        (
            [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-01 01:00", tz="UTC")],
            ["row 1", "zone"],
        ),
        (["2024-01-01", None], ["row 1 has no stamp"]),
        (["2024-01-01", 5], ["row 1", "5 of type int"]),
    ],
)
def test_bad_stamps_of_a_frame_are_refused(stamps, parts):
    column = pd.Series(stamps, dtype=None if isinstance(stamps[0], int | float) else object)
    message = complaint(pd.DataFrame({"timestamp": column, "y": np.arange(len(stamps)) * 1.0}))
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize(
    ("header", "arguments", "parts"),
    [
        ("when,y,z", {}, ["time_col= (--time-col)"]),
        ("unique_id,ds,sold,price", {}, ["'sold', 'price'", "target_cols='sold'"]),
        ("series_id,date,y,value", {}, ["'y', 'value'", "--target-col y"]),
        ("unique_id,item_id,ds,y", {}, ["'unique_id' and 'item_id'", "id_col= (--id-col)"]),
        ("date,timestamp,a,b", {}, ["'date' and 'timestamp'", "time_col= (--time-col)"]),
        (",unique_id,ds,z", {}, ["without a name", "index=False"]),
        ("series_id,timestamp,y", {"time_col": "timestmp"}, ["did you mean 'timestamp'?"]),
        ("series_id,timestamp,y", {"id_col": "q"}, ["id_col='q'", "its columns are series_id"]),
        ("series_id,timestamp,y", {"target_cols": ["y", "x"]}, ["target_cols='x'"]),
        ("series_id,timestamp,y", {"target_cols": "timestamp"}, ["no time column", "time_col="]),
        ("series_id,timestamp,y", {"id_col": "y", "target_cols": "y"}, ["given twice"]),
        ("series_id,timestamp,y", {"fill": "cubic"}, ["fill='cubic'", "interpolate"]),
        ("series_id,timestamp,y", {"freq": "H"}, ["freq='H'"]),
    ],
)  # fmt: skip
def test_ambiguous_layouts_ask_for_the_argument(tmp_path, header, arguments, parts):
    width = header.count(",") + 1
    row = ",".join(str(number) for number in range(1, width + 1))
    message = complaint(write(tmp_path, f"{header}\n{row}\n"), **arguments)
    assert [part for part in parts if part not in message] == [], message


def test_unreadable_sources_are_refused(tmp_path):
    write(tmp_path, "no", "a.parquet")
    write(tmp_path, "no", "b.csv.gz")
    write(tmp_path, "no", "c.xlsx")
    write(tmp_path, '{"a":\n', "d.jsonl")
    write(tmp_path, '{"timestamp": 1, "y": 1}\n{"timestamp": 2}\n', "e.jsonl")
    write(tmp_path, '{"timestamp": 1, "y": 1, "y": 2}\n', "twice.jsonl")
    (tmp_path / "f.csv").write_bytes(CSV.replace("a,", "\xe9,").encode("latin-1"))
    (tmp_path / "g.csv.gz").write_bytes(gzip.compress(CSV.encode() * 50)[:-20])
    (tmp_path / "empty").mkdir()
    assert "cannot be read" in complaint(tmp_path / "a.parquet")
    assert "cannot be read" in complaint(tmp_path / "b.csv.gz")
    assert "'.csv" not in complaint(tmp_path / "c.xlsx")
    assert "line 1 is no JSON" in complaint(tmp_path / "d.jsonl")
    assert "lines 1 and 2 differ in 'y'" in complaint(tmp_path / "e.jsonl")
    assert "line 1 gives 'y' twice in one object" in complaint(tmp_path / "twice.jsonl")
    assert "line 2 is not utf-8 text, and may be latin-1" in complaint(tmp_path / "f.csv")
    assert "cannot be read" in complaint(tmp_path / "g.csv.gz")
    assert "holds no .parquet, .csv or .jsonl file" in complaint(tmp_path / "empty")
    assert "no file or directory" in complaint(tmp_path / "absent.csv")
    assert "has the type Series" in complaint(pd.Series([1.0]))
    assert "reset_index" in complaint(pd.DataFrame({"v": [1.0]}, pd.DatetimeIndex(["2024-01-01"])))


def test_rows_of_parquet_parts_are_named_by_part(tmp_path):
    canonical()[:4].to_parquet(tmp_path / "part-0.parquet")
    canonical()[4:].assign(y=[np.inf, 1]).to_parquet(tmp_path / "part-1.parquet")
    assert "series 'b', row 0 of part-1.parquet, column 'y' holds inf" in complaint(tmp_path)
    canonical()[4:].rename(columns={"y": "z"}).to_parquet(tmp_path / "part-1.parquet")
    assert "give every part the same" in complaint(tmp_path)


def test_two_identifiers_do_not_become_one():
    frame = canonical()
    frame["series_id"] = pd.Series([1, 1, 1, "1", "1", "1"], dtype=object)
    assert "series '1', row 3 has its identifier as str" in complaint(frame)


# To and from sktime


def test_one_series_becomes_a_frame_indexed_by_time():
    y = long_to_panel(read_long(canonical()[:3]))
    assert y.index.freqstr == "D"
    assert y.columns.tolist() == ["y"]
    with pytest.raises(DataError, match="read_long first"):
        long_to_panel(pd.DataFrame({"y": [1.0]}))
    with pytest.raises(DataError, match="pass it"):
        long_to_panel(canonical()[:1])
    assert long_to_panel(canonical()[:1], freq="D").index.freqstr == "D"


def test_panel_to_long_refuses_hierarchies():
    index = pd.MultiIndex.from_tuples([("a", "b", 0)])
    with pytest.raises(DataError, match="3 levels"):
        panel_to_long(pd.DataFrame({"y": [1.0]}, index))


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(3, 12), min_size=1, max_size=4),
    variables=st.integers(1, 3),
    kind=st.sampled_from(["h", "MS", "W-SUN", "tz", "period", "range"]),
    seed=st.integers(0, 9),
)
@pytest.mark.long
def test_round_trip_between_panels_and_long_frames(lengths, variables, kind, seed):
    values = np.random.default_rng(seed).normal(size=(sum(lengths), variables))
    values[values > 1.5] = np.nan

    def index(length):
        if kind == "range":
            return pd.RangeIndex(length)
        if kind == "period":
            return pd.period_range("2024-01", periods=length, freq="M")
        zone = "Europe/Berlin" if kind == "tz" else None
        return pd.date_range("2024-03-31", periods=length, freq="h" if zone else kind, tz=zone)

    columns = [f"v{number}" for number in range(variables)]
    indexes = [index(length) for length in lengths]
    ids = [f"s{9 - number}" for number in range(len(lengths))]  # not in sorted order
    if len(lengths) == 1:
        panel = pd.DataFrame(values, indexes[0], columns)
    else:
        pairs = [(name, time) for name, times in zip(ids, indexes, strict=True) for time in times]
        panel = pd.DataFrame(values, pd.MultiIndex.from_tuples(pairs), columns)
    panel.index.names = [None] * (panel.index.nlevels - 1) + ["timestamp"]

    frame = panel_to_long(panel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # three values may happen to be one
        pd.testing.assert_frame_equal(read_long(frame, target_cols=columns), frame)
    back = long_to_panel(frame)
    pd.testing.assert_frame_equal(back, panel, check_names=False, check_index_type="equiv")
    if len(lengths) == 1:
        assert getattr(back.index, "freq", None) == getattr(panel.index, "freq", None)


# Whatever comes

CELLS = st.sampled_from(
    ["1", "2.5", "-3e2", "", "NA", "inf", "x", "1,5", "a", "b", "2024-01-01", "2024-01-02",
     "2024-01-03 00:00", "2024-02-01T00:00Z", "1/2/2024", "99999999999", " ", "nan", '"', "0"]
)  # fmt: skip
OBJECTS = st.one_of(
    CELLS,
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.just(10**30),
    st.floats(),
    st.datetimes(min_value=pd.Timestamp("1700-01-01").to_pydatetime()),
    st.just(pd.NaT),
    st.just(pd.NA),
    st.just([1]),
    st.just(pd.Timestamp("2024-01-01", tz="UTC")),
    st.just(1j),
)
NAMES = st.sampled_from(
    ["series_id", "unique_id", "timestamp", "ds", "date", "y", "z", "", "target"]
)
ANYTHING = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_or_refuse(source, rows: int, **arguments) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            frame = read_long(source, **arguments)
        except DataError as error:
            assert "\n" not in str(error)
            assert ";" in str(error) or "?" in str(error)  # what is wrong; what to do
        else:
            assert len(frame) == rows
            assert frame.columns.tolist()[:2] == ["series_id", "timestamp"]
            assert not frame.duplicated(["series_id", "timestamp"]).any()
            assert not np.isinf(frame.iloc[:, 2:].to_numpy()).any()


@ANYTHING
@given(
    header=st.lists(NAMES, min_size=1, max_size=4),
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6),
    sort=st.booleans(),
)
@pytest.mark.long
def test_any_csv_is_read_whole_or_refused(tmp_path, header, rows, sort):
    def quote(cell):
        return '"' + cell.replace('"', '""') + '"'

    lines = [",".join(map(quote, row)) for row in [header, *rows]]
    read_or_refuse(write(tmp_path, "\n".join(lines)), len(rows), sort=sort)


@ANYTHING
@given(
    text=st.text(max_size=60), name=st.sampled_from(["t.csv", "t.jsonl", "t.parquet", "t.csv.gz"])
)
@pytest.mark.long
def test_any_text_is_refused_or_read(tmp_path, text, name):
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_long(path)
        except DataError as error:
            assert str(error)


@ANYTHING
@given(data=st.data(), length=st.integers(0, 6), fill=st.sampled_from([None, "nan", "ffill"]))
@pytest.mark.long
def test_any_frame_is_read_whole_or_refused(data, length, fill):
    names = data.draw(st.lists(NAMES, min_size=1, max_size=4))
    cells = [data.draw(st.lists(OBJECTS, min_size=length, max_size=length)) for _ in names]
    columns = [pd.Series(column, dtype=object) for column in cells]
    if data.draw(st.booleans()):
        columns = [column.infer_objects() for column in columns]
    frame = pd.concat(columns, axis=1).set_axis(names, axis=1)
    if fill is None:
        read_or_refuse(frame, length)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert len(read_long(frame, fill=fill)) >= length
            except DataError as error:
                assert str(error)


@ANYTHING
@given(
    steps=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    ids=st.lists(st.sampled_from("ab"), min_size=12, max_size=12),
    values=st.lists(st.sampled_from([1.0, 2.0, np.nan, np.inf]), min_size=12, max_size=12),
    kind=st.sampled_from(["D", "B", "ME", "h", "int"]),
    sort=st.booleans(),
)
@pytest.mark.long
def test_what_is_read_is_what_was_there(steps, ids, values, kind, sort):
    if kind == "int":
        times = pd.Index(steps)
    else:
        times = pd.DatetimeIndex(
            pd.date_range("2024-01-03", periods=7, freq=kind)[steps], freq=None
        )
    count = len(steps)
    given_frame = pd.DataFrame({"series_id": ids[:count], "timestamp": times, "y": values[:count]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = read_long(given_frame, sort=sort)
        except DataError as error:
            message = str(error)
            assert "series 'a'" in message or "series 'b'" in message
            assert "row" in message or "too few" in message
            return
    expected = given_frame.assign(order=pd.factorize(given_frame["series_id"])[0])
    expected = expected.sort_values(["order", "timestamp"]).drop(columns="order")
    pd.testing.assert_frame_equal(
        read, expected.reset_index(drop=True), check_dtype=False, check_index_type=False
    )


# Arguments and columns of a wrong kind


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target_cols": 2}, ["target_cols='2' is no column", "series_id, timestamp, y"]),
        ({"target_cols": "y, series_id"}, ["give a list", "--target-col y --target-col series_id"]),
        ({"target_cols": 2.5}, ["target_cols=2.5 is no name", "target_cols=['y1', 'y2']"]),
        ({"target_cols": [None]}, ["target_cols=[None]"]),
        ({"target_cols": {"y": 1}}, ["nor a list of names"]),
        ({"target_cols": b"y"}, ["nor a list of names"]),
        ({"target_cols": [["y"]]}, ["nor a list of names"]),
        ({"id_col": ["series_id"]}, ["id_col=['series_id'] is no name of a column"]),
        ({"id_col": True}, ["id_col=True"]),
        ({"time_col": {}}, ["time_col={}"]),
        ({"covariates": True}, ["covariates=True"]),
        ({"covariates": {"y"}}, ["nor a list of names"]),
        ({"covariates": ["y", "y"]}, ["given twice"]),
        ({"sort": "yes"}, ["sort must be True or False, found 'yes'"]),
    ],
)
def test_names_of_a_wrong_kind_are_named(arguments, words):
    message = complaint(canonical(), **arguments)
    assert [word for word in words if word not in message] == [], message


def test_names_in_every_kind_of_list_and_as_numbers():
    frame = canonical()
    for names in (["y"], ("y",), np.array(["y"]), pd.Index(["y"]), pd.Series(["y"])):
        pd.testing.assert_frame_equal(read_long(frame, target_cols=names), frame)
    numbered = frame.set_axis([0, 1, 2], axis=1)
    read = read_long(numbered, id_col=0, time_col=1, target_cols=2)
    pd.testing.assert_frame_equal(read, frame.rename(columns={"y": "2"}))


def test_columns_with_several_levels_or_without_a_name():
    frame = canonical()
    levels = frame.set_axis(pd.MultiIndex.from_product([["a"], frame.columns]), axis=1)
    message = complaint(levels)
    assert "2 levels of column names, the first ('a', 'series_id')" in message
    for nameless in (None, np.nan, ""):
        other = frame.assign(z=1.0).set_axis([*frame.columns, nameless], axis=1)
        assert "without a name" in complaint(other)


MISSING_NAMES = [np.nan, None, pd.NA, pd.NaT, "", " "]


@pytest.mark.parametrize(
    ("missing", "kind"),
    [(name, kind) for kind in (object, "category") for name in MISSING_NAMES]
    + [(["a"], object), ({}, object)],  # these cannot be categories
)
def test_a_missing_or_odd_name_of_a_series_is_refused(missing, kind):
    frame = canonical().astype({"series_id": object})
    frame.at[3, "series_id"] = missing
    frame = frame.astype({"series_id": kind})
    assert "row 3 of the frame has " in complaint(frame)
    assert "no file or directory" in complaint("")


def test_rows_of_several_series_name_the_column_that_tells_them_apart():
    days = pd.date_range("2024-01-01", periods=6, freq="D")
    shops = [
        pd.DataFrame({"price": [1.5] * 6, "sku": name, "day": days, "units": range(6)})
        for name in ("a", "b")
    ]
    with pytest.raises(DataError, match=r"same stamp .* id_col= .*which seems to be 'sku'"):
        read_long(pd.concat(shops), target_cols="units")
    alone = pd.concat([shops[0], shops[0].tail(1)])  # a doubled row, and no such column
    with pytest.raises(DataError, match=r"same stamp .*\(--id-col\), or aggregate"):
        read_long(alone, target_cols="units")
