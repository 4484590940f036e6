"""A small predicted shard on disk, for the tests of the exports."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from browsed_cells import predictions_of
from tile_fields import CELLS, make_field, tile, write_shard
from workflow_runs import snakemake, write_config

from hpaloc.layout import CollectionFiles
from hpaloc.manifests import ManifestRow
from hpaloc.masks import mask_path, read_mask

# The second is one that a shell or a path would stumble over.
IDS = ("field-0", "é<b> & 'c'")


@dataclass
class PredictedShard:
    """The files of a shard, its manifest, and what is in its tables."""

    manifest: list[ManifestRow]
    segmentation: Path
    cells: Path
    fields: Path
    predictions: Path

    def masks(self, field):
        """Return the label images of the cells and the nuclei of a field."""
        return tuple(read_mask(mask_path(self.segmentation, field, kind)) for kind in ("cell", "nucleus"))


def write_predicted_shard(folder, dtype="uint8"):
    """Write a shard of two fields with cells, of one without cells, and of one that was rejected.

    In the first field, cell 2 is in two parts, cell 3 has a hole and cell 4 has no nucleus. In the second, one pixel of
    cell 2 touches the others only at a corner.
    """
    fields = {id: make_field(number, dtype=dtype) for number, id in enumerate(IDS)}
    fields["empty"] = make_field(7, cells=CELLS[:0], dtype=dtype)
    fields["rejected"] = make_field(8, dtype=dtype)
    _, cells, nuclei = fields[IDS[0]]
    for id, away in zip(IDS, (3, 1), strict=True):
        y, x = min(zip(*(fields[id][1] == 2).nonzero(), strict=True))
        fields[id][1][y - away, x - away] = 2
    cells[120:123, 40] = nuclei[120:123, 40] = 0
    nuclei[nuclei == 4] = 0
    rows, segmentation = write_shard(folder / "shard", fields)
    table = pd.read_parquet(segmentation / "fields.parquet")
    table.loc[table["field"] == "rejected", ["status", "reason"]] = ["rejected", "out of focus"]
    table.to_parquet(segmentation / "fields.parquet")
    cells_path, fields_path, _ = tile(rows, segmentation, folder / "shard/tables", max_rejected_fraction=1.0)
    predictions = folder / "shard/predictions.parquet"
    pq.write_table(predictions_of(pd.read_parquet(cells_path)), predictions)
    return PredictedShard(rows, segmentation, cells_path, fields_path, predictions)


def write_predicted_run(folder):
    """Write a collection ``new`` of one shard with its images, tables and predictions where a run has them, and a
    configuration of it; return the shard.
    """
    shard = write_predicted_shard(folder)
    files = CollectionFiles("new", ["000"], folder=folder)
    for kind in ("segmentation", "cells", "fields", "predictions"):
        files.path(kind, "000").parent.mkdir(parents=True, exist_ok=True)
        setattr(shard, kind, shutil.move(getattr(shard, kind), files.path(kind, "000")))
    collection = {"images": "shard/{id}_{colour}.png", "shards": 1}
    write_config(folder / "config.yaml", collections={"new": collection}, pixel_size=0.08, model={"path": "model"})
    return shard


def export(folder, format, *arguments):
    """Run the job and the target of an export, and no other rule, in a folder of ``write_predicted_run``."""
    rules = [f"{format}_shard", f"export_{format}"]
    return snakemake(folder, f"export_{format}", "--allowed-rules", *rules, *arguments)
