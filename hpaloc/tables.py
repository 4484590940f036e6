"""The tables of cells and fields: their Parquet schemas, and the writing of tables."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hpaloc.classes import COLOURS, N_CLASSES
from hpaloc.files import atomic_path

REGIONS = ("cell", "nucleus", "cytoplasm", "ring")
# The three stains that do not depend on the protein: two images of the same cells agree in them.
REFERENCE_COLOURS = ("red", "blue", "yellow")
PROBABILITIES = tuple(f"p_{index}" for index in range(N_CLASSES))
# Those of the network alone, where they are fused with a regression (train.fusion).
NETWORK = tuple(f"network_{index}" for index in range(N_CLASSES))
# Those shifted towards the field, in tables of predictions with a weight of the field (predict.field_weight).
LEANED = tuple(f"leaned_{index}" for index in range(N_CLASSES))


def calling_columns(columns: Sequence[str] | pd.DataFrame) -> list[str]:
    """Return the names of the probabilities that the calls of a table of predictions follow: LEANED if it has them."""
    return list(LEANED if LEANED[0] in columns else PROBABILITIES)


def group_probabilities(predictions: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the probabilities that a table of predictions has, (n, 19) float32, by their names in AnnData."""
    groups = {"probabilities": PROBABILITIES, "network_probabilities": NETWORK, "leaned_probabilities": LEANED}
    return {
        name: predictions[list(columns)].to_numpy(np.float32)
        for name, columns in groups.items()
        if columns[0] in predictions
    }


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

# What is known of a field after its segmentation, before its cells are measured.
SEGMENTED = pa.schema(
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
    ]
)

FIELDS = pa.schema(
    [
        *SEGMENTED,
        pa.field("warnings", pa.string()),
        *(
            pa.field(f"{colour}_{what}", pa.float32())
            for colour in COLOURS
            for what in ("background", "noise", "white")
        ),
        *(pa.field(f"{colour}_full_scale", pa.int32()) for colour in COLOURS),
        pa.field("green_threshold", pa.float32()),
        *(pa.field(f"hash_{colour}", pa.uint64()) for colour in REFERENCE_COLOURS),
        *(pa.field(f"digest_{colour}", pa.uint64()) for colour in COLOURS),
    ]
)


def are_crops(cells: pd.DataFrame) -> np.ndarray:
    """Return which cells are their whole field, as ready-made crops are, whose outlines are unknown: (n,) bool."""
    return (cells["area_px"] == cells["height"] * cells["width"]).to_numpy(bool)


class TableError(ValueError):
    """A table that lacks a column or has rows that do not fit together; the message names the file or column."""


def to_table(rows: Sequence[Mapping[str, Any]] | pd.DataFrame, schema: pa.Schema) -> pa.Table:
    """Convert rows to the columns, order and types of ``schema``; missing values (None, NaN) become nulls.

    Raises TableError naming a missing column.
    """
    if isinstance(rows, pd.DataFrame):
        lacking = [name for name in schema.names if name not in rows]
        if lacking:
            raise TableError(f"the table lacks the column {lacking[0]}")
        return pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False).replace_schema_metadata()
    # from_pandas=True turns NaN into null; Table.from_pylist would keep it.
    columns = [
        pa.array([row.get(name) for row in rows], type, from_pandas=True)
        for name, type in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def write_table(path: str | os.PathLike[str], table: pa.Table | pd.DataFrame) -> None:
    """Write a Parquet file in one atomic step, without the metadata of pandas; equal tables give equal bytes."""
    if isinstance(table, pd.DataFrame):
        table = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata()
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
