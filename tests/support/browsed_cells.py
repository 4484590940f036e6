"""Cell browsers over made-up cells: a small one with hostile names, and one with as many cells as asked for."""

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tile_fields import make_field, tile, write_shard

from hpaloc.browser.page import BrowsedCollection, write_page
from hpaloc.browser.pictures import write_pictures
from hpaloc.classes import N_CLASSES
from hpaloc.pooling import Shard, aggregate
from hpaloc.tables import PROBABILITIES

# Names as a hostile sheet might have them. None may reach the page as anything but text.
HOSTILE = (
    "\"><img src=x onerror=document.title='owned'>",
    "__proto__",
    '=1+1, "quoted"',
    "<script>document.title='owned'<\u2215script>",
)
ANTIBODY = "HPA<b onclick=alert(1)>1"
# Names that no sheet and no file system lets through, as tables made elsewhere might have them.
WORSE = (
    "</script><script>document.title='owned'</script>",
    "line\u2028separator\u2029`${document.title='owned'}`",
    "=cmd|' /C calc'!A1",
    "007",
    "constructor",
    "x" * 2000,
)
WIDTH = 6
LOCATIONS = (0, 14, 16, 18)


def predictions_of(cells, seed=0):
    """Return a table of predictions in which cell k is surest of location LOCATIONS[k % 4]."""
    generator = np.random.default_rng(seed)
    p = generator.random((len(cells), N_CLASSES)).astype(np.float32) * 0.3
    best = np.array(LOCATIONS)[np.arange(len(cells)) % len(LOCATIONS)]
    p[np.arange(len(cells)), best] = 0.5 + 0.4 * generator.random(len(cells))
    embedding = generator.normal(best[:, None], 1, (len(cells), WIDTH)).astype(np.float16)
    return pa.table(
        {
            "field": cells["field"],
            "cell": cells["cell"],
            **{name: p[:, index] for index, name in enumerate(PROBABILITIES)},
            "labels": [str(label) for label in best],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embedding.ravel()), WIDTH),
        }
    )


def write_shard_of_cells(folder, out, ids, most_fields=100):
    """Write one shard of small fields, with its predictions and pictures, and pool it; return its cell table."""
    fields = {id: make_field(number) for number, id in enumerate(ids)}
    rows, segmentation = write_shard(folder / "fields", fields)
    cells_path, fields_path, _ = tile(rows, segmentation, folder / "tables")
    cells = pd.read_parquet(cells_path)
    table = pd.read_parquet(fields_path)
    annotations = folder / "annotations.csv"
    pd.DataFrame({"id": table["field"], "labels": "0", "antibody": ANTIBODY, "cell_line": "", "split": ""}).to_csv(
        annotations, index=False
    )
    predictions = predictions_of(cells)
    pq.write_table(predictions, folder / "predictions.parquet")
    maps = np.zeros((len(cells), 8, 8), np.uint8)
    maps[:, 2, 5] = 255
    folder_of_shard, predicted = out / "small" / "000", predictions.to_pandas()
    write_pictures(folder_of_shard, rows, segmentation, cells, table, predicted, maps, most_fields, field_size=1024)
    aggregate([Shard("000", folder / "predictions.parquet", cells_path, fields_path, annotations)], folder / "pooled")
    return cells


def small_browser(folder, ids=HOSTILE, most_fields=100, with_truth=True):
    """Write a browser of one collection named small; return the folder of its page and its cell table."""
    out = folder / "browser"
    cells = write_shard_of_cells(folder, out, ids, most_fields)
    truth = None
    if with_truth:
        truth = folder / "truth.parquet"
        # Every second cell is what it is called, the others are Vesicles.
        called = pd.read_parquet(folder / "pooled/cells.parquet")["labels"].to_numpy()
        true = np.where(np.arange(len(cells)) % 2 == 0, called, "17")
        cells[["field", "cell"]].assign(true_labels=true).iloc[:-1].to_parquet(truth)
    write_page(out, {"small": BrowsedCollection(folder / "pooled", {"000": out / "small" / "000"}, truth)})
    return out, cells


def rename_fields(out, names, antibody, cell_line):
    """Give the fields of a small browser other names, behind the back of the file system, and write its page again."""
    pooled = out.parent / "pooled"
    cells, fields = (pd.read_parquet(pooled / f"{name}.parquet") for name in ("cells", "fields"))
    new = dict(zip(fields["field"], names, strict=True))
    cells["field"] = cells["field"].map(new)
    fields["field"] = fields["field"].map(new)
    cells.to_parquet(pooled / "cells.parquet")
    fields.assign(antibody=antibody, cell_line=cell_line).to_parquet(pooled / "fields.parquet")
    write_page(out, {"small": BrowsedCollection(pooled, {"000": out / "small" / "000"})})
    return cells


def large_browser(folder, n, cells_a_field=20):
    """Write a browser of ``n`` cells whose pictures are copies of a few; return the folder of its page."""
    out, _ = small_browser(folder / "small", ids=[f"f{number}" for number in range(9)])
    shard = out / "small" / "000"
    field = np.array([f"field-{number:05d}" for number in range(-(-n // cells_a_field))])
    cells = pd.DataFrame({"field": np.repeat(field, cells_a_field)[:n], "cell": np.arange(n) % cells_a_field + 1})
    predictions = predictions_of(cells, seed=1).to_pandas().drop(columns="embedding")
    pooled = folder / "pooled"
    pooled.mkdir()
    predictions.assign(shard="000", row=np.arange(n)).to_parquet(pooled / "cells.parquet")
    pd.DataFrame(
        {
            "field": field,
            "sheet_labels": "0",
            "antibody": [f"HPA{number // 5:06d}" for number in range(len(field))],
            "cell_line": "",
            "labels": "0",
            "height": 160,
            "width": 190,
            "status": "ok",
            "n_cells": cells_a_field,
        }
    ).to_parquet(pooled / "fields.parquet")
    boxes = pd.DataFrame({"y0": 10, "x0": 10, "y1": 50, "x1": 50, "pixel_size": 0.08, "area_um2": 100.0}, np.arange(n))
    boxes.index = boxes.index.astype(str)
    placed = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    anndata.AnnData(obs=boxes, obsm={"X_pca": placed, "X_umap": np.tanh(placed)}).write_h5ad(pooled / "cells.h5ad")
    many = out / "many" / "000"
    shutil.copytree(shard / "fields", many / "fields")
    (many / "sprites").mkdir()
    of_sheet = 32
    for number in range(-(-n // of_sheet)):
        shutil.copyfile(shard / "sprites/00000.js", many / f"sprites/{number:05d}.js")
    row = np.arange(n)
    pd.DataFrame(
        {"row": row, "picture": row // cells_a_field % 9, "sheet": row // of_sheet, "place": row % of_sheet}
    ).to_parquet(many / "cells.parquet")
    write_page(out, {"many": BrowsedCollection(pooled, {"000": many})})
    return out


def chromium() -> str | None:
    """Return the path of a Chromium or Chrome on this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def sources() -> Path:
    """Return the folder of the page's sources."""
    return Path(__file__).resolve().parents[2] / "hpaloc/browser/source"
