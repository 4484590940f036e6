"""What single units go along with: CellProfiler features and locations, against chance over all comparisons."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hpaloc.classes import NAMES
from hpaloc.interpretation.separation import standardised
from hpaloc.progress import track
from hpaloc.resampling import shuffled_labels

BINS = 8


def correlations(units: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the Pearson correlations (u, f) of standardised units (n, u) and features (n, f)."""
    return (units.T.astype(np.float32) @ features.astype(np.float32)) / np.float32(len(units))


def binned(units: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return (n, u) int64 bins 0 … bins - 1 of each unit's answers by their rank, equal answers in one bin."""
    order = np.sort(units, axis=0)
    cuts = order[(np.arange(1, bins) * len(units)) // bins]
    return (units[None] >= cuts[:, None]).sum(axis=0)


def mutual_information(levels: np.ndarray, labels: np.ndarray, classes: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the mutual information (u, len(classes)), in bits, of binned units (n, u) with being of each class.

    The plug-in estimate, whose bias of about (bins - 1) / (2 n ln 2) bits is the same for all units of all networks
    and in the shuffles it is compared with.
    """
    n = len(labels)
    member = (labels[:, None] == classes[None]).astype(np.float32)
    p_class = member.mean(axis=0)
    information = np.zeros((levels.shape[1], len(classes)))
    for level in range(bins):
        inside = (levels == level).astype(np.float32)
        p_level = inside.mean(axis=0)[:, None]
        yes = inside.T @ member / n
        for joint, expected in ((yes, p_level * p_class), (p_level - yes, p_level * (1 - p_class))):
            with np.errstate(divide="ignore", invalid="ignore"):
                information += np.where(joint > 1e-9, joint * np.log2(joint / expected), 0)
    return information


@dataclass(frozen=True)
class UnitTable:
    """What ``describe_units`` finds: a row a unit, and a row a layer."""

    units: pd.DataFrame
    layers: pd.DataFrame


def adjusted(p: np.ndarray) -> np.ndarray:
    """Return the p values of Benjamini and Hochberg 1995 for the false discovery rate over all p (m,)."""
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    result = np.empty(len(p))
    result[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)
    return result


def describe_units(
    layers: dict[str, np.ndarray],
    morphology: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    permutations: int,
    seed: int,
) -> UnitTable:
    """Find the CellProfiler feature that each unit of each layer goes along with most, and the location it tells most.

    layers: name to answers (n, u); morphology (n, f); labels, groups (n,). A unit's strength is its greatest |r| over
    features, and its greatest mutual information over locations. Both are held against ``permutations`` in which every
    group takes features and labels of another, so that what cells of a field share by chance stays: ``p`` is the share
    of permutations in which the unit's own maximum is as great, which corrects for the number of features or
    locations; ``p_all`` that in which the maximum over all units of the layer is, which corrects for the units too
    (Westfall and Young 1993); ``q`` is Benjamini and Hochberg's of p within the layer.

    units: layer, unit, feature, r, r_p, r_p_all, r_q, location, information, information_p, …_p_all, …_q. layers:
    layer, what (r, information), units, median, shuffled (median of the permutations' medians), significant (share of
    units with p_all ≤ 0.05), discovered (share with q ≤ 0.05).
    """
    usable = morphology.columns[np.isfinite(morphology.to_numpy()).all(axis=0)]
    raw = morphology[usable].to_numpy()
    usable = usable[raw.std(axis=0) > 1e-9 * np.maximum(1, np.abs(raw).max(axis=0))]
    features = standardised(morphology[usable].to_numpy())
    classes = np.unique(labels)
    scaled, levels, alive = {}, {}, {}
    for name, answers in layers.items():
        spread = answers.std(axis=0)
        alive[name] = np.flatnonzero(spread > 1e-6 * np.maximum(1e-6, np.abs(answers).max(axis=0)))
        kept = answers[:, alive[name]].astype(np.float64)
        scaled[name] = (kept - kept.mean(axis=0)) / kept.std(axis=0)
        levels[name] = binned(kept)
    found = {name: np.abs(correlations(scaled[name], features)) for name in layers}
    told = {name: mutual_information(levels[name], labels, classes) for name in layers}
    observed = {name: {"r": found[name].max(axis=1), "information": told[name].max(axis=1)} for name in layers}
    beyond = {name: {what: np.zeros((2, len(alive[name]))) for what in ("r", "information")} for name in layers}
    medians: dict[str, dict[str, list[float]]] = {name: {"r": [], "information": []} for name in layers}
    for number in track(range(permutations), what="permutations of groups"):
        rows = shuffled_labels(groups, seed + number)
        for name in layers:
            by_chance = {
                "r": np.abs(correlations(scaled[name], standardised(features[rows]))).max(axis=1),
                "information": mutual_information(levels[name], labels[rows], classes).max(axis=1),
            }
            for what, values in by_chance.items():
                beyond[name][what][0] += values >= observed[name][what]
                beyond[name][what][1] += values.max() >= observed[name][what]
                medians[name][what].append(float(np.median(values)))
    tables, summary = [], []
    for name in layers:
        table = pd.DataFrame({"layer": name, "unit": alive[name]})
        best = found[name].argmax(axis=1)
        signed = correlations(scaled[name], features)[np.arange(len(best)), best]
        columns = {
            "r": ("feature", usable.to_numpy()[best], signed),
            "information": (
                "location",
                np.array(NAMES)[classes[told[name].argmax(axis=1)]],
                observed[name]["information"],
            ),
        }
        for what, (partner, names, values) in columns.items():
            # The order found counts among those that chance could have given (Phipson and Smyth 2010).
            p, p_all = (beyond[name][what] + 1) / (permutations + 1)
            table[partner], table[what] = names, values
            table[f"{what}_p"], table[f"{what}_p_all"], table[f"{what}_q"] = p, p_all, adjusted(p)
            summary.append(
                {
                    "layer": name,
                    "what": what,
                    "units": len(table),
                    "median": float(np.median(observed[name][what])),
                    "shuffled": float(np.median(medians[name][what])) if permutations else np.nan,
                    "significant": float((p_all <= 0.05).mean()),
                    "discovered": float((table[f"{what}_q"] <= 0.05).mean()),
                }
            )
        tables.append(table)
    return UnitTable(pd.concat(tables, ignore_index=True), pd.DataFrame(summary))
