"""Compare the time to predict a shard with that of the bare model, side by side in one run.

`hpaloc.prediction.Predictor` reads tiles from TFRecords, predicts, checks every row and writes its table; the bare
model is the same folded network on one batch in memory. Both build their graph first, and both average the same views.
They take turns, and the best round of each counts. Run: python benchmarks/prediction.py [--cells 1024]
[--size 128] [--views 8] [--batch 64] [--rounds 3]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/support"))

from model_inputs import patterned_tiles, write_model_folder, write_tile_shard

from hpaloc.network.device import choose_precision, precision_policy
from hpaloc.network.inference import averaged
from hpaloc.network.loading import load_folder
from hpaloc.network.resnet import classifier
from hpaloc.prediction import Predictor

CHANNELS = ("red", "green", "blue")
TILE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1024)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiles = patterned_tiles(np.arange(options.cells) % 19, TILE, 3)
        write_tile_shard(folder / "tiles", tiles, CHANNELS)
        model_dir = write_model_folder(
            folder / "model", classifier(CHANNELS, "sigmoid", options.size), CHANNELS, "sigmoid", options.size
        )
        paths = {colour: folder / "tiles" / f"{colour}.tfrecord" for colour in CHANNELS}

        def shard() -> None:
            predictor = Predictor(model_dir, options.views, options.batch)
            predictor.predict_shard(paths, folder / "tiles/cells.parquet", folder / "out.parquet")

        def bare() -> None:
            with precision_policy(choose_precision("auto")):
                forward = averaged(load_folder(model_dir)[0], options.views)
            images = tf.zeros((options.batch, options.size, options.size, len(CHANNELS)), tf.uint8)
            for _ in range(-(-options.cells // options.batch)):
                forward(images)[0].numpy()

        best = {"shard": 0.0, "bare": 0.0}
        for _ in range(options.rounds):
            for kind, job in (("shard", shard), ("bare", bare)):
                start = time.perf_counter()
                job()
                best[kind] = max(best[kind], options.cells * options.views / (time.perf_counter() - start))
    print(
        f"{options.cells} cells, {options.views} views, {options.size} px, batches of {options.batch}: "
        f"predict_shard {best['shard']:.1f} images/s, bare model {best['bare']:.1f}, "
        f"ratio {best['shard'] / best['bare']:.2f}"
    )


if __name__ == "__main__":
    main()
