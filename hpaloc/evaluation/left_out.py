"""What training has seen of a collection, which is left out of its scores."""

from dataclasses import replace
from typing import Any

import pandas as pd

from hpaloc.leaving_out import cell_index
from hpaloc.matching import Matches, pair_cells


class SeenError(ValueError):
    """Training has seen all that could be scored of a collection; the message names the collection."""


def without_fields(table: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table with ``field`` that are not of a field in ``seen``.

    seen: a table ``seen.finding.LEFT_OUT``
    """
    return table[~table["field"].isin(seen.loc[seen["cell"] == 0, "field"])].reset_index(drop=True)


def without_cells(
    cells: pd.DataFrame, truth: pd.DataFrame | None, matches: Matches | None, seen: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame | None, Matches | None]:
    """Return cells, true cells and their matches without the single cells in ``seen`` and their true partners.

    cells, truth, matches: as ``evaluate_collection`` takes them
    seen: a table ``seen.finding.LEFT_OUT``
    """
    own = cell_index(seen)
    if truth is not None and matches is not None:
        pairs = pair_cells(matches.pairs)
        partners = cell_index(pairs, "truth_cell")[cell_index(pairs).isin(own)]
        known = cell_index(matches.pairs).isin(own) | cell_index(matches.pairs, "truth_cell").isin(partners)
        truth = truth[~cell_index(truth).isin(partners)].reset_index(drop=True)
        matches = replace(
            matches,
            pairs=matches.pairs[~known],
            predicted=matches.predicted[~cell_index(matches.predicted).isin(own)],
            truth=matches.truth[~cell_index(matches.truth).isin(partners)],
        )
    return cells[~cell_index(cells).isin(own)].reset_index(drop=True), truth, matches


def count_left_out(cells: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    """Count what is left out by how it is known: kind, fields, cells, a row per kind in the order of ``seen``.

    cells: field and cell of every predicted cell
    seen: a table ``seen.finding.LEFT_OUT``
    """
    of_field = cells["field"].value_counts()
    whole = seen["cell"] == 0
    counted = seen.assign(
        fields=whole.astype(int), cells=seen["field"].map(of_field).fillna(0).where(whole, 1).astype(int)
    )
    return counted.groupby("kind", sort=False)[["fields", "cells"]].sum().reset_index()


def check_unseen(name: str, fields: pd.DataFrame, truth: pd.DataFrame | None, seen: pd.DataFrame) -> None:
    """Raise SeenError if a collection has labelled fields, and training has seen all of them.

    fields: field and sheet_labels of all fields
    truth: the true cells of all fields, if there are any
    """
    labelled = fields["sheet_labels"].fillna("") != "" if truth is None else fields["field"].isin(truth["field"])
    known = fields[labelled]
    if known.empty or len(without_fields(known, seen)):
        return
    kinds = seen[seen["field"].isin(known["field"]) & (seen["cell"] == 0)]["kind"].value_counts(sort=False)
    how = ", ".join(f"{count} by {kind}" for kind, count in kinds.items())
    raise SeenError(
        f"collection {name}: training has seen all of its {len(known)} labelled fields ({how}), so there is nothing to "
        f"score; set collections.{name}.labels: false to predict it without scores"
    )


def plain_counts(counts: pd.DataFrame) -> dict[str, Any]:
    """Return the result of ``count_left_out`` for metrics.json: fields, cells, and both by kind."""
    return {
        "fields": int(counts["fields"].sum()),
        "cells": int(counts["cells"].sum()),
        "by": {row["kind"]: {key: int(row[key]) for key in ("fields", "cells")} for row in counts.to_dict("records")},
    }
