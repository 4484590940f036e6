"""The statistics of batch norms, recomputed from training images."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def statistics_renewal(model: keras.Model) -> Callable[[Iterable[Any]], None]:
    """Return a function that sets the moving statistics of every batch norm to those of batches of images.

    Moving averages lag behind the weights, which reduces the accuracy of a network trained for few steps, and batch
    norms after dropout learn a different variance; so images (n, S, S, colours) pass once more through the current
    weights, without dropout. Mean and variance are those of all batches together. Without a batch nothing changes. The
    function is compiled at its first call and may be called again during training.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32)])
    def forward(images: Any) -> None:
        # Momentum and rate are read while tracing, so they change for this graph alone.
        kept = [(norm, "momentum", norm.momentum) for norm in norms] + [(drop, "rate", drop.rate) for drop in drops]
        for layer, name, _ in kept:
            setattr(layer, name, 0.0)
        try:
            model(images, training=True)
        finally:
            for layer, name, value in kept:
                setattr(layer, name, value)

    def renew(batches: Iterable[Any]) -> None:
        sums = [np.zeros((3, norm.moving_mean.shape[0])) for norm in norms]
        seen = 0
        for images in batches:
            forward(tf.cast(images, tf.float32))
            seen += 1
            for total, norm in zip(sums, norms, strict=True):
                mean, variance = np.asarray(norm.moving_mean, float), np.asarray(norm.moving_variance, float)
                total += np.stack([mean, mean**2, variance])
        for total, norm in zip(sums, norms, strict=True) if seen else ():
            mean, square, variance = total / seen
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance + np.maximum(square - mean**2, 0.0))

    return renew
