"""Cells with their calls as GeoJSON, in the form in which QuPath 0.4 and above reads cells."""

import uuid
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import geojson
import numpy as np
import pandas as pd
import shapely

from hpaloc.classes import LOCATIONS, NAMES, parse_labels
from hpaloc.masks import mask_path, read_mask
from hpaloc.progress import log, track
from hpaloc.tables import LEANED, NETWORK, PROBABILITIES

# The columns of a called cell that are not measurements of it.
_NOT_MEASURED = {"field", "cell", "height", "width", "pixel_size", "y0", "x0", "y1", "x1", "labels", "called"}
# What QuPath shows in place of the columns of probabilities.
_SHOWN = {
    **{column: f"p {name}" for column, name in zip(PROBABILITIES, NAMES, strict=True)},
    **{column: f"network p {name}" for column, name in zip(NETWORK, NAMES, strict=True)},
    **{column: f"leaned p {name}" for column, name in zip(LEANED, NAMES, strict=True)},
}
_COLOURS = {location.name: [int(location.colour[at : at + 2], 16) for at in (1, 3, 5)] for location in LOCATIONS}

# px, the side of the square that joins parts that touch at a corner.
_JOINT = 0.1


def trace(mask: np.ndarray, x0: int, y0: int) -> shapely.Geometry:
    """Return the region of a mask, along the edges of its pixels.

    Parts that touch at a corner are joined there by a square of 0.1 px, so that a mask that hangs together is one
    polygon, which more readers take than several.

    mask: (h, w) bool, a part of an image
    x0, y0: px, the place of its first column and row in the image
    Returns a shapely Polygon or MultiPolygon in px of the image, pixel (0, 0) from 0 to 1; empty if the mask is.
    """
    steps = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    runs = shapely.box(starts + x0, rows + y0, ends + x0, rows + y0 + 1)
    region = shapely.union_all(runs)
    corners = [shapely.intersection(*pair) for pair in combinations(shapely.get_parts(region), 2)]
    if any(not corner.is_empty for corner in corners):
        region = shapely.union_all([region, *shapely.buffer(corners, _JOINT / 2, cap_style="square")])
    # Without a tolerance, simplifying only removes the corners of runs within straight edges.
    return shapely.orient_polygons(shapely.simplify(region, 0))


def _measurements(cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the numbers of a cell with the names that are shown.

    Newer QuPaths write a dictionary, but read this too, and the reader of napari reads nothing else. It needs the
    same names for every cell; a value that is missing is "NaN", which QuPath reads as missing too.
    """
    numbers = []
    for column, value in cell.items():
        if column in _NOT_MEASURED:
            continue
        shown: Any = "NaN"
        if not pd.isna(value):
            whole = isinstance(value, bool | int | np.bool_ | np.integer)
            # Six digits are what 32 bits hold.
            shown = int(value) if whole else float(f"{value:.6g}")
        numbers.append({"name": _SHOWN.get(column, column), "value": shown})
    return numbers


def describe_cell(cell: Mapping[str, Any], collection: str, cells: np.ndarray, nuclei: np.ndarray) -> geojson.Feature:
    """Return a cell as a GeoJSON feature that QuPath reads as a cell with its nucleus, class and measurements.

    cell: a row of ``calls.called_cells``
    collection: its name; the same collection, field and cell always give the same id
    cells, nuclei: (H, W) label images of its field, with shared ids
    """
    id, x0, y0 = cell["cell"], cell["x0"], cell["y0"]
    box = np.s_[y0 : cell["y1"], x0 : cell["x1"]]
    nucleus = trace(nuclei[box] == id, x0, y0)
    called_set = [NAMES[label] for label in parse_labels(cell["labels"])] if cell["labels"] else []
    return geojson.Feature(
        id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"hpaloc:{collection}/{cell['field']}/{id}")),
        geometry=trace(cells[box] == id, x0, y0),
        # Not part of the standard: readers that do not know it read only the cell.
        **({} if nucleus.is_empty else {"nucleusGeometry": shapely.geometry.mapping(nucleus)}),
        properties={
            "objectType": "cell",
            "name": str(id),
            "classification": {"name": cell["called"], "color": _COLOURS[cell["called"]]},
            "measurements": _measurements(cell),
            "metadata": {"field": cell["field"], "called_labels": " | ".join(called_set)},
        },
    )


def write_geojson(folder: Path, collection: str, segmentation: Path, cells: pd.DataFrame, fields: pd.DataFrame) -> None:
    """Write the cells of each segmented field of a shard to ``{field}.geojson``.

    folder: an empty folder
    segmentation: the folder of the masks
    cells: from ``calls.called_cells``
    fields: the shard's table of fields
    Raises MaskError naming a mask that cannot be read.
    """
    of_field = dict(list(cells.groupby("field", sort=False)))
    segmented = fields.loc[fields["status"] == "ok", "field"]
    for field in track(list(segmented), what="fields written"):
        masks = [read_mask(mask_path(segmentation, field, kind)) for kind in ("cell", "nucleus")]
        rows: list[Any] = of_field[field].to_dict("records") if field in of_field else []
        found = geojson.FeatureCollection([describe_cell(row, collection, *masks) for row in rows])
        text = geojson.dumps(found, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        (folder / f"{field}.geojson").write_text(text, encoding="utf-8")
    log.info("%d cells of %d fields", len(cells), len(segmented))
