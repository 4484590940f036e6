"""The fully convolutional twin of a classifier, which takes images of any size."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpaloc.network.options import ModelError


class FullyConvolutionalResNet50(keras.Model):
    """The fully convolutional twin of a classifier: it shares its weights and takes images of any size.

    For (n, H, W, colours) 0..255, H and W at least those of the classifier's tiles, it returns (n, h, w, 19) float32
    probabilities: those of the classifier at each step of 32 px. Global average pooling becomes an average pooling
    of the size of the classifier's last map (7 × 7 at 224 px), the dense layers become 1 × 1 convolutions with the
    same variables (docs/model.md, "The fully convolutional twin"). The twin follows later changes of the weights.
    """

    STEP = 32

    def __init__(self, model: keras.Model, **settings: Any) -> None:
        settings.setdefault("name", "fully_convolutional_resnet50")
        super().__init__(**settings)
        maps = model.get_layer("pool").input
        self.tile_size: int = model.input_shape[1]
        self.window: int = maps.shape[1]
        self.colours: int = model.input_shape[3]
        # The same layers make a second graph over an input of any size.
        self.body = keras.models.clone_model(
            keras.Model(model.input, maps), keras.Input((None, None, self.colours)), clone_function=lambda layer: layer
        )
        self.head = [model.get_layer(name) for name in ("pool_bn", "embedding", "embedding_bn", "location")]

    def _locate(self, maps: Any) -> Any:
        first, embedding, second, location = self.head
        for norm, dense in ((first, embedding), (second, location)):
            scale = norm.gamma / tf.sqrt(norm.moving_variance + norm.epsilon)
            maps = (maps - norm.moving_mean) * scale + norm.beta
            maps = tf.nn.conv2d(maps, tf.convert_to_tensor(dense.kernel)[None, None], 1, "VALID") + dense.bias
            maps = dense.activation(maps)
        return maps

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Return the probabilities at every position where a whole tile fits into the image."""
        maps = tf.cast(self.body(images, training=False), tf.float32)
        return self._locate(tf.nn.avg_pool2d(maps, self.window, 1, "VALID"))

    def class_activation_maps(self, image: np.ndarray) -> np.ndarray:
        """Return (H, W, 19) float32: the probability of each class around each pixel of one image.

        Features are not averaged; maps are bilinear between the steps of 32 px.

        image: (H, W, colours) float, 0..255

        Raises ModelError for an image that is smaller than a tile or has other colours.
        """
        height, width = image.shape[:2]
        if image.ndim != 3 or image.shape[2] != self.colours or min(height, width) < self.tile_size:
            raise ModelError(
                f"an image of {self.colours} colours and at least {self.tile_size} px a side is needed, "
                f"got one of shape {image.shape}"
            )
        maps = tf.cast(self.body(tf.convert_to_tensor(image)[None], training=False), tf.float32)
        maps = self._locate(maps)
        covered = [self.STEP * steps for steps in maps.shape[1:3]]
        return tf.image.resize(maps, covered)[0, :height, :width].numpy()
