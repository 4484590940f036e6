"""Measurements of the cells of a segmented field, and of the field."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import cv2
import fastremap
import numpy as np

from hpaloc import rle
from hpaloc.classes import COLOURS
from hpaloc.levels import BRIGHT_SHARE, MOST_OF_A_CELL, CellLight, ColourLevels, field_levels
from hpaloc.masks import compact
from hpaloc.pixels.detector import fill_empty, find_full_scale, find_plateaus, without_rim
from hpaloc.pixels.strips import as_array
from hpaloc.tables import REFERENCE_COLOURS, REGIONS

# Width of the membrane ring in µm: a bit more than that of a membrane in the light microscope.
RING_UM = 1.0

# A step of one pixel in all eight directions.
_SQUARE = np.ones((3, 3), np.uint8)
_FINE_UM, _COARSE_UM = 0.3, 0.9
# Nuclei that fill more of their cells, or are less bright in blue, are probably not nuclei.
_NUCLEUS_SHARE, _BLUE_CONTRAST = 0.45, 8.0
# Where nuclei fill so much of their cells, only nuclei were found.
_NO_CYTOPLASM = 0.9
# µm across; no median nucleus of cells on a slide is smaller or larger.
_LEAST_ACROSS, _MOST_ACROSS = 4.0, 60.0
# The `focus` of the median cell below which a field is not sharp.
_SHARP = 0.12
# A background above these shares of white and of the range is an offset; cells darker by this share of full scale are
# inverted; the zero of signed numbers stored as unsigned.
_OFFSET, _LEAST_OFFSET, _INVERTED, _SIGNED = 0.05, 0.02, 0.05, 32768
# The share of white by which the background differs between parts of an unevenly illuminated field: at most 0.7 % in 60
# real fields.
_UNEVEN = 0.02
# The share of a cell's pixels at the detector's limit from which it has no fine structure.
_BURNT = 0.02


def perceptual_hash(image: np.ndarray) -> int:
    """Return a 64-bit perceptual hash: similar images differ in few bits.

    It is the 8 x 8 lowest cosine frequencies, without the mean, of the image reduced to 32 x 32, each compared with
    their median (the pHash of C. Zauner, 2010, as in imagehash.phash). Scaling the intensities does not change it.

    image: (H, W) uint8 or uint16
    """
    small = cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def content(image: np.ndarray) -> int | None:
    """Return a 64-bit digest (blake2b) of an image, (H, W) of any type; None if it has a single grey level."""
    if (image == image[0, 0]).all():
        return None
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest(), "big")


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _check_alike(field: str, images: Mapping[str, np.ndarray], cells: np.ndarray, nuclei: np.ndarray) -> None:
    for name, image in (*images.items(), ("nucleus mask", nuclei)):
        if image.shape != cells.shape:
            raise ValueError(f"field {field}: the {name} is {image.shape}, but the cell mask is {cells.shape}")
    dtypes = {image.dtype for image in images.values()}
    if len(dtypes) != 1:
        raise ValueError(f"field {field}: its colours have different pixel types, {sorted(map(str, dtypes))}")


@dataclass(frozen=True)
class _Cell:
    """One cell of a field.

    box: its rows and columns
    mask: (h, w) bool, the cell in its box
    region: (n,) int64, for each pixel of the mask 0 for cytoplasm, 1 for the membrane ring, 2 for the nucleus
    border: whether it touches the edge of the field, or a region without data
    """

    id: int
    box: tuple[slice, ...]
    centroid: tuple[float, float]
    mask: np.ndarray
    region: np.ndarray
    border: bool


def _cells_of(cells: np.ndarray, nuclei: np.ndarray, reach: int, gaps: np.ndarray | None) -> Iterator[_Cell]:
    """Yield the cells of a field in the order of their ids.

    reach: width of the membrane ring in px
    gaps: (H, W) bool, where there is no data; None if there is everywhere
    """
    ids = fastremap.unique(cells)
    # cc3d counts up to the highest id; ranks keep a table of few cells with high ids small.
    statistics = cc3d.statistics(as_array(compact(cells)))
    for rank, id in enumerate(ids[ids != 0].tolist(), start=1):
        box = statistics["bounding_boxes"][rank]
        # With a frame, so that the erosion sees where the cell ends.
        around = tuple(slice(max(at.start - 1, 0), at.stop + 1) for at in box)
        inside = tuple(slice(at.start - out.start, at.stop - out.start) for at, out in zip(box, around, strict=True))
        own = (cells[around] == id).astype(np.uint8)
        mask = own[inside] > 0
        border = any(at.start == 0 or at.stop == side for at, side in zip(box, cells.shape, strict=True))
        if gaps is not None and (cv2.dilate(own, _SQUARE)[beside := gaps[around]] > 0).any():
            border = True
            own[beside] = 1
        # The field ends where there is no data, and its edge is not a membrane.
        core = cv2.erode(own, _SQUARE, iterations=reach)[inside]
        region = np.where(nuclei[box] == id, 2, 1 - core)[mask].astype(np.int64)
        yield _Cell(id, box, tuple(statistics["centroids"][rank]), mask, region, border)


def _geometry(cell: _Cell, shape: tuple[int, ...], pixel_size: float) -> dict[str, Any]:
    """Return the columns of CELLS that depend only on the masks."""
    height, width = shape
    rows, columns = cell.box
    area, nucleus_area = len(cell.region), int(np.count_nonzero(cell.region == 2))
    centroid_y, centroid_x = cell.centroid
    return {
        "cell": cell.id,
        "height": height,
        "width": width,
        "pixel_size": pixel_size,
        **{"y0": rows.start, "x0": columns.start, "y1": rows.stop, "x1": columns.stop},
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
        "border": cell.border,
    }


@dataclass(frozen=True)
class _Colour:
    """One colour of a field.

    image: (H, W) uint8 or uint16
    peaks: (H, W) of the same type, means of 3 x 3 px
    full_scale: the level at which the detector saturates
    hidden: (H, W) bool, where there is no data or debris; None if there is neither
    light: the levels inside the cells
    """

    image: np.ndarray
    peaks: np.ndarray
    full_scale: int
    hidden: np.ndarray | None
    light: CellLight


def _prepare(
    image: np.ndarray, filled: np.ndarray, pixel_size: float, bits: int | None, empty: np.ndarray | None
) -> _Colour:
    """Find what of one colour tells no level; the light of the cells is still to be added.

    filled: the image with a dark level where there is no data
    """
    full_scale = find_full_scale(image if empty is None else image[~empty], bits)
    hidden = find_plateaus(image, full_scale, pixel_size)
    if empty is not None:
        hidden = empty if hidden is None else empty | hidden
    n_levels = max(full_scale, int(image.max(initial=0))) + 1
    return _Colour(image, cv2.blur(filled, (3, 3)), full_scale, hidden, CellLight(n_levels))


def _intensities(cell: _Cell, colour: _Colour) -> dict[str, Any]:
    """Return a cell's measurements of one colour, and add the cell to the colour's light."""
    n = colour.light.counts.size
    values = colour.image[cell.box][cell.mask]
    # Pixels of each grey level, by region.
    counts = np.bincount(cell.region * n + values, minlength=3 * n).reshape(3, n)
    whole = counts.sum(axis=0)
    if colour.hidden is None:
        colour.light.add(whole)
    else:
        colour.light.add(np.bincount(values[~colour.hidden[cell.box][cell.mask]], minlength=n))
    levels = np.arange(n, dtype=np.float64)
    squares = levels * levels
    found: dict[str, Any] = {}
    for name, histogram in zip(REGIONS, (whole, counts[2], counts[0] + counts[1], counts[1]), strict=True):
        total = histogram.sum()
        mean = histogram @ levels / total if total else math.nan
        found[f"{name}_mean"] = mean
        found[f"{name}_std"] = math.sqrt(max(histogram @ squares / total - mean * mean, 0.0)) if total else math.nan
    cumulative = np.cumsum(whole)
    found["median"] = int(np.searchsorted(cumulative, 0.5 * cumulative[-1]))
    found["p99"] = int(np.searchsorted(cumulative, 0.99 * cumulative[-1]))
    found["peak"] = int(colour.peaks[cell.box][cell.mask].max())
    found["saturated"] = whole[colour.full_scale :].sum() / cumulative[-1]
    return found


def _fine_structure(red: np.ndarray, pixel_size: float) -> np.ndarray | None:
    """Return the structure of an image at the scale that defocus removes; None where pixels are too coarse for it."""
    if pixel_size > _COARSE_UM / 2:
        return None
    fine, coarse = (2 * round((um / pixel_size - 1) / 2) + 1 for um in (_FINE_UM, _COARSE_UM))
    red = red.astype(np.float32)
    smooth = cv2.blur(red, (fine, fine)) if fine > 1 else red
    return smooth - cv2.blur(red, (max(coarse, 3), max(coarse, 3)))


def _own_peak(smooth: np.ndarray, cells: np.ndarray, cell: _Cell, reach: int) -> float:
    """Return the brightest level of a cell that a neighbour's light does not explain.

    Outlines are right to within a few pixels, so a dark cell next to a bright one has some of its pixels. Within
    ``reach`` px of another cell the median counts, not the maximum: a membrane is bright along the whole contact, a
    neighbour's light covers a part of it.
    """
    around = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in cell.box)
    labels, values = cells[around], smooth[around]
    own = labels == cell.id
    contact = cv2.dilate(((labels != 0) & ~own).astype(np.uint8), _SQUARE, iterations=reach) != 0
    apart, beside = values[own & ~contact], values[own & contact]
    return max(float(apart.max(initial=0)), float(np.median(beside)) if beside.size else 0.0)


def _above_background(
    row: Mapping[str, Any], detail: float, own_peak: float, levels: Mapping[str, ColourLevels]
) -> dict[str, float]:
    """Return the columns of a cell that need the levels of its field.

    detail: the standard deviation of red's fine structure, nan without red
    own_peak: of green
    """
    green = levels["green"]
    found = {"green_signal": (own_peak - green.background) / (green.threshold - green.background), "focus": math.nan}
    if "red" in levels:
        found["focus"] = _ratio(detail, row["red_cell_mean"] - levels["red"].background)
    for colour, level in levels.items():
        nucleus, cytoplasm = (row[f"{colour}_{region}_mean"] for region in ("nucleus", "cytoplasm"))
        found[f"{colour}_nucleus_cytoplasm_ratio"] = _ratio(nucleus - level.background, cytoplasm - level.background)
    return found


def _field_row(images: Mapping[str, np.ndarray], n_cells: int, measured: Mapping[str, ColourLevels]) -> dict[str, Any]:
    """Return the columns of FIELDS that are measured on the images, and of each colour the unevenness."""
    first = next(iter(images.values()))
    row = {"height": first.shape[0], "width": first.shape[1], "dtype": str(first.dtype), "n_cells": n_cells}
    row["green_threshold"] = measured["green"].threshold
    for colour, level in measured.items():
        names = ("background", "noise", "white", "full_scale", "unevenness")
        row |= {f"{colour}_{what}": getattr(level, what) for what in names}
    row |= {f"hash_{colour}": perceptual_hash(images[colour]) for colour in REFERENCE_COLOURS if colour in images}
    return row | {f"digest_{colour}": content(image) for colour, image in images.items()}


def measure_field(
    field: str,
    images: Mapping[str, np.ndarray],
    cells: np.ndarray,
    nuclei: np.ndarray,
    pixel_size: float,
    bits: Mapping[str, int | None] | None = None,
    empty: np.ndarray | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure a field and each of its cells.

    images: {colour: (H, W) uint8 or uint16}, of one type; red, yellow or both may be absent
    cells, nuclei: (H, W) label images with shared ids
    pixel_size: µm
    bits: {colour: the significant bits that its file gives}
    empty: (H, W) bool, where the field has no data, as ``find_empty`` returns it
    Returns the measured columns of the field's row of FIELDS, with the unevenness of each colour for
    ``find_implausible``, and a row of CELLS per cell in the order of ids, without the columns of absent colours;
    ``focus``, which is that of red, is nan without red.
    Raises ValueError if shapes or pixel types differ.
    """
    _check_alike(field, images, cells, nuclei)
    bits = bits or {}
    gaps = None if empty is None else without_rim(images, empty)
    colours, fine = {}, None
    for name, image in images.items():
        # What is blurred must not get the level outside of a mosaic.
        filled = image if gaps is None else as_array(fill_empty({name: image}, gaps)[name])
        colours[name] = _prepare(image, filled, pixel_size, bits.get(name), empty)
        if name == "red":
            fine = _fine_structure(filled, pixel_size)
    reach = round(RING_UM / pixel_size)
    strings = rle.encode_labels(cells)
    rows: list[dict[str, Any]] = []
    details, own_peaks = [], []
    for cell in _cells_of(cells, nuclei, reach, gaps):
        row = {"field": field, "rle": strings[cell.id], **_geometry(cell, cells.shape, pixel_size)}
        for name, colour in colours.items():
            row |= {f"{name}_{what}": value for what, value in _intensities(cell, colour).items()}
        row["saturation"] = max(row[f"{name}_saturated"] for name in colours)
        details.append(math.nan if fine is None else float(fine[cell.box][cell.mask].std(dtype=np.float64)))
        own_peaks.append(_own_peak(colours["green"].peaks, cells, cell, reach))
        rows.append(row)
    levels = field_levels(
        images,
        cells,
        {name: colour.light for name, colour in colours.items()},
        reach,
        {name: colour.full_scale for name, colour in colours.items()},
        {name: colour.hidden for name, colour in colours.items()},
    )
    for row, detail, own_peak in zip(rows, details, own_peaks, strict=True):
        row |= _above_background(row, detail, own_peak, levels)
    return _field_row(images, len(rows), levels), rows


def find_implausible(row: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return warnings about a measured field: how it was recorded, no cells, blur, and nuclei that are not nuclei.

    row, cells: from ``measure_field``
    """
    warnings = [*_recording(row, cells)]
    if not cells:
        return [*warnings, "no cell was found"]
    # Given masks may lack nuclei.
    areas = [cell["nucleus_area_um2"] for cell in cells if cell["nucleus_area_px"]]
    across = 2 * math.sqrt(float(np.median(areas)) / math.pi) if areas else math.nan
    if across < _LEAST_ACROSS or across > _MOST_ACROSS:
        size = cells[0]["pixel_size"]
        return [*warnings, f"the median nucleus is {across:.1f} µm across: is a pixel really {size:g} µm?"]
    focus = np.array([cell["focus"] for cell in cells])
    sharpness = float(np.median(focus[np.isfinite(focus)])) if np.isfinite(focus).any() else math.nan
    # Saturated structures have no fine detail either. Without red, there is no sharpness.
    if sharpness < _SHARP and float(np.median([cell["red_saturated"] for cell in cells])) < _BURNT:
        found = f"{sharpness:.3f} in the median cell, in sharp ones 0.3 and more"
        warnings.append(f"red is out of focus ({found}): leave the field out if others are sharp")
    share = float(np.median([cell["nucleus_fraction"] for cell in cells]))
    return warnings + _nuclei(row, cells, share) if areas else warnings


def _recording(row: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what the levels of the colours say about how they were recorded and stored."""
    for colour in (colour for colour in COLOURS if f"{colour}_white" in row):
        background, white, full, uneven = (
            row[f"{colour}_{what}"] for what in ("background", "white", "full_scale", "unevenness")
        )
        if cells and not any(cell[f"{colour}_cell_std"] for cell in cells):
            # A colour of one grey level has a warning of its own.
            continue
        # Full scale says nothing about the range if it is that of a 16-bit file with fewer bits.
        span = min(full, max(2 * white, 255))
        means = [cell[f"{colour}_cell_mean"] for cell in cells]
        inverted = bool(cells) and background - np.median(means) > _INVERTED * full
        uneven_share = uneven / (white - background)
        if abs(background - _SIGNED) < _SIGNED / 100:
            yield f"the background of {colour} is {background:.0f}: signed numbers stored as unsigned ones?"
        elif inverted:
            yield f"the cells are darker in {colour} than their background, {background:.0f}: is the image inverted?"
        elif background > max(_OFFSET * white, _LEAST_OFFSET * span):
            found = f"{background:.0f}, is {100 * background / white:.0f} % of white"
            yield f"the background of {colour}, {found}: a camera's offset? It is subtracted"
        # A difference of one level may be rounding, and one below the noise does no harm. Without masks of cells, their
        # light is in the background.
        if cells and not inverted and uneven_share > _UNEVEN and uneven > max(row[f"{colour}_noise"], 1):
            found = f"differs across the field (by {uneven:.0f}, {100 * uneven_share:.0f} % of white)"
            yield f"the background of {colour} {found}: correct the shading, or leave the field out"
        if _overexposed(colour, cells):
            saturated = float(np.mean([cell[f"{colour}_saturated"] for cell in cells]))
            found = f"on average {100 * saturated:.0f} % of a cell's pixels are at its limit, {full}"
            yield f"{colour} is overexposed ({found}): expose less, or leave the field out"


def _overexposed(colour: str, cells: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the level that white follows (``CellLight.bright``) would be the detector's limit.

    Plateaus count, though no level is measured on them: a burnt part of a cell is no smaller harm for being wide.
    """
    saturated = [min(cell[f"{colour}_saturated"], MOST_OF_A_CELL) for cell in cells]
    return bool(saturated) and float(np.mean(saturated)) > BRIGHT_SHARE


def _nuclei(row: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], share: float) -> list[str]:
    """Return a warning if the nuclei have no cytoplasm around them, or do not look like nuclei.

    Nuclei are found in blue, whatever it shows. If it was swapped with red or yellow, they fill half of the cells or
    more, or are brighter in that colour than in blue. In medians over cells, blue was 24 to 275 times as bright in
    nuclei as in cytoplasm in 14 real and simulated fields, and nuclei filled 0.20 to 0.39 of the cells; with blue
    swapped it was 3 to 16 times as bright.
    """
    contrast = {}
    for colour in (colour for colour in REFERENCE_COLOURS if f"{colour}_white" in row):
        background = row[f"{colour}_background"]
        inside, outside = (
            np.array([cell[f"{colour}_{region}_mean"] for cell in cells]) - background
            for region in ("nucleus", "cytoplasm")
        )
        # The darkest cytoplasm is as dark as the background, which would make the ratio infinite.
        ratio = np.maximum(inside, 0) / np.maximum(outside, 0.1)
        contrast[colour] = float(np.median(ratio[np.isfinite(ratio)])) if np.isfinite(ratio).any() else math.nan
    if share > _NO_CYTOPLASM:
        filled = f"nuclei fill {100 * share:.0f} % of the cells"
        stains = [colour for colour in ("red", "yellow") if colour in contrast]
        asked = f"{'are' if len(stains) > 1 else 'is'} {' and '.join(stains)} dark, or swapped with blue?"
        return [f"no cytoplasm was found ({filled}): {asked if stains else 'are the given cells nuclei?'}"]
    # Without red and yellow, cells are what is near their nuclei, and the share says nothing.
    too_much = share > _NUCLEUS_SHARE and len(contrast) > 1
    if too_much or contrast["blue"] < max(_BLUE_CONTRAST, *contrast.values()):
        found = f"in blue {contrast['blue']:.1f} times as bright as the cytoplasm, {100 * share:.0f} % of the cell"
        return [f"the nuclei do not look like nuclei ({found}): are channels swapped?"]
    return []
