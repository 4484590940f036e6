"""The tables of cells, fields and examples: their Parquet schemas, reading and writing."""

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpaloc.classes import COLOURS, N_CLASSES
from hpaloc.files import atomic_path
from hpaloc.manifests import ANNOTATIONS, read_annotations

REGIONS = ("cell", "nucleus", "cytoplasm", "ring")
# The three stains that are the same whatever the protein: two images of the same cells agree in them.
REFERENCE_COLOURS = ("red", "blue", "yellow")
PROBABILITIES = tuple(f"p_{index}" for index in range(N_CLASSES))
LABEL_COLUMNS = tuple(f"label_{index}" for index in range(N_CLASSES))
PARTS = ("train", "validation")


def _measurements() -> list[tuple[str, pa.DataType]]:
    columns = []
    for colour in COLOURS:
        columns += [(f"{colour}_{region}_{what}", pa.float32()) for region in REGIONS for what in ("mean", "std")]
        columns += [(f"{colour}_{what}", pa.float32()) for what in ("median", "p99", "peak", "saturated")]
        columns += [(f"{colour}_nucleus_cytoplasm_ratio", pa.float32())]
    return columns


CELLS = pa.schema(
    [
        ("field", pa.string()),
        ("cell", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("pixel_size", pa.float64()),
        *((edge, pa.int32()) for edge in ("y0", "x0", "y1", "x1")),
        *((name, pa.float32()) for name in ("centroid_y", "centroid_x", "centroid_y_um", "centroid_x_um")),
        ("area_px", pa.int32()),
        ("area_um2", pa.float32()),
        ("nucleus_area_px", pa.int32()),
        ("nucleus_area_um2", pa.float32()),
        ("nucleus_fraction", pa.float32()),
        ("nucleus_cytoplasm_area_ratio", pa.float32()),
        ("border", pa.bool_()),
        *_measurements(),
        ("focus", pa.float32()),
        ("saturation", pa.float32()),
        ("green_signal", pa.float32()),
        ("rle", pa.string()),
    ]
)

FIELDS = pa.schema(
    [
        ("field", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("dtype", pa.string()),
        ("pixel_size", pa.float64()),
        ("n_cells", pa.int32()),
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("warnings", pa.string()),
        ("full_scale", pa.int32()),
        *((f"{colour}_{what}", pa.float32()) for colour in COLOURS for what in ("background", "noise", "white")),
        ("green_threshold", pa.float32()),
        *((f"hash_{colour}", pa.uint64()) for colour in REFERENCE_COLOURS),
        *((f"digest_{colour}", pa.uint64()) for colour in COLOURS),
    ]
)

EXAMPLES = pa.schema(
    [
        ("part", pa.string()),
        ("record_shard", pa.int32()),
        ("position", pa.int32()),
        ("field", pa.string()),
        ("cell", pa.int32()),
        ("key", pa.int64()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("group", pa.string()),
        ("origin", pa.string()),
        ("copy", pa.int32()),
        ("copies", pa.int32()),
        ("green_scale", pa.float32()),
        ("weight", pa.float32()),
        ("labels", pa.string()),
        *((column, pa.uint8()) for column in LABEL_COLUMNS),
    ]
)


class TableError(ValueError):
    """A table that lacks a column or mixes what should be apart; the message names the file or column."""


class TooManyRejected(RuntimeError):
    """More fields were rejected than `max_rejected_fraction` allows; `rejected` lists (field, reason)."""

    def __init__(self, rejected: Sequence[tuple[str, str]], n_fields: int, fraction: float) -> None:
        self.rejected = list(rejected)
        lines = "\n".join(f"  {field}: {reason}" for field, reason in self.rejected)
        super().__init__(
            f"{len(self.rejected)} of {n_fields} fields rejected, max_rejected_fraction is {fraction}:\n{lines}"
        )


def to_table(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Bring rows into the columns, order and types of ``schema``.

    Missing values (None, NaN) become nulls. Raises TableError naming a column that is lacking.
    """
    if isinstance(rows, pd.DataFrame):
        lacking = [name for name in schema.names if name not in rows]
        if lacking:
            raise TableError(f"the table lacks the column {lacking[0]}")
        return pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False).replace_schema_metadata()
    # from_pandas makes NaN a null here too; Table.from_pylist would keep it.
    columns = [
        pa.array([row.get(name) for row in rows], type, from_pandas=True)
        for name, type in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_table(path: str | os.PathLike[str], table: pa.Table) -> None:
    """Write a Parquet file in one atomic step; equal tables give equal bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def annotate(table: pa.Table, said: Mapping[str, Mapping[str, str]]) -> pa.Table:
    """Put what the sheet says of each field behind the names of a table of CELLS or FIELDS.

    said: as ``manifests.read_annotations`` gives it. A row of cells gets ``labels``, one of fields all of ANNOTATIONS;
    where the sheet says nothing, labels are empty and the others null. Raises TableError naming a field of which there
    is no annotation.
    """
    cells = "cell" in table.column_names
    # A table without rows, written elsewhere, may know no type of its columns.
    place = pc.index_in(table["field"].cast(pa.string()), value_set=pa.array(list(said), pa.string()))
    if place.null_count:
        field = table["field"].filter(pc.is_null(place))[0]
        raise TableError(f"there is no annotation of field {field}")
    for at, column in enumerate(("labels",) if cells else ANNOTATIONS):
        texts = [of_field[column] for of_field in said.values()]
        values = pa.array(texts if column == "labels" else [text or None for text in texts], pa.string())
        table = table.add_column(at + (2 if cells else 1), pa.field(column, pa.string()), values.take(place))
    return table


def _read(
    paths: Iterable[str | os.PathLike[str]],
    key: str,
    schema: pa.Schema,
    annotations: Sequence[str | os.PathLike[str]] | None,
) -> pd.DataFrame:
    said = None if annotations is None else read_annotations(annotations)
    if said is not None:
        schema = annotate(schema.empty_table(), said).schema
    parts = []
    for shard, path in enumerate(paths):
        part = pq.read_table(path)
        if key not in part.column_names:
            raise TableError(f"{os.fspath(path)}: lacks the column {key}")
        part = part if said is None else annotate(part, said)
        # Beside a null pandas would make floats of them, which do not hold the 64 bits of a hash.
        frame = part.to_pandas(types_mapper={pa.uint64(): pd.UInt64Dtype()}.get)
        parts.append(frame.assign(shard=np.int32(shard), row=np.arange(len(frame), dtype=np.int32)))
    if not parts:
        return schema.empty_table().to_pandas().assign(shard=np.int32(0), row=np.int32(0))
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True)


def read_cells(
    paths: Sequence[str | os.PathLike[str]], annotations: Sequence[str | os.PathLike[str]] | None = None
) -> pd.DataFrame:
    """Read the cell tables of a collection's shards into one, with the labels of their fields in the annotations given.

    Adds ``shard``, the position of the table in ``paths``, and ``row``, the position of the cell in its table and so
    of its tile in the shard's record files. Raises TableError naming a file that is no table of cells, or a field
    without annotation.
    """
    return _read([Path(path) for path in paths], "cell", CELLS, annotations)


def read_fields(
    paths: Sequence[str | os.PathLike[str]], annotations: Sequence[str | os.PathLike[str]] | None = None
) -> pd.DataFrame:
    """Read the field tables of a collection's shards into one, with what the annotations given say of each field.

    Adds ``shard`` and ``row`` as read_cells does. Raises TableError as that does.
    """
    return _read([Path(path) for path in paths], "field", FIELDS, annotations)


def list_rejected(collections: Mapping[str, str | os.PathLike[str]], path: str | os.PathLike[str]) -> None:
    """Write the CSV collection,field,stage,reason of every rejected field; ``collections`` maps names to tables."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["collection", "field", "stage", "reason"])
        for name, of_collection in collections.items():
            for row in pq.read_table(of_collection, columns=["field", "status", "stage", "reason"]).to_pylist():
                if row["status"] != "ok":
                    writer.writerow([name, row["field"], row["stage"], row["reason"]])


SUMMARY = (
    "collection",
    "fields",
    "fields_through",
    "fields_warned",
    "fields_rejected",
    "cells",
    "cells_predicted",
)


def summarise(
    fields: Mapping[str, str | os.PathLike[str]],
    predictions: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
) -> None:
    """Write how many fields and cells of each collection came in and went out, a CSV with the columns SUMMARY.

    fields: {collection: its table of join_fields}; predictions: {collection: table of its predicted cells}, of those
    that are predicted. Raises TableError where not every cell of a collection is predicted once.
    """
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(SUMMARY)
        for name, of_collection in fields.items():
            table = pq.read_table(of_collection, columns=["status", "warnings", "n_cells"]).to_pandas()
            through = table[table["status"] == "ok"]
            cells, predicted = int(through["n_cells"].sum()), ""
            if name in predictions:
                predicted = pq.ParquetFile(predictions[name]).metadata.num_rows
                if predicted != cells:
                    raise TableError(f"{os.fspath(predictions[name])}: has {predicted} cells, {cells} were found")
            warned = int((through["warnings"] != "").sum())
            writer.writerow([name, len(table), len(through), warned, len(table) - len(through), cells, predicted])


def shared_channels(fields: pa.Table) -> list[str]:
    """Tell, for each field of a table FIELDS, with which other fields it shares channel images, pixel by pixel.

    Returns (n,) sentences, empty where a field's channels are its own. A blank channel is nobody's.
    """
    of_row: list[dict[int, list[str]]] = [{} for _ in range(len(fields))]
    names = fields["field"].to_pylist()
    for colour in COLOURS:
        holders: dict[int, list[int]] = {}
        for row, content in enumerate(fields[f"digest_{colour}"].to_pylist()):
            if content is not None:
                holders.setdefault(content, []).append(row)
        for rows in holders.values():
            for row in rows if len(rows) > 1 else ():
                other = rows[rows[0] == row]
                of_row[row].setdefault(other, []).append(colour)
    return [
        "; ".join(
            f"the same images as field {names[other]}"
            if len(colours) == len(COLOURS)
            else f"the same {' and '.join(colours)} image as field {names[other]}"
            for other, colours in shared.items()
        )
        for shared in of_row
    ]


def join_fields(
    paths: Mapping[str, str | os.PathLike[str]],
    annotations: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    max_rejected_fraction: float = 1.0,
) -> None:
    """Join the field tables of a collection's shards into one Parquet file, sorted by field.

    paths: {name of the shard: its table}; annotations: tables of what the sheet says of their fields. Adds this, and
    ``shard``, the name of the shard, and the warnings of `shared_channels`. Raises TableError naming a file that is no
    table of fields, a field that two shards have or one without annotation, and TooManyRejected where more than
    ``max_rejected_fraction`` of the collection's fields (rounded up) are rejected: small shards may each lose one.
    """
    parts = []
    for name, path in paths.items():
        table = pq.read_table(path)
        if not table.schema.equals(FIELDS):
            raise TableError(f"{os.fspath(path)}: is no table of fields")
        parts.append(table.append_column(pa.field("shard", pa.string()), pa.array([name] * len(table), pa.string())))
    empty = FIELDS.append(pa.field("shard", pa.string())).empty_table()
    every = annotate(pa.concat_tables([empty, *parts]), read_annotations(annotations))
    joined = every.sort_by("field").combine_chunks()
    counts = joined["field"].value_counts()
    for entry in counts.to_pylist():
        if entry["counts"] > 1:
            raise TableError(f"the field {entry['values']} is in {entry['counts']} shards")
    found = zip(joined["warnings"].to_pylist(), shared_channels(joined), strict=True)
    warnings = pa.array(["; ".join(filter(None, pair)) for pair in found], pa.string())
    joined = joined.set_column(joined.schema.get_field_index("warnings"), "warnings", warnings)
    write_table(out, joined)
    rejected = joined.filter(pc.not_equal(joined["status"], "ok")).select(["field", "reason"]).to_pylist()
    if len(rejected) > math.ceil(max_rejected_fraction * len(joined)):
        raise TooManyRejected([tuple(row.values()) for row in rejected], len(joined), max_rejected_fraction)
