"""From measured cells to training examples: labels, filters, negatives, split by group, oversampling."""

import fnmatch
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from hpaloc.classes import N_CLASSES, NAMES, NEGATIVE, format_labels, label_matrix, parse_all, parse_labels
from hpaloc.ids import normal_text
from hpaloc.progress import log
from hpaloc.tables import EXAMPLES, LABEL_COLUMNS, PARTS, REFERENCE_COLOURS, TableError, to_table
from hpaloc.tfrecord import cell_key

DEFAULTS: dict[str, Any] = {
    "labels": "single",
    "drop_border_cells": True,
    "min_cell_area": 35.0,
    "max_cell_area": 5000.0,
    "min_nucleus_area": 16.0,
    "max_nucleus_area": 1500.0,
    "max_nucleus_fraction": 0.95,
    "min_focus": 0.05,
    "max_saturation": 0.1,
    "min_green_signal": 1.0,
    "min_green_share": None,
    "negatives": {
        "negative_fields": True,
        "external": None,
        "low_green": True,
        "synthetic_fraction": 0.0,
        "target_fraction": 0.1,
    },
    "oversample": 0.0,
    "validation_fraction": 0.2,
    "group_by": ["antibody", "duplicates"],
}

FILTERS = ("border", "cell_area", "nucleus", "focus", "saturation", "green_signal")
ORIGINS = ("real", "relabelled", "synthetic")

RECORDS_PER_FILE = 2048

# Of 189 bits (three hashes of 63). Two images of one field differ in far fewer, two fields of one slide in about half;
# docs/data.md has the distributions this was set between.
DUPLICATE_BITS = 20

_HASHES = tuple(f"hash_{colour}" for colour in REFERENCE_COLOURS)


def near_duplicates(hashes: np.ndarray, max_bits: int = DUPLICATE_BITS) -> np.ndarray:
    """Find the pairs of fields whose perceptual hashes are nearly the same.

    hashes: (n, 3) uint64, one column per reference colour. Returns (k, 2) int64 row numbers, i < j, of the pairs that
    differ in at most ``max_bits`` of all bits. Every pair is compared, as a matrix product of ±1 bits in blocks.
    """
    n = len(hashes)
    octets = np.ascontiguousarray(hashes.astype(">u8")).view(np.uint8).reshape(n, -1)
    bits = np.unpackbits(octets, axis=1).astype(np.float32) * 2 - 1
    block = 4096
    pairs = []
    for i in range(0, n, block):
        for j in range(i, n, block):
            # bits @ bits.T counts equal minus unequal bits.
            alike = bits[i : i + block] @ bits[j : j + block].T >= bits.shape[1] - 2 * max_bits
            if i == j:
                alike = np.triu(alike, 1)
            pairs.append(np.argwhere(alike) + np.array([i, j]))
    return np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)


def group_fields(fields: pd.DataFrame, group_by: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Group the fields that must stay in one part of the split.

    fields: columns field and, where known, antibody and the hashes of FIELDS. group_by: antibody, duplicates, field;
    fields that share any of the criteria named are one group, also by way of a third. A criterion that the table knows
    nothing of is left out. Returns the groups, (n,) str, each named by its first field, and a summary: the criteria
    used and the numbers of groups and of near-duplicate pairs.
    """
    names = fields["field"].to_numpy(str)
    n = len(names)
    links = []
    summary: dict[str, Any] = {"group_by": []}
    if "antibody" in group_by and "antibody" in fields and fields["antibody"].notna().any():
        antibody = pd.factorize(fields["antibody"])[0]
        known = np.flatnonzero(antibody >= 0)
        first = {code: row for row, code in reversed([*zip(known, antibody[known], strict=True)])}
        links.append(np.array([(first[antibody[row]], row) for row in known]).reshape(-1, 2))
        summary["group_by"].append("antibody")
    if "duplicates" in group_by and all(column in fields for column in _HASHES):
        hashed = np.flatnonzero(fields[list(_HASHES)].notna().all(axis=1))
        if len(hashed):
            pairs = near_duplicates(fields[list(_HASHES)].iloc[hashed].to_numpy(np.uint64))
            links.append(hashed[pairs])
            summary["group_by"].append("duplicates")
            summary["duplicate_pairs"] = len(pairs)
    if not links:
        summary["group_by"].append("field")
    edges = np.concatenate(links) if links else np.empty((0, 2), np.int64)
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    name_of = pd.Series(names).groupby(component).min()
    groups = name_of.loc[component].to_numpy(str)
    summary["groups"] = len(name_of)
    return groups, summary


def _move_for_classes(classes: np.ndarray, sizes: np.ndarray, validation: np.ndarray, free: np.ndarray) -> None:
    """Move groups, in place, until each class that two or more groups hold is in both parts."""
    for target in (True, False):
        totals = classes.sum(axis=0)
        for label in np.argsort(totals, kind="stable"):
            there = validation == target
            if totals[label] < 2 or classes[there, label].any():
                continue
            left = classes[~there].sum(axis=0)
            candidates = [
                group
                for group in np.flatnonzero(~there & free & classes[:, label])
                if (left[classes[group] & (totals >= 2)] >= 2).all()
            ]
            if candidates:
                validation[min(candidates, key=lambda group: (sizes[group], classes[group].sum(), group))] = target


def _move_for_size(
    classes: np.ndarray, sizes: np.ndarray, validation: np.ndarray, free: np.ndarray, target: int, fraction: float
) -> None:
    """Move groups, in place, until the validation part holds ``target`` fields, or as near as whole groups come."""
    totals = np.maximum(classes.T @ sizes, 1)
    while True:
        excess = int(sizes[validation & free].sum()) - target
        if excess == 0:
            return
        source = validation if excess > 0 else ~validation
        movable = free & source & (sizes < 2 * abs(excess))
        # A class keeps what it has in the part that a group leaves.
        held = classes[source].sum(axis=0)
        movable &= ~(classes & (held < 2)).any(axis=1)
        rows = np.flatnonzero(movable)
        if not len(rows):
            return
        surplus = (classes[validation].T @ sizes[validation]) / totals - fraction
        worth = (classes[rows] @ surplus) / classes[rows].sum(axis=1) * np.sign(excess)
        group = rows[np.lexsort((rows, -worth, sizes[rows] > abs(excess)))[0]]
        validation[group] = not validation[group]
        if abs(int(sizes[validation & free].sum()) - target) >= abs(excess):
            validation[group] = not validation[group]
            return


def split_groups(
    label_sets: Sequence[tuple[int, ...]],
    groups: Sequence[str] | np.ndarray,
    validation_fraction: float,
    seed: int,
    fixed: Sequence[str | None] | None = None,
) -> np.ndarray:
    """Divide fields into a training and a validation part, group by group.

    label_sets, groups: one entry per field. Groups are stratified over the label sets and classes they hold by
    iterative stratification (Sechidis et al. 2011). A group none of whose label sets another group has goes to
    training, unless too little would be left to validate on; the validation part then holds ceil(fraction x fields
    of the other groups) fields, as near as whole groups come. Each class that two groups hold ends in both parts,
    also where that takes a group of the former kind; very few groups of several labels may not allow it. With a
    fraction of 0 only what ``fixed`` names validates. ``fixed`` names the part of a field where the sheet does.
    Returns (n,) str of train and validation. Raises ValueError where there are not two groups, or ``fixed`` is not a
    part or tears a group apart.
    """
    names, group_of = np.unique(np.asarray(groups, str), return_inverse=True)
    n_groups = len(names)
    if n_groups < 2 and validation_fraction > 0:
        raise ValueError("a split into training and validation needs at least two groups of labelled fields")
    sizes = np.bincount(group_of)
    set_names, set_of = np.unique([format_labels(labels) for labels in label_sets], return_inverse=True)
    holds = np.zeros((n_groups, len(set_names)), bool)
    holds[group_of, set_of] = True
    classes = np.zeros((n_groups, N_CLASSES), bool)
    np.logical_or.at(classes, group_of, label_matrix(label_sets).astype(bool))

    validation = np.zeros(n_groups, bool)
    free = np.ones(n_groups, bool)
    for row, part in enumerate(fixed if fixed is not None else ()):
        if part is None:
            continue
        if part not in PARTS:
            raise ValueError(f"the split column says {part!r}, expected one of {', '.join(PARTS)}")
        group = group_of[row]
        if not free[group] and validation[group] != (part == "validation"):
            raise ValueError(f"the split column tears apart the group of field {names[group]}")
        free[group] = False
        validation[group] = part == "validation"

    if validation_fraction == 0:
        return np.where(validation[group_of], "validation", "train")
    shared = holds[:, holds.sum(axis=0) > 1].any(axis=1)
    drawn = free & shared
    if sizes[drawn].sum() < 2 * validation_fraction * sizes[free].sum():
        drawn = free.copy()
    members = np.flatnonzero(drawn)
    if len(members) > 1:
        strata = np.concatenate((holds[members][:, holds[members].sum(axis=0) > 1], classes[members]), axis=1)
        splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=validation_fraction, random_state=seed)
        ((_, chosen),) = splitter.split(np.empty((len(members), 1)), strata.astype(int))
        validation[members[chosen]] = True
        target = math.ceil(round(validation_fraction * sizes[members].sum(), 9))
        _move_for_size(classes, sizes, validation, drawn, target, validation_fraction)
    _move_for_classes(classes, sizes, validation, free)
    if not validation.any() or validation.all():
        # Too few groups for any class to have two: the smallest group is still something to validate on.
        movable = np.flatnonzero(free)
        if not len(movable):
            raise ValueError("the split column leaves one part without fields")
        smallest = movable[np.argmin(sizes[movable])]
        validation[smallest] = not validation[smallest]
    return np.where(validation[group_of], "validation", "train")


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    known = {**DEFAULTS, **settings}
    known["negatives"] = {**DEFAULTS["negatives"], **settings.get("negatives", {})}
    for name, defaults in ((None, DEFAULTS), ("negatives", DEFAULTS["negatives"])):
        given = known if name is None else known[name]
        unknown = sorted(set(given) - set(defaults))
        if unknown:
            raise ValueError(f"curation has no key {'.'.join(filter(None, (name, unknown[0])))!r}")
    if known["labels"] not in ("single", "all", "cells"):
        raise ValueError(f"curation.labels is {known['labels']!r}, expected single, all or cells")
    return known


def _truth_labels(cells: pd.DataFrame, truth: pd.DataFrame | None) -> list[tuple[int, ...] | None]:
    if truth is None:
        raise ValueError("curation.labels is cells, but no truth per cell is given")
    known = dict(zip(zip(truth["field"], truth["cell"], strict=True), parse_all(truth["labels"]), strict=True))
    return [known.get(cell) for cell in zip(cells["field"], cells["cell"], strict=True)]


def _assign_labels(
    cells: pd.DataFrame, mode: str, truth: pd.DataFrame | None
) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Return each cell's labels and, where it gets none, the reason (else "")."""
    if mode == "cells":
        found = _truth_labels(cells, truth)
        return [labels or () for labels in found], np.array(["" if labels else "no_truth" for labels in found], object)
    parsed = {text: parse_labels(text) if text else () for text in cells["labels"].unique()}
    labels = [parsed[text] for text in cells["labels"]]
    reason = np.array(
        [
            "no_label" if not of_cell else "several_labels" if mode == "single" and len(of_cell) > 1 else ""
            for of_cell in labels
        ],
        object,
    )
    return labels, reason


def filter_cells(cells: pd.DataFrame, positive: np.ndarray, settings: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Judge every cell by every filter.

    cells: columns of CELLS; positive: (n,) bool, the cells to which the green filter applies. Returns, in the order
    of FILTERS, the name of each filter and an (n,) bool array of the cells that fail it. A limit of None is not
    applied. The nucleus filter spares fields none of whose cells has a nucleus: there the nuclei are unknown. A cell
    may be too dark for its background or for its field: below a share of the upper quartile of all its cells.
    """

    def outside(column: str, low: str | None, high: str | None) -> np.ndarray:
        values = cells[column].to_numpy(np.float64)
        failing = np.zeros(len(cells), bool)
        if low is not None and settings[low] is not None:
            failing |= values < settings[low]
        if high is not None and settings[high] is not None:
            failing |= values > settings[high]
        return failing

    with_nuclei = cells.groupby("field")["nucleus_area_px"].transform("max").to_numpy() > 0
    nucleus = outside("nucleus_area_um2", "min_nucleus_area", "max_nucleus_area") | outside(
        "nucleus_fraction", None, "max_nucleus_fraction"
    )
    dark = outside("green_signal", "min_green_signal", None)
    if settings["min_green_share"] is not None:
        bright = cells.groupby("field")["green_signal"].transform("quantile", 0.75)
        dark |= (cells["green_signal"] < settings["min_green_share"] * bright).to_numpy(bool)
    return {
        "border": cells["border"].to_numpy(bool) & bool(settings["drop_border_cells"]),
        "cell_area": outside("area_um2", "min_cell_area", "max_cell_area"),
        "nucleus": nucleus & with_nuclei,
        "focus": outside("focus", "min_focus", None),
        "saturation": outside("saturation", None, "max_saturation"),
        "green_signal": dark & positive,
    }


def _wanted_negatives(positives: int, negatives: int, target: float) -> int:
    """How many negatives to add so that their share comes to ``target`` without passing it."""
    if target >= 1:
        return positives
    return max(math.floor(round(target * positives / (1 - target), 9)) - negatives, 0)


def _draw(rng: np.random.Generator, rows: np.ndarray, number: int) -> np.ndarray:
    return np.sort(rng.choice(rows, min(number, len(rows)), replace=False))


def _copies(labels: np.ndarray, oversample: float, rng: np.random.Generator) -> np.ndarray:
    """How often each training example is written, so that rare classes come nearer to the most frequent one.

    labels: (n, 19). A class of n_c examples is repeated (n_max / n_c)^oversample times; an example by the factor of
    the rarest of its classes. Fractions are dealt out at random within the class, so that its total is as asked.
    """
    copies = np.ones(len(labels), np.int64)
    counts = labels.sum(axis=0)
    if oversample == 0 or not counts.any():
        return copies
    factors = np.where(counts > 0, (counts.max() / np.maximum(counts, 1)) ** oversample, 0.0)
    rarest = np.argmax(labels * factors, axis=1)
    for label in np.unique(rarest):
        rows = np.flatnonzero(rarest == label)
        total = round(len(rows) * factors[label])
        copies[rows] = total // len(rows)
        copies[rng.choice(rows, total % len(rows), replace=False)] += 1
    return copies


def _split_fields(
    fields: pd.DataFrame, labels: Mapping[str, tuple[int, ...]], known: Mapping[str, Any], seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Give each field that has examples its group and part."""
    used = fields[fields["field"].isin(labels)].sort_values("field", ignore_index=True)
    groups, summary = group_fields(used, known["group_by"])
    fixed = [part if isinstance(part, str) and part else None for part in used["split"]] if "split" in used else None
    parts = split_groups([labels[field] for field in used["field"]], groups, known["validation_fraction"], seed, fixed)
    split = pd.DataFrame({"field": used["field"], "group": groups, "part": parts})
    summary["fields"] = {part: int((parts == part).sum()) for part in PARTS}
    summary["groups_of_part"] = {part: int(split.loc[parts == part, "group"].nunique()) for part in PARTS}
    return split, summary


def curate(
    cells: pd.DataFrame,
    fields: pd.DataFrame,
    settings: Mapping[str, Any],
    seed: int,
    truth: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, dict[str, Any], pd.DataFrame]:
    """Choose, label, divide and multiply the cells that train and validate the model.

    cells: as tables.read_cells returns them, with shard and row; fields: columns of FIELDS; settings: the section
    ``curation`` of the configuration, completed by DEFAULTS; truth: field, cell, labels per cell, for the mode
    `cells` (``matching.read_true_labels``). Returns the examples (EXAMPLES, in the order of the
    record files), a summary of counts that JSON can hold, and the cells left out (field, cell, reason). Every cell is
    either left out or an example of origin real or relabelled. Synthetic negatives and copies are made for training
    only. Raises ValueError for unknown settings or where nothing is left to train on, TableError for a lacking column.
    """
    known = _settings(settings)
    negatives = known["negatives"]
    for column in ("shard", "row"):
        if column not in cells:
            raise TableError(f"the table of cells lacks the column {column}; read it with tables.read_cells")
    cells = cells.sort_values(["field", "cell"], ignore_index=True)
    unknown = set(cells["field"]) - set(fields["field"])
    if unknown:
        raise TableError(f"the table of fields has no row of field {min(unknown)!r}")
    labels, reason = _assign_labels(cells, known["labels"], truth)
    inherited = known["labels"] != "cells"
    only_negative = np.array([of_cell == (NEGATIVE,) for of_cell in labels], bool)
    positive = np.array([bool(of_cell) for of_cell in labels], bool) & ~only_negative
    external = np.zeros(len(cells), bool)
    if negatives["external"]:
        external = only_negative & [
            fnmatch.fnmatchcase(field, normal_text(negatives["external"])) for field in cells["field"]
        ]
    if inherited and not negatives["negative_fields"]:
        reason[(reason == "") & only_negative & ~external] = "negative_field"

    labelled = reason == ""
    # Truth per cell says which cells are negative; what is inherited from the field may be wrong for a dark cell.
    failing = filter_cells(cells, positive & labelled & inherited, known)
    filters = {}
    for name in FILTERS:
        first = (reason == "") & failing[name]
        reason[first] = name
        filters[name] = {"removed": int(first.sum()), "failing": int((failing[name] & labelled).sum())}
    candidates = np.flatnonzero(reason == "green_signal") if negatives["low_green"] else np.empty(0, np.int64)

    kept = np.flatnonzero(reason == "")
    if not len(kept):
        raise ValueError("curation leaves no cell: every cell lacks a label or fails a filter")
    names = cells["field"].to_list()
    field_labels: dict[str, set[int]] = {}
    for row in kept:
        field_labels.setdefault(names[row], set()).update(labels[row])
    for row in candidates:
        field_labels.setdefault(names[row], set(labels[row]))
    split, split_summary = _split_fields(
        fields, {field: tuple(sorted(found)) for field, found in field_labels.items()}, known, seed
    )
    part_of = cells["field"].map(split.set_index("field")["part"]).to_numpy(object)
    rng = np.random.default_rng([seed, 4])

    chosen = [kept]
    synthetic = np.empty(0, np.int64)
    for part in PARTS:
        here = kept[part_of[kept] == part]
        n_negative = int(only_negative[here].sum())
        wanted = _wanted_negatives(len(here) - n_negative, n_negative, negatives["target_fraction"])
        relabelled = _draw(rng, candidates[part_of[candidates] == part], wanted)
        chosen.append(relabelled)
        reason[relabelled] = ""
        if part == "train":
            of_positives = here[~only_negative[here]]
            share = math.floor(round(negatives["synthetic_fraction"] * len(of_positives), 9))
            synthetic = _draw(rng, of_positives, min(share, wanted - len(relabelled)))
    relabelled = np.concatenate(chosen[1:])
    for row in relabelled:
        labels[row] = (NEGATIVE,)
    filters["green_signal"]["relabelled"] = len(relabelled)
    filters["green_signal"]["removed"] -= len(relabelled)

    rows = np.concatenate((kept, relabelled, synthetic))
    origin = np.repeat(ORIGINS, (len(kept), len(relabelled), len(synthetic)))
    sets = [(NEGATIVE,) if made == "synthetic" else labels[row] for row, made in zip(rows, origin, strict=True)]
    matrix = label_matrix(sets).astype(np.uint8)
    scale = np.where(origin == "synthetic", rng.uniform(0.0, 0.1, len(rows)), 1.0).astype(np.float32)
    in_training = part_of[rows] == "train"
    copies = np.ones(len(rows), np.int64)
    copies[in_training] = _copies(matrix[in_training], known["oversample"], rng)

    repeated = np.repeat(np.arange(len(rows)), copies)
    copy = np.arange(len(repeated)) - np.repeat(np.cumsum(copies) - copies, copies)
    of_cell = rows[repeated]
    group_of = cells["field"].map(split.set_index("field")["group"])
    examples = pd.DataFrame(
        {
            "part": part_of[of_cell],
            "field": cells["field"].to_numpy()[of_cell],
            "cell": cells["cell"].to_numpy(np.int32)[of_cell],
            "shard": cells["shard"].to_numpy(np.int32)[of_cell],
            "row": cells["row"].to_numpy(np.int32)[of_cell],
            "group": group_of.to_numpy()[of_cell],
            "origin": origin[repeated],
            "copy": copy.astype(np.int32),
            "copies": copies[repeated].astype(np.int32),
            "green_scale": scale[repeated],
            "weight": np.float32(1.0),
            "labels": [format_labels(sets[row]) for row in repeated],
        }
    )
    examples["key"] = [cell_key(field, cell) for field, cell in zip(examples["field"], examples["cell"], strict=True)]
    for column, values in zip(LABEL_COLUMNS, matrix[repeated].T, strict=True):
        examples[column] = values
    examples = place(examples, rng)
    left_out = pd.DataFrame({"field": cells["field"], "cell": cells["cell"], "reason": reason})[reason != ""]

    kinds = Counter(reason)
    summary = {
        "labels": known["labels"],
        "cells": len(cells),
        "cells_used": len(kept) + len(relabelled),
        "cells_left_out": len(left_out),
        "unlabelled": {
            name: kinds.get(name, 0) for name in ("no_label", "several_labels", "no_truth", "negative_field")
        },
        "filters": filters,
        "negatives": {
            "negative_fields": int((only_negative[kept] & ~external[kept]).sum()) if inherited else 0,
            "external": int(external[kept].sum()),
            "truth": 0 if inherited else int(only_negative[kept].sum()),
            "low_green": len(relabelled),
            "low_green_candidates": len(candidates),
            "synthetic": len(synthetic),
        },
        "split": split_summary,
        "examples": {part: int((examples["part"] == part).sum()) for part in PARTS},
        "copies": int((examples["copy"] > 0).sum()),
        "classes": _class_counts(examples),
    }
    log.info("%d examples from %d of %d cells", len(examples), summary["cells_used"], len(cells))
    return examples, summary, left_out.reset_index(drop=True)


def place(examples: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Shuffle each part and give each example its record file and its position in it.

    examples: columns of EXAMPLES but record_shard and position, which are written anew. Returns the examples in the
    order of the record files.
    """
    placed = []
    for part in PARTS:
        members = examples[examples["part"] == part]
        members = members.iloc[rng.permutation(len(members))]
        number = np.arange(len(members))
        # Files of nearly equal length rather than a short last one.
        files = max(1, math.ceil(len(members) / RECORDS_PER_FILE))
        starts = np.arange(files) * len(members) // files
        shard = np.searchsorted(starts, number, side="right") - 1
        placed.append(members.assign(record_shard=shard.astype(np.int32), position=(number - starts[shard])))
    table = to_table(pd.concat(placed, ignore_index=True), EXAMPLES)
    return table.to_pandas()


def _class_counts(examples: pd.DataFrame) -> dict[str, Any]:
    counts = {}
    for index, name in enumerate(NAMES):
        members = examples[examples[LABEL_COLUMNS[index]] == 1]
        counts[str(index)] = {
            "name": name,
            **{
                part: {
                    origin: int(((members["part"] == part) & (members["origin"] == origin)).sum()) for origin in ORIGINS
                }
                for part in PARTS
            },
            "fields": {part: int(members.loc[members["part"] == part, "field"].nunique()) for part in PARTS},
        }
    return counts


def examples_table(examples: pd.DataFrame) -> pa.Table:
    """Return the examples as an Arrow table of the schema EXAMPLES, ready for tables.write_table."""
    return to_table(examples, EXAMPLES)


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as indented JSON, the content of summary.json."""
    return json.dumps(summary, indent=2) + "\n"
