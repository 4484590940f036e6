"""Decoded tiles of a training, in memory, in a file, or decoded in every epoch."""

import logging
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from hpaloc.training import cache
from hpaloc.training.cache import kept_examples

pytestmark = pytest.mark.network

SIDE = 5
TILE_BYTES = SIDE * SIDE * 2
# Not whole blocks.
COUNTS = (150, 7)
NEEDED_MB = sum(COUNTS) * TILE_BYTES / cache.MEMORY_SHARE / 1e6
PLENTY, FEW = NEEDED_MB * 1.001, NEEDED_MB * 0.999


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.INFO, "hpaloc")


def parts():
    """Return the examples of both parts, and the number of times that the first was read so far."""
    random = np.random.default_rng(0)
    read = []
    made = []
    for count in COUNTS:
        images = random.integers(0, 256, (count, SIDE, SIDE, 2), np.uint8)
        labels = random.integers(0, 2, (count, 19)).astype(np.float32)
        # The weight names the example.
        data = tf.data.Dataset.from_tensor_slices((images, labels, np.arange(count, dtype=np.float32)))
        made.append(data)

    def note():
        read.append(1)
        return iter([0])

    counted = tf.data.Dataset.from_generator(note, output_signature=tf.TensorSpec((), tf.int64))
    made[0] = counted.flat_map(lambda _, data=made[0]: data).apply(tf.data.experimental.assert_cardinality(COUNTS[0]))
    return made, read


def order(reader, *seed):
    return [int(weight) for _, _, weight in reader(*seed).as_numpy_iterator()]


@pytest.mark.parametrize("kept", ["memory", "file", "none"])
def test_every_epoch_has_each_example_once_in_the_order_of_its_seed(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_file_system", lambda folder: "ext4")
    examples, read = parts()
    memory, scratch = {"memory": (PLENTY, tmp_path), "file": (FEW, tmp_path), "none": (FEW, None)}[kept]
    tf.random.set_seed(1)
    with kept_examples(examples, COUNTS, TILE_BYTES, memory, scratch, "a") as (readers, in_memory):
        assert in_memory == (kept == "memory")
        assert len(list(tmp_path.iterdir())) == (2 if kept == "file" else 0)
        for reader, data, count in zip(readers, examples, COUNTS, strict=True):
            for found, given in zip(reader().as_numpy_iterator(), data.as_numpy_iterator(), strict=True):
                for one, other in zip(found, given, strict=True):
                    np.testing.assert_array_equal(one, other)
                    assert one.dtype == other.dtype
            first, second = order(reader, 3), order(reader, 4)
            assert sorted(first) == sorted(second) == list(range(count))
            assert first != second
            assert first == order(reader, tf.constant(3, tf.int64))
            given = {int(weight): (image, label) for image, label, weight in data.as_numpy_iterator()}
            for image, label, weight in reader(3).as_numpy_iterator():
                np.testing.assert_array_equal(image, given[int(weight)][0])
                np.testing.assert_array_equal(label, given[int(weight)][1])
        before = len(read)
        order(readers[0], 5)
        assert len(read) - before == (1 if kept == "none" else 0)
    assert not list(tmp_path.iterdir())


def test_the_file_is_deleted_after_an_error_and_two_trainings_have_two(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_file_system", lambda folder: "ext4")

    def train(name, *others):
        with kept_examples(parts()[0], COUNTS, TILE_BYTES, FEW, tmp_path, name):
            found.append(len(list(tmp_path.iterdir())))
            if others:
                train(*others)
            raise ZeroDivisionError

    found = []
    with pytest.raises(ZeroDivisionError):
        train("a", "b")
    assert found == [2, 4]
    assert not list(tmp_path.iterdir())


def test_without_space_a_warning_says_why_every_epoch_decodes(tmp_path, monkeypatch, caplog):
    def warned(scratch):
        caplog.clear()
        with kept_examples(parts()[0], COUNTS, TILE_BYTES, FEW, scratch, "a") as (readers, in_memory):
            assert not in_memory
            assert len(order(readers[0], 1)) == COUNTS[0]
        return caplog.text

    assert "train.cache is none" in warned(None)
    assert "gone is not a folder" in warned(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    monkeypatch.setattr(cache, "_file_system", lambda folder: "tmpfs")
    assert "is in memory" in warned(tmp_path)
    monkeypatch.setattr(cache, "_file_system", lambda folder: "ext4")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: namedtuple("Usage", "free")(1000))
    assert "has 0.00 GB free" in warned(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm")
def test_a_folder_in_memory_is_known_by_its_file_system(tmp_path):
    assert cache._file_system(Path("/dev/shm")) == "tmpfs"
    (tmp_path / "link").symlink_to("/dev/shm")
    assert cache._file_system(tmp_path / "link") == "tmpfs"
    assert cache._file_system(Path("/proc")) == "proc"
