"""Tables of run-length masks from elsewhere: their columns, their check at planning, and the masks of some fields.

Without pandas, and pyarrow only for a Parquet table, so that the process that plans can check them.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from hpaloc import rle
from hpaloc.delimited import SheetError, check_fields, find_columns, read_delimited, read_header
from hpaloc.files import spelled_as_on_disk
from hpaloc.ids import normal_text, shown
from hpaloc.manifests import ChangedError, ManifestRow, unchanged
from hpaloc.rle import RunLengths, is_table

_KIND = "table of masks"
# The columns of (field, height, width) in the forms of tables of masks; the first is hpaloc's own cell table.
_FORMS = (("field", "height", "width"), ("ID", "ImageHeight", "ImageWidth"))
# The columns of masks; the first that a table has counts.
_MASKS = ("rle", "EncodedMask", "PredictionString")
_KNOWN = (*_FORMS[0], *_FORMS[1], "cell", *_MASKS)
# Letters: the masks of all cells of a field may be one value.
_LONGEST = 1 << 30


def check_table(path: str | os.PathLike[str], ids: Collection[str], collection: str) -> None:
    """Check at planning that a table of masks can be read, and has a field of a collection's sheet.

    A table may be large: the rows of a CSV are read up to the first that is of a field of the sheet.

    ids: of the sheet
    Raises SheetError naming the table and the wrong column, or if it has no rows or no field of the sheet.
    """
    name = f"{_KIND} {os.fspath(path)}"
    elsewhere: dict[str, None] = {}
    for field in _fields(path):
        if field in ids:
            return
        elsewhere[field] = None
    if not elsewhere:
        raise SheetError(f"{name}: has no rows")
    check_fields(name, elsewhere, ids, collection)


def read_tables(rows: Sequence[ManifestRow]) -> dict[str, dict[str, RunLengths | str]]:
    """Read a shard's rows of each table of masks in its manifest; if a table changed, each row is that error.

    Returns {path: as ``read_rle_table``}; nothing for masks that are images.
    Raises SheetError as ``read_rle_table``.
    """
    wanted: dict[str, list[str]] = {}
    states: dict[str, str] = {}
    for row in rows:
        for kind, path in (("cell_mask", row.cell_mask), ("nucleus_mask", row.nucleus_mask)):
            if path and is_table(path):
                wanted.setdefault(path, []).append(row.id)
                states |= {path: row.states[kind]} if kind in row.states else {}
    tables: dict[str, dict[str, RunLengths | str]] = {}
    for path, fields in wanted.items():
        try:
            with unchanged({path: path}, states):
                tables[path] = dict(read_rle_table(path, fields))
        except ChangedError as error:
            tables[path] = dict.fromkeys(fields, str(error).removeprefix(f"{path}: "))
    return tables


def read_rle_table(path: str | os.PathLike[str], fields: Iterable[str]) -> dict[str, RunLengths | str]:
    """Read the masks of some fields from a table of run-length masks: Parquet, or a CSV for ``read_delimited``.

    It has one of three forms: a row per cell with field, cell, height, width, rle (COCO string; hpaloc's own cell
    table); a row per cell with ID, ImageHeight, ImageWidth, EncodedMask (Kaggle mask); or a row per field with ID,
    ImageHeight, ImageWidth, PredictionString (triples of class, confidence, Kaggle mask; equal masks of several classes
    are one cell). Without a column ``cell`` cells are numbered from 1 in the order of the table.

    Returns {field: (height, width, {cell: COCO string})} for the fields that the table has, or {field: error} for a
    field whose rows are wrong.
    Raises SheetError naming the file, and the column or line, if it is not such a table.
    """
    fields = set(fields)
    found: dict[str, RunLengths] = {}
    broken: dict[str, str] = {}
    for columns, row in _parquet_rows(path, fields) if _is_parquet(path) else _csv_rows(path):
        field = normal_text(row[columns[0]])
        if field not in fields:
            continue
        try:
            _add_row(found, field, columns, row)
        except ValueError as error:
            # Wrong rows of one field do not affect the others.
            broken.setdefault(field, f"field {field}: {error}")
    return found | broken


def _is_parquet(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).lower().endswith(".parquet")


def _columns(header: Sequence[str], name: str) -> tuple[str, str, str, str]:
    """Return the columns of field, height, width and mask that a table of this header has, or is to have."""
    known = find_columns(header, name, (), loose=_KNOWN, told=_KNOWN)
    if not known:
        raise SheetError(
            f"{name}: needs a column field or ID (its header has {', '.join(map(shown, header)) or 'nothing'})"
        )
    key, height, width = max(_FORMS, key=lambda form: len(known.keys() & set(form)))
    # Without any mask column, that of the form is missing.
    masks = [mask for mask in _MASKS if mask in known] or ["rle" if key == "field" else "EncodedMask"]
    return key, height, width, masks[0]


def _csv_rows(path: str | os.PathLike[str]) -> Iterator[tuple[Sequence[str], Mapping[str, str]]]:
    """Yield the columns (field, height, width, mask) of a table, and each row."""
    columns = _columns(read_header(path, _KIND, _KNOWN), f"{_KIND} {os.fspath(path)}")
    for _, row in read_delimited(path, _KIND, columns, ("cell",), longest=_LONGEST):
        yield columns, row


@contextmanager
def _arrow_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise SheetError for a Parquet table that cannot be read."""
    import pyarrow as pa

    try:
        yield
    except SheetError:
        raise
    except FileNotFoundError:
        raise SheetError(f"{_KIND} {os.fspath(path)}: no such file") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        cause = (str(error).splitlines() or [""])[0]
        raise SheetError(f"{_KIND} {os.fspath(path)}: cannot be read ({cause})") from None


def _parquet_columns(path: str | os.PathLike[str]) -> tuple[Sequence[str], dict[str, str], list[str]]:
    """Return the columns of a table, their names in the file, and the ids of its fields as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = f"{_KIND} {os.fspath(path)}"
    header = pq.read_schema(path).names
    columns = _columns(header, name)
    names = {column: header[place] for column, place in find_columns(header, name, columns, ("cell",)).items()}
    key = names[columns[0]]
    # Ids may be numbers in a Parquet table.
    ids = pq.read_table(path, columns=[key])[key].cast(pa.string()).unique().to_pylist()
    return columns, names, [id for id in ids if id is not None]


def _parquet_rows(
    path: str | os.PathLike[str], fields: Collection[str]
) -> Iterator[tuple[Sequence[str], Mapping[str, str]]]:
    """Yield the columns (field, height, width, mask) of a table, and each row of some fields."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with _arrow_errors(path):
        columns, names, ids = _parquet_columns(path)
        spelled = [id for id in ids if normal_text(id) in fields]
        wanted = pc.field(names[columns[0]]).cast(pa.string()).isin(spelled)
        table = pq.read_table(path, columns=list(names.values()), filters=wanted)
    for row in table.to_pylist():
        yield columns, {column: "" if row[own] is None else str(row[own]) for column, own in names.items()}


def _fields(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield the fields of a table, possibly repeated."""
    if _is_parquet(path):
        with _arrow_errors(path):
            _, _, ids = _parquet_columns(spelled_as_on_disk(os.fspath(path)))
        yield from map(normal_text, ids)
    else:
        for columns, row in _csv_rows(path):
            yield row[columns[0]]


def _whole(row: Mapping[str, str], column: str) -> int:
    text = row[column]
    # No such number has more digits, and int() would not say which text of thousands of them is wrong.
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{column} {text[:40]!r} is not a whole number")
    return int(text)


def _add_row(found: dict[str, RunLengths], field: str, columns: Sequence[str], row: Mapping[str, str]) -> None:
    _, height_column, width_column, mask_column = columns
    size = _whole(row, height_column), _whole(row, width_column)
    height, width, masks = found.setdefault(field, (*size, {}))
    if (height, width) != size:
        raise ValueError(f"its rows give two sizes, {height} x {width} and {size[0]} x {size[1]}")
    if mask_column == "rle":
        new = [row["rle"]]
    elif mask_column == "EncodedMask":
        new = [rle.from_kaggle(row["EncodedMask"])]
    else:
        new = [rle.from_kaggle(word) for word in dict.fromkeys(row["PredictionString"].split()[2::3])]
        new = [counts for counts in new if rle.run_lengths(counts)[1::2].sum()]
    for counts in new:
        cell = _whole(row, "cell") if "cell" in row else len(masks) + 1
        if not 0 < cell <= np.iinfo(np.uint32).max:
            raise ValueError(f"cell {cell} is not an id; ids start at 1, since 0 is the background")
        if cell in masks:
            raise ValueError(f"cell {cell} appears twice")
        masks[cell] = counts
