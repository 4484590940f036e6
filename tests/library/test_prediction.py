import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from model_inputs import patterned_tiles, predict_shard, untrained_classifier, write_model_folder, write_tile_shard

from hpaloc import prediction
from hpaloc.classes import N_CLASSES, NEGATIVE, format_labels, label_matrix
from hpaloc.mixtures.learning import learn_reading
from hpaloc.mixtures.light import measure_light
from hpaloc.mixtures.reading import MIXTURES, read_mixtures, write_reading
from hpaloc.network.calls import call_labels, decision_thresholds, lean_on_field, settle_negative
from hpaloc.network.device import NoGpuError
from hpaloc.network.folder import write_checksums
from hpaloc.network.inference import averaged
from hpaloc.network.options import ModelError
from hpaloc.prediction import PredictionError, Predictor
from hpaloc.tables import LEANED, PROBABILITIES

pytestmark = pytest.mark.network

SIZE = 32
CHANNELS = ("green", "red")


@pytest.fixture(scope="module")
def network():
    return untrained_classifier(CHANNELS, SIZE)


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    return write_model_folder(tmp_path_factory.mktemp("model") / "m", network, CHANNELS, "sigmoid", SIZE)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    tiles = patterned_tiles(np.arange(11), SIZE, 3)
    write_tile_shard(folder, tiles, ("red", "green", "blue"))
    return folder, tiles


def paths(folder):
    return {colour: folder / f"{colour}.tfrecord" for colour in ("red", "green", "blue")}


def test_every_cell_is_predicted_in_the_order_of_the_cell_table(network, folder, shard, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "ROW_GROUP", 8)
    tile_folder, tiles = shard
    cells = tile_folder / "cells.parquet"
    predict_shard(folder, paths(tile_folder), cells, tmp_path / "out.parquet", 2, 4, "none", precision="float32")
    table = pq.read_table(tmp_path / "out.parquet")
    expected = pq.read_table(cells)
    assert table["field"].equals(expected["field"])
    assert table["cell"].equals(expected["cell"])
    assert pq.ParquetFile(tmp_path / "out.parquet").metadata.num_row_groups == 2
    probabilities, embeddings = (array.numpy() for array in averaged(network, 2)(tiles[..., [1, 0]]))
    probabilities = settle_negative(probabilities, "complement")
    found = np.stack([table[f"p_{index}"].to_numpy() for index in range(N_CLASSES)], axis=1)
    assert np.ptp(found[:, 0]) > 1e-3
    np.testing.assert_allclose(found, probabilities, rtol=1e-3, atol=1e-5)
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<")
    vectors = np.stack(table["embedding"].to_pylist())
    np.testing.assert_allclose(vectors, embeddings, rtol=2e-3, atol=1e-3)
    thresholds = np.full(N_CLASSES, 0.06)
    thresholds[NEGATIVE] = np.inf
    assert table["labels"].to_pylist() == [format_labels(labels) for labels in call_labels(found, thresholds)]
    assert len({path.name for path in tmp_path.iterdir()}) == 1


def test_an_embedding_beyond_half_precision_is_the_largest_number(shard, tmp_path):
    tile_folder, _ = shard
    # Other tests use the network as it is.
    network = untrained_classifier(CHANNELS, SIZE)
    embedding = network.get_layer("embedding")
    embedding.set_weights([weights * 1e9 for weights in embedding.get_weights()])
    folder = write_model_folder(tmp_path / "m", network, CHANNELS, "sigmoid", SIZE)
    predict_shard(folder, paths(tile_folder), tile_folder / "cells.parquet", tmp_path / "out.parquet", 1, 4, "none")
    vectors = np.stack(pq.read_table(tmp_path / "out.parquet")["embedding"].to_pylist())
    assert vectors.max() == np.finfo(np.float16).max


def test_a_shard_without_cells_gives_an_empty_table(folder, tmp_path):
    write_tile_shard(tmp_path, np.zeros((0, SIZE, SIZE, 3), np.uint8), ("red", "green", "blue"))
    predict_shard(folder, paths(tmp_path), tmp_path / "cells.parquet", tmp_path / "out.parquet", 1, 4, "none")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 0
    assert table.column_names[:3] == ["field", "cell", "p_0"]


@pytest.mark.parametrize("kept", [slice(0, 9), slice(1, None)])
def test_tiles_and_cell_table_must_agree(folder, shard, tmp_path, kept):
    tile_folder, _ = shard
    cells = pq.read_table(tile_folder / "cells.parquet").to_pandas()
    cells.iloc[kept].to_parquet(tmp_path / "cells.parquet")
    with pytest.raises(PredictionError, match="cell"):
        predict_shard(folder, paths(tile_folder), tmp_path / "cells.parquet", tmp_path / "out.parquet", 1, 4, "none")
    assert not (tmp_path / "out.parquet").exists()


def test_missing_tiles_folders_and_gpus_are_errors(folder, shard, tmp_path):
    tile_folder, _ = shard
    cells, out = tile_folder / "cells.parquet", tmp_path / "out.parquet"
    with pytest.raises(PredictionError, match="red"):
        predict_shard(folder, {"green": tile_folder / "green.tfrecord"}, cells, out, 1, 4, "none")
    with pytest.raises(ModelError, match=r"checksums\.json"):
        predict_shard(tmp_path, paths(tile_folder), cells, out, 1, 4, "none")
    with pytest.raises(NoGpuError):
        predict_shard(folder, paths(tile_folder), cells, out, 1, 4, "required")


def test_a_call_leans_on_its_field_as_far_as_asked():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(N_CLASSES), 7)
    fields = ["a"] * 4 + ["b"] * 3
    np.testing.assert_allclose(lean_on_field(p, fields, 0.0), p)
    mean = np.repeat([p[:4].mean(0), p[4:].mean(0)], [4, 3], axis=0)
    np.testing.assert_allclose(lean_on_field(p, fields, 1.0), mean)
    half = lean_on_field(p, fields, 0.5, normalise=True)
    np.testing.assert_allclose(half.sum(1), 1)
    assert (half.argmax(1) == (p * mean).argmax(1)).all()


def test_fields_torn_by_batches_lean_on_all_their_cells(folder, shard, tmp_path):
    tile_folder, _ = shard
    arguments = (folder, paths(tile_folder), tile_folder / "cells.parquet")
    tables = []
    # Five cells a field: batches of 3 tear fields apart, one of 64 holds them all.
    for weight, batch_size in ((0.0, 64), (0.7, 64), (0.7, 3)):
        predict_shard(
            *arguments, tmp_path / "p.parquet", 1, batch_size, "none", precision="float32", field_weight=weight
        )
        tables.append(pq.read_table(tmp_path / "p.parquet"))
    raw, again, torn = (np.stack([table[name].to_numpy() for name in PROBABILITIES], axis=1) for table in tables)
    leaned, torn_leaned = (np.stack([table[name].to_numpy() for name in LEANED], axis=1) for table in tables[1:])
    names = tables[0]["field"].to_pylist()
    # The weight changes no probability of a cell alone.
    np.testing.assert_allclose(again, raw, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(torn, raw, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(leaned, lean_on_field(raw, names, 0.7), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(torn_leaned, leaned, rtol=1e-3, atol=1e-6)
    assert not set(LEANED) & set(tables[0].column_names)
    # The label sets follow the leaned probabilities, at their own thresholds.
    decision = json.loads((folder / "thresholds.json").read_text())
    called = call_labels(leaned, decision_thresholds(decision, 0.7))
    assert tables[1]["labels"].to_pylist() == [format_labels(labels) for labels in called]
    assert tables[2].select(["field", "cell"]).equals(tables[0].select(["field", "cell"]))


def test_cells_are_read_as_mixtures_each_by_itself(tmp_path):
    colours = ("red", "green", "blue")
    network = untrained_classifier(colours, SIZE)
    folder = write_model_folder(tmp_path / "m", network, colours, "sigmoid", SIZE)
    tiles = patterned_tiles(np.arange(11), SIZE, 3)
    write_tile_shard(tmp_path / "tiles", tiles, colours)
    probabilities = settle_negative(averaged(network, 1)(tiles)[0].numpy(), "complement")
    light = measure_light(tiles, colours)
    reading = learn_reading(probabilities, light, label_matrix([(n % 2 * 16,) for n in range(11)]), 2)
    write_reading(folder, reading)
    predict_shard(
        folder,
        paths(tmp_path / "tiles"),
        tmp_path / "tiles/cells.parquet",
        tmp_path / "p.parquet",
        1,
        4,
        "none",
        precision="float32",
        field_weight=0.7,
    )
    table = pq.read_table(tmp_path / "p.parquet")
    found = np.stack([table[name].to_numpy() for name in MIXTURES], axis=1)
    np.testing.assert_allclose(found, read_mixtures(reading, probabilities, light), atol=2e-3)
    assert np.ptp(found[:, 16]) > 0.5
    # An earlier reading that stands in the folder is not read unasked.
    predict_shard(
        folder,
        paths(tmp_path / "tiles"),
        tmp_path / "tiles/cells.parquet",
        tmp_path / "plain.parquet",
        1,
        4,
        "none",
        mixtures=False,
    )
    assert not set(MIXTURES) & set(pq.read_schema(tmp_path / "plain.parquet").names)
    # A folder of an older version has it among the thresholds.
    for path in folder.glob("mixtures*"):
        path.unlink()
    decision = json.loads((folder / "thresholds.json").read_text())
    (folder / "thresholds.json").write_text(json.dumps(decision | {"mixtures": reading | {"intercept": [1]}}))
    write_checksums(folder, ("model.keras", "config.json", "thresholds.json"))
    with pytest.raises(ModelError, match=r"thresholds\.json: mixtures\.intercept"):
        predict_shard(folder, paths(tmp_path / "tiles"), tmp_path / "tiles/cells.parquet", tmp_path / "q.parquet")


def test_one_predictor_predicts_several_shards_as_a_predictor_each_would(folder, shard, tmp_path):
    tile_folder, tiles = shard
    write_tile_shard(tmp_path / "other", tiles[:5], ("red", "green", "blue"), 100)
    predictor = Predictor(folder, 1, 4, "none", precision="float32")
    for name, where in (("first", tile_folder), ("other", tmp_path / "other")):
        predictor.predict_shard(paths(where), where / "cells.parquet", tmp_path / f"{name}.parquet", 0.5)
        predict_shard(
            folder, paths(where), where / "cells.parquet", tmp_path / "alone.parquet", 1, 4, precision="float32",
            field_weight=0.5,
        )  # fmt: skip
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(pq.read_table(tmp_path / "alone.parquet"))


def test_some_fields_of_a_shard_are_predicted_as_with_the_others(folder, shard, tmp_path):
    tile_folder, _ = shard
    cells = tile_folder / "cells.parquet"
    options = {"views": 1, "batch_size": 4, "gpu": "none", "precision": "float32", "field_weight": 0.5}
    predict_shard(folder, paths(tile_folder), cells, tmp_path / "all.parquet", **options)
    # A field of another shard does not matter.
    asked = {"field0", "field2", "elsewhere"}
    predict_shard(folder, paths(tile_folder), cells, tmp_path / "some.parquet", fields=asked, **options)
    every, some = (pq.read_table(tmp_path / f"{name}.parquet").to_pandas() for name in ("all", "some"))
    expected = every[every["field"].isin(asked)].reset_index(drop=True)
    assert some["field"].tolist() == expected["field"].tolist() == ["field0"] * 5 + ["field2"]
    assert some["cell"].tolist() == expected["cell"].tolist()
    for columns in (PROBABILITIES, LEANED):
        np.testing.assert_allclose(some[list(columns)], expected[list(columns)], rtol=1e-4, atol=1e-6)
    predict_shard(folder, paths(tile_folder), cells, tmp_path / "none.parquet", fields=set(), **options)
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
