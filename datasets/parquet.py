"""Parquet files: their columns, the columns of an index, and one type for the columns of parts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tsllm.errors import DataError

# pandas' name for a level of an index that has none.
_UNNAMED = re.compile(r"__index_level_\d+__")


class Roles(NamedTuple):
    """Columns of a table that become values only if an argument names them.

    ``labels`` are the columns of the folders and the levels of an index, which an argument must
    give a role. ``row_index`` is an index that numbers the rows, and is left out unless an argument
    names it. ``lacking`` maps each column that some parts lack to the name of one of those parts.
    """

    labels: tuple[str, ...] = ()
    row_index: str | None = None
    lacking: Mapping[str, str] = {}


def read_parquet(path: Path, keys: Mapping[str, str | None] | None = None) -> pa.Table:
    """Read a Parquet file with the levels of its index, and the columns of its folders, as columns.

    ``keys`` are those of a `PartFile`. An index without a name that numbers the rows is left out.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read()
    for level in _levels(table.schema):
        if isinstance(level, dict):
            steps = np.arange(level["start"], level["stop"], level["step"])
            table = table.append_column(level["name"], pa.array(steps))
    table = table.select(columns_of(table.schema))
    for name, value in (keys or {}).items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array([value] * len(table), pa.string()))
        else:
            check_key(table[name], name, value, path.name)
    return table.replace_schema_metadata(None)


def check_key(column: pa.Array | pa.ChunkedArray, name: str, value: str | None, part: str) -> None:
    """Check that a column of a part has the value that its folder gives it."""
    if not _has_only(column, value):
        raise DataError(
            f"{part!r} has a column {name!r} with other values than {value!r}, the name of its "
            "folder; rename the column or the folder"
        )


def columns_of(schema: pa.Schema) -> list[str]:
    """Return the columns of a file, without an index that has no name and numbers the rows."""
    dropped = {
        level
        for level in _levels(schema)
        if isinstance(level, str)
        and _UNNAMED.fullmatch(level)
        and pa.types.is_integer(schema.field(level).type)
    }
    return [name for name in schema.names if name not in dropped]


def find_roles(parts: Sequence[tuple[str, pa.Schema]], keys: Sequence[str]) -> Roles:
    """Find the columns that become values only if an argument names them.

    ``parts`` are the names and the schemas of the files, and ``keys`` the columns of the folders.
    """
    columns = [{*columns_of(schema), *keys, *_ranges(schema)} for _, schema in parts]
    lacking = {
        name: part
        for name in dict.fromkeys(name for names in columns for name in names)
        for names, (part, _) in zip(columns, parts)
        if name not in names
    }
    labels, row_index = list(keys), None
    for names, (_, schema) in zip(columns, parts):
        levels = [level["name"] if isinstance(level, dict) else level for level in _levels(schema)]
        levels = [name for name in levels if name in names]
        if len(levels) == 1 and _holds_integers(schema, levels[0]):
            row_index = levels[0]
        else:
            labels += levels
    return Roles(tuple(dict.fromkeys(labels)), row_index, lacking)


def common_schema(
    schemas: Sequence[pa.Schema], names: Sequence[str], source: str, parts: Sequence[str]
) -> pa.Schema:
    """Return types that fit the columns of all parts: text beside categories, dates beside times.

    A part may lack a column. ``source`` and ``parts`` are names for error messages.
    """
    fields = []
    for name in names:
        found: dict[pa.DataType, str] = {}
        for schema, part in zip(schemas, parts):
            if name in schema.names:
                found.setdefault(schema.field(name).type, part)
        common = next(iter(found))
        for kind, part in found.items():
            joined = _joined(common, kind)
            if joined is None:
                raise DataError(
                    f"the parts of {source} have different types of column {name!r}, {common} in "
                    f"{next(iter(found.values()))!r} and {kind} in {part!r}; write it with one type"
                )
            common = joined
        fields.append(pa.field(name, common))
    return pa.schema(fields)


def _joined(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return a type that holds the values of two; None if there is none."""
    if one == other:
        return one
    one, other = (
        kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (one, other)
    )
    if pa.types.is_date(one) and pa.types.is_timestamp(other) and other.tz is None:
        return other
    if pa.types.is_timestamp(one) and pa.types.is_date(other) and one.tz is None:
        return one
    try:
        pair = [pa.schema([pa.field("column", kind)]) for kind in (one, other)]
        return pa.unify_schemas(pair, promote_options="permissive").field("column").type
    except pa.ArrowException:
        return None


def _levels(schema: pa.Schema) -> list[str | dict]:
    """Return the levels of the index that pandas wrote: columns, or ranges with a name."""
    metadata = schema.pandas_metadata or {}
    levels = metadata.get("index_columns", [])
    named = [level for level in levels if isinstance(level, str) and level in schema.names]
    ranges = [
        level
        for level in levels
        if isinstance(level, dict) and level.get("kind") == "range" and _has_own_name(level, schema)
    ]
    return [*named, *ranges]


def _has_own_name(level: dict, schema: pa.Schema) -> bool:
    """Check whether a range has a name that no column has."""
    return isinstance(level.get("name"), str) and level["name"] not in schema.names


def _ranges(schema: pa.Schema) -> list[str]:
    """Return the levels of the index that are ranges, which the file does not hold as columns."""
    return [level["name"] for level in _levels(schema) if isinstance(level, dict)]


def _holds_integers(schema: pa.Schema, name: str) -> bool:
    """Check whether the level of an index holds integers."""
    return name not in schema.names or pa.types.is_integer(schema.field(name).type)


def _has_only(column: pa.Array | pa.ChunkedArray, value: str | None) -> bool:
    """Check whether a column has the value of its folder in every row."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found = column.unique()
    if value is None or len(found) != 1:
        return len(found) == 0 or (value is None and found[0].as_py() is None and len(found) == 1)
    try:
        return bool(pa.scalar(value).cast(column.type).equals(found[0]))
    except pa.ArrowException:
        return str(found[0].as_py()) == value
