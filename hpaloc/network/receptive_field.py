"""The receptive field of one position of the network's last map: in theory, and on real tiles."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpaloc.files import atomic_path
from hpaloc.network.fully_convolutional import FullyConvolutionalResNet50
from hpaloc.network.loading import load_folder
from hpaloc.network.options import ModelError
from hpaloc.network.theoretical_field import theoretical_receptive_field
from hpaloc.records import training_dataset

# Tiles on which the receptive field is measured.
RECEPTIVE_CELLS = 256


def propagated_receptive_field(model: keras.Model, side: int = 1024) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Return the input gradient of the middle of the last map, and the box (y0, x0, y1, x1) where it is not 0.

    The network is the twin (docs/model.md) with constant positive weights, no batch norm, and average instead of max
    pooling; each convolution has one filter, since equal filters give the same map.

    Returns (side, side) float64 of sum 1, and the box in px, its ends exclusive.
    """
    body = keras.Model(model.input, model.get_layer("pool").input)

    def rebuild(layer: keras.layers.Layer) -> keras.layers.Layer:
        settings = layer.get_config() | {"dtype": "float64"}
        if isinstance(layer, keras.layers.MaxPooling2D):
            names = ("name", "dtype", "pool_size", "strides", "padding", "data_format")
            return keras.layers.AveragePooling2D(**{name: settings[name] for name in names})
        if isinstance(layer, keras.layers.Conv2D):
            weight = 1 / np.prod(layer.kernel_size)
            settings |= {"filters": 1, "kernel_initializer": keras.initializers.Constant(weight), "use_bias": False}
        return type(layer).from_config(settings)

    def skip(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        return args[0] if isinstance(layer, keras.layers.BatchNormalization) else layer(*args, **kwargs)

    image = keras.Input((side, side, 1), dtype="float64")
    twin = keras.models.clone_model(body, image, clone_function=rebuild, call_function=skip)
    gradient = _middle_gradient(twin, tf.ones((1, side, side, 1), tf.float64))[0, ..., 0]
    rows, columns = np.flatnonzero(gradient.any(axis=1)), np.flatnonzero(gradient.any(axis=0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return gradient / gradient.sum(), box


def _middle_gradient(network: keras.Model, images: Any) -> np.ndarray:
    with tf.GradientTape() as tape:
        tape.watch(images)
        maps = network(images, training=False)
        middle = tf.reduce_sum(maps[:, maps.shape[1] // 2, maps.shape[2] // 2])
    return tape.gradient(middle, images).numpy()


def effective_receptive_field(model: keras.Model, images: np.ndarray) -> dict[str, Any]:
    """Return which part of the input the middle of a classifier's last map depends on, for real images.

    This is the squared gradient of the sum of all filters, added over images and colours.

    images: (n, H, W, colours) float32, 0..255, at least of the classifier's size

    Returns ``mass`` (H, W) of sum 1, and ``radius_50`` and ``radius_95``, the radii in px around the centre of mass
    that hold 50 % and 95 %.
    Raises ModelError if no gradient reaches the images.
    Source: Luo et al. 2016, arXiv:1701.04128.
    """
    body = FullyConvolutionalResNet50(model).body
    mass = np.zeros(images.shape[1:3])
    for image in images:
        mass += np.square(_middle_gradient(body, tf.constant(image[None], tf.float32)), dtype=float).sum(axis=(0, 3))
    if not mass.any():
        raise ModelError("no gradient reaches these images; take some with cells on them")
    mass /= mass.sum()
    y, x = np.indices(mass.shape)
    distance = np.hypot(y - (mass * y).sum(), x - (mass * x).sum()).ravel()
    order = distance.argsort()
    held = mass.ravel()[order].cumsum()
    radius = {f"radius_{share}": float(distance[order][np.searchsorted(held, share / 100)]) for share in (50, 95)}
    return {"mass": mass, **radius}


def receptive_fields(model: keras.Model, tiles: np.ndarray, montages: int = 8) -> dict[str, np.ndarray]:
    """Measure the receptive field of the middle of a classifier's last map in three ways, for a figure.

    tiles: (n, S, S, colours) float32, 0..255, of the classifier's size
    montages: how many images are made of tiles drawn at random, side by side, large enough to hold the whole field

    Returns ``tile`` (side S), ``theoretical`` (side), ``propagated`` (gradient of sum 1) with ``box`` (y0, x0, y1, x1),
    and ``effective`` (squared gradient of sum 1) with ``radius_50`` and ``radius_95``, all in px; both maps have the
    size of the montages.
    Raises ModelError without a tile.
    """
    if not len(tiles):
        raise ModelError("no tile to measure the receptive field on")
    theoretical = theoretical_receptive_field(model)
    across = -(-theoretical // model.input_shape[1]) + 1
    chosen = np.random.default_rng(0).integers(0, len(tiles), (montages, across, across))
    images = np.stack([np.concatenate([np.concatenate(tiles[row], axis=1) for row in grid]) for grid in chosen])
    propagated, box = propagated_receptive_field(model, images.shape[1])
    effective = effective_receptive_field(model, images)
    return {
        "tile": np.array(model.input_shape[1]),
        "theoretical": np.array(theoretical),
        "propagated": propagated.astype(np.float32),
        "box": np.array(box),
        "effective": effective["mass"].astype(np.float32),
        **{name: np.array(effective[name]) for name in ("radius_50", "radius_95")},
    }


def measure_receptive_fields(
    model_dir: Path, part_dir: Path, examples: Path, out: Path, cells: int = RECEPTIVE_CELLS
) -> None:
    """Write the receptive fields of a model folder on its training cells to ``out``, an .npz of ``receptive_fields``.

    ``part_dir`` is ``results/dataset/train``, ``examples`` its table. The first ``cells`` tiles are used; their order
    is random. Raises ModelError for a model folder that was changed.
    """
    model, config, _ = load_folder(model_dir)
    dataset = training_dataset(part_dir, examples, config["channels"], config["input_size"]).take(cells)
    fields = receptive_fields(model, np.stack([image.numpy() for image, _, _ in dataset]))
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **fields)
