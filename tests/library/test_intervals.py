"""The intervals of the scores: coverage, and no jumps."""

import numpy as np
import pytest
from intervals import cover, cover_scores, draw_groups

from hpaloc.evaluation.cells import score_cells
from hpaloc.resampling import share_interval


@pytest.mark.parametrize(
    ("n_groups", "accuracy", "correlation", "size"),
    [
        (10, 0.7, 0.3, (20, 1.0)),
        (10, 0.95, 0.6, (20, 0.7)),
        (15, 0.93, 0.6, (20, 0.7)),
        (30, 0.9, 1.0, (20, 1.0)),
        (51, 0.88, 0.1, (9, 0.7)),
        (100, 0.98, 0.3, (20, 0.7)),
        (20, 0.8, 1.0, (1, 0.0)),
        (30, 1.0, 1.0, (20, 0.7)),
    ],
)
def test_an_interval_of_a_share_holds_the_true_value(n_groups, accuracy, correlation, size) -> None:
    generator = np.random.default_rng(n_groups)
    coverage, width = cover(
        lambda: draw_groups(generator, n_groups, accuracy, correlation, size), share_interval, accuracy, 1000
    )
    # A true coverage of 0.95 is found as less than 0.93 in one of 200 such runs.
    assert coverage >= 0.93
    assert width < 0.6


def test_one_more_wrong_cell_moves_an_interval_little() -> None:
    groups = np.repeat(np.arange(30), 20)
    right = np.ones(600, bool)
    found = [share_interval(right, groups)]
    for cell in range(0, 600, 20):
        right[cell] = False
        found.append(share_interval(right, groups))
    lows, highs = np.array(found).T
    assert found[0] == (pytest.approx(0.884, abs=1e-3), 1)
    assert np.abs(np.diff(lows)).max() < 0.025
    assert np.abs(np.diff(highs)).max() < 0.01
    share = 1 - np.arange(31) / 600
    assert ((lows <= share) & (share <= highs)).all()


def test_a_share_of_cells_that_are_alike_has_as_many_trials_as_groups() -> None:
    # Clopper and Pearson's interval of 12 of 40 is 0.166 to 0.465 (statsmodels, method="beta").
    low, high = share_interval(np.repeat(np.arange(40) < 12, 25), np.repeat(np.arange(40), 25))
    assert (low, high) == (pytest.approx(0.166, abs=0.01), pytest.approx(0.465, abs=0.01))
    assert low < 0.1656
    assert high > 0.4653


def test_the_wrong_share_mirrors_the_right_one() -> None:
    right = np.random.default_rng(0).random(60) < 0.8
    groups = np.repeat(np.arange(12), 5)
    low, high = share_interval(right, groups)
    assert share_interval(~right, groups) == pytest.approx((1 - high, 1 - low))
    assert share_interval(right, np.zeros(60)) is None


def test_scores_that_are_not_shares_have_intervals_that_hold_the_true_value() -> None:
    (row,) = cover_scores([20], 60, seed=0)
    assert min(row["balanced_accuracy"], row["macro_ap"], row["macro_auc"]) > 0.88


def test_a_perfect_score_has_no_interval_of_width_zero() -> None:
    single = np.repeat(np.arange(5).repeat(4), 10)
    labels = np.eye(19)[single]
    intervals = score_cells(0.9 * labels + 0.005, labels, np.repeat(np.arange(20), 10))["ci95"]
    for name in ("accuracy", "balanced_accuracy", "macro_ap", "macro_auc"):
        assert intervals[name] == (pytest.approx(0.832, abs=1e-3), 1)
