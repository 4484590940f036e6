"""Ready-made crops: pictures of one cell each, which are not segmented."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hpaloc.image_metadata import resolve_pixel_size
from hpaloc.images import ImageError, check_field, read_field
from hpaloc.manifests import ManifestRow, unchanged
from hpaloc.masks import write_masks
from hpaloc.progress import track
from hpaloc.segmentation.outcome import new_row, reason_of, write_outcome

# px. The largest crops of one cell that people publish have 1024; what is larger is rather a field.
LARGEST_CROP = 2048


def mark_crops(rows: Sequence[ManifestRow], out_dir: Path, max_rejected_fraction: float, threads: int = 1) -> None:
    """Write for each crop of a shard a mask of one cell, which is the whole crop, and a mask without a nucleus.

    A crop that cannot be used, by an ImageError or another, becomes a row of status "rejected" with the reason.

    rows: the shard's manifest
    out_dir: gets the files of ``shards.segment_shard``
    threads: the crops read at a time
    Raises TooManyRejected (after writing everything) if more than ceil(max_rejected_fraction x crops) are rejected.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(threads) as pool:
        marked: Iterable[dict[str, Any]] = pool.map(lambda row: _mark(row, out_dir), rows)
        outcome = list(track(marked, total=len(rows), what="crops"))
    write_outcome(outcome, out_dir, max_rejected_fraction)


def _mark(row: ManifestRow, out_dir: Path) -> dict[str, Any]:
    """Write the masks of one crop, and return its row of SEGMENTED; an error of the crop becomes its reason."""
    found = new_row(row.id, row.pixel_size)
    try:
        with unchanged(row.paths, row.states):
            images = read_field(row.paths)
            found["pixel_size"] = resolve_pixel_size(row.pixel_size, row.paths)
        check_field(images, row.paths)
        height, width = images["blue"].shape
        if max(height, width) > LARGEST_CROP:
            raise ImageError(
                f"{row.paths['blue']}: {height} x {width} px is larger than a crop of one cell (at most {LARGEST_CROP} "
                "px a side); leave the key crops out if this is a field"
            )
        cells = np.ones((height, width), np.uint16)
        write_masks(out_dir, row.id, cells, np.zeros_like(cells))
    # An error of writing, such as a full disk, is not the crop's, unless it is that of its ID.
    except ValueError as error:
        return found | {"status": "rejected", "reason": reason_of(error)}
    return found | {"height": height, "width": width, "dtype": str(images["blue"].dtype), "n_cells": 1}
