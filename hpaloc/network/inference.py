"""Inference: batch norm folded into the convolutions, and means over the views of a tile."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpaloc.network.options import ModelError
from hpaloc.network.resnet import FusedBatchNormalization


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """Return the inference twin of a classifier: each batch norm of a map folded into the convolution before it.

    Inputs, outputs and names of the remaining layers stay the same; weights are copies. Each convolution then has a
    bias, which TensorFlow fuses with it, its activation and the residual sum into one kernel.
    """

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if isinstance(layer, keras.layers.Conv2D):
            settings["use_bias"] = True
        return type(layer).from_config(settings)

    def skip(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if isinstance(layer, FusedBatchNormalization) else layer(*args, **kwargs)

    twin = keras.models.clone_model(model, clone_function=rebuild, call_function=skip)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            norm = model.get_layer(layer.name.removesuffix("_conv") + "_bn")
            gamma, beta, mean, variance = (np.float64(array) for array in norm.get_weights())
            scale = gamma / np.sqrt(variance + norm.epsilon)
            twin.get_layer(layer.name).set_weights([layer.get_weights()[0] * scale, beta - mean * scale])
        elif layer.weights and not isinstance(layer, FusedBatchNormalization):
            twin.get_layer(layer.name).set_weights(layer.get_weights())
    return twin


def dihedral_view(images: Any, view: int) -> Any:
    """Return the dihedral view number ``view`` of a square batch (n, S, S, c).

    0 is the batch itself, 1 to 3 are its quarter turns, 4 to 7 those of its mirror image.
    """
    return tf.image.rot90(images if view < 4 else tf.reverse(images, [2]), view % 4)


def averaged(model: keras.Model, views: int) -> Any:
    """Return a function from images (n, S, S, c) 0..255 to (probabilities (n, 19), embeddings (n, d)), float32.

    Both are means over the first ``views`` dihedral views, 1 to 8, by the folded twin of the model, which is faster and
    agrees up to rounding. Raises ModelError for another number of views.
    """
    if not 1 <= views <= 8:
        raise ModelError(f"predict.views must be 1 to 8, got {views}")
    network = fold_batch_norm(model)
    twin = keras.Model(network.input, [network.output, network.get_layer("embedding").output])

    # Compiled for one view, since a graph of eight takes eight times as long to build and runs no faster, and for
    # batches of any size, since the last is smaller.
    @tf.function(input_signature=[tf.TensorSpec(network.input_shape, tf.float32)])
    def forward(images: Any) -> tuple[Any, Any]:
        probabilities, embeddings = twin(tf.cast(images, twin.input.dtype), training=False)
        return tf.cast(probabilities, tf.float32), tf.cast(embeddings, tf.float32)

    def mean_of_views(images: Any) -> tuple[Any, Any]:
        images = tf.cast(images, tf.float32)
        outputs = [forward(dihedral_view(images, view)) for view in range(views)]
        return tuple(tf.add_n(output) / views for output in zip(*outputs, strict=True))

    return mean_of_views
