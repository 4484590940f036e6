"""Shuffling of labels by whole groups of cells (antibodies, fields), never by single cells, for the controls."""

import numpy as np


def shuffled_labels(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the row from which each row takes its labels, if every group takes those of another group.

    Labels are passed on along one random cycle of the groups, so that no group keeps its own: this is the baseline of
    labels that are not a group's own. The rows of a group take the labels of the other group in random order, starting
    again if that group has fewer rows. A single group's rows are permuted.

    groups: (n,), any type
    Returns (n,) int64 row numbers.
    """
    generator = np.random.default_rng(seed)
    names, index = np.unique(groups, return_inverse=True)
    cycle = generator.permutation(len(names))
    giver = np.empty(len(names), int)
    giver[cycle] = np.roll(cycle, 1)
    return _taken(index, giver, generator)


def permuted_groups(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the row from which each row takes its labels, in a random permutation of the groups, for p values.

    P values are valid if groups keep their own labels as often as by chance, the observed order being one of the
    permutations (Hemerik and Goeman 2018). Within groups as in ``shuffled_labels``.

    groups: (n,), any type
    Returns (n,) int64 row numbers.
    """
    generator = np.random.default_rng(seed)
    names, index = np.unique(groups, return_inverse=True)
    return _taken(index, generator.permutation(len(names)), generator)


def _taken(index: np.ndarray, giver: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the row that each row takes from, (n,), in the group that ``giver`` (groups,) names for its ``index``."""
    count = np.bincount(index)
    start = np.cumsum(count) - count
    order = np.lexsort((generator.random(len(index)), index))
    rank = np.empty(len(index), int)
    rank[np.argsort(index, kind="stable")] = np.arange(len(index)) - np.repeat(start, count)
    wanted = giver[index]
    return order[start[wanted] + rank % count[wanted]]
