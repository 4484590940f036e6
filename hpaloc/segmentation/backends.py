"""The one signature of all backends: a field's channels in, nuclei and cells with shared ids out."""

from collections.abc import Mapping

import numpy as np

from hpaloc.segmentation import ready_made, watershed
from hpaloc.segmentation.settings import SegmentationSettings

# The channels a backend looks at. The protein of interest is never one of them: its location would steer its own cell.
COLOURS_OF = {
    "watershed": ("red", "yellow", "blue"),
    "hpacellseg": ("red", "yellow", "blue"),
    "masks": ("blue",),
}


def segment_field(
    images: Mapping[str, np.ndarray],
    pixel_size: float,
    settings: SegmentationSettings,
    *,
    given: ready_made.Given | None = None,
    chunk_above: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nuclei and the cells of one field.

    images: {colour: (H, W) uint8 or uint16} with at least the colours of `COLOURS_OF[backend]`. pixel_size: µm.
    given: the masks made elsewhere, for the backend `masks`. chunk_above: the longer side in px above which a field is
    worked on block by block; None never does.
    Returns (nuclei, cells), both (H, W) uint16 (uint32 above 65,535 cells), ids shared and contiguous from 1; a field
    without a cell is no error. Raises ValueError for unusable images.
    """
    backend = settings.backend
    missing = [colour for colour in COLOURS_OF[backend] if colour not in images]
    if missing:
        raise ValueError(
            f"backend {backend} needs the channels {', '.join(COLOURS_OF[backend])}; missing: {missing[0]}"
        )
    shapes = sorted({image.shape for image in images.values()})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"the channels of a field are grey images of one shape, not {shapes}")
    if not pixel_size > 0:
        raise ValueError(f"pixel_size: {pixel_size} is not a length in µm")
    if backend == "masks":
        if given is None:
            raise ValueError("backend masks needs the masks: name them under collections.<name>.masks")
        return ready_made.segment(images["blue"], pixel_size, settings.scale, given, chunk_above=chunk_above)
    if backend == "hpacellseg":
        # Only this backend needs torch, which most installations lack.
        from hpaloc.segmentation import hpacellseg

        return hpacellseg.segment(images, pixel_size, settings, chunk_above=chunk_above)
    return watershed.segment(images, pixel_size, settings.scale, chunk_above=chunk_above)
