"""Intervals that take whole groups of cells (antibodies, fields), never single cells."""

import numpy as np
from scipy.special import betaincinv, ndtr, stdtrit

# Of every interval; enough that its ends move by less than what they say.
REPLICATES = 1000
# Percentiles of resamplings lie within the values of the groups. The range of n values holds the median of
# what they are drawn from with the probability 1 - 2^(1 - n), which is above 0.95 from this n on.
FEWEST_GROUPS = 6

# The normal distribution has 95 % within this many standard deviations.
_Z = 1.959963984540054
# As many wrong cells as the assumption counts that cells of a group are right or wrong together.
_PRIOR_CELLS = 4


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927), which is also sensible at 0 and 1."""
    z = _Z
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # The bounds are exact at 0 and 1; the sums are not.
    low = 0.0 if share == 0 else float(centre - half)
    return low, 1.0 if share == 1 else float(centre + half)


def share_interval(right: np.ndarray, groups: np.ndarray) -> tuple[float, float] | None:
    """Return the 95 % interval of a share of cells, whose groups were sampled; None for fewer than two groups.

    The variance is the larger one of a sum over groups and of the correlation within groups (analysis of variance); see
    ``_interval`` for the rest.

    right: (n,) bool, or float from 0 to 1
    groups: (n,), any type
    """
    names, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    n_groups, n = len(names), len(group)
    if n_groups < 2:
        return None
    right = np.asarray(right, np.float64)
    share = float(right.mean())
    alike = float(np.square(size).sum()) / n**2
    correlation = _correlate_within(right, group, size)
    spread = float(np.square(np.bincount(group, right - share)).sum()) * n_groups / (n_groups - 1) / n**2
    variance = max((correlation * alike + (1 - correlation) / n) * share * (1 - share), spread)
    return _interval(share, variance, 1 / n, alike, n_groups)


def score_interval(
    score: float | None, replicated: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float] | None:
    """Return the 95 % interval of a score from 0 to 1 that is not a share of cells, from its values in replicates.

    None for fewer than two groups, without a score, or if no replicate is finite; see ``_interval``.

    replicated: (replicates,) float, of resampled groups
    groups: (n,), any type, of each cell
    weights: (n,) float, how much each cell counts in the score; 1 by default
    """
    names, group = np.unique(groups, return_inverse=True)
    replicated = replicated[np.isfinite(replicated)]
    if len(names) < 2 or score is None or not len(replicated):
        return None
    weights = np.ones(len(group)) if weights is None else weights
    total = weights.sum() ** 2
    independent = float(np.square(weights).sum() / total)
    alike = float(np.square(np.bincount(group, weights)).sum() / total)
    variance = float(np.var(replicated)) * len(names) / (len(names) - 1)
    return _interval(float(np.clip(score, 0, 1)), variance, independent, alike, len(names))


def _interval(score: float, variance: float, independent: float, alike: float, n_groups: int) -> tuple[float, float]:
    """Return Clopper and Pearson's 95 % interval with an effective number of trials (Korn and Graubard 1998).

    As few wrong cells say little about their correlation, the variance is averaged with the one if whole groups were
    right or wrong, which counts like four wrong cells. docs/evaluation.md has the coverage.

    variance: of the score, estimated from n_groups groups
    independent, alike: 1 / (number of trials) if cells were independent, and if whole groups were right or wrong
    """
    inverse = alike
    if 0 < score < 1:
        found = variance / (score * (1 - score)) * (stdtrit(n_groups - 1, 0.975) / _Z) ** 2
        n_rare = min(score, 1 - score) / independent
        inverse = (n_rare * found + _PRIOR_CELLS * alike) / (n_rare + _PRIOR_CELLS)
    right = score / float(np.clip(inverse, independent, 1))
    wrong = (1 - score) / float(np.clip(inverse, independent, 1))
    low = 0.0 if score == 0 else float(betaincinv(right, wrong + 1, 0.025))
    return low, 1.0 if score == 1 else float(betaincinv(right + 1, wrong, 0.975))


def _correlate_within(right: np.ndarray, group: np.ndarray, size: np.ndarray) -> float:
    """Return the correlation of the cells of a group, from 0 to 1, by analysis of variance; 0 for groups of one."""
    n, n_groups = len(right), len(size)
    if n == n_groups or np.ptp(right) == 0:
        return 0.0
    mean = np.bincount(group, right) / size
    between = float(size @ np.square(mean - right.mean())) / (n_groups - 1)
    within = float(np.square(right - mean[group]).sum()) / (n - n_groups)
    usual_size = (n - np.square(size).sum() / n) / (n_groups - 1)
    return float(np.clip((between - within) / (between + (usual_size - 1) * within), 0, 1))


def resampled_groups(n_groups: int, replicates: int, seed: int) -> np.ndarray:
    """Return (replicates, n_groups) float64: how often each group is drawn, if n_groups are drawn with replacement."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=replicates).astype(np.float64)


def replicated_mean(
    values: np.ndarray, groups: np.ndarray, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float] | None:
    """Return the ``percentile_interval`` of a mean by resampling whole groups, None for fewer than FEWEST_GROUPS.

    values: (n,) float
    groups: (n,), any type
    """
    names, group = np.unique(groups, return_inverse=True)
    n_groups = len(names)
    if n_groups < FEWEST_GROUPS:
        return None
    weights = resampled_groups(n_groups, replicates, seed)
    drawn = weights @ np.bincount(group, minlength=n_groups)
    return percentile_interval(weights @ np.bincount(group, weights=values, minlength=n_groups) / drawn, n_groups)


def percentile_interval(replicated: np.ndarray, n_groups: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean or a difference from its values in resamplings of groups.

    For few groups, the percentiles are further out than 2.5 and 97.5, as Student's t is (Hesterberg 2015, "expanded
    percentile interval"). None for fewer than FEWEST_GROUPS, or if no value is finite.

    replicated: (replicates,) float
    """
    replicated = replicated[np.isfinite(replicated)]
    if n_groups < FEWEST_GROUPS or not len(replicated):
        return None
    tail = ndtr(-np.sqrt(n_groups / (n_groups - 1)) * stdtrit(n_groups - 1, 0.975))
    low, high = np.quantile(replicated, [tail, 1 - tail])
    return float(low), float(high)


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
