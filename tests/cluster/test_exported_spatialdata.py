"""A shard as SpatialData, written in the environment of its rule; read by spatialdata there, by others here."""

import json
import subprocess
from pathlib import Path

import anndata
import cv2
import numpy as np
import pandas as pd
import pytest
import zarr
from exported_shards import IDS, write_predicted_run
from rule_environments import run_in_environments

from hpaloc.classes import COLOURS, LOCATIONS, NAMES
from hpaloc.embeddings import read_embeddings
from hpaloc.tables import PROBABILITIES

pytestmark = pytest.mark.slow

# The name of the second has signs that SpatialData does not take.
ELEMENTS = dict(zip((*IDS, "empty"), ("field-0", "é_b_____c_", "empty"), strict=True))
STAINS = ["microtubules", "protein", "nucleus", "endoplasmic reticulum"]
# In the environment of the rule: what spatialdata says of the store, and the ids of cells with a row of each mask.
READING = """
import json, sys
import spatialdata
from spatialdata.transformations import get_transformation

store = spatialdata.read_zarr(sys.argv[1])
names = [name for _, name, _ in store.gen_spatial_elements()]
said = {"version": spatialdata.__version__, "elements": names, "tables": list(store.tables), "rows": {}, "scales": {}}
for name in names:
    ((system, of_name),) = get_transformation(store[name], get_all=True).items()
    said["scales"][name] = [system, of_name.to_affine_matrix(("y", "x"), ("y", "x")).tolist()]
for name in store.labels:
    if name in store["cells"].obs["region"].cat.categories:
        _, table = spatialdata.join_spatialelement_table(store, name, table_name="cells", how="left")
        ids = sorted(int(id) for id in spatialdata.get_element_instances(store[name]) if id)
        said["rows"][name] = [sorted(int(id) for id in table.obs["cell"]), ids]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A predicted shard, its store, and what spatialdata says of it."""
    folder = tmp_path_factory.mktemp("exported")
    shard = write_predicted_run(folder)
    rules = ["--allowed-rules", "spatialdata_shard", "export_spatialdata"]
    run_in_environments(folder, folder / "conda", "export_spatialdata", *rules)
    store = folder / "results/export/spatialdata/new/000/fields.zarr"
    (environment,) = [path for path in (folder / "conda").iterdir() if (path / "bin/python").exists()]
    command = [environment / "bin/python", "-P", "-W", "ignore", "-c", READING, store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return shard, store, json.loads(done.stdout.splitlines()[-1])


def test_spatialdata_reads_every_segmented_field_with_its_masks(exported):
    said = exported[2]
    parts = {f"{name}_{part}" for name in ELEMENTS.values() for part in ("image", "cells", "nuclei")}
    assert set(said["elements"]) == parts
    assert said["tables"] == ["cells"]
    for name, (system, matrix) in said["scales"].items():
        assert system == name.rpartition("_")[0]
        np.testing.assert_allclose(matrix, np.diag([0.08, 0.08, 1]))


def test_every_cell_of_a_mask_has_its_row_of_the_table(exported):
    shard, _, said = exported
    assert set(said["rows"]) == {f"{ELEMENTS[id]}_cells" for id in IDS}
    for id in IDS:
        rows, ids = said["rows"][f"{ELEMENTS[id]}_cells"]
        assert rows == ids == list(range(1, shard.masks(id)[0].max() + 1))


@pytest.mark.parametrize("field", ELEMENTS)
def test_pixels_are_those_of_the_run(exported, field):
    shard, store, _ = exported
    name = ELEMENTS[field]
    group = zarr.open_group(store, mode="r")
    (row,) = [row for row in shard.manifest if row.id == field]
    stored = np.stack([cv2.imread(row.paths[colour], cv2.IMREAD_UNCHANGED) for colour in COLOURS])
    image = group[f"images/{name}_image"]
    (dataset,) = image.attrs["ome"]["multiscales"][0]["datasets"]
    assert np.array_equal(image[dataset["path"]][:], stored)
    assert [channel["label"] for channel in image.attrs["ome"]["omero"]["channels"]] == STAINS
    for of, mask in zip(("cells", "nuclei"), shard.masks(field), strict=True):
        labels = group[f"labels/{name}_{of}"]
        (dataset,) = labels.attrs["ome"]["multiscales"][0]["datasets"]
        assert np.array_equal(labels[dataset["path"]][:], mask)


def test_anndata_reads_the_table_of_called_cells(exported):
    shard, store, _ = exported
    table = anndata.read_zarr(store / "tables/cells")
    cells, predictions = pd.read_parquet(shard.cells), pd.read_parquet(shard.predictions)
    p = predictions[list(PROBABILITIES)].to_numpy()
    assert table.uns["spatialdata_attrs"]["region_key"] == "region"
    assert table.uns["spatialdata_attrs"]["instance_key"] == "cell"
    assert table.obs["field"].tolist() == cells["field"].tolist()
    assert table.obs["cell"].tolist() == cells["cell"].tolist()
    assert table.obs["region"].tolist() == [f"{ELEMENTS[field]}_cells" for field in cells["field"]]
    assert table.obs["called"].tolist() == [NAMES[index] for index in p.argmax(axis=1)]
    assert table.obs["called_labels"].tolist() == predictions["labels"].tolist()
    assert table.uns["called_colors"].tolist() == [location.colour for location in LOCATIONS]
    np.testing.assert_array_equal(table.obsm["probabilities"], p)
    np.testing.assert_array_equal(table.obsm["spatial"], cells[["centroid_x", "centroid_y"]])
    np.testing.assert_array_equal(table.X, read_embeddings(Path(shard.predictions)))
    # Without a nucleus there is no brightness of one.
    for column in ("area_um2", "green_cell_mean", "blue_nucleus_mean"):
        np.testing.assert_array_equal(table.obs[column], cells[column])
