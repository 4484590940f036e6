"""The decision: thresholds, the rule for Negative and prototypes, fitted on cells that did not train."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from hpaloc.classes import NAMES, NEGATIVE, class_prototypes, label_matrix
from hpaloc.network.calls import call_labels, decision_thresholds, lean_on_field, settle_negative
from hpaloc.network.options import FIELD_WEIGHTS, NEGATIVE_RULES

# Thresholds are fitted on probabilities made as `predict` makes them.
VALIDATION_VIEWS = 8
# The number of cells of a class at which its threshold lies half-way (in logits) between that of its best F1 and 0.5.
_CELLS_AT_HALF = 100


def fit_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return a threshold for each class, between that of its best F1 and 0.5, (19,) float64.

    Candidates are the midpoints between neighbouring probabilities; among equally good ones the nearest to 0.5 wins.
    Few cells fit a threshold to their own chance, so its logit is multiplied by n / (n + 100), where n is the number of
    cells with the class, or of those without it if there are fewer (docs/model.md has the measurement).

    labels: (n, 19) 0 or 1
    probabilities: (n, 19) float
    """
    thresholds = np.full(labels.shape[1], 0.5)
    for index, (truth, scores) in enumerate(zip(labels.T > 0, probabilities.T.astype(float), strict=True)):
        rarer = min(truth.sum(), (~truth).sum())
        if not rarer:
            continue
        values = np.unique(scores)
        candidates = np.append((values[1:] + values[:-1]) / 2, 0.5)
        below = np.searchsorted(np.sort(scores[truth]), candidates)
        found = truth.sum() - below
        wrong = (~truth).sum() - np.searchsorted(np.sort(scores[~truth]), candidates)
        f1 = 2 * found / (truth.sum() + found + wrong)
        best = candidates[f1 >= f1.max() - 1e-12]
        nearest = np.clip(best[np.abs(best - 0.5).argmin()], 1e-12, 1 - 1e-12)
        thresholds[index] = expit(logit(nearest) * rarer / (rarer + _CELLS_AT_HALF))
    return thresholds


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float | None:
    """Return the temperature that calibrates the confidence of the likeliest class, None without one-label cells.

    It minimises the log loss of whether that class is right, plus half its squared logarithm, so that a few cells that
    are all right do not give 0; see ``calibration.calibrate``.

    labels: (n, 19) 0 or 1
    probabilities: (n, 19) float, settled
    """
    single = labels.sum(axis=1) == 1
    if not single.any():
        return None
    right = probabilities[single].argmax(axis=1) == labels[single].argmax(axis=1)
    confidence = logit(np.clip(probabilities[single].max(axis=1).astype(float), 1e-7, 1 - 1e-7))

    def loss(logarithm: float) -> float:
        scaled = confidence / np.exp(logarithm)
        return float(np.logaddexp(0, np.where(right, -scaled, scaled)).sum() + logarithm**2 / 2)

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


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


def fit_decision(
    probabilities: np.ndarray, labels: np.ndarray, examples: pd.DataFrame, head: str, part: str
) -> tuple[dict[str, Any], dict[str, float]]:
    """Fit the decision on the cells of a part; return (thresholds.json, scores).

    probabilities: (n, 19) float32, from ``train.predict_examples``
    labels: (n, 19) 0 or 1
    examples: field and origin of the cells, in their order
    """
    decision: dict[str, Any] = {"fitted_on": part, "views": VALIDATION_VIEWS, "cells": len(labels)}
    if head == "sigmoid":
        decision["criterion"] = (
            "between the best F1 of the class and 0.5, by the number of its cells; Negative where no location reaches "
            "its threshold"
        )
        decision["negative_rule"] = choose_negative_rule(labels, probabilities)
        probabilities = settle_negative(probabilities, decision["negative_rule"])
        decision["thresholds"] = _named_thresholds(labels, probabilities)
        fields = examples["field"].tolist()
        decision["leaned_thresholds"] = {
            weight: _named_thresholds(labels, lean_on_field(probabilities, fields, float(weight)))
            for weight in FIELD_WEIGHTS
        }
    else:
        decision |= {"criterion": "likeliest class", "negative_rule": "network", "thresholds": None}
    decision["temperature"] = fit_temperature(labels, probabilities)
    single = labels.sum(axis=1) == 1
    prototypes = class_prototypes(probabilities, np.where(single, labels.argmax(axis=1), -1))
    decision["prototypes"] = {
        name: None if np.isnan(row).any() else np.round(row, 6).tolist()
        for name, row in zip(NAMES, prototypes, strict=True)
    }
    return decision, score_decision(probabilities, labels, examples, decision)


def score_decision(
    probabilities: np.ndarray, labels: np.ndarray, examples: pd.DataFrame, decision: Mapping[str, Any]
) -> dict[str, float]:
    """Score settled probabilities and the label sets that follow from them by a decision.

    probabilities: (n, 19) float
    labels: (n, 19) 0 or 1
    examples: origin of the cells, in their order
    """
    scores = _scores(labels, probabilities, decision)
    real = (examples["origin"] == "real").to_numpy()
    if real.any() and not real.all():
        # A rule, not a person, says that the other cells are Negative.
        own = _scores(labels[real], probabilities[real], decision) | {"cells": int(real.sum())}
        scores |= {f"{name}_without_made_negatives": value for name, value in own.items()}
    return scores


def _named_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    # Significant digits: the threshold of a rare class can be below a millionth, and 0 would call every cell.
    values = zip(NAMES, fit_thresholds(labels, probabilities), strict=True)
    return {name: float(f"{value:.6g}") for name, value in values if name != NAMES[NEGATIVE]}


def _scores(labels: np.ndarray, probabilities: np.ndarray, decision: Mapping[str, Any]) -> dict[str, float]:
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
