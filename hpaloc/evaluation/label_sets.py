"""Scores of the label sets of cells: the classes above their thresholds."""

from typing import Any

import numpy as np
import pandas as pd

from hpaloc.evaluation.cells import mean_of_known
from hpaloc.resampling import REPLICATES, resampled_groups, score_interval, share_interval

SET_SCORES = ("exact_match", "macro_f1", "micro_f1")


def score_label_sets(
    called: np.ndarray, labels: np.ndarray, groups: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Any]:
    """Score called label sets against true ones.

    exact_match is the share of cells whose sets are equal; macro_f1 is the mean F1 of the classes that occur, micro_f1
    that of all classes together. Undefined scores are None; ci95 has their intervals, see ``score_cells``.

    called, labels: (n, 19) int, 0 or 1
    groups: (n,) what was sampled independently (antibody or field)
    """
    called, labels = np.asarray(called) > 0, np.asarray(labels) > 0
    exact = (called == labels).all(axis=1)
    # Of an F1 = 2 found / (true + called): both sums, by class.
    parts = np.stack([2 * (called & labels), called.astype(int) + labels])
    occurs = labels.any(axis=0)
    macro, micro = _means(parts.sum(axis=1), occurs)
    scores: dict[str, Any] = {
        "exact_match": mean_of_known(exact),
        "macro_f1": mean_of_known(macro),
        "micro_f1": mean_of_known(micro),
    }
    intervals: dict[str, Any] = dict.fromkeys(SET_SCORES)
    names, group = np.unique(groups, return_inverse=True)
    if len(names) > 1 and replicates:
        of_group = np.zeros((2, len(names), labels.shape[1]))
        for total, values in zip(of_group, parts, strict=True):
            np.add.at(total, group, values)
        macros, micros = _means(resampled_groups(len(names), replicates, seed) @ of_group, occurs)
        intervals["exact_match"] = share_interval(exact, groups)
        # In a mean over classes, a cell of a rare class counts more.
        weights = labels @ (1 / np.maximum(labels.sum(axis=0), 1))
        intervals["macro_f1"] = score_interval(scores["macro_f1"], macros, groups, weights)
        intervals["micro_f1"] = score_interval(scores["micro_f1"], micros, groups)
    return scores | {"ci95": intervals}


def _means(parts: np.ndarray, occurs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return macro and micro F1; parts: (2, ..., 19), occurs: (19,) bool, the classes of the macro F1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = (parts[0] / parts[1])[..., occurs]
        macro = np.nansum(f1, axis=-1) / np.isfinite(f1).sum(axis=-1)
        return macro, parts[0].sum(axis=-1) / parts[1].sum(axis=-1)


def score_classes(called: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return recall, precision and F1 of each class in the label sets, with the prefix ``set_``, and n_in_set.

    called, labels: (n, 19) int, 0 or 1
    """
    right, true, found = (values.sum(axis=0) for values in (called * labels, labels, called))
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(
            {
                "n_in_set": found,
                "set_recall": right / true,
                "set_precision": right / found,
                "set_f1": 2 * right / (true + found),
            }
        )
