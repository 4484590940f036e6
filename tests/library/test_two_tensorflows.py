"""A model folder that one environment writes and another, with another TensorFlow, reads."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from model_inputs import patterned_tiles, predict_shard, untrained_classifier, write_model_folder, write_tile_shard

from hpaloc.tables import PROBABILITIES

# `make test-latest` names the interpreter of the other environment.
OTHER = os.environ.get("HPALOC_OTHER_PYTHON")
CHANNELS = ("red", "green")
SIDE = 32

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(not OTHER, reason="HPALOC_OTHER_PYTHON names no interpreter of another environment"),
]


def write_model(folder):
    """Write a model folder, and the tiles of a shard."""
    write_model_folder(folder / "model", untrained_classifier(CHANNELS, SIDE), CHANNELS, "sigmoid", SIDE)
    write_tile_shard(folder / "tiles", patterned_tiles(np.arange(40) % 18, SIDE, 2), CHANNELS)


def predict(folder, out):
    """Predict the cells of the shard with the model of a folder."""
    tiles = {colour: folder / f"tiles/{colour}.tfrecord" for colour in CHANNELS}
    predict_shard(folder / "model", tiles, folder / "tiles/cells.parquet", out, 2, 16, "none", precision="float32")


def run(python, function, *paths):
    """Call a function of this module by an interpreter."""
    here = Path(__file__)
    code = (
        f"import sys; sys.path[:0] = {[str(here.parents[2]), str(here.parents[1] / 'support'), str(here.parent)]!r}\n"
        f"from pathlib import Path; import {here.stem} as own\n"
        f"own.{function}(*map(Path, {[str(path) for path in paths]!r}))"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("writer", ["this", "other"])
def test_both_read_a_model_folder_of_either_alike(writer, tmp_path):
    pythons = {"this": sys.executable, "other": OTHER}
    run(pythons[writer], "write_model", tmp_path)
    tables = {}
    for name, python in pythons.items():
        run(python, "predict", tmp_path, tmp_path / f"{name}.parquet")
        tables[name] = pd.read_parquet(tmp_path / f"{name}.parquet")
    this, other = tables.values()
    assert this[["field", "cell", "labels"]].equals(other[["field", "cell", "labels"]])
    assert this["labels"].nunique() > 1
    np.testing.assert_allclose(this[[*PROBABILITIES]], other[[*PROBABILITIES]], atol=1e-4)
    np.testing.assert_allclose(np.stack(this["embedding"]), np.stack(other["embedding"]), rtol=2e-3, atol=2e-3)
