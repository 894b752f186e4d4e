"""CSV as it is written around the world: separators, decimal signs and encodings."""

import gzip
from functools import partial

import numpy as np
import pandas as pd
import pytest
from data_files import complaint_of, write

from tsllm.datasets import read_long
from tsllm.datasets.tables import text_to_numbers

complaint = partial(complaint_of, read_long)
GERMAN = "series_id;timestamp;Größe\nZürich;2024-01-01;1,5\nZürich;2024-01-02;-2,25\n"


@pytest.mark.parametrize(
    ("encoding", "given"),
    [
        ("utf-8", None),
        ("utf-8", "UTF-8"),
        ("utf-8-sig", None),
        ("latin-1", "latin-1"),
        ("cp1252", "cp1252"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "CSV", "csv.gz"])
def test_european_csv(tmp_path, encoding, given, ending):
    content = GERMAN.encode(encoding)
    path = tmp_path / f"data.{ending}"
    path.write_bytes(gzip.compress(content) if ending == "csv.gz" else content)
    frame = read_long(path, sep=";", decimal=",", encoding=given, freq="D")
    assert frame["Größe"].tolist() == [1.5, -2.25]
    assert frame["series_id"].unique().tolist() == ["Zürich"]


def test_decimal_commas_in_quotes(tmp_path):
    path = write(tmp_path, 'time,y\n1,"1,5"\n2,"2,5"\n')
    assert "decimal=','" in complaint(path)
    assert read_long(path, decimal=",")["y"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("sep", ["\t", "|", " ", ":"])
def test_other_separators(tmp_path, sep):
    path = write(tmp_path, "day,y\n2024-01-01,1.5\n2024-01-02,2.5\n".replace(",", sep))
    assert read_long(path, sep=sep, time_col="day", freq="D")["y"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        (GERMAN, {}, ["';'", "sep=';' (--sep) and decimal=',' (--decimal)"]),
        (GERMAN.replace(",", "."), {}, ["pass sep=';' (--sep)"]),
        (GERMAN.replace(";", "\t"), {}, ["sep='\\t' (--sep) and decimal=','"]),
        (GERMAN, {"sep": ";"}, ["line 2", "'1,5'", "decimal=',' (--decimal)"]),
        (GERMAN, {"sep": "|"}, ["pass sep=';'"]),
        (GERMAN.replace("1,5", "1.234,5"), {"sep": ";", "decimal": ","}, ["'1.234,5'"]),
        (GERMAN.replace("1,5", "1.5"), {"sep": ";", "decimal": ","}, ["'1.5'", "no number"]),
        (GERMAN.replace("1,5", "1,5;3"), {"sep": ";", "decimal": ","}, ["line 2 has 4 cells"]),
        ("t,y\n1,2,5\n", {"decimal": ","}, ["line 2 has 3 cells"]),
        ("sep=;\n" + GERMAN, {"sep": ";"}, ["a line for Excel", "remove it"]),
        ("t,y\n1,2\n", {"sep": '"'}, ["sep='\"'"]),
        ("t,y\n1,2\n", {"sep": "é"}, ["sep='é'"]),
        ("t,y\n1,2\n", {"sep": "\0"}, ["not one character"]),
        ("t,y\n1,2\n", {"encoding": "rot13"}, ["encoding='rot13' is not known"]),
        ("t,y\n1,2\n", {"sep": ";;"}, ["sep=';;' is not one character"]),
        ("t,y\n1,2\n", {"decimal": "x"}, ["decimal='x'", "'.' or ','"]),
        ("t,y\n1,2\n", {"encoding": "utf-9"}, ["encoding='utf-9'", "'latin-1'"]),
    ],
)
def test_what_is_seen_and_what_to_pass(tmp_path, text, arguments, words):
    message = complaint(write(tmp_path, text), **arguments)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("latin-1", ["line 1 is not utf-8 text", "latin-1", "encoding='latin-1' (--encoding)"]),
        ("utf-32", ["begins like utf-32"]),
        ("utf-16", ["begins like utf-16", "encoding='utf-16'"]),
        ("utf-16-le", ["encoding='utf-16-le'"]),
    ],
)
def test_another_encoding_is_named(tmp_path, encoding, words):
    path = tmp_path / "data.csv"
    path.write_bytes(GERMAN.encode(encoding))
    message = complaint(path, sep=";", decimal=",")
    assert [word for word in words if word not in message] == [], message


def test_the_line_of_a_late_byte(tmp_path):
    path = tmp_path / "data.csv"
    rows = "".join(f"a;{step};1\n" for step in range(50_000))
    path.write_bytes(f"series_id;time;y\n{rows}".encode() + "é;1;1\n".encode("latin-1"))
    assert "line 50002 is not utf-8" in complaint(path, sep=";")
    path.write_bytes(path.read_bytes().replace("é".encode("latin-1"), b"\x93"))
    assert "encoding='cp1252'" in complaint(path, sep=";")


def test_a_covariate_with_decimal_commas_is_no_category(tmp_path):
    path = write(tmp_path, "time;y;price\n1;1;1,5\n2;2;NA\n3;1;2,5\n")
    assert "decimal=','" in complaint(path, sep=";", covariates="price")
    read = read_long(path, sep=";", decimal=",", covariates="price")
    np.testing.assert_array_equal(read["price"], [1.5, np.nan, 2.5])


@pytest.mark.parametrize("name", ["data.parquet", "data.jsonl", None])
def test_arguments_for_csv_are_refused_elsewhere(tmp_path, name):
    frame = read_long(write(tmp_path, "time,y\n1,1\n2,3\n"))
    source = frame
    if name == "data.parquet":
        source = tmp_path / name
        frame.to_parquet(source)
    elif name == "data.jsonl":
        source = tmp_path / name
        frame.to_json(source, orient="records", lines=True)
    for argument in ({"sep": ";"}, {"decimal": ","}, {"encoding": "latin-1"}):
        assert "have no effect" in complaint(source, **argument)


@pytest.mark.parametrize("positions", [[0], [99], [37, 38, 80], [50, 99]])
def test_the_first_cell_that_is_no_number_is_found(positions):
    cells = pd.Series(["1.5", "NA", " 2 ", "1e3"] * 25)
    cells.iloc[positions] = "x"
    assert text_to_numbers(cells) == positions[0]
