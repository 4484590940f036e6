"""The fusion of a network with a regression: the probabilities, their decision, and what a model folder keeps of it."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_inputs import (
    patterned_tiles,
    predict_shard,
    untrained_classifier,
    write_model_folder,
    write_tile_shard,
    write_training_data,
)
from scipy.special import expit, logit

from hpaloc.baselines.learning import learn_baselines
from hpaloc.baselines.prediction import regress_cells
from hpaloc.baselines.record import load_baselines
from hpaloc.classes import N_CLASSES, NAMES
from hpaloc.evaluation.baselines import ALONE, compare, score_baselines
from hpaloc.evaluation.cells import score_cells
from hpaloc.examples import EXAMPLES, LABEL_COLUMNS
from hpaloc.fusion import learn_fusion
from hpaloc.model_card import write_card
from hpaloc.network.calls import call_labels, decision_thresholds, fuse
from hpaloc.network.folder import read_settings, write_checksums
from hpaloc.network.fusion import decision_in_use, load_fusion, write_fusion
from hpaloc.network.options import ModelError
from hpaloc.tables import NETWORK, PROBABILITIES, to_table, write_table
from hpaloc.training import parts

SIZE = 32
CHANNELS = ("green", "red")
# What the regression learns.
LEARNED = [0, 3, 18]


def test_fused_logits_are_the_weighted_mean_of_both():
    rng = np.random.default_rng(0)
    network, regression = rng.uniform(0.01, 0.99, (2, 5, N_CLASSES)).astype(np.float32)
    np.testing.assert_allclose(fuse(network, regression, 0), network, rtol=1e-6)
    np.testing.assert_allclose(fuse(network, regression, 1), regression, rtol=1e-6)
    expected = expit(0.75 * logit(network) + 0.25 * logit(regression))
    np.testing.assert_allclose(fuse(network, regression, 0.25), expected, rtol=1e-5)
    assert fuse(network, regression, 0.25).dtype == np.float32


def test_fused_probabilities_of_a_softmax_head_sum_to_one():
    rng = np.random.default_rng(0)
    network, regression = (rng.dirichlet(np.ones(N_CLASSES), 5) for _ in range(2))
    fused = fuse(network, regression, 0.5, normalise=True)
    np.testing.assert_allclose(fused.sum(axis=1), 1)
    likeliest = (network * regression).argmax(axis=1)
    assert (fused.argmax(axis=1) == likeliest).all()


@pytest.mark.parametrize("normalise", [False, True])
def test_a_location_that_the_regression_has_not_learned_is_left_to_the_network(normalise):
    network = np.tile([0.9, 0.05, 0.05], (2, 1))
    regression = np.tile([0.0, 0.5, 0.5], (2, 1))
    fused = fuse(network, regression, 0.5, normalise)
    assert (fused.argmax(axis=1) == 0).all()
    assert normalise or (fused[:, 0] == pytest.approx(0.9))


def test_a_predictor_that_is_certain_leaves_the_other_its_weight():
    certain, other = np.array([[0.0, 1.0]]), np.array([[0.7, 0.3]])
    sure = 0.3 * logit([1e-6, 1 - 1e-6])
    np.testing.assert_allclose(fuse(certain, other, 0.7), expit(sure + 0.7 * logit(other)[0])[None])
    assert np.isfinite(fuse(certain, certain, 0.7)).all()


def write_measures(path, cells, classes):
    """Write the measurements of cells, whose first numbers tell the classes 0, 3 and 18 apart."""
    values = np.random.default_rng(1).normal(0, 0.2, (len(cells), 4)).astype(np.float32)
    values[:, 0] += 3 * (classes == 3)
    values[:, 1] += 3 * (classes == 18)
    lists = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), 4)
        for name, column in (("measures", values), ("outputs", values.astype(np.float16)))
    }
    pq.write_table(
        pa.table({"field": pa.array(cells["field"]), "cell": pa.array(cells["cell"], pa.int32()), **lists}), path
    )


def write_judged(folder, count):
    """Write probabilities that know nothing of the judged cells, as a training keeps them."""
    np.save(folder / "judged.npy", np.random.default_rng(2).uniform(0.001, 0.01, (count, N_CLASSES)).astype(np.float32))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return an untrained network with a regression that is right: its folder, its examples, the measured cells."""
    root = tmp_path_factory.mktemp("fusion")
    examples = write_training_data(root / "dataset", {"train": 30, "validation": 24}, SIZE, CHANNELS)
    table = pd.read_parquet(examples)
    write_measures(root / "measures.parquet", table, table["labels"].astype(int).to_numpy())
    network = untrained_classifier(CHANNELS, SIZE)
    folder = write_model_folder(root / "model", network, CHANNELS, "sigmoid", SIZE)
    write_judged(folder, 24)
    learn_baselines(folder, examples, [root / "measures.parquet"])
    return folder, examples, root / "measures.parquet"


def copy_folder(folder, copy, config, thresholds):
    """Copy the network of a folder with other settings; return the copy."""
    copy.mkdir()
    os.link(folder / "model.keras", copy / "model.keras")
    shutil.copy(folder / "judged.npy", copy)
    for name, changed in (("config.json", config), ("thresholds.json", thresholds)):
        (copy / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changed))
    write_checksums(copy, ("model.keras", "config.json", "thresholds.json"))
    return copy


def learn(trained, weight=0.5):
    folder, examples, measures = trained
    learn_fusion(folder, examples, [measures], weight)
    return load_fusion(folder)


@pytest.mark.network
def test_the_decision_is_fitted_to_what_is_fused(trained):
    folder = trained[0]
    fusion = learn(trained)
    assert fusion["weight"] == 0.5
    assert (fusion["fitted_on"], fusion["cells"]) == ("validation", 24)
    # The network knows nothing, and the regression tells its three locations apart.
    prototypes = np.array([fusion["prototypes"][NAMES[index]] for index in LEARNED])[:, LEARNED]
    assert prototypes[0, 0] > 1.2 * prototypes[1, 0]
    assert prototypes[1, 1] > 1.2 * prototypes[0, 1]
    assert decision_in_use(folder, True) == fusion
    assert decision_in_use(folder, False) == read_settings(folder)[1] != fusion
    assert fusion["thresholds"] != learn(trained, 1.0)["thresholds"]


@pytest.fixture
def training_alone(trained, tmp_path):
    """Return the examples of ``trained`` without those that validate; every fifth is a synthetic negative."""
    table = pd.read_parquet(trained[1])
    table = table[table["part"] == "train"].reset_index(drop=True)
    table.loc[table["position"] % 5 == 0, ["origin", "labels", *LABEL_COLUMNS]] = ["synthetic", "18", *[0] * 18, 1]
    write_table(tmp_path / "examples.parquet", to_table(table, EXAMPLES))
    return tmp_path / "examples.parquet"


@pytest.mark.network
def test_without_a_validation_part_training_cells_decide_but_not_synthetic_ones(
    trained, training_alone, tmp_path, monkeypatch
):
    measures = trained[2]
    folder = shutil.copytree(trained[0], tmp_path / "model")
    write_judged(folder, 30)
    learn_fusion(folder, training_alone, [measures], 0.5)
    fusion = load_fusion(folder)
    assert (fusion["fitted_on"], fusion["cells"]) == ("train", 24)
    # No other cell is made, so the scores without made negatives would be the same and are not written.
    assert set(fusion["scores"]) == set(fusion["network_scores"])
    assert not [name for name in fusion["scores"] if "without" in name]
    assert fusion["network_scores"]["classes"] == fusion["scores"]["classes"] == 3
    monkeypatch.setattr(parts, "JUDGED_TRAINING_CELLS", 20)
    write_judged(folder, 20)
    learn_fusion(folder, training_alone, [measures], 0.5)
    assert load_fusion(folder)["cells"] == 16


@pytest.mark.network
def test_probabilities_of_other_cells_are_refused(trained, training_alone):
    folder, _, measures = trained
    with pytest.raises(ModelError, match=r"judged\.npy: has 24 cells, but .*examples\.parquet has 30"):
        learn_fusion(folder, training_alone, [measures], 0.5)


@pytest.mark.network
def test_a_softmax_head_is_fused_without_thresholds(trained, tmp_path):
    examples, measures = trained[1:]
    softmax = {"head": "softmax"}, {"thresholds": None, "negative_rule": "network"}
    folder = copy_folder(trained[0], tmp_path / "model", *softmax)
    learn_baselines(folder, examples, [measures])
    fusion = learn((folder, examples, measures))
    assert (fusion["thresholds"], fusion["negative_rule"]) == (None, "network")
    classes = np.array([0, 3, 18, 0])
    cells = write_tile_shard(tmp_path, patterned_tiles(classes, SIZE, 2), CHANNELS)
    write_measures(tmp_path / "measures.parquet", cells, classes)
    predict_shard(
        folder, {colour: tmp_path / f"{colour}.tfrecord" for colour in CHANNELS}, tmp_path / "cells.parquet",
        tmp_path / "out.parquet", views=1, gpu="none", precision="float32", measures=tmp_path / "measures.parquet",
    )  # fmt: skip
    table = pd.read_parquet(tmp_path / "out.parquet")
    p, network = (table[list(names)].to_numpy() for names in (PROBABILITIES, NETWORK))
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    wanted = list(zip(cells["field"], cells["cell"], strict=True))
    regression = regress_cells(folder, [tmp_path / "measures.parquet"], wanted)
    np.testing.assert_allclose(p, fuse(network, regression, 0.5, normalise=True), rtol=1e-5)
    assert table["labels"].to_list() == [str(index) for index in p.argmax(axis=1)]


@pytest.mark.network
def test_a_shard_is_predicted_by_both_and_the_network_alone_is_kept(trained, tmp_path):
    folder = trained[0]
    fusion = learn(trained)
    classes = np.array([0, 3, 18] * 4)
    cells = write_tile_shard(tmp_path, patterned_tiles(classes, SIZE, 2), CHANNELS)
    write_measures(tmp_path / "measures.parquet", cells, classes)
    paths = {colour: tmp_path / f"{colour}.tfrecord" for colour in CHANNELS}
    options = {"views": 1, "batch_size": 5, "gpu": "none", "precision": "float32", "field_weight": 0.3}
    predict_shard(folder, paths, tmp_path / "cells.parquet", tmp_path / "alone.parquet", **options)
    predict_shard(
        folder, paths, tmp_path / "cells.parquet", tmp_path / "fused.parquet", **options,
        measures=tmp_path / "measures.parquet",
    )  # fmt: skip
    alone, fused = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("alone", "fused"))
    assert NETWORK[0] not in alone
    network = fused[list(NETWORK)].to_numpy()
    np.testing.assert_array_equal(network, alone[list(PROBABILITIES)].to_numpy())
    wanted = list(zip(cells["field"], cells["cell"], strict=True))
    expected = fuse(network, regress_cells(folder, [tmp_path / "measures.parquet"], wanted), 0.5)
    p = fused[list(PROBABILITIES)].to_numpy()
    np.testing.assert_allclose(p[:, :18], expected[:, :18], rtol=1e-5)
    # Among the locations that the regression has learned.
    right = [(np.array(LEARNED)[each[:, LEARNED].argmax(axis=1)] == classes).mean() for each in (p, network)]
    assert right[0] > right[1]
    leaned = fused[[f"leaned_{index}" for index in range(N_CLASSES)]].to_numpy()
    sets = ["|".join(map(str, labels)) for labels in call_labels(leaned, decision_thresholds(fusion, 0.3))]
    assert fused["labels"].to_list() == sets
    predict_shard(
        folder, paths, tmp_path / "cells.parquet", tmp_path / "part.parquet", **options,
        measures=tmp_path / "measures.parquet", fields=["field1"],
    )  # fmt: skip
    part = fused[fused["field"] == "field1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "part.parquet"), part, rtol=1e-4)
    write_measures(tmp_path / "others.parquet", cells[1:], classes[1:])
    with pytest.raises(ModelError, match="cell 1 of field field0 is not measured"):
        predict_shard(
            folder, paths, tmp_path / "cells.parquet", tmp_path / "x.parquet", **options,
            measures=tmp_path / "others.parquet",
        )  # fmt: skip


@pytest.mark.network
def test_a_changed_or_foreign_fusion_is_refused(trained):
    folder, examples, measures = trained
    fusion = learn(trained)
    for key, value, told in (("weight", 1.5, "weight is 1.5"), ("negative_rule", "none", "negative_rule is 'none'")):
        write_fusion(folder, 0.5, fusion, {}, {})
        (folder / "fusion.json").write_text(json.dumps(fusion | {key: value}))
        write_checksums(folder, ("checksums.json", "baselines.json", "fusion.json"), to="fusion.checksums.json")
        with pytest.raises(ModelError, match=rf"fusion\.json: {told}"):
            load_fusion(folder)
    learn(trained)
    (folder / "fusion.json").write_text(json.dumps(fusion) + " ")
    with pytest.raises(ModelError, match=r"fusion\.json was changed"):
        load_fusion(folder)
    learn(trained)
    # It is of one regression too.
    baselines = load_baselines(folder)
    (folder / "baselines.json").write_text(json.dumps(baselines) + " ")
    with pytest.raises(ModelError, match=r"baselines\.json was changed"):
        load_fusion(folder)
    learn_baselines(folder, examples, [measures])


def test_the_network_alone_is_a_row_of_the_comparison_but_no_baseline():
    labels = np.eye(N_CLASSES, dtype=int)[np.array([0, 3, 16] * 20)]
    groups = np.repeat(np.arange(12), 5)
    right, wrong = labels * 0.8 + 0.1, np.roll(labels, 1, axis=1) * 0.8 + 0.1
    rivals = score_baselines(right, labels, groups, {ALONE: right, "logistic_regression": wrong}, None, 50)
    assert rivals[ALONE]["accuracy"] == 1
    told = compare(score_cells(right, labels, groups, 50), rivals, True)
    assert told["baseline"] == "logistic_regression"
    assert told["sentence"].startswith("the network with its regression beats its best baseline")


@pytest.mark.network
@pytest.mark.parametrize("part", ["validation", "train"])
def test_the_card_says_what_is_fused_with_scores_of_both(trained, training_alone, tmp_path, part):
    measures = trained[2]
    examples = trained[1] if part == "validation" else training_alone
    counts = dict.fromkeys(NAMES, 1)
    config = {"scores": {"accuracy": 0.25}, "best_epoch": 0, "examples": {"train": counts, "validation": counts}}
    config |= {"class_weights": dict.fromkeys(NAMES, 1.0), "versions": {"hpaloc": "0"}, "train": {"weights": "none"}}
    config |= {"precision": "float32", "device": "CPU", "seed": 1}
    folder = copy_folder(trained[0], tmp_path / "model", config, {"fitted_on": part, "cells": 30})
    learn_baselines(folder, examples, [measures])
    write_judged(folder, 24 if part == "validation" else 30)
    learn_fusion(folder, examples, [measures], 0.5)
    (folder / "history.csv").write_text("val_loss,val_auc,loss,auc\n1,0.5,1,0.5\n")
    fusion = load_fusion(folder)
    for fused in (True, False):
        write_card(folder, examples, tmp_path / "card.md", fused=fused)
        card = (tmp_path / "card.md").read_text()
        assert ("whose weight in the logits is 0.5" in card) == fused
        # Both are over the same cells; the training has scored synthetic ones too.
        alone = f"- accuracy, network alone: {fusion['network_scores']['accuracy']:.4g}\n"
        assert (f"- accuracy: {fusion['scores']['accuracy']:.4g}\n" in card) == (alone in card) == fused
        assert ("- accuracy: 0.25\n" in card) != fused
        assert (f"scores of {24 if fused else 30} of the cells that trained" in card) == (part == "train")
