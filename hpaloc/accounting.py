"""The account of a run: how many fields and cells came in, went through and were rejected, and why."""

import csv
import os
import re
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
# What differs between the warnings of two fields: numbers, paths, the names of fields.
_OWN = re.compile(r"\S*/\S*|\S+\.[A-Za-z]\w*|(?<=field )\S+|\d+(?:\.\d+)?")


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


def list_warnings(collections: Mapping[str, str | os.PathLike[str]], path: str | os.PathLike[str]) -> None:
    """Write a CSV with every kind of warning of each collection: collection, fields (their number), field, warning.

    Warnings that differ only in numbers, paths and names of fields are one kind, shown by the first field that has it.
    The most frequent come first.

    collections: {name: its table of ``join_fields``}
    """
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["collection", "fields", "field", "warning"])
        for name, of_collection in collections.items():
            kinds: dict[str, list[tuple[str, str]]] = {}
            for row in pq.read_table(of_collection, columns=["field", "warnings"]).to_pylist():
                for warning in filter(None, (row["warnings"] or "").split("; ")):
                    kinds.setdefault(_OWN.sub("#", warning), []).append((row["field"], warning))
            for shown in sorted(kinds.values(), key=len, reverse=True):
                writer.writerow([name, len(shown), *shown[0]])


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


def summary_lines(
    summary: str | os.PathLike[str],
    rejected: str | os.PathLike[str],
    warned: str | os.PathLike[str],
    at_most: int = 10,
) -> list[str]:
    """Return the files of ``summarise``, ``list_rejected`` and ``list_warnings`` as sentences.

    at_most: reasons and warnings per collection
    """
    lines = []
    reasons, warnings = _by_collection(rejected), _by_collection(warned)
    with open(summary, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = row["collection"]
            predicted = f", {row['cells_predicted']} predicted" if row["cells_predicted"] else ""
            lines.append(
                f"{name}: {row['fields']} fields in, {row['fields_through']} through "
                f"({row['fields_warned']} with a warning), {row['fields_rejected']} rejected; "
                f"{row['cells']} cells found{predicted}"
            )
            listed = [f"  rejected {one['field']} ({one['stage']}): {one['reason']}" for one in reasons.get(name, ())]
            lines += _shortened(listed, at_most, rejected)
            listed = [f"  warning in {_counted(one)}: {one['warning']}" for one in warnings.get(name, ())]
            lines += _shortened(listed, at_most, warned)
    return lines


def left_out_lines(left_out: str | os.PathLike[str]) -> list[str]:
    """Return what scores leave out because training has seen it, a sentence per collection; left_out: left_out.csv."""
    lines = []
    for name, kinds in _by_collection(left_out).items():
        fields, cells = (sum(int(kind[what]) for kind in kinds) for what in ("fields", "cells"))
        by_kind = ", ".join(f"by {kind['kind']}: {kind['cells']}" for kind in kinds)
        lines.append(
            f"{name}: {cells} cells are not scored, because training has seen them or their groups (cells {by_kind}; "
            f"whole fields: {fields})"
        )
    return lines


def baseline_lines(baselines: str | os.PathLike[str]) -> list[str]:
    """Return how the network compares with its best baseline, a sentence per collection; baselines: baselines.csv."""
    return [
        f"{name}: {row['comparison']}"
        for name, rows in _by_collection(baselines).items()
        for row in rows
        if row["comparison"]
    ]


def hpav23_lines(table: str | os.PathLike[str]) -> list[str]:
    """Return the scores of the benchmark HPAv23 as a table for people; table: hpav23.csv."""

    def number(text: str) -> str:
        return f"{float(text):.4f}" if text else "-"

    lines = []
    for name, (overall, *locations) in _by_collection(table).items():
        means = {"mean AP": "ap", "micro AP": "micro_ap", "ranking AP": "ranking_ap", "mean AUC": "auc"}
        listed = ", ".join(f"{what} {number(overall[column])}" for what, column in means.items())
        lines += [f"{name}: HPAv23, {overall['cells']} crops: {listed}"]
        lines += [f"  {'location':<26}{'crops':>8}{'AP':>8}{'AUC':>8}"]
        for row in locations:
            lines += [f"  {row['location']:<26}{row['cells']:>8}{number(row['ap']):>8}{number(row['auc']):>8}"]
    return lines


def _by_collection(table: str | os.PathLike[str]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    with open(table, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["collection"], []).append(row)
    return found


def _shortened(lines: list[str], at_most: int, table: str | os.PathLike[str]) -> list[str]:
    left = len(lines) - at_most
    return lines[:at_most] + ([f"  and {left} more, all in {os.fspath(table)}"] if left > 0 else [])


def _counted(warning: Mapping[str, str]) -> str:
    """Return in how many fields a warning is, and the first of them."""
    return warning["field"] if warning["fields"] == "1" else f"{warning['fields']} fields, as in {warning['field']}"
