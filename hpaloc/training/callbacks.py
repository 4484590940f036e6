"""Callbacks of a training: learning rate, backup, history, best weights."""

import csv
import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import pandas as pd
import tensorflow as tf

from hpaloc.files import atomic_directory, atomic_path
from hpaloc.training.epochs import RestartableEpochs
from hpaloc.training.settings import TrainingError
from hpaloc.training.statistics import statistics_renewal

log = logging.getLogger("hpaloc")

PATIENCE = 5
BACKUP_SECONDS = 60.0


class EpochStart(keras.callbacks.Callback):
    """Set learning rate, shuffling and random layers from the number of the epoch."""

    def __init__(
        self, rate: Callable[[int], float], epochs: RestartableEpochs, random: Sequence[Any], seed: int
    ) -> None:
        super().__init__()
        self.rate, self.epochs, self.random, self.seed = rate, epochs, random, seed

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Set learning rate, order of examples and random states of the epoch."""
        self.epochs.epoch = epoch
        self.model.optimizer.learning_rate = self.rate(epoch)
        for number, generator in enumerate(self.random):
            # A generator counts its draws in the second word; each epoch has its own range.
            generator.state.assign([self.seed * 1009 + number, epoch << 20])


class StatisticsRenewal(keras.callbacks.Callback):
    """Renew the batch norm statistics before every validation."""

    def __init__(self, network: keras.Model, images: tf.data.Dataset) -> None:
        super().__init__()
        self.renew, self.images = statistics_renewal(network), images

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Renew the statistics."""
        self.renew(self.images)


class Backup(keras.callbacks.BackupAndRestore):
    """Save what a killed run needs to continue, between two epochs and at most every ``BACKUP_SECONDS``.

    Weights and optimiser state take a second or two to write, which is long for short epochs. Nothing is saved at the
    end of an epoch: a run killed before that epoch is judged would continue without its judgement, or past an early
    stop.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, delete_checkpoint=False)
        self.saved = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save the previous epoch if the last backup is old enough."""
        if time.monotonic() - self.saved >= BACKUP_SECONDS:
            super().on_epoch_end(epoch - 1, logs)
            self.saved = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save nothing: the epoch is not judged yet."""

    def _save_model(self) -> None:
        # Weights and number of the epoch in one step: after a kill between two steps they could differ.
        with atomic_directory(self.backup_dir) as folder:
            self.model.save_weights(folder / Path(self._weights_path).name)
            (folder / Path(self._training_metadata_path).name).write_text(json.dumps({"epoch": self._current_epoch}))


class HistoryLog(keras.callbacks.Callback):
    """Write history.csv, one row per epoch, across restarts; log a line per epoch with the images per second."""

    def __init__(self, path: Path, rate: Callable[[int], float], images: int) -> None:
        super().__init__()
        self.path, self.rate, self.images = path, rate, images
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Read the rows of the epochs before this run."""
        first = self.model._initial_epoch or 0
        if self.path.is_file():
            with open(self.path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < first]
        if first:
            log.info("resuming at epoch %d", first)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Start the clock."""
        self.start = self.trained = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note the time: the last batch ends the training of an epoch."""
        self.trained = time.monotonic()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Note the time at which the validation begins."""
        self.trained = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Add the row of the epoch; raise TrainingError if its loss is not finite."""
        seconds = self.trained - self.start
        row = {"epoch": epoch, "learning_rate": self.rate(epoch)}
        row |= {name: float(value) for name, value in (logs or {}).items()}
        row |= {
            "seconds": round(time.monotonic() - self.start, 3),
            "images_per_second": round(self.images / seconds, 2),
        }
        self.rows.append(row)
        with atomic_path(self.path) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False)
        log.info(
            "epoch %d: %s", epoch, ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
        )
        what, loss = ("validation", row["val_loss"]) if "val_loss" in row else ("training", row["loss"])
        if not math.isfinite(loss):
            raise TrainingError(f"the {what} loss of epoch {epoch} is {loss}; lower train.learning_rate.max")


class BestWeights(keras.callbacks.Callback):
    """Save the weights of the lowest validation loss; stop after ``PATIENCE`` epochs without a lower one."""

    def __init__(self, network: keras.Model, path: Path, history: HistoryLog) -> None:
        super().__init__()
        self.network, self.path, self.history = network, path, history
        self.best, self.best_epoch = math.inf, -1

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Find the best epoch before this run."""
        for row in self.history.rows:
            if float(row["val_loss"]) < self.best:
                self.best, self.best_epoch = float(row["val_loss"]), int(row["epoch"])

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Save the weights if they are better, or stop."""
        loss = (logs or {})["val_loss"]
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch
            # Keras requires this end of the name.
            temporary = self.path.with_name(f"new.{self.path.name}")
            self.network.save_weights(temporary)
            os.replace(temporary, self.path)
        elif epoch - self.best_epoch >= PATIENCE:
            log.info("stopped early: no better validation loss since epoch %d", self.best_epoch)
            self.model.stop_training = True
