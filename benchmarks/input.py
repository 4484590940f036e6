"""Measure how many examples a core reads for a training, from each kind of file, and compared with other readers.

usage: python benchmarks/input.py [--cells 600] [--torch PYTHON]
       python benchmarks/input.py --training 200000 [--folder FOLDER]

Cells of simulated fields are stored as tiles of 256 px in three colours, and delivered as uint8 images of 224 px in
batches of 32. The first command reads them as hpaloc does: from PNG tiles, from raw tiles, and decoded ones from
memory and from a file (train.cache). It also reads the same pixels by tf.data from one PNG or JPEG file for each cell,
and by torch's DataLoader from the same TFRecords with the package tfrecord, if this interpreter, or the one that
--torch names, has both. Everything runs in one thread on one core. Rates are per second of CPU time.

The second command trains a very small network for some epochs on so many raw tiles (links to the same few files) at
128 px, in a job of 4,000 MB, and prints examples per second and memory of each epoch.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.examples import EXAMPLES, LABEL_COLUMNS
from hpaloc.records import record_name
from hpaloc.tfrecord import cell_key

COLOURS = ("red", "green", "blue")
STORED, DELIVERED, BATCH = 256, 224, 32
ROUNDS = 3
# Of the training that is larger than memory.
SIDE, MEMORY_MB, EPOCHS, PER_FILE = 128, 4000, 4, 500


def write_examples(folder: Path, cells: int, format: str) -> Path:
    """Write the tiles of simulated cells as the part train of a training; return the table of the examples."""
    # The interpreter of torch may lack what these need.
    from hpaloc.simulate.field import simulate_field
    from hpaloc.tiles import tile_field

    keys: list[int] = []
    (folder / "train").mkdir(parents=True)
    framed: dict[str, list[bytes]] = {colour: [] for colour in COLOURS}
    number = 0
    while len(keys) < cells:
        name = f"bench-{number}"
        field = simulate_field(name, (number % 18,), seed=number)
        tiled = tile_field(name, field.images, field.cells, field.nuclei, 0.16, STORED, format=format)
        for colour, of_colour in framed.items():
            of_colour += tiled.records[colour][: cells - len(keys)]
        keys += [cell_key(name, row["cell"]) for row in tiled.cells[: cells - len(keys)]]
        number += 1
    for colour, of_colour in framed.items():
        (folder / "train" / record_name(colour, 0, 1)).write_bytes(b"".join(of_colour))
    return write_table_of(folder, keys, np.zeros(cells, int), np.arange(cells))


def write_table_of(folder: Path, keys: Iterable[int], record_shards: np.ndarray, positions: np.ndarray) -> Path:
    """Write the table of examples with these keys at these places of the record files; return its path."""
    rows = pd.DataFrame({"key": list(keys), "record_shard": record_shards, "position": positions})
    rows = rows.reindex(columns=EXAMPLES.names)
    rows = rows.assign(part="train", shard=0, row=0, green_scale=1.0, weight=1.0)
    for number, column in enumerate(LABEL_COLUMNS):
        rows[column] = (rows.index % len(LABEL_COLUMNS) == number).astype(np.int8)
    path = folder / "examples.parquet"
    rows.to_parquet(path)
    return path


def write_repeated(folder: Path, cells: int, shards: int) -> Path:
    """Write raw tiles of simulated cells once, and link them as the files of each shard; return the table of examples.

    cells: in each shard
    """
    small = folder / "small"
    keys = pd.read_parquet(write_examples(small, cells, "raw"))["key"]
    (folder / "train").mkdir()
    for colour in COLOURS:
        for shard in range(shards):
            target = folder / "train" / record_name(colour, shard, shards)
            target.hardlink_to(small / "train" / record_name(colour, 0, 1))
    places = np.arange(shards * cells)
    return write_table_of(folder, np.tile(keys, shards), places // cells, places % cells)


def write_pictures(folder: Path, examples: Any) -> None:
    """Write each example's three colours at 256 px as a PNG and a JPEG file."""
    for ending in ("png", "jpg"):
        (folder / ending).mkdir(parents=True)
    for number, (image, *_) in enumerate(examples.as_numpy_iterator()):
        for ending in ("png", "jpg"):
            cv2.imwrite(str(folder / ending / f"{number:06}.{ending}"), image[..., ::-1])


def picture_dataset(folder: Path, ending: str) -> Any:
    """Return a data set of resized pictures, by TensorFlow alone."""
    import tensorflow as tf

    def read(path: Any) -> Any:
        image = tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False)
        image = tf.ensure_shape(image, (STORED, STORED, 3))
        return tf.cast(tf.round(tf.image.resize(image, (DELIVERED, DELIVERED), antialias=True)), tf.uint8)

    paths = sorted(map(str, (folder / ending).iterdir()))
    return tf.data.Dataset.from_tensor_slices(paths).map(read)


def rate_of(dataset: Any) -> float:
    """Return examples per CPU second of one pass in one thread."""
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.autotune.enabled = False
    start, seen = time.process_time(), 0
    for batch in dataset.batch(BATCH).with_options(options):
        seen += len(batch[0] if isinstance(batch, tuple) else batch)
    return seen / (time.process_time() - start)


def measure_torch(folder: Path) -> None:
    """Print the examples per CPU second of torch's DataLoader on the raw TFRecords; run by the interpreter of torch."""
    import torch
    from tfrecord.torch.dataset import TFRecordDataset

    torch.set_num_threads(1)
    features = {"image": "byte", "white": "float"}
    colours = [
        TFRecordDataset(str(folder / f"train/{record_name(colour, 0, 1)}"), None, features) for colour in COLOURS
    ]

    class Images(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            for records in zip(*colours, strict=True):
                planes = [
                    np.frombuffer(record["image"], np.uint8).reshape(1, STORED, STORED) / record["white"]
                    for record in records
                ]
                image = torch.from_numpy(np.concatenate(planes)).float().clip(0, 1)[None]
                size = (DELIVERED, DELIVERED)
                image = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True)
                yield (image[0] * 255).round().to(torch.uint8)

    for _ in range(2):
        start, seen = time.process_time(), 0
        for batch in torch.utils.data.DataLoader(Images(), BATCH):
            seen += len(batch)
        rate = seen / (time.process_time() - start)
    print(json.dumps(rate))


def torch_rate(python: str | None, folder: Path) -> float | str:
    """Return the rate of ``measure_torch``, or the reason why there is none."""
    if python is None:
        if not (find_spec("torch") and find_spec("tfrecord")):
            return "not measured: torch or tfrecord is not installed here (name an interpreter with --torch)"
        python = sys.executable
    done = subprocess.run([python, __file__, "--serve-torch", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"not measured: {done.stderr.strip().splitlines()[-1]}"
    return float(done.stdout)


def compare(cells: int, python: str | None, folder: Path) -> None:
    """Print the rates of all readers, the best of some rounds in turns."""
    from hpaloc.records import training_dataset
    from hpaloc.training.cache import kept_examples

    folders = {format: folder / format for format in ("png", "raw")}
    tables = {format: write_examples(of_format, cells, format) for format, of_format in folders.items()}
    data = {
        format: training_dataset(folders[format] / "train", tables[format], COLOURS, DELIVERED) for format in folders
    }
    pictures = folder / "pictures"
    write_pictures(pictures, training_dataset(folders["raw"] / "train", tables["raw"], COLOURS, STORED))
    tile_bytes = DELIVERED * DELIVERED * len(COLOURS)
    scratch = folder / "scratch"
    scratch.mkdir()
    memory = kept_examples([data["raw"]], [cells], tile_bytes, 1e6, None, "")
    file = kept_examples([data["raw"]], [cells], tile_bytes, 0, scratch, "")
    with memory as ([from_memory], _), file as ([from_file], _):
        if not list(scratch.iterdir()):
            raise SystemExit(f"{scratch} cannot have the file of decoded tiles; set TMPDIR to a folder on a disk")
        readers: dict[str, Callable[[], Any]] = {
            "hpaloc, PNG tiles": lambda: data["png"],
            "hpaloc, raw tiles": lambda: data["raw"],
            "hpaloc, decoded, from memory, shuffled": lambda: from_memory(1),
            "hpaloc, decoded, from a file, shuffled": lambda: from_file(1),
            "tf.data, a PNG file for each cell": lambda: picture_dataset(pictures, "png"),
            "tf.data, a JPEG file for each cell": lambda: picture_dataset(pictures, "jpg"),
        }
        for _ in from_memory().as_numpy_iterator():
            pass
        best = dict.fromkeys(readers, 0.0)
        for _ in range(ROUNDS):
            for name, make in readers.items():
                best[name] = max(best[name], rate_of(make()))
    print(f"{cells} cells, three colours, {STORED} px stored, {DELIVERED} px delivered as uint8\n")
    print("| reader | examples per second and core |\n|---|---|")
    for name, rate in best.items():
        print(f"| {name} | {rate:,.0f} |")
    rate = torch_rate(python, folders["raw"])
    print(f"| torch DataLoader on raw TFRecords by tfrecord | {rate if isinstance(rate, str) else f'{rate:,.0f}'} |")


def train_on_many(count: int, folder: Path) -> None:
    """Train a very small network on ``count`` raw tiles in a job of 4,000 MB, and print each epoch."""
    import keras

    from hpaloc.records import training_dataset
    from hpaloc.training.fit import fit
    from hpaloc.training.settings import TrainSettings

    shards = count // PER_FILE
    table = write_repeated(folder, PER_FILE, shards)
    places = range(shards * PER_FILE)
    scratch = folder / "scratch"
    scratch.mkdir()
    inputs = keras.Input((SIDE, SIDE, len(COLOURS)))
    maps = keras.layers.Conv2D(8, 8, strides=8, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Dense(len(LABEL_COLUMNS), "sigmoid")(keras.layers.GlobalAveragePooling2D()(maps))
    network = keras.Model(inputs, outputs)

    data = training_dataset(folder / "train", table, COLOURS, SIDE)
    settings = TrainSettings(input_size=SIDE, epochs=EPOCHS, brightness=0, contrast=0, gpu="none")
    memory: list[tuple[float, float]] = []
    threading.Thread(target=watch_memory, args=(memory,), daemon=True).start()
    fit(network, data, None, (len(places), 0), settings, 0, folder / "work", MEMORY_MB, scratch)
    end = time.monotonic()
    epochs = pd.read_csv(folder / "work/history.csv")
    print("| epoch | seconds | examples per second | most memory, MB |\n|---|---|---|---|")
    for epoch, seconds, rate, left in zip(
        epochs["epoch"],
        epochs["seconds"],
        epochs["images_per_second"],
        epochs["seconds"][::-1].cumsum()[::-1],
        strict=True,
    ):
        # The last epoch ends with the training.
        most = max(megabytes for at, megabytes in memory if end - left <= at <= end - left + seconds)
        print(f"| {epoch} | {seconds:.0f} | {rate:,.0f} | {most:,.0f} |")


def watch_memory(memory: list[tuple[float, float]]) -> None:
    """Add time and resident memory in MB of this process to a list, every half second."""
    while True:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=600)
    parser.add_argument("--torch", metavar="PYTHON")
    parser.add_argument("--training", type=int, metavar="EXAMPLES")
    parser.add_argument("--folder", type=Path, help="for the files; they are removed at the end")
    parser.add_argument("--serve-torch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_torch:
        measure_torch(arguments.serve_torch)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        if arguments.training:
            logging.basicConfig(level=logging.INFO, format="%(message)s")
            train_on_many(arguments.training, Path(name))
            return
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        compare(arguments.cells, arguments.torch, Path(name))


if __name__ == "__main__":
    main()
