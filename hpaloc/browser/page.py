"""The page of the cell browser: the table of each collection's shown cells, and the program."""

import base64
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from hpaloc.browser.pictures import COLUMNS, PLANES, ROWS, SPRITE_SIZE, script
from hpaloc.classes import COLOURS, LOCATIONS, parse_labels
from hpaloc.files import atomic_path, write_text
from hpaloc.layout import CollectionFiles
from hpaloc.progress import log, track
from hpaloc.tables import calling_columns

APP = Path(__file__).parent / "app"
# The files next to the collections' folders: the page, the bundled program and style, and the licences of its parts.
APP_FILES = ("index.html", "browser.js", "browser.css", "LICENCES.txt")

# t-SNE of more cells takes minutes; the other cells are placed among these.
_MAPPED = 4000
_PLACED_BY = 5


def column(values: Any, dtype: str) -> dict[str, Any]:
    """Pack a column of numbers: {"type", "data"}, little-endian bytes in base64, as typed arrays read them."""
    array = np.ascontiguousarray(values).astype(np.dtype(dtype).newbyteorder("<"))
    return {"type": dtype, "data": base64.b64encode(array.tobytes()).decode()}


def embedding_map(coordinates: np.ndarray, seed: int = 0) -> np.ndarray:
    """Map cells to two dimensions so that neighbours stay close.

    At most 4000 cells are mapped by t-SNE (van der Maaten and Hinton 2008); each other cell is at the mean of its 5
    nearest mapped cells.

    coordinates: (n, d) float, principal components of the embeddings

    Returns (n, 2) float32, -1 to 1.
    """
    n = len(coordinates)
    if n < 5 or not coordinates.shape[1]:
        found = np.zeros((n, 2))
        found[:, : min(2, coordinates.shape[1])] = coordinates[:, :2]
    else:
        chosen = np.sort(np.random.default_rng(seed).permutation(n)[:_MAPPED])
        tsne = TSNE(init="pca", perplexity=min(30.0, (len(chosen) - 1) / 3), random_state=seed)
        mapped = tsne.fit_transform(coordinates[chosen])
        found = np.zeros((n, 2))
        found[chosen] = mapped
        rest = np.setdiff1d(np.arange(n), chosen)
        if len(rest):
            nearest = NearestNeighbors(n_neighbors=_PLACED_BY).fit(coordinates[chosen])
            found[rest] = mapped[nearest.kneighbors(coordinates[rest], return_distance=False)].mean(axis=1)
    found -= found.min(axis=0) + np.ptp(found, axis=0) / 2 if n else 0.0
    return (found / (np.abs(found).max(initial=0.0) or 1.0)).astype(np.float32)


def nearest_cells(coordinates: np.ndarray, k: int = 8) -> np.ndarray:
    """Return the indices of the k nearest other cells of each cell, (n, k) int32, -1 if there are fewer.

    coordinates: (n, d) float, compared by Euclidean distance
    """
    n = len(coordinates)
    found = np.full((n, k), -1, np.int32)
    of_each = min(k, n - 1)
    if of_each > 0 and coordinates.shape[1]:
        index = NearestNeighbors(n_neighbors=of_each + 1, algorithm="brute").fit(coordinates)
        nearest = index.kneighbors(coordinates, return_distance=False)
        for cell, row in enumerate(nearest):
            # Among equal cells, the cell itself need not come first.
            found[cell, :of_each] = row[row != cell][:of_each]
    return found


def collection_table(files: CollectionFiles, scored: bool = False, seed: int = 0) -> dict[str, Any]:
    """Return the data of one collection for the page, without its pictures.

    Cells are columns (see ``column``) in the order of their sheets. Labels are indices into ``label_sets``. The truth
    is that of the cell if the cells are ``scored`` by it (``truth_is`` "cells"), else the labels of its field
    ("fields"), -1 without either. ``lacks`` names the colours that the collection lacks, if it lacks any.

    Raises ValueError if the tables do not match.
    """
    cells, fields = (pd.read_parquet(files.path(kind)) for kind in ("pooled_cells", "pooled_fields"))
    table = anndata.read_h5ad(files.path("anndata"), backed="r")
    if len(table) != len(cells):
        raise ValueError(f"{files.path('anndata')}: has {len(table)} cells, cells.parquet next to it {len(cells)}")
    cells = cells.assign(
        position=np.arange(len(cells)),
        **{key: table.obs[key].to_numpy() for key in ("pixel_size", "area_um2")},
    )
    key_of = cells.set_index(["shard", "row"])["position"]
    drawn = zip(files.shards, files.of_shards("pictures"), strict=True)
    parts = [pd.read_parquet(folder / "cells.parquet").assign(shard=shard) for shard, folder in drawn]
    pictured = pd.concat(parts, ignore_index=True)
    shown = cells.iloc[key_of.loc[pd.MultiIndex.from_frame(pictured[["shard", "row"]])].to_numpy()]
    coordinates = np.asarray(table.obsm["X_pca"])[shown["position"].to_numpy()]
    placed = table.obsm.get("X_umap")
    if placed is None:
        map_is, placed = "t-SNE", embedding_map(coordinates, seed)
    else:
        map_is, placed = "UMAP", np.asarray(placed, np.float32)[shown["position"].to_numpy()]
    shards = list(files.shards)
    truth, truth_is = _truth(shown, fields, files.path("scored_cells") if scored else None)
    sets = {text: number for number, text in enumerate(dict.fromkeys([*shown["labels"], *filter(None, truth)]))}
    numbers = {field: number for number, field in enumerate(dict.fromkeys(shown["field"]))}
    picture_of = dict(zip(shown["field"], pictured["picture"], strict=True))
    shown_of_fields = fields.set_index("field").loc[list(numbers)]
    lacks = [colour for colour in COLOURS if len(table) and table.obs[f"{colour}_cell_mean"].isna().all()]
    p = shown[calling_columns(shown)].to_numpy(np.float64)
    columns = {
        "field": column(shown["field"].map(numbers), "uint32"),
        "cell": column(shown["cell"], "uint32"),
        "shard": column(pictured["shard"].map({shard: i for i, shard in enumerate(shards)}), "uint16"),
        "sheet": column(pictured["sheet"], "uint32"),
        "place": column(pictured["place"], "uint8"),
        "called": column(shown["labels"].map(sets), "uint16"),
        "truth": column([sets[text] if text else -1 for text in truth], "int16"),
        "likeliest": column(p.argmax(axis=1), "uint8"),
        "p": column(np.rint(255 * p.clip(0, 1)), "uint8"),
        "area": column(shown["area_um2"], "float32"),
        "map": column(placed, "float32"),
        "neighbours": column(nearest_cells(coordinates), "int32"),
    }
    return {
        "name": files.name,
        "n": len(shown),
        "cells": columns,
        "label_sets": [list(parse_labels(text)) if text else [] for text in sets],
        "truth_is": truth_is,
        "map_is": map_is,
        **({"lacks": lacks} if lacks else {}),
        "shards": shards,
        "fields": {
            "id": list(numbers),
            "antibody": shown_of_fields["antibody"].fillna("").tolist(),
            "cell_line": shown_of_fields["cell_line"].fillna("").tolist(),
            "called": shown_of_fields["labels"].fillna("").tolist(),
            "width": shown_of_fields["width"].astype(int).tolist(),
            "pixel_size": shown.groupby("field")["pixel_size"].first().loc[list(numbers)].tolist(),
            "picture": [int(picture_of[field]) for field in numbers],
        },
        "left_out": {
            "cells": len(cells) - len(shown),
            "fields": int((fields["n_cells"] > 0).sum()) - len(numbers),
            "rejected": int((fields["status"] != "ok").sum()),
        },
    }


def _truth(shown: pd.DataFrame, fields: pd.DataFrame, path: Path | None) -> tuple[list[str], str]:
    if path is not None:
        matched = pd.read_parquet(path, columns=["field", "cell", "true_labels"])
        keys = pd.MultiIndex.from_frame(shown[["field", "cell"]])
        of_cell = matched.set_index(["field", "cell"])["true_labels"].reindex(keys)
        return of_cell.fillna("").tolist(), "cells"
    of_field = fields.set_index("field")["sheet_labels"]
    texts = shown["field"].map(of_field).fillna("").tolist()
    return texts, "fields" if any(texts) else "none"


def write_page(
    folder: Path, collections: Sequence[CollectionFiles], scored: Collection[str] = (), seed: int = 0
) -> None:
    """Write the page into ``folder``: index.html, its program and style, and one table per collection.

    The pictures are already in ``folder/{collection}/{shard}``. All paths are relative, so that the folder can be
    moved, zipped and opened from disk.

    scored: names of the collections whose cells are scored by per-cell truth
    """
    written = []
    for files in track(collections, what="collections"):
        table = collection_table(files, files.name in scored, seed)
        write_text(folder / files.name / "table.js", script(table))
        written.append({"name": files.name, "n": table["n"]})
        log.info("collection %s: %d cells of %d fields shown", files.name, table["n"], len(table["fields"]["id"]))
    about = {
        "collections": written,
        "locations": [
            {"name": location.name, "short": location.short, "colour": location.colour} for location in LOCATIONS
        ],
        "sheet": {"columns": COLUMNS, "rows": ROWS, "size": SPRITE_SIZE, "planes": list(PLANES)},
    }
    write_text(folder / "about.js", script(about))
    for name in APP_FILES:
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(APP / name, temporary)
