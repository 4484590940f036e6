"""What baselines know of a cell: its shape, its light, and the output of a network with random weights."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from hpaloc.baselines.columns import describe_shape_and_light
from hpaloc.joining import read_cells, read_fields
from hpaloc.mixtures.light import measure_light
from hpaloc.network.device import select_device
from hpaloc.network.resnet import classifier
from hpaloc.progress import log
from hpaloc.records import tile_dataset
from hpaloc.tables import TableError, write_table

# A change of what is measured needs another MEASURES_EDITION (baselines/record.py).
# Light is measured in tiles of this side, px; the network may take others.
_LIGHT_SIDE = 128
# The random weights are the same in every job.
_SEED = 0
# On the demo, a regression on this layer calls 0.68 of the test cells right, and 0.67 with other random weights; one on
# the last map 0.40, one on `embedding` 0.35.
_PROBED = "conv3_block4_out"


def frozen_network(channels: Sequence[str], input_size: int) -> keras.Model:
    """Return a network with random weights, always the same: tiles 0..255 (n, S, S, c) to outputs (n, 512) float32.

    It is the network up to its second stage, averaged over the tile, with weights of variance 2 / inputs (He et al.
    2015). Random weights lose more of the image with every layer.
    """
    whole = classifier(channels, "sigmoid", input_size)
    network = keras.Model(whole.input, keras.layers.GlobalAveragePooling2D()(whole.get_layer(_PROBED).output))
    # Regressions travel with models: unlike those of Keras, NumPy's legacy numbers are the same in every version.
    numbers = np.random.RandomState(_SEED)
    for weights in network.weights:
        if len(weights.shape) > 1:
            spread = np.sqrt(2 / np.prod(weights.shape[:-1]))
            weights.assign(spread * numbers.standard_normal(weights.shape))
    return network


def measure_shard(
    cells: Path,
    fields: Path,
    tiles: Mapping[str, Path],
    out: Path,
    channels: Sequence[str],
    input_size: int,
    batch_size: int = 64,
    gpu: str = "auto",
    threads: int | None = None,
) -> None:
    """Measure every cell of a shard for the baselines, and write the table ``out``, atomically.

    A row per cell, in the order of the table of cells: field, cell, ``measures`` (``light_features`` if there are green
    and blue, then ``columns.describe_shape_and_light``, float32) and ``outputs`` (of ``frozen_network``, float16).

    cells, fields: the tables of the shard
    tiles: the TFRecord of each colour
    channels, input_size: as the network takes tiles

    Raises TableError if tiles and cells differ, NoGpuError.
    """
    select_device(gpu, threads)
    forward = tf.function(frozen_network(channels, input_size), reduce_retracing=True)
    table = read_cells([cells])
    described = describe_shape_and_light(table, read_fields([fields]))
    paths = {colour: [str(tiles[colour])] for colour in channels}
    sides = (input_size, _LIGHT_SIDE)
    batches = [tile_dataset(paths, channels, side).batch(batch_size).prefetch(tf.data.AUTOTUNE) for side in sides]
    light: list[np.ndarray] = []
    outputs: list[np.ndarray] = []
    ids: list[tuple[str, int]] = []
    for small, large in tf.data.Dataset.zip(tuple(batches)):
        ids += zip((name.decode() for name in small["field"].numpy()), small["cell"].numpy().tolist(), strict=True)
        outputs.append(forward(tf.cast(small["image"], tf.float32)).numpy().astype(np.float16))
        if {"green", "blue"} <= set(channels):
            light.append(measure_light(large["image"].numpy(), channels, threads or os.cpu_count() or 1))
    if ids != list(zip(table["field"], table["cell"].tolist(), strict=True)):
        raise TableError(f"the tiles of {next(iter(tiles.values()))} are not those of the cells in {cells}")
    measures = np.concatenate([*([np.concatenate(light)] if light else []), described], axis=1, dtype=np.float32)
    columns = {"measures": measures, "outputs": np.concatenate(outputs) if outputs else np.zeros((0, 512), np.float16)}
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        for name, values in columns.items()
    }
    write_table(out, pa.table({"field": pa.array(table["field"], pa.string()), "cell": table["cell"], **lists}))
    log.info("%d cells measured for the baselines", len(table))
