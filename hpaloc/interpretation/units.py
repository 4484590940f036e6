"""What single units correlate with: CellProfiler features and locations, against chance over all comparisons."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import xlogy

from hpaloc.classes import NAMES
from hpaloc.interpretation.separation import standardised
from hpaloc.progress import track
from hpaloc.shuffles import permuted_groups

BINS = 8
# The level of the tests, over all units of a network and all their partners.
LEVEL = 0.05
# Permutations in one matrix product: more are not faster, and take memory.
_TOGETHER = 8
# Blocks of groups that are left out in turn: the interval is as good as with every group, at a bounded cost.
_BLOCKS = 40


def correlations(units: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the Pearson correlations (u, f) float32 of standardised units (n, u) and features (n, f)."""
    return (units.T.astype(np.float32) @ features.astype(np.float32)) / np.float32(len(units))


def binned(units: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the bins 0 … bins - 1 of each unit's answers by their rank, (n, u) int64; equal answers share a bin.

    units: (n, u) float, one column per unit
    """
    order = np.sort(units, axis=0)
    cuts = order[(np.arange(1, bins) * len(units)) // bins]
    return (units[None] >= cuts[:, None]).sum(axis=0)


def mutual_information(joint: np.ndarray, n_levels: np.ndarray, n_classes: np.ndarray) -> np.ndarray:
    """Return the mutual information of units' bins with membership in a class, (…, u) float, bits.

    It is the plug-in estimate, whose bias of about (bins - 1) / (2 n ln 2) bits is the same for all units of all
    networks and for the permutations.

    joint: (…, u, bins) int64, the cells of the class with the unit in the bin
    n_levels: (u, bins) int64, all cells with the unit in the bin
    n_classes: (…, 1) int64, cells of the class
    """
    n = n_levels[0].sum()
    # The counts are whole numbers, so k log k comes from a table.
    table = xlogy(np.arange(n + 1), np.arange(n + 1)).astype(np.float32)
    both = table[joint.astype(np.int32)].sum(axis=-1) + table[(n_levels - joint).astype(np.int32)].sum(axis=-1)
    apart = table[n_levels.astype(np.int32)].sum(axis=-1)
    of_class = table[n_classes.astype(np.int32)] + table[(n - n_classes).astype(np.int32)]
    return (both - apart - of_class + table[-1]) / np.float32(n * np.log(2))


@dataclass(frozen=True)
class UnitTable:
    """The result of ``describe_units``: one row per unit, one row per layer, and ``left_out``: for r and information,
    the median strength of all units without each block of groups, (blocks,), the same blocks for every network."""

    units: pd.DataFrame
    layers: pd.DataFrame
    left_out: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Answers:
    """The units of one network that vary: their standardised answers (n, u), whether a unit is in a bin (n, u · bins),
    and the cells in each bin (u, bins); all float32."""

    scaled: np.ndarray
    inside: np.ndarray
    n_levels: np.ndarray

    def joint(self, member: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return how many of these cells are of each class with each unit in each bin, (c, u, bins)."""
        return (member.T @ self.inside[rows]).reshape(member.shape[1], *self.n_levels.shape)


def _answers(units: np.ndarray) -> _Answers:
    inside = (binned(units)[..., None] == np.arange(BINS)).astype(np.float32)
    scaled = ((units - units.mean(axis=0)) / units.std(axis=0)).astype(np.float32)
    return _Answers(scaled, inside.reshape(len(units), -1), inside.sum(axis=0))


def describe_units(
    layers: Mapping[str, np.ndarray],
    morphology: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    permutations: int,
    seed: int,
) -> UnitTable:
    """Find the CellProfiler feature and the location that each unit of a network is most related to.

    A unit's strength is its greatest |r| over features, and its greatest mutual information over locations; it is 0 for
    a unit with the same answer to all cells. Both are compared with ``permutations`` of the groups
    (``shuffles.permuted_groups``), which keep what cells of a group share. ``p_all`` is the share of orders, permuted
    and observed, in which the greatest strength of any unit of any layer is as great (Westfall and Young 1993). It
    corrects for all units and all their partners: with 95 % confidence none of the units at or below 0.05 is there by
    chance. ``p`` corrects for the unit's own partners only.

    layers: name to answers (n, u) float32
    morphology: (n, f) float features
    labels, groups: (n,) of any type

    Returns units: layer, unit, feature, r, r_p, r_p_all, location, information, information_p, information_p_all; and
    layers: layer, what (r, information), units, median, shuffled (median of the permutations' medians), significant
    (share of units with p_all ≤ 0.05).
    """
    usable = morphology.columns[np.isfinite(morphology.to_numpy()).all(axis=0)]
    raw = morphology[usable].to_numpy()
    usable = usable[raw.std(axis=0) > 1e-9 * np.maximum(1, np.abs(raw).max(axis=0))]
    features = standardised(morphology[usable].to_numpy())
    classes = np.unique(labels)
    member = (labels[:, None] == classes).astype(np.float32)
    joined = np.concatenate(list(layers.values()), axis=1).astype(np.float64)
    varies = joined.std(axis=0) > 1e-6 * np.maximum(1e-6, np.abs(joined).max(axis=0))
    answers = _answers(joined[:, varies])
    n_classes = member.sum(axis=0)[:, None]
    found = {
        "r": correlations(features, answers.scaled),
        "information": mutual_information(answers.joint(member), answers.n_levels, n_classes),
    }
    layer_of = np.repeat(list(layers), [values.shape[1] for values in layers.values()])
    table = pd.DataFrame({"layer": layer_of, "unit": np.concatenate([np.arange(v.shape[1]) for v in layers.values()])})
    medians: dict[tuple[str, str], list[float]] = {(what, layer): [] for what in found for layer in layers}
    beyond = {what: np.zeros((2, len(table))) for what in found}
    observed = {what: _whole(np.abs(values).max(axis=0), varies) for what, values in found.items()}
    for by_chance in _strengths_by_chance(answers, features, member, groups, permutations, seed):
        for what, values in by_chance.items():
            strengths = _whole(values, varies)
            beyond[what] += np.stack([strengths, np.full(len(table), strengths.max())]) >= observed[what]
            for layer in layers:
                medians[what, layer].append(float(np.median(strengths[layer_of == layer])))
    partners = {"r": ("feature", usable.to_numpy(str)), "information": ("location", np.array(NAMES)[classes])}
    summary = []
    for what, (partner, names) in partners.items():
        best = np.abs(found[what]).argmax(axis=0)
        table[partner] = ""
        table.loc[varies, partner] = names[best]
        table[what] = _whole(found[what][best, np.arange(len(best))], varies)
        # The observed order counts as one of the possible ones (Phipson and Smyth 2010).
        table[f"{what}_p"], table[f"{what}_p_all"] = (beyond[what] + 1) / (permutations + 1)
        for layer in layers:
            own = table[layer_of == layer]
            summary.append(
                {
                    "layer": layer,
                    "what": what,
                    "units": len(own),
                    "median": float(own[what].abs().median()),
                    "shuffled": float(np.median(medians[what, layer])),
                    "significant": float((own[f"{what}_p_all"] <= LEVEL).mean()),
                }
            )
    left_out = _medians_left_out(answers, features, member, groups, varies, seed)
    return UnitTable(table, pd.DataFrame(summary), left_out)


def _whole(values: np.ndarray, varies: np.ndarray) -> np.ndarray:
    """Return the values of all units, with 0 for those that do not vary."""
    result = np.zeros(len(varies))
    result[varies] = values
    return result


def _strengths_by_chance(
    answers: _Answers, features: np.ndarray, member: np.ndarray, groups: np.ndarray, permutations: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the strengths (u,) of each permutation of the groups."""
    for start in track(range(0, permutations, _TOGETHER), what="permutations of groups, eight at a time"):
        rows = [permuted_groups(groups, seed + number) for number in range(start, min(start + _TOGETHER, permutations))]
        together = [standardised(features[of_cells]) for of_cells in rows]
        r = np.abs(correlations(np.concatenate(together, axis=1), answers.scaled))
        ends = np.cumsum([part.shape[1] for part in together])
        classes = np.concatenate([member[of_cells] for of_cells in rows], axis=1)
        told = mutual_information(answers.joint(classes), answers.n_levels, classes.sum(axis=0)[:, None])
        for part, of_classes in zip(np.split(r, ends[:-1]), np.split(told, len(rows)), strict=True):
            yield {"r": part.max(axis=0), "information": of_classes.max(axis=0)}


def _medians_left_out(
    answers: _Answers, features: np.ndarray, member: np.ndarray, groups: np.ndarray, varies: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """Return the median strength of all units without each of at most 40 blocks of groups, for a jackknife."""
    names, index = np.unique(groups, return_inverse=True)
    blocks = min(_BLOCKS, len(names))
    block = np.random.default_rng(seed).permutation(np.arange(len(names)) % blocks)[index]
    y, x = features.astype(np.float32), answers.scaled
    products, joint, n_classes = y.T @ x, answers.joint(member), member.sum(axis=0)
    medians: dict[str, list[float]] = {"r": [], "information": []}
    for out in range(blocks):
        gone = block == out
        kept = np.float32(len(groups) - gone.sum())
        mean_x, mean_y = -x[gone].sum(axis=0) / kept, -y[gone].sum(axis=0) / kept
        spread_x, spread_y = (
            np.sqrt(np.maximum((len(groups) - np.square(of[gone]).sum(axis=0)) / kept - mean**2, 0))
            for of, mean in ((x, mean_x), (y, mean_y))
        )
        r = (products - y[gone].T @ x[gone]) / kept - mean_y[:, None] * mean_x
        scale = spread_y[:, None] * spread_x
        # A unit or feature that varies only in the cells left out correlates with nothing in the others.
        r = np.divide(np.abs(r), scale, out=np.zeros_like(r), where=scale > 1e-4)
        left = answers.n_levels - answers.inside[gone].sum(axis=0).reshape(answers.n_levels.shape)
        told = mutual_information(
            joint - answers.joint(member[gone], gone), left, (n_classes - member[gone].sum(axis=0))[:, None]
        )
        for what, values in (("r", r), ("information", told)):
            medians[what].append(float(np.median(_whole(values.max(axis=0), varies))))
    return {what: np.array(values) for what, values in medians.items()}
