"""Labels that change places by whole groups of cells (antibodies, fields), never by single cells: the controls."""

import numpy as np


def shuffled_labels(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return (n,) int64 row numbers: whose labels each row is to take, when every group takes those of another group.

    groups: (n,) of any type. Groups are passed on in one random cycle, so that no group keeps its own: what this gives
    is the level of labels that are not a group's own. Rows of a group take those of the group they take from in random
    order, again from the first where there are fewer. With one group alone its rows are permuted.
    """
    generator = np.random.default_rng(seed)
    names, index = np.unique(groups, return_inverse=True)
    cycle = generator.permutation(len(names))
    giver = np.empty(len(names), int)
    giver[cycle] = np.roll(cycle, 1)
    return _taken(index, giver, generator)


def permuted_groups(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return (n,) int64 row numbers: whose labels each row is to take, in one of all permutations of the groups.

    For p values: they are valid where a group keeps its own as often as chance has it, the order found being one of the
    permutations (Hemerik and Goeman 2018). Rows as in ``shuffled_labels``.
    """
    generator = np.random.default_rng(seed)
    names, index = np.unique(groups, return_inverse=True)
    return _taken(index, generator.permutation(len(names)), generator)


def _taken(index: np.ndarray, giver: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the row that each row takes from, (n,), of the group ``giver`` (groups,) names for its group ``index``."""
    count = np.bincount(index)
    start = np.cumsum(count) - count
    order = np.lexsort((generator.random(len(index)), index))
    rank = np.empty(len(index), int)
    rank[np.argsort(index, kind="stable")] = np.arange(len(index)) - np.repeat(start, count)
    wanted = giver[index]
    return order[start[wanted] + rank % count[wanted]]
