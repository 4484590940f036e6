"""The weights of the examples of each class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from hpaloc.examples import LABEL_COLUMNS


def label_counts(examples: pd.DataFrame) -> np.ndarray:
    """Return the (19,) int64 number of examples of each class."""
    return examples[list(LABEL_COLUMNS)].sum().to_numpy(int)


def class_weights(counts: Sequence[int] | np.ndarray, m: float) -> np.ndarray:
    """Return the weight of each class: min(1, m·n₂/n_c) for its count n_c, and 1 for the rarest class.

    n₂ is the second-smallest of the counts above 0 (docs/model.md, "Training"). A class without an example, or the only
    class, has weight 1.

    counts: (19,) int

    Returns (19,) float32.
    """
    counts = np.asarray(counts, float)
    present = np.sort(counts[counts > 0])
    if len(present) < 2:
        return np.ones(len(counts), np.float32)
    weights = np.minimum(1.0, m * present[1] / np.maximum(counts, 1.0))
    weights[counts == present[0]] = 1.0
    return weights.astype(np.float32)


def weighted(examples: tf.data.Dataset, weights: np.ndarray) -> tf.data.Dataset:
    """Multiply the weight of each example (image, label (19,), weight) by that of its class.

    A cell of several locations has the greatest of their weights.

    weights: (19,) float32
    """
    return examples.map(lambda image, label, weight: (image, label, weight * tf.reduce_max(label * weights)))
