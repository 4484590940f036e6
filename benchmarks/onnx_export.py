"""Measure how far a model as ONNX, with tiles of 8 bits, is from hpaloc's own prediction of the cells of a run.

usage: python benchmarks/onnx_export.py [--results results] [--collection test] [--cells 200] [--views 8]

Writes the model of a finished run (`make demo`) as ONNX into a temporary folder, and predicts the first cells of the
collection's first shard by onnxruntime and by TensorFlow, with 32 bits and with bfloat16. Prints how far the
probabilities are from those of 32 bits, and how many cells have the same likeliest location; and for onnxruntime also
with tiles that TensorFlow resized from the same 8 bits.
"""

import argparse
import sys
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import onnxruntime
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.exporting.onnx import write_onnx
from hpaloc.network.calls import settle_negative
from hpaloc.network.device import precision_policy
from hpaloc.network.inference import averaged
from hpaloc.network.loading import load_folder
from hpaloc.records import tile_dataset
from hpaloc.tfrecord import TileRecord, read_records

BATCH = 50


def batches(images, predict):
    """Return the probabilities that a function gives for images, batch by batch."""
    return np.concatenate([np.asarray(predict(images[at : at + BATCH])) for at in range(0, len(images), BATCH)])


def tiles_of_8_bits(path, cells):
    """Return the tiles of the first cells of a record file, (n, S, S) uint8, as a program without hpaloc makes them."""
    records = [TileRecord.decode(payload) for payload in islice(read_records(path), cells)]
    return np.stack([np.rint(255 * np.clip(each.tile / each.white, 0, 1)).astype(np.uint8) for each in records])


def predicted(model, images, views, precision):
    """Return the probabilities of TensorFlow for images of the size of the input of a model folder."""
    with precision_policy(precision):
        network, _, decision = load_folder(model)
        forward = averaged(network, views)
    return settle_negative(batches(images, lambda some: forward(some)[0]), decision["negative_rule"])


def report(name, probabilities, reference):
    """Print how far probabilities are from others, and how many cells have the same likeliest location."""
    apart = np.abs(probabilities - reference)
    same = (probabilities.argmax(axis=1) == reference.argmax(axis=1)).sum()
    print(f"{name}: mean {apart.mean():.6f}, at most {apart.max():.6f}, same location {same} of {len(apart)} cells")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--collection", default="test")
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--views", type=int, default=8)
    options = parser.parse_args()
    model = options.results / "model"
    _, config, _ = load_folder(model)
    shard = sorted((options.results / "tiles" / options.collection).glob("[0-9]*"))[0]
    paths = {colour: [str(shard / f"{colour}.tfrecord")] for colour in config["channels"]}
    tiles = np.stack([tiles_of_8_bits(of_colour, options.cells) for (of_colour,) in paths.values()], axis=-1)
    size = config["input_size"]
    images = tile_dataset(paths, config["channels"], size).take(len(tiles))
    images = np.stack([element["image"].numpy() for element in images])
    resized = np.round(tf.image.resize(tiles.astype(np.float32), (size, size), antialias=True).numpy())
    with tempfile.TemporaryDirectory() as folder:
        write_onnx(model, Path(folder) / "model.onnx", options.views)
        session = onnxruntime.InferenceSession(Path(folder) / "model.onnx")
    found = batches(tiles, lambda some: session.run(["probabilities"], {"tiles": some})[0])
    exact = predicted(model, images, options.views, "float32")
    report("onnxruntime, tiles of 8 bits", found, exact)
    report("TensorFlow, bfloat16", predicted(model, images, options.views, "mixed_bfloat16"), exact)
    same_tiles = predicted(model, resized, options.views, "float32")
    report("onnxruntime beside TensorFlow on the same tiles of 8 bits", found, same_tiles)


if __name__ == "__main__":
    main()
