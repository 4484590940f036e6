"""From measured cells to training examples: labels, filters, negatives, split by group, oversampling."""

import fnmatch
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpaloc.classes import NAMES, NEGATIVE, format_labels, label_matrix, parse_all
from hpaloc.examples import LABEL_COLUMNS, PARTS, place
from hpaloc.grouping import group_fields
from hpaloc.ids import normal_text
from hpaloc.progress import log
from hpaloc.splitting import split_groups
from hpaloc.tables import TableError, are_crops
from hpaloc.tfrecord import cell_key

FILTERS = ("border", "cell_area", "nucleus", "focus", "saturation", "green_signal")
ORIGINS = ("real", "relabelled", "synthetic")


@dataclass(frozen=True)
class NegativeSettings:
    """The section ``curation.negatives``."""

    negative_fields: bool = True
    external: str | None = None
    low_green: bool = True
    synthetic_fraction: float = 0.0
    target_fraction: float = 0.1


@dataclass(frozen=True)
class CurationSettings:
    """The section ``curation`` of the configuration, whose schema says what each key means."""

    labels: str = "single"
    drop_border_cells: bool = True
    min_cell_area: float | None = 35.0
    max_cell_area: float | None = 5000.0
    min_nucleus_area: float | None = 16.0
    max_nucleus_area: float | None = 1500.0
    max_nucleus_fraction: float | None = 0.95
    min_focus: float | None = 0.05
    max_saturation: float | None = 0.1
    min_green_signal: float | None = 1.0
    min_green_share: float | None = None
    negatives: NegativeSettings = NegativeSettings()
    oversample: float = 0.0
    validation_fraction: float = 0.2
    group_by: Sequence[str] = ("antibody", "duplicates")

    def __post_init__(self) -> None:
        if not isinstance(self.negatives, NegativeSettings):
            object.__setattr__(self, "negatives", NegativeSettings(**self.negatives))


def _truth_labels(cells: pd.DataFrame, truth: pd.DataFrame | None) -> list[tuple[int, ...]]:
    if truth is None:
        raise ValueError("labels is cells, but no truth per cell is given")
    known = dict(zip(zip(truth["field"], truth["cell"], strict=True), parse_all(truth["labels"]), strict=True))
    return [known.get(cell, ()) for cell in zip(cells["field"], cells["cell"], strict=True)]


def _assign_labels(
    cells: pd.DataFrame, mode: str, truth: pd.DataFrame | None, one_location: bool
) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Return the labels of each cell, and the reason if it is not an example (else "")."""
    labels, unknown = (
        (_truth_labels(cells, truth), "no_truth") if mode == "cells" else (parse_all(cells["labels"]), "no_label")
    )
    alone = mode == "single" or (mode == "cells" and one_location)
    reason = [unknown if not of_cell else "several_labels" if alone and len(of_cell) > 1 else "" for of_cell in labels]
    return labels, np.array(reason, object)


def filter_cells(cells: pd.DataFrame, positive: np.ndarray, settings: CurationSettings) -> dict[str, np.ndarray]:
    """Apply every filter to every cell.

    A limit of None is not applied. The nucleus filter skips fields without any nucleus: their nuclei are unknown. The
    filters of the border and of areas skip cells that are their whole field, ready-made crops: their outlines are
    unknown. A cell is too dark if its signal is low relative to the background, or below a share of the upper quartile
    of all cells of its field.

    cells: columns of CELLS
    positive: (n,) bool, the cells to which the green filter applies

    Returns, in the order of FILTERS, the name of each filter and an (n,) bool array of the cells that fail it.
    """

    def outside(column: str, low: float | None, high: float | None) -> np.ndarray:
        values = cells[column].to_numpy(np.float64)
        failing = np.zeros(len(cells), bool)
        if low is not None:
            failing |= values < low
        if high is not None:
            failing |= values > high
        return failing

    with_nuclei = cells.groupby("field")["nucleus_area_px"].transform("max").to_numpy() > 0
    nucleus = outside("nucleus_area_um2", settings.min_nucleus_area, settings.max_nucleus_area) | outside(
        "nucleus_fraction", None, settings.max_nucleus_fraction
    )
    dark = outside("green_signal", settings.min_green_signal, None)
    if settings.min_green_share is not None:
        bright = cells.groupby("field")["green_signal"].transform("quantile", 0.75)
        dark |= (cells["green_signal"] < settings.min_green_share * bright).to_numpy(bool)
    return {
        "border": cells["border"].to_numpy(bool) & settings.drop_border_cells & ~are_crops(cells),
        "cell_area": outside("area_um2", settings.min_cell_area, settings.max_cell_area) & ~are_crops(cells),
        "nucleus": nucleus & with_nuclei,
        "focus": outside("focus", settings.min_focus, None),
        "saturation": outside("saturation", None, settings.max_saturation),
        "green_signal": dark & positive,
    }


def _wanted_negatives(positives: int, negatives: int, target: float) -> int:
    """Return how many negatives to add so that their share reaches ``target`` without exceeding it."""
    if target >= 1:
        return positives
    return max(math.floor(round(target * positives / (1 - target), 9)) - negatives, 0)


def _draw(rng: np.random.Generator, rows: np.ndarray, number: int) -> np.ndarray:
    return np.sort(rng.choice(rows, min(number, len(rows)), replace=False))


def _copies(labels: np.ndarray, oversample: float, rng: np.random.Generator) -> np.ndarray:
    """Return how often each training example is written, so that rare classes approach the most frequent one.

    A class of n_c examples is repeated (n_max / n_c)^oversample times, and an example by the factor of its rarest
    class. Fractions are distributed at random within the class, so that its total is exact.

    labels: (n, 19) 0 or 1
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


@dataclass
class _Judged:
    """Each cell's labels, why it is left out (else ""), and whether it is a negative.

    external: the negatives by the name of their field
    filters: the counts of each filter
    """

    labels: list[tuple[int, ...]]
    reason: np.ndarray
    only_negative: np.ndarray
    external: np.ndarray
    filters: dict[str, dict[str, int]]


def _judge(cells: pd.DataFrame, settings: CurationSettings, truth: pd.DataFrame | None, one_location: bool) -> _Judged:
    """Label every cell and apply every filter."""
    negatives = settings.negatives
    labels, reason = _assign_labels(cells, settings.labels, truth, one_location)
    inherited = settings.labels != "cells"
    only_negative = np.array([of_cell == (NEGATIVE,) for of_cell in labels], bool)
    positive = np.array([bool(of_cell) for of_cell in labels], bool) & ~only_negative
    external = np.zeros(len(cells), bool)
    if negatives.external:
        external = only_negative & [
            fnmatch.fnmatchcase(field, normal_text(negatives.external)) for field in cells["field"]
        ]
    if inherited and not negatives.negative_fields:
        reason[(reason == "") & only_negative & ~external] = "negative_field"
    labelled = reason == ""
    # Per-cell truth says which cells are negative; a label inherited from the field may be wrong for a dark cell.
    failing = filter_cells(cells, positive & labelled & inherited, settings)
    filters = {}
    for name in FILTERS:
        first = (reason == "") & failing[name]
        reason[first] = name
        filters[name] = {"removed": int(first.sum()), "failing": int((failing[name] & labelled).sum())}
    return _Judged(labels, reason, only_negative, external, filters)


def _split_fields(
    fields: pd.DataFrame, labels: Mapping[str, tuple[int, ...]], settings: CurationSettings, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the group and part of each field that has examples, and a summary."""
    used = fields[fields["field"].isin(labels)].sort_values("field", ignore_index=True)
    groups, summary = group_fields(used, settings.group_by)
    fixed = [part if isinstance(part, str) and part else None for part in used["split"]] if "split" in used else None
    parts = split_groups([labels[field] for field in used["field"]], groups, settings.validation_fraction, seed, fixed)
    split = pd.DataFrame({"group": groups, "part": parts}, used["field"])
    summary["fields"] = {part: int((parts == part).sum()) for part in PARTS}
    summary["groups_of_part"] = {part: int(split.loc[parts == part, "group"].nunique()) for part in PARTS}
    return split, summary


def _labels_of_fields(
    names: Sequence[str], judged: _Judged, kept: np.ndarray, candidates: np.ndarray
) -> dict[str, tuple[int, ...]]:
    """Return the labels of each field from its kept cells, or from its candidates for negatives if none is kept."""
    found: dict[str, set[int]] = {}
    for row in kept:
        found.setdefault(names[row], set()).update(judged.labels[row])
    for row in candidates:
        found.setdefault(names[row], set(judged.labels[row]))
    return {field: tuple(sorted(labels)) for field, labels in found.items()}


def _draw_negatives(
    judged: _Judged,
    kept: np.ndarray,
    candidates: np.ndarray,
    part_of: np.ndarray,
    settings: NegativeSettings,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw, part by part, the rows of dark cells to relabel and of cells to turn into synthetic negatives."""
    relabelled = []
    synthetic = np.empty(0, np.int64)
    for part in PARTS:
        here = kept[part_of[kept] == part]
        of_positives = here[~judged.only_negative[here]]
        wanted = _wanted_negatives(len(of_positives), len(here) - len(of_positives), settings.target_fraction)
        relabelled.append(_draw(rng, candidates[part_of[candidates] == part], wanted))
        if part == "train":
            share = math.floor(round(settings.synthetic_fraction * len(of_positives), 9))
            synthetic = _draw(rng, of_positives, min(share, wanted - len(relabelled[-1])))
    return np.concatenate(relabelled), synthetic


def _tabulate(
    cells: pd.DataFrame,
    labels: Sequence[tuple[int, ...]],
    rows_of: Mapping[str, np.ndarray],
    split: pd.DataFrame,
    oversample: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Return the examples, with copies for training; rows_of: the rows of their cells by origin."""
    rows = np.concatenate([rows_of[origin] for origin in ORIGINS])
    origin = np.repeat(ORIGINS, [len(rows_of[origin]) for origin in ORIGINS])
    sets = [(NEGATIVE,) if made == "synthetic" else labels[row] for row, made in zip(rows, origin, strict=True)]
    matrix = label_matrix(sets).astype(np.uint8)
    scale = np.where(origin == "synthetic", rng.uniform(0.0, 0.1, len(rows)), 1.0).astype(np.float32)
    of_field = split.loc[cells["field"].iloc[rows]]
    in_training = of_field["part"].to_numpy() == "train"
    copies = np.ones(len(rows), np.int64)
    copies[in_training] = _copies(matrix[in_training], oversample, rng)

    repeated = np.repeat(np.arange(len(rows)), copies)
    copy = np.arange(len(repeated)) - np.repeat(np.cumsum(copies) - copies, copies)
    of_cell = cells.iloc[rows[repeated]]
    columns = {
        "part": of_field["part"].to_numpy()[repeated],
        **{column: of_cell[column].to_numpy() for column in ("field", "cell", "shard", "row")},
        "key": [cell_key(field, cell) for field, cell in zip(of_cell["field"], of_cell["cell"], strict=True)],
        "group": of_field["group"].to_numpy()[repeated],
        "origin": origin[repeated],
        "copy": copy,
        "copies": copies[repeated],
        "green_scale": scale[repeated],
        "weight": 1.0,
        "labels": [format_labels(sets[row]) for row in repeated],
    }
    return pd.DataFrame(columns | dict(zip(LABEL_COLUMNS, matrix[repeated].T, strict=True)))


def curate(
    cells: pd.DataFrame,
    fields: pd.DataFrame,
    settings: CurationSettings,
    seed: int,
    truth: pd.DataFrame | None = None,
    one_location: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any], pd.DataFrame]:
    """Select, label, split and oversample the cells that train and validate the model.

    Every cell is either left out or an example of origin real or relabelled. Synthetic negatives and copies are made
    for training only.

    cells: as ``joining.read_cells`` returns them, with shard and row
    fields: columns of FIELDS
    truth: field, cell, labels, for the mode `cells` (see ``matching.read_true_labels``)
    one_location: whether this mode leaves out cells of several locations, which a softmax head cannot learn

    Returns the examples (EXAMPLES, in the order of the record files), a summary of counts that JSON can hold, and the
    cells left out (field, cell, reason).
    Raises ValueError if nothing is left to train on, TableError for a missing column or field.
    """
    for column in ("shard", "row"):
        if column not in cells:
            raise TableError(f"the table of cells has no column {column}; read it with joining.read_cells")
    cells = cells.sort_values(["field", "cell"], ignore_index=True)
    if unknown := set(cells["field"]) - set(fields["field"]):
        raise TableError(f"the table of fields has no row of field {min(unknown)!r}")
    judged = _judge(cells, settings, truth, one_location)
    kept = np.flatnonzero(judged.reason == "")
    if not len(kept):
        raise ValueError("curation leaves no cell: every cell lacks a label or fails a filter")
    dark = judged.reason == "green_signal"
    candidates = np.flatnonzero(dark) if settings.negatives.low_green else np.empty(0, np.int64)
    split, split_summary = _split_fields(
        fields, _labels_of_fields(cells["field"].to_list(), judged, kept, candidates), settings, seed
    )
    part_of = cells["field"].map(split["part"]).to_numpy(object)
    rng = np.random.default_rng([seed, 4])
    relabelled, synthetic = _draw_negatives(judged, kept, candidates, part_of, settings.negatives, rng)
    judged.reason[relabelled] = ""
    for row in relabelled:
        judged.labels[row] = (NEGATIVE,)
    rows_of = {"real": kept, "relabelled": relabelled, "synthetic": synthetic}
    examples = place(_tabulate(cells, judged.labels, rows_of, split, settings.oversample, rng), rng)
    left_out = cells[["field", "cell"]].assign(reason=judged.reason)[judged.reason != ""].reset_index(drop=True)
    summary = _summarise(judged, rows_of, candidates, examples, settings.labels, split_summary)
    log.info("%d examples from %d of %d cells", len(examples), summary["cells_used"], len(cells))
    return examples, summary, left_out


def _summarise(
    judged: _Judged,
    rows_of: Mapping[str, np.ndarray],
    candidates: np.ndarray,
    examples: pd.DataFrame,
    mode: str,
    split: Mapping[str, Any],
) -> dict[str, Any]:
    """Count the cells by outcome, in numbers that JSON can hold."""
    kinds = Counter(judged.reason)
    kept, n_relabelled = rows_of["real"], len(rows_of["relabelled"])
    dark = judged.filters["green_signal"]
    negative, external = judged.only_negative[kept], judged.external[kept]
    return {
        "labels": mode,
        "cells": len(judged.reason),
        "cells_used": len(kept) + n_relabelled,
        "cells_left_out": len(judged.reason) - kinds[""],
        "unlabelled": {name: kinds[name] for name in ("no_label", "several_labels", "no_truth", "negative_field")},
        "filters": judged.filters
        | {"green_signal": {**dark, "removed": dark["removed"] - n_relabelled, "relabelled": n_relabelled}},
        "negatives": {
            "negative_fields": int((negative & ~external).sum()) if mode != "cells" else 0,
            "external": int(external.sum()),
            "truth": int(negative.sum()) if mode == "cells" else 0,
            "low_green": n_relabelled,
            "low_green_candidates": len(candidates),
            "synthetic": len(rows_of["synthetic"]),
        },
        "split": split,
        "examples": {part: int((examples["part"] == part).sum()) for part in PARTS},
        "copies": int((examples["copy"] > 0).sum()),
        "classes": _class_counts(examples),
    }


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
