"""Scores of single-cell predictions: matching of cells, mean average precision, accuracy, calibration, intervals.

Two kinds of truth are known. *Per cell*: a table of true cells with their labels and true masks; predicted cells
are matched to true cells by the overlap of their masks. *Inherited*: every cell of a field with one label has that
label. docs/evaluation.md defines each score.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse
from sklearn.metrics import average_precision_score, roc_auc_score

from hpaloc.classes import N_CLASSES, NAMES, format_labels, label_matrix, parse_labels
from hpaloc.files import atomic_path, spelled_as_on_disk
from hpaloc.manifests import true_mask_states, unchanged
from hpaloc.masks import mask_path, read_mask
from hpaloc.progress import log, track
from hpaloc.resampling import (
    percentile_interval,
    replicated_accuracy,
    resampled_groups,
    shuffled_labels,
    wilson_interval,
)
from hpaloc.tables import PROBABILITIES, write_table
from hpaloc.truth import read_true_cells

# The competition's detection threshold (docs/evaluation.md).
DETECTION_IOU = 0.6
# A cell is taken for the true cell it shares more than half with; above 0.5 no second one can exist.
MATCHING_IOU = 0.5
CALIBRATION_BINS = 15
POOL_SIZES = (1, 2, 3, 5, 10, 20, 50)
CONTROLS = ("tile_random_split", "class_sorted_split", "shuffled_labels")
CELL_SCORES = ("accuracy", "balanced_accuracy", "macro_ap", "macro_auc", "ece")
POOLED_COLUMNS = ("method", "size", "n_owners", "n_cells", "accuracy", "low", "high")

# Replicates of a ranking score are summed over this many score levels at most; the score itself is exact.
_LEVELS = 2048

Convention = Literal["absent_is_false_positive", "absent_ignored"]
CONVENTIONS: tuple[Convention, ...] = ("absent_is_false_positive", "absent_ignored")


def overlaps(predicted: np.ndarray, truth: np.ndarray) -> pd.DataFrame:
    """Find every pair of a predicted and a true cell that share a pixel.

    ``predicted`` and ``truth`` are (H, W) label images of an integer type, 0 = background. Returns one row a pair,
    ordered by ``cell`` then ``truth_cell``: cell int64, truth_cell int64, iou float64 (intersection over union).
    Raises ValueError where the shapes differ.
    """
    pairs, _, _ = _joint_areas(predicted, truth)
    return pairs


def _joint_areas(predicted: np.ndarray, truth: np.ndarray) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return the overlapping pairs, and the ids present in the predicted and in the true label image."""
    if predicted.shape != truth.shape or predicted.ndim != 2:
        raise ValueError(f"label images of shapes {predicted.shape} and {truth.shape} cannot be compared")
    n_predicted, n_truth = (int(image.max(initial=0)) + 1 for image in (predicted, truth))
    # The narrowest type that holds a pair id: the comparison of neighbours below is bound by memory.
    pair_type = np.uint16 if n_predicted * n_truth <= 1 << 16 else np.uint64
    pair = np.multiply(predicted.ravel(), n_truth, dtype=pair_type, casting="unsafe")
    np.add(pair, truth.ravel(), out=pair, dtype=pair_type, casting="unsafe")
    # Label images are long runs of one pair, so areas are sums over runs and not over pixels.
    start = np.concatenate(([0], np.flatnonzero(pair[1:] != pair[:-1]) + 1)) if pair.size else np.zeros(0, np.int64)
    length = np.diff(start, append=pair.size)
    code, run = np.unique(pair[start], return_inverse=True)
    shared = np.bincount(run, weights=length, minlength=len(code))
    cell, truth_cell = (part.astype(np.int64) for part in np.divmod(code, pair_type(n_truth)))

    predicted_ids, which_predicted = np.unique(cell, return_inverse=True)
    truth_ids, which_truth = np.unique(truth_cell, return_inverse=True)
    predicted_area = np.bincount(which_predicted, weights=shared)[which_predicted]
    truth_area = np.bincount(which_truth, weights=shared)[which_truth]
    iou = shared / (predicted_area + truth_area - shared)
    both = (cell > 0) & (truth_cell > 0)
    pairs = pd.DataFrame({"cell": cell[both], "truth_cell": truth_cell[both], "iou": iou[both]})
    return pairs, predicted_ids[predicted_ids > 0], truth_ids[truth_ids > 0]


@dataclass(frozen=True)
class Matches:
    """The overlap of predicted and true cells of many fields.

    pairs: field str, cell int64, truth_cell int64, iou float64, one row an overlapping pair.
    predicted, truth: field str, cell int64, every cell present in the predicted and in the true masks.
    """

    pairs: pd.DataFrame
    predicted: pd.DataFrame
    truth: pd.DataFrame


def match_fields(masks: Mapping[str, tuple[np.ndarray | None, np.ndarray]]) -> Matches:
    """Overlay predicted and true label images of many fields.

    ``masks`` maps a field to its (predicted, true) label images, see ``overlaps``; a predicted image of None is a
    field without any predicted cell, such as a rejected one. Both are (H, W) integers, 0 the background. Raises
    ValueError naming the field where the two differ in shape.
    """
    return _join(_overlay(name, predicted, truth) for name, (predicted, truth) in masks.items())


def match_files(
    predicted: Mapping[str, Path | None],
    truth: Mapping[str, Path],
    threads: int = 1,
    states: Mapping[str, str] | None = None,
) -> Matches:
    """Overlay predicted and true mask files of many fields, ``threads`` fields at a time.

    ``predicted`` maps a field to its predicted cell mask file (None or absent: the field has no predicted cell),
    ``truth`` maps each field to be matched to its true mask file, ``states`` to what that file was at planning. Raises
    FileNotFoundError naming the field where a true mask is absent, ValueError naming it where the two masks differ in
    shape, and ChangedError naming a true mask that is another than was planned.
    """

    def overlay(name: str) -> tuple[str, pd.DataFrame, np.ndarray, np.ndarray]:
        path = predicted.get(name)
        with unchanged({name: truth[name]}, states or {}):
            if not truth[name].is_file():
                raise FileNotFoundError(f"field {name}: no true mask at {truth[name]}")
            true = read_mask(truth[name])
        return _overlay(name, None if path is None else read_mask(path), true)

    with ThreadPoolExecutor(threads) as pool:
        return _join(track(pool.map(overlay, truth), len(truth), "fields matched"))


def _overlay(
    name: str, predicted: np.ndarray | None, truth: np.ndarray
) -> tuple[str, pd.DataFrame, np.ndarray, np.ndarray]:
    try:
        return name, *_joint_areas(np.zeros_like(truth) if predicted is None else predicted, truth)
    except ValueError as error:
        raise ValueError(f"field {name}: {error}") from error


def _join(overlays: Iterator[tuple[str, pd.DataFrame, np.ndarray, np.ndarray]]) -> Matches:
    pairs, predicted, truth = [], [], []
    for name, table, predicted_ids, truth_ids in overlays:
        pairs.append(table.assign(field=name))
        predicted.append(pd.DataFrame({"field": name, "cell": predicted_ids}))
        truth.append(pd.DataFrame({"field": name, "cell": truth_ids}))

    def stack(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
        if not tables:
            return pd.DataFrame({column: [] for column in columns})
        return pd.concat(tables, ignore_index=True)[columns]

    return Matches(
        stack(pairs, ["field", "cell", "truth_cell", "iou"]),
        stack(predicted, ["field", "cell"]),
        stack(truth, ["field", "cell"]),
    )


def best_pairs(pairs: pd.DataFrame, threshold: float = MATCHING_IOU) -> pd.DataFrame:
    """Give each predicted cell at most one true cell, and each true cell at most one predicted cell.

    Pairs below ``threshold`` are dropped; of the rest the best overlap wins, then the lowest ids. Columns as in
    ``Matches.pairs``.
    """
    kept = pairs[pairs["iou"] >= threshold].sort_values(
        ["iou", "field", "cell", "truth_cell"], ascending=[False, True, True, True]
    )
    # Where cells of one image overlap, taking the best first and dropping both partners from the rest is greedy;
    # in label images every row here is already alone.
    taken: set[tuple[str, str, int]] = set()
    keep = np.ones(len(kept), bool)
    if kept.duplicated(["field", "cell"]).any() or kept.duplicated(["field", "truth_cell"]).any():
        for row, (name, cell, truth_cell) in enumerate(
            zip(kept["field"], kept["cell"], kept["truth_cell"], strict=True)
        ):
            sides = {("p", name, cell), ("t", name, truth_cell)}
            keep[row] = not (sides & taken)
            if keep[row]:
                taken |= sides
    return kept[keep].sort_values(["field", "cell"], ignore_index=True)


def segmentation_scores(matches: Matches, threshold: float = DETECTION_IOU) -> dict[str, float]:
    """Score predicted masks against true masks, all fields pooled.

    precision60 and recall60 are the shares of predicted and of true cells that have a partner of IoU at least
    ``threshold``, f1_60 their harmonic mean, mean_iou the mean over true cells of the best IoU with a predicted
    cell (0 where none overlaps).
    """
    hits = len(best_pairs(matches.pairs, threshold))
    precision = hits / len(matches.predicted) if len(matches.predicted) else float("nan")
    recall = hits / len(matches.truth) if len(matches.truth) else float("nan")
    total = len(matches.predicted) + len(matches.truth)
    best = matches.pairs.groupby(["field", "truth_cell"])["iou"].max()
    return {
        "precision60": precision,
        "recall60": recall,
        "f1_60": 2 * hits / total if total else float("nan"),
        "mean_iou": float(best.sum() / len(matches.truth)) if len(matches.truth) else float("nan"),
    }


def detections(predictions: pd.DataFrame) -> pd.DataFrame:
    """Turn a table of cells (field, cell, p_0..p_18) into detections: every class of every cell.

    Returns field, cell, location int64, confidence float64, 19 rows a cell.
    """
    n = len(predictions)
    return pd.DataFrame(
        {
            "field": np.repeat(predictions["field"].to_numpy(), N_CLASSES),
            "cell": np.repeat(predictions["cell"].to_numpy(), N_CLASSES),
            "location": np.tile(np.arange(N_CLASSES), n),
            "confidence": predictions[list(PROBABILITIES)].to_numpy(np.float64).ravel(),
        }
    )


def detection_average_precision(
    found: pd.DataFrame,
    truth: pd.DataFrame,
    pairs: pd.DataFrame,
    convention: Convention = "absent_is_false_positive",
    threshold: float = DETECTION_IOU,
) -> np.ndarray:
    """Compute the average precision of each class as the 2021 competition did; its mean is ``numpy.nanmean``.

    found: field, cell, location, confidence, one row a detection in any order (see ``detections``);
    truth: field, cell, labels (a label string such as ``0|16``), one row a true cell;
    pairs: the overlapping masks, see ``Matches.pairs``.
    A detection belongs to the true cell of its class it overlaps best (lowest id where two overlap alike) if their
    IoU is at least ``threshold``. The most confident detection of a true cell is right, all others are wrong.
    Detections of equal confidence are one point of the precision-recall curve, so the value does not depend on the
    order of rows. The area is taken under the precision envelope at all points (PASCAL VOC 2010).
    ``convention`` says what becomes of a detection of a class that no true cell of its field has: a false positive
    (TensorFlow's Open Images V2 evaluator), or dropped (its challenge evaluator).
    Returns (19,) float64, nan for a class without a true cell. Raises ValueError for a true cell listed twice, a
    confidence that is not finite, or a location that is no class.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}")
    return _average_precisions(found, truth, pairs, (convention,), threshold)[convention]


def _average_precisions(
    found: pd.DataFrame,
    truth: pd.DataFrame,
    pairs: pd.DataFrame,
    conventions: Sequence[Convention] = CONVENTIONS,
    threshold: float = DETECTION_IOU,
) -> dict[Convention, np.ndarray]:
    confidence = found["confidence"].to_numpy(np.float64)
    location = found["location"].to_numpy()
    if not np.isfinite(confidence).all():
        row = int(np.flatnonzero(~np.isfinite(confidence))[0])
        raise ValueError(f"field {found['field'].iloc[row]}, cell {found['cell'].iloc[row]}: confidence is not finite")
    odd = location[(location < 0) | (location >= N_CLASSES)]
    if len(odd):
        raise ValueError(f"locations must be 0 to {N_CLASSES - 1}, not {odd[0]}")
    twice = truth[truth.duplicated(["field", "cell"])]
    if len(twice):
        raise ValueError("true cell listed twice: field {}, cell {}".format(*twice[["field", "cell"]].iloc[0]))

    # A cell's key is one integer, so that joins are searches in sorted arrays.
    names = pd.Index(pd.unique(pd.concat([table["field"] for table in (truth, pairs, found)])))
    most = 1 + max((int(column.max()) for column in (found["cell"], pairs["cell"]) if len(column)), default=0)
    field_of = names.get_indexer(pd.Index(found["field"]))
    key = field_of * most + found["cell"].to_numpy(np.int64)
    truth_field = names.get_indexer(pd.Index(truth["field"]))
    near = pairs[(pairs["iou"] >= threshold).to_numpy()]
    near_field = names.get_indexer(pd.Index(near["field"]))
    # A cell of the true masks that nobody labelled has no class to be right about; it finds no row here.
    near_truth = pd.Index(truth_field * (1 << 32) + truth["cell"].to_numpy(np.int64)).get_indexer(
        pd.Index(near_field * (1 << 32) + near["truth_cell"].to_numpy(np.int64))
    )
    order = np.lexsort(
        (near["truth_cell"], -near["iou"].to_numpy(), near_field * most + near["cell"].to_numpy(np.int64))
    )
    order = order[near_truth[order] >= 0]
    near_key, near_truth = (near_field * most + near["cell"].to_numpy(np.int64))[order], near_truth[order]

    labels = _labels_of(truth["labels"]) > 0
    result = {convention: np.full(N_CLASSES, np.nan) for convention in conventions}
    by_class = np.argsort(location, kind="stable")
    bounds = np.searchsorted(location[by_class], np.arange(N_CLASSES + 1))
    for index in np.flatnonzero(labels.any(axis=0)):
        rows = by_class[bounds[index] : bounds[index + 1]]
        own = labels[near_truth, index]
        own_key, first = np.unique(near_key[own], return_index=True)
        own_truth = near_truth[own][first]
        place = np.searchsorted(own_key, key[rows])
        hit = np.zeros(len(rows), bool)
        inside = place < len(own_key)
        hit[inside] = own_key[place[inside]] == key[rows][inside]
        best = np.full(len(truth), -np.inf)
        np.maximum.at(best, own_truth[place[hit]], confidence[rows[hit]])
        best = best[best > -np.inf]
        present = np.zeros(len(names), bool)
        present[truth_field[labels[:, index]]] = True
        for convention in conventions:
            kept = rows if convention == "absent_is_false_positive" else rows[present[field_of[rows]]]
            result[convention][index] = _envelope_area(confidence[kept], best, int(labels[:, index].sum()))
    return result


def _envelope_area(confidence: np.ndarray, hits: np.ndarray, n_truth: int) -> float:
    """Return the area under the precision envelope.

    ``confidence`` of every detection, ``hits`` the confidence at which each true cell that is found is first found.
    """
    if not len(confidence):
        return 0.0
    levels = np.unique(confidence)[::-1]
    accepted = len(confidence) - np.searchsorted(np.sort(confidence), levels, side="left")
    right = len(hits) - np.searchsorted(np.sort(hits), levels, side="left")
    precision = np.maximum.accumulate((right / accepted)[::-1])[::-1]
    return float(np.sum(np.diff(right, prepend=0) * precision) / n_truth)


def map60(found: pd.DataFrame, truth: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, float | None]:
    """Return the mean average precision at IoU 0.6 in both conventions, see ``detection_average_precision``.

    Raises ValueError as that does.
    """
    return {name: _mean(values) for name, values in _average_precisions(found, truth, pairs).items()}


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Return the mean gap between confidence and accuracy, weighted by cells, of a table from ``reliability``."""
    return float((table["n"] * (table["accuracy"] - table["confidence"]).abs()).sum() / table["n"].sum())


def reliability(p: np.ndarray, single: np.ndarray, bins: int = CALIBRATION_BINS) -> pd.DataFrame:
    """Compare the confidence of the most likely class with how often it is right.

    ``p`` (n, 19) float probabilities, ``single`` (n,) int, the only true class of each cell. Returns one row a bin of
    equal width that holds a cell: low, high, n, confidence (mean), accuracy. Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == single
    which = _calibration_bin(confidence, bins)
    n = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame(
            {
                "low": np.arange(bins) / bins,
                "high": np.arange(1, bins + 1) / bins,
                "n": n,
                "confidence": np.bincount(which, weights=confidence, minlength=bins) / n,
                "accuracy": np.bincount(which, weights=right, minlength=bins) / n,
            }
        )
    return table[table["n"] > 0].reset_index(drop=True)


def _calibration_bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    # Bins are closed on the right, as in the source of the formula.
    return np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)


def confusion_matrix(single: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Count cells by true class (rows) and called class (columns), as (19, 19) int64.

    single, called: (n,) int, the only true and the called class of each cell.
    """
    return np.bincount(single.astype(np.int64) * N_CLASSES + called.astype(np.int64), minlength=N_CLASSES**2).reshape(
        N_CLASSES, N_CLASSES
    )


def single_labels(labels: np.ndarray) -> np.ndarray:
    """Return the only true class of each row, (n,) int64, -1 where it has none or several; labels: (n, 19) 0 or 1."""
    labels = np.asarray(labels)
    return np.where((labels > 0).sum(axis=1) == 1, labels.argmax(axis=1), -1) if len(labels) else np.zeros(0, int)


def score_cells(
    p: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predicted probabilities against true labels.

    p (n, 19) float probabilities; labels (n, 19) 0 or 1, several a row allowed; groups (n,) what was sampled
    independently (antibody or field). accuracy, balanced_accuracy and ece are over rows with exactly one true
    label, the class called being the most likely one; macro_ap and macro_auc are means over classes that occur,
    each class against the rest, over all rows. ci95 holds a percentile interval per score from ``replicates``
    resamplings of whole groups, or None where fewer than two groups have such rows; where all groups are alike and
    resampling shows no spread, accuracy gets the Wilson interval for as many trials as groups. Undefined scores
    are None. Raises ValueError for arrays of other shapes and for a probability that is not finite.
    """
    p, labels = np.asarray(p, np.float64), np.asarray(labels) > 0
    _check_probabilities(p, labels)
    single = single_labels(labels)
    one = single >= 0
    called = p.argmax(axis=1) if len(p) else np.zeros(0, int)
    ap, auc = ranking_scores(p, labels)
    scores: dict[str, Any] = {
        "accuracy": _mean(called[one] == single[one]),
        "balanced_accuracy": _mean(_recalls(confusion_matrix(single[one], called[one]))),
        "macro_ap": _mean(ap),
        "macro_auc": _mean(auc),
        "ece": expected_calibration_error(reliability(p[one], single[one])) if one.any() else None,
    }
    intervals = dict.fromkeys(scores)
    if groups is not None and replicates:
        intervals |= _intervals(p, labels, single, np.asarray(groups), replicates, seed)
        n_groups = len(np.unique(np.asarray(groups)[one]))
        spread = intervals["accuracy"]
        if spread is not None and spread[0] == spread[1]:
            intervals["accuracy"] = list(wilson_interval(scores["accuracy"] * n_groups, n_groups))
    return scores | {"ci95": intervals}


def _check_probabilities(p: np.ndarray, labels: np.ndarray) -> None:
    if p.ndim != 2 or p.shape[1] != N_CLASSES or p.shape != labels.shape:
        raise ValueError(f"expected two (n, {N_CLASSES}) arrays, got {p.shape} and {labels.shape}")
    if not np.isfinite(p).all():
        raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(p).all(axis=1))[0])}: a probability is not finite")


def ranking_scores(p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and area under the ROC curve of each class against the rest, two (19,) float64.

    p (n, 19) float; labels (n, 19) 0 or 1.

    Average precision is scikit-learn's (steps, no envelope). nan where the class never (or, for the ROC curve,
    always) occurs.
    """
    ap, auc = np.full(N_CLASSES, np.nan), np.full(N_CLASSES, np.nan)
    for index in range(N_CLASSES):
        positive = labels[:, index] > 0
        if positive.any():
            ap[index] = average_precision_score(positive, p[:, index])
            if not positive.all():
                auc[index] = roc_auc_score(positive, p[:, index])
    return ap, auc


def _recalls(confusion: np.ndarray) -> np.ndarray:
    total = confusion.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return np.diagonal(confusion, axis1=-2, axis2=-1) / total


def _mean(values: np.ndarray) -> float | None:
    """Return the mean of the values that are not nan, None where there are none."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _intervals(
    p: np.ndarray, labels: np.ndarray, single: np.ndarray, groups: np.ndarray, replicates: int, seed: int
) -> dict[str, list[float] | None]:
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return {}
    weights = resampled_groups(len(names), replicates, seed)
    one = single >= 0
    right = (p.argmax(axis=1) == single)[one]
    true_class = single[one]
    confidence = p.max(axis=1)[one]
    bin_of = _calibration_bin(confidence, CALIBRATION_BINS)
    by_class = _sums(weights, group[one], true_class, N_CLASSES)
    right_by_class = _sums(weights, group[one], true_class, N_CLASSES, right)
    gap = np.abs(_sums(weights, group[one], bin_of, CALIBRATION_BINS, right - confidence))
    with np.errstate(invalid="ignore", divide="ignore"):
        n = by_class.sum(axis=1)
        replicated = {
            "accuracy": right_by_class.sum(axis=1) / n,
            "balanced_accuracy": _nanmean_rows(right_by_class / by_class),
            "ece": gap.sum(axis=1) / n,
        }
    if len(np.unique(group[one])) < 2:
        # The scores of cells with one label stand on a single group, and resampling it shows nothing.
        replicated = {}
    ap, auc = np.full((replicates, N_CLASSES), np.nan), np.full((replicates, N_CLASSES), np.nan)
    for index in np.flatnonzero(labels.any(axis=0)):
        ap[:, index], auc[:, index] = _replicated_ranking(p[:, index], labels[:, index], group, weights)
    replicated |= {"macro_ap": _nanmean_rows(ap), "macro_auc": _nanmean_rows(auc)}
    return {name: percentile_interval(values) for name, values in replicated.items()}


def _nanmean_rows(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)


def _sums(
    weights: np.ndarray, group: np.ndarray, column: np.ndarray, n_columns: int, values: np.ndarray | None = None
) -> np.ndarray:
    """Sum ``values`` (1 by default) by group and column, then over groups by their weights: (replicates, n_columns)."""
    entries = np.ones(len(group)) if values is None else np.asarray(values, np.float64)
    table = sparse.coo_array((entries, (column, group)), shape=(n_columns, weights.shape[1])).tocsr()
    return (table @ weights.T).T


def _replicated_ranking(
    score: np.ndarray, positive: np.ndarray, group: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and ROC area of one class in every replicate, two (replicates,) arrays."""
    distinct, level = np.unique(score, return_inverse=True)
    if len(distinct) > _LEVELS:
        # By the rank of the first of equal scores: cells that tie share a level, whatever the order of rows.
        level = np.searchsorted(np.sort(score), score) * _LEVELS // len(score)
    n_levels = min(len(distinct), _LEVELS)
    right = _sums(weights, group, level, n_levels, positive)[:, ::-1]
    every = _sums(weights, group, level, n_levels)[:, ::-1]
    cumulated_right, cumulated = np.cumsum(right, axis=1), np.cumsum(every, axis=1)
    n_right, n_every = cumulated_right[:, -1], cumulated[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(cumulated > 0, cumulated_right / cumulated, 0)
        ap = (right * precision).sum(axis=1) / n_right
        # A negative ranks below the positives counted before its level, and level with half of those on it.
        wrong = every - right
        auc = (wrong * (cumulated_right - right / 2)).sum(axis=1) / (n_right * (n_every - n_right))
    return ap, auc


def pooled_accuracy(
    p: np.ndarray,
    single: np.ndarray,
    owner: np.ndarray,
    groups: np.ndarray | None = None,
    sizes: Sequence[int] = POOL_SIZES,
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how the accuracy of a pooled call grows with the number of cells pooled.

    p (n, 19) float probabilities; single (n,) int, the only true class of each cell's owner; owner (n,) the field or
    protein the cell belongs to; groups (n,) what was sampled independently (default: owner). For each size every owner
    with at least that many cells is called ``draws`` times from that many of its cells drawn without replacement, by
    the greatest mean probability and by the vote of the cells; size "all" pools every cell of every owner, and "all of
    >= 10" those of owners with at least ten. Returns method (mean, vote), size, n_owners, n_cells (in those owners),
    accuracy, low, high (95 % interval over groups).
    """
    owner = np.asarray(owner)
    groups = owner if groups is None else np.asarray(groups)
    names, first, index, count = np.unique(owner, return_index=True, return_inverse=True, return_counts=True)
    truth, group = single[first], groups[first]
    generator = np.random.default_rng(seed)
    called = p.argmax(axis=1)
    hits: dict[tuple[str, str], np.ndarray] = {}
    wanted = sorted({size for size in sizes if size <= count.max(initial=0)})
    for _ in range(draws if wanted else 0):
        # Random order within owners: the first k rows of an owner are a draw of k cells without replacement.
        order = np.lexsort((generator.random(len(p)), index))
        rank = np.arange(len(p)) - np.repeat(np.cumsum(count) - count, count)
        for size in wanted:
            taken = order[rank < size]
            for method, call in _calls(p[taken], called[taken], index[taken], len(names)).items():
                total = hits.setdefault((method, str(size)), np.zeros(len(names)))
                total += call == truth
    at_least = {str(size): size for size in wanted} | {"all": 1, "all of >= 10": 10}
    for method, call in _calls(p, called, index, len(names)).items():
        for every in ("all", "all of >= 10"):
            hits[method, every] = (call == truth) * float(draws)
    rows = []
    for (method, pooled), right in hits.items():
        enough = count >= at_least[pooled]
        right = right / draws
        if not enough.any():
            continue
        interval = replicated_accuracy(right[enough], group[enough], seed=seed) or (np.nan, np.nan)
        rows.append(
            {
                "method": method,
                "size": pooled,
                "n_owners": int(enough.sum()),
                "n_cells": int(count[enough].sum()),
                "accuracy": float(right[enough].mean()),
                "low": interval[0],
                "high": interval[1],
            }
        )
    return pd.DataFrame(rows, columns=list(POOLED_COLUMNS)).sort_values("method", kind="stable", ignore_index=True)


def _calls(p: np.ndarray, called: np.ndarray, index: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Return the pooled call of each of n owners by mean and by vote (equal votes go to the greater mean)."""
    total, votes = np.zeros((n, N_CLASSES)), np.zeros((n, N_CLASSES))
    np.add.at(total, index, p)
    np.add.at(votes, (index, called), 1)
    mean = total / np.maximum(np.bincount(index, minlength=n), 1)[:, None]
    return {"mean": mean.argmax(axis=1), "vote": (votes + mean / 2).argmax(axis=1)}


@dataclass(frozen=True)
class Evaluation:
    """The scores of one collection.

    metrics: the collection's part of metrics.json. per_class, confusion, reliability, pooled, scores: the tables
    that docs/evaluation.md describes. cells: the scored cells with their truth (true_labels).
    """

    metrics: dict[str, Any]
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    reliability: pd.DataFrame
    pooled: pd.DataFrame
    scores: pd.DataFrame
    cells: pd.DataFrame


def evaluate_collection(
    cells: pd.DataFrame,
    fields: pd.DataFrame,
    truth: pd.DataFrame | None = None,
    matches: Matches | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score the predictions of one collection.

    cells: field, cell, p_0..p_18, every predicted cell; fields: field, sheet_labels (label string or ""), antibody
    ("" where unknown), every field, rejected ones too, as ``pooling.aggregate`` writes them. truth (field, cell,
    labels) and matches (the masks of the fields in truth) give per-cell truth; without them the cells of one-label
    fields inherit that label. A field without labels in the sheet has the labels of its true cells. Raises
    ValueError where a true cell is not in the true masks, or where the predicted masks hold other cells than the
    table of predictions.
    """
    if (truth is None) != (matches is None):
        raise ValueError("per-cell truth needs both the table of true cells and the overlap of the masks")
    antibody = dict(zip(fields["field"], fields["antibody"].fillna(""), strict=True))
    groups = {name: antibody[name] or name for name in antibody}
    labels_of = dict(zip(fields["field"], fields["sheet_labels"].fillna(""), strict=True))
    detected: dict[Convention, np.ndarray] = {}
    detection_scores: dict[str, Any] = {}
    if truth is not None and matches is not None:
        annotated = cells[cells["field"].isin(truth["field"])]
        _check_truth(annotated, truth, matches)
        scored = _matched_cells(annotated, truth, matches.pairs)
        for name, true_labels in truth.groupby("field")["labels"]:
            labels_of[name] = labels_of.get(name) or _union(true_labels)
        detected = _average_precisions(detections(annotated), truth, matches.pairs)
        detection_scores = {
            "map60": {name: _mean(values) for name, values in detected.items()},
            "segmentation": segmentation_scores(matches),
        }
    else:
        inherited = cells["field"].map(lambda name: labels_of.get(name, ""))
        scored = cells.assign(true_labels=inherited)[(inherited != "") & ~inherited.str.contains("|", regex=False)]
    proteins_of = {name: antibody[name] for name in antibody if antibody[name] and labels_of[name]}
    protein_labels = {
        protein: _union(labels_of[name] for name in names)
        for protein, names in pd.Series(proteins_of).groupby(pd.Series(proteins_of)).groups.items()
    }

    cell_scores = score_cells(
        scored[list(PROBABILITIES)].to_numpy(np.float64),
        _labels_of(scored["true_labels"]),
        scored["field"].map(groups).to_numpy(),
        replicates,
        seed,
    )
    owners = {"field": (cells["field"], {name: text for name, text in labels_of.items() if text}, groups)}
    if protein_labels:
        owners["protein"] = (cells["field"].map(proteins_of), protein_labels, {name: name for name in protein_labels})
    every_p = cells[list(PROBABILITIES)].to_numpy(np.float64)
    pooled_scores = {
        level: _pooled_scores(every_p, owner, labels, group, replicates, seed)
        for level, (owner, labels, group) in owners.items()
    }
    pooled = [
        _pooled_curve(every_p, owner, labels, group, seed).assign(level=level)
        for level, (owner, labels, group) in owners.items()
    ]

    single = single_labels(_labels_of(scored["true_labels"]))
    one = single >= 0
    scored_p = scored[list(PROBABILITIES)].to_numpy(np.float64)
    confusion = confusion_matrix(single[one], scored_p.argmax(axis=1)[one] if len(scored) else single[one])
    point = {level: {key: scores[key] for key in ("accuracy", "macro_ap")} for level, scores in pooled_scores.items()}
    metrics = {
        "n_fields": len(fields),
        "n_cells": len(cells),
        "cells": cell_scores,
        "fields": point["field"],
        "proteins": point.get("protein"),
        **detection_scores,
    }
    return Evaluation(
        metrics=_plain(metrics),
        per_class=_per_class(scored_p, _labels_of(scored["true_labels"]), confusion, detected),
        confusion=pd.DataFrame(confusion, index=list(NAMES), columns=list(NAMES)),
        reliability=reliability(scored_p[one], single[one]),
        pooled=pd.concat([table for table in pooled if len(table)] or pooled[:1])[["level", *POOLED_COLUMNS]],
        scores=_score_table(metrics, int(one.sum()), len(scored), pooled_scores),
        cells=scored,
    )


def _union(texts: Iterable[str]) -> str:
    return format_labels(label for text in texts for label in parse_labels(text))


def _labels_of(texts: pd.Series) -> np.ndarray:
    known = {text: parse_labels(text) for text in texts.unique()}
    return label_matrix([known[text] for text in texts])


def _check_truth(cells: pd.DataFrame, truth: pd.DataFrame, matches: Matches) -> None:
    for what, wanted, masks in (
        ("true cell without a true mask", truth, matches.truth),
        ("predicted cell without a predicted mask", cells, matches.predicted),
        ("predicted mask without a prediction", matches.predicted, cells),
    ):
        present = pd.MultiIndex.from_frame(masks[["field", "cell"]])
        absent = wanted[~pd.MultiIndex.from_frame(wanted[["field", "cell"]]).isin(present)]
        if len(absent):
            name, cell = absent[["field", "cell"]].iloc[0]
            raise ValueError(f"field {name}, cell {cell}: {what} ({len(absent)} such cells)")
    unlabelled = len(matches.truth) - len(truth)
    if unlabelled:
        log.warning("%d cells of the true masks have no label; detections of them count as wrong", unlabelled)


def _matched_cells(cells: pd.DataFrame, truth: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the predicted cells that have a true partner of IoU at least 0.5, with true_labels, truth_cell, iou."""
    partners = best_pairs(pairs, MATCHING_IOU)
    true_cells = truth.rename(columns={"cell": "truth_cell", "labels": "true_labels"})
    partners = partners.merge(true_cells[["field", "truth_cell", "true_labels"]], on=["field", "truth_cell"])
    return cells.merge(partners, on=["field", "cell"], validate="one_to_one")


def _pooled_scores(
    p: np.ndarray,
    owner: pd.Series,
    labels: Mapping[str, str],
    groups: Mapping[str, str],
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """Score the mean probabilities of each labelled owner; an owner without any cell is called wrong."""
    names = pd.Index(list(labels))
    index = names.get_indexer(pd.Index(owner))
    held = index >= 0
    total = np.zeros((len(names), N_CLASSES))
    np.add.at(total, index[held], p[held])
    n = np.bincount(index[held], minlength=len(names))
    mean = total / np.maximum(n, 1)[:, None]
    truth = _labels_of(pd.Series([labels[name] for name in names], dtype=object))
    single = single_labels(truth)
    one = single >= 0
    right = (mean.argmax(axis=1) == single) & (n > 0) if len(names) else np.zeros(0, bool)
    group = np.array([groups[name] for name in names], dtype=object)
    interval = replicated_accuracy(right[one], group[one], replicates, seed)
    ranked = score_cells(mean, truth, group, replicates, seed)
    return {
        "accuracy": _mean(right[one]),
        "macro_ap": ranked["macro_ap"],
        "n": {"accuracy": int(one.sum()), "macro_ap": len(names)},
        "ci95": {"accuracy": interval and list(interval), "macro_ap": ranked["ci95"]["macro_ap"]},
    }


def _pooled_curve(
    p: np.ndarray, owner: pd.Series, labels: Mapping[str, str], groups: Mapping[str, str], seed: int
) -> pd.DataFrame:
    single = {name: int(text) for name, text in labels.items() if "|" not in text}
    rows = owner.isin(single).to_numpy()
    names = owner[rows]
    truth, group = (np.array([table[name] for name in names]) for table in (single, groups))
    return pooled_accuracy(p[rows], truth, names.to_numpy(), group, seed=seed)


def _per_class(
    p: np.ndarray, labels: np.ndarray, confusion: np.ndarray, detected: Mapping[Convention, np.ndarray]
) -> pd.DataFrame:
    ap, auc = ranking_scores(p, labels)
    right, true, called = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame(
            {
                "location": np.arange(N_CLASSES),
                "name": NAMES,
                "n_cells": (labels > 0).sum(axis=0),
                "n_single": true,
                "n_called": called,
                "recall": right / true,
                "precision": right / called,
                "f1": 2 * right / (true + called),
                "ap": ap,
                "auc": auc,
            }
        )
    for name, values in detected.items():
        table[f"ap60_{name}"] = values
    return table


def _score_table(
    metrics: Mapping[str, Any], n_single: int, n_scored: int, pooled: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """List every score of a collection in one row each: level, score, value, low, high, n."""
    rows: list[tuple[str, str, float | None, float | None, float | None, int | None]] = []
    for name in CELL_SCORES:
        low, high = metrics["cells"]["ci95"][name] or (None, None)
        rows.append(("cell", name, metrics["cells"][name], low, high, n_scored if "macro" in name else n_single))
    for level, scores in pooled.items():
        for name in ("accuracy", "macro_ap"):
            low, high = scores["ci95"][name] or (None, None)
            rows.append((level, name, scores[name], low, high, scores["n"][name]))
    for level in ("map60", "segmentation"):
        rows += [(level, name, value, None, None, None) for name, value in metrics.get(level, {}).items()]
    return pd.DataFrame(rows, columns=["level", "score", "value", "low", "high", "n"])


def _plain(value: Any) -> Any:
    """Turn numbers into what JSON knows; nan becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value


def score_mixtures(fields: pd.DataFrame, mixtures: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, float]]:
    """Compare inferred with known fractions of locations in fields of mixed proteins.

    fields: field, fraction_0..fraction_18 (``pooling.aggregate`` with prototypes); mixtures: ID, label_a, fraction_a,
    label_b, fraction_b, one row a field. Returns one row for each field and each of its two locations (field, pair,
    location, true, found), and the Pearson correlation and mean absolute error of found against true. A field without
    cells counts as found 0 and 0. Raises ValueError naming a mixed field that ``fields`` lacks.
    """
    row = pd.Index(fields["field"]).get_indexer(pd.Index(mixtures["ID"]))
    if (row < 0).any():
        raise ValueError(f"field {mixtures['ID'].iloc[int(row.argmin())]}: is mixed, but it is not among the fields")
    fractions = np.nan_to_num(fields[[f"fraction_{index}" for index in range(N_CLASSES)]].to_numpy(np.float64))
    sides = [
        pd.DataFrame(
            {
                "field": mixtures["ID"],
                "pair": [
                    f"{NAMES[a]} + {NAMES[b]}" for a, b in zip(mixtures["label_a"], mixtures["label_b"], strict=True)
                ],
                "location": mixtures[f"label_{side}"],
                "true": mixtures[f"fraction_{side}"],
                "found": fractions[row, mixtures[f"label_{side}"]],
            }
        )
        for side in ("a", "b")
    ]
    table = pd.concat(sides).sort_index(kind="stable").reset_index(drop=True)
    error = (table["found"] - table["true"]).abs().mean()
    return table, {"correlation": float(table["found"].corr(table["true"])), "mean_absolute_error": float(error)}


def control_examples(examples: pd.DataFrame, control: str, fraction: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Change a table of examples into that of a control training, whose score says what the evaluation is worth.

    examples: field, cell, copy, part, group, labels and label_0..label_18 (``examples.EXAMPLES``). Controls:

    - ``tile_random_split``: ``fraction`` of the cells validate, drawn whatever their field, as much of the literature
      does. What it scores above the grouped split is leak: cells of one field share label, stain and light.
    - ``class_sorted_split``: the first 7.5 % of the cells sorted by class validate,
      which is one class or two, as in the paper's notebook.
    - ``shuffled_labels``: the split stays, and every group takes the labels of another. What can be scored then is
      chance, unless something leaks.

    Returns the changed rows in the order of ``examples``: copies of a cell never validate and are dropped where their
    cell does. Raises ValueError for an unknown control.
    """
    if control not in CONTROLS:
        raise ValueError(f"unknown control {control!r}, not one of {', '.join(CONTROLS)}")
    changed = examples.reset_index(drop=True)
    if control == "shuffled_labels":
        columns = ["labels", *(f"label_{index}" for index in range(N_CLASSES))]
        changed[columns] = changed[columns].to_numpy()[shuffled_labels(changed["group"].to_numpy(), seed)]
        return changed.astype({column: examples[column].dtype for column in columns})
    cell = pd.factorize(pd.MultiIndex.from_frame(changed[["field", "cell"]]))[0]
    _, first = np.unique(cell, return_index=True)
    if control == "tile_random_split":
        validates = tile_random_split(len(first), fraction, seed)
    else:
        classes = [parse_labels(text)[0] for text in changed["labels"].iloc[first]]
        validates = class_sorted_split(np.array(classes))
    part = np.where(validates[cell], "validation", "train")
    changed["part"] = part
    return changed[(part == "train") | (changed["copy"] == 0)].reset_index(drop=True)


def tile_random_split(n: int, fraction: float = 0.2, seed: int = 0) -> np.ndarray:
    """Return (n,) bool, true for ``fraction`` of n cells drawn without regard to fields."""
    validates = np.zeros(n, bool)
    validates[np.random.default_rng(seed).permutation(n)[: round(n * fraction)]] = True
    return validates


def class_sorted_split(classes: np.ndarray, fraction: float = 0.075) -> np.ndarray:
    """Return (n,) bool, true for the first ``fraction`` of the cells sorted by class; classes: (n,) int."""
    validates = np.zeros(len(classes), bool)
    validates[np.argsort(classes, kind="stable")[: round(len(classes) * fraction)]] = True
    return validates


def read_cell_truth(path: Path) -> pd.DataFrame:
    """Read true cells, see ``truth.read_true_cells``: return field str, cell int64, labels (label string)."""
    found = read_true_cells(path)
    rows = [(field, cell, labels) for field, of_field in found.items() for cell, labels in of_field.items()]
    truth = pd.DataFrame(rows, columns=["field", "cell", "labels"])
    return truth.astype({"cell": np.int64})


def read_controls(configs: Mapping[str, Path | str], model: Path | str | None = None) -> dict[str, dict[str, Any]]:
    """Read the scores of control trainings on their own validation parts.

    configs: the config.json of each control's model folder, by name; model: that of the real training, whose scores
    on its own validation part come beside each as ``real_training``. Returns what each config.json has under
    ``scores``. Raises ValueError naming a file without scores.
    """

    def scores(path: Path | str) -> dict[str, Any]:
        found = json.loads(Path(path).read_text(encoding="utf-8")).get("scores")
        if found is None:
            raise ValueError(f"{path}: this model folder has no scores; train it with this version of hpaloc")
        return found

    real = {"real_training": scores(model)} if configs and model else {}
    return {name: scores(path) | real for name, path in configs.items()}


@dataclass(frozen=True)
class Collection:
    """Where the files of one collection are.

    predictions: folder with cells.parquet and fields.parquet of ``pooling.aggregate``; segmentation: folder with one
    folder a shard of predicted cell masks; truth_cells: CSVs of true cells and truth_masks: pattern with ``{id}``
    (and ``{shard}``, where they lie by shard) of their label images, both or neither; truth_planned: the table
    truth.csv of what these were at planning.
    """

    predictions: Path
    segmentation: Path | None = None
    truth_cells: Sequence[Path] = ()
    truth_masks: str | None = None
    truth_planned: Path | None = None


def evaluate(
    collections: Mapping[str, Collection],
    out_dir: Path,
    controls: Mapping[str, Mapping[str, Any]] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    threads: int = 1,
    unscored: str | None = None,
) -> dict[str, Any]:
    """Score collections and write the evaluation folder.

    Writes metrics.json (returned too) and per_class.csv, confusion.csv, reliability.csv, pooled.csv, scores.csv, each
    with a first column ``collection``; and {collection}/cells.parquet, the true labels of each cell that was scored
    (field, cell, true_labels). ``controls`` are the scores of the control trainings by name, see ``read_controls``; the
    names are those of CONTROLS, one that was not trained is null. Without any collection the tables have no rows, and
    metrics.json has ``unscored``, the sentence why. See ``evaluate_collection`` for what raises. A control of an
    unknown name raises ValueError.
    """
    metrics: dict[str, Any] = {}
    tables: dict[str, list[pd.DataFrame]] = {}
    for name, files in collections.items():
        cells = pd.read_parquet(files.predictions / "cells.parquet")
        fields = pd.read_parquet(files.predictions / "fields.parquet")
        truth, matches = _read_truth(files, fields, threads)
        result = evaluate_collection(cells, fields, truth, matches, replicates, seed)
        metrics[name] = result.metrics
        scored = pa.Table.from_pandas(result.cells[["field", "cell", "true_labels"]], preserve_index=False)
        write_table(out_dir / name / "cells.parquet", scored.replace_schema_metadata(None))
        for table, rows in _tables_of(result, name).items():
            tables.setdefault(table, []).append(rows)
    if not collections:
        metrics["unscored"] = unscored
        cells, fields = (pd.DataFrame(columns=columns) for columns in _PREDICTED_COLUMNS)
        empty = _tables_of(evaluate_collection(cells.astype(dict.fromkeys(PROBABILITIES, float)), fields), "")
        tables = {table: [rows.iloc[:0]] for table, rows in empty.items()}
    unknown = set(controls or {}) - set(CONTROLS)
    if unknown:
        raise ValueError(f"unknown control {min(unknown)!r}, not one of {', '.join(CONTROLS)}")
    metrics["controls"] = {name: _plain((controls or {}).get(name)) for name in CONTROLS}
    for table, parts in tables.items():
        with atomic_path(out_dir / f"{table}.csv") as temporary:
            pd.concat(parts, ignore_index=True).to_csv(temporary, index=False, float_format="%.6g")
    with atomic_path(out_dir / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return metrics


# What `evaluate_collection` reads of the tables of cells and of fields.
_PREDICTED_COLUMNS = (("field", "cell", *PROBABILITIES), ("field", "sheet_labels", "antibody"))


def _tables_of(result: Evaluation, collection: str) -> dict[str, pd.DataFrame]:
    """Return the tables of a collection's scores by their file's name, each with a first column ``collection``."""
    tables = {
        "per_class": result.per_class,
        "confusion": result.confusion.rename_axis("true").reset_index(),
        "reliability": result.reliability,
        "pooled": result.pooled,
        "scores": result.scores,
    }
    return {table: rows.assign(collection=collection)[["collection", *rows.columns]] for table, rows in tables.items()}


def _read_truth(
    files: Collection, fields: pd.DataFrame, threads: int
) -> tuple[pd.DataFrame, Matches] | tuple[None, None]:
    if not files.truth_cells and files.truth_masks is None:
        return None, None
    if not files.truth_cells or files.truth_masks is None or files.segmentation is None:
        raise ValueError(f"{files.predictions}: per-cell truth needs true cells, true masks and predicted masks")
    truth = pd.concat([read_cell_truth(path) for path in files.truth_cells], ignore_index=True)
    elsewhere = ~truth["field"].isin(fields["field"])
    if elsewhere.any():
        where = f"not in this collection, such as {truth['field'][elsewhere].iloc[0]}"
        if elsewhere.all():
            log.warning("all %d true cells are of fields that are %s; nothing can be scored", len(truth), where)
        else:
            log.info("%d true cells are of fields that are %s", int(elsewhere.sum()), where)
        truth = truth[~elsewhere].reset_index(drop=True)
    here = fields[fields["field"].isin(truth["field"])]
    predicted = {
        name: mask_path(files.segmentation / shard, name, "cell") if status == "ok" else None
        for name, shard, status in zip(here["field"], here["shard"], here["status"], strict=True)
    }
    true_masks = {
        name: Path(spelled_as_on_disk(files.truth_masks.format(id=name, shard=shard)))
        for name, shard in zip(here["field"], here["shard"], strict=True)
    }
    return truth, match_files(predicted, true_masks, threads, true_mask_states(files.truth_planned))
