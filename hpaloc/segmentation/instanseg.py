"""The backend ``instanseg``: a network of InstanSeg (github.com/instanseg/instanseg), whose file labels the cells too.

It is the smallest backend with a network; docs/backends.md says how to add another.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from hpaloc.masks import compact
from hpaloc.pixels.strips import as_array
from hpaloc.segmentation import weights
from hpaloc.segmentation.blocks import MARGIN_UM, Block, cut, joined
from hpaloc.segmentation.clock import step
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.torch_networks import load_script, start_torch

# As in InstanSeg's own preparation: these percentiles of a channel become 0 and 1.
PERCENTILES = (0.1, 99.9)
_LEAST_RANGE = 1e-3
# px. Windows start at multiples of this, as the network halves its input several times. They are not larger than
# _LARGEST, since the labelling in the file compares all cells of a window with each other; smaller ones are padded.
_MULTIPLE, _LARGEST, _SMALLEST = 32, 1280, 64


@lru_cache(maxsize=1)
def load(settings: SegmentationSettings) -> tuple[Any, str]:
    """Return the network and its torch device; it is checked and loaded once per process.

    Raises WeightsError for a file that is not a network of InstanSeg for nuclei and cells, DeviceError.
    """
    (path,) = weights.ready(settings.weights, backend="instanseg")
    device = start_torch(settings.device)
    network = load_script(path, device)
    if not getattr(network, "pixel_size", 0) or not getattr(network, "cells_and_nuclei", False):
        raise weights.WeightsError(f"{path}: is not a network of InstanSeg that finds both nuclei and cells")
    return network, device


def segment(
    images: Mapping[str, np.ndarray],
    pixel_size: float,
    settings: SegmentationSettings,
    *,
    chunk_above: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nuclei and the cells of a field at the pixel size of the network, which is usually 0.5 µm.

    images: {red, yellow (both may be absent), blue: (H, W) uint8 or uint16}
    pixel_size: µm
    chunk_above: px, the longer side above which it runs on overlapping blocks of about that size; at most 1280 px at
        the network's pixel size
    Returns (nuclei, cells) as ``segment_field`` does.
    Raises WeightsError, DeviceError.
    """
    import torch

    network, device = load(settings)
    height, width = images["blue"].shape
    factor = pixel_size / network.pixel_size
    shape = (max(1, round(height * factor)), max(1, round(width * factor)))
    planes = np.stack([_prepared(images[colour], shape) for colour in ("red", "yellow", "blue") if colour in images])
    margin = -(-round(MARGIN_UM / network.pixel_size) // _MULTIPLE) * _MULTIPLE
    side = _LARGEST if chunk_above is None else min(_LARGEST, round(chunk_above * factor))
    blocks = cut(shape, side if max(shape) > side else max(shape) + 2 * margin, margin, _MULTIPLE)
    is_nucleus = np.zeros(shape, np.uint8)

    def label(block: Block) -> np.ndarray:
        window = planes[:, *block.window]
        rows, columns = window.shape[1:]
        padding = [(0, max(0, _SMALLEST - length)) for length in (rows, columns)]
        window = np.ascontiguousarray(np.pad(window, [(0, 0), *padding]))
        with step("filter"), torch.inference_mode():
            nuclei, cells = network(torch.from_numpy(window)[None].to(device))[0, :, :rows, :columns].cpu().numpy()
        is_nucleus[block.core] = nuclei[block.core_in_window] > 0
        return cells.astype(np.int32)

    coarse = joined(blocks, label, shape).astype(np.float32)
    with step("label"):
        # Floats have every id below 2^24 exactly.
        cells, nucleus = (
            cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST) for plane in (coarse, is_nucleus)
        )
        cells = as_array(compact(cells.astype(np.uint32)))
    return cells * (nucleus > 0), cells


def _prepared(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    small = cv2.resize(image.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    low, high = np.percentile(small, PERCENTILES)
    return (small - np.float32(low)) / np.float32(max(high - low, _LEAST_RANGE))
