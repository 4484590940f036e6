"""Measure how often the 95 % intervals of the scores hold the true value, by simulation.

usage: python benchmarks/intervals.py [--draws 2000] [--groups 10 20 50 100] [--seed 0]

Accuracy: groups of cells (20 on average; sizes lognormal with a standard deviation of 0, 0.7 or 1.0 of the logarithm,
or one cell each) have accuracies that are drawn from a beta distribution with the true accuracy as mean. The cells of a
group correlate by 0.02 to 1 (all right or all wrong). A row is a number of groups and a true accuracy; its coverage is
the lowest over the sizes and correlations, and beside it stands that of the percentiles of resampled groups.

Other scores: cells of groups with one class each, of five classes (the rarest in a fifteenth of the groups), with
probabilities that are more often right for some classes and for some groups. The true value is that of 20,000 groups.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.classes import N_CLASSES
from hpaloc.evaluation.cells import score_cells
from hpaloc.resampling import resampled_groups, share_interval

ACCURACIES = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)
CORRELATIONS = (0.02, 0.1, 0.3, 0.6, 1.0)
# Mean number of cells, standard deviation of its logarithm.
SIZES = ((20, 0.0), (20, 0.7), (20, 1.0), (1, 0.0))
CLASSES = (5, 4, 3, 2, 1)


def draw_groups(
    generator: np.random.Generator, n_groups: int, accuracy: float, correlation: float, size: tuple[int, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw cells, right or not, and their groups: two (n,) arrays.

    correlation: of the cells of a group, above 0 to 1
    size: mean number of cells of a group, standard deviation of its logarithm
    """
    n_cells = np.maximum(1, np.rint(generator.lognormal(np.log(size[0]), size[1], n_groups))).astype(int)
    if accuracy == 1:
        chance = np.ones(n_groups)
    elif correlation == 1:
        chance = (generator.random(n_groups) < accuracy).astype(float)
    else:
        odds = (1 - correlation) / correlation
        chance = generator.beta(accuracy * odds, (1 - accuracy) * odds, n_groups)
    group = np.repeat(np.arange(n_groups), n_cells)
    return generator.random(len(group)) < chance[group], group


def resampled_interval(right: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of the accuracy in 400 resamplings of groups; right, group: (n,)."""
    weights = resampled_groups(group.max() + 1, 400, seed=0)
    low, high = np.percentile(weights @ np.bincount(group, right) / (weights @ np.bincount(group)), [2.5, 97.5])
    return float(low), float(high)


def cover(
    draw: Callable[[], tuple[np.ndarray, np.ndarray]],
    interval: Callable[[np.ndarray, np.ndarray], tuple[float, float] | None],
    accuracy: float,
    draws: int,
) -> tuple[float, float]:
    """Return the share of drawn samples whose interval holds the accuracy, and the mean width of the intervals."""
    found = np.array([interval(*draw()) for _ in range(draws)], float)
    held = (found[:, 0] <= accuracy + 1e-12) & (found[:, 1] >= accuracy - 1e-12)
    return float(held.mean()), float((found[:, 1] - found[:, 0]).mean())


def cover_accuracies(groups: Sequence[int], draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row of the table of accuracies after the other."""
    for n_groups in groups:
        for accuracy in ACCURACIES:
            found: dict[str, list[tuple[float, float]]] = {"": [], "resampled ": []}
            for size in SIZES:
                for correlation in CORRELATIONS if size[0] > 1 and accuracy < 1 else (1.0,):
                    for name, interval in (("", share_interval), ("resampled ", resampled_interval)):
                        generator = np.random.default_rng([seed, n_groups])
                        found[name].append(
                            cover(
                                partial(draw_groups, generator, n_groups, accuracy, correlation, size),
                                interval,
                                accuracy,
                                # Each resampling is many times slower, and its coverage is not close to the limit.
                                draws if not name else max(1, draws // 10),
                            )
                        )
            yield {"groups": n_groups, "accuracy": accuracy} | {
                f"{name}{what}": pick(value[place] for value in values)
                for name, values in found.items()
                for place, (what, pick) in enumerate((("coverage", min), ("mean width", lambda w: np.mean(list(w)))))
            }


def draw_cells(generator: np.random.Generator, n_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw probabilities (n, 19), labels (n, 19) and groups (n,) of cells whose groups have one class each."""
    n_cells = np.maximum(1, np.rint(generator.lognormal(np.log(20), 0.7, n_groups))).astype(int)
    group = np.repeat(np.arange(n_groups), n_cells)
    single = generator.choice(len(CLASSES), n_groups, p=np.array(CLASSES) / sum(CLASSES))
    # A fixed share of the groups in the rarest class is what a person plans; two of ten is the least.
    single[: 2 * len(CLASSES)] = np.tile(np.arange(len(CLASSES)), 2)[:n_groups]
    logits = generator.normal(size=(len(group), len(CLASSES))) + generator.normal(size=(n_groups, len(CLASSES)))[group]
    logits[np.arange(len(group)), single[group]] += 4 - 0.5 * single[group]
    p = np.zeros((len(group), N_CLASSES))
    p[:, : len(CLASSES)] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return p, np.eye(N_CLASSES)[single[group]], group


def cover_scores(groups: Sequence[int], draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row of the table of other scores after the other."""
    for n_groups in groups:
        generator = np.random.default_rng([seed, n_groups])
        large = [draw_cells(generator, n_groups) for _ in range(20_000 // n_groups)]
        pooled = [np.concatenate(parts) for parts in zip(*large, strict=True)]
        true = score_cells(pooled[0], pooled[1])
        scores = [name for name in true if name not in ("ci95", "accuracy")]
        held: dict[str, list[bool]] = {name: [] for name in scores}
        for _ in range(draws):
            intervals = score_cells(*draw_cells(generator, n_groups))["ci95"]
            for name in scores:
                low, high = intervals[name]
                held[name].append(low <= true[name] <= high)
        yield {"groups": n_groups} | {name: float(np.mean(values)) for name, values in held.items()}


def print_rows(rows: Iterator[dict[str, Any]]) -> pd.DataFrame:
    """Print a Markdown table row by row, and return it."""
    kept = []
    for row in rows:
        if not kept:
            print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
        kept.append(row)
        cells = (f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values())
        print("| " + " | ".join(cells) + " |", flush=True)
    return pd.DataFrame(kept)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--groups", type=int, nargs="+", default=[10, 20, 50, 100])
    parser.add_argument("--seed", type=int, default=0)
    job = parser.parse_args()
    print_rows(cover_accuracies(job.groups, job.draws, job.seed))
    print()
    print_rows(cover_scores(job.groups, max(1, job.draws // 10), job.seed))


if __name__ == "__main__":
    main()
