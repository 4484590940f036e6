"""The scores that a training logs, epoch by epoch."""

from abc import abstractmethod
from typing import Any

import keras
import tensorflow as tf

from hpaloc.classes import N_CLASSES


class _Counts(keras.metrics.Metric):
    """A metric that is a function of one table of counts, summed over batches."""

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.counts = self.add_variable(shape, initializer="zeros", name="counts", dtype="float32", aggregation="sum")

    @abstractmethod
    def table(self, labels: Any, probabilities: Any) -> Any:
        """Return the counts of one batch from (n, 19) labels and probabilities."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch; weights are ignored, since a score counts cells."""
        self.counts.assign_add(self.table(tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)))


class BalancedAccuracy(_Counts):
    """Mean over the classes present of the share of cells found, over cells of exactly one location."""

    def __init__(self, name: str = "balanced_accuracy") -> None:
        super().__init__((2, N_CLASSES), name)

    def table(self, labels: Any, probabilities: Any) -> Any:
        """Return (2, 19): of the cells of exactly one location, those found and all, by class."""
        single = tf.reduce_sum(labels, 1, keepdims=True) == 1.0
        labels = tf.one_hot(tf.argmax(labels, 1), N_CLASSES) * tf.cast(single, tf.float32)
        hit = tf.cast(tf.argmax(labels, 1) == tf.argmax(probabilities, 1), tf.float32)
        return tf.stack([tf.reduce_sum(labels * hit[:, None], 0), tf.reduce_sum(labels, 0)])

    def result(self) -> Any:
        """Return the mean over the classes present of the share found."""
        hits, cells = tf.unstack(tf.convert_to_tensor(self.counts))
        return tf.math.divide_no_nan(
            tf.reduce_sum(tf.math.divide_no_nan(hits, cells)), tf.reduce_sum(tf.cast(cells > 0, tf.float32))
        )


class Accuracy(BalancedAccuracy):
    """Share of the cells of exactly one location whose likeliest class is that one."""

    def __init__(self, name: str = "accuracy") -> None:
        super().__init__(name)

    def result(self) -> Any:
        """Return the share of all these cells that is found."""
        hits, cells = tf.unstack(tf.convert_to_tensor(self.counts))
        return tf.math.divide_no_nan(tf.reduce_sum(hits), tf.reduce_sum(cells))


class MacroAUC(_Counts):
    """Mean over classes of the area under the ROC curve, from histograms of the log-odds in 400 bins.

    Classes without a positive or without a negative are left out, while ``keras.metrics.AUC`` counts them as 0. Pairs
    within a bin count half. The difference from the exact area is about 1e-3.
    """

    BINS = 400

    def __init__(self, name: str = "auc") -> None:
        super().__init__((2, N_CLASSES, self.BINS), name)

    def table(self, labels: Any, probabilities: Any) -> Any:
        """Return (2, 19, 400): the cells of the class and the other cells in each bin of the log-odds."""
        odds = tf.math.log(tf.clip_by_value(probabilities, 1e-6, 1 - 1e-6))
        odds -= tf.math.log1p(-tf.clip_by_value(probabilities, 1e-6, 1 - 1e-6))
        bins = tf.cast((odds + 14.0) / 28.0 * self.BINS, tf.int32)
        place = tf.one_hot(tf.clip_by_value(bins, 0, self.BINS - 1), self.BINS)
        return tf.stack([tf.einsum("nc,ncb->cb", labels, place), tf.einsum("nc,ncb->cb", 1.0 - labels, place)])

    def result(self) -> Any:
        """Return the mean area over the classes that have both kinds of cells."""
        yes, no = tf.unstack(tf.convert_to_tensor(self.counts))
        wins = tf.reduce_sum(yes * (tf.cumsum(no, 1) - 0.5 * no), 1)
        pairs = tf.reduce_sum(yes, 1) * tf.reduce_sum(no, 1)
        present = tf.reduce_sum(tf.cast(pairs > 0, tf.float32))
        return tf.math.divide_no_nan(tf.reduce_sum(tf.math.divide_no_nan(wins, pairs)), present)
