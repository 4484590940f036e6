"""Intervals and controls that take whole groups of cells (antibodies, fields), never single cells."""

import numpy as np


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927), which is sensible at 0 and 1 too."""
    z = 1.959963984540054
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # The bounds are exact at 0 and 1; the sums are not.
    low = 0.0 if share == 0 else float(centre - half)
    return low, 1.0 if share == 1 else float(centre + half)


def resampled_groups(n_groups: int, replicates: int, seed: int) -> np.ndarray:
    """Return (replicates, n_groups) float64: how often each group is drawn when n_groups are drawn with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=replicates).astype(np.float64)


def percentile_interval(values: np.ndarray) -> list[float] | None:
    """Return the 2.5 and 97.5 percentiles of the replicates that are defined, None where none is."""
    values = values[np.isfinite(values)]
    return [float(value) for value in np.percentile(values, [2.5, 97.5])] if len(values) else None


def replicated_accuracy(
    right: np.ndarray, groups: np.ndarray, replicates: int = 1000, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval of a share of right calls by resampling whole groups; Wilson's where nothing varies.

    right (n,) bool; groups (n,). None for fewer than two groups.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return None
    weights = resampled_groups(len(names), replicates, seed)
    drawn = weights @ np.bincount(group, minlength=len(names))
    values = weights @ np.bincount(group, weights=right, minlength=len(names)) / drawn
    low, high = np.percentile(values, [2.5, 97.5])
    if low == high:
        return wilson_interval(float(np.mean(right)) * len(names), len(names))
    return float(low), float(high)


def shuffled_labels(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return (n,) row numbers: whose labels each row is to take, when every group takes those of another group.

    Groups are passed on in one random cycle, so that no group keeps its own; rows of a group draw from the rows of
    the group they take from. With one group alone its rows are permuted.
    """
    generator = np.random.default_rng(seed)
    names, index = np.unique(groups, return_inverse=True)
    if len(names) == 1:
        return generator.permutation(len(groups))
    cycle = generator.permutation(len(names))
    giver = np.empty(len(names), int)
    giver[cycle] = np.roll(cycle, 1)
    order = np.argsort(index, kind="stable")
    count = np.bincount(index)
    start = np.cumsum(count) - count
    wanted = giver[index]
    return order[start[wanted] + (generator.random(len(groups)) * count[wanted]).astype(int)]
