"""The built-in backend: nuclei from the blue channel, cells grown from them over microtubules and reticulum.

A field may lack one of the two, or both; without both, cells are what is near the nuclei.

A field above ``dask.chunk_above`` is filtered block by block, its levels are measured once on the whole working grid,
and nuclei and cells are found in overlapping blocks with these levels.
"""

from collections.abc import Callable, Mapping

import numpy as np

from hpaloc.masks import share_ids
from hpaloc.pixels.strips import Image, as_array
from hpaloc.segmentation import blocks, cells, nuclei
from hpaloc.segmentation.clock import step
from hpaloc.segmentation.grid import Grid, background, grid_of
from hpaloc.segmentation.nuclei import above_background

# Outlines are smoothed over these lengths, in µm, when they are drawn at full size.
NUCLEUS_SMOOTHING, CELL_SMOOTHING = 0.3, 1.2


def find_nuclei(blue: Image, pixel_size: float, scale: float, *, chunk_above: int | None = None) -> Image:
    """Find the nuclei in the blue channel alone; nothing that leaks into it is subtracted.

    blue: (H, W) uint8 or uint16
    pixel_size: µm
    scale, chunk_above: as in ``segment``
    Returns (H, W) uint16 or uint32, ids contiguous from 1, all 0 if nothing looks like a nucleus; a LazyImage if in
    blocks.
    """
    grid = grid_of(blue.shape, pixel_size, scale)
    side = _side(grid, chunk_above)
    with step("filter"):
        signal = _filtered(blue, grid, side)
    levels = nuclei.nucleus_levels(signal, grid.size)
    if levels is None:
        return np.zeros(blue.shape, np.uint16)
    return grid.enlarge(_find(signal, grid, levels, side), NUCLEUS_SMOOTHING, side)


def segment(
    images: Mapping[str, Image], pixel_size: float, scale: float, *, chunk_above: int | None = None
) -> tuple[Image, Image]:
    """Find the nuclei and the cells of a field without any network.

    images: {red, yellow (either or both may be absent), blue: (H, W) uint8 or uint16}
    pixel_size: µm
    scale: the field is segmented at 0.08 / scale µm per pixel, or at its own pixel size if that is coarser
    chunk_above: px, the longer side above which the field is segmented in overlapping blocks of about that size
    Returns (nuclei, cells), (H, W) uint16 or uint32, ids shared and contiguous from 1; in blocks each a LazyImage.
    """
    grid = grid_of(images["blue"].shape, pixel_size, scale)
    side = _side(grid, chunk_above)
    with step("filter"):
        stains = [_filtered(images[colour], grid, side) for colour in ("red", "yellow") if colour in images]
        blue = nuclei.subtract_leak(_filtered(images["blue"], grid, side), stains)
    nucleus_levels = nuclei.nucleus_levels(blue, grid.size)
    if nucleus_levels is None:
        return np.zeros(grid.shape, np.uint16), np.zeros(grid.shape, np.uint16)
    with step("filter"):
        levels = cells.cell_levels(stains, blue, nucleus_levels, grid.size) if stains else None
        body = levels.body(stains) if levels else blue
        del stains
    seeds = _find(blue, grid, nucleus_levels, side)
    del blue

    def grow(window: tuple[slice, slice]) -> np.ndarray:
        own = np.ascontiguousarray(seeds[window])
        return cells.grow(body[window], own, grid.size, levels) if levels else cells.surround(own, grid.size)

    grown = _in_blocks(grow, grid, side)
    return share_ids(grid.enlarge(seeds, NUCLEUS_SMOOTHING, side), grid.enlarge(grown, CELL_SMOOTHING, side))


def _side(grid: Grid, chunk_above: int | None) -> int | None:
    """Return the side of a block in px of the field, or None if the field is segmented in one piece."""
    return chunk_above if chunk_above and max(grid.shape) > chunk_above else None


def _filtered(channel: Image, grid: Grid, side: int | None) -> np.ndarray:
    """Reduce a channel to the working grid, smoothed and above its background."""
    if side is None:
        return above_background(grid.reduce(as_array(channel)), grid.size)
    # Not needed below chunk_above, and not installed with the networks' older numpy.
    import dask.array as da
    from dask_image.ndfilters import gaussian_filter

    reduced = da.from_array(grid.reduce_strips(channel), chunks=-(-side // round(1 / grid.factor)))
    # A worker has one thread: blocks are filtered one after the other.
    smooth = gaussian_filter(reduced, nuclei.SMOOTHING / grid.size, mode="mirror").compute(scheduler="synchronous")
    return np.maximum(smooth - background(smooth, grid.size), 0)


def _find(signal: np.ndarray, grid: Grid, levels: nuclei.NucleusLevels, side: int | None) -> np.ndarray:
    return _in_blocks(lambda window: nuclei.find(signal[window], grid.size, levels), grid, side)


def _in_blocks(find: Callable[[tuple[slice, slice]], np.ndarray], grid: Grid, side: int | None) -> np.ndarray:
    """Find objects on the working grid, (h, w) int32, in one piece or in blocks of ``side`` px of the field."""
    if side is None:
        return find((slice(None), slice(None)))
    cut = blocks.cut(grid.coarse_shape, round(side * grid.factor), round(blocks.MARGIN_UM / grid.size))
    return blocks.joined(cut, lambda block: find(block.window), grid.coarse_shape)
