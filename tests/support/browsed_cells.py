"""Cell browsers of made-up cells: a small one with hostile names, and one with any number of cells."""

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tile_fields import make_field, tile, write_shard

from hpaloc.browser.page import write_page
from hpaloc.browser.pictures import shown_fields, write_pictures
from hpaloc.classes import COLOURS, N_CLASSES
from hpaloc.layout import CollectionFiles
from hpaloc.pooling import aggregate
from hpaloc.tables import PROBABILITIES

# Names as a hostile sheet might have them. None may reach the page as anything but text.
HOSTILE = (
    "\"><img src=x onerror=document.title='owned'>",
    "__proto__",
    '=1+1, "quoted"',
    "<script>document.title='owned'<\u2215script>",
)
ANTIBODY = "HPA<b onclick=alert(1)>1"
# Names that no sheet and no file system accepts, but tables from elsewhere might have.
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


def write_shard_of_cells(files, ids, most_fields=100, lacking=()):
    """Write one shard of small fields, with its predictions and pictures, and pool it; return its cell table.

    lacking: the colours that the fields lack
    """
    folder, shard = files.folder, files.shards[0]
    fields = {id: make_field(number) for number, id in enumerate(ids)}
    rows, segmentation = write_shard(folder / "fields", fields)
    for row in rows:
        for colour in lacking:
            del row.paths[colour]
    tables = dict(zip(("cells", "fields"), tile(rows, segmentation, folder / "tables"), strict=False))
    for kind in ("cells", "fields", "annotations", "predictions"):
        files.path(kind, shard).parent.mkdir(parents=True, exist_ok=True)
        if kind in tables:
            shutil.move(tables[kind], files.path(kind, shard))
    cells, table = (pd.read_parquet(files.path(kind, shard)) for kind in tables)
    pd.DataFrame({"id": table["field"], "labels": "0", "antibody": ANTIBODY, "cell_line": "", "split": ""}).to_csv(
        files.path("annotations", shard), index=False
    )
    predictions = predictions_of(cells)
    pq.write_table(predictions, files.path("predictions", shard))
    maps = np.zeros((len(cells), 8, 8), np.uint8)
    maps[:, 2, 5] = 255
    drawn = files.path("pictures", shard)
    predicted = predictions.to_pandas()
    chosen = shown_fields(list(table["field"]), most_fields)
    write_pictures(drawn, rows, segmentation, cells, table, predicted, maps, chosen, field_size=1024)
    aggregate(files, files.path("pooled_cells").parent)
    return cells


def small_browser(folder, ids=HOSTILE, most_fields=100, with_truth=True, lacking=()):
    """Write a browser of one collection named small; return the folder of its page and its cell table."""
    files = CollectionFiles("small", ["000"], folder=folder)
    out = folder / "results/browser"
    cells = write_shard_of_cells(files, ids, most_fields, lacking)
    if with_truth:
        # Every second cell is called correctly, the others are Vesicles.
        called = pd.read_parquet(files.path("pooled_cells"))["labels"].to_numpy()
        true = np.where(np.arange(len(cells)) % 2 == 0, called, "17")
        truth = files.path("scored_cells")
        truth.parent.mkdir(parents=True)
        cells[["field", "cell"]].assign(true_labels=true).iloc[:-1].to_parquet(truth)
    write_page(out, [files], ["small"] if with_truth else [])
    return out, cells


def small_files(out):
    """Return the files behind the page of a small browser."""
    return CollectionFiles("small", ["000"], folder=out.parents[1])


def rename_fields(out, names, antibody, cell_line):
    """Rename the fields of a small browser in its tables alone, and write its page again."""
    files = small_files(out)
    cells, fields = (pd.read_parquet(files.path(kind)) for kind in ("pooled_cells", "pooled_fields"))
    new = dict(zip(fields["field"], names, strict=True))
    cells["field"] = cells["field"].map(new)
    fields["field"] = fields["field"].map(new)
    cells.to_parquet(files.path("pooled_cells"))
    fields.assign(antibody=antibody, cell_line=cell_line).to_parquet(files.path("pooled_fields"))
    write_page(out, [files])
    return cells


def large_browser(folder, n, cells_a_field=20):
    """Write a browser of ``n`` cells whose pictures are copies of a few; return the folder of its page."""
    out, _ = small_browser(folder / "small", ids=[f"f{number}" for number in range(9)])
    shard = out / "small" / "000"
    field = np.array([f"field-{number:05d}" for number in range(-(-n // cells_a_field))])
    cells = pd.DataFrame({"field": np.repeat(field, cells_a_field)[:n], "cell": np.arange(n) % cells_a_field + 1})
    predictions = predictions_of(cells, seed=1).to_pandas().drop(columns="embedding")
    files = CollectionFiles("many", ["000"], folder=out.parents[1])
    files.path("pooled_cells").parent.mkdir()
    predictions.assign(shard="000", row=np.arange(n)).to_parquet(files.path("pooled_cells"))
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
    ).to_parquet(files.path("pooled_fields"))
    boxes = pd.DataFrame({"y0": 10, "x0": 10, "y1": 50, "x1": 50, "pixel_size": 0.08, "area_um2": 100.0}, np.arange(n))
    boxes = boxes.assign(**{f"{colour}_cell_mean": 1.0 for colour in COLOURS})
    boxes.index = boxes.index.astype(str)
    placed = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    anndata.AnnData(obs=boxes, obsm={"X_pca": placed, "X_umap": np.tanh(placed)}).write_h5ad(files.path("anndata"))
    many = files.path("pictures", "000")
    shutil.copytree(shard / "fields", many / "fields")
    (many / "sprites").mkdir()
    of_sheet = 32
    for number in range(-(-n // of_sheet)):
        shutil.copyfile(shard / "sprites/00000.js", many / f"sprites/{number:05d}.js")
    row = np.arange(n)
    pd.DataFrame(
        {"row": row, "picture": row // cells_a_field % 9, "sheet": row // of_sheet, "place": row % of_sheet}
    ).to_parquet(many / "cells.parquet")
    write_page(out, [files])
    return out


def chromium() -> str | None:
    """Return the path of a Chromium or Chrome on this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


def sources() -> Path:
    """Return the folder of the page's sources."""
    return Path(__file__).resolve().parents[2] / "hpaloc/browser/source"
