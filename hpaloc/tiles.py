"""From a segmented field to its measured cells and to one square tile per cell and colour, shard by shard."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpaloc.allocation import keep_freed_memory
from hpaloc.cutting import fit, square
from hpaloc.files import atomic_path
from hpaloc.image_metadata import check_pixel_size, read_each
from hpaloc.images import check_field, find_odd_colours, read_field
from hpaloc.levels import HEADROOM
from hpaloc.manifests import ManifestRow, unchanged
from hpaloc.masks import mask_path, read_mask
from hpaloc.measuring import find_implausible, measure_field
from hpaloc.pixels.detector import find_empty
from hpaloc.progress import log, track
from hpaloc.rejection import check_rejected
from hpaloc.rle import MAX_PIXELS
from hpaloc.tables import CELLS, FIELDS, to_table, write_table
from hpaloc.tfrecord import FORMATS, TileRecord, frame
from hpaloc.threads import in_order

# Memory of the libraries in MB, and of a pixel of a field being tiled in bytes: on 5120 x 5120 px, 26 were measured
# with 8 bits and 40 with 16.
_LIBRARIES_MB = 300
_BYTES_PER_PIXEL = 30


@dataclass
class TiledField:
    """The result of a field: its row of FIELDS, its rows of CELLS, and per colour the framed records of its cells."""

    row: dict[str, Any]
    cells: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, list[bytes]] = field(default_factory=dict)


def tile_field(
    field: str,
    images: Mapping[str, np.ndarray],
    cells: np.ndarray,
    nuclei: np.ndarray,
    pixel_size: float,
    size: int = 256,
    mask_neighbours: bool = False,
    format: str = "png",
    bits: Mapping[str, int | None] | None = None,
    empty: np.ndarray | None = None,
    enlarge: bool = True,
) -> TiledField:
    """Measure every cell of a field and cut its tiles, which hold the levels above the field's background.

    images: {colour: (H, W) uint8 or uint16}, of one type
    cells, nuclei: (H, W) label images with shared ids
    pixel_size: µm
    size: px, the side of a tile
    mask_neighbours: set everything but the cell itself to zero before resizing
    format: of the records, png or raw
    bits: {colour: the significant bits that its file gives}
    empty: (H, W) bool, where the field has no data, as ``find_empty`` returns it
    enlarge: whether a cell smaller than a tile is enlarged; a ready-made crop is padded instead
    Returns the measured columns of the field's row, a row per cell in the order of ids, and the cells' records per
    colour in the same order.
    Raises ValueError if shapes or pixel types differ.
    """
    row, rows = measure_field(field, images, cells, nuclei, pixel_size, bits, empty)
    records: dict[str, list[bytes]] = {colour: [] for colour in images}
    black = {colour: round(row[f"{colour}_background"]) for colour in images}
    above = {colour: cv2.subtract(image, np.array([float(black[colour])])) for colour, image in images.items()}
    for cell in rows:
        box = np.s_[cell["y0"] : cell["y1"], cell["x0"] : cell["x1"]]
        for colour, image in above.items():
            crop = image[box] * (cells[box] == cell["cell"]) if mask_neighbours else image[box]
            tile = fit(square(crop), size, enlarge)
            record = TileRecord(field, cell["cell"], tile, HEADROOM * (row[f"{colour}_white"] - black[colour]))
            records[colour].append(frame(record.encode(format)))
    return TiledField(row, rows, records)


def _tile_row(
    manifest: ManifestRow,
    segmented: Mapping[str, Any],
    folder: Path,
    size: int,
    mask_neighbours: bool,
    enlarge: bool,
    format: str,
    max_pixels: int,
) -> TiledField:
    """Read and tile the field of one manifest row; an error of the field becomes its reason for rejection."""
    row: dict[str, Any] = {"field": manifest.id, "n_cells": 0}
    row |= {name: segmented[name] for name in ("height", "width", "dtype", "pixel_size", "stage", "reason")}
    row |= {"status": "rejected", "warnings": ""}
    if segmented["status"] != "ok":
        return TiledField(row)
    row["stage"] = "tile"
    try:
        with unchanged(manifest.paths, manifest.states):
            images = read_field(manifest.paths, max_pixels=max_pixels)
            headers = read_each(manifest.paths)
        check_field(images, manifest.paths)
        empty = find_empty(images)
        warnings = find_odd_colours(images, empty)
        warnings += check_pixel_size(row["pixel_size"], manifest.paths, headers)
        bits = {colour: header.significant_bits for colour, header in headers.items()}
        cells = read_mask(mask_path(folder, manifest.id, "cell"))
        nuclei = read_mask(mask_path(folder, manifest.id, "nucleus"))
        tiled = tile_field(
            manifest.id, images, cells, nuclei, row["pixel_size"], size, mask_neighbours, format, bits, empty, enlarge
        )
    except (OSError, ValueError) as error:
        row["reason"] = " ".join(str(error).split()) or type(error).__name__
        return TiledField(row)
    warnings += find_implausible(tiled.row, tiled.cells)
    tiled.row = row | tiled.row | {"status": "ok", "reason": "", "warnings": "; ".join(warnings)}
    return tiled


def tile_shard(
    rows: Sequence[ManifestRow],
    segmentation_dir: str | os.PathLike[str],
    cells_path: str | os.PathLike[str],
    fields_path: str | os.PathLike[str],
    tile_paths: Mapping[str, str | os.PathLike[str]],
    size: int = 256,
    mask_neighbours: bool = False,
    threads: int = 1,
    max_rejected_fraction: float = 0.05,
    format: str = "png",
    memory_mb: int | None = None,
    enlarge: bool = True,
) -> None:
    """Measure and cut every cell of a shard's fields.

    Writes the tables CELLS and FIELDS and, per colour, a TFRecord file with the same cells in the same order: fields as
    in ``rows``, cells by id. A field rejected by segmentation stays rejected; one that cannot be read now, or that by
    itself would not fit into ``memory_mb``, is rejected with the stage ``tile``. Each image is read once, and the bytes
    written do not depend on ``threads``.

    segmentation_dir: the masks and fields.parquet of the rule ``segment``
    cells_path, fields_path, tile_paths: the files to write; tiles by colour
    size, mask_neighbours, format, enlarge: as in ``tile_field``
    threads: the fields processed at a time, fewer if memory is short
    memory_mb: MB, the memory of the job; None does not limit it
    Raises TooManyRejected, after writing the tables, if more than ``max_rejected_fraction`` of the fields (rounded up)
    are rejected, and ValueError if the segmentation has no row for a field.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown tile format {format!r}, expected one of {', '.join(FORMATS)}")
    keep_freed_memory()
    folder = Path(segmentation_dir)
    segmented = {row["field"]: row for row in pq.read_table(folder / "fields.parquet").to_pylist()}
    unknown = [row.id for row in rows if row.id not in segmented]
    if unknown:
        raise ValueError(f"{folder / 'fields.parquet'}: has no row for field {unknown[0]}")
    field_rows: list[dict[str, Any]] = []
    cell_tables = [CELLS.empty_table()]
    fits = MAX_PIXELS
    if memory_mb is not None:
        fits = max(0, memory_mb - _LIBRARIES_MB) * 10**6 // _BYTES_PER_PIXEL
        largest = max((row["height"] * row["width"] for row in segmented.values() if row["status"] == "ok"), default=1)
        threads = max(1, min(threads, fits // max(largest, 1)))
    jobs = iter([(row, segmented[row.id], folder, size, mask_neighbours, enlarge, format, fits) for row in rows])
    with ExitStack() as stack:
        files = {
            colour: stack.enter_context(open(stack.enter_context(atomic_path(path)), "wb"))
            for colour, path in tile_paths.items()
        }
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for tiled in track(in_order(pool, _tile_row, jobs, threads), total=len(rows)):
            field_rows.append(tiled.row)
            cell_tables.append(to_table(tiled.cells, CELLS))
            for colour, records in tiled.records.items():
                files[colour].writelines(records)
    cells = pa.concat_tables(cell_tables).combine_chunks()
    write_table(cells_path, cells)
    write_table(fields_path, to_table(field_rows, FIELDS))
    rejected = [(row["field"], row["reason"]) for row in field_rows if row["status"] != "ok"]
    log.info("%d cells of %d fields tiled, %d fields rejected", cells.num_rows, len(rows), len(rejected))
    check_rejected(rejected, len(rows), max_rejected_fraction)
