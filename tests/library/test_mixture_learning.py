"""A reading of mixtures learnt from blends of the cells that trained a network, and kept in its model folder."""

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
from model_inputs import patterned_tiles, untrained_classifier, write_model_folder, write_training_data

from hpaloc.classes import NAMES
from hpaloc.mixtures import blends, learning
from hpaloc.mixtures.fractions import read_prototypes
from hpaloc.mixtures.learning import BlendError, learn_mixtures
from hpaloc.mixtures.reading import MIXTURES, load_reading
from hpaloc.network.folder import write_checksums
from hpaloc.network.options import ModelError
from hpaloc.tables import PROBABILITIES
from hpaloc.tfrecord import TileRecord, frame

pytestmark = pytest.mark.network

COLOURS = ("red", "green", "blue")
SIZE = 32


@pytest.fixture(scope="module")
def network_folder(tmp_path_factory):
    network = untrained_classifier(COLOURS, SIZE)
    return write_model_folder(tmp_path_factory.mktemp("network") / "model", network, COLOURS, "sigmoid", SIZE)


@pytest.fixture
def model(network_folder, tmp_path):
    shutil.copytree(network_folder, tmp_path / "model")
    return tmp_path / "model"


def write_cells(folder, count):
    """Write cells of the classes 0, 3 and 18 in turn; return their table, and its path."""
    examples = write_training_data(folder / "data", {"train": count}, 40, COLOURS)
    return pd.read_parquet(examples), examples


def rewrite_colour(folder, colour, table, planes):
    """Write the planes (n, S, S) of one colour of the cells anew."""
    with open(folder / f"data/train/{colour}-00000-of-00001.tfrecord", "wb") as file:
        for (field, cell), plane in zip(table[["field", "cell"]].itertuples(index=False), planes, strict=True):
            file.write(frame(TileRecord(field, int(cell), plane, 255.0).encode()))


def patterned_planes(count, plane):
    return patterned_tiles(np.array([0, 3, 18])[np.arange(count) % 3], 40, 3)[..., plane]


def learn(folder, blends, examples=None, **settings):
    examples = examples or folder / "data/examples.parquet"
    settings = {"batch_size": 8, "precision": "float32", "gpu": "none"} | settings
    learn_mixtures(folder / "model", folder / "data/train", examples, blends, 3, **settings)
    return load_reading(folder / "model")


def test_mixtures_are_read_as_blends_of_the_training_cells_teach(model, tmp_path, caplog, monkeypatch):
    seeds, draw = [], learning.draw_blends
    monkeypatch.setattr(learning, "BLENDS_AT_ONCE", 5)
    monkeypatch.setattr(learning, "draw_blends", lambda *given: (seeds.append(given[5]), draw(*given))[1])
    table, _ = write_cells(tmp_path, 18)
    assert read_prototypes(model) is None
    with caplog.at_level(logging.INFO, "hpaloc"):
        reading = learn(tmp_path, 12)
    # Six cells each of classes 0 and 3; the six of Negative are in no mixture.
    assert "blends of 12 cells" in caplog.text
    assert "12 of 12 blends drawn" in caplog.text
    assert len(set(seeds)) == 3
    assert (reading["classes"], reading["blends"]) == ([NAMES[0], NAMES[3]], 12)
    assert [name for name, row in reading["prototypes"].items() if row] == [NAMES[0], NAMES[3]]
    prototypes, outputs = read_prototypes(model)
    assert outputs == MIXTURES
    assert np.flatnonzero(np.isfinite(prototypes[:, 0])).tolist() == [0, 3]
    table[table["label_3"] == 0].to_parquet(tmp_path / "one.parquet")
    with pytest.raises(BlendError, match="cells of one location alone"):
        learn(tmp_path, 12, tmp_path / "one.parquet")


def test_cells_of_one_location_that_can_be_blended_teach_nothing(model, tmp_path):
    table, _ = write_cells(tmp_path, 6)
    blue = patterned_planes(6, 2)
    # Blue of one value has no nucleus in it: what is left is one location, and Negative.
    blue[table["label_3"] == 1] = 9
    rewrite_colour(tmp_path, "blue", table, blue)
    with pytest.raises(BlendError, match="a nucleus and green light"):
        learn(tmp_path, 12)
    assert not list(model.glob("mixtures*"))


def test_blends_that_hold_no_second_light_are_left_out(model, tmp_path, caplog, monkeypatch):
    write_cells(tmp_path, 12)
    monkeypatch.setattr(learning, "BLENDS_AT_ONCE", 4)
    blend, asked = blends.blended, []

    # All of the first part, and some of the second.
    def some(*given):
        asked.append(given)
        return blend(*given) if len(asked) > 6 else None

    monkeypatch.setattr(blends, "blended", some)
    with caplog.at_level(logging.INFO, "hpaloc"):
        reading = learn(tmp_path, 8, threads=1)
    assert "2 of 8 blends drawn" in caplog.text
    assert reading["blends"] == 2
    monkeypatch.setattr(blends, "blended", lambda *given: None)
    with pytest.raises(BlendError, match="no light of a cell falls into another"):
        learn(tmp_path, 8, threads=1)


def test_a_cell_that_cannot_be_blended_takes_the_place_of_no_other(model, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(learning, "BLENDED_CELLS", 4)
    table, _ = write_cells(tmp_path, 18)
    green = patterned_planes(18, 1)
    # The first three of six cells of a location, of which two are wanted, have no green light.
    green[np.flatnonzero(table["label_3"] == 1)[:3]] = 0
    rewrite_colour(tmp_path, "green", table, green)
    with caplog.at_level(logging.INFO, "hpaloc"):
        learn(tmp_path, 8)
    assert "blends of 4 cells" in caplog.text


def test_a_location_whose_cells_cannot_be_blended_is_not_read(model, tmp_path, caplog):
    table, examples = write_cells(tmp_path, 12)
    # A third location, without green light.
    third = table["label_18"] == 1
    table.loc[third, ["label_18", "label_7"]] = [0, 1]
    table.to_parquet(examples)
    green = patterned_planes(12, 1)
    green[third] = 0
    rewrite_colour(tmp_path, "green", table, green)
    with caplog.at_level(logging.INFO, "hpaloc"):
        reading = learn(tmp_path, 8)
    assert f"fractions of {NAMES[7]} are not read" in caplog.text
    assert reading["classes"] == [NAMES[0], NAMES[3]]
    assert [name for name, row in reading["prototypes"].items() if row] == [NAMES[0], NAMES[3]]


@pytest.fixture(scope="module")
def with_reading(network_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reading")
    shutil.copytree(network_folder, folder / "model")
    write_cells(folder, 12)
    learn(folder, 8)
    return folder / "model"


def changed(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_copied_folder_reads_the_same_and_a_folder_of_an_older_version_too(with_reading, tmp_path):
    copy, old = tmp_path / "copy", tmp_path / "old"
    shutil.copytree(with_reading, copy)
    reading = load_reading(copy)
    assert reading == load_reading(with_reading) is not None
    # The reading stood among the thresholds.
    shutil.copytree(with_reading, old, ignore=shutil.ignore_patterns("mixtures*"))
    assert load_reading(old) is None
    changed(old / "thresholds.json", mixtures=reading)
    assert load_reading(old) == reading
    np.testing.assert_array_equal(read_prototypes(old)[0], read_prototypes(copy)[0])
    # Where it is of an earlier run, and not asked for, the prototypes are of the thresholds, which have none.
    assert read_prototypes(copy, mixtures=False) is None


def test_without_a_reading_the_prototypes_are_of_probabilities(network_folder, tmp_path):
    shutil.copytree(network_folder, tmp_path / "model")
    changed(tmp_path / "model/thresholds.json", prototypes={"Cytosol": [0.0] * 16 + [0.9, 0.1, 0.0], "Nucleoli": None})
    prototypes, outputs = read_prototypes(tmp_path / "model")
    assert outputs == PROBABILITIES
    np.testing.assert_array_equal(prototypes[16, 16:], [0.9, 0.1, 0.0])
    assert np.isnan(np.delete(prototypes, 16, axis=0)).all()
    changed(tmp_path / "model/thresholds.json", prototypes={"Cytosol": [1.0]})
    with pytest.raises(ModelError, match=r"thresholds\.json: the prototype of 'Cytosol'"):
        read_prototypes(tmp_path / "model")


def renewed(folder):
    write_checksums(folder, ("checksums.json", "mixtures.json"), to="mixtures.checksums.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: changed(folder / "mixtures.json", intercept=[0, 0]), r"mixtures\.json was changed"),
        (lambda folder: (folder / "mixtures.json").unlink(), r"mixtures\.json is missing"),
        (lambda folder: (folder / "mixtures.checksums.json").unlink(), r"mixtures\.checksums\.json is missing"),
        # The folder of another network.
        (lambda folder: changed(folder / "checksums.json", **{"model.keras": "0"}), r"checksums\.json was changed"),
        (
            lambda folder: (changed(folder / "mixtures.json", scale=[1]), renewed(folder)),
            r"mixtures\.scale is not",
        ),
        (lambda folder: ((folder / "mixtures.json").write_text("{"), renewed(folder)), r"mixtures\.json: is not JSON"),
        (
            lambda folder: (changed(folder / "mixtures.json", prototypes={"Nucleoli": [1]}), renewed(folder)),
            r"mixtures\.json: the prototype of 'Nucleoli'",
        ),
        (
            lambda folder: (changed(folder / "config.json", channels=["red", "green"]), renewed(folder)),
            r"mixtures\.json: mixtures are read from green and blue",
        ),
    ],
)
def test_a_reading_that_was_changed_or_is_of_another_network_is_refused(with_reading, tmp_path, change, message):
    shutil.copytree(with_reading, tmp_path / "copy")
    change(tmp_path / "copy")
    with pytest.raises(ModelError, match=message):
        load_reading(tmp_path / "copy")
