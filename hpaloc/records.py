"""Tile records as tf.data: per-colour TFRecord files zipped into images, labels from Parquet through Arrow.

A tile is decoded, divided by its white, clipped, resized and rounded to uint8, which is what leaves this room; a
training keeps these (training/cache.py), so that each tile is decoded once. tensorflow-io reads the labels where it
loads, else TensorFlow itself. Only this room uses tensorflow-io, and on its floor only this room uses TensorFlow; the
functions that read import both, so that writing records needs neither.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hpaloc.classes import COLOURS, N_CLASSES
from hpaloc.examples import LABEL_COLUMNS, PARTS
from hpaloc.files import atomic_directory
from hpaloc.progress import log
from hpaloc.tables import TableError
from hpaloc.tfrecord import TileRecord, decode_example, frame, read_record_at, read_records, record_offsets

if TYPE_CHECKING:
    import tensorflow as tf

# Rows passed to the graph at a time. Single rows are 300 times slower.
_ROWS_TOGETHER = 1024
_COLUMNS = (*LABEL_COLUMNS, "weight", "key")
# The only version of TensorFlow that tensorflow-io's compiled operations load with; with others the process can crash.
_TENSORFLOW_OF_IO = "2.16."

# tensorflow-io reads Arrow memory in place, and only its own Python object keeps that memory; a data set that outlives
# the object (one that a distribution strategy has rebuilt) would read freed memory. The tables take a few bytes per
# example, so they stay until the process ends.
_arrow_memory: list[pa.Buffer] = []


def record_name(colour: str, shard: int, shards: int) -> str:
    """Return the name of one record file of a part: ``green-00003-of-00012.tfrecord``."""
    return f"{colour}-{shard:05d}-of-{shards:05d}.tfrecord"


def _read_examples(examples: pd.DataFrame | str | os.PathLike[str]) -> pd.DataFrame:
    table = examples if isinstance(examples, pd.DataFrame) else pq.read_table(examples).to_pandas()
    for column in ("part", "record_shard", "position", "shard", "row", "green_scale", "key"):
        if column not in table:
            raise TableError(f"the table of examples lacks the column {column}")
    return table


def _write_colour(
    colour: str, examples: pd.DataFrame, tiles: Sequence[Path], offsets: Mapping[int, Sequence[int]], folder: Path
) -> None:
    """Write one part of one colour, one record file at a time; ``offsets`` are those of this colour's tile files."""
    shards = int(examples["record_shard"].max()) + 1 if len(examples) else 0
    with ExitStack() as stack:
        files: dict[int, BinaryIO] = {}
        for record_shard in range(shards):
            members = examples[examples["record_shard"] == record_shard]
            payloads: list[bytes] = [b""] * len(members)
            # The tile files are read from front to back, whatever the order of the examples.
            places = zip(
                members["shard"],
                members["row"],
                members["position"],
                members["key"],
                members["green_scale"],
                strict=True,
            )
            for shard, row, position, key, scale in sorted(places, key=lambda place: place[:3]):
                if shard not in files:
                    files[shard] = stack.enter_context(open(tiles[shard], "rb"))
                if row >= len(offsets[shard]):
                    raise TableError(f"{tiles[shard]}: has {len(offsets[shard])} tiles, an example names tile {row}")
                payload = read_record_at(files[shard], offsets[shard][row])
                if decode_example(payload)["key"] != key:
                    raise TableError(f"{tiles[shard]}: tile {row} is not the cell that the examples name")
                if colour == "green" and scale != 1.0:
                    payload = _dimmed(payload, float(scale))
                payloads[position] = payload
            with open(folder / record_name(colour, record_shard, shards), "wb") as file:
                file.writelines(map(frame, payloads))


def _dimmed(payload: bytes, scale: float) -> bytes:
    record = TileRecord.decode(payload)
    dim = np.rint(record.tile.astype(np.float32) * np.float32(scale)).astype(record.tile.dtype)
    return replace(record, tile=dim).encode(decode_example(payload)["format"].decode())  # type: ignore[union-attr]


def write_dataset(
    examples: pd.DataFrame | str | os.PathLike[str],
    tiles: Mapping[str, Sequence[str | os.PathLike[str]]],
    out: Mapping[str, str | os.PathLike[str]],
    threads: int = 1,
) -> None:
    """Write the tiles of the examples, in the examples' order, as TFRecord files per part and colour.

    The green of synthetic negatives is scaled here. Each thread has one record file in memory.

    examples: a table EXAMPLES or its file
    tiles: {colour: the shards' tile files, in the order of the cell tables that curation read}; a colour whose files
    are all empty, which the collection lacks, gets no files
    out: {part (train, validation): its folder, which is replaced}; files are named ``colour-NNNNN-of-NNNNN.tfrecord``
    Raises TableError if a tile is not the cell that its example names.
    """
    table = _read_examples(examples)
    unknown = set(table["part"]) - set(out)
    if unknown:
        raise TableError(f"no folder is given for the part {sorted(unknown)[0]!r} of the examples")
    paths = {colour: [Path(path) for path in of_colour] for colour, of_colour in tiles.items()}
    used = sorted(table["shard"].unique())
    for colour, of_colour in paths.items():
        if used and used[-1] >= len(of_colour):
            raise TableError(f"the examples name tile shard {used[-1]}, but {colour} has {len(of_colour)} files")
    with ThreadPoolExecutor(threads) as pool:
        offsets = {
            colour: dict(zip(used, pool.map(record_offsets, (of_colour[shard] for shard in used)), strict=True))
            for colour, of_colour in paths.items()
        }
        # The tile files of a colour that the collection lacks are empty.
        written = [colour for colour, of_shards in offsets.items() if any(of_shards.values())]
        for part, target in out.items():
            members = table[table["part"] == part]
            with atomic_directory(target) as folder:
                jobs = [
                    pool.submit(_write_colour, colour, members, paths[colour], offsets[colour], folder)
                    for colour in written
                ]
                for job in jobs:
                    job.result()
            log.info("%s: %d examples written", part, len(members))


def _first_tile(paths: Sequence[str | os.PathLike[str]]) -> tuple[str, int]:
    """Return format and side of the first tile of record files, in which all tiles have the same."""
    for path in paths:
        for payload in read_records(path):
            features = decode_example(payload)
            return features["format"].decode(), int(features["size"])  # type: ignore[union-attr]
    return "png", 1


def _streams(paths: Mapping[str, Sequence[str | os.PathLike[str]]], channels: Sequence[str]) -> "tf.data.Dataset":
    """Zip the serialized records of the channels' files: elements are tuples of a string per channel."""
    import tensorflow as tf

    for channel in channels:
        if channel not in paths:
            raise ValueError(f"there are no tiles of the channel {channel!r}, only of {', '.join(paths)}")
        missing = [os.fspath(path) for path in paths[channel] if not os.path.isfile(path)]
        if missing:
            raise FileNotFoundError(f"no such record file: {missing[0]}")
    streams = [tf.data.TFRecordDataset([os.fspath(path) for path in paths[channel]]) for channel in channels]
    return tf.data.Dataset.zip(tuple(streams))


def _resizer(size: int, input_size: int) -> Callable[["tf.Tensor"], "tf.Tensor"]:
    """Return the graph function that resizes planes (n, size, size) to an image (input_size, input_size, n).

    An output row is the weighted sum of two to four rows, so one multiplication by a sparse matrix resizes all columns
    of all planes. It takes a quarter of the time of ``tf.image.resize`` with antialias, and gives the same numbers.
    """
    import tensorflow as tf

    if size == input_size:
        return lambda planes: tf.transpose(planes, (1, 2, 0))
    weights = tf.image.resize(tf.eye(size)[..., tf.newaxis], (input_size, size), antialias=True)[..., 0]
    sparse = tf.sparse.from_dense(weights)

    def resize_rows(rows: "tf.Tensor") -> "tf.Tensor":
        resized = tf.sparse.sparse_dense_matmul(sparse, tf.reshape(rows, (size, -1)))
        return tf.reshape(resized, (input_size, *rows.shape[1:]))

    def resize(planes: "tf.Tensor") -> "tf.Tensor":
        rows = resize_rows(tf.transpose(planes, (1, 0, 2)))
        return tf.transpose(resize_rows(tf.transpose(rows, (2, 0, 1))), (1, 0, 2))

    return resize


def _check(holds: "tf.Tensor", message: str) -> "tf.Operation":
    """Return the graph operation that raises tf.errors.InvalidArgumentError unless all of ``holds`` is true."""
    import tensorflow as tf

    # The assertions of tf.debugging have a branch that gathers the values for the message, which slows the reading.
    return tf.raw_ops.Assert(condition=tf.reduce_all(holds), data=[message])


def _decoder(format: str, size: int, input_size: int) -> Callable[[tuple["tf.Tensor", ...]], dict[str, "tf.Tensor"]]:
    """Return the graph function that turns the serialized records of a cell into image, field, cell and key."""
    import tensorflow as tf

    features = {
        **{name: tf.io.FixedLenFeature((), tf.int64) for name in ("cell", "depth", "key", "size")},
        **{name: tf.io.FixedLenFeature((), tf.string) for name in ("field", "format", "image")},
        "white": tf.io.FixedLenFeature((), tf.float32),
    }
    resize = _resizer(size, input_size)

    def read(images: "tf.Tensor", dtype: "tf.DType") -> "tf.Tensor":
        if format == "png":
            pixels = tf.stack([tf.io.decode_png(image, channels=1, dtype=dtype) for image in tf.unstack(images)])
        else:
            pixels = tf.io.decode_raw(images, dtype)
        return tf.cast(tf.reshape(pixels, (images.shape[0], size, size)), tf.float32)

    @tf.autograph.experimental.do_not_convert
    def decode(records: tuple["tf.Tensor", ...]) -> dict[str, "tf.Tensor"]:
        parsed = tf.io.parse_example(tf.stack(records), features)
        with tf.control_dependencies(
            [
                _check(parsed["key"] == parsed["key"][0], "the colours' record files contain different cells"),
                _check(
                    parsed["depth"] == parsed["depth"][0], "the colours' record files have tiles of different depths"
                ),
                _check(parsed["format"] == format, "the record files have different tile formats"),
                _check(parsed["size"] == np.int64(size), "the record files have tiles of two sizes"),
            ]
        ):
            images = tf.ensure_shape(parsed["image"], len(records))
            levels = tf.cond(parsed["depth"][0] == 16, lambda: read(images, tf.uint16), lambda: read(images, tf.uint8))
            scaled = levels / parsed["white"][:, tf.newaxis, tf.newaxis]
            # No level is below 0.
            image = tf.cast(tf.round(resize(tf.minimum(scaled, 1.0)) * 255.0), tf.uint8)
            return {
                "image": tf.ensure_shape(image, (input_size, input_size, len(records))),
                "field": parsed["field"][0],
                "cell": tf.cast(parsed["cell"][0], tf.int32),
                "key": parsed["key"][0],
            }

    return decode


def tile_dataset(
    paths: Mapping[str, Sequence[str | os.PathLike[str]]],
    channels: Sequence[str] = COLOURS,
    input_size: int = 256,
    fields: Collection[str] | None = None,
) -> "tf.data.Dataset":
    """Read tiles of any subset of the colours, in the order of the files.

    A tile is divided by its white level, clipped to 0 … 1, resized (bilinear, antialiased) and scaled to 0 … 255.

    paths: {colour: its record files}, with the cells in the same order; only the files of ``channels`` are opened
    input_size: px
    fields: those whose cells are read; None for all
    Returns elements {"image": (input_size, input_size, n_channels) uint8, "field": string, "cell": int32}.
    Raises ValueError for an unknown channel and FileNotFoundError for a missing file; iterating raises
    tf.errors.InvalidArgumentError if two colours have different cells or depths, or tiles different sizes or formats,
    and DataLossError if a file is damaged.
    """
    import tensorflow as tf

    serialized = _streams(paths, channels)
    decode = _decoder(*_first_tile(paths[channels[0]]), input_size)

    @tf.autograph.experimental.do_not_convert
    def without_key(*records: "tf.Tensor") -> dict[str, "tf.Tensor"]:
        element = decode(records)
        del element["key"]
        return element

    counts = {channel: sum(len(record_offsets(path)) for path in paths[channel]) for channel in channels}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the colours have different numbers of tiles: {counts}")
    dataset = serialized.map(without_key, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if fields is not None:
        wanted = tf.constant(sorted(fields), tf.string)

        @tf.autograph.experimental.do_not_convert
        def is_wanted(element: dict[str, "tf.Tensor"]) -> "tf.Tensor":
            return tf.reduce_any(element["field"] == wanted)

        return dataset.filter(is_wanted)
    return dataset.apply(tf.data.experimental.assert_cardinality(counts[channels[0]]))


def example_dataset(examples: pd.DataFrame, columns: Sequence[str] = _COLUMNS) -> "tf.data.Dataset":
    """Feed numeric columns of the examples to tf.data, by tensorflow-io's Arrow reader if it loads.

    Returns batches {column: (n,)}, in the order of the rows.
    Raises TableError for a column that is absent or not of numbers.
    """
    import tensorflow as tf

    lacking = [column for column in columns if column not in examples]
    if lacking:
        raise TableError(f"the table of examples lacks the column {lacking[0]}")
    table = pa.Table.from_pandas(examples[list(columns)], preserve_index=False).replace_schema_metadata()
    for name, type in zip(table.column_names, table.schema.types, strict=True):
        if not (pa.types.is_integer(type) or pa.types.is_floating(type)):
            raise TableError(f"the column {name} of the examples is {type}, not a number")
    if tf.__version__.startswith(_TENSORFLOW_OF_IO) and find_spec("tensorflow_io"):
        log.info("tensorflow-io reads the labels")
        batches = _batches_by_tensorflow_io(table)
    else:
        log.info("TensorFlow %s reads the labels without tensorflow-io", tf.__version__)
        batches = _batches_by_tensorflow(table)
    return batches.map(lambda *values: dict(zip(columns, values, strict=True)))


def _batches_by_tensorflow_io(table: pa.Table) -> "tf.data.Dataset":
    import tensorflow as tf
    import tensorflow_io.arrow as tfio_arrow

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=_ROWS_TOGETHER)
    buffer = sink.getvalue()
    _arrow_memory.append(buffer)
    types = tuple(tf.as_dtype(type.to_pandas_dtype()) for type in table.schema.types)
    # Not the form from serialized batches, which returns wrong values in tensorflow-io 0.37.1.
    return tfio_arrow.ArrowDataset(
        None,
        tuple(range(len(types))),
        types,
        tuple(tf.TensorShape([]) for _ in types),
        batch_size=_ROWS_TOGETHER,
        arrow_buffer=buffer,
    )


def _batches_by_tensorflow(table: pa.Table) -> "tf.data.Dataset":
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(tuple(map(np.asarray, table.columns))).batch(_ROWS_TOGETHER)


def training_dataset(
    folder: str | os.PathLike[str],
    examples: pd.DataFrame | str | os.PathLike[str],
    channels: Sequence[str] = ("red", "green", "blue"),
    input_size: int = 224,
    shuffle: int = 0,
    seed: int | None = None,
) -> "tf.data.Dataset":
    """Read one part of the training data: images from its record files, labels and weights from the examples.

    folder: ``results/dataset/train`` or ``…/validation``; its name is the part
    examples: a table EXAMPLES or its file
    input_size: px
    shuffle: the number of records (still compressed) that each epoch shuffles further, seeded by ``seed``; 0 keeps the
    order of the record files, which were shuffled when written
    Returns unbatched elements (image (input_size, input_size, n_channels) uint8, label (19,) float32, weight float32).
    Raises ValueError for a folder that is not named after a part or a channel without records, FileNotFoundError for a
    missing record file, and TableError for examples that lack a column; iterating raises
    tf.errors.InvalidArgumentError if a tile is not the cell that its row of the examples names, and as ``tile_dataset``
    does.
    """
    import tensorflow as tf

    folder = Path(folder)
    table = _read_examples(examples)
    part = folder.name
    if part not in PARTS:
        raise ValueError(f"{folder}: the folder's name must be a part of the training data, one of {', '.join(PARTS)}")
    members = table[table["part"] == part].sort_values(["record_shard", "position"])
    shards = int(members["record_shard"].max()) + 1 if len(members) else 0
    paths = {channel: [folder / record_name(channel, shard, shards) for shard in range(shards)] for channel in channels}

    @tf.autograph.experimental.do_not_convert
    def targets(rows: dict[str, "tf.Tensor"]) -> tuple["tf.Tensor", "tf.Tensor", "tf.Tensor"]:
        labels = tf.stack([rows[column] for column in LABEL_COLUMNS], axis=-1)
        return rows["key"], tf.cast(labels, tf.float32), tf.cast(rows["weight"], tf.float32)

    rows = example_dataset(members).map(targets).unbatch()
    dataset = tf.data.Dataset.zip(_streams(paths, channels), rows)
    if shuffle:
        dataset = dataset.shuffle(shuffle, seed=seed, reshuffle_each_iteration=True)
    decode = _decoder(*_first_tile(paths[channels[0]]), input_size)

    @tf.autograph.experimental.do_not_convert
    def element(
        records: tuple["tf.Tensor", ...], row: tuple["tf.Tensor", "tf.Tensor", "tf.Tensor"]
    ) -> tuple["tf.Tensor", "tf.Tensor", "tf.Tensor"]:
        tile, (key, label, weight) = decode(records), row
        with tf.control_dependencies([_check(tile["key"] == key, "the record files and the examples differ in order")]):
            return tf.identity(tile["image"]), tf.ensure_shape(label, (N_CLASSES,)), weight

    dataset = dataset.map(element, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(members)))
