"""Scores of predicted cells as detections: average precision of each class, and how well their masks fit."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from hpaloc.classes import N_CLASSES, label_matrix, parse_all
from hpaloc.matching import Matches, pair_cells
from hpaloc.tables import PROBABILITIES

# The competition's detection threshold (docs/evaluation.md).
DETECTION_IOU = 0.6

Convention = Literal["absent_is_false_positive", "absent_ignored"]
CONVENTIONS: tuple[Convention, ...] = ("absent_is_false_positive", "absent_ignored")


def score_masks(matches: Matches, threshold: float = DETECTION_IOU) -> dict[str, float]:
    """Score predicted masks against true masks, all fields pooled.

    precision60 and recall60 are the shares of predicted and of true cells that have a partner of IoU at least
    ``threshold``, f1_60 is their harmonic mean, mean_iou the mean over true cells of the best IoU with a predicted
    cell (0 if none overlaps).
    """
    hits, n_predicted, n_truth = len(pair_cells(matches.pairs, threshold)), len(matches.predicted), len(matches.truth)
    best = matches.pairs.groupby(["field", "truth_cell"])["iou"].max()

    def share(part: float, whole: int) -> float:
        return part / whole if whole else float("nan")

    return {
        "precision60": share(hits, n_predicted),
        "recall60": share(hits, n_truth),
        "f1_60": share(2 * hits, n_predicted + n_truth),
        "mean_iou": share(float(best.sum()), n_truth),
    }


def list_detections(predictions: pd.DataFrame, columns: Sequence[str] = PROBABILITIES) -> pd.DataFrame:
    """Convert a table of cells (field, cell, the 19 ``columns``) into detections: every class of every cell.

    Returns field, cell, location int64, confidence float64, 19 rows per cell.
    """
    n = len(predictions)
    return pd.DataFrame(
        {
            "field": np.repeat(predictions["field"].to_numpy(), N_CLASSES),
            "cell": np.repeat(predictions["cell"].to_numpy(), N_CLASSES),
            "location": np.tile(np.arange(N_CLASSES), n),
            "confidence": predictions[list(columns)].to_numpy(np.float64).ravel(),
        }
    )


def score_detections(
    found: pd.DataFrame, truth: pd.DataFrame, pairs: pd.DataFrame, threshold: float = DETECTION_IOU
) -> dict[Convention, np.ndarray]:
    """Compute the average precision of each class as the 2021 competition did; its mean is ``numpy.nanmean``.

    A detection belongs to the true cell of its class that it overlaps best (lowest id if two overlap equally) if their
    IoU is at least ``threshold``. The most confident detection of a true cell is right, all others are wrong.
    Detections of equal confidence are one point of the precision-recall curve, so the value does not depend on the
    order of rows. The area is under the precision envelope at all points (PASCAL VOC 2010). The conventions differ in
    a detection of a class that no true cell of its field has: it is a false positive (TensorFlow's Open Images V2
    evaluator), or dropped (its challenge evaluator).

    found: field, cell, location, confidence, one row per detection in any order (see ``list_detections``)
    truth: field, cell, labels (a label string such as ``0|16``), one row per true cell
    pairs: the overlapping masks, see ``Matches.pairs``

    Returns (19,) float64 by convention, nan for a class without a true cell.
    Raises ValueError for a duplicate true cell, a confidence that is not finite, or a location that is not a class.
    """
    _check_detections(found, truth)
    confidence, location = found["confidence"].to_numpy(np.float64), found["location"].to_numpy()
    # A cell's key is one integer, so that joins are searches in sorted arrays.
    names = pd.Index(pd.unique(pd.concat([table["field"] for table in (truth, pairs, found)])))
    most = 1 + max((int(column.max()) for column in (found["cell"], pairs["cell"]) if len(column)), default=0)
    field_of, truth_field = (names.get_indexer(pd.Index(table["field"])) for table in (found, truth))
    key = field_of * most + found["cell"].to_numpy(np.int64)
    near_key, near_truth = _near_cells(pairs[(pairs["iou"] >= threshold).to_numpy()], truth, names, most)

    labels = label_matrix(parse_all(truth["labels"])) > 0
    result = {convention: np.full(N_CLASSES, np.nan) for convention in CONVENTIONS}
    by_class = np.argsort(location, kind="stable")
    bounds = np.searchsorted(location[by_class], np.arange(N_CLASSES + 1))
    for index in np.flatnonzero(labels.any(axis=0)):
        rows = by_class[bounds[index] : bounds[index + 1]]
        own = labels[near_truth, index]
        first = _first_found(key[rows], confidence[rows], near_key[own], near_truth[own], len(truth))
        present = np.zeros(len(names), bool)
        present[truth_field[labels[:, index]]] = True
        for convention in CONVENTIONS:
            kept = rows if convention == "absent_is_false_positive" else rows[present[field_of[rows]]]
            result[convention][index] = _envelope_area(confidence[kept], first, int(labels[:, index].sum()))
    return result


def _check_detections(found: pd.DataFrame, truth: pd.DataFrame) -> None:
    endless = found[~np.isfinite(found["confidence"].to_numpy(np.float64))]
    if len(endless):
        raise ValueError("field {}, cell {}: confidence is not finite".format(*endless[["field", "cell"]].iloc[0]))
    location = found["location"].to_numpy()
    odd = location[(location < 0) | (location >= N_CLASSES)]
    if len(odd):
        raise ValueError(f"locations must be 0 to {N_CLASSES - 1}, not {odd[0]}")
    twice = truth[truth.duplicated(["field", "cell"])]
    if len(twice):
        raise ValueError("duplicate true cell: field {}, cell {}".format(*twice[["field", "cell"]].iloc[0]))


def _near_cells(near: pd.DataFrame, truth: pd.DataFrame, names: pd.Index, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the key of the predicted cell and the row of the true cell of each pair, the best pair of a cell first."""
    field = names.get_indexer(pd.Index(near["field"]))
    truth_key = names.get_indexer(pd.Index(truth["field"])) * (1 << 32) + truth["cell"].to_numpy(np.int64)
    # A cell of the true masks without a label has no class, and no row here.
    row = pd.Index(truth_key).get_indexer(pd.Index(field * (1 << 32) + near["truth_cell"].to_numpy(np.int64)))
    key = field * most + near["cell"].to_numpy(np.int64)
    order = np.lexsort((near["truth_cell"], -near["iou"].to_numpy(), key))
    order = order[row[order] >= 0]
    return key[order], row[order]


def _first_found(
    key: np.ndarray, confidence: np.ndarray, near_key: np.ndarray, near_truth: np.ndarray, n_truth: int
) -> np.ndarray:
    """Return the confidence at which each true cell of a class is first found, for the cells that are found."""
    own_key, first = np.unique(near_key, return_index=True)
    own_truth = near_truth[first]
    place = np.searchsorted(own_key, key)
    hit = np.zeros(len(key), bool)
    inside = place < len(own_key)
    hit[inside] = own_key[place[inside]] == key[inside]
    best = np.full(n_truth, -np.inf)
    np.maximum.at(best, own_truth[place[hit]], confidence[hit])
    return best[best > -np.inf]


def _envelope_area(confidence: np.ndarray, hits: np.ndarray, n_truth: int) -> float:
    """Return the area under the precision envelope.

    confidence: (n,) float, of every detection
    hits: (m,) float, the confidence at which each found true cell is first found
    """
    if not len(confidence):
        return 0.0
    levels = np.unique(confidence)[::-1]
    accepted = len(confidence) - np.searchsorted(np.sort(confidence), levels, side="left")
    right = len(hits) - np.searchsorted(np.sort(hits), levels, side="left")
    precision = np.maximum.accumulate((right / accepted)[::-1])[::-1]
    return float(np.sum(np.diff(right, prepend=0) * precision) / n_truth)
