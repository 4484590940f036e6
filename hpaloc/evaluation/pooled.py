"""Scores of fields and proteins, each called from many cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hpaloc.classes import label_matrix, parse_all
from hpaloc.evaluation.cells import mean_of_known, pick_single_labels, score_cells
from hpaloc.resampling import share_interval
from hpaloc.votes import pool_probabilities

POOL_SIZES = (1, 2, 3, 5, 10, 20, 50)
POOLED_COLUMNS = ("method", "size", "n_owners", "n_cells", "accuracy", "low", "high")


@dataclass(frozen=True)
class Owners:
    """The fields or the proteins that cells belong to.

    of_cell: the owner of each of n cells; it may have no labels
    labels: the label string of each owner that has one
    groups: what was sampled independently (antibody or field), of each owner
    """

    of_cell: pd.Series
    labels: Mapping[str, str]
    groups: Mapping[str, str]


def score_owners(p: np.ndarray, owners: Owners, replicates: int, seed: int) -> dict[str, Any]:
    """Score the mean probabilities of each labelled owner; an owner without any cell counts as wrong.

    p: (n, 19) float probabilities of the cells

    Returns accuracy, over owners with one label, macro_ap, over all, and n and ci95 of both, see ``score_cells``.
    """
    names = pd.Index(list(owners.labels))
    index = names.get_indexer(pd.Index(owners.of_cell))
    pooled = pool_probabilities(p[index >= 0], index[index >= 0], len(names))
    truth = label_matrix(parse_all(owners.labels.values()))
    single = pick_single_labels(truth)
    one = single >= 0
    right = pooled.by_mean == single
    group = np.array([owners.groups[name] for name in names], dtype=object)
    interval = share_interval(right[one], group[one])
    ranked = score_cells(pooled.mean, truth, group, replicates, seed)
    return {
        "accuracy": mean_of_known(right[one]),
        "macro_ap": ranked["macro_ap"],
        "n": {"accuracy": int(one.sum()), "macro_ap": len(names)},
        "ci95": {"accuracy": interval, "macro_ap": ranked["ci95"]["macro_ap"]},
    }


def measure_owners(p: np.ndarray, owners: Owners, seed: int) -> pd.DataFrame:
    """Measure the accuracy of owners with one label by the number of cells pooled, see ``measure_pooling``.

    p: (n, 19) float probabilities of the cells
    """
    single = {name: int(text) for name, text in owners.labels.items() if "|" not in text}
    rows = owners.of_cell.isin(single).to_numpy()
    names = owners.of_cell[rows]
    truth, group = (np.array([table[name] for name in names]) for table in (single, owners.groups))
    return measure_pooling(p[rows], truth, names.to_numpy(), group, seed=seed)


def measure_pooling(
    p: np.ndarray,
    single: np.ndarray,
    owner: np.ndarray,
    groups: np.ndarray | None = None,
    sizes: Sequence[int] = POOL_SIZES,
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how the accuracy of a pooled call grows with the number of cells pooled.

    For each size every owner with at least that many cells is called ``draws`` times from that many of its cells, drawn
    without replacement, by the greatest mean probability and by the vote of the cells. Size "all" pools every cell of
    every owner, and "all of >= 10" those of owners with at least ten.

    p: (n, 19) float probabilities
    single: (n,) int, the only true class of each cell's owner
    owner: (n,) the field or protein of the cell
    groups: (n,) what was sampled independently (default: owner)

    Returns method (mean, vote), size, n_owners, n_cells (in those owners), accuracy, low, high (95 % interval over
    groups).
    """
    groups = owner if groups is None else groups
    _, first, index, count = np.unique(owner, return_index=True, return_inverse=True, return_counts=True)
    truth, group = single[first], groups[first]
    wanted = sorted({size for size in sizes if size <= count.max(initial=0)})
    shares = _share_right(p, truth, index, count, wanted, draws, seed)
    at_least = {str(size): size for size in wanted} | {"all": 1, "all of >= 10": 10}
    rows = []
    for (method, size), right in shares.items():
        enough = count >= at_least[size]
        if not enough.any():
            continue
        interval = share_interval(right[enough], group[enough]) or (np.nan, np.nan)
        n_owners, n_cells = int(enough.sum()), int(count[enough].sum())
        rows.append((method, size, n_owners, n_cells, float(right[enough].mean()), *interval))
    return pd.DataFrame(rows, columns=list(POOLED_COLUMNS)).sort_values("method", kind="stable", ignore_index=True)


def _share_right(
    p: np.ndarray, truth: np.ndarray, index: np.ndarray, count: np.ndarray, sizes: Sequence[int], draws: int, seed: int
) -> dict[tuple[str, str], np.ndarray]:
    """Return the share of draws in which each owner is called right, (owners,), by method and number of cells."""

    def right(rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        pooled = pool_probabilities(p[rows], index[rows], len(truth))
        return {"mean": pooled.by_mean == truth, "vote": pooled.by_vote == truth}

    generator = np.random.default_rng(seed)
    hits: dict[tuple[str, str], np.ndarray] = {}
    for _ in range(draws if sizes else 0):
        # Random order within owners: the first k rows of an owner are a draw of k cells without replacement.
        order = np.lexsort((generator.random(len(p)), index))
        rank = np.arange(len(p)) - np.repeat(np.cumsum(count) - count, count)
        for size in sizes:
            for method, hit in right(order[rank < size]).items():
                hits[method, str(size)] = hits.get((method, str(size)), 0) + hit.astype(float)
    shares = {key: total / draws for key, total in hits.items()}
    for method, hit in right(slice(None)).items():
        shares[method, "all"] = shares[method, "all of >= 10"] = hit.astype(float)
    return shares
