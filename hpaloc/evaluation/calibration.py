"""Calibration: how well the confidence of a call agrees with its accuracy."""

import numpy as np
import pandas as pd
from scipy.special import expit, logit

CALIBRATION_BINS = 15


def measure_calibration_error(table: pd.DataFrame) -> float:
    """Return the mean gap between confidence and accuracy, weighted by cells; table: from ``bin_confidences``."""
    return float((table["n"] * (table["accuracy"] - table["confidence"]).abs()).sum() / table["n"].sum())


def calibrate(p: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (n, 19) whose logits are divided by a temperature, float64; p: (n, 19) float.

    The order of the classes of a cell stays the same.
    """
    return expit(logit(np.clip(np.asarray(p, np.float64), 1e-7, 1 - 1e-7)) / temperature)


def bin_confidences(p: np.ndarray, single: np.ndarray, bins: int = CALIBRATION_BINS) -> pd.DataFrame:
    """Compare the confidence of the most likely class with how often it is right.

    p: (n, 19) float probabilities
    single: (n,) int, the only true class of each cell

    Returns one row per bin of equal width that holds a cell: low, high, n, confidence (mean), accuracy.
    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == single
    which = find_bins(confidence, bins)
    n = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        table = pd.DataFrame(
            {
                "low": np.arange(bins) / bins,
                "high": np.arange(1, bins + 1) / bins,
                "n": n,
                "confidence": np.bincount(which, weights=confidence, minlength=bins) / n,
                "accuracy": np.bincount(which, weights=right, minlength=bins) / n,
            }
        )
    return table[table["n"] > 0].reset_index(drop=True)


def find_bins(confidence: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """Return the bin of equal width of each confidence, (n,) int64; confidence: (n,) float from 0 to 1."""
    # Bins are closed on the right, as in the source of the formula.
    return np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
