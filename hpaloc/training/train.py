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
import tensorflow as tf

import hpaloc
from hpaloc.classes import NAMES
from hpaloc.files import atomic_directory, digest
from hpaloc.network.device import choose_precision, precision_policy, select_device
from hpaloc.network.folder import write_checksums
from hpaloc.network.inference import averaged
from hpaloc.network.options import LEVELS_EDITION
from hpaloc.network.resnet import classifier
from hpaloc.network.starting_weights import load_weights
from hpaloc.records import training_dataset
from hpaloc.training.class_weights import class_weights, label_counts, weighted
from hpaloc.training.decision import VALIDATION_VIEWS, fit_decision
from hpaloc.training.fit import fit
from hpaloc.training.parts import judged_examples, read_parts
from hpaloc.training.settings import TrainSettings
from hpaloc.version import room_version

log = logging.getLogger("hpaloc")


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
    validates), config.json, thresholds.json, judged.npy (the probabilities of the cells to which thresholds were
    fitted, (n, 19) float32, in the order of ``parts.judged_examples``), history.csv, checksums.json and logs/
    (TensorBoard, last.weights.h5).
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
    _write_folder(out_dir, network, config, decision, probabilities, work_dir)
    shutil.rmtree(work_dir)


def predict_examples(network: keras.Model, cells: tf.data.Dataset, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (n, 19) float32 and the labels (n, 19) of examples, as ``predict`` would make them."""
    forward = averaged(network, VALIDATION_VIEWS)
    outputs, truths = [], []
    for images, labels, _ in cells.batch(batch_size):
        outputs.append(forward(images)[0].numpy())
        truths.append(labels.numpy())
    return np.concatenate(outputs), np.concatenate(truths)


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
    out_dir: Path,
    network: keras.Model,
    config: Mapping[str, Any],
    decision: Mapping[str, Any],
    probabilities: np.ndarray,
    work_dir: Path,
) -> None:
    with atomic_directory(out_dir) as folder:
        network.save(folder / "model.keras")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "thresholds.json").write_text(json.dumps(decision, indent=2) + "\n")
        np.save(folder / "judged.npy", probabilities)
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
