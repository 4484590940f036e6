"""The chain from channel files to training data: the same bytes however it is run, and every copy of a cell is read."""

import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from hpaloc import curation, records, tables
from hpaloc.classes import COLOURS
from hpaloc.examples import EXAMPLES, PARTS
from hpaloc.files import write_json
from hpaloc.finding import format_manifests
from hpaloc.joining import read_cells, read_fields
from hpaloc.manifests import ManifestRow
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.simulate.field import simulate_field
from hpaloc.tiles import tile_shard

pytestmark = pytest.mark.workers

# As many fields as workers, so that each worker of four has one.
LABELS = {"f0": (0,), "f1": (0,), "f2": (16,), "f3": (16,)}
CURATION = curation.CurationSettings(
    drop_border_cells=False,
    oversample=1.0,
    negatives=curation.NegativeSettings(synthetic_fraction=0.3, target_fraction=0.3),
    validation_fraction=0.4,
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[ManifestRow]:
    folder = tmp_path_factory.mktemp("fields")
    made = []
    for seed, (id, labels) in enumerate(LABELS.items()):
        paths = {}
        for colour, image in simulate_field(id, labels, seed, shape=(512, 512)).images.items():
            paths[colour] = str(folder / f"{id}_{colour}.png")
            cv2.imwrite(paths[colour], image)
        made.append(ManifestRow(id, labels, 0.16, antibody=f"HPA{seed}", paths=paths))
    return made


def run_chain(rows: list[ManifestRow], out: Path, workers: int) -> Path:
    """Segment, tile, curate and write the training data, with that many Dask workers and threads."""
    masks, cells, fields = out / "segmentation", out / "cells.parquet", out / "fields.parquet"
    segment_shard(rows, masks, SegmentationSettings(), DaskSettings(), workers, 16000, 0.0)
    tiles = {colour: out / f"{colour}.tfrecord" for colour in COLOURS}
    tile_shard(rows, masks, cells, fields, tiles, size=64, threads=workers)
    annotations = out / "annotations.csv"
    annotations.write_text(format_manifests(rows, [{}] * len(rows), 1)["000.annotations.csv"])
    of_cells = read_cells([cells], [annotations])
    of_fields = read_fields([fields], [annotations])
    examples, summary, _ = curation.curate(of_cells, of_fields, CURATION, seed=1)
    tables.write_table(out / "examples.parquet", tables.to_table(examples, EXAMPLES))
    write_json(out / "summary.json", summary)
    records.write_dataset(
        out / "examples.parquet",
        {colour: [path] for colour, path in tiles.items()},
        {part: out / part for part in PARTS},
        threads=workers,
    )
    return out


@pytest.fixture(scope="module")
def chain(rows, tmp_path_factory) -> Path:
    return run_chain(rows, tmp_path_factory.mktemp("one"), workers=1)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_worker_and_four_give_the_same_bytes_from_masks_to_training_data(rows, chain, tmp_path):
    four = contents(run_chain(rows, tmp_path, workers=4))
    one = contents(chain)
    assert sorted(one) == sorted(four)
    assert [name for name in one if one[name] != four[name]] == []
    # Masks, tables and records are all among what was compared, and none is empty.
    kinds = Counter(Path(name).suffix for name in one)
    assert kinds[".png"] == 2 * len(LABELS)
    assert kinds[".parquet"] == 1 + 2 + 1
    assert kinds[".tfrecord"] == len(COLOURS) * (1 + len(PARTS))
    assert all(one[name] for name in one)


def test_every_copy_of_a_cell_reaches_the_training_with_its_label_and_weight(chain):
    examples = pd.read_parquet(chain / "examples.parquet")
    train = examples[examples["part"] == "train"]
    assert train["copies"].max() > 1
    assert {"real", "synthetic"} <= set(train["origin"])
    seen: Counter = Counter()
    read = records.training_dataset(chain / "train", chain / "examples.parquet", COLOURS, 64, shuffle=1000, seed=1)
    for image, label, weight in read.as_numpy_iterator():
        seen[(image.tobytes(), tuple(np.flatnonzero(label)))] += 1
        assert weight == 1.0
    # One picture and label for each example, as often as it has copies.
    assert sorted(seen.values()) == sorted(train.loc[train["copy"] == 0, "copies"])
    by_label: Counter = Counter()
    for (_, labels), number in seen.items():
        by_label[labels] += number
    assert by_label == Counter(tuple(map(int, text.split("|"))) for text in train["labels"])
    # Oversampled all the way, the classes of the training part are equal but for rounding.
    assert max(by_label.values()) - min(by_label.values()) <= 1
