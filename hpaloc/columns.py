"""The columns of a sheet that hpaloc only carries to its tables."""

import csv
import os
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

# With leading zeros or letters (007, 1E5) they are names, such as those of plates and wells.
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d+)?", re.ASCII)


def read_columns(path: str | os.PathLike[str] | None) -> pa.Table:
    """Read the table columns.csv that planning writes: ``id`` and the columns that a sheet has for the user alone.

    path: None for a collection without such columns
    Returns a table with one row per field; columns of integers are int64, of numbers float64, of anything else text;
    empty values are null.
    """
    if path is None:
        return pa.table({"id": pa.array([], pa.string())})
    with open(path, newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    columns = zip(*rows, strict=True)
    return pa.table({name: _typed(values, name == "id") for name, values in zip(names, columns, strict=True)})


def _typed(texts: Sequence[str], as_text: bool) -> pa.Array:
    known = [text for text in texts if text]
    if known and not as_text:
        for numbers, read, kind in ((_INTEGER, int, pa.int64()), (_NUMBER, float, pa.float64())):
            if all(map(numbers.fullmatch, known)):
                return pa.array([read(text) if text else None for text in texts], kind)
    return pa.array([text or None for text in texts], pa.string())


def columns_of(fields: Sequence[str], columns: pa.Table) -> pa.Table:
    """Return the columns of ``read_columns`` without ``id``, with one row for each of ``fields`` in their order."""
    place = pc.index_in(pa.array(fields, pa.string()), value_set=columns["id"].combine_chunks())
    return columns.drop_columns(["id"]).take(place)


def add_columns(table: pa.Table, columns: pa.Table) -> pa.Table:
    """Append the columns of ``read_columns`` to a table that has ``field``."""
    of_table = columns_of(table["field"].to_pylist(), columns)
    for name in of_table.column_names:
        table = table.append_column(name, of_table[name])
    return table
