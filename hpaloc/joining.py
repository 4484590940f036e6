"""The tables of a collection: those of its shards in one, with what the sheet says of their fields."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpaloc.manifests import ANNOTATIONS, read_annotations
from hpaloc.tables import CELLS, FIELDS, TableError


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
