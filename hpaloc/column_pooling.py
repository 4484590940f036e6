"""Calls pooled by columns of the sheet, such as well and treatment."""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hpaloc.classes import unite_labels
from hpaloc.layout import CollectionFiles
from hpaloc.pooling import pooled_calls
from hpaloc.progress import log
from hpaloc.tables import PROBABILITIES, write_table


def pool_by_columns(
    files: CollectionFiles,
    columns: Sequence[str],
    out: str | os.PathLike[str],
    prototypes: np.ndarray | None = None,
    outputs: Sequence[str] = PROBABILITIES,
) -> None:
    """Pool the cells of a collection over the fields that have the same values in all of some columns.

    Writes a table with a row for each combination of values, an unknown value being one: the columns, sheet_labels (all
    labels of the fields), n_fields, and the columns of ``pooling.pooled_calls``.

    columns: names of columns of fields.parquet
    prototypes: (19, 19) float64, of the columns ``outputs``, as in ``pooling.pooled_calls``
    """
    cells, fields = (pd.read_parquet(files.path(kind)) for kind in ("pooled_cells", "pooled_fields"))
    fields = fields.assign(group=fields.groupby(list(columns), dropna=False).ngroup())
    of_group = fields.groupby("group")
    owners = of_group[list(columns)].head(1).set_index(fields.drop_duplicates("group")["group"]).sort_index()
    owners["sheet_labels"] = of_group["sheet_labels"].agg(unite_labels)
    owners["n_fields"] = of_group.size()
    of_cells = cells.assign(group=cells["field"].map(fields.set_index("field")["group"]))
    pooled = pooled_calls(of_cells, owners.reset_index(), "group", prototypes, outputs)
    write_table(out, pooled.drop(columns="group"))
    log.info("%d cells of %d fields in %d groups by %s", len(cells), len(fields), len(owners), ", ".join(columns))
