import json
import logging
import re
import subprocess
import sys
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from model_inputs import patterned_tiles, write_training_data
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from hpaloc.classes import N_CLASSES, NAMES, NEGATIVE, label_matrix
from hpaloc.examples import LABEL_COLUMNS
from hpaloc.levels import HEADROOM
from hpaloc.model_card import model_card, write_card
from hpaloc.network.calls import decision_thresholds
from hpaloc.network.loading import load_folder
from hpaloc.network.options import FIELD_WEIGHTS
from hpaloc.network.receptive_field import measure_receptive_fields
from hpaloc.network.resnet import FusedBatchNormalization
from hpaloc.records import training_dataset
from hpaloc.training import callbacks, parts, train
from hpaloc.training.augmentation import Augmentation
from hpaloc.training.class_weights import class_weights, weighted
from hpaloc.training.decision import (
    choose_negative_rule,
    fit_decision,
    fit_temperature,
    fit_thresholds,
)
from hpaloc.training.fit import _trainer, fit, is_faster_with_xla
from hpaloc.training.optimiser import FusedAdam
from hpaloc.training.scores import Accuracy, BalancedAccuracy, MacroAUC
from hpaloc.training.settings import LearningRate, TrainingError, TrainSettings
from hpaloc.training.statistics import statistics_renewal
from hpaloc.training.train import predict_examples, train_model

pytestmark = pytest.mark.network

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = TrainSettings(
    channels=["red", "green"],
    input_size=32,
    batch_size=8,
    epochs=1,
    learning_rate=LearningRate(start=0.001, max=0.002, min=0.001),
    precision="float32",
    gpu="none",
)


def decide(network, data, cells):
    """Predict examples and fit the decision to them, as a training does."""
    probabilities, labels = predict_examples(network, data, SETTINGS.batch_size)
    return fit_decision(probabilities, labels, cells, SETTINGS.head, "validation")


def small_network(planes: int = 2, size: int = 16) -> keras.Model:
    """A network with the kinds of layers of the classifier, in two convolutions."""
    inputs = keras.Input((size, size, planes), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False, name="a_conv")(inputs)
    x = FusedBatchNormalization(momentum=0.9, name="a_bn")(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Conv2D(16, 3, strides=2, use_bias=False, name="b_conv")(x)
    x = FusedBatchNormalization(momentum=0.9, name="b_bn")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(16, activation="relu", name="embedding")(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, keras.layers.Dense(N_CLASSES, activation="sigmoid")(x))


def small_data(count: int, seed: int = 0) -> tf.data.Dataset:
    classes = np.array([0, 3, 18])[np.arange(count) % 3]
    labels = label_matrix([(label,) for label in classes])
    return tf.data.Dataset.from_tensor_slices(
        (patterned_tiles(classes, 16, 2, seed), labels, np.ones(count, np.float32))
    )


def train_small(work_dir, epochs: int, seed: int = 5, **changes) -> tuple[list[np.ndarray], pd.DataFrame]:
    keras.utils.set_random_seed(seed)
    network = small_network()
    settings = replace(SETTINGS, epochs=epochs, **changes)
    fit(network, small_data(36), small_data(12, 1), (36, 12), settings, seed, work_dir)
    return network.get_weights(), pd.read_csv(work_dir / "history.csv")


def test_the_schedule_gives_the_ten_values_of_the_method():
    expected = [0.0005, 0.0007, 0.0009, 0.0011, 0.0011, 0.0011, 0.00095, 0.0008375, 0.0007531, 0.0006898]
    np.testing.assert_allclose([LearningRate().at(epoch) for epoch in range(10)], expected, atol=5e-8)


def test_the_start_that_the_paper_prints_makes_a_ramp_down():
    rates = [LearningRate(start=0.005).at(epoch) for epoch in range(5)]
    np.testing.assert_allclose(rates, [0.005, 0.0037, 0.0024, 0.0011, 0.0011], atol=1e-12)


def test_a_schedule_without_ramp_and_plateau_decays_from_the_maximum():
    rates = [
        LearningRate(max=0.01, min=0.0, ramp_epochs=0, sustain_epochs=0, decay=0.5).at(epoch) for epoch in range(3)
    ]
    np.testing.assert_allclose(rates, [0.01, 0.005, 0.0025])


# Cells from one-label fields of the public sheet, by class.
CELLS = [36226, 4621, 12071, 12349, 16824, 14615, 9955, 18041, 10749, 5190, 7602, 9, 13322, 20414, 26603, 2163, 22040]
CELLS += [5505, 880]


def test_m_of_50_weighs_every_class_of_the_one_label_cells_alike():
    assert class_weights(CELLS, 50).tolist() == [1.0] * N_CLASSES


def test_m_of_10_weighs_the_frequent_classes_down():
    weights = class_weights(CELLS, 10)
    assert weights.dtype == np.float32
    printed = {0: 0.254, 14: 0.346, 16: 0.419, 13: 0.450, 7: 0.506, 4: 0.543, 5: 0.621}
    # Published values come from counts that differ by up to 5 % from these.
    for index, value in printed.items():
        assert weights[index] == pytest.approx(10 * 880 / CELLS[index], rel=1e-6)
        assert weights[index] == pytest.approx(value, rel=0.05)
    assert weights[11] == weights[18] == weights[15] == 1.0
    # The paper's own count of nucleoplasm tiles gives the printed weight.
    assert class_weights([34662, 880, 9], 10)[0] == pytest.approx(0.254, abs=5e-4)
    assert np.argsort(weights, kind="stable")[:4].tolist() == [0, 14, 16, 13]


def test_class_weights_of_few_classes():
    assert class_weights([0, 0, 7], 10).tolist() == [1.0, 1.0, 1.0]
    assert class_weights([5, 1000, 0], 0.1).tolist() == pytest.approx([1.0, 0.1, 1.0])


def test_an_example_weighs_what_its_row_and_its_heaviest_class_say():
    labels = label_matrix([(0,), (3,), (0, 3)]).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices((np.zeros((3, 2, 2, 1), np.uint8), labels, np.float32([1, 0.5, 2])))
    weights = np.ones(N_CLASSES, np.float32)
    weights[[0, 3]] = 0.25, 0.75
    assert [float(weight) for _, _, weight in weighted(data, weights)] == [0.25, 0.375, 1.5]


def test_examples_of_weight_0_teach_nothing(tmp_path):
    before = {}
    for name, weight in (("none", 0.0), ("full", 1.0)):
        keras.utils.set_random_seed(0)
        network = small_network()
        before[name] = network.layers[-1].get_weights()[0].copy()
        data = small_data(16).map(lambda image, label, one, weight=weight: (image, label, one * weight))
        fit(network, data, None, (16, 0), SETTINGS, 0, tmp_path / name)
        assert np.array_equal(network.layers[-1].get_weights()[0], before[name]) == (weight == 0.0)


def test_augmentation_turns_and_relights_each_tile_on_its_own():
    rng = np.random.default_rng(0)
    tile = rng.integers(60, 190, (12, 12, 3)).astype(np.float32)
    batch = np.repeat(tile[None], 200, axis=0)
    views = {np.rot90(base, turn).astype(np.float32).tobytes() for base in (tile, tile[:, ::-1]) for turn in range(4)}
    turned = Augmentation(TrainSettings(brightness=0.0, contrast=0.0), seed=3)(batch, training=True).numpy()
    assert {np.rint(image).tobytes() for image in turned} == views

    relit = Augmentation(TrainSettings(brightness=0.1, contrast=0.15), seed=3)(batch, training=True).numpy()
    shift = relit.mean(axis=(1, 2)) - tile.mean(axis=(0, 1))
    ratio = relit.std(axis=(1, 2)) / tile.std(axis=(0, 1))
    white = 255 / HEADROOM
    assert np.abs(shift).max() <= 0.1 * white + 1e-2
    assert shift.max() > 0.08 * white
    assert shift.min() < -0.08 * white
    assert 0.85 - 1e-3 <= ratio.min() < 0.88
    assert 1.12 < ratio.max() <= 1.15 + 1e-3
    assert np.abs(np.corrcoef(shift.T)[0, 1]) < 0.3

    layer = Augmentation(TrainSettings(), seed=3)
    assert np.array_equal(layer(batch, training=False), batch)
    assert layer(batch, training=True).numpy().min() >= 0


def test_augmentation_by_any_angle_size_and_exposure():
    place = np.arange(33) - 16.0
    blob = (np.hypot(place[:, None], place[None]) < 8).astype(np.float32) * 100
    batch = np.repeat(blob[None, ..., None], 300, axis=0).repeat(2, axis=3)
    none = TrainSettings(brightness=0.0, contrast=0.0)
    turned = Augmentation(replace(none, rotation=True), seed=1)(batch, training=True).numpy()
    # A disc in the middle looks the same from every side.
    assert np.abs(turned - batch).mean() < 2
    areas = Augmentation(replace(none, zoom=0.2), seed=1)(batch, training=True).numpy()[..., 0].sum((1, 2)) / blob.sum()
    assert 0.95 * np.exp(-0.4) < areas.min() < np.exp(-0.3)
    assert np.exp(0.3) < areas.max() < 1.05 * np.exp(0.4)
    gains = Augmentation(replace(none, gain=0.5), seed=1)(batch, training=True).numpy()[:, 16, 16] / 100
    assert np.exp(-0.5) <= gains.min() < np.exp(-0.45)
    assert np.exp(0.45) < gains.max() <= np.exp(0.5)
    assert abs(np.corrcoef(gains.T)[0, 1]) < 0.2
    stroke = np.zeros((1, 33, 33, 1), np.float32)
    stroke[0, 16, 16:30] = 200
    turned = Augmentation(replace(none, rotation=True), seed=1)(np.repeat(stroke, 200, axis=0), training=True).numpy()
    ends = [
        np.unravel_index(np.argmax(image[..., 0] * np.hypot(place[:, None], place[None])), (33, 33)) for image in turned
    ]
    angles = np.sort([np.arctan2(y - 16, x - 16) for y, x in ends])
    assert np.diff(angles).max() < 0.3


def test_the_fused_adam_takes_the_steps_of_adam():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 4)), rng.normal(size=(6, 5, 4)).astype(np.float32)
    ends = []
    for kind in (keras.optimizers.Adam, FusedAdam):
        optimizer, variable = kind(0.01), keras.Variable(start, dtype="float32")
        for number, gradient in enumerate(gradients):
            optimizer.learning_rate = 0.01 / (1 + number)
            optimizer.apply([tf.constant(gradient)], [variable])
        ends.append(variable.numpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5, atol=1e-6)


def test_the_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    present = [0, 3, 7, 18]
    truth = rng.choice(present, 300, p=[0.6, 0.2, 0.1, 0.1])
    labels = label_matrix([(label,) for label in truth])
    labels[:20, 3] = 1
    probabilities = np.clip(labels * 0.3 + rng.random(labels.shape) * 0.7, 0, 1).astype(np.float32)
    probabilities[:, [1, 2]] = 0.0
    scores = {}
    for metric in (Accuracy(), BalancedAccuracy(), MacroAUC()):
        for part in np.split(np.arange(300), [64, 200]):
            metric.update_state(labels[part], probabilities[part])
        scores[metric.name] = float(metric.result())
    single = labels.sum(axis=1) == 1
    found, true = probabilities[single].argmax(axis=1), labels[single].argmax(axis=1)
    assert scores["accuracy"] == pytest.approx(np.mean(found == true))
    recalls = [np.mean(found[true == label] == label) for label in present]
    assert scores["balanced_accuracy"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert np.mean(recalls) == pytest.approx(balanced_accuracy_score(true, found))
    areas = [roc_auc_score(labels[:, label], probabilities[:, label]) for label in present]
    assert scores["auc"] == pytest.approx(np.mean(areas), abs=2e-3)


def test_renewed_statistics_are_those_of_the_images_without_dropout():
    network = small_network()
    images = patterned_tiles(np.arange(64) % 5, 16, 2).astype(np.float32)
    renew = statistics_renewal(network)
    renew(np.split(images, 4))
    maps = keras.Model(network.input, network.get_layer("a_conv").output)(images).numpy()
    first = network.get_layer("a_bn")
    np.testing.assert_allclose(first.moving_mean, maps.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(first.moving_variance, maps.var(axis=(0, 1, 2)), rtol=1e-2)
    assert first.momentum == 0.9
    assert [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)] == [0.3, 0.2]
    before = first.moving_mean.numpy()
    renew([])
    assert np.array_equal(first.moving_mean, before)


def test_thresholds_of_many_cells_give_the_best_f1_and_those_of_few_stay_near_a_half():
    def fitted(copies: int) -> np.ndarray:
        labels = np.zeros((40, N_CLASSES))
        probabilities = np.zeros((40, N_CLASSES))
        labels[:10, 2] = 1
        probabilities[:, 2] = np.r_[np.linspace(0.2, 0.3, 10), np.linspace(0.0, 0.1, 30)]
        labels[:20, 6] = 1
        probabilities[:, 6] = np.r_[np.full(20, 0.9), np.full(20, 0.1)]
        return fit_thresholds(np.tile(labels, (copies, 1)), np.tile(probabilities, (copies, 1)))

    many, few = fitted(500), fitted(1)
    assert 0.1 < many[2] < 0.2
    # Ten cells of the class: a tenth of the way, in logits.
    assert few[2] == pytest.approx(1 / (1 + (0.85 / 0.15) ** (1 / 11)), abs=0.01)
    assert many[6] == few[6] == 0.5
    assert many[4] == 0.5  # no cell of the class


def test_fitted_thresholds_are_no_worse_than_a_half_on_other_cells():
    def draw(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        # A network whose probabilities are calibrated: 0.5 gives the most exact label sets.
        labels = np.eye(N_CLASSES)[generator.integers(0, N_CLASSES, n)]
        logits = 3 * (3 * labels + generator.normal(size=labels.shape))
        return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    gains = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        thresholds = fit_thresholds(*draw(generator, 19 * 8))
        labels, probabilities = draw(generator, 2000)
        exact = [
            ((probabilities >= values) == (labels > 0))[:, :NEGATIVE].all(axis=1).mean() for values in (thresholds, 0.5)
        ]
        gains.append(exact[0] - exact[1])
    assert np.mean(gains) > -0.005


def test_thresholds_are_fitted_at_the_weight_of_the_field_that_is_used():
    keras.utils.set_random_seed(0)
    cells = pd.DataFrame({"field": ["f"] * 18 + ["g"] * 18, "origin": "real"})
    decision, scores = decide(small_network(), small_data(36), cells)
    assert list(decision["leaned_thresholds"]) == list(FIELD_WEIGHTS)
    at = {weight: decision_thresholds(decision, weight) for weight in (0.0, 0.8, 0.85, 0.9)}
    assert at[0.0][3] == np.float32(decision["thresholds"][NAMES[3]])
    assert at[0.8][3] == np.float32(decision["leaned_thresholds"]["0.8"][NAMES[3]]) != at[0.0][3]
    np.testing.assert_allclose(at[0.85], (at[0.8] + at[0.9]) / 2, rtol=1e-6)
    assert not any("without" in name for name in scores)
    # A folder of an older version has thresholds for cells alone.
    del decision["leaned_thresholds"]
    assert decision_thresholds(decision, 0.8)[3] == at[0.0][3]


def test_made_negatives_are_left_out_of_a_second_score():
    keras.utils.set_random_seed(0)
    cells = pd.DataFrame({"field": "f", "origin": ["real"] * 30 + ["relabelled"] * 6})
    network = small_network()
    _, scores = decide(network, small_data(36), cells)
    _, own = decide(network, small_data(36).take(30), cells[:30])
    assert scores["cells_without_made_negatives"] == 30
    assert scores["accuracy_without_made_negatives"] == pytest.approx(own["accuracy"])


def test_made_negatives_alone_have_no_second_score():
    keras.utils.set_random_seed(0)
    # Without the held-out classes, a part may be left with these.
    cells = pd.DataFrame({"field": "f", "origin": ["relabelled"] * 6})
    _, scores = decide(small_network(), small_data(6), cells)
    assert "accuracy" in scores
    assert not any("without" in name for name in scores)


def test_a_temperature_makes_confidence_agree_with_accuracy():
    generator = np.random.default_rng(0)
    truth = generator.integers(0, N_CLASSES, 4000)
    # Of normal values with their means apart by 3, the posterior is the softmax of 3 times the values.
    logits = 3 * (generator.normal(size=(4000, N_CLASSES)) + 3 * np.eye(N_CLASSES)[truth])
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    timid = 1 / (1 + np.exp(-0.5 * np.log(true / (1 - true))))
    temperature = fit_temperature(np.eye(N_CLASSES)[truth], timid)
    assert temperature == pytest.approx(0.5, abs=0.1)
    # All right, in few cells: not 0.
    assert 0.1 < fit_temperature(np.eye(N_CLASSES)[truth[:3]], np.eye(N_CLASSES)[truth[:3]] * 0.8) < 1
    assert fit_temperature(np.ones((2, N_CLASSES)), true[:2]) is None


def test_a_threshold_between_tiny_probabilities_is_not_0():
    keras.utils.set_random_seed(0)
    network = small_network()
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([kernel, bias - 20])
    cells = pd.DataFrame({"field": ["f"] * 18 + ["g"] * 18, "origin": "real"})
    decision, _ = decide(network, small_data(36), cells)
    # One of 0 would call the location in every cell.
    assert 0 < decision["thresholds"][NAMES[3]] < 0.2


def test_the_rule_for_negative_is_the_one_that_finds_most():
    labels = label_matrix([(3,)] * 10 + [(NEGATIVE,)] * 10)
    hesitant = np.full((20, N_CLASSES), 0.02)
    hesitant[:10, 3], hesitant[10:, NEGATIVE] = 0.4, 0.4
    assert choose_negative_rule(labels, hesitant) == "network"
    blind = np.full((20, N_CLASSES), 0.02)
    blind[:10, 3] = 0.9
    assert choose_negative_rule(labels, blind) == "complement"
    assert choose_negative_rule(labels[:10], hesitant[:10]) == "complement"


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_a_resumed_training_ends_where_an_unbroken_one_does(averaging, tmp_path, caplog, monkeypatch):
    unbroken, history = train_small(tmp_path / "a", epochs=4, averaging=averaging)
    again, _ = train_small(tmp_path / "b", epochs=4, averaging=averaging)
    monkeypatch.setattr(callbacks, "BACKUP_SECONDS", 0.0)
    for first, second in zip(unbroken, again, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-5, atol=1e-6)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    assert history["learning_rate"].tolist() == pytest.approx([0.001, 0.001 + 0.001 / 3, 0.001 + 0.002 / 3, 0.002])
    assert {"val_loss", "val_accuracy", "val_balanced_accuracy", "val_auc", "images_per_second"} <= set(history)

    class Killed(Exception):
        pass

    end = callbacks.BestWeights.on_epoch_end

    def killed(self, epoch, logs=None):
        end(self, epoch, logs)
        if epoch == 2:
            raise Killed

    monkeypatch.setattr(callbacks.BestWeights, "on_epoch_end", killed)
    with pytest.raises(Killed):
        train_small(tmp_path / "c", epochs=4, averaging=averaging)
    monkeypatch.setattr(callbacks.BestWeights, "on_epoch_end", end)
    with caplog.at_level(logging.INFO, "hpaloc"):
        resumed, resumed_history = train_small(tmp_path / "c", epochs=4, averaging=averaging)
    assert "resuming at epoch" in caplog.text
    assert resumed_history["epoch"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(resumed_history["loss"], history["loss"], rtol=1e-4)
    for first, second in zip(unbroken, resumed, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("moment", ["judged", "history", "best"])
def test_a_training_killed_while_an_epoch_is_judged_forgets_no_best_weights(moment, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "BACKUP_SECONDS", 0.0)
    unbroken, history = train_small(tmp_path / "a", epochs=3)
    # The best epoch is the one of the kill.
    assert history["val_loss"].idxmin() == 2

    def killed(*arguments, **_):
        if moment != "judged":
            Path(arguments[1]).write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        end = callbacks.StatisticsRenewal.on_epoch_end
        name, owner = {"judged": ("on_epoch_end", callbacks.HistoryLog), "history": ("to_csv", pd.DataFrame)}.get(
            moment, ("save_weights", keras.Model)
        )

        def later(self, epoch, logs=None):
            end(self, epoch, logs)
            if epoch == 2:
                patch.setattr(owner, name, killed)

        patch.setattr(callbacks.StatisticsRenewal, "on_epoch_end", later)
        with pytest.raises(KeyboardInterrupt):
            train_small(tmp_path / "b", epochs=3)
    resumed, resumed_history = train_small(tmp_path / "b", epochs=3)
    assert resumed_history["epoch"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(resumed_history["val_loss"], history["val_loss"], rtol=1e-4)
    for first, second in zip(unbroken, resumed, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-5)


def test_a_backup_cut_short_leaves_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "BACKUP_SECONDS", 0.0)
    unbroken, _ = train_small(tmp_path / "a", epochs=3)
    epoch_begins = callbacks.EpochStart.on_epoch_begin

    # Weights are written, their epoch is not.
    def killed(self, epoch, logs=None):
        epoch_begins(self, epoch, logs)
        if epoch == 1:
            save = keras.Model.save_weights

            def half(*arguments, **named):
                save(*arguments, **named)
                raise KeyboardInterrupt

            patch.setattr(keras.Model, "save_weights", half)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.EpochStart, "on_epoch_begin", killed)
        patch.setattr(callbacks.BestWeights, "on_epoch_end", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            train_small(tmp_path / "b", epochs=3)
    resumed, history = train_small(tmp_path / "b", epochs=3)
    assert history["epoch"].tolist() == [0, 1, 2]
    for first, second in zip(unbroken, resumed, strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-5)


def test_averaged_weights_are_the_running_mean_over_the_steps(tmp_path):
    def weights(epochs, averaging):
        keras.utils.set_random_seed(5)
        network = small_network()
        # One step an epoch.
        settings = replace(SETTINGS, epochs=epochs, averaging=averaging)
        fit(network, small_data(8), None, (8, 0), settings, 5, tmp_path / f"{epochs}-{averaging}")
        return [variable.numpy() for variable in network.trainable_variables]

    steps = [weights(epochs, 0.0) for epochs in (1, 2, 3)]
    for mean, first, second, third in zip(weights(3, 0.8), *steps, strict=True):
        np.testing.assert_allclose(mean, 0.64 * first + 0.16 * second + 0.2 * third, rtol=1e-4, atol=1e-6)
        assert np.abs(mean - third).max() > 1e-5


def test_epochs_of_another_training_are_not_gone_on_from(tmp_path):
    examples = tmp_path / "examples.parquet"
    examples.write_bytes(b"one split")
    work = tmp_path / "model.work"

    def kept(settings, seed=1):
        train._keep_if_same(work, settings, seed, examples, tmp_path / "dataset")
        found = (work / "epoch").exists()
        (work / "epoch").touch()
        return found

    assert not kept(SETTINGS)
    assert kept(SETTINGS)
    assert not kept(replace(SETTINGS, epochs=2))
    assert not kept(replace(SETTINGS, epochs=2), seed=2)
    examples.write_bytes(b"another split")
    assert not kept(replace(SETTINGS, epochs=2), seed=2)
    assert kept(replace(SETTINGS, epochs=2), seed=2)
    # The same cells in other tiles, and a start from other weights of the same name.
    start = tmp_path / "start.keras"
    record = tmp_path / "dataset/train/red-00000-of-00001.tfrecord"
    record.parent.mkdir(parents=True)
    for file in (record, start):
        file.write_bytes(b"first")
        settings = replace(SETTINGS, weights=str(start))
        kept(settings)
        assert kept(settings)
        file.write_bytes(b"second")
        assert not kept(settings)


def test_training_stops_when_validation_stands_still_and_keeps_the_best_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "PATIENCE", 2)
    keras.utils.set_random_seed(0)
    network = small_network()
    # Labels of the validation cells contradict those of training, so its loss can only grow.
    contrary = small_data(12).map(lambda image, label, weight: (image, tf.roll(label, 1, 0), weight))
    settings = replace(SETTINGS, epochs=30, learning_rate=LearningRate(0.02, 0.02, 0.02))
    monkeypatch.setattr(callbacks, "BACKUP_SECONDS", 0.0)
    fit(network, small_data(36), contrary, (36, 12), settings, 0, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    # Killed after it, before the model folder is written, it stops there again.
    fit(network, small_data(36), contrary, (36, 12), settings, 0, tmp_path)
    assert pd.read_csv(tmp_path / "history.csv")["epoch"].tolist() == history["epoch"].tolist()
    best = int(history["val_loss"].idxmin())
    assert len(history) == best + 3 < 30
    trainer_loss = keras.losses.BinaryCrossentropy()
    images, labels, _ = next(iter(contrary.batch(12)))
    assert float(trainer_loss(labels, network(images))) == pytest.approx(history["val_loss"][best], rel=1e-3)


@pytest.mark.parametrize("validated", [True, False])
def test_a_training_that_diverges_is_an_error(validated, tmp_path):
    keras.utils.set_random_seed(0)
    settings = replace(SETTINGS, epochs=3, learning_rate=LearningRate(1e20, 1e20, 1e20))
    counts = (36, 12 if validated else 0)
    with pytest.raises(TrainingError, match=r"lower train\.learning_rate\.max"):
        fit(small_network(), small_data(36), small_data(12, 1) if validated else None, counts, settings, 0, tmp_path)


def test_without_dropout_nothing_is_drawn_for_it(tmp_path):
    network = keras.models.clone_model(
        small_network(),
        clone_function=lambda layer: type(layer).from_config(
            layer.get_config() | ({"rate": 0.0} if isinstance(layer, keras.layers.Dropout) else {})
        ),
    )
    fit(network, small_data(16), None, (16, 0), SETTINGS, 0, tmp_path)
    assert len(pd.read_csv(tmp_path / "history.csv")) == 1


@pytest.fixture(scope="module")
def training_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    write_training_data(folder, {"train": 18, "validation": 9}, 40, ("red", "green"))
    return folder


def test_a_model_folder_explains_itself(training_data, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "hpaloc"):
        tiles = {"size": 40, "mask_neighbours": True}
        train_model(training_data, training_data / "examples.parquet", tmp_path / "model", SETTINGS, 3, tiles=tiles)
    assert caplog.records[0].getMessage().startswith("device: CPU")
    folder = tmp_path / "model"
    names = {"model.keras", "config.json", "thresholds.json", "judged.npy", "history.csv", "checksums.json", "logs"}
    assert {path.name for path in folder.iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert any((folder / "logs").rglob("events.out.tfevents*"))
    network, config, decision = load_folder(folder)
    assert network.input_shape == (None, 32, 32, 2)
    assert config["channels"] == ["red", "green"]
    assert config["examples"]["train"]["Nucleoplasm"] == 6
    assert config["examples"]["validation"]["Negative"] == 3
    assert json.dumps(config["train"]) == json.dumps(asdict(SETTINGS))
    assert config["preprocessing"]["tiles"] == tiles
    assert config["seed"] == 3
    assert config["versions"]["tensorflow"] == tf.__version__
    assert len(decision["thresholds"]) == N_CLASSES - 1
    assert len(decision["prototypes"]["Nucleoplasm"]) == N_CLASSES
    assert decision["prototypes"]["Golgi apparatus"] is None
    assert (config["scores"]["part"], config["scores"]["cells"], config["scores"]["classes"]) == ("validation", 9, 3)
    assert set(json.loads((folder / "checksums.json").read_text())) == names - {"judged.npy", "checksums.json", "logs"}
    examples = training_data / "examples.parquet"
    # What the fusion gets of the network are its probabilities of the validation cells, in the order of their records.
    cells = training_dataset(training_data / "validation", examples, SETTINGS.channels, SETTINGS.input_size)
    probabilities, labels = predict_examples(network, cells, 8)
    np.testing.assert_allclose(np.load(folder / "judged.npy"), probabilities, atol=1e-6)
    rows = parts.judged_examples(parts.read_parts(examples, "sigmoid"))[1]
    np.testing.assert_array_equal(rows[list(LABEL_COLUMNS)], labels)
    write_card(folder, examples, folder / "card.md", ["Collection train: fields, 0.08 µm per pixel."])
    card = (folder / "card.md").read_text()
    assert "18 cells of 4 fields (18 as labelled); validation" in card
    assert "\n## Scores on the 9 validation cells\n" in card
    assert "\n\n- Collection train: fields, 0.08 µm per pixel.\n\n| # |" in card
    measure_receptive_fields(folder, training_data / "train", examples, tmp_path / "fields.npz", cells=4)
    with np.load(tmp_path / "fields.npz") as fields:
        assert (int(fields["tile"]), int(fields["theoretical"])) == (32, 483)
        assert fields["effective"].shape == fields["propagated"].shape
        assert len(fields["effective"]) >= 483
        assert 0 < fields["radius_50"] < fields["radius_95"] < 483 / 2
    assert "| 3 | Nucleoli fibrillar center | 6 | 3 |" in card
    assert "Never seen in training: Nuclear membrane" in card
    assert "baseline" not in card
    shown = dict.fromkeys(("train", "validation"), pd.read_parquet(examples))
    baselines = {"validation_accuracy": {"frozen_network": 0.25}}
    page = model_card(config, decision, pd.read_csv(folder / "history.csv"), shown, (), baselines, "Cross-validated.")
    assert "\n- accuracy of the baseline frozen network: 0.25\n" in page
    assert "\n\nCross-validated.\n\n## Limits\n" in page
    assert "made Negative" not in page
    copied = {part: pd.concat([table, table.head(2).assign(copy=1)]) for part, table in shown.items()}
    page = model_card(config, decision, pd.read_csv(folder / "history.csv"), copied)
    assert f"{len(shown['train'])} cells of" in page
    assert "and 2 copies of cells of rare locations; validation" in page
    assert "| # | class | train with copies | validation |" in page


def test_data_that_cannot_be_trained_on_is_named(training_data, tmp_path):
    table = pd.read_parquet(training_data / "examples.parquet")
    table[table["part"] == "validation"].to_parquet(tmp_path / "validation_only.parquet")
    with pytest.raises(TrainingError, match="no example of the part train"):
        train_model(training_data, tmp_path / "validation_only.parquet", tmp_path / "model", SETTINGS, seed=3)
    table["label_16"] = 1
    table.to_parquet(tmp_path / "several.parquet")
    softmax = replace(SETTINGS, head="softmax")
    with pytest.raises(TrainingError, match="exactly one location"):
        train_model(training_data, tmp_path / "several.parquet", tmp_path / "model", softmax, seed=3)
    assert not (tmp_path / "model").exists()


def test_without_a_validation_part_the_last_epoch_is_kept(training_data, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(parts, "JUDGED_TRAINING_CELLS", 8)
    table = pd.read_parquet(training_data / "examples.parquet")
    table[table["part"] == "train"].to_parquet(tmp_path / "examples.parquet")
    settings = replace(SETTINGS, epochs=2, rotation=True, zoom=0.1, gain=0.3)
    train_model(training_data, tmp_path / "examples.parquet", tmp_path / "model", settings, seed=3)
    assert "no cell validates" in caplog.text
    _, config, decision = load_folder(tmp_path / "model")
    assert config["best_epoch"] == 1
    assert decision["fitted_on"] == config["scores"]["part"] == "train"
    assert decision["cells"] == config["scores"]["cells"] == len(np.load(tmp_path / "model" / "judged.npy")) == 8
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    assert len(history) == 2
    assert "val_loss" not in history
    write_card(tmp_path / "model", tmp_path / "examples.parquet", tmp_path / "card.md")
    assert "say nothing about others" in " ".join((tmp_path / "card.md").read_text().split())


def train_on_devices(devices, work_dir, body):
    """Run code that has a network's ``scope`` over logical devices, ``work_dir`` and this module as ``small``."""
    # Logical devices must be made before TensorFlow's first operation, hence a process of its own.
    script = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests/support")!r}, {str(Path(__file__).parent)!r}]
import keras
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * {devices})
from pathlib import Path
import test_training as small
names = [f"CPU:{{number}}" for number in range({devices})]
strategy = tf.distribute.MirroredStrategy(names) if {devices} > 1 else tf.distribute.get_strategy()
work_dir = Path({str(work_dir)!r})
keras.utils.set_random_seed(1)
with strategy.scope():
{textwrap.indent(body, "    ")}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_three_devices_share_a_batch_that_three_do_not_divide(tmp_path):
    train_on_devices(
        3,
        tmp_path,
        """
# Nor 20 cells that validate: whole batches of 18 of them leave 2.
data = small.small_data(36), small.small_data(20, 1)
small.fit(small.small_network(), *data, (36, 20), small.replace(small.SETTINGS, epochs=6), 5, work_dir)
""",
    )
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["val_loss"].iloc[-1] < 0.9 * history["val_loss"].iloc[0]


def test_two_and_four_devices_train_the_network_of_one(tmp_path):
    # Batch norm is of the cells of a device, and Keras' dropout draws alike on each: neither is in this network.
    body = """
layers = [keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.GlobalAveragePooling2D()]
network = keras.Sequential([keras.Input((16, 16, 2)), *layers, keras.layers.Dense(19, "sigmoid")])
settings = small.replace(small.SETTINGS, epochs=3, rotation=True, zoom=0.1, gain=0.3, averaging=0.9)
small.fit(network, small.small_data(40), small.small_data(12, 1), (40, 12), settings, 5, work_dir)
np.savez(work_dir / "weights.npz", *network.get_weights())
"""
    found = {}
    for devices in (1, 2, 4):
        train_on_devices(devices, tmp_path / str(devices), body)
        found[devices] = list(np.load(tmp_path / str(devices) / "weights.npz").values())
    for devices in (2, 4):
        for one, several in zip(found[1], found[devices], strict=True):
            np.testing.assert_allclose(several, one, atol=1e-5)


def test_xla_is_timed_on_the_first_steps_and_leaves_the_weights(caplog):
    caplog.set_level(logging.INFO, "hpaloc")
    network = small_network()
    trainer, _ = _trainer(network, SETTINGS, 0)
    before = network.get_weights()
    chosen = is_faster_with_xla(trainer, SETTINGS, small_data(48).batch(8, drop_remainder=True))
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with_it, without = map(float, re.search(r"(\d+) images/s with it, (\d+) without", caplog.text).groups())
    assert min(with_it, without) > 0
    assert chosen == (with_it > without) or with_it == without
    assert f"XLA: {'on' if chosen else 'off'}" in caplog.text


@pytest.mark.parametrize("xla", [True, False, "auto"])
def test_a_training_compiles_its_step_with_xla_if_it_is_asked_to(xla, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        keras.Model,
        "compile",
        lambda self, *args, real=keras.Model.compile, **kwargs: (
            compiled.append(kwargs["jit_compile"]),
            real(self, *args, **kwargs),
        )[1],
    )
    train_small(tmp_path, 1, xla=xla)
    # `auto` is off on a CPU.
    assert compiled == [xla is True]
