"""A page of some fields with the outlines of their cells, ready before a network has seen them."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from hpaloc.browser.pictures import outlines, picture_scale, read_shown, shown_fields
from hpaloc.files import atomic_path
from hpaloc.manifests import ManifestRow
from hpaloc.progress import log, track

# Fields on the page, and the longer side of their pictures in px.
MOST_FIELDS, SIDE = 12, 640
_WHITE = (255, 255, 255)
_STYLE = """
body { margin: 1.5rem; background: #14161a; color: #e8e8e8; font: 15px/1.5 system-ui, sans-serif; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
figure { margin: 0; } img { width: 100%; border-radius: 4px; } figcaption { overflow-wrap: anywhere; }
p { max-width: 45rem; color: #b8bcc4; }
"""


def write_preview(
    path: Path,
    collection: str,
    manifest: Sequence[ManifestRow],
    segmentation: Path,
    cells: pd.DataFrame,
    fields: pd.DataFrame,
) -> None:
    """Write a page (HTML, with its pictures) of up to ``MOST_FIELDS`` fields of a shard.

    A picture has green and blue, and red if there is one, from background to white, and the outlines of the cells.

    manifest: the fields with their files
    segmentation: the folder of their masks
    cells, fields: the shard's tables

    Raises ImageError or MaskError naming a file that can no longer be read, ChangedError naming one that changed after
    the run was planned.
    """
    segmented = fields[fields["status"] == "ok"].set_index("field")
    chosen = shown_fields(list(segmented.index), MOST_FIELDS)
    rows_of = dict(iter(cells.groupby("field", sort=False)))
    figures = []
    for row in track([row for row in manifest if row.id in chosen], what="fields drawn"):
        own = rows_of.get(row.id, cells.iloc[:0])
        picture = _draw(row, segmentation, own, segmented.loc[row.id].to_dict())
        text = base64.b64encode(cv2.imencode(".jpg", picture)[1].tobytes()).decode()
        caption = f"{escape(row.id)}: {len(own)} {'cell' if len(own) == 1 else 'cells'}"
        figures.append(
            f'<figure><img alt="" src="data:image/jpeg;base64,{text}"><figcaption>{caption}</figcaption></figure>'
        )
    name = escape(collection)
    with atomic_path(path) as temporary:
        temporary.write_text(
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Cells of {name}</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>Cells of {name}</h1>\n"
            f"<p>{len(figures)} of the {len(fields)} fields of the first shard, with the outlines of their cells. "
            "Green is the protein, blue the nuclei, red the microtubules. If cells are wrong here, stop the run and "
            "see docs/segmentation.md. The cell browser, with the calls, comes later: results/browser/index.html.</p>\n"
            f"<main>\n{chr(10).join(figures)}\n</main></body></html>\n",
            encoding="utf-8",
        )
    log.info("%d fields drawn in %s", len(figures), path)


def _draw(row: ManifestRow, segmentation: Path, cells: pd.DataFrame, levels: Mapping[Any, Any]) -> np.ndarray:
    """Return the picture of a field, (h, w, 3) uint8 in the order blue, green, red."""
    labels, shown = read_shown(row, segmentation, levels)
    scale = picture_scale(labels.shape[0], labels.shape[1], SIDE)
    size = (max(1, round(labels.shape[1] * scale)), max(1, round(labels.shape[0] * scale)))
    black = np.zeros(size[::-1], np.uint8)
    picture = cv2.merge(
        [
            cv2.resize(shown[colour], size, interpolation=cv2.INTER_AREA) if colour in shown else black
            for colour in ("blue", "green", "red")
        ]
    )
    boxes = {cell: tuple(box) for cell, *box in cells[["cell", "y0", "x0", "y1", "x1"]].to_numpy().tolist()}
    traced = [np.reshape(points, (-1, 1, 2)) // 10 for points in outlines(labels, boxes, scale).values() if points]
    return cv2.polylines(picture, traced, True, _WHITE, 1, cv2.LINE_AA)
