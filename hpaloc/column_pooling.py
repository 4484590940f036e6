"""Calls pooled by columns of the sheet, such as well and treatment."""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hpaloc.classes import unite_labels
from hpaloc.columns import to_frame
from hpaloc.layout import CollectionFiles
from hpaloc.pooling import call_groups
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
    labels of the fields), n_fields, and the columns of ``pooling.call_groups``.

    columns: names of columns of fields.parquet
    prototypes: (19, 19) float64, of the columns ``outputs``, as in ``pooling.call_groups``
    """
    cells = pd.read_parquet(files.path("pooled_cells"))
    fields = to_frame(pq.read_table(files.path("pooled_fields"), columns=["field", "sheet_labels", *columns]))
    # Not as a column of the table, since a column of the sheet may have any name.
    group = fields.groupby(list(columns), dropna=False).ngroup().to_numpy()
    of_group = fields.groupby(group)
    first = pd.Series(group).drop_duplicates().sort_values().index
    owners = fields.loc[first, list(columns)].reset_index(drop=True)
    owners["sheet_labels"] = of_group["sheet_labels"].agg(unite_labels)
    owners["n_fields"] = of_group.size()
    of_cells = group[pd.Index(fields["field"]).get_indexer(pd.Index(cells["field"]))]
    write_table(out, pd.concat([owners, call_groups(cells, of_cells, len(owners), prototypes, outputs)], axis=1))
    log.info("%d cells of %d fields in %d groups by %s", len(cells), len(fields), len(owners), ", ".join(columns))
