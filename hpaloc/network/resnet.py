"""The ResNet-50 of hpaloc, for any subset of the four colours, with the head of the method."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpaloc.classes import N_CLASSES
from hpaloc.network.options import HEADS, ModelError, check_channels

# The stride of the last block in px: an input below it gives an empty last map.
SMALLEST_INPUT = 32
# The initial last scale of each residual block. At 0 (Goyal et al. 2017, arXiv:1706.02677, section 5.1) every block
# starts as the identity, and nearly is one after a few hundred steps: the scales were below 0.03. The demo's training
# calls more cells right from 0.2 than from 0; from 1, the stock value, it learns more slowly.
BRANCH_SCALE = 0.2


@keras.saving.register_keras_serializable(package="hpaloc")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of the last axis of a (n, h, w, c) map by TensorFlow's fused kernel.

    The results are those of ``keras.layers.BatchNormalization``, whose chain of elementwise kernels takes about a
    sixth of a training step on a CPU and, in bfloat16, casts every map to float32 and back. The statistics are always
    float32.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise by the batch's statistics when training, else by the moving ones."""
        learn = bool(training) and self.trainable
        empty = tf.zeros([0], tf.float32)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=empty if learn else tf.convert_to_tensor(self.moving_mean),
            variance=empty if learn else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=learn,
        )
        if learn:
            self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1.0 - self.momentum))
            self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1.0 - self.momentum))
        return outputs


def backbone(channels: int, input_size: int | None = None) -> keras.Model:
    """Return an untrained ResNet-50 v1 without top: images 0..255 (n, S, S, channels) to maps (n, S/32, S/32, 2048).

    The graph and the layer names are those of ``keras.applications.ResNet50``, with these changes: convolutions have no
    bias, since the batch norm after each would cancel it (the first also removes the scale of the images); He
    initialisation (He et al. 2015, arXiv:1502.01852); the last scale of each residual block starts from
    ``BRANCH_SCALE``; moving averages have momentum 0.9, since with the 0.99 of Keras they lag behind the weights by
    hundreds of steps.

    input_size: S in px; None takes any size from 32

    Raises ModelError for an ``input_size`` that is too small.
    """
    if input_size is not None and input_size < SMALLEST_INPUT:
        raise ModelError(f"input_size must be at least {SMALLEST_INPUT}, got {input_size}")
    shape = (input_size, input_size, channels)
    with warnings.catch_warnings():
        # Keras warns about any number of channels except 1 and 3.
        warnings.simplefilter("ignore", UserWarning)
        stock = keras.applications.ResNet50(include_top=False, weights=None, input_shape=shape, name="resnet50")

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            settings |= {"momentum": 0.9}
            if layer.name.endswith("_3_bn"):
                settings["gamma_initializer"] = keras.initializers.Constant(BRANCH_SCALE)
            return FusedBatchNormalization.from_config(settings)
        if isinstance(layer, keras.layers.Conv2D):
            settings |= {"use_bias": False, "kernel_initializer": "he_normal"}
        return type(layer).from_config(settings)

    return keras.models.clone_model(stock, keras.Input(shape, name="image"), rebuild)


def classifier(
    channels: Sequence[str],
    head: str = "sigmoid",
    input_size: int | None = 224,
    dropout: Sequence[float] = (0.5, 0.25),
    units: int = 512,
) -> keras.Model:
    """Return the untrained cell classifier: tiles 0..255 (n, S, S, len(channels)) to probabilities (n, 19) float32.

    The head of the method follows the backbone: global average pooling, batch norm, dropout, dense ``units`` relu (the
    layer ``embedding``), batch norm, dropout, dense 19. The last bias starts at the odds of 1 in 19. Raises ModelError
    for an unknown head or colour, or a size that is too small.
    """
    channels = check_channels(channels)
    if head not in HEADS:
        raise ModelError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
    body = backbone(len(channels), input_size)
    average = {"momentum": 0.9, "epsilon": 1.001e-5}
    x = keras.layers.GlobalAveragePooling2D(name="pool")(body.output)
    x = keras.layers.BatchNormalization(**average, name="pool_bn")(x)
    x = keras.layers.Dropout(dropout[0], name="pool_dropout")(x)
    x = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="embedding")(x)
    x = keras.layers.BatchNormalization(**average, name="embedding_bn")(x)
    x = keras.layers.Dropout(dropout[1], name="embedding_dropout")(x)
    # Without the odds of 1 in 19 a sigmoid head would spend steps on learning that most classes are absent.
    bias = keras.initializers.Constant(-np.log(N_CLASSES - 1.0) if head == "sigmoid" else 0.0)
    x = keras.layers.Dense(N_CLASSES, activation=head, bias_initializer=bias, dtype="float32", name="location")(x)
    return keras.Model(body.input, x, name="hpaloc_resnet50")
