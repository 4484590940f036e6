"""Pictures of the cell browser: fields with their outlines, and small pictures of cells in sprite sheets.

A page that is opened from disk may not read other files as data, but may run scripts. So every sheet is a script that
delivers one text: JSON with the images in base64.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from hpaloc.classes import COLOURS
from hpaloc.cutting import square
from hpaloc.images import ImageError, read_field
from hpaloc.levels import scaled
from hpaloc.manifests import ManifestRow, unchanged
from hpaloc.masks import mask_path, read_mask
from hpaloc.progress import log, track
from hpaloc.tables import calling_columns

# The planes of a sheet, from top to bottom: the four colours, the cell's mask, its activation map.
PLANES = (*COLOURS, "mask", "activation")
# A sheet is read whole for any of its cells: small enough to be fast, large enough for few files.
COLUMNS, ROWS = 8, 4
# A multiple of JPEG's blocks, so that neighbours on a sheet do not affect each other.
SPRITE_SIZE = 96
_QUALITY = (cv2.IMWRITE_JPEG_QUALITY, 85)
# The greatest distance of an outline from that of the mask, px of the picture.
_OUTLINE_TOLERANCE = 0.6


def shown_fields(fields: Sequence[str], most: int) -> set[str]:
    """Choose at most ``most`` of the named fields, by the smallest hash, so that the choice rarely changes."""
    return set(sorted(fields, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest())[:most])


def script(value: Any) -> str:
    """Return a script that delivers ``value`` to the page as a text of JSON.

    It is a text, not a literal, so that every name and value in it is only data.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return f"hpaloc.deliver({json.dumps(text)})\n"


def _jpeg(image: np.ndarray) -> str:
    return base64.b64encode(cv2.imencode(".jpg", image, _QUALITY)[1].tobytes()).decode()


def shown_levels(images: Mapping[str, np.ndarray], levels: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Convert each colour of a field to (H, W) uint8: 0 at its background, 255 at white.

    images: colour to (H, W) of any number type
    levels: ``{colour}_background`` and ``{colour}_white`` as in the field table
    """
    return {
        colour: cv2.convertScaleAbs(
            scaled(image, levels[f"{colour}_background"], levels[f"{colour}_white"], 1.0), alpha=255
        )
        for colour, image in images.items()
    }


def read_shown(
    row: ManifestRow, segmentation: Path, levels: Mapping[str, float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the label image of the cells of a field, (H, W) int, and its colours by ``shown_levels``.

    segmentation: the folder of the masks of its shard
    levels: as in ``shown_levels``

    Raises ImageError or MaskError naming a file that can no longer be read, ChangedError naming one that changed after
    the run was planned.
    """
    labels = read_mask(mask_path(segmentation, row.id, "cell"))
    try:
        with unchanged(row.paths, row.states):
            return labels, shown_levels(read_field(row.paths), levels)
    except ImageError as error:
        raise ImageError(f"field {row.id} can no longer be read: {error}") from error


def outlines(labels: np.ndarray, boxes: Mapping[int, tuple[int, int, int, int]], scale: float) -> dict[int, list[int]]:
    """Trace the outline of each cell.

    labels: (H, W) label image
    boxes: {id: (y0, x0, y1, x1)}, px, ends exclusive
    scale: from px of the field to px of the picture

    Returns {id: [x, y, x, y, …]}, a closed polygon in tenths of a pixel of the picture, the longest outline if a cell
    has several parts.
    """
    traced: dict[int, list[int]] = {}
    for id, (y0, x0, y1, x1) in boxes.items():
        inside = (labels[y0:y1, x0:x1] == id).astype(np.uint8)
        found, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not found:
            traced[id] = []
            continue
        longest = max(found, key=len).astype(np.float32)
        # Contours run through the middles of pixels.
        points = (longest[:, 0, :] + (x0 + 0.5, y0 + 0.5)) * scale
        smooth = cv2.approxPolyDP(points.astype(np.float32)[:, None], _OUTLINE_TOLERANCE, True)[:, 0]
        traced[id] = np.rint(10 * smooth).astype(int).ravel().tolist()
    return traced


def sprite(image: np.ndarray, box: tuple[int, int, int, int], size: int = SPRITE_SIZE) -> np.ndarray:
    """Cut the box (y0, x0, y1, x1) from an (H, W) uint8 image and resize it to (size, size), padded as tiles are."""
    y0, x0, y1, x1 = box
    padded = square(image[y0:y1, x0:x1])
    return cv2.resize(padded, (size, size), interpolation=cv2.INTER_AREA if len(padded) > size else cv2.INTER_CUBIC)


def field_picture(shown: Mapping[str, np.ndarray], traced: Mapping[int, Sequence[int]], size: int) -> dict[str, Any]:
    """Return the data of one field for the page: size, the four colours from top to bottom as JPEG, outlines.

    shown: colour to (H, W) uint8
    traced: id of each cell to its outline, as ``outlines`` returns them
    size: px, the longer side of the picture
    """
    height, width = shown[COLOURS[0]].shape
    scale = picture_scale(height, width, size)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    stack = np.concatenate([cv2.resize(shown[colour], fitted, interpolation=cv2.INTER_AREA) for colour in COLOURS])
    return {
        "width": stack.shape[1],
        "height": stack.shape[0] // len(COLOURS),
        "image": _jpeg(stack),
        "cells": list(traced),
        "outlines": list(traced.values()),
    }


def picture_scale(height: int, width: int, size: int) -> float:
    """Return the scale, at most 1, that reduces the longer side of a field to ``size`` px."""
    return min(1.0, size / max(height, width))


def write_pictures(
    folder: Path,
    manifest: Sequence[ManifestRow],
    segmentation: Path,
    cells: pd.DataFrame,
    fields: pd.DataFrame,
    predictions: pd.DataFrame,
    activation: np.ndarray,
    chosen: Collection[str],
    field_size: int,
) -> None:
    """Write the pictures of one shard: ``fields/NNNNN.js``, ``sprites/NNNNN.js`` and ``cells.parquet``.

    cells.parquet has, for each shown cell, its row in the shard, its field's picture, and its sheet and place on it
    (left to right, top to bottom). Cells are in the order of their location and confidence, so that cells that are
    viewed together are read together.

    manifest: the fields with their files
    segmentation: the folder of their masks
    cells, fields, predictions: the shard's tables, cells and predictions in the same order
    activation: (n, side, side) uint8, one map per cell
    chosen: the fields to show, which were segmented
    field_size: px, the longer side of their pictures

    Raises ImageError or MaskError naming a file that can no longer be read, ChangedError naming one that changed after
    the run was planned.
    """
    (folder / "fields").mkdir(parents=True)
    (folder / "sprites").mkdir()
    segmented = fields[fields["status"] == "ok"].set_index("field")
    levels: Mapping[Any, Any] = segmented[
        [f"{colour}_{what}" for colour in COLOURS for what in ("background", "white")]
    ].to_dict("index")
    rows_of = cells.groupby("field", sort=False).indices
    pictures = [row for row in manifest if row.id in chosen]
    sprites: dict[int, np.ndarray] = {}
    shown_in: dict[int, int] = {}
    for number, row in enumerate(track(pictures, what="fields drawn")):
        labels, shown = read_shown(row, segmentation, levels[row.id])
        # A colour that the collection lacks is black, so that every sheet has the same planes.
        shown = dict.fromkeys(COLOURS, np.zeros(labels.shape, np.uint8)) | shown
        boxes = {}
        for position in rows_of.get(row.id, ()):
            cell = cells.iloc[position]
            box = (int(cell["y0"]), int(cell["x0"]), int(cell["y1"]), int(cell["x1"]))
            boxes[int(cell["cell"])] = box
            lit = cv2.resize(activation[position], (SPRITE_SIZE, SPRITE_SIZE), interpolation=cv2.INTER_CUBIC)
            crop = labels[box[0] : box[2], box[1] : box[3]] == cell["cell"]
            own = sprite(crop.astype(np.uint8) * 255, (0, 0, *crop.shape))
            planes = [sprite(shown[colour], box) for colour in COLOURS]
            sprites[int(position)] = np.stack([*planes, own, lit])
            shown_in[int(position)] = number
        traced = outlines(labels, boxes, picture_scale(labels.shape[0], labels.shape[1], field_size))
        page = field_picture(shown, traced, field_size)
        (folder / "fields" / f"{number:05d}.js").write_text(script(page), encoding="utf-8")
    p = predictions[calling_columns(predictions)].to_numpy()
    order = sorted(sprites, key=lambda position: (int(p[position].argmax()), -float(p[position].max()), position))
    a_sheet = COLUMNS * ROWS
    for start in range(0, len(order), a_sheet):
        laid = sheet([sprites[position] for position in order[start : start + a_sheet]])
        (folder / "sprites" / f"{start // a_sheet:05d}.js").write_text(script({"image": _jpeg(laid)}), encoding="utf-8")
    table = {
        "row": np.array(order, np.int32),
        "picture": np.array([shown_in[position] for position in order], np.int32),
        "sheet": (np.arange(len(order)) // a_sheet).astype(np.int32),
        "place": (np.arange(len(order)) % a_sheet).astype(np.int32),
    }
    pd.DataFrame(table).to_parquet(folder / "cells.parquet", index=False)
    log.info("%d of %d fields and %d of %d cells shown", len(pictures), len(segmented), len(order), len(cells))


def sheet(sprites: Sequence[np.ndarray]) -> np.ndarray:
    """Place up to 32 sprites on one sheet, (planes · rows · S, columns · S) uint8, plane below plane.

    sprites: (planes, S, S) uint8 each; the places of missing ones stay 0
    """
    planes, size = sprites[0].shape[:2]
    laid = np.zeros((planes, ROWS * size, COLUMNS * size), np.uint8)
    for place, of_cell in enumerate(sprites):
        top, left = place // COLUMNS * size, place % COLUMNS * size
        laid[:, top : top + size, left : left + size] = of_cell
    return laid.reshape(planes * ROWS * size, COLUMNS * size)
