"""The columns of a sheet that hpaloc does not use and only copies to its tables."""

import csv
import os
import re
from collections.abc import Sequence
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

# With leading zeros or letters (007, 1E5) they are names, such as those of plates and wells; so are longer integers,
# whose last digits many programs change.
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,14})", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d+)?", re.ASCII)


def read_columns(path: str | os.PathLike[str] | None, as_text: bool = False) -> pa.Table:
    """Read the table columns.csv or groups.csv that planning writes: ``id`` and other columns of a sheet.

    path: None for a collection without such columns
    as_text: whether numbers stay text as it is written
    Returns a table with one row per field; columns of integers of at most 15 digits are int64, of numbers that float64
    holds to their last digit float64, of anything else text; empty values are null.
    """
    if path is None:
        return pa.table({"id": pa.array([], pa.string())})
    with open(path, newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    columns = zip(*rows, strict=True)
    return pa.table(
        {name: _typed(values, as_text or name == "id") for name, values in zip(names, columns, strict=True)}
    )


def _typed(texts: Sequence[str], as_text: bool) -> pa.Array:
    known = [text for text in texts if text]
    if known and not as_text:
        if all(map(_INTEGER.fullmatch, known)):
            return pa.array([int(text) if text else None for text in texts], pa.int64())
        if all(_NUMBER.fullmatch(text) and Decimal(repr(float(text))) == Decimal(text) for text in known):
            return pa.array([float(text) if text else None for text in texts], pa.float64())
    return pa.array([text or None for text in texts], pa.string())


def columns_of(fields: Sequence[str], columns: pa.Table) -> pa.Table:
    """Return the columns of ``read_columns`` without ``id``, with one row for each of ``fields`` in their order."""
    place = pc.index_in(pa.array(fields, pa.string()), value_set=columns["id"].combine_chunks())
    return columns.drop_columns(["id"]).take(place)


def join_columns(fields: pd.DataFrame, path: str | os.PathLike[str] | None) -> pd.DataFrame:
    """Return a table of fields with the columns of a table columns.csv or groups.csv, as text.

    path: as in ``read_columns``
    """
    return fields.join(columns_of(fields["field"].tolist(), read_columns(path, as_text=True)).to_pandas())


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert a table to a data frame in which integers stay integers, also if some are unknown."""
    frame = table.to_pandas()
    for name in table.column_names:
        if pa.types.is_int64(table[name].type) and table[name].null_count:
            frame[name] = table[name].to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return frame


def add_columns(table: pa.Table, columns: pa.Table) -> pa.Table:
    """Append the columns of ``read_columns`` to a table that has ``field``."""
    of_table = columns_of(table["field"].to_pylist(), columns)
    for name in of_table.column_names:
        table = table.append_column(name, of_table[name])
    return table
