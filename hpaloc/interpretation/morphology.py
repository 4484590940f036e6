"""CellProfiler's features of single cells, by cp-measure: the descriptors that networks are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from cp_measure.bulk import get_core_measurements, get_correlation_measurements
from joblib import delayed

from hpaloc.classes import COLOURS
from hpaloc.images import read_field
from hpaloc.interpretation.processes import in_processes
from hpaloc.joining import read_fields
from hpaloc.layout import CollectionFiles
from hpaloc.levels import scaled
from hpaloc.manifests import ManifestRow, read_manifest, unchanged
from hpaloc.masks import mask_path, read_mask
from hpaloc.progress import log, track

# Fields with smaller pixels are measured at this pixel size, µm: textures and granularity are in px, and must mean the
# same in every field. A cell is then about 100 px wide, more than in tiles of 64 px and less than in tiles of 224.
PIXEL_SIZE = 0.24
SHAPE = ("sizeshape", "feret")
OF_EVERY_COLOUR = ("intensity", "texture")
OF_THE_PROTEIN = ("radial_distribution", "granularity")
# The matrix of neighbouring grey levels has the square of this many entries, for a few thousand pixels of a cell; with
# CellProfiler's default of 256 most stay empty, and take most of the time. Pixels of the lowest level do not count, so
# a cell that is all below 1/57 of the white level (4.5 of 255) has no texture.
GREY_LEVELS = 64
CORRELATION = ("pearson", "manders_fold", "rwc")
# Background and white level of each colour of a field.
Levels = Mapping[str, tuple[float, float]]
# The place of a cell in the field does not describe the cell.
_PLACES = ("Location", "Center", "BoundingBox")


def measure_cells(
    images: Mapping[str, np.ndarray],
    cells: np.ndarray,
    ids: Sequence[int],
    levels: Levels,
    pixel_size: float,
) -> pd.DataFrame:
    """Measure cells of a field as CellProfiler does: size and shape, intensity, texture, radial distribution,
    granularity, correlation of the protein with the other stains.

    Textures have 64 grey levels and are means over the four directions. Radial distribution, granularity and
    correlation are those of the protein (green).

    images: {colour: (H, W)} of any number type
    cells: (H, W) label image
    ids: the cells to measure
    levels: background and white level of each colour, which count as 0 and 1
    pixel_size: µm

    Returns one row per cell in the order of ``ids``, one column per feature (float64, nan if not defined).
    Raises ValueError naming a cell that is not in the label image.
    """
    scale = min(1.0, pixel_size / PIXEL_SIZE)
    size = tuple(max(1, round(edge * scale)) for edge in cells.shape[::-1])
    renumbered = np.zeros(int(cells.max(initial=0)) + 1, np.int32)
    for rank, id in enumerate(ids, start=1):
        if id >= len(renumbered):
            raise ValueError(f"cell {id} is not in the label image")
        renumbered[id] = rank
    labels = renumbered[cells]
    if scale < 1:
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    present = np.bincount(labels.ravel(), minlength=len(ids) + 1)[1:]
    if not present.all():
        raise ValueError(f"cell {ids[int(present.argmin())]} is not in the label image")
    planes = {}
    for colour, image in images.items():
        plane = scaled(image, *levels[colour], 1.0)
        planes[colour] = (cv2.resize(plane, size, interpolation=cv2.INTER_AREA) if scale < 1 else plane).astype(float)
    core = get_core_measurements(sanitize=False)
    correlation = get_correlation_measurements(sanitize=False)
    columns: dict[str, np.ndarray] = {}
    # Undefined features are nan in the table and need no warning.
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in SHAPE:
            columns |= core[name](labels, None, **({"calculate_advanced": False} if name == "sizeshape" else {}))
        for colour, plane in planes.items():
            wanted = (*OF_EVERY_COLOUR, *(OF_THE_PROTEIN if colour == "green" else ()))
            for name in wanted:
                found = core[name](labels, plane, **({"gray_levels": GREY_LEVELS} if name == "texture" else {}))
                columns |= {f"{key}_{colour}": value for key, value in found.items()}
        for name in CORRELATION:
            for colour in planes:
                if colour != "green":
                    found = correlation[name](pixels_1=planes["green"], pixels_2=planes[colour], masks=labels)
                    columns |= {f"{key}_green_{colour}": value for key, value in found.items()}
    table = pd.DataFrame({key: np.asarray(value, float) for key, value in columns.items()})
    table = table[[key for key in columns if not any(place in key for place in _PLACES)]]
    return _mean_over_directions(table)


def _mean_over_directions(table: pd.DataFrame) -> pd.DataFrame:
    """Replace the textures of the four directions, <what>_<scale>_<direction>_<levels>_<colour>, by their mean, since
    the orientation of a cell is arbitrary."""
    names: dict[str, str] = {}
    for key in map(str, table):
        parts = key.split("_")
        directed = len(parts) == 5 and parts[2].isdigit() and parts[3].isdigit()
        names[key] = f"Texture_{parts[0]}_{parts[1]}_{parts[4]}" if directed else key
    return table.T.groupby([names[key] for key in map(str, table)], sort=False).mean().T


def _measure_field(row: ManifestRow, mask: Path, ids: list[int], levels: Levels) -> pd.DataFrame:
    try:
        with unchanged(row.paths, row.states):
            images = read_field(row.paths)
        table = measure_cells(images, read_mask(mask), ids, levels, row.pixel_size)
        return table.set_index(pd.MultiIndex.from_product([[row.id], ids]))
    except ValueError as error:
        raise ValueError(f"field {row.id}: {error}") from error


def measure_fields(
    rows: Mapping[str, ManifestRow],
    folders: Mapping[str, Path],
    levels: Mapping[str, Levels],
    cells: pd.DataFrame,
    processes: int = 1,
) -> pd.DataFrame:
    """Measure cells (field, cell) of a collection, ``processes`` fields at a time, see ``measure_cells``.

    rows: the manifest row of each field
    folders: its folder of label images
    levels: its levels by colour, as in ``measure_cells``

    Returns one row per cell, in the order of ``cells``.
    Raises ValueError naming field and cell.
    """
    wanted = {str(field): [int(cell) for cell in own["cell"]] for field, own in cells.groupby("field", sort=True)}
    jobs = (
        delayed(_measure_field)(rows[name], mask_path(folders[name], name, "cell"), ids, levels[name])
        for name, ids in wanted.items()
    )
    joined = pd.concat(list(track(in_processes(jobs, processes), len(wanted), "fields measured")))
    return joined.loc[list(zip(cells["field"], cells["cell"].astype(int), strict=True))].reset_index(drop=True)


def measure_collections(
    cells: pd.DataFrame, collections: Mapping[str, CollectionFiles], processes: int = 1
) -> pd.DataFrame:
    """Measure cells (collection, field, cell), see ``measure_cells``; rows in the order of ``cells``."""
    parts = []
    for name, own in cells.groupby("collection", sort=False):
        files = collections[str(name)]
        fields = read_fields(files.of_shards("fields"))
        sizes = dict(zip(fields["field"], map(float, fields["pixel_size"]), strict=True))
        rows, folders = {}, {}
        for shard in files.shards:
            for row in read_manifest(files.path("manifest", shard)):
                rows[row.id] = replace(row, pixel_size=sizes[row.id])
                folders[row.id] = files.path("segmentation", shard)
        levels = _levels_of_fields(fields)
        measured = measure_fields(rows, folders, levels, own, processes)
        parts.append(measured.set_index(own.index))
    table = pd.concat(parts).loc[cells.index].reset_index(drop=True)
    undefined = ~np.isfinite(table.to_numpy()).all(axis=0)
    if undefined.any():
        log.info(
            "%d of %d features are not defined for every cell, and are left out of comparisons with such a cell: %s",
            undefined.sum(),
            len(undefined),
            ", ".join(map(str, table.columns[undefined])),
        )
    return table


def _levels_of_fields(fields: pd.DataFrame) -> dict[str, Levels]:
    """Return the background and the white level of each colour of each field, from a table FIELDS."""
    names = [f"{colour}_{what}" for colour in COLOURS for what in ("background", "white")]
    return {
        name: dict(zip(COLOURS, map(tuple, levels.reshape(-1, 2)), strict=True))
        for name, levels in zip(fields["field"], fields[names].to_numpy(float), strict=True)
    }
