"""The scores of HPAv23, compared with scikit-learn called as its scorer calls it, and with their definitions."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    average_precision_score,
    coverage_error,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from hpaloc.accounting import hpav23_lines
from hpaloc.classes import N_CLASSES, format_labels
from hpaloc.evaluation.hpav23 import score_hpav23, score_tables, tabulate
from hpaloc.location_names import HPAV23_CLASSES
from hpaloc.tables import PROBABILITIES

# The classes of the challenge in the order of the scorer, which sorts them by name before it scores.
NAMES = sorted(HPAV23_CLASSES)


def made_up(seed, cells=400, lacking=(), ties=False):
    """Return made-up probabilities and labels: (n, 19) float and (n, 19) 0 or 1, one or more per cell."""
    rng = np.random.default_rng(seed)
    labels = rng.random((cells, N_CLASSES)) < rng.uniform(0.02, 0.4, N_CLASSES)
    labels[np.arange(cells), rng.integers(0, N_CLASSES, cells)] = True
    labels[:, list(lacking)] = False
    labels = labels[labels.any(axis=1)]
    p = np.clip(0.4 * labels + rng.random(labels.shape) * 0.7, 0, 1)
    return np.round(p, 1) if ties else p, labels.astype(int)


def as_the_scorer(p, labels):
    """Return the scores as the scorer of the benchmark gets them from scikit-learn, from tables with names."""
    columns = [HPAV23_CLASSES[name] for name in NAMES]
    true, predicted = (pd.DataFrame(table[:, columns], columns=NAMES) for table in (labels, p))
    occur = [name for name in NAMES if true[name].sum() > 0]
    true, predicted = true[occur], predicted[occur]
    own = {
        name: (
            average_precision_score(true[name], predicted[name]),
            roc_auc_score(true[name], predicted[name]),
            true[name].sum(),
        )
        for name in occur
        if len(true[name].unique()) == 2
    }
    return own, {
        "macro_ap": average_precision_score(true.values, predicted.values),
        "macro_auc": roc_auc_score(true.values, predicted.values),
        "micro_ap": average_precision_score(true.values, predicted.values, average="micro"),
        "ranking_ap": label_ranking_average_precision_score(true.values, predicted.values),
        "coverage_error": coverage_error(true.values, predicted.values),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("lacking", [(), (11,), (0, 5, 18)])
def test_scores_are_those_of_the_scorer(lacking, ties):
    p, labels = made_up(len(lacking), lacking=lacking, ties=ties)
    scores = score_hpav23(p, labels)
    own, together = as_the_scorer(p, labels)
    for name, value in together.items():
        assert scores[name] == pytest.approx(value, abs=1e-6), name
    assert set(scores["locations"]) == set(own)
    for name, (ap, auc, cells) in own.items():
        assert scores["locations"][name]["ap"] == pytest.approx(ap, abs=1e-6)
        assert scores["locations"][name]["auc"] == pytest.approx(auc, abs=1e-6)
        assert scores["locations"][name]["cells"] == cells


def test_scores_are_what_they_are_defined_to_be():
    p, labels = made_up(7, cells=60)
    scores = score_hpav23(p, labels)
    found = np.flatnonzero(labels.any(axis=0))
    p, labels = p[:, found], labels[:, found]

    def precision(values, true):
        """Return the mean over the positives of the precision among all that are ranked as high."""
        return np.mean([true[values >= value].mean() for value in values[true > 0]])

    each = [precision(values, true) for values, true in zip(p.T, labels.T, strict=True)]
    assert scores["macro_ap"] == pytest.approx(np.mean(each), abs=1e-6)
    assert scores["micro_ap"] == pytest.approx(precision(p.ravel(), labels.ravel()), abs=1e-6)
    ranking = [precision(values, true) for values, true in zip(p, labels, strict=True)]
    assert scores["ranking_ap"] == pytest.approx(np.mean(ranking), abs=1e-6)
    auc = [
        np.mean([(a > b) + (a == b) / 2 for a in values[true > 0] for b in values[true == 0]])
        for values, true in zip(p.T, labels.T, strict=True)
    ]
    assert scores["macro_auc"] == pytest.approx(np.mean(auc), abs=1e-6)
    deepest = [(values >= values[true > 0].min()).sum() for values, true in zip(p, labels, strict=True)]
    assert scores["coverage_error"] == pytest.approx(np.mean(deepest), abs=1e-6)


def test_perfect_predictions_have_perfect_scores_and_the_rarest_location_comes_last():
    _, labels = made_up(3)
    scores = score_hpav23(labels.astype(float), labels)
    assert [scores[name] for name in ("macro_ap", "micro_ap", "ranking_ap", "macro_auc")] == [1.0] * 4
    cells = [of["cells"] for of in scores["locations"].values()]
    assert cells == sorted(cells, reverse=True)


def test_a_location_that_every_cell_has_has_no_area():
    p, labels = made_up(5)
    labels[:, 0] = 1
    scores = score_hpav23(p, labels)
    assert scores["locations"]["Nucleoplasm"] == {"ap": 1.0, "auc": None, "cells": len(p)}
    assert scores["macro_auc"] is None


def test_scores_need_two_locations_and_arrays_of_one_shape():
    p, labels = made_up(1)
    with pytest.raises(ValueError, match="two locations or more, these have 1"):
        score_hpav23(p, np.eye(N_CLASSES, dtype=int)[np.zeros(len(p), int)])
    with pytest.raises(ValueError, match=r"expected two \(n, 19\) arrays"):
        score_hpav23(p[:, :18], labels)


def test_tables_of_predictions_are_scored_against_the_labels_of_the_sheet(tmp_path):
    p, labels = made_up(2)
    names = [f"crop-{number}" for number in range(len(p))]
    fields = pd.DataFrame({"field": names, "sheet_labels": [format_labels(np.flatnonzero(row)) for row in labels]})
    cells = pd.DataFrame(p, columns=list(PROBABILITIES)).assign(field=names)
    # The rows of the two tables need not have one order.
    scores = {"test": score_tables(cells.sample(frac=1, random_state=0), fields)}
    assert scores["test"] == score_hpav23(p, labels) | {"locations": scores["test"]["locations"]}
    table = tabulate(scores)
    table.to_csv(tmp_path / "hpav23.csv", index=False)
    assert table["location"].tolist()[0] == "Overall"
    assert len(table) == 20
    first, header, *lines = hpav23_lines(tmp_path / "hpav23.csv")
    assert first == (
        f"test: HPAv23, {len(p)} crops: mean AP {scores['test']['macro_ap']:.4f}, micro AP "
        f"{scores['test']['micro_ap']:.4f}, ranking AP {scores['test']['ranking_ap']:.4f}, mean AUC "
        f"{scores['test']['macro_auc']:.4f}"
    )
    assert header.split() == ["location", "crops", "AP", "AUC"]
    assert len(lines) == 19
