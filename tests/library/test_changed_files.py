"""Files that change between the plan of a run and the stage that reads them."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from tile_fields import make_field, tile, write_shard

from hpaloc import rle
from hpaloc.classes import COLOURS
from hpaloc.mask_tables import read_tables
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.tables import FIELDS

LEVELS = {f"{colour}_{what}": level for colour in COLOURS for what, level in (("background", 0.0), ("white", 255.0))}


def planned(row, **masks):
    """Return a manifest row with the states that its files have now."""
    files = row.paths | masks
    stats = {kind: os.stat(path) for kind, path in files.items()}
    states = {kind: f"{stat.st_size}:{stat.st_mtime_ns}" for kind, stat in stats.items()}
    return replace(row, **masks, states=states)


def touch(path):
    """Give a file another time, as one that takes its place has it."""
    stat = os.stat(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1000))


@pytest.fixture
def shard(tmp_path):
    """Three small fields as manifest rows with states, and their masks."""
    rows, segmentation = write_shard(tmp_path / "in", {f"f{seed}": make_field(seed) for seed in range(3)})
    return [planned(row) for row in rows], segmentation


def reasons(path):
    table = pd.read_parquet(path)
    return {row.field: (row.stage, row.reason) for row in table.itertuples() if row.status != "ok"}


def sentence(path):
    return f"{path}: changed after the run was planned; start the run again"


@pytest.mark.workers
def test_segmentation_rejects_a_field_whose_channel_changed(shard, tmp_path):
    rows, _ = shard
    touch(rows[1].paths["red"])
    # The error that a half-written file gives would not tell what to do.
    Path(rows[2].paths["blue"]).write_bytes(b"half")
    segment_shard(rows, tmp_path / "out", SegmentationSettings(), DaskSettings(), 1, 2000, 1.0)
    assert reasons(tmp_path / "out/fields.parquet") == {
        "f1": ("segment", sentence(rows[1].paths["red"])),
        "f2": ("segment", sentence(rows[2].paths["blue"])),
    }


@pytest.mark.workers
@pytest.mark.parametrize("table", [False, True])
def test_segmentation_rejects_a_field_whose_given_mask_changed(shard, tmp_path, table):
    rows, segmentation = shard
    if table:
        of_cells = []
        for row in rows:
            labels = cv2.imread(str(segmentation / f"{row.id}_cellmask.png"), cv2.IMREAD_UNCHANGED)
            for cell, text in rle.encode_labels(labels).items():
                of_cells.append((row.id, cell, *labels.shape, text))
        masks = [tmp_path / "masks.csv"] * 3
        pd.DataFrame(of_cells, columns=["field", "cell", "height", "width", "rle"]).to_csv(masks[0], index=False)
    else:
        masks = [segmentation / f"{row.id}_cellmask.png" for row in rows]
    rows = [planned(row, cell_mask=str(mask)) for row, mask in zip(rows, masks, strict=True)]
    settings = SegmentationSettings("masks")
    segment_shard(rows, tmp_path / "before", settings, DaskSettings(), 1, 2000, 0.0, read_tables(rows))
    touch(masks[1])
    segment_shard(rows, tmp_path / "after", settings, DaskSettings(), 1, 2000, 1.0, read_tables(rows))
    expected = {"f0", "f1", "f2"} if table else {"f1"}
    assert reasons(tmp_path / "after/fields.parquet") == dict.fromkeys(expected, ("segment", sentence(masks[1])))


def test_tiling_rejects_a_field_whose_channel_changed(shard, tmp_path):
    rows, segmentation = shard
    touch(rows[2].paths["green"])
    cells, fields, _ = tile(rows, segmentation, tmp_path / "out", max_rejected_fraction=1.0)
    assert reasons(fields) == {"f2": ("tile", sentence(rows[2].paths["green"]))}
    assert set(pd.read_parquet(cells)["field"]) == {"f0", "f1"}


def pictures(row, folder, segmentation):
    from hpaloc.browser.pictures import write_pictures
    from hpaloc.tables import PROBABILITIES

    fields = pd.DataFrame([{"field": row.id, "status": "ok"} | LEVELS])
    cells = pd.DataFrame(columns=["field", "cell"])
    predictions = pd.DataFrame(columns=list(PROBABILITIES))
    maps = np.zeros((0, 8, 8), np.uint8)
    write_pictures(folder / "out", [row], segmentation, cells, fields, predictions, maps, {row.id}, 1024)


def morphology(row, folder, segmentation):
    from hpaloc.interpretation.morphology import measure_fields

    cells = pd.DataFrame({"field": [row.id], "cell": [1]})
    measure_fields({row.id: row}, {row.id: segmentation}, {row.id: dict.fromkeys(COLOURS, (0.0, 255.0))}, cells)


def map_of_a_field(row, folder, segmentation):
    from hpaloc.interpretation.layers import field_map

    field_map(None, row, dict.fromkeys(COLOURS, (0.0, 255.0)), COLOURS, 64.0)


def figures_of_the_data(row, folder, segmentation):
    from hpaloc.figures.data import draw_data

    draw_data([row], folder)


def truth_files(row, folder):
    """Write a table of true cells, and what a channel file, their mask, was at planning."""
    from hpaloc.layout import CollectionFiles

    (folder / "cells.csv").write_text(f"ID,cell,Label\n{row.id},1,0\n")
    (folder / "truth.csv").write_text(f"id,mask,state\n{row.id},{row.paths['green']},{row.states['green']}\n")
    masks = row.paths["green"].replace(row.id, "{id}")
    return CollectionFiles("test", ["000"], [folder / "cells.csv"], masks, folder / "truth.csv")


def scores(row, folder, segmentation):
    from hpaloc.matching import match_truth, read_truth

    files = truth_files(row, folder)
    match_truth(files, read_truth(files, [row.id]), {row.id: "000"}, lambda name: None)


def truth_of_the_training(row, folder, segmentation):
    from hpaloc.matching import read_true_labels

    cells = pd.DataFrame([{"field": row.id, "cell": 1, "height": 160, "width": 190, "rle": ""}])
    fields = pd.DataFrame({"field": [row.id], "shard": [0]}).reindex(columns=[*FIELDS.names, "shard"])
    read_true_labels(cells, fields, truth_files(row, folder))


@pytest.mark.parametrize(
    "read", [pictures, morphology, map_of_a_field, figures_of_the_data, scores, truth_of_the_training]
)
def test_later_readers_stop_with_a_sentence(shard, tmp_path, read):
    if read is morphology:
        pytest.importorskip("cp_measure")
    rows, segmentation = shard
    touch(rows[0].paths["green"])
    with pytest.raises(ValueError, match="changed after the run was planned; start the run again") as error:
        read(rows[0], tmp_path, segmentation)
    assert rows[0].paths["green"] in str(error.value)
