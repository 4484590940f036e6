"""The tables of a collection: those of its shards joined, with the annotations of their fields from the sheet."""

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpaloc.manifests import ANNOTATIONS, read_annotations
from hpaloc.tables import CELLS, FIELDS, TableError


def annotate(table: pa.Table, said: Mapping[str, Mapping[str, str]]) -> pa.Table:
    """Insert the annotations of each field after the names in a table of CELLS or FIELDS.

    Cells get ``labels``, fields all of ANNOTATIONS; without a value in the sheet labels are empty, the others null.

    said: the annotations, as ``manifests.read_annotations`` returns them
    Raises TableError naming a field without annotation.
    """
    cells = "cell" in table.column_names
    # A table without rows, written elsewhere, may have columns without a type.
    place = pc.index_in(table["field"].cast(pa.string()), value_set=pa.array(list(said), pa.string()))
    if place.null_count:
        field = table["field"].filter(pc.is_null(place))[0]
        raise TableError(f"field {field} has no annotation")
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
        # With a null among them pandas would convert hashes to floats, which do not have their 64 bits.
        frame = part.to_pandas(types_mapper={pa.uint64(): pd.UInt64Dtype()}.get)
        parts.append(frame.assign(shard=np.int32(shard), row=np.arange(len(frame), dtype=np.int32)))
    if not parts:
        return schema.empty_table().to_pandas().assign(shard=np.int32(0), row=np.int32(0))
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True)


def read_cells(
    paths: Sequence[str | os.PathLike[str]], annotations: Sequence[str | os.PathLike[str]] | None = None
) -> pd.DataFrame:
    """Read the cell tables of a collection's shards into one, with the labels of their fields if annotations are given.

    Adds ``shard``, the position of the table in ``paths``, and ``row``, the position of the cell in its table, which is
    that of its tile in the shard's record files.

    Raises TableError naming a file that is not a table of cells, or a field without annotation.
    """
    return _read(paths, "cell", CELLS, annotations)


def read_fields(
    paths: Sequence[str | os.PathLike[str]], annotations: Sequence[str | os.PathLike[str]] | None = None
) -> pd.DataFrame:
    """Read the field tables of a collection's shards into one, with the annotations if they are given.

    Adds ``shard`` and ``row`` as ``read_cells`` does.

    Raises TableError naming a file that is not a table of fields, or a field without annotation.
    """
    return _read(paths, "field", FIELDS, annotations)
