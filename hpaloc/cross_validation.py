"""The predictions of a cross-validation: each cell by the network of the fold that left it out."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hpaloc.columns import add_columns, read_columns
from hpaloc.files import atomic_path
from hpaloc.tables import write_table

# The column of the table of fields, and of the AnnData file, that says in which fold a field was left out.
FOLD = "cross_validation_fold"


def join_predictions(parts: Sequence[Path], cells: Path, out: Path) -> None:
    """Join the predictions of a shard by the networks of all folds into one table, in the order of the cell table.

    parts: the table of predictions of each fold
    cells: the cell table of the shard
    Raises ValueError naming a cell that no fold, or more than one, has predicted.
    """
    table = pa.concat_tables([pq.read_table(path) for path in parts])
    order = pq.read_table(cells, columns=["field", "cell"]).to_pandas()
    found = pd.MultiIndex.from_frame(table.select(["field", "cell"]).to_pandas())
    wanted = pd.MultiIndex.from_frame(order)
    wrong = [*found[found.duplicated()], *wanted.symmetric_difference(found)]
    if wrong:
        raise ValueError(f"field {wrong[0][0]}, cell {wrong[0][1]}: is not predicted by the network of one fold")
    write_table(out, table.take(pa.array(found.get_indexer(wanted))))


def write_columns(folds: pd.DataFrame, columns: Path | None, out: Path) -> None:
    """Write the other columns of a sheet with the fold of each field, as ``columns.read_columns`` reads them.

    folds: a table ``fold_table.FOLDS``
    columns: the other columns of the sheet, if there are any
    """
    table = pa.table({"field": folds["field"], FOLD: folds["fold"].astype(str)})
    table = add_columns(table, read_columns(columns, as_text=True))
    with atomic_path(out) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *table.column_names[1:]])
        writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))


def describe_scores(scores: pd.DataFrame, collection: str, n_folds: int, group_by: Sequence[str]) -> str:
    """Return the accuracies of a cross-validation as a sentence.

    scores: ``scores.csv`` of ``evaluation.folder``
    """
    of_level = {row["level"]: row for row in scores[scores["score"] == "accuracy"].to_dict("records")}
    found = [
        f"{_share(of_level[level])} {what}"
        for level, what in (
            ("cell", "cells alone"),
            ("cell_leaned", "cells with the evidence of their field"),
            ("field", "fields"),
            ("protein", "proteins"),
        )
        if level in of_level and pd.notna(of_level[level]["value"])
    ]
    if not found:
        return ""
    return (
        f"Cross-validated on the collection {collection} in {n_folds} folds by {', '.join(group_by)}: the likeliest "
        f"location is right in {'; '.join(found)}. Networks that had not seen a group predicted its cells; this model "
        "has seen all groups."
    )


def _share(row: Mapping[Any, Any]) -> str:
    interval = "" if pd.isna(row["low"]) else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['value']:.3f}{interval} of {int(row['n'])}"
