"""From a segmented field to measured cells and to one square tile per cell and colour."""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cc3d
import cv2
import fastremap
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hpaloc import rle
from hpaloc.classes import COLOURS
from hpaloc.files import atomic_path
from hpaloc.images import ImageError, check_field, read_field
from hpaloc.manifests import ManifestRow, unchanged
from hpaloc.masks import MaskError, compact, mask_path, read_mask
from hpaloc.progress import log, track
from hpaloc.rejection import check_rejected
from hpaloc.rle import MAX_PIXELS
from hpaloc.tables import CELLS, FIELDS, REFERENCE_COLOURS, REGIONS, to_table, write_table
from hpaloc.tfrecord import FORMATS, RecordWriter, TileRecord, frame

RING_UM = 1.0
"""Width of the membrane ring in µm: the cell's outline as wide as the light microscope draws a membrane, and a bit."""

WHITE_PERCENTILE = 99.98
WHITE_NOISE = 24.0
WHITE_FLOOR = 1 / 16
GREEN_NOISE = 12.0
GREEN_SPREAD = 5.0
GREEN_FLOOR = 5 / 255

_FINE_UM = 0.25
_COARSE_UM = 0.8
# Rows of a field that the background is measured on: neighbours along a row are kept, for the noise.
_ROW_STEP = 4
_ENOUGH_BACKGROUND = 0.005

# Nuclei that fill more of their cells, or are less bright in blue, are probably none.
_NUCLEUS_SHARE, _BLUE_CONTRAST = 0.45, 8.0

# What the libraries take, in MB, and a pixel of a field that is being tiled, in bytes: measured 26 in 8 bits and 40 in
# 16, on 5120 x 5120 px.
_LIBRARIES_MB = 300
_BYTES_PER_PIXEL = 30


@dataclass(frozen=True)
class ColourLevels:
    """Intensities of one colour of one field, in its own grey levels.

    background: the median outside the cells; spread: half of the way from there to the 97.7th percentile outside
    (one standard deviation, were it Gaussian); noise: the standard deviation from pixel to pixel; white: the level
    that a tile's reader shows as 1.0.
    """

    background: float
    spread: float
    noise: float
    white: float


def full_scale(images: Mapping[str, np.ndarray]) -> int:
    """Return the largest grey level that the field's detector could give.

    images: colour to (H, W) uint8 or uint16. 255 for 8-bit images. In 16-bit files the detector is told by the
    brightest pixel of all colours: the smallest of 8, 10, 12, 14 and 16 bits that holds it, since cameras of 12 bits
    are commonly stored in 16.
    """
    first = next(iter(images.values()))
    if first.dtype == np.uint8:
        return 255
    brightest = max(int(image.max(initial=0)) for image in images.values())
    return next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if brightest < 2**bits)


def _noise(image: np.ndarray, where: np.ndarray, at_most: float) -> float:
    """Standard deviation of the pixel noise, from the mean absolute difference of neighbours in a row.

    For Gaussian noise E|a - b| = 2 sigma / sqrt(pi). Only pairs of dark pixels count: differences between bright ones
    are structure.
    """
    dark = where & (image <= at_most)
    pairs = dark[:, 1:] & dark[:, :-1]
    if not pairs.any():
        return 0.0
    difference = cv2.absdiff(image[:, 1:], image[:, :-1])
    return float(difference[pairs].mean(dtype=np.float64) * math.sqrt(math.pi) / 2)


def colour_levels(
    image: np.ndarray, outside: np.ndarray, inside: np.ndarray, histogram: np.ndarray, scale: int
) -> ColourLevels:
    """Measure background, noise and white level of one colour of a field.

    image: (h, W), every fourth row of the field; outside, inside: (h, W) bool, pixels well away from and in cells;
    histogram: (n,) counts of the field's grey levels inside cells; scale: the detector's largest level. Returns
    ColourLevels.

    White is the 99.98th percentile inside the field's cells, which follows exposure, gain and bit depth, but never
    lower than the background plus 24 times the noise, and never lower than 1/16 of the detector's range: so a dim
    field with clean signal is stretched to full range and one with nothing but noise stays dark.
    """
    if outside.mean() >= _ENOUGH_BACKGROUND:
        values = image[outside]
    else:
        # A field without gaps between its cells: its darkest pixels stand for the background.
        values = image[image <= np.percentile(image, 2)]
        outside = image <= np.percentile(image, 2)
    background, upper = (float(level) for level in np.percentile(values, (50, 97.7)))
    spread = (upper - background) / 2
    noise = _noise(image, outside, upper)
    total = int(histogram.sum())
    if total:
        cumulative = np.cumsum(histogram)
        bright = float(np.searchsorted(cumulative, WHITE_PERCENTILE / 100 * total))
        middle = float(np.searchsorted(cumulative, total / 2))
        noise = max(noise, _noise(image, inside, middle))
    else:
        bright = upper
    white = max(bright, background + WHITE_NOISE * noise, scale * WHITE_FLOOR)
    return ColourLevels(background, spread, noise, white)


def perceptual_hash(image: np.ndarray) -> int:
    """Return a 64-bit perceptual hash: alike images differ in few bits.

    image: (H, W), uint8 or uint16. The 8 x 8 lowest cosine frequencies, without the mean, of the image reduced to
    32 x 32 and compared with their median (the pHash of C. Zauner, 2010, as in imagehash.phash). Scaling of the
    intensities leaves it as it is.
    """
    small = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def square(crop: np.ndarray) -> np.ndarray:
    """Pad an (h, w) crop of any type with zeros to (n, n), n the longer side; of an odd difference the odd pixel goes
    right or to the bottom."""
    height, width = crop.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padded = np.zeros((side, side), crop.dtype)
    padded[top : top + height, left : left + width] = crop
    return padded


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a square image bicubically, antialiased when it shrinks.

    image: (n, n) uint8 or uint16. Returns (size, size) of the same type, rounded and clipped to its range. Enlarging is
    OpenCV's INTER_CUBIC (Keys' kernel, a = -0.75); shrinking is Pillow's BICUBIC, whose kernel (a = -0.5) is stretched
    by the factor of reduction, on float32.
    """
    side = image.shape[0]
    if side == size:
        return image
    if side < size:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    resized = np.asarray(Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
    return np.clip(np.rint(resized), 0, np.iinfo(image.dtype).max).astype(image.dtype)


def _odd(pixels: float) -> int:
    return max(3, 2 * round((pixels - 1) / 2) + 1)


def _kernel(reach: int) -> np.ndarray:
    return np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _own_peak(smooth: np.ndarray, cells: np.ndarray, id: int, box: tuple[int, int, int, int], reach: int) -> float:
    """Return the brightest level of a cell that a neighbour's light does not explain.

    smooth: (H, W) image; cells: (H, W) label image; box: y0, x0, y1, x1 of the cell. An outline is right to within a
    few pixels, so a dark cell beside a lit one has some of its pixels. Where the cell is within ``reach`` px of another
    one, its median counts and not its maximum: a membrane lights the whole of a contact, a neighbour a part.
    """
    y0, x0, y1, x1 = box
    top, left = max(y0 - reach, 0), max(x0 - reach, 0)
    around = cells[top : y1 + reach, left : x1 + reach]
    own = around == id
    values = smooth[top : y1 + reach, left : x1 + reach]
    others = ((around != 0) & ~own).astype(np.uint8)
    if not others.any():
        return float(values[own].max())
    contact = cv2.dilate(others, _kernel(reach)) != 0
    apart, beside = values[own & ~contact], values[own & contact]
    return max(float(apart.max(initial=0)), float(np.median(beside)) if beside.size else 0.0)


def content(image: np.ndarray) -> int | None:
    """Return a 64-bit digest (blake2b) of an image, (H, W) of any type; None for one of a single grey level."""
    if (image == image[0, 0]).all():
        return None
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest(), "big")


@dataclass
class TiledField:
    """What a field gives: its row of FIELDS, its rows of CELLS, and per colour its cells' framed records."""

    row: dict[str, Any]
    cells: list[dict[str, Any]] = field(default_factory=list)
    records: dict[str, list[bytes]] = field(default_factory=dict)


def _common_type(field: str, images: Mapping[str, np.ndarray], cells: np.ndarray, nuclei: np.ndarray) -> np.dtype[Any]:
    """Return the pixel type of the images of a field, which have it and the shape of the masks in common."""
    for name, image in (*images.items(), ("nucleus mask", nuclei)):
        if image.shape != cells.shape:
            raise ValueError(f"field {field}: the {name} is {image.shape}, the cell mask {cells.shape}")
    dtypes = {image.dtype for image in images.values()}
    if len(dtypes) != 1:
        raise ValueError(f"field {field}: its colours are of different pixel types, {sorted(map(str, dtypes))}")
    return dtypes.pop()


@dataclass(frozen=True)
class _Cell:
    """One cell of a field.

    box: y0, x0, y1, x1; mask: (y1 - y0, x1 - x0) bool; region: (n,) int64, of each pixel of the mask 0 for cytoplasm, 1
    for the membrane ring, 2 for the nucleus.
    """

    id: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    mask: np.ndarray
    region: np.ndarray

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the part of an (H, W) image that is in the cell's box."""
        y0, x0, y1, x1 = self.box
        return image[y0:y1, x0:x1]


def _cells_of(cells: np.ndarray, nuclei: np.ndarray, reach: int) -> Iterator[_Cell]:
    """Yield the cells of a field in the order of their ids; reach: width of the membrane ring in px."""
    height, width = cells.shape
    ids = fastremap.unique(cells)
    # cc3d counts up to the highest id; ranks keep a table of few cells with high ids small.
    statistics = cc3d.statistics(compact(cells), no_slice_conversion=True)
    for rank, id in enumerate(ids[ids != 0].tolist(), start=1):
        y0, y1, x0, x1 = (int(edge) for edge in statistics["bounding_boxes"][rank])
        y1, x1 = y1 + 1, x1 + 1
        # One pixel more on each side, where the field has it, lets the erosion see where the cell ends; the field's
        # own edge is no membrane.
        top, left, bottom, right = max(y0 - 1, 0), max(x0 - 1, 0), min(y1 + 1, height), min(x1 + 1, width)
        wide = (cells[top:bottom, left:right] == id).astype(np.uint8)
        inner = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        core = cv2.erode(wide, _kernel(reach))[inner]
        mask = wide[inner].astype(bool)
        region = np.where(nuclei[y0:y1, x0:x1] == id, 2, 1 - core)[mask].astype(np.int64)
        yield _Cell(id, (y0, x0, y1, x1), tuple(statistics["centroids"][rank]), mask, region)


def _geometry(cell: _Cell, shape: tuple[int, ...], pixel_size: float) -> dict[str, Any]:
    """Return the columns of CELLS that the masks alone give."""
    height, width = shape
    y0, x0, y1, x1 = cell.box
    area, nucleus_area = len(cell.region), int(np.count_nonzero(cell.region == 2))
    centroid_y, centroid_x = cell.centroid
    return {
        "cell": cell.id,
        "height": height,
        "width": width,
        "pixel_size": pixel_size,
        **{"y0": y0, "x0": x0, "y1": y1, "x1": x1},
        "centroid_y": centroid_y,
        "centroid_x": centroid_x,
        "centroid_y_um": centroid_y * pixel_size,
        "centroid_x_um": centroid_x * pixel_size,
        "area_px": area,
        "area_um2": area * pixel_size**2,
        "nucleus_area_px": nucleus_area,
        "nucleus_area_um2": nucleus_area * pixel_size**2,
        "nucleus_fraction": nucleus_area / area,
        "nucleus_cytoplasm_area_ratio": _ratio(nucleus_area, area - nucleus_area),
        "border": y0 == 0 or x0 == 0 or y1 == height or x1 == width,
    }


def _intensities(counts: np.ndarray, scale: int) -> dict[str, Any]:
    """Return a cell's measurements of one colour; counts: (3, n) pixels of each grey level, by region."""
    levels = np.arange(counts.shape[1], dtype=np.float64)
    squares = levels * levels
    whole = counts.sum(axis=0)
    found: dict[str, Any] = {}
    for name, histogram in zip(REGIONS, (whole, counts[2], counts[0] + counts[1], counts[1]), strict=True):
        total = histogram.sum()
        mean = histogram @ levels / total if total else math.nan
        found[f"{name}_mean"] = mean
        found[f"{name}_std"] = math.sqrt(max(histogram @ squares / total - mean * mean, 0.0)) if total else math.nan
    cumulative = np.cumsum(whole)
    found["median"] = int(np.searchsorted(cumulative, 0.5 * cumulative[-1]))
    found["p99"] = int(np.searchsorted(cumulative, 0.99 * cumulative[-1]))
    found["saturated"] = whole[scale:].sum() / cumulative[-1]
    found["nucleus_cytoplasm_ratio"] = _ratio(found["nucleus_mean"], found["cytoplasm_mean"])
    return found


def _fine_structure(red: np.ndarray, pixel_size: float) -> np.ndarray | None:
    """Return what of an image is finer than what focus takes; None above 0.2 µm a pixel: the two filters are one."""
    fine, coarse = _odd(_FINE_UM / pixel_size), _odd(_COARSE_UM / pixel_size)
    if fine == coarse:
        return None
    red = red.astype(np.float32)
    return cv2.blur(red, (fine, fine)) - cv2.blur(red, (coarse, coarse))


def _levels_of(
    images: Mapping[str, np.ndarray], cells: np.ndarray, totals: Mapping[str, np.ndarray], reach: int, scale: int
) -> dict[str, ColourLevels]:
    """Measure the levels of every colour of a field; totals: by colour, the counts of grey levels inside cells."""
    inside = cells[::_ROW_STEP] != 0
    outside = cv2.dilate((cells != 0).astype(np.uint8), _kernel(reach))[::_ROW_STEP] == 0
    return {
        colour: colour_levels(np.ascontiguousarray(image[::_ROW_STEP]), outside, inside, totals[colour], scale)
        for colour, image in images.items()
    }


def _field_row(
    images: Mapping[str, np.ndarray], n_cells: int, scale: int, measured: Mapping[str, ColourLevels], threshold: float
) -> dict[str, Any]:
    """Return the columns of FIELDS that the images give."""
    first = next(iter(images.values()))
    row = {"height": first.shape[0], "width": first.shape[1], "dtype": str(first.dtype)}
    row |= {"n_cells": n_cells, "full_scale": scale, "green_threshold": threshold}
    for colour, level in measured.items():
        row |= {f"{colour}_{what}": getattr(level, what) for what in ("background", "noise", "white")}
    row |= {f"hash_{colour}": perceptual_hash(images[colour]) for colour in REFERENCE_COLOURS}
    return row | {f"digest_{colour}": content(image) for colour, image in images.items()}


def tile_field(
    field: str,
    images: Mapping[str, np.ndarray],
    cells: np.ndarray,
    nuclei: np.ndarray,
    pixel_size: float,
    size: int = 256,
    mask_neighbours: bool = False,
    format: str = "png",
) -> TiledField:
    """Measure every cell of a field and cut its tiles.

    images: {colour: (H, W) uint8 or uint16}, one type; cells, nuclei: (H, W) label images with shared ids;
    pixel_size: µm. Returns the measured part of the field's row, a row per cell in the order of ids, and the cells'
    records per colour in the same order. ``mask_neighbours`` sets all but the cell itself to zero before resizing.
    Raises ValueError where shapes or pixel types differ.
    """
    dtype = _common_type(field, images, cells, nuclei)
    scale = full_scale(images)
    n_levels = max(scale, *(int(image.max(initial=0)) for image in images.values())) + 1
    reach = round(RING_UM / pixel_size)
    strings = rle.encode_labels(cells)
    peaks = {colour: cv2.blur(image, (3, 3)) for colour, image in images.items()}
    fine = _fine_structure(images["red"], pixel_size)
    rows: list[dict[str, Any]] = []
    lit: list[float] = []
    tiles: dict[str, list[np.ndarray]] = {colour: [] for colour in images}
    totals = {colour: np.zeros(n_levels, np.int64) for colour in images}
    for cell in _cells_of(cells, nuclei, reach):
        row = {"field": field, "rle": strings[cell.id], **_geometry(cell, cells.shape, pixel_size)}
        for colour, image in images.items():
            crop = cell.cut(image)
            tile = np.where(cell.mask, crop, 0).astype(dtype) if mask_neighbours else crop
            tiles[colour].append(resize(square(tile), size))
            counts = np.bincount(cell.region * n_levels + crop[cell.mask], minlength=3 * n_levels).reshape(3, n_levels)
            totals[colour] += counts.sum(axis=0)
            row |= {f"{colour}_{what}": value for what, value in _intensities(counts, scale).items()}
            row[f"{colour}_peak"] = int(cell.cut(peaks[colour])[cell.mask].max())
        row["saturation"] = max(row[f"{colour}_saturated"] for colour in images)
        row["focus"] = math.nan if fine is None else float(cell.cut(fine)[cell.mask].std(dtype=np.float64))
        rows.append(row)
        lit.append(_own_peak(peaks["green"], cells, cell.id, cell.box, reach))

    measured = _levels_of(images, cells, totals, reach, scale)
    green = measured["green"]
    # A cell whose brightest spot, smoothed over 3 x 3 px, stays below this shows no more than background, its noise and
    # autofluorescence. docs/data.md has what this finds in the demo.
    threshold = green.background + max(GREEN_NOISE * green.noise, GREEN_SPREAD * green.spread, GREEN_FLOOR * scale)
    for row, peak in zip(rows, lit, strict=True):
        row["focus"] = _ratio(row["focus"], row["red_cell_mean"] - measured["red"].background)
        row["green_signal"] = (peak - green.background) / (threshold - green.background)
    records = {
        colour: [
            frame(TileRecord(field, row["cell"], tile, measured[colour].white).encode(format))
            for row, tile in zip(rows, of_colour, strict=True)
        ]
        for colour, of_colour in tiles.items()
    }
    return TiledField(_field_row(images, len(rows), scale, measured, threshold), rows, records)


def plausibility(tiled: TiledField) -> list[str]:
    """Return what is odd in a measured field, as sentences: no cell, or nuclei that do not look like nuclei.

    Nuclei are found in blue whatever it shows. Where it was swapped with red or yellow they fill half of the cells or
    more, or are brighter in that colour than in blue. Medians over cells; 14 real and simulated fields have blue 24 to
    275 times as bright in nuclei as in cytoplasm and nuclei that fill 0.20 to 0.39; with blue swapped it is 3 to 16.
    """
    if not tiled.cells:
        return ["no cell was found"]
    contrast = {}
    for colour in REFERENCE_COLOURS:
        background = tiled.row[f"{colour}_background"]
        inside, outside = (
            np.array([cell[f"{colour}_{region}_mean"] for cell in tiled.cells]) - background
            for region in ("nucleus", "cytoplasm")
        )
        # The darkest cytoplasm is as dark as the background, and no ratio can be taken to that.
        ratio = inside / np.maximum(outside, 0.1)
        contrast[colour] = float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else math.nan
    share = float(np.median([cell["nucleus_fraction"] for cell in tiled.cells]))
    if share > _NUCLEUS_SHARE or contrast["blue"] < max(_BLUE_CONTRAST, contrast["red"], contrast["yellow"]):
        found = f"in blue {contrast['blue']:.1f} times as bright as the cytoplasm, {100 * share:.0f} % of the cell"
        return [f"the nuclei do not look like nuclei ({found}): are channels swapped?"]
    return []


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _tile_row(
    manifest: ManifestRow,
    segmented: Mapping[str, Any],
    folder: Path,
    size: int,
    mask_neighbours: bool,
    format: str,
    max_pixels: int,
) -> TiledField:
    """Read and tile the field of one manifest row; an error of the field becomes its reason for rejection."""
    row: dict[str, Any] = {
        "field": manifest.id,
        "height": segmented["height"],
        "width": segmented["width"],
        "dtype": segmented["dtype"],
        "pixel_size": manifest.pixel_size,
        "n_cells": 0,
        "status": "rejected",
        "stage": segmented["stage"],
        "reason": segmented["reason"],
        "warnings": "",
    }
    if segmented["status"] != "ok":
        return TiledField(row)
    row["stage"] = "tile"
    try:
        with unchanged(manifest.paths, manifest.states):
            images = read_field(manifest.paths, max_pixels=max_pixels)
            warnings = check_field(images, manifest.paths)
        cells = read_mask(mask_path(folder, manifest.id, "cell"))
        nuclei = read_mask(mask_path(folder, manifest.id, "nucleus"))
        tiled = tile_field(manifest.id, images, cells, nuclei, manifest.pixel_size, size, mask_neighbours, format)
    except (ImageError, MaskError, OSError, ValueError) as error:
        row["reason"] = _reason(error)
        return TiledField(row)
    warnings += plausibility(tiled)
    tiled.row = row | tiled.row | {"status": "ok", "reason": "", "warnings": "; ".join(warnings)}
    return tiled


def _in_order(pool: ThreadPoolExecutor, jobs: Iterator[Any], ahead: int) -> Iterator[TiledField]:
    """Yield the results of the jobs in their order, with never more than ``ahead`` of them begun and not yielded."""
    running: list[Future[TiledField]] = [pool.submit(_tile_row, *job) for job in islice(jobs, ahead)]
    while running:
        yield running.pop(0).result()
        running += [pool.submit(_tile_row, *job) for job in islice(jobs, 1)]


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
) -> None:
    """Measure and cut every cell of a shard's fields.

    ``segmentation_dir`` holds the masks and fields.parquet of the rule `segment`. Writes the tables CELLS and FIELDS
    and, per colour of ``tile_paths``, one TFRecord file with the same cells in the same order: fields as in ``rows``,
    cells by id. ``size`` is the side of a tile in px, ``format`` is png or raw. A field rejected by segmentation stays
    so; one that cannot be read now, or that would not fit into ``memory_mb`` by itself, is rejected with the stage
    `tile`. Each image is read once, at most ``threads`` fields are held at a time, fewer where memory is short, and the
    bytes written do not depend on ``threads``.

    Raises TooManyRejected, after the tables were written, where more than ``max_rejected_fraction`` of the fields
    (rounded up) are rejected, and ValueError where the segmentation knows nothing of a field.
    """
    if set(tile_paths) != set(COLOURS):
        raise ValueError(f"tiles are written for {', '.join(COLOURS)}, not for {', '.join(tile_paths)}")
    if format not in FORMATS:
        raise ValueError(f"unknown tile format {format!r}, expected one of {', '.join(FORMATS)}")
    folder = Path(segmentation_dir)
    segmented = {row["field"]: row for row in pq.read_table(folder / "fields.parquet").to_pylist()}
    unknown = [row.id for row in rows if row.id not in segmented]
    if unknown:
        raise ValueError(f"{folder / 'fields.parquet'}: has no row of field {unknown[0]}")
    field_rows: list[dict[str, Any]] = []
    cell_tables = [CELLS.empty_table()]
    fits = MAX_PIXELS
    if memory_mb is not None:
        fits = max(0, memory_mb - _LIBRARIES_MB) * 10**6 // _BYTES_PER_PIXEL
        largest = max((row["height"] * row["width"] for row in segmented.values() if row["status"] == "ok"), default=1)
        threads = max(1, min(threads, fits // max(largest, 1)))
    jobs = iter([(row, segmented[row.id], folder, size, mask_neighbours, format, fits) for row in rows])
    with ExitStack() as stack:
        writers = {
            colour: stack.enter_context(RecordWriter(stack.enter_context(atomic_path(path))))
            for colour, path in tile_paths.items()
        }
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for tiled in track(_in_order(pool, jobs, threads), total=len(rows)):
            field_rows.append(tiled.row)
            cell_tables.append(to_table(tiled.cells, CELLS))
            for colour, records in tiled.records.items():
                for record in records:
                    writers[colour].write_framed(record)
    cells = pa.concat_tables(cell_tables).combine_chunks()
    write_table(cells_path, cells)
    write_table(fields_path, to_table(field_rows, FIELDS))
    rejected = [(row["field"], row["reason"]) for row in field_rows if row["status"] != "ok"]
    log.info("%d cells of %d fields tiled, %d fields rejected", cells.num_rows, len(rows), len(rejected))
    check_rejected(rejected, len(rows), max_rejected_fraction)
