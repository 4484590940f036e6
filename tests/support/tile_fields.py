"""Small made-up fields and shards for the tests of tiles, records and curation."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpaloc.classes import COLOURS
from hpaloc.manifests import ManifestRow
from hpaloc.masks import write_mask
from hpaloc.tiles import tile_shard

# Centre (y, x) and radius of the cells: the edge of the field cuts the first, the last two touch.
CELLS = ((10, 30, 24), (60, 100, 28), (120, 45, 30), (120, 92, 26))


def make_field(seed, shape=(160, 190), dtype=np.uint8, cells=CELLS, noise=1.0, green=120.0):
    """Return images by colour, cell mask and nucleus mask of a field of round cells."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    cell_mask = np.zeros(shape, np.uint16)
    nucleus_mask = np.zeros(shape, np.uint16)
    for id, (cy, cx, radius) in enumerate(cells, start=1):
        distance = np.hypot(y - cy, x - cx)
        inside = (distance < radius) & (cell_mask == 0)
        cell_mask[inside] = id
        nucleus_mask[inside & (distance < radius / 2)] = id
    images = {}
    for colour, level in zip(COLOURS, (90.0, green, 150.0, 70.0), strict=True):
        where = nucleus_mask if colour == "blue" else cell_mask
        texture = cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), 1.5)
        image = 4 + level * (where > 0) * (0.4 + texture) + rng.normal(0, noise, shape)
        top = np.iinfo(dtype).max
        images[colour] = np.clip(np.rint(image * top / 255), 0, top).astype(dtype)
    return images, cell_mask, nucleus_mask


def write_shard(folder, fields):
    """Write fields ({id: (images, cells, nuclei)}) as files; return the manifest's rows and the segmentation folder."""
    folder = Path(folder)
    segmentation = folder / "segmentation"
    segmentation.mkdir(parents=True)
    rows, table = [], []
    for id, (images, cells, nuclei) in fields.items():
        paths = {colour: str(folder / f"{id}_{colour}.png") for colour in COLOURS}
        for colour, image in images.items():
            assert cv2.imwrite(paths[colour], image)
        write_mask(segmentation / f"{id}_cellmask.png", cells)
        write_mask(segmentation / f"{id}_nucleimask.png", nuclei)
        rows.append(ManifestRow(id=id, labels=(0,), pixel_size=0.08, antibody=f"HPA{id}", paths=paths))
        table.append(
            {
                "field": id,
                "height": cells.shape[0],
                "width": cells.shape[1],
                "dtype": str(images["red"].dtype),
                "pixel_size": 0.08,
                "n_cells": int(cells.max()),
                "status": "ok",
                "stage": "segment",
                "reason": "",
            }
        )
    pq.write_table(pa.Table.from_pylist(table), segmentation / "fields.parquet")
    return rows, segmentation


def tile(rows, segmentation, out, **options):
    """Run tile_shard into a folder; return the paths of cells, fields and tiles."""
    out = Path(out)
    cells, fields = out / "cells.parquet", out / "fields.parquet"
    tiles = {colour: out / f"{colour}.tfrecord" for colour in COLOURS}
    tile_shard(rows, segmentation, cells, fields, tiles, **{"size": 48, **options})
    return cells, fields, tiles
