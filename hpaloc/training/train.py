"""A training, from the table of examples to the model folder."""

import hashlib
import json
import logging
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import tensorflow as tf

import hpaloc
from hpaloc.classes import NAMES
from hpaloc.examples import LABEL_COLUMNS
from hpaloc.files import atomic_directory, digest
from hpaloc.network.device import choose_precision, precision_policy, select_device
from hpaloc.network.folder import write_checksums
from hpaloc.network.options import LEVELS_EDITION
from hpaloc.network.resnet import classifier
from hpaloc.network.starting_weights import load_weights
from hpaloc.records import training_dataset
from hpaloc.training.callbacks import TrainingError
from hpaloc.training.class_weights import class_weights, label_counts, weighted
from hpaloc.training.decision import fit_decision, predict_examples
from hpaloc.training.fit import fit
from hpaloc.training.settings import TrainSettings
from hpaloc.version import room_version

log = logging.getLogger("hpaloc")

# If no cell validates, the first this many training cells, whose order is random, are scored instead.
JUDGED_TRAINING_CELLS = 1024


def train_model(
    dataset_dir: Path,
    examples: Path,
    out_dir: Path,
    settings: TrainSettings,
    seed: int,
    threads: int | None = None,
    tiles: Mapping[str, Any] | None = None,
    memory_mb: float = 8000,
    scratch: Path | None = None,
) -> None:
    """Train a classifier and write the model folder ``out_dir``.

    The folder gets model.keras (weights of the epoch with the lowest validation loss, or of the last epoch if no cell
    validates), config.json, thresholds.json, history.csv, checksums.json and logs/ (TensorBoard, last.weights.h5).
    ``out_dir`` + .work keeps epochs, so that a killed call continues, and is removed at the end.

    dataset_dir: has the folders train and validation of TFRecords
    examples: their table
    tiles: the section of the configuration by which the tiles were cut, recorded in the folder
    memory_mb, scratch: the memory of the job and the folder for decoded tiles that it cannot hold

    Raises TrainingError for data that cannot be trained on, NoGpuError, ModelError.
    """
    strategy, device = select_device(settings.gpu, threads, settings.gpus, settings.precision, settings.batch_size)
    policy = choose_precision(settings.precision)
    log.info("seed: %d", seed)
    keras.utils.set_random_seed(seed)
    parts = read_parts(examples, settings.head)
    counts = {part: len(rows) for part, rows in parts.items()}
    weights = class_weights(label_counts(parts["train"]), settings.class_weight_m)
    datasets = {
        part: training_dataset(Path(dataset_dir) / part, examples, settings.channels, settings.input_size)
        for part in parts
        if counts[part]
    }
    work_dir = Path(f"{Path(out_dir)}.work")
    _keep_if_same(work_dir, settings, seed, examples, dataset_dir)
    with precision_policy(policy), strategy.scope():
        network = classifier(settings.channels, settings.head, settings.input_size, settings.dropout)
        load_weights(network, settings.channels, settings.weights)
        fit(
            network,
            weighted(datasets["train"], weights),
            weighted(datasets["validation"], weights) if counts["validation"] else None,
            (counts["train"], counts["validation"]),
            settings,
            seed,
            work_dir,
            memory_mb,
            scratch,
        )
        judged, rows = judged_examples(parts)
        probabilities, labels = predict_examples(network, datasets[judged].take(len(rows)), settings.batch_size)
    decision, scores = fit_decision(probabilities, labels, rows, settings.head, judged)
    config = {
        **_network_settings(settings, network, tiles),
        "scores": {"part": judged, "cells": decision["cells"]} | scores,
        "precision": policy,
        "device": device,
        "seed": seed,
        **_training_record(settings, parts, weights, pd.read_csv(work_dir / "history.csv")),
    }
    _write_folder(out_dir, network, config, decision, work_dir)
    shutil.rmtree(work_dir)


def read_parts(examples: Path, head: str) -> dict[str, pd.DataFrame]:
    """Return the examples that train and those that validate, in the order of the record files.

    Raises TrainingError if they cannot be trained on.
    """
    columns = ["part", "field", "cell", "origin", "record_shard", "position", *LABEL_COLUMNS]
    table = pq.read_table(examples, columns=columns).to_pandas().sort_values(["record_shard", "position"])
    parts = {part: table[table["part"] == part] for part in ("train", "validation")}
    if parts["train"].empty:
        raise TrainingError(f"{examples}: there is no example of the part train")
    if head == "softmax" and (table[list(LABEL_COLUMNS)].sum(axis=1) != 1).any():
        raise TrainingError(
            "train.head: softmax needs exactly one location a cell; use sigmoid, or labels: single in the curation"
        )
    log.info("%d training cells, %d validation cells", len(parts["train"]), len(parts["validation"]))
    if parts["validation"].empty:
        log.warning(
            "no cell validates: every epoch runs, the last is kept, and thresholds are fitted on training cells"
        )
    return parts


def judged_examples(parts: Mapping[str, pd.DataFrame]) -> tuple[str, pd.DataFrame]:
    """Return the part to which a decision is fitted, and its examples: the first that train if no cell validates.

    parts: from ``read_parts``
    """
    if parts["validation"].empty:
        return "train", parts["train"][:JUDGED_TRAINING_CELLS]
    return "validation", parts["validation"]


def _keep_if_same(work_dir: Path, settings: TrainSettings, seed: int, examples: Path, dataset_dir: Path) -> None:
    """Empty ``work_dir`` unless it is of the same training.

    Training would continue from epochs of other settings, code, starting weights, examples or tiles; with another
    split, cells that trained then would validate now.
    """
    parts = [json.dumps(asdict(settings), sort_keys=True), str(seed), digest(examples), room_version("training.train")]
    if Path(settings.weights).is_file():
        parts.append(digest(settings.weights))
    # New tiles can have the same examples. Sizes and times are compared, since a digest would read all tiles.
    for path in sorted(Path(dataset_dir).glob("*/*.tfrecord")):
        found = path.stat()
        parts.append(f"{path.parent.name}/{path.name}:{found.st_size}:{found.st_mtime_ns}")
    fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    note = work_dir / "fingerprint.txt"
    if work_dir.exists() and not (note.is_file() and note.read_text() == fingerprint):
        log.info("starting again: the epochs in %s are of another training", work_dir)
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    note.write_text(fingerprint)


def _write_folder(
    out_dir: Path, network: keras.Model, config: Mapping[str, Any], decision: Mapping[str, Any], work_dir: Path
) -> None:
    with atomic_directory(out_dir) as folder:
        network.save(folder / "model.keras")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "thresholds.json").write_text(json.dumps(decision, indent=2) + "\n")
        shutil.copyfile(work_dir / "history.csv", folder / "history.csv")
        shutil.copytree(work_dir / "logs", folder / "logs")
        shutil.copyfile(work_dir / "last.weights.h5", folder / "logs" / "last.weights.h5")
        write_checksums(folder, ("model.keras", "config.json", "thresholds.json", "history.csv"))


def _network_settings(settings: TrainSettings, network: keras.Model, tiles: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the part of config.json about the network and its tiles."""
    return {
        "network": "ResNet-50",
        "channels": list(settings.channels),
        "head": settings.head,
        "input_size": settings.input_size,
        "units": network.get_layer("embedding").units,
        "dropout": list(settings.dropout),
        "classes": list(NAMES),
        "preprocessing": {
            "tile": "bounding box of the cell, padded with zeros to a square",
            "tiles": dict(tiles or {}),
            "levels": LEVELS_EDITION,
            "scale": "from background to three times white of field and colour, clipped to 0..1, times 255, rounded",
            "resize": "bilinear, antialiased, to input_size",
        },
    }


def _training_record(
    settings: TrainSettings, parts: Mapping[str, pd.DataFrame], weights: np.ndarray, history: pd.DataFrame
) -> dict[str, Any]:
    """Return the part of config.json about the training."""
    validated = not parts["validation"].empty
    return {
        "best_epoch": int(history["val_loss"].to_numpy().argmin()) if validated else len(history) - 1,
        "examples": {part: dict(zip(NAMES, label_counts(rows).tolist(), strict=True)) for part, rows in parts.items()},
        "class_weights": {name: round(float(weight), 6) for name, weight in zip(NAMES, weights, strict=True)},
        "train": asdict(settings),
        "versions": {
            "hpaloc": hpaloc.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("keras", "numpy")},
            "tensorflow": tf.__version__,
        },
    }
