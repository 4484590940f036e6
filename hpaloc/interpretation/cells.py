"""The choice of the cells to study, with the label, group and origin of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpaloc.classes import NAMES, parse_all
from hpaloc.grouping import group_fields
from hpaloc.leaving_out import is_left_out
from hpaloc.progress import log
from hpaloc.tfrecord import cell_key

# More cells per class would not improve the few-shot experiment.
FEW_SHOT_CELLS = 120
# With fewer cells of new groups, cells of groups that trained the network are studied too.
_FEWEST_CELLS = 50


class StudyError(ValueError):
    """The cells do not allow the study; the message says what is missing."""


@dataclass(frozen=True)
class Source:
    """The cells of a collection that may be studied.

    cells, fields: its tables as ``joining.read_cells`` and ``read_fields`` return them
    truth: field, cell, labels with the ids of ``cells`` (``matching.read_true_labels``), or None
    examples: the table of ``curation.curate`` if the collection trained the network, else None
    left_out: the table ``seen.finding.LEFT_OUT`` of the collection if it is scored, else None
    """

    collection: str
    cells: pd.DataFrame
    fields: pd.DataFrame
    truth: pd.DataFrame | None = None
    examples: pd.DataFrame | None = None
    left_out: pd.DataFrame | None = None


def labelled_cells(source: Source) -> pd.DataFrame:
    """Return the cells of a source that have one known location: field, cell, key, shard, row, label, seen.

    In a collection that trained the network these are its real examples, seen if their part is train; in another the
    cells whose truth is one location or, without truth, whose field has one label, seen if they are left out of scores.
    """
    if source.examples is not None:
        examples = source.examples
        kept = examples[(examples["copy"] == 0) & (examples["origin"] != "synthetic")]
        texts = kept["labels"]
        seen = (kept["part"] == "train").to_numpy()
    else:
        kept = source.cells
        if source.truth is not None:
            known = pd.MultiIndex.from_arrays([source.truth["field"], source.truth["cell"].astype(int)])
            wanted = pd.MultiIndex.from_arrays([kept["field"], kept["cell"].astype(int)])
            texts = pd.Series(source.truth["labels"].to_numpy(), known).reindex(wanted).fillna("")
        else:
            texts = kept["labels"].fillna("")
        seen = np.zeros(len(kept), bool) if source.left_out is None else is_left_out(kept, source.left_out)
    label = np.array([labels[0] if len(labels) == 1 else -1 for labels in parse_all(texts)], np.int32)
    table = kept[["field", "cell", "shard", "row"]].assign(label=label, seen=seen)
    return table[label >= 0].reset_index(drop=True)


def choose_cells(sources: Sequence[Source], n_cells: int, held_out: Sequence[int], seed: int) -> pd.DataFrame:
    """Choose the cells to study among all labelled ones; a table STUDIED, sorted by collection, shard and row.

    ``mapped`` are ``n_cells`` random cells: of groups that did not train the network if these have at least 50 cells,
    else of cells that did not train it, else of all cells. ``few_shot`` are the cells of the ``held_out`` classes
    (indices) from every source, or, if none is held out, of all classes among the cells that may be mapped; at most 120
    per class. Groups are antibodies and near-duplicates if known, else fields.

    Raises StudyError without a labelled cell, or without one of a held-out class.
    """
    parts = [labelled_cells(source).assign(collection=source.collection) for source in sources]
    cells = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if cells.empty:
        raise StudyError("there is no cell with one known location to study")
    readable = [source.fields[source.fields["status"] == "ok"] for source in sources]
    named = [
        table.assign(field=source.collection + "/" + table["field"])
        for source, table in zip(sources, readable, strict=True)
    ]
    fields = pd.concat(named, ignore_index=True)
    groups, summary = group_fields(fields, ("antibody", "duplicates"))
    group_of = dict(zip(fields["field"], groups, strict=True))
    cells["group"] = [
        group_of[f"{name}/{field}"] for name, field in zip(cells["collection"], cells["field"], strict=True)
    ]
    generator = np.random.default_rng(seed)
    # Cells of groups that trained nothing come first, then cells that did not train, though their antibody did.
    new_group = ~cells["group"].isin(cells.loc[cells["seen"], "group"])
    candidates = np.flatnonzero(new_group if new_group.sum() >= _FEWEST_CELLS else ~cells["seen"])
    if not len(candidates):
        candidates = np.arange(len(cells))
    mapped = np.zeros(len(cells), bool)
    mapped[generator.permutation(candidates)[:n_cells]] = True
    few_shot = np.zeros(len(cells), bool)
    of_class = cells["label"].to_numpy()
    pool = np.arange(len(cells)) if len(held_out) else candidates
    for label in held_out or np.unique(of_class[pool]):
        members = pool[of_class[pool] == label]
        if not len(members):
            raise StudyError(f"interpretation.held_out: there is no cell of the class {label} ({NAMES[label]})")
        few_shot[generator.permutation(members)[:FEW_SHOT_CELLS]] = True
    cells = cells.assign(mapped=mapped, few_shot=few_shot)
    log.info(
        "%d cells of one known location, %d of them seen in training; groups by %s; %d mapped, %d for the few-shot "
        "experiment",
        *(len(cells), int(cells["seen"].sum()), " and ".join(summary["group_by"]), mapped.sum(), few_shot.sum()),
    )
    cells["key"] = [cell_key(field, int(cell)) for field, cell in zip(cells["field"], cells["cell"], strict=True)]
    return cells.sort_values(["collection", "shard", "row"], ignore_index=True)
