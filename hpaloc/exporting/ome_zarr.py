"""Fields with their masks as OME-Zarr (NGFF 0.5, Zarr 3): channels with colours and levels, pyramids, label images.

The metadata follow https://ngff.openmicroscopy.org/0.5.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import dask
import numpy as np
import pandas as pd
import zarr
from ome_zarr.format import FormatV05
from ome_zarr.writer import add_metadata, write_multiscale, write_multiscale_labels

from hpaloc.exporting.planes import STAINS, read_stack
from hpaloc.manifests import ManifestRow
from hpaloc.masks import mask_path, read_mask
from hpaloc.progress import log, track

# px; a viewer shows the coarsest level as a whole, and reads a chunk at a time.
_COARSEST, _CHUNK = 256, 1024
_SHOWN = {"red": "FF0000", "green": "00FF00", "blue": "0000FF", "yellow": "FFFF00"}


def image_levels(stack: np.ndarray) -> list[np.ndarray]:
    """Return the pyramid of planes, the finest first; each level halves the one before, to 256 px a side or less.

    stack: (C, H, W) uint8 or uint16
    Returns such arrays, in which a pixel is the mean of those that it covers.
    """
    levels = [stack]
    while max(levels[-1].shape[1:]) > _COARSEST:
        height, width = (max(1, side // 2) for side in levels[-1].shape[1:])
        halved = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA) for plane in levels[-1]]
        levels.append(np.stack(halved))
    return levels


def label_levels(labels: np.ndarray) -> list[np.ndarray]:
    """Return the pyramid of a label image, with levels of the shapes of ``image_levels``.

    labels: (H, W) uint16 or uint32
    Returns such arrays, in which a pixel has the id of one of those that it covers.
    """
    levels = [labels]
    while max(levels[-1].shape) > _COARSEST:
        height, width = (max(1, side // 2) for side in levels[-1].shape)
        levels.append(levels[-1][::2, ::2][:height, :width])
    return levels


def _transformations(levels: Sequence[np.ndarray], pixel_size: float) -> list[list[dict[str, Any]]]:
    """Return the scale (µm per px) and the place (µm, of the middle of the first pixel) of each level of a pyramid."""
    found = []
    for level in levels:
        factors = [fine / coarse for fine, coarse in zip(levels[0].shape[-2:], level.shape[-2:], strict=True)]
        before = [1.0] * (level.ndim - 2)
        scale = [*before, *(factor * pixel_size for factor in factors)]
        place = [*(0.0 for _ in before), *((factor - 1) / 2 * pixel_size for factor in factors)]
        found.append([{"type": "scale", "scale": scale}, {"type": "translation", "translation": place}])
    return found


def _channels(colours: Sequence[str], levels: Mapping[str, Any], dtype: np.dtype) -> list[dict[str, Any]]:
    """Return how viewers show each colour: from the background to the white of this field."""
    top = float(np.iinfo(dtype).max)
    return [
        {
            "label": STAINS[colour],
            "color": _SHOWN[colour],
            "active": True,
            "coefficient": 1.0,
            "family": "linear",
            "inverted": False,
            "window": {
                "min": 0.0,
                "max": top,
                "start": round(float(levels[f"{colour}_background"]), 3),
                "end": round(min(float(levels[f"{colour}_white"]), top), 3),
            },
        }
        for colour in colours
    ]


def write_field(
    path: Path,
    name: str,
    colours: Sequence[str],
    stack: np.ndarray,
    masks: Mapping[str, np.ndarray],
    levels: Mapping[str, Any],
) -> None:
    """Write one field as an OME-Zarr image with label images.

    path: a folder that does not exist yet
    stack: (C, H, W) uint8 or uint16, the planes of ``colours``
    masks: name of a label image to (H, W) uint16 or uint32
    levels: ``pixel_size`` (µm), ``{colour}_background`` and ``{colour}_white`` of its row in the table of fields
    """
    written = {"fmt": FormatV05(), "storage_options": {"chunks": (1, _CHUNK, _CHUNK)}}
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    group = zarr.open_group(path, mode="w-", zarr_format=3)
    pyramid = image_levels(stack)
    write_multiscale(
        pyramid,
        group,
        axes=[{"name": "c", "type": "channel"}, *space],
        coordinate_transformations=_transformations(pyramid, levels["pixel_size"]),
        name=name,
        **written,
    )
    add_metadata(group, {"omero": {"channels": _channels(colours, levels, stack.dtype)}}, fmt=written["fmt"])
    written["storage_options"] = {"chunks": (_CHUNK, _CHUNK)}
    for of, labels in masks.items():
        pyramid = label_levels(labels)
        write_multiscale_labels(
            pyramid,
            group,
            of,
            axes=space,
            coordinate_transformations=_transformations(pyramid, levels["pixel_size"]),
            label_metadata={"source": {"image": "../../"}},
            **written,
        )
    # The library leaves it out of this group; the format requires it.
    add_metadata(group["labels"], {"version": written["fmt"].version}, fmt=written["fmt"])


def write_ome_zarr(folder: Path, manifest: Sequence[ManifestRow], segmentation: Path, fields: pd.DataFrame) -> None:
    """Write each segmented field of a shard to ``{field}.ome.zarr``, with the label images ``cells`` and ``nuclei``.

    folder: an empty folder
    segmentation: the folder of the masks
    fields: the shard's table of fields
    Raises ImageError or MaskError naming a file that can no longer be read, ChangedError naming one that changed after
    the run was planned.
    """
    rows: dict[Any, Any] = fields[fields["status"] == "ok"].set_index("field").to_dict("index")
    segmented = [row for row in manifest if row.id in rows]
    # The job has one thread.
    with dask.config.set(scheduler="synchronous"):
        for row in track(segmented, what="fields written"):
            colours, stack = read_stack(row)
            masks = {
                name: read_mask(mask_path(segmentation, row.id, kind))
                for name, kind in (("cells", "cell"), ("nuclei", "nucleus"))
            }
            write_field(folder / f"{row.id}.ome.zarr", row.id, colours, stack, masks, rows[row.id])
    log.info("%d of %d fields", len(segmented), len(manifest))
