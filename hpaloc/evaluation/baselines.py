"""The network next to its baselines: predictors that know less, scored on the same cells."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hpaloc.evaluation.cells import mean_of_known, pick_single_labels, score_replicated
from hpaloc.resampling import FEWEST_GROUPS, REPLICATES, percentile_interval

# The network without the regression that it is fused with; no baseline, but compared like one.
ALONE = "network_alone"
BASELINE_SCORES = ("accuracy", "balanced_accuracy", "macro_ap", "macro_auc")
# Of the network minus a baseline.
_DIFFERENCES = ("accuracy", "balanced_accuracy", "macro_ap")
_IN_WORDS = {
    "logistic_regression": "a logistic regression on shape and light",
    "frozen_network": "a logistic regression on a network with random weights",
    "majority": "the most frequent location of the training",
}
BASELINE_COLUMNS = [
    "predictor",
    *(f"{score}{end}" for score in BASELINE_SCORES for end in ("", "_low", "_high")),
    *(f"network_minus_it_{score}{end}" for score in _DIFFERENCES for end in ("", "_low", "_high")),
    "comparison",
]


def score_baselines(
    network: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    learned: Mapping[str, np.ndarray],
    shares: np.ndarray | None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Score baselines as ``score_cells`` scores the network, and its difference from each.

    ``majority`` calls every cell the location that most training cells have; ``chance`` draws the calls from the
    locations of the training cells, and its accuracies are their expected values, without intervals.

    network: (n, 19) float, the network's probabilities
    labels: (n, 19) 0 or 1
    groups: (n,) what was sampled independently (antibody or field)
    learned: (n, 19) float, the probabilities of each learned baseline, by name
    shares: (19,) float, the share of each location in the training cells; None if unknown

    Returns for each baseline the scores with ci95, and ``difference``: the network's accuracy, balanced_accuracy and
    macro_ap minus its own, with ci95 from common resamplings of whole groups. chance has no difference.
    """
    labels = np.asarray(labels) > 0
    predicted = {name: np.asarray(p, np.float64) for name, p in learned.items()}
    if shares is not None:
        predicted["majority"] = np.tile(shares, (len(labels), 1))
    single = pick_single_labels(labels)
    # The groups that have cells of the kind that is scored.
    of_single, of_any = (len(np.unique(np.asarray(groups)[rows])) for rows in (single >= 0, labels.any(axis=1)))
    n_groups = {"accuracy": of_single, "balanced_accuracy": of_single, "macro_ap": of_any}
    own, replicated = score_replicated(network, labels, groups, replicates, seed)
    found: dict[str, dict[str, Any]] = {}
    for name, p in predicted.items():
        scores, others = score_replicated(p, labels, groups, replicates, seed)
        difference: dict[str, Any] = {"ci95": {}}
        for score in _DIFFERENCES:
            difference[score] = None if own[score] is None else own[score] - scores[score]
            gaps = replicated[score] - others[score] if replicated else np.zeros(0)
            difference["ci95"][score] = percentile_interval(gaps, n_groups[score])
        found[name] = {score: scores[score] for score in BASELINE_SCORES}
        found[name] |= {"ci95": {score: scores["ci95"][score] for score in BASELINE_SCORES}, "difference": difference}
    if shares is not None:
        single = single[single >= 0]
        found["chance"] = {score: found["majority"][score] for score in BASELINE_SCORES} | {
            "accuracy": mean_of_known(shares[single]),
            "balanced_accuracy": mean_of_known(shares[np.unique(single)]),
            "ci95": dict.fromkeys(BASELINE_SCORES),
        }
    return found


def compare(
    network: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], learned: bool
) -> dict[str, Any] | None:
    """Return the network's accuracy minus that of the best baseline: baseline, accuracy, ci95, and a sentence.

    None if there is no baseline, or no cell with one location.

    network: from ``score_cells``
    baselines: from ``score_baselines``
    learned: whether the model folder has learned baselines; without them, the sentence says so
    """
    rivals = {name: scores for name, scores in baselines.items() if "difference" in scores and name in _IN_WORDS}
    if not rivals or network["accuracy"] is None:
        return None
    best = max(rivals, key=lambda name: rivals[name]["accuracy"])
    gap, interval = rivals[best]["difference"]["accuracy"], rivals[best]["difference"]["ci95"]["accuracy"]
    low, high = interval or (np.nan, np.nan)
    sure = f"95 % interval {low:.3f} to {high:.3f}"
    if not interval:
        verdict = f"and its best baseline, {_IN_WORDS[best]}, differ by {gap:+.3f}"
        sure = f"no interval, as there are fewer than {FEWEST_GROUPS} groups"
    elif high < 0:
        verdict = f"is worse than its best baseline, {_IN_WORDS[best]}, by {-gap:.3f}"
        sure = f"95 % interval {-high:.3f} to {-low:.3f}"
    elif low > 0:
        verdict = f"beats its best baseline, {_IN_WORDS[best]}, by {gap:.3f}"
    else:
        verdict = f"does not measurably differ from its best baseline, {_IN_WORDS[best]}: {gap:+.3f}"
    network_is = "the network with its regression" if ALONE in baselines else "the network"
    sentence = (
        f"{network_is} {verdict} ({sure}) in the share of cells that are right, {network['accuracy']:.3f} against "
        f"{rivals[best]['accuracy']:.3f}"
    )
    if not learned:
        sentence += "; the model folder has no learned baselines (baselines.json)"
    return {"baseline": best, "accuracy": gap, "ci95": interval, "sentence": sentence}


def tabulate_baselines(
    network: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], compared: Mapping[str, Any] | None
) -> pd.DataFrame:
    """Return one row for the network, with the sentence of the comparison, and one per baseline, with BASELINE_COLUMNS.

    network: from ``score_cells``
    baselines: from ``score_baselines``
    compared: from ``compare``
    """
    rows = []
    for predictor, scores in {"network": network, **baselines}.items():
        row: dict[str, Any] = {"predictor": predictor}
        for prefix, values, wanted in (
            ("", scores, BASELINE_SCORES),
            ("network_minus_it_", scores.get("difference", {}), _DIFFERENCES),
        ):
            for score in wanted if values else ():
                low, high = values["ci95"][score] or (None, None)
                row |= {prefix + score: values[score], f"{prefix}{score}_low": low, f"{prefix}{score}_high": high}
        rows.append(row)
    rows[0]["comparison"] = compared and compared["sentence"]
    # A column without values has the type that it has in other collections, whose tables are joined.
    return pd.DataFrame(rows, columns=BASELINE_COLUMNS).astype(dict.fromkeys(BASELINE_COLUMNS[1:-1], float))
