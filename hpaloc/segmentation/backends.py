"""The one signature of all backends: from a field's channels to nuclei and cells with shared ids."""

from collections.abc import Mapping

import fastremap
import numpy as np

from hpaloc.pixels.detector import fill_empty, find_empty, without_rim
from hpaloc.pixels.strips import Image, as_array, cropped, derived, found_ids, surrounded
from hpaloc.segmentation import ready_made, watershed
from hpaloc.segmentation.settings import SegmentationSettings

# The channels that a backend uses if a collection has them, and those that it needs. The protein of interest is never
# one of them: its location would shape its own cell.
COLOURS_OF = {
    "watershed": ("red", "yellow", "blue"),
    "hpacellseg": ("red", "yellow", "blue"),
    "instanseg": ("red", "yellow", "blue"),
    "masks": ("blue",),
}
NEEDED = {"watershed": ("blue",), "hpacellseg": ("red", "blue"), "instanseg": ("blue",), "masks": ("blue",)}


def segment_field(
    images: Mapping[str, Image],
    pixel_size: float,
    settings: SegmentationSettings,
    *,
    given: ready_made.Given | None = None,
    chunk_above: int | None = None,
) -> tuple[Image, Image]:
    """Find the nuclei and the cells of one field; a field without cells is not an error.

    images: {colour: (H, W) uint8 or uint16}, at least the colours of ``NEEDED[backend]``; LazyImages, of which the
    backend ``watershed`` reads a strip at a time, for a field above ``chunk_above``
    pixel_size: µm
    given: the masks from elsewhere, for the backend ``masks``
    chunk_above: px, the longer side above which a field is segmented in blocks; None never does
    Returns (nuclei, cells), both (H, W) uint16, or uint32 above 65,535 cells, ids shared and contiguous from 1; arrays
    for arrays.
    Raises ValueError for unusable images.
    """
    backend = settings.backend
    missing = [colour for colour in NEEDED[backend] if colour not in images]
    if missing:
        raise ValueError(f"backend {backend} needs the channels {', '.join(NEEDED[backend])}; missing: {missing[0]}")
    shapes = sorted({image.shape for image in images.values()})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"the channels of a field are grey images of one shape, not {shapes}")
    if not pixel_size > 0:
        raise ValueError(f"pixel_size: {pixel_size} is not a length in µm")
    # Given cells are what somebody says they are.
    empty = None if backend == "masks" else find_empty(images)
    if empty is None:
        masks = _segment(images, pixel_size, settings, given, chunk_above)
    else:
        masks = _segment_data(images, without_rim(images, empty), pixel_size, settings, chunk_above)
    if isinstance(images["blue"], np.ndarray):
        return as_array(masks[0]), as_array(masks[1])
    return masks


def _segment_data(
    images: Mapping[str, Image],
    empty: np.ndarray,
    pixel_size: float,
    settings: SegmentationSettings,
    chunk_above: int | None,
) -> tuple[Image, Image]:
    """Segment the rectangle around the part of a field that has data; empty: (H, W) bool, where there is none."""
    # Where the data end, cells go on, as at the edge of a field.
    rows, columns = (slice(*(np.flatnonzero(~empty.all(axis=axis))[[0, -1]] + [0, 1])) for axis in (1, 0))
    inside = {colour: cropped(image, rows, columns) for colour, image in images.items()}
    empty_inside = empty[rows, columns]
    if empty_inside.any():
        filled = fill_empty(inside, empty_inside)
        nuclei, cells = _cut_off(*_segment(filled, pixel_size, settings, None, chunk_above), empty_inside)
    else:
        nuclei, cells = _segment(inside, pixel_size, settings, None, chunk_above)
    nuclei, cells = (surrounded(labels, rows, columns, empty.shape) for labels in (nuclei, cells))
    return nuclei, cells


def _cut_off(nuclei: Image, cells: Image, empty: np.ndarray) -> tuple[Image, Image]:
    """Return nuclei and cells without what lies in a region without data; a cell keeps both or neither."""

    def with_data(labels: Image) -> Image:
        return derived(labels, lambda start, stop: np.where(empty[start:stop], 0, labels[start:stop]))

    def renumbered(labels: Image) -> Image:
        return derived(
            labels,
            lambda start, stop: fastremap.remap(
                fastremap.mask_except(labels[start:stop], list(numbers)), numbers, preserve_missing_labels=False
            ),
        )

    nuclei, cells = with_data(nuclei), with_data(cells)
    left = np.intersect1d(found_ids(nuclei), found_ids(cells))
    numbers = {int(id): number for number, id in enumerate(left, 1)} | {0: 0}
    return renumbered(nuclei), renumbered(cells)


def _segment(
    images: Mapping[str, Image],
    pixel_size: float,
    settings: SegmentationSettings,
    given: ready_made.Given | None,
    chunk_above: int | None,
) -> tuple[Image, Image]:
    backend = settings.backend
    if backend == "watershed":
        return watershed.segment(images, pixel_size, settings.scale, chunk_above=chunk_above)
    arrays = {colour: as_array(image) for colour, image in images.items()}
    if backend == "masks":
        if given is None:
            raise ValueError("backend masks needs the masks: name them under collections.<name>.masks")
        return ready_made.segment(arrays["blue"], pixel_size, settings.scale, given, chunk_above=chunk_above)
    # Only these backends need torch, which most installations lack.
    from hpaloc.segmentation import hpacellseg, instanseg

    module = {"hpacellseg": hpacellseg, "instanseg": instanseg}[backend]
    return module.segment(arrays, pixel_size, settings, chunk_above=chunk_above)
