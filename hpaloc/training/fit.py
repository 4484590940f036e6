"""The fit of a network to examples, which a kill sets back by one epoch at most."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hpaloc.training.augmentation import Augmentation
from hpaloc.training.cache import kept_examples
from hpaloc.training.callbacks import Backup, BestWeights, EpochStart, HistoryLog, StatisticsRenewal
from hpaloc.training.epochs import RestartableEpochs
from hpaloc.training.optimiser import FusedAdam
from hpaloc.training.scores import Accuracy, BalancedAccuracy, MacroAUC
from hpaloc.training.settings import TrainingError, TrainSettings

log = logging.getLogger("hpaloc")

# Batches with which the training step is timed with and without XLA.
XLA_STEPS = 20
# Batches from which the batch norm statistics are estimated before each validation.
STATISTICS_BATCHES = 16


def fit(
    network: keras.Model,
    train: tf.data.Dataset,
    validation: tf.data.Dataset | None,
    counts: tuple[int, int],
    settings: TrainSettings,
    seed: int,
    work_dir: Path,
    memory_mb: float = 8000,
    scratch: Path | None = None,
) -> None:
    """Train a classifier in place, to the weights of its best epoch, or of the last without ``validation``.

    With ``averaging`` above 0, the weights that validate and are saved are the running mean over the steps with this
    momentum.

    train, validation: yield (image (S, S, c) uint8, label (19,) float32, weight float32)
    counts: how many examples each of them yields
    work_dir: has what a later call needs to continue after a kill (backup/, best.weights.h5), and finally
        last.weights.h5, history.csv and TensorBoard's logs/
    memory_mb, scratch: the memory of the job and the folder for decoded tiles that it cannot hold, as in
        ``cache.kept_examples``

    Raises TrainingError if loss or weights are no longer finite.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    # With 0, tf.data could not draw the order of an epoch from a seed that is a tensor.
    tf.random.set_seed(seed + 1)
    parts = [train] if validation is None else [train, validation]
    tile_bytes = math.prod(network.input_shape[1:])
    kept = kept_examples(parts, counts[: len(parts)], tile_bytes, memory_mb, scratch, str(work_dir.resolve()))
    with kept as (readers, in_memory):
        # Examples that do not fill a batch are dropped.
        batch_size = _shared_batch_size(min(settings.batch_size, counts[0]), 0)
        epochs = RestartableEpochs(readers[0], counts[0], batch_size, seed)
        if validation is not None:
            size = _shared_batch_size(min(max(settings.batch_size, 64), counts[1]), counts[1])
            validation = readers[1]().batch(size).prefetch(tf.data.AUTOTUNE)
        plain = readers[0]().map(lambda image, label, weight: image).batch(epochs.batch_size, drop_remainder=True)
        # The first pass fills the memory; a part is enough to measure.
        _log_pipeline(epochs.batches if in_memory else epochs.batches.take(50))
        _fit(network, epochs, validation, plain.take(STATISTICS_BATCHES), settings, seed, work_dir)
    network.save_weights(work_dir / "last.weights.h5")
    if validation is not None:
        network.load_weights(work_dir / "best.weights.h5")
    # A loss can hide this: nan may become 0 after a relu.
    if not all(np.isfinite(array).all() for array in network.get_weights()):
        raise TrainingError("the weights are not finite after the training; lower train.learning_rate.max")


def _fit(
    network: keras.Model,
    epochs: RestartableEpochs,
    validation: tf.data.Dataset | None,
    plain: tf.data.Dataset,
    settings: TrainSettings,
    seed: int,
    work_dir: Path,
) -> None:
    """Train on the batches of the epochs; the batch norm statistics of the network are those of ``plain``."""
    rate = settings.learning_rate.at
    trainer, random = _trainer(network, settings, seed)
    xla = settings.xla is True
    if settings.xla == "auto" and tf.config.get_visible_devices("GPU"):
        xla = is_faster_with_xla(trainer, settings, epochs.batches)
    _compile(trainer, settings, rate(0), xla)
    history = HistoryLog(work_dir / "history.csv", rate, epochs.steps * epochs.batch_size)
    statistics = StatisticsRenewal(network, plain)
    best = [] if validation is None else [BestWeights(network, work_dir / "best.weights.h5", history)]
    trainer.fit(
        epochs.batches,
        validation_data=validation,
        epochs=settings.epochs,
        verbose=0,
        shuffle=False,
        callbacks=[
            # First, so that the backup finds both sets of weights restored, and all that judges or saves the mean.
            *([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if settings.averaging else []),
            Backup(work_dir / "backup"),
            EpochStart(rate, epochs, random, seed),
            statistics,
            history,
            *best,
            keras.callbacks.TensorBoard(work_dir / "logs", write_graph=False),
        ],
    )
    if validation is None:
        statistics.renew(plain)


def _shared_batch_size(most: int, count: int) -> int:
    """Return the size, at most ``most``, of the batches of ``count`` cells that the devices share."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    # Keras averages over the devices, so each needs an equal part of the first batch, and in the last batch of
    # ``count`` cells each needs a cell.
    for size in range(most - most % replicas, 0, -replicas):
        rest = count % size
        if not rest or rest > -(-rest // replicas) * (replicas - 1):
            return size
    return most


def _trainer(network: keras.Model, settings: TrainSettings, seed: int) -> tuple[keras.Model, list[Any]]:
    """Return the network after its augmentation, and the generators of its random layers."""
    augmentation = Augmentation(settings, seed)
    inputs = keras.Input(network.input_shape[1:], name="tile")
    trainer = keras.Model(inputs, network(augmentation(inputs)), name="trainer")
    # A rate of 0 draws nothing.
    dropout = [layer for layer in network.layers if isinstance(layer, keras.layers.Dropout) and layer.rate]
    return trainer, [layer.seed_generator for layer in (augmentation, *dropout)]


def _compile(trainer: keras.Model, settings: TrainSettings, rate: float, xla: bool) -> None:
    """Compile the trainer, with an optimiser that has seen nothing."""
    loss = keras.losses.BinaryCrossentropy() if settings.head == "sigmoid" else keras.losses.CategoricalCrossentropy()
    trainer.compile(
        FusedAdam(rate, use_ema=settings.averaging > 0, ema_momentum=settings.averaging),
        loss,
        metrics=[Accuracy(), BalancedAccuracy(), MacroAUC()],
        # On a CPU, XLA takes more than twice the time for this network.
        jit_compile=xla,
    )
    # Within the first step, TensorFlow would trace that step twice to make these variables.
    trainer.optimizer.build(trainer.trainable_variables)


def is_faster_with_xla(trainer: keras.Model, settings: TrainSettings, batches: tf.data.Dataset) -> bool:
    """Return whether steps on the first batches are faster with XLA, and log both rates.

    The weights are the same afterwards; the optimiser is to be compiled again. If XLA fails, the answer is no.
    """
    weights = trainer.get_weights()
    first = batches.take(XLA_STEPS).cache()
    images = sum(len(labels) for _, labels, _ in first)
    rates = []
    for xla in (False, True):
        _compile(trainer, settings, 0.0, xla)
        try:
            # The first pass compiles.
            for _ in range(2):
                start = time.monotonic()
                trainer.fit(first, verbose=0, shuffle=False)
            rates.append(images / (time.monotonic() - start))
        except tf.errors.OpError as error:
            log.warning("XLA: off, since it failed: %s", str(error).splitlines()[0])
            rates.append(0.0)
        trainer.set_weights(weights)
    without, with_xla = rates
    chosen = "on" if with_xla > without else "off"
    log.info("XLA: %s; the first steps: %.0f images/s with it, %.0f without", chosen, with_xla, without)
    return with_xla > without


def _log_pipeline(batches: tf.data.Dataset) -> None:
    """Log the examples per second of the input pipeline alone."""
    start, seen = time.monotonic(), 0
    for _, labels, _ in batches:
        seen += len(labels)
    log.info("input pipeline alone, first pass: %.0f examples/s", seen / (time.monotonic() - start))
