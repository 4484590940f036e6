"""The account of a run: how many fields and cells came in, went through and were rejected, and why."""

import csv
import os
from collections.abc import Mapping

from hpaloc.files import atomic_path

SUMMARY = (
    "collection",
    "fields",
    "fields_through",
    "fields_warned",
    "fields_rejected",
    "cells",
    "cells_predicted",
)


def list_rejected(collections: Mapping[str, str | os.PathLike[str]], path: str | os.PathLike[str]) -> None:
    """Write a CSV with collection, field, stage and reason of every rejected field.

    collections: {name: its table of ``join_fields``}
    """
    # Rooms that Snakemake's own process reads need no pyarrow.
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["collection", "field", "stage", "reason"])
        for name, of_collection in collections.items():
            for row in pq.read_table(of_collection, columns=["field", "status", "stage", "reason"]).to_pylist():
                if row["status"] != "ok":
                    writer.writerow([name, row["field"], row["stage"], row["reason"]])


def summarise(
    fields: Mapping[str, str | os.PathLike[str]],
    predictions: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
) -> None:
    """Write a CSV with the columns SUMMARY: how many fields and cells of each collection came in and went out.

    fields: {collection: its table of ``join_fields``}
    predictions: {collection: table of its predicted cells}, of the collections that are predicted
    Raises ValueError if not every cell of a collection is predicted once.
    """
    import pyarrow.parquet as pq

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
                    raise ValueError(f"{os.fspath(predictions[name])}: has {predicted} cells, but {cells} were found")
            warned = int((through["warnings"] != "").sum())
            writer.writerow([name, len(table), len(through), warned, len(table) - len(through), cells, predicted])


def summary_lines(summary: str | os.PathLike[str], rejected: str | os.PathLike[str], at_most: int = 10) -> list[str]:
    """Return the files of ``summarise`` and ``list_rejected`` as sentences, ``at_most`` reasons per collection."""
    with open(rejected, newline="", encoding="utf-8") as file:
        reasons = list(csv.DictReader(file))
    lines = []
    with open(summary, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            predicted = f", {row['cells_predicted']} predicted" if row["cells_predicted"] else ""
            lines.append(
                f"{row['collection']}: {row['fields']} fields in, {row['fields_through']} through "
                f"({row['fields_warned']} with a warning), {row['fields_rejected']} rejected; "
                f"{row['cells']} cells found{predicted}"
            )
            own = [one for one in reasons if one["collection"] == row["collection"]]
            lines += [f"  rejected {one['field']} ({one['stage']}): {one['reason']}" for one in own[:at_most]]
            if len(own) > at_most:
                lines.append(f"  and {len(own) - at_most} more, all in {os.fspath(rejected)}")
    return lines
