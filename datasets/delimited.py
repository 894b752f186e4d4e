"""CSV: its separator, decimal sign and encoding, its cells as text, and the line of each row."""

import codecs
import csv
import gzip
import re
from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from tsllm.errors import DataError

_SEPARATORS = (";", "\t", "|", ",")
# One character of ASCII that is no letter, digit, quote or end of a line.
_SEPARATOR = re.compile(r"[\t !#-/:-@\[-`{-~]")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")


class Dialect(NamedTuple):
    """How a CSV file is written; the arguments of `read_long`."""

    sep: str = ","
    decimal: str = "."
    encoding: str = "utf-8"


def dialect_of(sep: str | None, decimal: str | None, encoding: str | None) -> Dialect | None:
    """Check how CSV is written; None where nothing is given.

    Raises
    ------
    DataError
        If the separator is not one character, the decimal sign neither point nor comma, or the
        encoding is not known.

    Examples
    --------
    >>> dialect_of(";", ",", None)
    Dialect(sep=';', decimal=',', encoding='utf-8')
    """
    if sep is decimal is encoding is None:
        return None
    given = Dialect(
        *(
            default if one is None else one
            for one, default in zip((sep, decimal, encoding), Dialect())
        )
    )
    if not isinstance(given.sep, str) or not _SEPARATOR.fullmatch(given.sep):
        raise DataError(f"sep={sep!r} is not one character; pass for example ';' or '\\t'")
    if given.decimal not in (".", ","):
        raise DataError(f"decimal={decimal!r} is no decimal sign; pass '.' or ','")
    try:
        "".encode(given.encoding)
    except (LookupError, TypeError, ValueError):
        raise DataError(
            f"encoding={encoding!r} is not known; pass one such as 'utf-8', 'latin-1' or 'utf-16'"
        ) from None
    return given


def has_decimal_commas(column: pd.Series) -> bool:
    """Check whether all cells of some text are numbers with a decimal comma."""
    return len(column) > 0 and all(_DECIMAL_COMMA.fullmatch(cell) for cell in column)


def decimal_hint(cell: object) -> str:
    """Return what to do about a cell with a decimal comma; nothing for other cells."""
    if isinstance(cell, str) and _DECIMAL_COMMA.fullmatch(cell):
        return ", or pass decimal=',' (--decimal) if the comma is its decimal sign"
    return ""


def open_text(path: Path, encoding: str = "utf-8") -> TextIO:
    """Open a text file, compressed or not; skip a byte order mark."""
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    if _is_gzip(path):
        return gzip.open(path, "rt", encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def read_csv(path: Path, name: str, dialect: Dialect) -> tuple[pd.DataFrame, Callable[[int], str]]:
    """Read CSV as text, and check the number of cells of each row.

    The second value returns the line of a row, counted from 1 with the header. ``name`` is that of
    the file in error messages.
    """
    try:
        return _read(path, name, dialect)
    except UnicodeError:
        raise _wrong_encoding(path, name, dialect) from None
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _wrong_encoding(path, name, dialect) from None
        raise


def _read(path: Path, name: str, dialect: Dialect) -> tuple[pd.DataFrame, Callable[[int], str]]:
    header = _header(path, name, dialect)
    line = _line_finder(path, dialect)
    ragged: list[Any] = []

    def stop(record: Any) -> str:
        ragged.append(record)
        return "error"

    compression = "gzip" if _is_gzip(path) else None
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            cells = pa.csv.read_csv(
                stream,
                # ragged rows have numbers with one thread only
                read_options=pa.csv.ReadOptions(use_threads=False, encoding=dialect.encoding),
                parse_options=pa.csv.ParseOptions(
                    delimiter=dialect.sep, newlines_in_values=True, invalid_row_handler=stop
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid:
        if not ragged:
            raise
        record = ragged[0]
        raise DataError(
            f"{name}, line {line(record.number - 2)} has {record.actual_columns} "
            f"cells where the header has {record.expected_columns}; repair the line, with "
            f"{dialect.sep!r} between cells (sep=, --sep) and {dialect.decimal!r} in numbers "
            "(decimal=, --decimal)"
        ) from None
    return cells.to_pandas(), lambda position: f"line {line(position)}"


def _header(path: Path, name: str, dialect: Dialect) -> list[str]:
    """Read the names of the columns; check that they differ and that the separator is right."""
    with open_text(path, dialect.encoding) as file:
        records = csv.reader(file, delimiter=dialect.sep)
        header = next((record for record in records if record), None)
    if header is None:
        raise DataError(f"{name} is empty; pass a file with a header line and data")
    if header[0].lower().startswith("sep="):
        raise DataError(
            f"{name} begins with {header[0]!r}, a line for Excel; remove it, and pass the "
            "separator with sep= (--sep)"
        )
    if len(header) == 1:
        for other in _SEPARATORS:
            if other != dialect.sep and other in header[0]:
                raise DataError(
                    f"{name} has one column {header[0]!r}, in which {other!r} seems to separate "
                    f"several; pass sep={other!r} (--sep){_comma_too(path, other, dialect)}"
                )
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{name} has two columns named {twice!r}; rename or drop one")
    return header


def _comma_too(path: Path, sep: str, dialect: Dialect) -> str:
    """Return the argument for decimal commas, if the first row has some."""
    with open_text(path, dialect.encoding) as file:
        records = filter(None, csv.reader(file, delimiter=sep))  # without empty lines
        _, row = next(records), next(records, [])
    commas = sep != "," and any(_DECIMAL_COMMA.fullmatch(cell) for cell in row)
    return " and decimal=',' (--decimal)" if commas else ""


def _line_finder(path: Path, dialect: Dialect) -> Callable[[int], int]:
    """Return the function that finds the line at which a row starts; it reads each line once."""
    found = array("q")
    rest = _starts(path, dialect)

    def line(position: int) -> int:
        found.extend(islice(rest, max(0, position + 1 - len(found))))
        return found[position]

    return line


def _starts(path: Path, dialect: Dialect) -> Iterator[int]:
    """Yield the line at which each row starts, counted from 1 with the header."""
    with open_text(path, dialect.encoding) as file:
        reader = csv.reader(file, delimiter=dialect.sep)
        start, header = 1, True
        for record in reader:
            if record and not header:
                yield start
            header = header and not record
            start = reader.line_num + 1


def _wrong_encoding(path: Path, name: str, dialect: Dialect) -> DataError:
    """Describe the first line that the encoding cannot read, and guess another encoding."""
    with _open_bytes(path) as file:
        start = file.read(4)
        marks = (
            (codecs.BOM_UTF32_LE, "utf-32"),
            (codecs.BOM_UTF32_BE, "utf-32"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        )
        for mark, encoding in marks:
            if start.startswith(mark) and dialect.encoding.lower() != encoding:
                return DataError(
                    f"{name} is not {dialect.encoding} text but begins like {encoding}; pass "
                    f"encoding={encoding!r} (--encoding)"
                )
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode(dialect.encoding)
            except UnicodeError:
                guess = "cp1252" if re.search(rb"[\x80-\x9f]", line) else "latin-1"
                guess = "utf-16-le" if b"\0" in line else guess
                return DataError(
                    f"{name}, line {number} is not {dialect.encoding} text, and may be {guess}; "
                    f"pass encoding={guess!r} (--encoding), or save the file as UTF-8"
                )
    return DataError(
        f"{name} is not {dialect.encoding} text; pass its encoding=, such as 'latin-1' (--encoding)"
    )


def _open_bytes(path: Path) -> BinaryIO | gzip.GzipFile:
    return gzip.open(path) if _is_gzip(path) else path.open("rb")


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")
