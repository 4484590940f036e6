"""One call from many cells: by their mean probability, and by their vote."""

from dataclasses import dataclass

import numpy as np

from hpaloc.classes import N_CLASSES


@dataclass(frozen=True)
class Pooled:
    """The calls of n groups of cells.

    n_cells: (n,) int64
    mean: (n, 19) float64, mean probability, 0 without cells
    by_mean: (n,) int64, the class of the greatest mean, -1 without cells
    by_vote: (n,) int64, the class most frequent among the cells' most likely classes, the greater mean deciding between
    equal ones, -1 without cells
    """

    n_cells: np.ndarray
    mean: np.ndarray
    by_mean: np.ndarray
    by_vote: np.ndarray


def pool_probabilities(p: np.ndarray, group: np.ndarray, n_groups: int) -> Pooled:
    """Call each group of cells by their mean probability and by their vote.

    p: (n, 19) float, probabilities
    group: (n,) int, 0 … n_groups - 1
    """
    n_cells = np.bincount(group, minlength=n_groups)
    total, votes = np.zeros((n_groups, N_CLASSES)), np.zeros((n_groups, N_CLASSES))
    np.add.at(total, group, p)
    np.add.at(votes, (group, p.argmax(axis=1)), 1)
    mean = total / np.maximum(n_cells, 1)[:, None]
    # Means are at most 1, so half of one cannot outweigh a vote.
    calls = (np.where(n_cells > 0, score.argmax(axis=1), -1) for score in (mean, votes + mean / 2))
    return Pooled(n_cells, mean, *calls)
