"""The scores of HPAv23, the benchmark of protein location on single cells in CHAMMI-75."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, coverage_error, label_ranking_average_precision_score

from hpaloc.classes import N_CLASSES, label_matrix, parse_all
from hpaloc.evaluation.cells import score_rankings
from hpaloc.location_names import HPAV23_CLASSES
from hpaloc.tables import PROBABILITIES

NAMES = {index: name for name, index in HPAV23_CLASSES.items()}
COLUMNS = ("collection", "location", "cells", "ap", "auc", "micro_ap", "ranking_ap", "coverage_error")
# The row of all locations together.
OVERALL = "Overall"


def score_hpav23(p: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Score probabilities as the scorer of HPAv23 does.

    It is benchmarks/HPAv23/train_classification.py of github.com/CaicedoLab/CHAMMI-75, commit b84a4ec, with ``-uc
    challenge_cats``. A location that no cell has is left out of every score, also of the rankings. Of the others, ap
    and auc are scikit-learn's average_precision_score and roc_auc_score. A location that every cell has gets no
    scores of its own there, but counts in the means; here its auc, and the mean, are None. macro_ap and macro_auc are
    means over the locations, whatever their numbers of cells (``average="macro"``); micro_ap takes each pair of a
    cell and a location as one decision (``average="micro"``); ranking_ap is label_ranking_average_precision_score,
    and coverage_error the function of that name.

    p: (n, 19) float probabilities
    labels: (n, 19) 0 or 1, one or several per row
    Returns these scores, ``cells`` (n) and ``locations``: {name in the benchmark: its ap, auc and cells}, the most
    frequent first.
    Raises ValueError for arrays of other shapes, and unless there are two locations or more.
    """
    if p.ndim != 2 or p.shape[1] != N_CLASSES or p.shape != labels.shape:
        raise ValueError(f"expected two (n, {N_CLASSES}) arrays, got {p.shape} and {labels.shape}")
    labels = labels > 0
    counts = labels.sum(axis=0)
    found = np.flatnonzero(counts)
    if len(found) < 2:
        raise ValueError(f"HPAv23 scores need cells of two locations or more, these have {len(found)}")
    ap, auc = score_rankings(p, labels)
    true, scores = labels[:, found].astype(int), p[:, found]
    macro_auc = float(auc[found].mean())
    return {
        "cells": len(p),
        "macro_ap": float(ap[found].mean()),
        "micro_ap": float(average_precision_score(true, scores, average="micro")),
        "ranking_ap": float(label_ranking_average_precision_score(true, scores)),
        "macro_auc": None if np.isnan(macro_auc) else macro_auc,
        "coverage_error": float(coverage_error(true, scores)),
        "locations": {
            NAMES[index]: {
                "ap": float(ap[index]),
                "auc": None if np.isnan(auc[index]) else float(auc[index]),
                "cells": int(counts[index]),
            }
            for index in sorted(found, key=lambda index: (-counts[index], index))
        },
    }


def score_tables(cells: pd.DataFrame, fields: pd.DataFrame) -> dict[str, Any]:
    """Score the predicted crops of a collection by ``score_hpav23``, all of them, against the labels of its table.

    cells, fields: the tables of ``pooling`` of the collection, with p_0 … p_18 and sheet_labels
    """
    of_field = dict(zip(fields["field"], fields["sheet_labels"], strict=True))
    labels = label_matrix(parse_all(cells["field"].map(of_field)))
    return score_hpav23(cells[list(PROBABILITIES)].to_numpy(np.float64), labels)


def tabulate(scores: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the scores of collections as rows of COLUMNS: of each, OVERALL and then the locations."""
    rows: list[dict[str, Any]] = []
    for name, of_all in scores.items():
        overall = {"collection": name, "location": OVERALL, "ap": of_all["macro_ap"], "auc": of_all["macro_auc"]}
        rows.append(overall | {what: of_all[what] for what in COLUMNS if what in of_all})
        rows += [{"collection": name, "location": own} | found for own, found in of_all["locations"].items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))
