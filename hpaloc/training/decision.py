"""The decision: thresholds, the rule for Negative and prototypes, fitted on cells that did not train."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import f1_score

from hpaloc.classes import NAMES, NEGATIVE, class_prototypes, label_matrix
from hpaloc.network.calls import call_labels, decision_thresholds, settle_negative
from hpaloc.network.inference import averaged
from hpaloc.network.options import NEGATIVE_RULES
from hpaloc.training.settings import TrainSettings

# Thresholds are fitted on probabilities made as `predict` makes them.
VALIDATION_VIEWS = 8


def fit_thresholds(labels: np.ndarray, probabilities: np.ndarray, fewest: int = 5) -> np.ndarray:
    """Return the threshold of each class that gives its best F1, (19,) float64.

    Candidates are the midpoints between neighbouring probabilities; among equally good ones the nearest to 0.5 wins. A
    class with fewer than ``fewest`` positives or negatives keeps 0.5.

    labels: (n, 19) 0 or 1
    probabilities: (n, 19) float
    """
    thresholds = np.full(labels.shape[1], 0.5)
    for index, (truth, scores) in enumerate(zip(labels.T > 0, probabilities.T.astype(float), strict=True)):
        if min(truth.sum(), (~truth).sum()) < fewest:
            continue
        values = np.unique(scores)
        candidates = np.append((values[1:] + values[:-1]) / 2, 0.5)
        below = np.searchsorted(np.sort(scores[truth]), candidates)
        found = truth.sum() - below
        wrong = (~truth).sum() - np.searchsorted(np.sort(scores[~truth]), candidates)
        f1 = 2 * found / (truth.sum() + found + wrong)
        best = candidates[f1 >= f1.max() - 1e-12]
        thresholds[index] = best[np.abs(best - 0.5).argmin()]
    return thresholds


def choose_negative_rule(labels: np.ndarray, probabilities: np.ndarray) -> str:
    """Return the rule for Negative with the best balanced accuracy.

    Only cells with one label count; ``complement`` wins ties, and is the rule if no cell is Negative.

    labels: (n, 19) 0 or 1
    probabilities: (n, 19) float
    """
    single = labels.sum(axis=1) == 1
    truth = labels[single].argmax(axis=1)
    if not (truth == NEGATIVE).any():
        return "complement"
    scores = {}
    for rule in NEGATIVE_RULES:
        found = settle_negative(probabilities[single], rule).argmax(axis=1) == truth
        scores[rule] = np.mean([found[truth == index].mean() for index in np.unique(truth)])
    return max(NEGATIVE_RULES, key=lambda rule: scores[rule])


def decide(
    network: keras.Model, cells: tf.data.Dataset, settings: TrainSettings, part: str
) -> tuple[dict[str, Any], dict[str, float]]:
    """Fit thresholds, the rule for Negative and prototypes on the cells of a part; return (thresholds.json, scores)."""
    forward = averaged(network, VALIDATION_VIEWS)
    outputs, truths = [], []
    for images, labels, _ in cells.batch(settings.batch_size):
        outputs.append(forward(images)[0].numpy())
        truths.append(labels.numpy())
    probabilities, labels = np.concatenate(outputs), np.concatenate(truths)
    decision: dict[str, Any] = {"fitted_on": part, "views": VALIDATION_VIEWS, "cells": len(labels)}
    if settings.head == "sigmoid":
        values = fit_thresholds(labels, probabilities)
        decision["criterion"] = "best F1 of the class; Negative where no location reaches its threshold"
        decision["negative_rule"] = choose_negative_rule(labels, probabilities)
        decision["thresholds"] = {
            # Significant digits: the threshold of a rare class can be below a millionth, and 0 would call every cell.
            name: float(f"{value:.6g}")
            for name, value in zip(NAMES, values, strict=True)
            if name != NAMES[NEGATIVE]
        }
    else:
        decision |= {"criterion": "likeliest class", "negative_rule": "network", "thresholds": None}
    probabilities = settle_negative(probabilities, decision["negative_rule"])
    single = labels.sum(axis=1) == 1
    prototypes = class_prototypes(probabilities, np.where(single, labels.argmax(axis=1), -1))
    decision["prototypes"] = {
        name: None if np.isnan(row).any() else np.round(row, 6).tolist()
        for name, row in zip(NAMES, prototypes, strict=True)
    }
    return decision, _scores(labels, probabilities, decision)


def _scores(labels: np.ndarray, probabilities: np.ndarray, decision: Mapping[str, Any]) -> dict[str, float]:
    """Score settled probabilities and the label sets that follow from them; labels, probabilities: (n, 19)."""
    sets = label_matrix(call_labels(probabilities, decision_thresholds(decision)))
    scores = {
        "macro_f1_of_label_sets": float(
            f1_score(labels, sets, average="macro", zero_division=0.0, labels=np.flatnonzero(labels.any(axis=0)))
        )
    }
    single = labels.sum(axis=1) == 1
    if single.any():
        truth = labels[single].argmax(axis=1)
        hits = probabilities[single].argmax(axis=1) == truth
        scores |= {
            "classes": len(np.unique(truth)),
            "accuracy": float(hits.mean()),
            "balanced_accuracy": float(np.mean([hits[truth == index].mean() for index in np.unique(truth)])),
        }
    return scores
