"""Runs of all bad fields together through the stages of the library, and the outcome of each."""

from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from bad_fields import FIELDS, MASKS, SHAPE, SUFFIXES, Bad, right_images, write_right
from model_inputs import predict_shard, write_model_folder
from workflow_runs import read_rows

from hpaloc.accounting import list_rejected
from hpaloc.classes import COLOURS
from hpaloc.config import complete
from hpaloc.field_table import join_fields
from hpaloc.finding import format_manifests
from hpaloc.manifests import ManifestRow, read_manifest
from hpaloc.mask_tables import read_tables
from hpaloc.masks import mask_path, read_mask, write_mask
from hpaloc.scan import scan_collection, write_scan
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.simulate.field import simulate_field
from hpaloc.tiles import tile_shard

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = ("green", "blue")


@dataclass
class Outcome:
    """The result of a run: outcome, stage and sentence of each field, and the cells (field, cell) of each stage."""

    fields: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    in_masks: set[tuple[str, int]] = field(default_factory=set)
    tiled: list[tuple[str, int]] = field(default_factory=list)
    predicted: list[tuple[str, int]] = field(default_factory=list)


def good(kind: str) -> list[str]:
    """Return the ids of the good fields of a run."""
    return [f"good-{n}" if kind == "fields" else f"sound-{n}" for n in range(3)]


def model_folder(folder: Path) -> Path:
    """Write the folder of a small untrained model."""
    from hpaloc.network.resnet import classifier

    return write_model_folder(folder, classifier(CHANNELS, "sigmoid", 32), CHANNELS, "sigmoid", 32)


def run(rows: Sequence[ManifestRow], segmentation: SegmentationSettings, model: Path) -> Outcome:
    """Segment, tile and predict a shard in the working directory."""
    masks, cells = Path("segmentation"), Path("cells.parquet")
    tiles = {colour: Path(f"{colour}.tfrecord") for colour in COLOURS}
    segment_shard(rows, masks, segmentation, DaskSettings(), 1, 2000, 1.0, read_tables(rows))
    tile_shard(rows, masks, cells, "fields.parquet", tiles, size=32, threads=2, max_rejected_fraction=1.0)
    predict_shard(model, tiles, cells, Path("predictions.parquet"), views=1)
    Path("000.annotations.csv").write_text(format_manifests(rows, [{}] * len(rows), 1)["000.annotations.csv"])
    join_fields({"000": "fields.parquet"}, ["000.annotations.csv"], "all.parquet")
    list_rejected({"bad": "all.parquet"}, "rejected.csv")
    found = Outcome()
    for row in pd.read_parquet("all.parquet").itertuples():
        got = "rejected" if row.status != "ok" else "warned" if row.warnings else "accepted"
        found.fields[row.field] = (got, row.stage, row.reason if got == "rejected" else row.warnings)
        if got != "rejected":
            ids = np.unique(read_mask(mask_path(masks, row.field, "cell")))
            found.in_masks |= {(row.field, int(cell)) for cell in ids if cell}
    for name, pairs in (("cells", found.tiled), ("predictions", found.predicted)):
        table = pd.read_parquet(f"{name}.parquet")
        pairs += zip(table["field"], table["cell"].tolist(), strict=True)
    found.listed = {row["field"]: row["reason"] for row in read_rows("rejected.csv")}
    return found


def run_fields(folder: Path, model: Path) -> Outcome:
    """Run every bad field of `FIELDS` and three good ones, as a collection of one shard with files on disk."""
    images = folder / "images"
    images.mkdir(parents=True)
    ids = [*good("fields"), *(bad.id for bad in FIELDS)]
    for n, id in enumerate(ids):
        write_right(images, id, right_images(n))
    for n, bad in enumerate(FIELDS, len(good("fields"))):
        bad.make(images, bad.id, right_images(n))
    with chdir(folder):
        Path("sheet.csv").write_text("\n".join(["ID", *ids]))
        patterns = [f"images/{{id}}_{{colour}}{suffix}" for suffix in SUFFIXES]
        collection = {"sheet": "sheet.csv", "images": patterns, "shards": 1, "pixel_size": 0.16}
        config = complete({"collections": {"bad": collection}, "max_rejected_fraction": 1.0})
        write_scan(scan_collection("bad", config), "results/sheet/bad")
        return run(read_manifest("results/sheet/bad/000.csv"), SegmentationSettings(**config["segmentation"]), model)


def run_masks(folder: Path, model: Path) -> Outcome:
    """Run good fields with every bad mask of `MASKS`, and three with good masks, by the backend `masks`."""
    folder.mkdir(parents=True)
    cells = simulate_field("right", (0,), 3, SHAPE, pixel_size=0.16, density=2.0).cells
    with chdir(folder):
        Path("images").mkdir()
        Path("masks").mkdir()
        rows = []
        for n, id in enumerate([*good("masks"), *(bad.id for bad in MASKS)]):
            write_right(Path("images"), id, right_images(n))
            of_field = np.roll(cells, 5 * n, axis=1)
            if n < len(good("masks")):
                path = str(write_mask(f"masks/{id}.png", of_field))
            else:
                path = str(MASKS[n - len(good("masks"))].make(Path("masks"), id, of_field))
            paths = {colour: f"images/{id}_{colour}.png" for colour in COLOURS}
            rows.append(ManifestRow(id, None, 0.16, paths=paths, cell_mask=path))
        return run(rows, SegmentationSettings("masks"), model)


def expected(bad: Bad) -> tuple[str, str]:
    return bad.outcome, bad.message.format(id=bad.id)
