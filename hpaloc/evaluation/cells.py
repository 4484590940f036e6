"""Scores of single cells against their true labels, with intervals by whole groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.metrics import average_precision_score, roc_auc_score

from hpaloc.classes import N_CLASSES
from hpaloc.evaluation.calibration import CALIBRATION_BINS, bin_confidences, find_bins, measure_calibration_error
from hpaloc.resampling import REPLICATES, resampled_groups, score_interval, share_interval

CELL_SCORES = ("accuracy", "balanced_accuracy", "macro_ap", "macro_auc", "ece")

# Replicates of a ranking score are summed over at most this many score levels; the score itself is exact.
_LEVELS = 2048


def count_confusions(single: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Count cells by true class (rows) and called class (columns), (19, 19) int64.

    single, called: (n,) int, the only true and the called class of each cell
    """
    return np.bincount(single.astype(np.int64) * N_CLASSES + called.astype(np.int64), minlength=N_CLASSES**2).reshape(
        N_CLASSES, N_CLASSES
    )


def pick_single_labels(labels: np.ndarray) -> np.ndarray:
    """Return the only true class of each row, (n,) int64, -1 for none or several; labels: (n, 19) 0 or 1."""
    return np.where((labels > 0).sum(axis=1) == 1, labels.argmax(axis=1), -1)


def score_cells(
    p: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predicted probabilities against true labels.

    accuracy, balanced_accuracy and ece are over rows with exactly one true label; the called class is the most likely
    one. macro_ap and macro_auc are means over the classes that occur, each class against the rest, over all rows. ci95
    has the interval of each score, or None if fewer than two groups have such rows: ``share_interval`` of the accuracy,
    and for the others, from ``replicates`` resamplings of whole groups, ``score_interval``. Undefined scores are None.

    p: (n, 19) float probabilities
    labels: (n, 19) 0 or 1, several per row allowed
    groups: (n,) what was sampled independently (antibody or field)

    Raises ValueError for arrays of other shapes and for a probability that is not finite.
    """
    return score_replicated(p, labels, groups, replicates, seed)[0]


def score_replicated(
    p: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Any] | np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the result of ``score_cells``, and each of CELL_SCORES in every resampling of the groups.

    p: (n, 19) float probabilities
    labels: (n, 19) 0 or 1, several per row allowed
    groups: (n,) as in ``score_cells``; the same groups are resampled in the same way

    Returns the scores, and (replicates,) float64 for each, nan where it is undefined; none for fewer than two groups.
    Raises ValueError for arrays of other shapes and for a probability that is not finite.
    """
    p, labels = np.asarray(p, np.float64), np.asarray(labels) > 0
    if p.ndim != 2 or p.shape[1] != N_CLASSES or p.shape != labels.shape:
        raise ValueError(f"expected two (n, {N_CLASSES}) arrays, got {p.shape} and {labels.shape}")
    if not np.isfinite(p).all():
        raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(p).all(axis=1))[0])}: a probability is not finite")
    single = pick_single_labels(labels)
    one = single >= 0
    called = p.argmax(axis=1)
    ap, auc = score_rankings(p, labels)
    confusion = count_confusions(single[one], called[one])
    with np.errstate(invalid="ignore"):
        recalls = np.diagonal(confusion) / confusion.sum(axis=1)
    scores: dict[str, Any] = {
        "accuracy": mean_of_known(called[one] == single[one]),
        "balanced_accuracy": mean_of_known(recalls),
        "macro_ap": mean_of_known(ap),
        "macro_auc": mean_of_known(auc),
        "ece": measure_calibration_error(bin_confidences(p[one], single[one])) if one.any() else None,
    }
    intervals: dict[str, tuple[float, float] | None] = dict.fromkeys(scores)
    replicated: dict[str, np.ndarray] = {}
    if groups is not None and replicates:
        names, group = np.unique(np.asarray(groups), return_inverse=True)
        if len(names) > 1:
            replicated = _replicate(p, labels, group, resampled_groups(len(names), replicates, seed))
            intervals = _intervals(p, labels, scores, group, replicated)
    return scores | {"ci95": intervals}, replicated


def score_rankings(p: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and area under the ROC curve of each class against the rest, two (19,) float64.

    Average precision is scikit-learn's (steps, no envelope). A score is nan if the class never (or, for the ROC curve,
    always) occurs.

    p: (n, 19) float probabilities
    labels: (n, 19) 0 or 1
    """
    ap, auc = np.full(N_CLASSES, np.nan), np.full(N_CLASSES, np.nan)
    for index in range(N_CLASSES):
        positive = labels[:, index] > 0
        if positive.any():
            ap[index] = average_precision_score(positive, p[:, index])
            if not positive.all():
                auc[index] = roc_auc_score(positive, p[:, index])
    return ap, auc


def mean_of_known(values: np.ndarray) -> float | None:
    """Return the mean of the values, (n,) float, that are not nan, None if there are none."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def _intervals(
    p: np.ndarray,
    labels: np.ndarray,
    scores: Mapping[str, Any],
    group: np.ndarray,
    replicated: Mapping[str, np.ndarray],
) -> dict[str, tuple[float, float] | None]:
    single = pick_single_labels(labels)
    one = single >= 0
    truth, of_one = single[one], group[one]
    # In means over classes, a cell of a rare class counts more.
    of_class = 1 / np.maximum(labels.sum(axis=0), 1)
    return {
        "accuracy": share_interval(p.argmax(axis=1)[one] == truth, of_one),
        "balanced_accuracy": score_interval(
            scores["balanced_accuracy"], replicated["balanced_accuracy"], of_one, of_class[truth]
        ),
        "ece": score_interval(scores["ece"], replicated["ece"], of_one),
        "macro_ap": score_interval(scores["macro_ap"], replicated["macro_ap"], group, labels @ of_class),
        "macro_auc": score_interval(scores["macro_auc"], replicated["macro_auc"], group, labels @ of_class),
    }


def _replicate(p: np.ndarray, labels: np.ndarray, group: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return each of CELL_SCORES in every resampling of the groups; weights: (replicates, groups)."""
    single = pick_single_labels(labels)
    one = single >= 0
    right, confidence, truth, of_one = (p.argmax(axis=1) == single)[one], p.max(axis=1)[one], single[one], group[one]
    by_class = _sums(weights, of_one, truth, N_CLASSES)
    right_by_class = _sums(weights, of_one, truth, N_CLASSES, right)
    gap = np.abs(_sums(weights, of_one, find_bins(confidence), CALIBRATION_BINS, right - confidence)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        balanced = _nanmean_rows(right_by_class / by_class)
        accuracy, gap = (total / by_class.sum(axis=1) for total in (right_by_class.sum(axis=1), gap))
    ap, auc = np.full((len(weights), N_CLASSES), np.nan), np.full((len(weights), N_CLASSES), np.nan)
    for index in np.flatnonzero(labels.any(axis=0)):
        ap[:, index], auc[:, index] = _replicated_ranking(p[:, index], labels[:, index], group, weights)
    return {
        "accuracy": accuracy,
        "balanced_accuracy": balanced,
        "macro_ap": _nanmean_rows(ap),
        "macro_auc": _nanmean_rows(auc),
        "ece": gap,
    }


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
