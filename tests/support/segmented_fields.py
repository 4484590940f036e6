"""Small simulated fields on disk, and the agreement of two label images, for the tests of the segmentation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from hpaloc.manifests import ManifestRow
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.simulate.field import SimulatedField, simulate_field


def ious(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the IoU of each true cell 1 … n with each predicted cell 1 … m, (n, m), of two (H, W) label images."""
    n = int(found.max()) + 1
    shared = np.bincount((truth.astype(np.int64) * n + found).ravel(), minlength=(int(truth.max()) + 1) * n)
    shared = shared.reshape(-1, n)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    return (shared / np.maximum(union, 1))[1:, 1:]


def best_ious(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return the best IoU of each true cell, (n,)."""
    return ious(truth, found).max(axis=1, initial=0)


def segment_files(
    folder: Path,
    images: Mapping[str, np.ndarray],
    pixel_size: float,
    settings: SegmentationSettings,
    names: Sequence[str],
) -> pd.DataFrame:
    """Write the images of a field, segment it under each name by ``segment_shard``, and return the table of fields.

    images: {colour: (H, W) uint8 or uint16}
    pixel_size: µm
    """
    paths = {colour: str(folder / f"{colour}.png") for colour in images}
    for colour, image in images.items():
        assert cv2.imwrite(paths[colour], image)
    rows = [ManifestRow(name, None, pixel_size, paths=paths) for name in names]
    segment_shard(rows, folder / "out", settings, DaskSettings(), 1, 4000, 0.0)
    return pd.read_parquet(folder / "out" / "fields.parquet")


def manifest_rows(folder: Path) -> list[ManifestRow]:
    """Write three small fields with their true masks and return their rows."""
    made = []
    for n in range(3):
        field = simulate_field(f"f{n}", (0,), n, shape=(256, 320))
        paths = {colour: str(folder / f"f{n}_{colour}.png") for colour in field.images}
        for colour, image in field.images.items():
            cv2.imwrite(paths[colour], image)
        mask = str(folder / f"f{n}_mask.png")
        cv2.imwrite(mask, field.cells)
        made.append(ManifestRow(f"f{n}", None, 0.16, paths=paths, cell_mask=mask))
    return made


def twelve_bit_field() -> SimulatedField:
    """Return a simulated field of one location, 768 px of 0.16 µm, with images of 12 bits in 16, none overexposed."""
    field = simulate_field("f", (7,), 7, (768, 768), pixel_size=0.16, density=1.5, dtype="uint16")
    return replace(field, images={colour: image // 16 for colour, image in field.images.items()})
