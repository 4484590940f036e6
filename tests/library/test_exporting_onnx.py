"""A model as ONNX: onnxruntime alone gives the probabilities and embeddings of hpaloc's own prediction."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from model_inputs import patterned_tiles, predict_shard, untrained_classifier, write_model_folder, write_tile_shard

from hpaloc.classes import NAMES
from hpaloc.network.calls import settle_negative
from hpaloc.network.folder import write_checksums
from hpaloc.network.inference import averaged
from hpaloc.network.options import NEGATIVE_RULES, ModelError
from hpaloc.tables import PROBABILITIES

pytestmark = pytest.mark.network
pytest.importorskip("tf2onnx", reason="the packages of envs/onnx.yaml are not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime, which reads what is written, is not installed")

# The network's input is smaller than the tiles, by a ratio that is not a whole number.
SIZE, TILES, CHANNELS, VIEWS = 36, 64, ("green", "red"), 8


@pytest.fixture(scope="module")
def network():
    return untrained_classifier(CHANNELS, SIZE)


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    """A model folder that says of what size the tiles are, as those of a training do."""
    folder = write_model_folder(tmp_path_factory.mktemp("model") / "m", network, CHANNELS, "sigmoid", SIZE)
    change(folder, "config.json", "preprocessing", lambda made: {**made, "tiles": {"size": TILES}})
    return folder


def change(folder, name, key, value):
    """Change a setting of a model folder, with its checksums."""
    settings = json.loads((folder / name).read_text())
    settings[key] = value(settings[key])
    (folder / name).write_text(json.dumps(settings))
    write_checksums(folder, ("model.keras", "config.json", "thresholds.json"))


def write(model, path, views=VIEWS):
    from hpaloc.exporting.onnx import write_onnx

    write_onnx(model, path, views)
    return onnxruntime.InferenceSession(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run that has exported its model."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "results/export/onnx").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def session(model, folder):
    return write(model, folder / "results/export/onnx/model.onnx")


@pytest.fixture(scope="module")
def tiles():
    """Tiles of red, green and blue."""
    return patterned_tiles(np.arange(11), TILES, 3)


def of_channels(tiles):
    return tiles[..., [1, 0]]


def test_the_outputs_are_those_of_the_prediction_of_a_shard(model, session, tiles, tmp_path):
    write_tile_shard(tmp_path, tiles, ("red", "green", "blue"))
    paths = {colour: tmp_path / f"{colour}.tfrecord" for colour in ("red", "green", "blue")}
    predict_shard(
        model, paths, tmp_path / "cells.parquet", tmp_path / "out.parquet", VIEWS, gpu="none", precision="float32"
    )
    table = pq.read_table(tmp_path / "out.parquet")
    expected = np.stack([table[name].to_numpy() for name in PROBABILITIES], axis=1)
    probabilities, embedding = session.run(["probabilities", "embedding"], {"tiles": of_channels(tiles)})
    # A network that is not trained, on tiles that it has not seen: some of its probabilities are always 0 or 1.
    assert (np.ptp(expected, axis=0) > 0.05).sum() > 6
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-4)
    # The table has embeddings of 16 bits.
    np.testing.assert_allclose(embedding, np.stack(table["embedding"].to_pylist()), rtol=1e-3, atol=1e-3)


def test_the_embedding_is_that_of_the_network(network, session, tiles):
    import tensorflow as tf

    small = tf.round(tf.image.resize(tf.cast(of_channels(tiles), tf.float32), (SIZE, SIZE), antialias=True))
    probabilities, embedding = (output.numpy() for output in averaged(network, VIEWS)(small))
    found = session.run(None, {"tiles": of_channels(tiles)})
    np.testing.assert_allclose(found[0], settle_negative(probabilities, "complement"), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found[1], embedding, rtol=1e-4, atol=1e-4)


def test_input_and_outputs_are_named_and_take_any_number_of_cells(session, tiles):
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("tiles", "tensor(uint8)", [TILES, TILES, 2])
    assert [output.name for output in session.get_outputs()] == ["probabilities", "embedding"]
    together = session.run(None, {"tiles": of_channels(tiles)})
    alone = session.run(None, {"tiles": of_channels(tiles[3:4])})
    for many, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(many[3:4], one, rtol=1e-4, atol=1e-5)


def test_the_metadata_say_what_goes_in_and_what_comes_out(session):
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["locations"]) == list(NAMES)
    assert json.loads(said["channels"]) == list(CHANNELS)
    assert json.loads(said["thresholds"])["Nucleoplasm"] == 0.06
    assert json.loads(said["tiles"])["size"] == TILES
    assert said["views"] == str(VIEWS)


@pytest.mark.parametrize("rule", NEGATIVE_RULES)
def test_negative_follows_each_rule(rule):
    from hpaloc.exporting.onnx import _settled

    probabilities = np.random.default_rng(0).random((5, len(NAMES))).astype(np.float32)
    np.testing.assert_allclose(_settled(probabilities, rule), settle_negative(probabilities, rule), atol=1e-6)


def test_tiles_of_the_size_of_the_input_are_not_resized(network, tiles, tmp_path):
    folder = write_model_folder(tmp_path / "m", network, CHANNELS, "sigmoid", SIZE)
    change(folder, "thresholds.json", "negative_rule", lambda _: "mean")
    small = of_channels(tiles)[:, :SIZE, :SIZE]
    expected = settle_negative(averaged(network, 1)(small)[0].numpy(), "mean")
    found = write(folder, tmp_path / "model.onnx", 1).run(["probabilities"], {"tiles": small})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_the_ten_lines_of_the_page_run(folder, session, tiles, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs/exports.md").read_text(encoding="utf-8")
    program = page.split("## ONNX", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    assert len(program.splitlines()) <= 10
    monkeypatch.chdir(folder)
    np.save("tiles.npy", of_channels(tiles))
    run = {}
    exec(compile(program, "docs/exports.md", "exec"), run)
    probabilities = session.run(["probabilities"], {"tiles": of_channels(tiles)})[0]
    assert run["called"] == [NAMES[index] for index in probabilities.argmax(axis=1)]


def test_a_changed_model_is_refused(model, tmp_path):
    from hpaloc.exporting.onnx import write_onnx

    (tmp_path / "m").mkdir()
    for path in model.iterdir():
        (tmp_path / "m" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "m/thresholds.json").write_text("{}")
    with pytest.raises(ModelError, match=r"thresholds\.json"):
        write_onnx(tmp_path / "m", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
