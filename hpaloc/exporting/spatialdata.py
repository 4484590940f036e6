"""Fields, masks and called cells of a shard as one SpatialData store."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, TableModel
from spatialdata.transformations import Scale

from hpaloc.classes import LOCATIONS, NAMES
from hpaloc.embeddings import read_embeddings
from hpaloc.exporting.planes import STAINS, read_stack
from hpaloc.manifests import ManifestRow
from hpaloc.masks import mask_path, read_mask
from hpaloc.progress import log, track
from hpaloc.tables import LEANED, NETWORK, PROBABILITIES, group_probabilities


def element_names(fields: Sequence[str]) -> dict[str, str]:
    """Return {field: how the elements of its name start}: letters, digits and ``._-`` alone, different without case.

    SpatialData takes no other names, since they become names of folders.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for field in fields:
        plain = "".join(each if each.isalnum() or each in "._-" else "_" for each in field)
        # SpatialData reserves names that start with two underscores.
        plain = plain.lstrip("_") or "field"
        name, number = plain, 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names[field] = name
    return names


def cell_table(cells: pd.DataFrame, embeddings: np.ndarray, names: dict[str, str]) -> anndata.AnnData:
    """Return the cells as the table of a store, each linked to its id in the label image of its field.

    Like cells.h5ad, X is the embedding, obs has measurements and calls, obsm probabilities and centroids (px).

    cells: from ``calls.called_cells``
    embeddings: (n, d) float32
    names: from ``element_names``
    """
    probabilities = [name for name in (*PROBABILITIES, *NETWORK, *LEANED) if name in cells]
    obs = cells.drop(columns=probabilities).rename(columns={"labels": "called_labels"})
    obs["called"] = pd.Categorical(obs["called"], categories=list(NAMES))
    obs["region"] = pd.Categorical([f"{names[field]}_cells" for field in cells["field"]])
    obs.index = pd.Index([f"{field}:{cell}" for field, cell in zip(cells["field"], cells["cell"], strict=True)])
    spatial = cells[["centroid_x", "centroid_y"]].to_numpy(np.float32)
    table = anndata.AnnData(
        X=embeddings,
        obs=obs,
        var=pd.DataFrame(index=[f"embedding_{index}" for index in range(embeddings.shape[1])]),
        obsm={**group_probabilities(cells), "spatial": spatial},
        uns={
            "locations": np.array(NAMES, dtype=object),
            "called_colors": np.array([location.colour for location in LOCATIONS], dtype=object),
        },
    )
    regions = list(obs["region"].cat.categories)
    return TableModel.parse(table, region=regions, region_key="region", instance_key="cell")


def write_spatialdata(
    path: Path,
    manifest: Sequence[ManifestRow],
    segmentation: Path,
    cells: pd.DataFrame,
    predictions: Path,
    fields: pd.DataFrame,
) -> None:
    """Write the segmented fields of a shard as one SpatialData store.

    Each field has a coordinate system of its own, in µm, and the elements ``{name}_image``, ``{name}_cells`` and
    ``{name}_nuclei``, see ``element_names``. The table ``cells`` is missing if the shard has no cell.

    path: a folder that does not exist yet
    segmentation: the folder of the masks
    cells: from ``calls.called_cells``
    predictions: the shard's table of predictions, which has the embeddings of these cells
    fields: the shard's table of fields
    Raises ImageError or MaskError naming a file that can no longer be read, ChangedError naming one that changed after
    the run was planned.
    """
    pixel_sizes: dict[Any, float] = fields[fields["status"] == "ok"].set_index("field")["pixel_size"].to_dict()
    segmented = [row for row in manifest if row.id in pixel_sizes]
    names = element_names([row.id for row in segmented])
    store = SpatialData()
    for row in track(segmented, what="fields read"):
        name, pixel_size = names[row.id], pixel_sizes[row.id]
        of_field = {"transformations": {name: Scale([pixel_size, pixel_size], axes=("y", "x"))}}
        colours, stack = read_stack(row)
        stains = [STAINS[colour] for colour in colours]
        store[f"{name}_image"] = Image2DModel.parse(stack, dims=("c", "y", "x"), c_coords=stains, **of_field)
        for kind, of in (("cell", "cells"), ("nucleus", "nuclei")):
            mask = read_mask(mask_path(segmentation, row.id, kind))
            store[f"{name}_{of}"] = Labels2DModel.parse(mask, dims=("y", "x"), **of_field)
    if len(cells):
        store["cells"] = cell_table(cells, read_embeddings(predictions), names)
    store.write(path)
    log.info("%d cells of %d fields", len(cells), len(segmented))
