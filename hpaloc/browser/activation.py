"""Activation maps: the part of a tile that supports the called location of its cell."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import tensorflow as tf

from hpaloc.network.device import precision_policy, select_device
from hpaloc.network.loading import load_folder
from hpaloc.progress import log, track
from hpaloc.records import tile_dataset
from hpaloc.tables import calling_columns

# The last map of each of the network's stages, deepest first.
_STAGES = ("conv5_block3_out", "conv4_block6_out", "conv3_block4_out", "conv2_block3_out")
# The deepest stage separates classes best; with fewer positions a side than this it no longer shows a place.
_SMALLEST_SIDE = 8


class ActivationMaps:
    """Class activation maps of a classifier from one forward and one backward pass.

    LayerCAM (Jiang et al. 2021, IEEE TIP 30:5875): the sum over the filters of a layer of activation times the
    positive part of the gradient of the class, here of its log probability. The layer is the deepest whose map has at
    least 8 positions a side, so that the maps of networks for small tiles also show a place. Strided convolutions
    after that layer pass the gradient only to every second position, so it is averaged over this period.
    """

    def __init__(self, model: keras.Model) -> None:
        layers = {layer.name: layer for layer in model.layers}
        maps = [layers[name].output for name in _STAGES]
        chosen = next((of_stage for of_stage in maps if of_stage.shape[1] >= _SMALLEST_SIDE), maps[-1])
        self.side: int = chosen.shape[1]
        self._period = self.side // maps[0].shape[1]
        self._twin = keras.Model(model.input, [chosen, model.output])
        # Compiled for batches of any size, since the last is smaller.
        signature = [tf.TensorSpec(model.input_shape, tf.float32), tf.TensorSpec((None,), tf.int32)]
        self._maps = tf.function(self._locate, input_signature=signature)

    def __call__(self, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return the map of each image's class, (n, side, side) float32, 1 at its strongest place.

        A map is all 0 if nothing in the image supports the class.

        images: (n, S, S, colours) 0..255
        classes: (n,) int, class indices
        """
        return self._maps(tf.cast(images, tf.float32), tf.cast(classes, tf.int32)).numpy()

    def _locate(self, images: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        # The tape watches the trainable weights, and so every map that is computed from them.
        with tf.GradientTape() as tape:
            maps, probabilities = self._twin(images, training=False)
            score = tf.math.log(tf.gather(probabilities, classes, axis=1, batch_dims=1) + 1e-7)
        gradient = tf.nn.avg_pool2d(tape.gradient(score, maps), self._period, 1, "SAME")
        located = tf.reduce_sum(maps * tf.nn.relu(gradient), axis=-1)
        return tf.math.divide_no_nan(located, tf.reduce_max(located, axis=(1, 2), keepdims=True))


def shard_activation_maps(
    model_dir: Path,
    tiles: Mapping[str, Path],
    predictions: Path,
    batch_size: int = 64,
    gpu: str = "auto",
    threads: int | None = None,
    fields: Collection[str] | None = None,
) -> np.ndarray:
    """Return the activation maps of the cells of a shard, each for its likeliest location.

    tiles: the TFRecord of each colour
    predictions: the prediction table of the shard, its rows in the order of the tiles
    fields: those whose cells get a map, all of them in both tables; None for all fields

    Returns (n, side, side) uint8, one map for each row of the prediction table, 255 at its strongest place; the maps of
    other fields are 0.
    Raises ModelError for a model folder that was changed, and ValueError if tiles and predictions hold different cells.
    """
    select_device(gpu, threads)
    with precision_policy("float32"):
        model, config, _ = load_folder(model_dir)
    columns = calling_columns(pq.read_schema(predictions).names)
    table = pd.read_parquet(predictions, columns=["field", "cell", *columns])
    classes = table[columns].to_numpy().argmax(axis=1)
    rows = np.arange(len(table)) if fields is None else np.flatnonzero(table["field"].isin(fields))
    cells = table["cell"].to_numpy()
    maps_of = ActivationMaps(model)
    channels = config["channels"]
    paths = {colour: [str(tiles[colour])] for colour in channels}
    dataset = tile_dataset(paths, channels, config["input_size"], fields)
    maps = np.zeros((len(table), maps_of.side, maps_of.side), np.uint8)
    start = 0
    batches = dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    for batch in track(batches, -(-len(rows) // batch_size), "batches of activation maps"):
        at = rows[start : start + len(batch["cell"])]
        if batch["cell"].numpy().tolist() != cells[at].tolist():
            raise ValueError(f"{predictions}: after {start} cells with a map, its cells are not those of the tiles")
        maps[at] = np.rint(255 * maps_of(batch["image"], classes[at]))
        start += len(at)
    if start != len(rows):
        raise ValueError(f"{predictions}: has {len(rows)} cells, but the tiles have {start}")
    log.info("activation maps of %d cells, %d positions a side", len(rows), maps_of.side)
    return maps


def fold_activation_maps(
    model_dirs: Sequence[Path],
    tiles: Mapping[str, Path],
    parts: Sequence[Path],
    predictions: Path,
    gpu: str = "auto",
    threads: int | None = None,
    fields: Collection[str] | None = None,
) -> np.ndarray:
    """Return the maps of ``shard_activation_maps`` in a cross-validation, each by the network that predicts its cell.

    model_dirs, parts: the model folder of each fold, and its prediction table of the shard
    tiles: the TFRecord of each colour
    predictions: the joined table, whose order the maps have
    fields: those whose cells get a map; None for all

    Returns (n, side, side) uint8.
    Raises as ``shard_activation_maps`` does.
    """
    ids = [pd.read_parquet(part, columns=["field", "cell"]) for part in parts]
    shown = [set(of_fold["field"]) if fields is None else set(of_fold["field"]) & set(fields) for of_fold in ids]
    maps = [
        shard_activation_maps(model, tiles, part, gpu=gpu, threads=threads, fields=of_fold)
        for model, part, of_fold in zip(model_dirs, parts, shown, strict=True)
    ]
    found = pd.MultiIndex.from_frame(pd.concat(ids))
    wanted = pd.MultiIndex.from_frame(pd.read_parquet(predictions, columns=["field", "cell"]))
    return np.concatenate(maps)[found.get_indexer(wanted)]
