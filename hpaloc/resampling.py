"""Intervals that take whole groups of cells (antibodies, fields), never single cells."""

import numpy as np
from scipy.special import stdtrit

# Of every interval; enough that its ends move by less than what they say.
REPLICATES = 1000


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927), which is also sensible at 0 and 1."""
    z = 1.959963984540054
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # The bounds are exact at 0 and 1; the sums are not.
    low = 0.0 if share == 0 else float(centre - half)
    return low, 1.0 if share == 1 else float(centre + half)


def resampled_groups(n_groups: int, replicates: int, seed: int) -> np.ndarray:
    """Return (replicates, n_groups) float64: how often each group is drawn, if n_groups are drawn with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=replicates).astype(np.float64)


def percentile_interval(values: np.ndarray) -> list[float] | None:
    """Return the 2.5 and 97.5 percentiles of the finite values of ``values`` (n,) float, None if there are none."""
    values = values[np.isfinite(values)]
    return [float(value) for value in np.percentile(values, [2.5, 97.5])] if len(values) else None


def replicated_mean(
    values: np.ndarray, groups: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean by resampling whole groups, None for fewer than two groups.

    values: (n,) float
    groups: (n,), any type
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return None
    weights = resampled_groups(len(names), replicates, seed)
    drawn = weights @ np.bincount(group, minlength=len(names))
    means = weights @ np.bincount(group, weights=values, minlength=len(names)) / drawn
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def replicated_accuracy(
    right: np.ndarray, groups: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval of the share of right calls by resampling whole groups; Wilson's if nothing varies.

    right: (n,) bool
    groups: (n,), any type
    Returns None for fewer than two groups.
    """
    interval = replicated_mean(right, groups, replicates, seed)
    if interval is None or interval[0] < interval[1]:
        return interval
    n_groups = len(np.unique(groups))
    return wilson_interval(float(np.mean(right)) * n_groups, n_groups)


def jackknife_interval(value: float, left_out: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a value from its values without each block of groups; nan for fewer than two blocks.

    It is Student's t over the delete-a-group jackknife (Kott 2001).

    left_out: (blocks,) float, the value without each block
    """
    blocks = len(left_out)
    if blocks < 2:
        return np.nan, np.nan
    error = np.sqrt((blocks - 1) * np.var(left_out))
    half = float(stdtrit(blocks - 1, 0.975) * error)
    return value - half, value + half
