"""Cells as GeoJSON, read by shapely, geojson and the reader of napari: nothing of a mask or of a call is lost."""

import numpy as np
import pandas as pd
import pytest
from exported_shards import IDS, write_predicted_shard

from hpaloc.classes import LOCATIONS, NAMES
from hpaloc.exporting.calls import called_cells
from hpaloc.tables import PROBABILITIES, TableError

geojson = pytest.importorskip("geojson", reason="the packages of envs/geojson.yaml are not installed")
shapely = pytest.importorskip("shapely", reason="the packages of envs/geojson.yaml are not installed")


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    return write_predicted_shard(tmp_path_factory.mktemp("predicted"))


@pytest.fixture(scope="module")
def folder(shard, tmp_path_factory):
    from hpaloc.exporting.geojson import write_geojson

    folder = tmp_path_factory.mktemp("geojson")
    cells = called_cells(shard.cells, shard.predictions)
    write_geojson(folder, "new", shard.segmentation, cells, pd.read_parquet(shard.fields))
    return folder


def read(folder, field):
    return geojson.loads((folder / f"{field}.geojson").read_text(encoding="utf-8"))


def covered(geometry, shape):
    """Return the pixels whose middle is in a geometry, (H, W) bool."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return shapely.contains_xy(shapely.geometry.shape(geometry), x, y)


def test_every_segmented_field_has_a_file_and_a_rejected_one_has_none(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{id}.geojson" for id in (*IDS, "empty"))
    assert read(folder, "empty") == {"type": "FeatureCollection", "features": []}


@pytest.mark.parametrize("field", IDS)
def test_outlines_cover_the_pixels_of_the_masks_and_no_others(shard, folder, field):
    cells, nuclei = shard.masks(field)
    features = read(folder, field)["features"]
    assert [int(feature["properties"]["name"]) for feature in features] == list(range(1, cells.max() + 1))
    for id, feature in enumerate(features, start=1):
        assert (covered(feature["geometry"], cells.shape) == (cells == id)).all(), id
        # A joint of parts that touch at a corner has half of its square outside.
        assert shapely.geometry.shape(feature["geometry"]).area == pytest.approx((cells == id).sum(), abs=0.006)
        if (nuclei == id).any():
            assert (covered(feature["nucleusGeometry"], cells.shape) == (nuclei == id)).all(), id
        else:
            assert "nucleusGeometry" not in feature


def test_cells_of_parts_and_with_holes_are_valid(shard, folder):
    parts, hole = (read(folder, IDS[0])["features"][at]["geometry"] for at in (1, 2))
    assert (parts["type"], len(parts["coordinates"])) == ("MultiPolygon", 2)
    assert (hole["type"], len(hole["coordinates"])) == ("Polygon", 2)
    # Hanging together at a corner is enough for one polygon.
    assert {feature["geometry"]["type"] for feature in read(folder, IDS[1])["features"]} == {"Polygon"}
    for field in IDS:
        collection = read(folder, field)
        assert collection.is_valid, collection.errors()
        for feature in collection["features"]:
            for geometry in (feature["geometry"], feature.get("nucleusGeometry", feature["geometry"])):
                assert shapely.geometry.shape(geometry).is_valid


def test_calls_and_measurements_are_those_of_the_tables(shard, folder):
    cells, predictions = pd.read_parquet(shard.cells), pd.read_parquet(shard.predictions)
    features = [feature for field in IDS for feature in read(folder, field)["features"]]
    assert len(features) == len(cells) > 0
    names = set()
    for feature, cell, call in zip(features, cells.to_dict("records"), predictions.to_dict("records"), strict=True):
        likeliest = int(np.argmax([call[name] for name in PROBABILITIES]))
        properties = feature["properties"]
        # What QuPath takes a feature for, in the words of its PathObjectTypeAdapters.
        assert properties["objectType"] == "cell"
        colour = "".join(f"{level:02x}" for level in properties["classification"]["color"])
        assert (properties["classification"]["name"], f"#{colour}") == (
            NAMES[likeliest],
            LOCATIONS[likeliest].colour,
        )
        assert properties["metadata"] == {"field": cell["field"], "called_labels": NAMES[int(call["labels"])]}
        measured = {each["name"]: each["value"] for each in properties["measurements"]}
        names.add(tuple(measured))
        for index, name in enumerate(NAMES):
            assert measured[f"p {name}"] == pytest.approx(call[f"p_{index}"], rel=1e-5)
        assert measured["area_px"] == cell["area_px"]
        assert measured["border"] == int(cell["border"])
        assert measured["green_cell_mean"] == pytest.approx(cell["green_cell_mean"], rel=1e-5)
        # Without a nucleus there is no brightness of one.
        assert (measured["blue_nucleus_mean"] == "NaN") == (cell["nucleus_area_px"] == 0)
        assert all(isinstance(value, int | float) or value == "NaN" for value in measured.values())
    # The reader of napari makes a table of them.
    assert len(names) == 1


def test_ids_are_those_of_the_cells_and_the_same_each_time(shard, folder, tmp_path):
    from hpaloc.exporting.geojson import write_geojson

    cells, fields = called_cells(shard.cells, shard.predictions), pd.read_parquet(shard.fields)
    for name in ("new", "other"):
        (tmp_path / name).mkdir()
        write_geojson(tmp_path / name, name, shard.segmentation, cells, fields)
    for path in folder.iterdir():
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()
    ids = [feature["id"] for of in (folder, tmp_path / "other") for id in IDS for feature in read(of, id)["features"]]
    assert len(set(ids)) == len(ids)


def test_napari_shows_every_cell_at_its_place(shard, folder):
    reader = pytest.importorskip("napari_geojson", reason="the reader of napari is not installed")
    path = str(folder / f"{IDS[1]}.geojson")
    ((shapes, _, kind),) = reader.napari_get_reader(path)(path)
    assert kind == "shapes"
    cells = pd.read_parquet(shard.cells)
    cells = cells[cells["field"] == IDS[1]]
    # napari has rows before columns.
    ends = [[*shape.min(axis=0), *shape.max(axis=0)] for shape in shapes]
    assert np.array_equal(ends, cells[["y0", "x0", "y1", "x1"]])


def test_predictions_of_other_cells_are_refused(shard, tmp_path):
    predictions = pd.read_parquet(shard.predictions)
    predictions.iloc[::-1].to_parquet(tmp_path / "turned.parquet")
    with pytest.raises(TableError, match=r"turned\.parquet: its cells are not those of .*cells\.parquet"):
        called_cells(shard.cells, tmp_path / "turned.parquet")
