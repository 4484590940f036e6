"""What baselines know of a cell: its shape, its light, and the output of a network with random weights."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from hpaloc.baselines.columns import describe_shape_and_light
from hpaloc.baselines.light import N_MEASUREMENTS, describe_light
from hpaloc.cutting import fit, square
from hpaloc.joining import read_cells, read_fields
from hpaloc.masks import mask_path, read_mask
from hpaloc.network.device import select_device
from hpaloc.network.resnet import classifier
from hpaloc.progress import log
from hpaloc.records import tile_dataset
from hpaloc.tables import TableError, write_table
from hpaloc.tfrecord import TileRecord, read_records
from hpaloc.threads import in_order

# A change of what is measured needs another MEASURES_EDITION (baselines/record.py).
# Light is measured in tiles of at most this side, px; the network may take others.
_LIGHT_SIDE = 128
# The random weights are the same in every job.
_SEED = 0
# On the demo, a regression on this layer calls 0.69 of the test cells right, and 0.67 with other random weights; one on
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


@functools.cache
def _frozen_outputs(channels: tuple[str, ...], input_size: int) -> tf.types.experimental.PolymorphicFunction:
    """Return the frozen network as one graph for batches of any size, since the last is smaller.

    A process that measures many shards makes it once: each graph would keep its memory.
    """
    network = frozen_network(channels, input_size)
    return tf.function(network, input_signature=[tf.TensorSpec(network.input_shape, tf.float32)])


def describe_cells(
    cells: pd.DataFrame,
    segmentation: Path,
    tiles: Mapping[str, Path],
    channels: Sequence[str],
    enlarge: bool = True,
    threads: int = 1,
) -> np.ndarray:
    """Describe the light of every cell by ``light.describe_light``, (n, N_MEASUREMENTS) float64.

    cells: columns of CELLS, those of one field next to each other
    segmentation: the folder of their masks
    tiles: the TFRecord of each colour, with the same cells in the same order
    channels: green, and the colours that it is compared with
    enlarge: as in ``tiles.tile_field``
    threads: the cells that are described at a time

    Raises TableError naming a mask that lacks a cell or is of another size, MaskError.
    """
    with ThreadPoolExecutor(threads) as pool:
        jobs = _outlined_tiles(cells, segmentation, tiles, channels, enlarge)
        found = list(in_order(pool, _describe_cell, jobs, 4 * threads))
    return np.stack(found) if found else np.zeros((0, N_MEASUREMENTS))


def _outlined_tiles(
    cells: pd.DataFrame, segmentation: Path, tiles: Mapping[str, Path], channels: Sequence[str], enlarge: bool
) -> Iterator[tuple[Any, ...]]:
    """Yield the arguments of ``_describe_cell`` for each cell."""
    payloads = zip(*(read_records(tiles[colour]) for colour in channels), strict=True)
    field, masks = "", {}
    row: Any
    for row, records in zip(cells.itertuples(index=False), payloads, strict=True):
        if row.field != field:
            paths = [mask_path(segmentation, row.field, kind) for kind in ("cell", "nucleus")]
            field, masks = row.field, {path: read_mask(path) for path in paths}
        outlines = []
        for path, mask in masks.items():
            if mask.shape != (row.height, row.width):
                raise TableError(
                    f"{path}: is {mask.shape}, but the field was {(row.height, row.width)} when it was tiled"
                )
            outlines.append(mask[row.y0 : row.y1, row.x0 : row.x1] == row.cell)
        if not outlines[0].any():
            raise TableError(f"{next(iter(masks))}: has no cell {row.cell} in its place; was it made again?")
        yield dict(zip(channels, records, strict=True)), outlines, row.pixel_size, enlarge


def _describe_cell(
    payloads: Mapping[str, bytes], outlines: Sequence[np.ndarray], pixel_size: float, enlarge: bool
) -> np.ndarray:
    """Describe the cell of a tile record for each colour; outlines: cell and nucleus in the box of the cell."""
    tiles = {colour: TileRecord.decode(payload).tile for colour, payload in payloads.items()}
    size = next(iter(tiles.values())).shape[0]
    side = min(size, _LIGHT_SIDE)

    def reduce(tile: np.ndarray) -> np.ndarray:
        return np.asarray(cv2.resize(tile.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA))

    cell, nucleus = (reduce(fit(square(outline.astype(np.uint8) * 255), size, enlarge)) > 127 for outline in outlines)
    length = max(outlines[0].shape)
    width = length if enlarge else max(length, size)
    return describe_light(
        {colour: reduce(tile) for colour, tile in tiles.items()}, cell, nucleus, pixel_size * width / side
    )


def measure_shard(
    cells: Path,
    fields: Path,
    segmentation: Path,
    tiles: Mapping[str, Path],
    out: Path,
    channels: Sequence[str],
    input_size: int,
    batch_size: int = 64,
    gpu: str = "auto",
    threads: int | None = None,
    enlarge: bool = True,
) -> None:
    """Measure every cell of a shard for the baselines, and write the table ``out``, atomically.

    A row per cell, in the order of the table of cells: field, cell, ``measures`` (``columns.describe_shape_and_light``,
    then ``light.describe_light`` if green is among the channels, float32) and ``outputs`` (of ``frozen_network``,
    float16).

    cells, fields: the tables of the shard
    segmentation: the folder of its masks
    tiles: the TFRecord of each colour
    channels, input_size: as the network takes tiles
    enlarge: as in ``tiles.tile_field``

    Raises TableError if tiles or masks are not those of the cells, MaskError, NoGpuError.
    """
    select_device(gpu, threads)
    forward = _frozen_outputs(tuple(channels), input_size)
    table = read_cells([cells])
    described = describe_shape_and_light(table, read_fields([fields]))
    paths = {colour: [str(tiles[colour])] for colour in channels}
    outputs: list[np.ndarray] = []
    ids: list[tuple[str, int]] = []
    for batch in tile_dataset(paths, channels, input_size).batch(batch_size).prefetch(tf.data.AUTOTUNE):
        ids += zip((name.decode() for name in batch["field"].numpy()), batch["cell"].numpy().tolist(), strict=True)
        outputs.append(forward(tf.cast(batch["image"], tf.float32)).numpy().astype(np.float16))
    if ids != list(zip(table["field"], table["cell"].tolist(), strict=True)):
        raise TableError(f"the tiles of {next(iter(tiles.values()))} are not those of the cells in {cells}")
    if "green" in channels:
        cores = threads or os.cpu_count() or 1
        light = describe_cells(table, segmentation, tiles, channels, enlarge, cores)
        described = np.concatenate([described, light], axis=1)
    measures = described.astype(np.float32)
    columns = {"measures": measures, "outputs": np.concatenate(outputs) if outputs else np.zeros((0, 512), np.float16)}
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        for name, values in columns.items()
    }
    write_table(out, pa.table({"field": pa.array(table["field"], pa.string()), "cell": table["cell"], **lists}))
    log.info("%d cells measured for the baselines", len(table))
