"""The one signature of all backends: from a field's channels to nuclei and cells with shared ids."""

from collections.abc import Mapping

import fastremap
import numpy as np

from hpaloc.detector import fill_empty, find_empty
from hpaloc.masks import compact
from hpaloc.segmentation import ready_made, watershed
from hpaloc.segmentation.settings import SegmentationSettings

# The channels that a backend uses if a collection has them, and those that it needs. The protein of interest is never
# one of them: its location would shape its own cell.
COLOURS_OF = {
    "watershed": ("red", "yellow", "blue"),
    "hpacellseg": ("red", "yellow", "blue"),
    "masks": ("blue",),
}
NEEDED = {"watershed": ("blue",), "hpacellseg": ("red", "blue"), "masks": ("blue",)}


def segment_field(
    images: Mapping[str, np.ndarray],
    pixel_size: float,
    settings: SegmentationSettings,
    *,
    given: ready_made.Given | None = None,
    chunk_above: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nuclei and the cells of one field; a field without cells is not an error.

    images: {colour: (H, W) uint8 or uint16}, at least the colours of ``NEEDED[backend]``
    pixel_size: µm
    given: the masks from elsewhere, for the backend ``masks``
    chunk_above: px, the longer side above which a field is segmented in blocks; None never does
    Returns (nuclei, cells), both (H, W) uint16, or uint32 above 65,535 cells, ids shared and contiguous from 1.
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
        return _segment(images, pixel_size, settings, given, chunk_above)
    return _cut_off(*_segment(fill_empty(images, empty), pixel_size, settings, given, chunk_above), empty)


def _cut_off(nuclei: np.ndarray, cells: np.ndarray, empty: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return nuclei and cells without what lies in a region without data; a cell keeps both or neither."""
    nuclei, cells = (np.where(empty, 0, labels) for labels in (nuclei, cells))
    left = np.intersect1d(fastremap.unique(nuclei), fastremap.unique(cells)).tolist()
    return compact(fastremap.mask_except(nuclei, left)), compact(fastremap.mask_except(cells, left))


def _segment(
    images: Mapping[str, np.ndarray],
    pixel_size: float,
    settings: SegmentationSettings,
    given: ready_made.Given | None,
    chunk_above: int | None,
) -> tuple[np.ndarray, np.ndarray]:
    backend = settings.backend
    if backend == "masks":
        if given is None:
            raise ValueError("backend masks needs the masks: name them under collections.<name>.masks")
        return ready_made.segment(images["blue"], pixel_size, settings.scale, given, chunk_above=chunk_above)
    if backend == "hpacellseg":
        # Only this backend needs torch, which most installations lack.
        from hpaloc.segmentation import hpacellseg

        return hpacellseg.segment(images, pixel_size, settings, chunk_above=chunk_above)
    return watershed.segment(images, pixel_size, settings.scale, chunk_above=chunk_above)
