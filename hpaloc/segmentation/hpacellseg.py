"""The backend ``hpacellseg``: the networks of HPA-Cell-Segmentation, with hpaloc's own preparation and labelling.

The package's own prediction methods swap height and width in their results, need a size divisible by 32 and an older
scikit-image; only its class and its networks are used here. The same networks as TorchScript need no package but torch.
torch and hpacellseg are imported with the first field.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from skimage.transform import resize
from skimage.util import img_as_float32, img_as_ubyte

from hpaloc.masks import compact
from hpaloc.pixels.strips import as_array
from hpaloc.segmentation import weights
from hpaloc.segmentation.blocks import MARGIN_UM, Block, cut, joined
from hpaloc.segmentation.clock import step
from hpaloc.segmentation.grid import grid_of
from hpaloc.segmentation.labelling import cell_threshold, label_maps
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.torch_networks import load_script, start_torch

log = logging.getLogger("hpaloc")

# As in the training of the networks: reflected margins of 32 px up to a multiple of 32, and these statistics.
MARGIN = 32
MEAN = np.array([124, 117, 104], np.float32)[:, None, None] / 255
STD = np.float32(1 / (0.0167 * 255))


class Networks(NamedTuple):
    """The networks of a field and their torch device, by the names that hpacellseg's CellSegmentator gives them."""

    nuclei_model: Any
    cell_model: Any
    device: str


@lru_cache(maxsize=1)
def load(settings: SegmentationSettings, yellow: bool = True) -> Any:
    """Return both networks in evaluation mode, on the device of the settings.

    They are checked and loaded once per process, not for every field.

    yellow: whether the cell network is the one for fields that have yellow
    Returns hpacellseg's CellSegmentator, or Networks if they are TorchScript.
    Raises WeightsError, DeviceError.
    """
    files = weights.ready(settings.weights, yellow)
    device = start_torch(settings.device)
    if settings.weights.format == "torchscript":
        nuclei, cells = (load_script(path, device) for path in files)
        return Networks(nuclei, cells, device)
    from hpacellseg.cellsegmentator import CellSegmentator

    networks = [_unpickle(path) for path in files]
    scale = settings.scale
    return CellSegmentator(*networks, scale_factor=scale, device=device, padding=True, multi_channel_model=yellow)


def _unpickle(path: Path) -> Any:
    import torch

    log.info("unpickling %s (digest checked)", path)
    # These files are pickles of whole modules; weights.ready has checked their digests.
    network = torch.load(path, map_location="cpu", weights_only=False)
    if isinstance(network, torch.nn.DataParallel):
        network = network.module
    if not isinstance(network, torch.nn.Module):
        raise weights.WeightsError(f"{path}: contains a {type(network).__name__}, not a network")
    return network.eval()


def _prepared(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    small = resize(img_as_float32(image), shape, order=1, anti_aliasing=True)
    padding = [(MARGIN, MARGIN + (-side) % MARGIN) for side in shape]
    return np.pad(small, padding, mode="symmetric").astype(np.float32)


def _plane(field: Mapping[str, np.ndarray], colour: str) -> np.ndarray:
    """Return a channel; zeros for yellow if the field lacks it, as in hpacellseg's own input of two channels."""
    return field[colour] if colour in field else np.zeros_like(field["blue"])


def probability_maps(
    segmentator: Any, fields: Sequence[Mapping[str, np.ndarray]], pixel_size: float, scale: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Run both networks over several fields; fields of the same size form a batch.

    segmentator: from ``load``
    fields: {red, yellow, blue: (H, W) uint8 or uint16}, each field of any size; yellow is absent from all if the cell
    network is the one of two channels
    pixel_size: µm
    scale: as in ``grid_of``
    Returns for each field (nuclei_map, cell_map), (H, W, 3) uint8: nothing, border, body.
    """
    import torch

    shapes = [grid_of(field["blue"].shape, pixel_size, scale).coarse_shape for field in fields]
    maps: list[Any] = [None] * len(fields)
    for shape in dict.fromkeys(shapes):
        chosen = [k for k, other in enumerate(shapes) if other == shape]
        small = [{c: _prepared(_plane(fields[k], c), shape) for c in ("red", "yellow", "blue")} for k in chosen]
        inputs = {
            "nuclei": np.stack([np.stack([field["blue"]] * 3) for field in small]),
            "cells": np.stack([np.stack([field[c] for c in ("red", "yellow", "blue")]) for field in small]),
        }
        found = {}
        for name, network in (("nuclei", segmentator.nuclei_model), ("cells", segmentator.cell_model)):
            batch = torch.from_numpy((inputs[name] - MEAN) / STD).to(segmentator.device)
            with torch.inference_mode():
                result = torch.softmax(network(batch), dim=1).cpu().numpy()
            result = result[:, :, MARGIN : MARGIN + shape[0], MARGIN : MARGIN + shape[1]]
            found[name] = np.ascontiguousarray(result.transpose(0, 2, 3, 1))
        for n, k in enumerate(chosen):
            height, width = fields[k]["blue"].shape
            nuclei, cells = found["nuclei"][n], found["cells"][n]
            nuclei = cv2.resize(img_as_ubyte(nuclei), (width, height), interpolation=cv2.INTER_AREA)
            cells = img_as_ubyte(cv2.resize(cells, (width, height), interpolation=cv2.INTER_AREA))
            nuclei[..., 0] = cells[..., 0] = 0
            maps[k] = (nuclei, cells)
    return maps


def segment(
    images: Mapping[str, np.ndarray],
    pixel_size: float,
    settings: SegmentationSettings,
    *,
    chunk_above: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nuclei and the cells of a field with hpacellseg's networks.

    images: {red, yellow (may be absent), blue: (H, W) uint8 or uint16}, of any size
    pixel_size: µm
    chunk_above: px, the longer side above which networks and labelling run on overlapping blocks of about that size
    Returns (nuclei, cells) as ``segment_field`` does.
    Raises WeightsError, DeviceError.
    """
    segmentator = load(settings, "yellow" in images)
    shape = images["blue"].shape
    # The maps have no detail finer than the networks' own raster.
    ratio = max(1, round(1 / grid_of(shape, pixel_size, settings.scale).factor))
    reduce = ratio if settings.reduced_labelling else 1
    if chunk_above is None or max(shape) <= chunk_above:
        with step("filter"):
            ((nuclei_map, cell_map),) = probability_maps(segmentator, [images], pixel_size, settings.scale)
        return label_maps(nuclei_map, cell_map, pixel_size, reduce)
    # Windows begin on the networks' raster, which is halved several times.
    blocks = cut(shape, chunk_above, round(MARGIN_UM / pixel_size), 8 * ratio)
    return _segment_in_blocks(segmentator, images, pixel_size, settings.scale, blocks, reduce)


def _segment_in_blocks(
    segmentator: Any,
    images: Mapping[str, np.ndarray],
    pixel_size: float,
    scale: float,
    blocks: list[Block],
    reduce: int,
) -> tuple[np.ndarray, np.ndarray]:
    height, width = images["blue"].shape
    maps = np.zeros((2, height, width, 3), np.uint8)
    for block in blocks:
        window = {colour: image[block.window] for colour, image in images.items()}
        with step("filter"):
            (found,) = probability_maps(segmentator, [window], pixel_size, scale)
        for whole_map, of_window in zip(maps, found, strict=True):
            whole_map[block.core] = of_window[block.core_in_window]
    # From the whole field, so that a block with few cells has the same cells as its neighbours.
    threshold = cell_threshold(np.ascontiguousarray(maps[1, ..., 2]))
    is_nucleus = np.zeros((height, width), bool)

    def label(block: Block) -> np.ndarray:
        nuclei_map, cell_map = (whole_map[block.window] for whole_map in maps)
        nuclei, cells = label_maps(nuclei_map, cell_map, pixel_size, reduce, threshold)
        is_nucleus[block.core] = nuclei[block.core_in_window] > 0
        return cells

    cells = as_array(compact(joined(blocks, label, (height, width))))
    return cells * is_nucleus, cells
