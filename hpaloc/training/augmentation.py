"""Augmentation: random views, brightness and contrast of each tile, on the device that trains."""

import math
from typing import Any

import keras
import tensorflow as tf

from hpaloc.levels import HEADROOM
from hpaloc.training.settings import TrainSettings


class Augmentation(keras.layers.Layer):
    """Change each tile of a batch (n, S, S, colours) 0..255 at random, when training.

    Each tile gets one of the 8 dihedral views; then, for each colour separately, contrast times 1 ± ``contrast`` around
    the mean of the tile, and ± ``brightness`` of white; docs/model.md has the ranges of the method. For few cells
    there are also: ``rotation`` by any angle, ``zoom`` z by e^-z to e^z, ``gain`` g of each colour by e^-g to e^g,
    uniform in the exponent. The outside of the tile is black, like the padding.
    """

    def __init__(self, settings: TrainSettings, seed: int = 0) -> None:
        super().__init__(name="augmentation", dtype="float32")
        self.settings = settings
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Return the views in the type and shape of ``images``."""
        if not training:
            return images
        settings = self.settings
        count, colours = tf.shape(images)[0], images.shape[-1]
        draws = self._draw(3, count, 1, 1, 1)
        images = tf.where(draws[0] < 0.5, tf.reverse(images, [1]), images)
        images = tf.where(draws[1] < 0.5, tf.reverse(images, [2]), images)
        images = tf.where(draws[2] < 0.5, tf.transpose(images, [0, 2, 1, 3]), images)
        if settings.rotation or settings.zoom:
            draws = self._draw(2, count)
            images = _turned(
                images,
                float(settings.rotation) * math.pi / 2 * draws[0],
                tf.exp(settings.zoom * (2.0 * draws[1] - 1.0)),
            )
        if settings.gain:
            images *= tf.exp(settings.gain * (2.0 * self._draw(1, count, 1, 1, colours)[0] - 1.0))
        draws = self._draw(2, count, 1, 1, colours)
        mean = tf.reduce_mean(images, [1, 2], keepdims=True)
        images = mean + (images - mean) * (1.0 + settings.contrast * (2.0 * draws[0] - 1.0))
        images += 255.0 / HEADROOM * settings.brightness * (2.0 * draws[1] - 1.0)
        return tf.clip_by_value(images, 0.0, 255.0)

    def _draw(self, kinds: int, count: Any, *rest: int) -> Any:
        """Return numbers 0..1 (kinds, count, *rest) for the cells of this device.

        Several devices together draw what one device draws for the whole batch.
        """
        context = tf.distribute.get_replica_context()
        # A model is built outside of the devices.
        devices, device = (context.num_replicas_in_sync, context.replica_id_in_sync_group) if context else (1, 0)
        seed = tf.cast(self.seed_generator.next(), tf.int32)
        draws = tf.random.stateless_uniform([kinds, count * devices, *rest], seed)
        return draws[:, device * count : (device + 1) * count]


def _turned(images: Any, angle: Any, scale: Any) -> Any:
    """Rotate each image (n, S, S, c) by its angle in radians and enlarge it by its scale, both (n,), at its centre."""
    size = images.shape[1]
    centre = (size - 1) / 2.0
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    zero = tf.zeros_like(cosine)
    transforms = tf.stack(
        [
            *(cosine, -sine, centre - centre * (cosine - sine)),
            *(sine, cosine, centre - centre * (sine + cosine)),
            *(zero, zero),
        ],
        axis=1,
    )
    return keras.ops.image.affine_transform(images, transforms, interpolation="bilinear", fill_mode="constant")
