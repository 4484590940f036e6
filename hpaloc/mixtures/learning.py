"""Learning to read mixtures from blends of training cells, after the training of the network."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import tensorflow as tf
from sklearn.linear_model import Ridge

from hpaloc.classes import NAMES, NEGATIVE, class_prototypes
from hpaloc.examples import LABEL_COLUMNS
from hpaloc.mixtures.blends import blendable_shape, draw_blends
from hpaloc.mixtures.light import measure_light
from hpaloc.mixtures.reading import cell_outputs, read_mixtures, write_reading
from hpaloc.mixtures.shape import CellShape
from hpaloc.network.device import choose_precision, precision_policy, select_device
from hpaloc.network.inference import averaged
from hpaloc.network.loading import load_folder
from hpaloc.progress import log, track
from hpaloc.records import training_dataset

# About this many training cells, equally many of each class, are blended.
BLENDED_CELLS = 2048
BLENDS_AT_ONCE = 1024
_RIDGE = 10.0


class BlendError(ValueError):
    """The training cells cannot be blended; the message names the setting."""


def learn_mixtures(
    model_dir: Path,
    part_dir: Path,
    examples: Path,
    blends: int,
    seed: int,
    batch_size: int = 64,
    precision: str = "auto",
    gpu: str = "auto",
    threads: int | None = None,
) -> None:
    """Learn to read mixtures from blends of training cells, and write the reading into the model folder.

    A class without a cell that can be blended is not read, and is logged.

    part_dir: ``results/dataset/train``
    examples: its table
    blends: how many are drawn; each is predicted in one view

    Raises BlendError if the cells of fewer than two locations can be blended, ModelError for a folder that was changed,
    NoGpuError.
    """
    select_device(gpu, threads)
    with precision_policy(choose_precision(precision)):
        model, config, decision = load_folder(model_dir)
        # A blend is already rotated at random and needs one view; cells are predicted as `predict` does.
        predict = {views: averaged(model, views) for views in (1, decision["views"])}
    channels, workers = config["channels"], threads or os.cpu_count() or 1
    table = pq.read_table(examples, columns=["part", *LABEL_COLUMNS]).to_pandas()
    cells = training_dataset(part_dir, examples, channels, config["input_size"])
    tiles, labels, shapes = _cells_to_blend(cells, table[table["part"] == Path(part_dir).name], channels)

    def outputs(images: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray]:
        batches = (images[i : i + batch_size] for i in range(0, len(images), batch_size))
        probabilities = [predict[views](batch)[0].numpy() for batch in batches]
        return np.concatenate(probabilities), measure_light(images, channels, workers)

    # Drawn and measured in parts, so that their number takes time and no memory.
    parts = []
    for first in track(range(0, blends, BLENDS_AT_ONCE), what="parts of the blends"):
        count = min(BLENDS_AT_ONCE, blends - first)
        made, fractions = draw_blends(tiles, shapes, labels.argmax(axis=1), channels, count, (seed, first), workers)
        if len(made):
            parts.append((*outputs(made, 1), fractions))
    drawn = sum(len(part[-1]) for part in parts)
    log.info("mixtures: %d of %d blends drawn", drawn, blends)
    if not drawn:
        raise BlendError("train.blends: no light of a cell falls into another")
    parts.append((*outputs(tiles, decision["views"]), labels))
    probabilities, light, known = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    write_reading(Path(model_dir), learn_reading(probabilities, light, known, len(tiles)))


def _cells_to_blend(
    cells: tf.data.Dataset, examples: pd.DataFrame, channels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, list[CellShape]]:
    """Choose cells of one location each; return their tiles (n, S, S, c) uint8, labels (n, 19) float32 and shapes.

    ``examples`` is the table of cells. Raises BlendError if they have fewer than two locations.
    """
    counts = _counts_alone(examples)
    if (counts > 0).sum() < 2:
        raise BlendError("train.blends: blending needs cells of one location alone, from at least two locations")
    # All cells of a rare class: otherwise its blends would be of a handful of cells.
    wanted = np.minimum(counts, BLENDED_CELLS // (counts > 0).sum())
    to_come = counts.copy()
    tiles, labels, shapes = [], [], []
    for image, label, _ in track(cells, len(examples), "cells checked for blends"):
        if not (wanted * to_come).any():
            break
        index = int(np.argmax(label))
        if np.sum(label) != 1 or index == NEGATIVE:
            continue
        to_come[index] -= 1
        if wanted[index]:
            tile = image.numpy()
            if (shape := blendable_shape(tile, channels)) is not None:
                wanted[index] -= 1
                tiles.append(tile)
                labels.append(label.numpy())
                shapes.append(shape)
    single = {int(label.argmax()) for label in labels}
    if len(single) < 2:
        raise BlendError("train.blends: fewer than two locations have a cell with a nucleus and green light")
    log.info("mixtures: blends of %d cells", len(tiles))
    if lacking := [NAMES[index] for index in np.flatnonzero(counts) if index not in single]:
        log.warning(
            "mixtures: fractions of %s are not read: no cell of that location alone has a nucleus and green light",
            ", ".join(lacking),
        )
    return np.stack(tiles), np.stack(labels), shapes


def _counts_alone(examples: pd.DataFrame) -> np.ndarray:
    """Return (19,) how many examples have each location alone; Negative, which is not a location, counts as 0."""
    labels = examples[list(LABEL_COLUMNS)].to_numpy(np.int64)
    counts = np.asarray(labels[labels.sum(axis=1) == 1].sum(axis=0))
    counts[NEGATIVE] = 0
    return counts


def learn_reading(probabilities: np.ndarray, light: np.ndarray, fractions: np.ndarray, pure: int) -> dict[str, Any]:
    """Regress the fractions of blends on probabilities and ``light_features``, by ridge regression.

    probabilities: (n, 19) float
    light: (n, d) float
    fractions: (n, 19) float
    pure: how many of the last rows are unblended cells; they are not fitted, since they trained the network, but their
        mean reading is the prototype of their class

    Returns the content of mixtures.json: names of the classes, mean and scale of the outputs, coefficients, intercept,
    and prototypes, the (19,) reading of each class.
    """
    count = len(fractions) - pure
    classes = np.flatnonzero(fractions[:count].any(axis=0))
    outputs = cell_outputs(probabilities, light, classes.tolist())[:count]
    mean, scale = outputs.mean(axis=0), outputs.std(axis=0)
    scale[scale == 0] = 1.0
    ridge = Ridge(_RIDGE).fit((outputs - mean) / scale, fractions[:count, classes])
    reading: dict[str, Any] = {
        "classes": [NAMES[index] for index in classes],
        "blends": count,
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "coefficients": np.reshape(ridge.coef_, (len(classes), -1)).tolist(),
        "intercept": np.reshape(ridge.intercept_, -1).tolist(),
    }
    read = read_mixtures(reading, probabilities[count:], light[count:])
    prototypes = class_prototypes(read, fractions[count:].argmax(axis=1))
    reading["prototypes"] = {
        name: None if np.isnan(row).any() else row.tolist() for name, row in zip(NAMES, prototypes, strict=True)
    }
    return reading
