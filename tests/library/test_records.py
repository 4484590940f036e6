"""Tile records: the format against TensorFlow's own, zipping of colours, and the training data."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_fields import make_field, tile, write_shard

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from hpaloc import records, tables, tfrecord
from hpaloc.classes import COLOURS
from hpaloc.examples import EXAMPLES, LABEL_COLUMNS, PARTS
from hpaloc.joining import read_cells
from hpaloc.tables import TableError

pytestmark = pytest.mark.network


def test_writing_needs_no_tensorflow():
    code = "import sys, hpaloc.records, hpaloc.tiles; print(any(m.startswith('tensorflow') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


features = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.one_of(
        st.binary(max_size=300),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=32, allow_nan=False),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(features)
def test_examples_are_tensorflow_s_and_come_back(values):
    payload = tfrecord.encode_example(values)
    parsed = tf.train.Example.FromString(payload).features.feature
    assert set(parsed) == set(values)
    for name, value in values.items():
        kind = {bytes: "bytes_list", int: "int64_list", float: "float_list"}[type(value)]
        assert list(getattr(parsed[name], kind).value) == [value]
    assert tfrecord.decode_example(payload) == values
    foreign = tf.train.Example(features=tf.train.Features(feature=dict(parsed)))
    assert tfrecord.decode_example(foreign.SerializeToString()) == values


def test_framing_is_tensorflow_s(tmp_path):
    payloads = [b"", b"x", os.urandom(5000)]
    (tmp_path / "ours").write_bytes(b"".join(map(tfrecord.frame, payloads)))
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "ours"))] == payloads
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in payloads:
            writer.write(payload)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert list(tfrecord.read_records(tmp_path / "ours")) == payloads
    offsets = tfrecord.record_offsets(tmp_path / "ours")
    with open(tmp_path / "ours", "rb") as file:
        assert [tfrecord.read_record_at(file, offset) for offset in reversed(offsets)] == payloads[::-1]


@pytest.mark.parametrize("damage", ["cut", "flip", "garbage"])
def test_damage_is_noticed_and_the_file_named(tmp_path, damage):
    path = tmp_path / "green.tfrecord"
    data = bytearray(tfrecord.frame(b"a" * 100) + tfrecord.frame(b"b" * 100))
    if damage == "cut":
        data = data[:-30]
    elif damage == "flip":
        data[150] ^= 1
    else:
        data = bytearray(b"this is no record file at all")
    path.write_bytes(data)
    with pytest.raises(tfrecord.RecordError, match=r"green\.tfrecord"):
        list(tfrecord.read_records(path))
    if damage != "flip":
        with pytest.raises(tfrecord.RecordError, match=r"green\.tfrecord"):
            tfrecord.record_offsets(path)


def test_an_example_that_is_none_is_an_error():
    for payload in (b"", b"\x00\x01", b"\x0a\xff\x01abc", b"nonsense"):
        with pytest.raises(ValueError, match=r"tf\.train\.Example"):
            tfrecord.decode_example(payload)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two shards of three fields, of 8 and 16 bit, tiled as PNG and raw."""
    folder = tmp_path_factory.mktemp("shards")
    result = {"cells": [], "png": [], "raw": []}
    for shard in range(2):
        fields = {
            f"s{shard}f{seed}": make_field(10 * shard + seed, dtype=np.uint16 if seed == 1 else np.uint8)
            for seed in range(3)
        }
        rows, segmentation = write_shard(folder / f"in{shard}", fields)
        for format in ("png", "raw"):
            cells, _, tiles = tile(rows, segmentation, folder / f"{format}{shard}", format=format)
            result[format].append(tiles)
        result["cells"].append(cells)
    return result


def paths(shards, format="png"):
    return {colour: [str(tiles[colour]) for tiles in shards[format]] for colour in COLOURS}


def test_tiles_are_read_in_order_and_normalised(shards):
    table = read_cells(shards["cells"])
    elements = list(records.tile_dataset(paths(shards), COLOURS, input_size=48).as_numpy_iterator())
    assert [(e["field"].decode(), int(e["cell"])) for e in elements] == [
        *zip(table["field"], table["cell"], strict=True)
    ]
    for channel, colour in enumerate(COLOURS):
        stored = [
            tfrecord.TileRecord.decode(payload)
            for path in paths(shards)[colour]
            for payload in tfrecord.read_records(path)
        ]
        for element, record in zip(elements, stored, strict=True):
            expected = np.clip(record.tile / record.white, 0, 1) * 255
            assert abs(element["image"][..., channel] - expected).max() <= 0.51
    assert elements[0]["image"].dtype == np.uint8


def test_raw_and_png_tiles_read_alike(shards):
    png = records.tile_dataset(paths(shards), ["green", "blue"], 32)
    raw = records.tile_dataset(paths(shards, "raw"), ["green", "blue"], 32)
    for a, b in zip(png.as_numpy_iterator(), raw.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        assert a["field"] == b["field"]


@pytest.mark.parametrize("side", [17, 32, 48, 50, 96])
def test_tiles_are_resized_as_tensorflow_resizes(shards, side):
    elements = records.tile_dataset(paths(shards), ["green", "blue"], side).as_numpy_iterator()
    for element, stored in zip(
        elements, records.tile_dataset(paths(shards), ["green", "blue"], 48).as_numpy_iterator(), strict=True
    ):
        expected = tf.image.resize(stored["image"], (side, side), antialias=True).numpy()
        # The pixels of the second are rounded before they are resized.
        assert abs(element["image"] - expected).max() <= 1.01


def test_tiles_of_8_and_16_bit_are_read_alike(tmp_path):
    tile = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    for format in ("png", "raw"):
        for number, dtype in enumerate((np.uint8, np.uint16)):
            record = tfrecord.TileRecord("f", number, tile.astype(dtype), 200.0)
            (tmp_path / f"{format}{number}").write_bytes(tfrecord.frame(record.encode(format)))
        files = {"green": [tmp_path / f"{format}{number}" for number in range(2)]}
        eight, sixteen = records.tile_dataset(files, ["green"], 24).as_numpy_iterator()
        np.testing.assert_array_equal(eight["image"], sixteen["image"])


def test_colours_of_different_depths_are_an_error(tmp_path):
    files = {}
    for colour, dtype in (("green", np.uint8), ("red", np.uint16)):
        record = tfrecord.TileRecord("f", 1, np.zeros((32, 32), dtype), 200.0)
        files[colour] = [tmp_path / colour]
        files[colour][0].write_bytes(tfrecord.frame(record.encode("raw")))
    with pytest.raises(tf.errors.InvalidArgumentError, match="different depths"):
        list(records.tile_dataset(files, ["green", "red"], 32))


def test_any_subset_of_colours_is_read_from_its_own_files_only(shards):
    only = {"yellow": paths(shards)["yellow"], "green": paths(shards)["green"]}
    everything = next(iter(records.tile_dataset(paths(shards), COLOURS, 32).as_numpy_iterator()))["image"]
    two = records.tile_dataset(only, ["yellow", "green"], 32)
    assert two.element_spec["image"].shape == (32, 32, 2)
    assert int(two.cardinality()) == 24
    np.testing.assert_array_equal(next(iter(two.as_numpy_iterator()))["image"], everything[..., [3, 1]])
    with pytest.raises(ValueError, match="no tiles of the channel 'red'"):
        records.tile_dataset(only, ["red"], 32)


def test_colours_that_disagree_are_an_error(shards, tmp_path):
    files = paths(shards)
    swapped = {**files, "green": files["green"][::-1]}
    with pytest.raises(tf.errors.InvalidArgumentError, match="different cells"):
        list(records.tile_dataset(swapped, ["red", "green"], 32))
    with pytest.raises(ValueError, match="different numbers"):
        records.tile_dataset({**files, "green": files["green"][:1]}, ["red", "green"], 32)
    with pytest.raises(FileNotFoundError, match=r"gone\.tfrecord"):
        records.tile_dataset({**files, "green": [str(tmp_path / "gone.tfrecord")]}, ["red", "green"], 32)


def make_examples(shards, seed=0):
    """Examples in random order: every cell once, the last five as validation, one synthetic, one copied."""
    table = read_cells(shards["cells"])
    rng = np.random.default_rng(seed)
    table = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
    table = pd.concat([table, table.iloc[[0]]], ignore_index=True)
    n = len(table)
    part = np.array(["train"] * (n - 5) + ["validation"] * 5)
    position = np.r_[np.arange(12), np.arange(n - 17), np.arange(5)]
    shard = np.r_[np.zeros(12), np.ones(n - 17), np.zeros(5)]
    labels = rng.integers(0, 2, (n, 19))
    examples = pd.DataFrame(
        {
            "part": part,
            "record_shard": shard,
            "position": position,
            "field": table["field"],
            "cell": table["cell"],
            "key": [tfrecord.cell_key(f, c) for f, c in zip(table["field"], table["cell"], strict=True)],
            "shard": table["shard"],
            "row": table["row"],
            "group": table["field"],
            "origin": "real",
            "copy": 0,
            "copies": 1,
            "green_scale": 1.0,
            "weight": rng.random(n).astype(np.float32),
            "labels": "0",
            **{column: labels[:, index] for index, column in enumerate(LABEL_COLUMNS)},
        }
    )
    examples.loc[3, ["green_scale", "origin"]] = [0.05, "synthetic"]
    # The copies share a file's order, not its places.
    ordered = examples.sort_values(["part", "record_shard", "position"], ignore_index=True)
    return tables.to_table(ordered, EXAMPLES).to_pandas()


@pytest.fixture(scope="module")
def dataset(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset")
    examples = make_examples(shards)
    records.write_dataset(examples, paths(shards), {part: folder / part for part in PARTS})
    tables.write_table(folder / "examples.parquet", tables.to_table(examples, EXAMPLES))
    return folder, examples


def test_the_training_data_are_sharded_per_colour(dataset):
    folder, _ = dataset
    assert sorted(path.name for path in (folder / "train").iterdir()) == sorted(
        f"{colour}-0000{shard}-of-00002.tfrecord" for colour in COLOURS for shard in range(2)
    )
    assert len(list((folder / "validation").iterdir())) == 4


def test_images_labels_and_weights_belong_together(dataset, shards):
    folder, examples = dataset
    stored = {
        (e["field"].decode(), int(e["cell"])): e["image"]
        for e in records.tile_dataset(paths(shards), COLOURS, 48).as_numpy_iterator()
    }
    for part in PARTS:
        members = examples[examples["part"] == part].sort_values(["record_shard", "position"])
        data = records.training_dataset(folder / part, folder / "examples.parquet", COLOURS, 48)
        assert int(data.cardinality()) == len(members)
        assert data.element_spec[0].shape == (48, 48, 4)
        for (image, label, weight), row in zip(data.as_numpy_iterator(), members.itertuples(), strict=True):
            np.testing.assert_array_equal(label, [getattr(row, column) for column in LABEL_COLUMNS])
            assert weight == np.float32(row.weight)
            whole = stored[(row.field, row.cell)]
            np.testing.assert_array_equal(image[..., [0, 2, 3]], whole[..., [0, 2, 3]])
            if row.green_scale == 1.0:
                np.testing.assert_array_equal(image[..., 1], whole[..., 1])
            else:
                assert image[..., 1].max() <= 0.06 * whole[..., 1].max() + 1
                assert whole[..., 1].max() > 0.2 * 255


def test_shuffling_changes_the_order_each_epoch_and_keeps_the_pairs(dataset):
    folder, examples = dataset
    plain = {
        image.tobytes(): label.tolist()
        for image, label, _ in records.training_dataset(folder / "train", examples, COLOURS, 48).as_numpy_iterator()
    }
    data = records.training_dataset(folder / "train", examples, COLOURS, 48, shuffle=50, seed=3)
    epochs = [[(image.tobytes(), label.tolist()) for image, label, _ in data.as_numpy_iterator()] for _ in range(2)]
    assert epochs[0] != epochs[1]
    again = records.training_dataset(folder / "train", examples, COLOURS, 48, shuffle=50, seed=3)
    assert [image.tobytes() for image, _, _ in again.as_numpy_iterator()] == [image for image, _ in epochs[0]]
    copied = {row.key for row in examples.itertuples() if (examples["key"] == row.key).sum() > 1}
    assert len(copied) == 1
    pairs = sum(plain[image] == label for image, label in epochs[0])
    # The copied cell has one image and, in this test, two labels.
    assert pairs >= len(epochs[0]) - 1


def test_a_data_set_outlives_what_made_it(dataset):
    folder, examples = dataset
    data = records.training_dataset(folder / "train", examples, ["green"], 32).repeat(3).batch(4)
    expected = [label.tolist() for _, label, _ in data.as_numpy_iterator()]
    for _ in range(20):
        records.example_dataset(examples.sample(frac=1.0))
    assert [label.tolist() for _, label, _ in data.as_numpy_iterator()] == expected


def test_an_empty_shard_among_others_and_an_empty_part_are_read(shards, dataset, tmp_path):
    _, examples = dataset
    for colour in COLOURS:
        (tmp_path / f"{colour}.tfrecord").touch()
    empty = {colour: [str(tmp_path / f"{colour}.tfrecord")] for colour in COLOURS}
    first = {colour: [*empty[colour], *of_colour] for colour, of_colour in paths(shards).items()}
    assert len(list(records.tile_dataset(empty, COLOURS, 32))) == 0
    assert len(list(records.tile_dataset(first, COLOURS, 32))) == 24
    # Nothing validates, and the tiles of the first shard are none.
    train = examples.assign(part="train", shard=examples["shard"] + 1)
    train = train.assign(record_shard=0, position=np.arange(len(train)))
    records.write_dataset(train, first, {part: tmp_path / part for part in PARTS})
    assert list((tmp_path / "validation").iterdir()) == []
    assert len(list(records.training_dataset(tmp_path / "train", train, ["green"], 32))) == len(train)
    assert len(list(records.training_dataset(tmp_path / "validation", train, ["green"], 32))) == 0


def test_bytes_depend_on_neither_threads_nor_repetition(shards, dataset, tmp_path):
    folder, _ = dataset
    records.write_dataset(
        folder / "examples.parquet", paths(shards), {part: tmp_path / part for part in PARTS}, threads=4
    )
    for part in PARTS:
        for path in (folder / part).iterdir():
            assert (tmp_path / part / path.name).read_bytes() == path.read_bytes()


def test_an_old_data_set_is_replaced_whole(shards, dataset, tmp_path):
    _, examples = dataset
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "green-00007-of-00008.tfrecord").write_bytes(b"old")
    records.write_dataset(examples, paths(shards), {part: tmp_path / part for part in PARTS})
    assert "green-00007-of-00008.tfrecord" not in {path.name for path in (tmp_path / "train").iterdir()}


def test_tiles_of_other_cells_than_the_examples_name_are_an_error(shards, dataset, tmp_path):
    _, examples = dataset
    out = {part: tmp_path / part for part in PARTS}
    wrong = examples.assign(row=examples["row"].to_numpy()[::-1])
    with pytest.raises(TableError, match="not the cell that the examples name"):
        records.write_dataset(wrong, paths(shards), out)
    with pytest.raises(TableError, match="has 12 tiles"):
        records.write_dataset(examples.assign(row=99), paths(shards), out)
    with pytest.raises(TableError, match="tile shard 5"):
        records.write_dataset(examples.assign(shard=5), paths(shards), out)
    with pytest.raises(TableError, match="lacks the column key"):
        records.write_dataset(examples.drop(columns="key"), paths(shards), out)
    assert list(tmp_path.iterdir()) == []


def test_examples_in_another_order_than_the_records_are_an_error(dataset):
    folder, examples = dataset
    shuffled = examples.assign(key=examples["key"].to_numpy()[::-1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in order"):
        list(records.training_dataset(folder / "train", shuffled, ["green"], 32))


def test_a_column_that_the_examples_lack_is_named(dataset):
    folder, examples = dataset
    with pytest.raises(TableError, match="lacks the column weight"):
        records.training_dataset(folder / "train", examples.drop(columns="weight"), ["green"], 32)


def test_text_columns_are_not_fed_to_the_graph(dataset):
    with pytest.raises(TableError, match="the column field of the examples is"):
        records.example_dataset(dataset[1], ["field"])


@pytest.mark.skipif(not tf.__version__.startswith("2.16."), reason="tensorflow-io loads with TensorFlow 2.16 only")
def test_tensorflow_io_and_tensorflow_read_the_same_rows(dataset, caplog, monkeypatch):
    caplog.set_level("INFO", "hpaloc")
    columns = [*LABEL_COLUMNS, "weight", "green_scale", "key", "position"]
    # Two batches.
    examples = pd.concat([dataset[1]] * 50)
    assert len(examples) > 1024
    read = {}
    for found in ("tensorflow-io", "TensorFlow"):
        monkeypatch.setattr(records, "_TENSORFLOW_OF_IO", tf.__version__ if found == "tensorflow-io" else "none")
        caplog.clear()
        read[found] = list(records.example_dataset(examples, columns).as_numpy_iterator())
        assert f"{found} reads the labels" in caplog.text.replace(f" {tf.__version__}", "")
    for one, other in zip(*read.values(), strict=True):
        assert list(one) == list(other) == columns
        for column in columns:
            np.testing.assert_array_equal(one[column], other[column])
            assert one[column].dtype == other[column].dtype
    for column in columns:
        values = np.concatenate([batch[column] for batch in read["TensorFlow"]])
        np.testing.assert_array_equal(values, examples[column])


def test_damaged_images_are_an_error():
    good = tfrecord.TileRecord("f", 1, np.arange(64, dtype=np.uint8).reshape(8, 8), 10.0).encode()
    fields = tfrecord.decode_example(good)
    for change in ({"image": b"no png"}, {"size": 9}, {"depth": 16}):
        with pytest.raises(ValueError, match="stated size and depth"):
            tfrecord.TileRecord.decode(tfrecord.encode_example(fields | change))
    del fields["white"]
    with pytest.raises(ValueError, match="feature 'white'"):
        tfrecord.TileRecord.decode(tfrecord.encode_example(fields))
    with pytest.raises(ValueError, match="unknown tile format"):
        tfrecord.TileRecord("f", 1, np.zeros((8, 8), np.uint8), 1.0).encode("jpeg")


def test_png_tiles_are_ordinary_pngs():
    tile_16 = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    image = tfrecord.decode_example(tfrecord.TileRecord("f", 1, tile_16, 10.0).encode())["image"]
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED), tile_16)
