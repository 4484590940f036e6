"""Training of the cell classifier: schedule, weights, augmentation, and the model folder that comes out."""

import csv
import hashlib
import json
import logging
import math
import os
import platform
import shutil
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import tensorflow as tf
from sklearn.metrics import f1_score

import hpaloc
from hpaloc.classes import N_CLASSES, NAMES, NEGATIVE, class_prototypes, label_matrix
from hpaloc.files import atomic_directory, atomic_path, digest
from hpaloc.mixtures import blendable_shape, draw_blends, learn_reading, measure_light
from hpaloc.model import (
    NEGATIVE_RULES,
    averaged,
    choose_precision,
    classifier,
    decision_thresholds,
    label_sets,
    load_folder,
    precision_policy,
    receptive_fields,
    select_device,
    settle_negative,
    write_checksums,
)
from hpaloc.progress import track
from hpaloc.records import training_dataset
from hpaloc.tables import LABEL_COLUMNS
from hpaloc.version import room_version

log = logging.getLogger("hpaloc")

PATIENCE = 5
BRIGHTNESS = 0.1
CONTRAST = 0.15
# Tiles that fit into this many bytes after decoding are kept in memory from the first epoch on.
CACHE_BYTES = 4 << 30
SHUFFLE_BUFFER = 8192
# Batches from which the batch norm statistics are estimated anew before each validation.
STATISTICS_BATCHES = 16
BACKUP_SECONDS = 60.0
DROPOUT = (0.5, 0.25)
# Tiles on which the receptive field is measured.
RECEPTIVE_CELLS = 256
# Thresholds are fitted on probabilities made as `predict` makes them.
VALIDATION_VIEWS = 8
# Where no cell validates, this many training cells, in random order as they lie, say enough for what they can tell.
JUDGED_TRAINING_CELLS = 1024
# About so many training cells, as many of each class, are those that are blended.
BLENDED_CELLS = 2048
BLENDS_AT_ONCE = 1024


class TrainingError(ValueError):
    """Training cannot start or go on; the message names the setting or the data."""


def learning_rate(
    epoch: int,
    start: float = 0.0005,
    max: float = 0.0011,
    min: float = 0.0005,
    ramp_epochs: int = 3,
    sustain_epochs: int = 2,
    decay: float = 0.75,
) -> float:
    """Return the learning rate of an epoch counted from 0.

    It runs linearly from ``start`` to ``max``, stays there for ``sustain_epochs`` and then decays by the factor
    ``decay`` an epoch towards ``min``; docs/model.md, "Training".
    """
    if epoch < ramp_epochs:
        return start + (max - start) * epoch / ramp_epochs
    if epoch < ramp_epochs + sustain_epochs:
        return max
    return (max - min) * decay ** (epoch - ramp_epochs - sustain_epochs) + min


def class_weights(counts: Sequence[int] | np.ndarray, m: float) -> np.ndarray:
    """Return the float32 weight of each class: min(1, m·n₂/n_c) of its count n_c, the rarest class 1.

    n₂ is the second-smallest of the counts above 0 (docs/model.md, "Training"); a class without an example, or alone,
    has weight 1.
    """
    counts = np.asarray(counts, float)
    present = np.sort(counts[counts > 0])
    if len(present) < 2:
        return np.ones(len(counts), np.float32)
    weights = np.minimum(1.0, m * present[1] / np.maximum(counts, 1.0))
    weights[counts == present[0]] = 1.0
    return weights.astype(np.float32)


def weighted(examples: tf.data.Dataset, weights: np.ndarray) -> tf.data.Dataset:
    """Multiply the weight of each example (image, label (19,), weight) by that of its class, ``weights`` (19,) float32.

    A cell of several locations counts by the one that is to be held up most.
    """
    return examples.map(lambda image, label, weight: (image, label, weight * tf.reduce_max(label * weights)))


@keras.saving.register_keras_serializable(package="hpaloc")
class Augmentation(keras.layers.Layer):
    """Turn, mirror and relight each tile of a batch (n, S, S, colours) 0..255, when training.

    One of the 8 dihedral views at random; then, for every colour on its own, contrast times 1 ± ``contrast`` around the
    mean of the tile, and ± ``brightness`` of full scale; the method's ranges are in docs/model.md. Beyond them, for few
    cells: ``rotation`` turns by any angle, ``zoom`` z scales by e^-z to e^z, ``gain`` g multiplies each colour by e^-g
    to e^g, uniform in the exponent. What comes in from outside the tile is black, as the padding is.
    """

    def __init__(
        self,
        brightness: float = BRIGHTNESS,
        contrast: float = CONTRAST,
        rotation: bool = False,
        zoom: float = 0.0,
        gain: float = 0.0,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        settings.setdefault("dtype", "float32")
        super().__init__(**settings)
        self.brightness, self.contrast = brightness, contrast
        self.rotation, self.zoom, self.gain = rotation, zoom, gain
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Return the views in the type and shape of ``images``."""
        if not training:
            return images
        count, colours = tf.shape(images)[0], images.shape[-1]
        draws = tf.random.stateless_uniform([3, count, 1, 1, 1], tf.cast(self.seed_generator.next(), tf.int32))
        images = tf.where(draws[0] < 0.5, tf.reverse(images, [1]), images)
        images = tf.where(draws[1] < 0.5, tf.reverse(images, [2]), images)
        images = tf.where(draws[2] < 0.5, tf.transpose(images, [0, 2, 1, 3]), images)
        if self.rotation or self.zoom:
            draws = tf.random.stateless_uniform([2, count], tf.cast(self.seed_generator.next(), tf.int32))
            images = _turned(
                images, float(self.rotation) * math.pi / 2 * draws[0], tf.exp(self.zoom * (2.0 * draws[1] - 1.0))
            )
        if self.gain:
            draws = tf.random.stateless_uniform(
                [count, 1, 1, colours], tf.cast(self.seed_generator.next(), tf.int32), -self.gain, self.gain
            )
            images *= tf.exp(draws)
        draws = tf.random.stateless_uniform([2, count, 1, 1, colours], tf.cast(self.seed_generator.next(), tf.int32))
        mean = tf.reduce_mean(images, [1, 2], keepdims=True)
        images = mean + (images - mean) * (1.0 + self.contrast * (2.0 * draws[0] - 1.0))
        images += 255.0 * self.brightness * (2.0 * draws[1] - 1.0)
        return tf.clip_by_value(images, 0.0, 255.0)


def _turned(images: Any, angle: Any, scale: Any) -> Any:
    """Turn each image (n, S, S, c) by its angle in radians and enlarge it by its scale, both (n,), about its centre."""
    size = images.shape[1]
    centre = (size - 1) / 2.0
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    zero = tf.zeros_like(cosine)
    transforms = tf.stack(
        [
            *(cosine, -sine, centre - centre * (cosine - sine)),
            *(sine, cosine, centre - centre * (sine + cosine)),
            *(zero, zero),
        ],
        axis=1,
    )
    return keras.ops.image.affine_transform(images, transforms, interpolation="bilinear", fill_mode="constant")


@keras.saving.register_keras_serializable(package="hpaloc")
class FusedAdam(keras.optimizers.Adam):
    """Adam by TensorFlow's one kernel per variable.

    The numbers are those of `keras.optimizers.Adam`, whose update passes over the weights a dozen times; at batch
    32 that is a good part of a step on a CPU.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Apply one gradient to one variable."""
        step = tf.cast(self.iterations + 1, tf.float32)
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


class _Counts(keras.metrics.Metric):
    """A metric that is a function of one table of counts, summed over batches."""

    def __init__(self, shape: tuple[int, ...], name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.counts = self.add_variable(shape, initializer="zeros", name="counts", dtype="float32", aggregation="sum")

    @abstractmethod
    def table(self, labels: Any, probabilities: Any) -> Any:
        """Return the counts of one batch, of the shape given above, from (n, 19) labels and probabilities."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch; weights are left aside, since a score should speak of cells."""
        self.counts.assign_add(self.table(tf.cast(y_true, tf.float32), tf.cast(y_pred, tf.float32)))


class BalancedAccuracy(_Counts):
    """Mean over the classes present of the share of cells found, over cells of exactly one location."""

    def __init__(self, name: str = "balanced_accuracy") -> None:
        super().__init__((2, N_CLASSES), name)

    def table(self, labels: Any, probabilities: Any) -> Any:
        """Return (2, 19): of the cells of exactly one location, those found and all, by class."""
        single = tf.reduce_sum(labels, 1, keepdims=True) == 1.0
        labels = tf.one_hot(tf.argmax(labels, 1), N_CLASSES) * tf.cast(single, tf.float32)
        hit = tf.cast(tf.argmax(labels, 1) == tf.argmax(probabilities, 1), tf.float32)
        return tf.stack([tf.reduce_sum(labels * hit[:, None], 0), tf.reduce_sum(labels, 0)])

    def result(self) -> Any:
        """Return the mean over the classes present of the share found."""
        hits, cells = tf.unstack(tf.convert_to_tensor(self.counts))
        return tf.math.divide_no_nan(
            tf.reduce_sum(tf.math.divide_no_nan(hits, cells)), tf.reduce_sum(tf.cast(cells > 0, tf.float32))
        )


class Accuracy(BalancedAccuracy):
    """Share of the cells of exactly one location whose likeliest class is that one."""

    def __init__(self, name: str = "accuracy") -> None:
        super().__init__(name)

    def result(self) -> Any:
        """Return the share of all these cells that is found."""
        hits, cells = tf.unstack(tf.convert_to_tensor(self.counts))
        return tf.math.divide_no_nan(tf.reduce_sum(hits), tf.reduce_sum(cells))


class MacroAUC(_Counts):
    """Mean over classes of the area under the ROC curve, from histograms of the log-odds in 400 bins.

    Classes without a positive or without a negative are left out, where `keras.metrics.AUC` counts them as 0.
    Pairs within a bin count half. Agreement with the exact area: about 1e-3.
    """

    BINS = 400

    def __init__(self, name: str = "auc") -> None:
        super().__init__((2, N_CLASSES, self.BINS), name)

    def table(self, labels: Any, probabilities: Any) -> Any:
        """Return (2, 19, 400): cells of the class and other cells in each bin of the log-odds."""
        odds = tf.math.log(tf.clip_by_value(probabilities, 1e-6, 1 - 1e-6))
        odds -= tf.math.log1p(-tf.clip_by_value(probabilities, 1e-6, 1 - 1e-6))
        bins = tf.cast((odds + 14.0) / 28.0 * self.BINS, tf.int32)
        place = tf.one_hot(tf.clip_by_value(bins, 0, self.BINS - 1), self.BINS)
        return tf.stack([tf.einsum("nc,ncb->cb", labels, place), tf.einsum("nc,ncb->cb", 1.0 - labels, place)])

    def result(self) -> Any:
        """Return the mean area over the classes that have both kinds of cells."""
        yes, no = tf.unstack(tf.convert_to_tensor(self.counts))
        wins = tf.reduce_sum(yes * (tf.cumsum(no, 1) - 0.5 * no), 1)
        pairs = tf.reduce_sum(yes, 1) * tf.reduce_sum(no, 1)
        present = tf.reduce_sum(tf.cast(pairs > 0, tf.float32))
        return tf.math.divide_no_nan(tf.reduce_sum(tf.math.divide_no_nan(wins, pairs)), present)


def statistics_renewal(model: keras.Model) -> Callable[[Iterable[Any]], None]:
    """Return a function that sets the moving statistics of every batch norm to those of the batches it is given.

    Moving averages trail the weights, which costs a network trained for few steps much of its accuracy, and the
    batch norms behind dropout learn another variance than they meet later; so images (n, S, S, colours) pass once
    more under the present weights, with dropout off. Mean and variance are those of all batches together. Without a
    batch nothing changes. The function is compiled at its first call and may be used again as training goes on.
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]

    @tf.function(input_signature=[tf.TensorSpec(model.input_shape, tf.float32)])
    def forward(images: Any) -> None:
        # Momentum and rate are read while tracing, so the layers are changed for this graph alone.
        kept = [(norm, "momentum", norm.momentum) for norm in norms] + [(drop, "rate", drop.rate) for drop in drops]
        for layer, name, _ in kept:
            setattr(layer, name, 0.0)
        try:
            model(images, training=True)
        finally:
            for layer, name, value in kept:
                setattr(layer, name, value)

    def renew(batches: Iterable[Any]) -> None:
        sums = [np.zeros((3, norm.moving_mean.shape[0])) for norm in norms]
        seen = 0
        for images in batches:
            forward(tf.cast(images, tf.float32))
            seen += 1
            for total, norm in zip(sums, norms, strict=True):
                mean, variance = np.asarray(norm.moving_mean, float), np.asarray(norm.moving_variance, float)
                total += np.stack([mean, mean**2, variance])
        for total, norm in zip(sums, norms, strict=True) if seen else ():
            mean, square, variance = total / seen
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(variance + np.maximum(square - mean**2, 0.0))

    return renew


class _RestartableEpochs:
    """The training batches, shuffled by seed and epoch alone, so that a resumed run sees what an unbroken one sees."""

    def __init__(
        self,
        examples: tf.data.Dataset,
        count: int,
        batch_size: int,
        seed: int,
        cache: bool,
    ) -> None:
        self.epoch = 0
        self.batch_size = min(batch_size, count)
        examples = examples.cache() if cache else examples
        buffer = count if cache else min(count, SHUFFLE_BUFFER)
        # Asked for the epoch whenever Keras starts to iterate; a seed fixed in the graph would forget it on resuming.
        epochs = tf.data.Dataset.from_generator(
            lambda: iter([self.epoch]), output_signature=tf.TensorSpec((), tf.int64)
        )
        shuffled = epochs.flat_map(
            lambda epoch: examples.shuffle(buffer, seed=seed * 1_000_003 + epoch).batch(
                self.batch_size, drop_remainder=True
            )
        )
        self.plain, self.cached = examples, cache
        self.steps = count // self.batch_size
        self.batches = shuffled.apply(tf.data.experimental.assert_cardinality(self.steps)).prefetch(tf.data.AUTOTUNE)


class _StartOfEpoch(keras.callbacks.Callback):
    """Set learning rate, shuffling and random layers from the number of the epoch."""

    def __init__(
        self, rate: Callable[[int], float], epochs: _RestartableEpochs, random: Sequence[Any], seed: int
    ) -> None:
        super().__init__()
        self.rate, self.epochs, self.random, self.seed = rate, epochs, random, seed

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.epochs.epoch = epoch
        self.model.optimizer.learning_rate = self.rate(epoch)
        for number, generator in enumerate(self.random):
            # A generator counts its draws in the second word; leave each epoch a stretch of its own.
            generator.state.assign([self.seed * 1009 + number, epoch << 20])


class _Statistics(keras.callbacks.Callback):
    """Renew the batch norm statistics before every validation."""

    def __init__(self, network: keras.Model, images: tf.data.Dataset) -> None:
        super().__init__()
        self.renew, self.images = statistics_renewal(network), images

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.renew(self.images)


class _Backup(keras.callbacks.BackupAndRestore):
    """Keep what a killed run needs to go on, between two epochs and not more often than `BACKUP_SECONDS`.

    Weights and optimiser state take a second or two to write, which short epochs would feel. Not as an epoch ends: a
    run killed before that epoch is judged would go on without its judgement, or beyond an early stop.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, delete_checkpoint=False)
        self.saved = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if time.monotonic() - self.saved >= BACKUP_SECONDS:
            super().on_epoch_end(epoch - 1, logs)
            self.saved = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        pass

    def _save_model(self) -> None:
        # Weights and number of the epoch in one step: a kill would leave the weights of one beside another's number.
        with atomic_directory(self.backup_dir) as folder:
            self.model.save_weights(folder / Path(self._weights_path).name)
            (folder / Path(self._training_metadata_path).name).write_text(json.dumps({"epoch": self._current_epoch}))


class _Diary(keras.callbacks.Callback):
    """Keep history.csv, one row an epoch, over restarts; log a line an epoch with the images per second."""

    def __init__(self, path: Path, rate: Callable[[int], float], images: int) -> None:
        super().__init__()
        self.path, self.rate, self.images = path, rate, images
        self.rows: list[dict[str, Any]] = []

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        first = self.model._initial_epoch or 0
        if self.path.is_file():
            with open(self.path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < first]
        if first:
            log.info("resuming at epoch %d", first)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.start = self.trained = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.trained = time.monotonic()

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        self.trained = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
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


class _Best(keras.callbacks.Callback):
    """Keep the weights of the lowest validation loss in a file; stop when it stands still for `PATIENCE` epochs."""

    def __init__(self, network: keras.Model, path: Path, diary: _Diary) -> None:
        super().__init__()
        self.network, self.path, self.diary = network, path, diary
        self.best, self.best_epoch = math.inf, -1

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        for row in self.diary.rows:
            if float(row["val_loss"]) < self.best:
                self.best, self.best_epoch = float(row["val_loss"]), int(row["epoch"])

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        loss = (logs or {})["val_loss"]
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch
            # Keras wants this ending of the name.
            temporary = self.path.with_name(f"new.{self.path.name}")
            self.network.save_weights(temporary)
            os.replace(temporary, self.path)
        elif epoch - self.best_epoch >= PATIENCE:
            log.info("stopped early: no better validation loss since epoch %d", self.best_epoch)
            self.model.stop_training = True


def fit(
    network: keras.Model,
    train: tf.data.Dataset,
    validation: tf.data.Dataset | None,
    counts: tuple[int, int],
    settings: Mapping[str, Any],
    seed: int,
    work_dir: Path,
) -> None:
    """Train a classifier in place, to the weights of its best epoch.

    ``train`` and ``validation`` yield (image (S, S, c) uint8, label (19,) float32, weight float32), ``counts`` how
    many; without ``validation`` the weights are those of the last epoch. Where ``averaging`` is above 0, the weights
    that validate and are kept are the running mean of this momentum over the steps. ``settings`` is the section
    ``train`` of the config. ``work_dir`` keeps what a later call needs to go on after a kill (backup/,
    best.weights.h5), and afterwards last.weights.h5, history.csv and TensorBoard's logs/. Raises TrainingError where
    loss or weights are no longer numbers.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    # Not 0, with which tf.data cannot draw the order of an epoch from a seed that is a tensor.
    tf.random.set_seed(seed + 1)
    size, planes = network.input_shape[1], network.input_shape[3]
    tile_bytes = size * size * planes
    replicas = tf.distribute.get_strategy().num_replicas_in_sync

    def shared(most: int, count: int) -> int:
        # Keras takes the mean of what the devices get of a first batch, which has to be as much each; in the last batch
        # of ``count`` cells none may be without one.
        for size in range(most - most % replicas, 0, -replicas):
            rest = count % size
            if not rest or rest > -(-rest // replicas) * (replicas - 1):
                return size
        return most

    epochs = _RestartableEpochs(
        train,
        counts[0],
        # What a last batch would hold is left out.
        shared(min(settings["batch_size"], counts[0]), 0),
        seed,
        cache=counts[0] * tile_bytes <= CACHE_BYTES,
    )
    if validation is not None:
        validation = validation.cache() if counts[1] * tile_bytes <= CACHE_BYTES / 4 else validation
        validation = validation.batch(shared(min(max(settings["batch_size"], 64), counts[1]), counts[1]))
        validation = validation.prefetch(tf.data.AUTOTUNE)
    plain = epochs.plain.map(lambda image, label, weight: image).batch(epochs.batch_size, drop_remainder=True)
    plain = plain.take(STATISTICS_BATCHES)

    def rate(epoch: int) -> float:
        return learning_rate(epoch, **settings["learning_rate"])

    kinds = ("brightness", "contrast", "rotation", "zoom", "gain")
    augmentation = Augmentation(
        **{kind: settings[kind] for kind in kinds if kind in settings}, seed=seed, name="augmentation"
    )
    inputs = keras.Input(network.input_shape[1:], name="tile")
    trainer = keras.Model(inputs, network(augmentation(inputs)), name="trainer")
    loss = (
        keras.losses.BinaryCrossentropy() if settings["head"] == "sigmoid" else keras.losses.CategoricalCrossentropy()
    )
    averaging = settings.get("averaging", 0.0)
    trainer.compile(
        FusedAdam(rate(0), use_ema=averaging > 0, ema_momentum=averaging),
        loss,
        metrics=[Accuracy(), BalancedAccuracy(), MacroAUC()],
        # On a CPU, XLA more than halves the speed of this network.
        jit_compile=False,
    )
    random = [augmentation.seed_generator]
    # A rate of 0 draws nothing.
    random += [
        layer.seed_generator for layer in network.layers if isinstance(layer, keras.layers.Dropout) and layer.rate
    ]

    start, seen = time.monotonic(), 0
    # The first pass fills the cache; without one, a stretch is enough to measure.
    for _, labels, _ in epochs.batches if epochs.cached else epochs.batches.take(50):
        seen += len(labels)
    log.info("input pipeline alone, first pass: %.0f examples/s", seen / (time.monotonic() - start))

    diary = _Diary(work_dir / "history.csv", rate, epochs.steps * epochs.batch_size)
    statistics = _Statistics(network, plain)
    best = [] if validation is None else [_Best(network, work_dir / "best.weights.h5", diary)]
    trainer.fit(
        epochs.batches,
        validation_data=validation,
        epochs=settings["epochs"],
        verbose=0,
        shuffle=False,
        callbacks=[
            # Before the backup, for which both sets of weights are back in their places, and all that judges or saves.
            *([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if averaging else []),
            _Backup(work_dir / "backup"),
            _StartOfEpoch(rate, epochs, random, seed),
            statistics,
            diary,
            *best,
            keras.callbacks.TensorBoard(work_dir / "logs", write_graph=False),
        ],
    )
    if validation is None:
        statistics.renew(plain)
    network.save_weights(work_dir / "last.weights.h5")
    if validation is not None:
        network.load_weights(work_dir / "best.weights.h5")
    # A loss can hide them: what is not a number may be 0 behind a relu.
    if not all(np.isfinite(array).all() for array in network.get_weights()):
        raise TrainingError("the weights are not finite after the training; lower train.learning_rate.max")


def fit_thresholds(labels: np.ndarray, probabilities: np.ndarray, fewest: int = 5) -> np.ndarray:
    """Return the (19,) float64 threshold of each class that gives the best F1 on (n, 19) labels and probabilities.

    Candidates are the midpoints between neighbouring probabilities; of equally good ones the nearest to 0.5 is
    taken. A class with fewer than ``fewest`` positives or negatives keeps 0.5.
    """
    thresholds = np.full(labels.shape[1], 0.5)
    for index, (truth, scores) in enumerate(zip(labels.T > 0, probabilities.T.astype(float), strict=True)):
        if min(truth.sum(), (~truth).sum()) < fewest:
            continue
        values = np.unique(scores)
        candidates = np.append((values[1:] + values[:-1]) / 2, 0.5)
        below = np.searchsorted(np.sort(scores[truth]), candidates)
        found = truth.sum() - below
        wrong = (~truth).sum() - np.searchsorted(np.sort(scores[~truth]), candidates)
        f1 = 2 * found / (truth.sum() + found + wrong)
        best = candidates[f1 >= f1.max() - 1e-12]
        thresholds[index] = best[np.abs(best - 0.5).argmin()]
    return thresholds


def choose_negative_rule(labels: np.ndarray, probabilities: np.ndarray) -> str:
    """Return the rule for Negative of the best balanced accuracy on (n, 19) labels (0 or 1) and float probabilities.

    Only cells of one label count; ties go to ``complement``, which also stands where no cell is Negative.
    """
    single = labels.sum(axis=1) == 1
    truth = labels[single].argmax(axis=1)
    if not (truth == NEGATIVE).any():
        return "complement"
    scores = {}
    for rule in NEGATIVE_RULES:
        found = settle_negative(probabilities[single], rule).argmax(axis=1) == truth
        scores[rule] = np.mean([found[truth == index].mean() for index in np.unique(truth)])
    return max(NEGATIVE_RULES, key=lambda rule: scores[rule])


def label_counts(examples: pd.DataFrame) -> np.ndarray:
    """Return the (19,) int64 number of examples of each class."""
    return examples[list(LABEL_COLUMNS)].sum().to_numpy(int)


def _keep_if_same(work_dir: Path, settings: Mapping[str, Any], seed: int, examples: Path, dataset_dir: Path) -> None:
    """Empty ``work_dir`` unless what it keeps is of this very training.

    Epochs of other settings, code, starting weights, examples or tiles would be gone on from: with another split, cells
    that trained then would validate now.
    """
    parts = [json.dumps(settings, sort_keys=True), str(seed), digest(examples), room_version("training")]
    if Path(settings["weights"]).is_file():
        parts.append(digest(settings["weights"]))
    # Tiles made anew can have the same examples. Their bytes would take a pass over all of them.
    for path in sorted(Path(dataset_dir).glob("*/*.tfrecord")):
        found = path.stat()
        parts.append(f"{path.parent.name}/{path.name}:{found.st_size}:{found.st_mtime_ns}")
    fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    note = work_dir / "fingerprint.txt"
    if work_dir.exists() and not (note.is_file() and note.read_text() == fingerprint):
        log.info("starting anew: the epochs in %s are of another training", work_dir)
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    note.write_text(fingerprint)


def train_model(
    dataset_dir: Path,
    examples: Path,
    out_dir: Path,
    settings: Mapping[str, Any],
    seed: int,
    work_dir: Path | None = None,
    threads: int | None = None,
    tiles: Mapping[str, Any] | None = None,
) -> None:
    """Train the classifier of the config's section ``train`` and write the model folder ``out_dir``.

    ``dataset_dir`` holds the folders train and validation of TFRecords, ``examples`` is their table; ``tiles``, the
    config's section of how they were cut, is noted in the folder. ``work_dir``
    (default: ``out_dir`` with .work at its end) keeps epochs, so that a killed call goes on where it stopped; it is
    removed at the end. The folder gets model.keras (weights of the epoch of lowest validation loss, or
    of the last where no cell validates), config.json,
    thresholds.json, history.csv, checksums.json, card.md and logs/ (TensorBoard, last.weights.h5). Raises
    TrainingError for data that cannot be trained on, NoGpuError, ModelError.
    """
    strategy, device = select_device(settings["gpu"], threads)
    policy = choose_precision(settings["precision"])
    log.info("precision: %s, seed %d", policy, seed)
    keras.utils.set_random_seed(seed)
    table = pq.read_table(examples, columns=["part", "field", "weight", "origin", *LABEL_COLUMNS]).to_pandas()
    parts = {part: table[table["part"] == part] for part in ("train", "validation")}
    if parts["train"].empty:
        raise TrainingError(f"{examples}: there is no example of the part train")
    if settings["head"] == "softmax" and (table[list(LABEL_COLUMNS)].sum(axis=1) != 1).any():
        raise TrainingError(
            "train.head: softmax needs exactly one location a cell; use sigmoid or curation.labels: single"
        )
    counts = {part: len(rows) for part, rows in parts.items()}
    weights = class_weights(label_counts(parts["train"]), settings["class_weight_m"])
    log.info("%d training cells, %d validation cells", counts["train"], counts["validation"])
    if not counts["validation"]:
        log.warning(
            "no cell validates: every epoch is run, the last is kept, and thresholds are those of training cells"
        )
    datasets = {
        part: training_dataset(Path(dataset_dir) / part, examples, settings["channels"], settings["input_size"])
        for part in parts
        if counts[part]
    }
    # Asked before the training, which may take a day, and not after it.
    if settings.get("blends", 0):
        _check_blends(datasets["train"], parts["train"], settings["channels"])
    work_dir = Path(work_dir or f"{Path(out_dir)}.work")
    _keep_if_same(work_dir, settings, seed, examples, dataset_dir)
    with precision_policy(policy), strategy.scope():
        network = classifier(
            settings["channels"],
            settings["head"],
            settings["input_size"],
            settings["weights"],
            dropout=settings.get("dropout", DROPOUT),
        )
        fit(
            network,
            weighted(datasets["train"], weights),
            weighted(datasets["validation"], weights) if counts["validation"] else None,
            (counts["train"], counts["validation"]),
            settings,
            seed,
            work_dir,
        )
        judged = "validation" if counts["validation"] else "train"
        cells = datasets[judged] if counts["validation"] else datasets["train"].take(JUDGED_TRAINING_CELLS)
        decision, scores = _decide(network, cells, settings, judged)
        if settings.get("blends", 0):
            decision["mixtures"] = _learn_mixtures(network, datasets["train"], parts["train"], settings, seed, threads)
    history = pd.read_csv(work_dir / "history.csv")
    config = {
        "network": "ResNet-50",
        "channels": list(settings["channels"]),
        "head": settings["head"],
        "input_size": settings["input_size"],
        "units": network.get_layer("embedding").units,
        "dropout": list(settings.get("dropout", DROPOUT)),
        "classes": list(NAMES),
        "preprocessing": {
            "tile": "bounding box of the cell, padded with zeros to a square",
            "tiles": dict(tiles or {}),
            "scale": "divided by the white level of the field and colour, clipped to 0..1, times 255, rounded",
            "resize": "bilinear, antialiased, to input_size",
        },
        "scores": {"part": judged, "cells": decision["cells"]} | scores,
        "precision": policy,
        "device": device,
        "seed": seed,
        "best_epoch": int(history["val_loss"].to_numpy().argmin()) if counts["validation"] else len(history) - 1,
        "examples": {part: _by_class(rows) for part, rows in parts.items()},
        "class_weights": {name: round(float(weight), 6) for name, weight in zip(NAMES, weights, strict=True)},
        "train": dict(settings),
        "versions": {
            "hpaloc": hpaloc.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("keras", "numpy")},
            "tensorflow": tf.__version__,
        },
    }
    with atomic_directory(out_dir) as folder:
        network.save(folder / "model.keras")
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "thresholds.json").write_text(json.dumps(decision, indent=2) + "\n")
        shutil.copyfile(work_dir / "history.csv", folder / "history.csv")
        shutil.copytree(work_dir / "logs", folder / "logs")
        shutil.copyfile(work_dir / "last.weights.h5", folder / "logs" / "last.weights.h5")
        (folder / "card.md").write_text(model_card(config, decision, scores, history, parts))
        write_checksums(folder, ("model.keras", "config.json", "thresholds.json", "history.csv", "card.md"))
    shutil.rmtree(work_dir)


def _counts_alone(examples: pd.DataFrame) -> np.ndarray:
    """Return (19,) how many examples have each location alone; Negative, which is none, counts as 0."""
    labels = examples[list(LABEL_COLUMNS)].to_numpy(np.int64)
    counts = np.asarray(labels[labels.sum(axis=1) == 1].sum(axis=0))
    counts[NEGATIVE] = 0
    return counts


def _check_blends(cells: tf.data.Dataset, examples: pd.DataFrame, channels: Sequence[str]) -> None:
    """Raise TrainingError where fewer than two locations have a cell to blend; ``examples`` is the table of cells."""
    if (_counts_alone(examples) > 0).sum() < 2:
        raise TrainingError("train.blends: there are not two locations with cells of their own alone to be blended")
    found: set[int] = set()
    for image, label, _ in cells:
        index = int(np.argmax(label))
        if np.sum(label) == 1 and index not in (NEGATIVE, *found):
            if blendable_shape(image.numpy(), channels) is not None:
                found.add(index)
            if len(found) == 2:
                return
    raise TrainingError(
        "train.blends: there are not two locations with a cell whose nucleus is found and which has green light"
    )


def _learn_mixtures(
    network: keras.Model,
    cells: tf.data.Dataset,
    examples: pd.DataFrame,
    settings: Mapping[str, Any],
    seed: int,
    threads: int | None,
) -> dict[str, Any]:
    """Learn to read mixtures from blends of training cells; return what thresholds.json keeps of it.

    ``examples`` is the table of cells. A class none of whose cells can be blended is not read, which the log says.
    """
    channels, workers = settings["channels"], threads or os.cpu_count() or 1
    counts = _counts_alone(examples)
    # As many of a rare class as there are, or the blends would be of a handful of its cells.
    wanted = np.minimum(counts, BLENDED_CELLS // (counts > 0).sum())
    to_come = counts.copy()
    chosen, labels, shapes = [], [], []
    for image, label, _ in track(cells, len(examples), "cells looked at for blends"):
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
                chosen.append(tile)
                labels.append(label.numpy())
                shapes.append(shape)
    tiles, single = np.stack(chosen), np.argmax(labels, axis=1)
    log.info("mixtures: blends of %d cells", len(tiles))
    if lacking := [NAMES[index] for index in np.flatnonzero(counts) if index not in single]:
        log.warning(
            "mixtures: fractions of %s are not read: no cell of that location alone has a nucleus and green light",
            ", ".join(lacking),
        )
    # A blend is turned at random already and needs one view only.
    looks = {views: averaged(network, views) for views in (1, VALIDATION_VIEWS)}

    def outputs(images: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray]:
        size = settings["batch_size"]
        batches = (images[i : i + size] for i in range(0, len(images), size))
        probabilities = [looks[views](batch)[0].numpy() for batch in batches]
        return np.concatenate(probabilities), measure_light(images, channels, workers)

    # Drawn and measured a part at a time, so that their number costs time and no memory.
    parts = []
    for first in track(range(0, settings["blends"], BLENDS_AT_ONCE), what="parts of the blends"):
        count = min(BLENDS_AT_ONCE, settings["blends"] - first)
        blends, fractions = draw_blends(tiles, shapes, single, channels, count, (seed, first), workers)
        if len(blends):
            parts.append((*outputs(blends, 1), fractions))
    made = sum(len(part[-1]) for part in parts)
    log.info("mixtures: %d blends of %d asked for", made, settings["blends"])
    if not made:
        raise TrainingError("train.blends: the light of no cell falls into another")
    parts.append((*outputs(tiles, VALIDATION_VIEWS), np.array(labels)))
    probabilities, light, known = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    return learn_reading(probabilities, light, known, len(tiles))


def _by_class(examples: pd.DataFrame) -> dict[str, int]:
    return dict(zip(NAMES, label_counts(examples).tolist(), strict=True))


def _decide(
    network: keras.Model, cells: tf.data.Dataset, settings: Mapping[str, Any], part: str
) -> tuple[dict[str, Any], dict[str, float]]:
    """Fit thresholds, the rule for Negative and prototypes on the cells of a part; return (thresholds.json, scores)."""
    forward = averaged(network, VALIDATION_VIEWS)
    outputs, truths = [], []
    for images, labels, _ in cells.batch(settings["batch_size"]):
        outputs.append(forward(images)[0].numpy())
        truths.append(labels.numpy())
    probabilities, labels = np.concatenate(outputs), np.concatenate(truths)
    decision: dict[str, Any] = {"fitted_on": part, "views": VALIDATION_VIEWS, "cells": len(labels)}
    if settings["head"] == "sigmoid":
        values = fit_thresholds(labels, probabilities)
        decision["criterion"] = "best F1 of the class; Negative where no location reaches its threshold"
        decision["negative_rule"] = choose_negative_rule(labels, probabilities)
        decision["thresholds"] = {
            # Digits that count: a threshold of a rare class can be below a millionth, and 0 would call every cell.
            name: float(f"{value:.6g}")
            for name, value in zip(NAMES, values, strict=True)
            if name != NAMES[NEGATIVE]
        }
    else:
        decision |= {"criterion": "likeliest class", "negative_rule": "network", "thresholds": None}
    probabilities = settle_negative(probabilities, decision["negative_rule"])
    sets = label_matrix(label_sets(probabilities, decision_thresholds(decision)))
    single = labels.sum(axis=1) == 1
    prototypes = class_prototypes(probabilities, np.where(single, labels.argmax(axis=1), -1))
    decision["prototypes"] = {
        name: None if np.isnan(row).any() else np.round(row, 6).tolist()
        for name, row in zip(NAMES, prototypes, strict=True)
    }
    hits = probabilities[single].argmax(axis=1) == labels[single].argmax(axis=1)
    truth = labels[single].argmax(axis=1)
    scores = {
        "macro_f1_of_label_sets": float(
            f1_score(labels, sets, average="macro", zero_division=0.0, labels=np.flatnonzero(labels.any(axis=0)))
        )
    }
    if single.any():
        scores |= {
            "classes": len(np.unique(truth)),
            "accuracy": float(hits.mean()),
            "balanced_accuracy": float(np.mean([hits[truth == index].mean() for index in np.unique(truth)])),
        }
    return decision, scores


def model_card(
    config: Mapping[str, Any],
    decision: Mapping[str, Any],
    scores: Mapping[str, float],
    history: pd.DataFrame,
    parts: Mapping[str, pd.DataFrame],
) -> str:
    """Return the model card, a Markdown page: what the model takes and gives, its data, its scores, its limits."""
    best = history.iloc[config["best_epoch"]]
    prefix = "val_" if decision["fitted_on"] == "validation" else ""
    rows = [
        f"| {index} | {name} | {config['examples']['train'][name]} | {config['examples']['validation'][name]} "
        f"| {config['class_weights'][name]:.3f} | {(decision['thresholds'] or {}).get(name, '')} |"
        for index, name in enumerate(NAMES)
    ]
    origins = ", ".join(f"{count} {origin}" for origin, count in parts["train"]["origin"].value_counts().items())
    absent = [name for name in NAMES if not config["examples"]["train"][name]]
    return "\n".join(
        [
            "# Model card",
            "",
            f"A ResNet-50 that gives the subcellular location of a stained protein in one cell, trained by hpaloc "
            f"{config['versions']['hpaloc']}.",
            "",
            "## Input and output",
            "",
            f"- Tiles of one cell, {config['input_size']} px, colours {', '.join(config['channels'])}; preparation in "
            "config.json.",
            f"- Probabilities of {len(NAMES)} classes ({config['head']}), label sets by thresholds.json, an embedding "
            f"of {config['units']} numbers.",
            f"- Negative by the rule `{decision['negative_rule']}`.",
            "",
            "## Training data",
            "",
            f"{len(parts['train'])} cells of {parts['train']['field'].nunique()} fields ({origins}); validation: "
            f"{len(parts['validation'])} cells of {parts['validation']['field'].nunique()} other fields.",
            "",
            "| # | class | train | validation | class weight | threshold |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"## Scores on the {decision['fitted_on']} cells",
            "",
            *(f"- {name.replace('_', ' ')}: {value:.4g}" for name, value in sorted(scores.items())),
            f"- epoch {config['best_epoch']} of {len(history)}: loss {best[prefix + 'loss']:.4f}, AUC "
            f"{best[prefix + 'auc']:.4f} (one view)",
            "",
            "Thresholds, the rule for Negative and the epoch were chosen on these same cells, so a score on fields "
            "apart from them is the one to quote (evaluation/metrics.json)."
            if prefix
            else "There was no validation part, so these are scores of the very cells that trained the network and say "
            "nothing of others; quote one on other fields (evaluation/metrics.json).",
            "",
            "## Limits",
            "",
            "- A cell inherits the label of its field, unless per-cell truth was given; cells that differ from their "
            "neighbours are mislabelled in the training data.",
            f"- Never seen in training: {', '.join(absent)}." if absent else "- Every class was seen in training.",
            "- Microscope, staining and cell lines other than those of the training fields were not tested.",
            f"- Start: {config['train']['weights']}; precision {config['precision']}; device {config['device']}; seed "
            f"{config['seed']}.",
            "",
        ]
    )


def measure_receptive_fields(
    model_dir: Path, part_dir: Path, examples: Path, out: Path, cells: int = RECEPTIVE_CELLS
) -> None:
    """Write the receptive fields of a model folder on its training cells to ``out``, an .npz of `receptive_fields`.

    ``part_dir`` is ``results/dataset/train``, ``examples`` its table; the first ``cells`` tiles are used, which are
    in random order. Raises ModelError for a model folder that was changed.
    """
    model, config, _ = load_folder(model_dir)
    dataset = training_dataset(part_dir, examples, config["channels"], config["input_size"]).take(cells)
    fields = receptive_fields(model, np.stack([image.numpy() for image, _, _ in dataset]))
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **fields)
