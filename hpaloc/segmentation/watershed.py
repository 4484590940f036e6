"""The embedded backend: nuclei from the blue channel, cells grown from them over microtubules and reticulum."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpaloc.masks import share_ids
from hpaloc.segmentation import cells, nuclei
from hpaloc.segmentation.clock import step
from hpaloc.segmentation.grid import grid_of
from hpaloc.segmentation.nuclei import above_background

# Outlines are smoothed over these lengths in µm when they are drawn at full size.
NUCLEUS_SMOOTHING, CELL_SMOOTHING = 0.3, 1.2


def find_nuclei(blue: np.ndarray, pixel_size: float, settings: Mapping[str, Any]) -> np.ndarray:
    """Find the nuclei in the blue channel alone.

    blue: (H, W) uint8 or uint16. pixel_size: µm. settings: section `segmentation`, of which `scale` is used.
    Returns (H, W) int32, ids contiguous from 1, all 0 where nothing looks like a nucleus.
    """
    grid = grid_of(blue.shape, pixel_size, settings)
    with step("filter"):
        signal = above_background(grid.reduce(blue), grid.size)
    levels = nuclei.nucleus_levels(signal)
    if levels is None:
        return np.zeros(blue.shape, np.int32)
    return grid.enlarge(nuclei.find(signal, grid.size, levels), NUCLEUS_SMOOTHING)


def segment(
    images: Mapping[str, np.ndarray], pixel_size: float, settings: Mapping[str, Any], *, chunk_above: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nuclei and the cells of a field without any network.

    images: red, yellow and blue, (H, W) uint8 or uint16. pixel_size: µm. settings: section `segmentation`, of which
    `scale` is used: the field is worked on at 0.08 / scale µm a pixel, or at its own size where that is coarser.
    chunk_above: accepted for the interface; the reduced grid this works on fits in memory at any size met so far.
    Returns (nuclei, cells), (H, W) uint16 or uint32, ids shared, contiguous from 1.
    """
    grid = grid_of(images["blue"].shape, pixel_size, settings)
    with step("filter"):
        blue = above_background(grid.reduce(images["blue"]), grid.size)
    nucleus_levels = nuclei.nucleus_levels(blue)
    if nucleus_levels is None:
        nothing = np.zeros(grid.shape, np.uint16)
        return nothing, nothing.copy()
    with step("filter"):
        red, yellow = (above_background(grid.reduce(images[colour]), grid.size) for colour in ("red", "yellow"))
        levels = cells.cell_levels(red, yellow, blue, nucleus_levels, grid.size)
        body = levels.body(red, yellow)
    seeds = nuclei.find(blue, grid.size, nucleus_levels)
    grown = cells.grow(body, seeds, grid.size, levels)
    return share_ids(
        grid.enlarge(seeds, NUCLEUS_SMOOTHING).astype(np.uint32),
        grid.enlarge(grown, CELL_SMOOTHING).astype(np.uint32),
    )
