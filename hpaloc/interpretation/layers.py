"""The answers of the layers of a network: pooled features, patches that drive units, class activation maps."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from hpaloc.images import read_field
from hpaloc.levels import scaled
from hpaloc.manifests import ManifestRow, unchanged
from hpaloc.network.fully_convolutional import FullyConvolutionalResNet50
from hpaloc.network.resnet import classifier
from hpaloc.network.theoretical_field import theoretical_receptive_field
from hpaloc.progress import log, track
from hpaloc.records import tile_dataset, write_dataset


@dataclass(frozen=True)
class Layer:
    """A depth of the ResNet-50, by names of layers of the folded network.

    features: the layer whose mean over the tile describes a cell
    units: the layer before the last rectifier, where units also have a weakest answer
    stride: px of the input
    """

    features: str
    units: str
    stride: int


LAYERS = {
    "stem": Layer("pool1_pool", "conv1_conv", 2),
    "stage 1": Layer("conv2_block3_out", "conv2_block3_add", 4),
    "stage 2": Layer("conv3_block4_out", "conv3_block4_add", 8),
    "stage 3": Layer("conv4_block6_out", "conv4_block6_add", 16),
    "stage 4": Layer("conv5_block3_out", "conv5_block3_add", 32),
}
# Cells on which the gradient is measured, and batches that estimate the statistics of a random network.
_GRADIENT_CELLS = 24
_STATISTICS_BATCHES = 24
# Longest side of a mapped field, at the scale of the network, and of its picture, px.
_FIELD_SIDE, _PICTURE_SIDE = 2048, 512


def read_tiles(
    cells: pd.DataFrame,
    tiles: Mapping[str, Sequence[str | Path]],
    channels: Sequence[str],
    input_size: int,
    threads: int = 1,
) -> np.ndarray:
    """Return the tiles of cells, in their order, as a network takes them.

    Only the tiles of these cells are read.

    cells: field, cell, key, shard, row
    tiles: the record files of each colour, by position ``shard``

    Returns (n, input_size, input_size, channels) uint8.
    Raises tables.TableError if a tile is of another cell.
    """
    examples = cells[["field", "cell", "key", "shard", "row"]].assign(
        part="train", record_shard=0, position=np.arange(len(cells)), green_scale=1.0
    )
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "train")
        write_dataset(examples, {colour: tiles[colour] for colour in channels}, {"train": part}, threads)
        paths = {colour: sorted(part.glob(f"{colour}-*.tfrecord")) for colour in channels}
        images = tile_dataset(paths, channels, input_size).batch(256)
        return np.concatenate([batch["image"] for batch in images.as_numpy_iterator()])


def random_network(config: Mapping[str, Any], images: np.ndarray, seed: int, batch_size: int = 64) -> keras.Model:
    """Return a network with the architecture of ``config`` (a model folder's config.json) and random weights.

    It is the control for what architecture and images alone achieve: the network before its first step, whose residual
    blocks are nearly the identity. With scales of 1 in every block little of the image would reach the deep layers, and
    the control would be too weak. Its batch norms have the statistics of ``images``, without which the answers of deep
    layers would have no common scale. Nothing is learned from labels.

    images: (n, S, S, colours) float32, 0..255
    """
    keras.utils.set_random_seed(seed)
    network = classifier(
        config["channels"], config["head"], config["input_size"], dropout=(0, 0), units=config["units"]
    )
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    order = np.random.default_rng(seed).permutation(len(images))
    for step in range(min(_STATISTICS_BATCHES, -(-len(images) // batch_size))):
        batch = images[order[step * batch_size : (step + 1) * batch_size]]
        for norm in norms:
            # The moving average of step n keeps n / (n + 1): the plain mean over the batches.
            norm.momentum = step / (step + 1)
        network(tf.cast(batch, tf.float32), training=True)
    return network


def layer_answers(
    model: keras.Model, images: np.ndarray, units: int = 0, batch_size: int = 64
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Return the answers of the layers to one view of each cell, (features, extremes).

    Features are, for each of LAYERS and the embedding, the mean answer of each unit over the tile, (n, d) float32.
    Extremes are, for the first ``units`` units of each of LAYERS, ``strongest`` and ``weakest`` (n, units) float32, the
    answers before the rectifier, and ``strongest_at`` and ``weakest_at`` (n, units, 2) int64, the row and column, in px
    of the tile, of the middle of the unit's receptive field; empty without units.

    model: folded, see ``inference.fold_batch_norm``
    images: (n, S, S, colours) uint8
    """
    pooled = [
        keras.layers.GlobalAveragePooling2D()(model.get_layer(layer.features).output) for layer in LAYERS.values()
    ]
    before = [model.get_layer(layer.units).output for layer in LAYERS.values()] if units else []
    twin = keras.Model(model.input, [*pooled, model.get_layer("embedding").output, *before])

    # Compiled for batches of any size, since the last is smaller.
    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.uint8)])
    def forward(batch: Any) -> tuple[list[Any], list[tuple[Any, ...]]]:
        outputs = twin(tf.cast(batch, tf.float32), training=False)
        ends = []
        for maps in outputs[len(LAYERS) + 1 :]:
            shape = tf.shape(maps)
            flat = tf.reshape(tf.cast(maps[..., :units], tf.float32), (shape[0], shape[1] * shape[2], units))
            ends.append((tf.reduce_max(flat, 1), tf.argmax(flat, 1), tf.reduce_min(flat, 1), tf.argmin(flat, 1)))
        return outputs[: len(LAYERS) + 1], ends

    parts = [
        forward(images[start : start + batch_size])
        for start in track(range(0, len(images), batch_size), what="batches through the layers")
    ]
    features = {
        name: np.concatenate([means[index].numpy() for means, _ in parts])
        for index, name in enumerate([*LAYERS, "embedding"])
    }
    extremes = {}
    for index, (name, layer) in enumerate(LAYERS.items() if units else ()):
        width = before[index].shape[2]
        most, most_at, least, least_at = (
            np.concatenate([ends[index][what].numpy() for _, ends in parts]) for what in range(4)
        )
        extremes[name] = {
            "strongest": most,
            "weakest": least,
            "strongest_at": np.stack(np.divmod(most_at, width), axis=-1) * layer.stride,
            "weakest_at": np.stack(np.divmod(least_at, width), axis=-1) * layer.stride,
        }
    return features, extremes


def layer_receptive_fields(model: keras.Model, images: np.ndarray) -> pd.DataFrame:
    """Return the receptive field of a unit of each layer: theoretical side, effective radii, side of a patch, in px.

    ``theoretical`` is the side of the box that can reach the unit; ``radius_50`` and ``radius_95`` hold 50 % and 95 %
    of the squared gradient of the units in the middle, see ``receptive_field.effective_receptive_field``. ``patch`` is
    the theoretical side if it fits into the tile, else that of the box around the 95 % radius, at most the tile.

    images: (n, S, S, colours) of any number type
    """
    chosen = tf.constant(images[:: max(1, len(images) // _GRADIENT_CELLS)][:_GRADIENT_CELLS], tf.float32)
    side = images.shape[1]
    y, x = np.indices((side, side))
    rows = []
    for name, layer in LAYERS.items():
        twin = keras.Model(model.input, model.get_layer(layer.units).output)
        with tf.GradientTape() as tape:
            tape.watch(chosen)
            maps = twin(chosen, training=False)
            at = maps.shape[1] // 2
            middle = tf.reduce_sum(maps[:, at, at])
        mass = np.square(tape.gradient(middle, chosen).numpy(), dtype=float).sum(axis=(0, 3))
        distance = np.hypot(y - at * layer.stride, x - at * layer.stride).ravel()
        order = distance.argsort()
        held = mass.ravel()[order].cumsum()
        radius = {share: float(distance[order][np.searchsorted(held, share / 100 * held[-1])]) for share in (50, 95)}
        theoretical = theoretical_receptive_field(twin)
        patch = theoretical if theoretical <= side else min(side, 2 * int(np.ceil(radius[95])) + 1)
        rows.append((name, theoretical, radius[50], radius[95], patch))
    return pd.DataFrame(rows, columns=["layer", "theoretical", "radius_50", "radius_95", "patch"])


def cut_patch(tile: np.ndarray, y: int, x: int, side: int) -> np.ndarray:
    """Return the (side, side, colours) patch of a tile around row y and column x, 0 outside the tile.

    tile: (S, S, colours) of any type
    """
    before, after = (side - 1) // 2, side // 2
    padded = np.pad(tile, ((before, after), (before, after), (0, 0)))
    return padded[y : y + side, x : x + side]


def driving_patches(
    images: np.ndarray, fields: np.ndarray, extremes: Mapping[str, np.ndarray], side: int, patches: int
) -> np.ndarray:
    """Cut the patches that drive each unit of a layer most and least.

    Each field contributes at most one patch; otherwise a bright field could contribute all.

    images: (n, S, S, colours) uint8
    fields: (n,) names
    extremes: as ``layer_answers`` returns them for the layer

    Returns (units, 2, patches, side, side, colours) uint8, the strongest first; missing patches are black.
    """
    units = extremes["strongest"].shape[1]
    cut = np.zeros((units, 2, patches, side, side, images.shape[3]), np.uint8)
    for unit in range(units):
        for end, (what, sign) in enumerate((("strongest", -1), ("weakest", 1))):
            order = np.argsort(sign * extremes[what][:, unit], kind="stable")
            first = np.sort(np.unique(fields[order], return_index=True)[1])[:patches]
            for place, cell in enumerate(order[first]):
                y, x = extremes[f"{what}_at"][cell, unit]
                cut[unit, end, place] = cut_patch(images[cell], int(y), int(x), side)
    return cut


def field_map(
    model: FullyConvolutionalResNet50,
    row: ManifestRow,
    levels: Mapping[str, tuple[float, float]],
    channels: Sequence[str],
    box: float,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return (picture, maps, pixel size) of a field: the class activation maps of the fully convolutional twin.

    The field is resized so that its cells are as large as the tiles that trained the network.

    levels: the field's background and white level by colour
    box: px, the median side of its cells' boxes

    Returns the picture (h, w, colours) uint8, the maps (h, w, 19) float16, both at most 512 px a side, and their pixel
    size in µm.
    """
    with unchanged(row.paths, row.states):
        images = read_field(row.paths, tuple(channels))
    field: np.ndarray = np.stack([scaled(images[colour], *levels[colour]) for colour in channels], axis=-1) * 255
    scale = min(model.tile_size / box, _FIELD_SIDE / max(field.shape[:2]))
    size = tuple(max(1, round(edge * scale)) for edge in field.shape[1::-1])
    field = cv2.resize(field, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    field = field.reshape(size[1], size[0], len(channels))
    lack = [max(0, model.tile_size - edge) for edge in field.shape[:2]]
    maps = model.class_activation_maps(np.pad(field, ((0, lack[0]), (0, lack[1]), (0, 0))))[: size[1], : size[0]]
    shrink = min(1.0, _PICTURE_SIDE / max(size))
    small = tuple(max(1, round(edge * shrink)) for edge in size)
    picture = cv2.resize(field, small, interpolation=cv2.INTER_AREA).reshape(small[1], small[0], len(channels))
    # OpenCV resizes at most four planes at once.
    shown = np.stack([cv2.resize(maps[..., index], small) for index in range(maps.shape[2])], axis=-1)
    return picture.round().astype(np.uint8), shown.astype(np.float16), row.pixel_size / (scale * shrink)


def fields_to_map(cells: pd.DataFrame, number: int) -> list[tuple[str, str, int]]:
    """Return (collection, field, label) of the fields with the most mapped cells, each of a different label."""
    counts = cells[cells["mapped"]].groupby(["label", "collection", "field"]).size().sort_values(ascending=False)
    first = counts.reset_index().drop_duplicates("label").head(number)
    log.info("class activation maps of %s", ", ".join(first["field"]))
    return list(first[["collection", "field", "label"]].itertuples(index=False, name=None))
