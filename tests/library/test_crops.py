"""Ready-made crops: their tables, their masks, and what is measured and cut of them."""

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from stand_in_crops import PIXEL_SIZE, SAVED, locations_of, write_hpav23
from tile_fields import tile

from hpaloc.classes import COLOURS
from hpaloc.config import complete
from hpaloc.curation import CurationSettings, filter_cells
from hpaloc.files import digest
from hpaloc.images import read_field
from hpaloc.manifests import read_manifest
from hpaloc.masks import mask_path, read_mask
from hpaloc.rejection import TooManyRejected
from hpaloc.scan import scan_collection, write_scan
from hpaloc.segmentation.crops import LARGEST_CROP, mark_crops
from hpaloc.tfrecord import TileRecord, read_records

ANTIBODIES = {
    "HPA000001": ("train", (0, 14), locations_of((0, 14))),
    "HPA000002": ("valid", (17,), "Vesicles,Endosomes"),
    "HPA000003": ("test", (18,), ""),
    "HPA000004": ("test", (2,), "Nucleoli rim"),
    "HPA000005": (None, (2,), "Nucleoli"),
}
LISTS = {"train": "{root}/train_antibodies.txt", "validation": "{root}/valid_antibodies.txt"}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with stand-in crops in the layout of HPAv23."""
    folder = tmp_path_factory.mktemp("hpav23")
    write_hpav23(folder, ANTIBODIES, most=2)
    return folder


def scanned(folder, **collection):
    """Return the scan of a collection whose files are in ``folder``."""
    return scan_collection("new", complete({"collections": {"new": {"root": str(folder), **collection}}}))


def test_a_table_of_hpav23_says_crops_labels_and_parts(published):
    scan = scanned(published, crops="{root}/metadata.csv", labels=True, antibodies=LISTS, shards=1)
    assert {(row.antibody, row.labels, row.split, row.cell_line) for row in scan.rows} == {
        ("HPA000001", (0, 14), "train", "U-2 OS"),
        ("HPA000002", (17,), "validation", "U-2 OS"),
    }
    assert [row.id for row in scan.rows] == ["10_A1_1_1", "10_A1_1_2", "11_A2_1_1", "11_A2_1_2"]
    assert {"gene_names", "if_plate_id", "position"} <= set(scan.other_columns)


def test_a_crop_without_a_class_is_not_listed_and_no_location_is_negative(published):
    test = scanned(
        published, crops="{root}/metadata.csv", labels=True, antibodies={"test": "{root}/test_antibodies.txt"}
    )
    assert {(row.antibody, row.labels, row.split) for row in test.rows} == {("HPA000003", (18,), None)}
    unlabelled = scanned(published, crops="{root}/metadata.csv")
    assert {row.antibody for row in unlabelled.rows} == set(ANTIBODIES)
    assert {row.labels for row in unlabelled.rows} == {None}


@pytest.fixture(scope="module")
def shard(published, tmp_path_factory):
    """The rows of the one shard of these crops, and the folder of their masks."""
    folder = tmp_path_factory.mktemp("shard")
    write_scan(scanned(published, crops="{root}/metadata.csv", shards=1, pixel_size=PIXEL_SIZE), folder)
    rows = read_manifest(folder / "000.csv")
    mark_crops(rows, folder / "masks", 0.0, threads=2)
    return rows, folder / "masks"


def test_each_sample_of_a_file_is_its_colour(shard, published):
    row = shard[0][0]
    saved = cv2.imread(str(published / "10" / f"{row.id}_cell_image.png"), cv2.IMREAD_UNCHANGED)
    images = read_field(row.paths)
    for at, colour in enumerate(SAVED):
        # A hot pixel of the simulated camera is repaired.
        assert (images[colour] == saved[..., at]).mean() > 0.99, colour


def test_the_mask_is_the_crop_without_a_nucleus(shard):
    rows, masks = shard
    table = pq.read_table(masks / "fields.parquet").to_pandas()
    assert table["field"].tolist() == [row.id for row in rows]
    assert table[["status", "n_cells", "height", "width", "dtype"]].drop_duplicates().to_numpy().tolist() == [
        ["ok", 1, 256, 256, "uint16"]
    ]
    assert (table["pixel_size"] == PIXEL_SIZE).all()
    for row in rows:
        assert (read_mask(mask_path(masks, row.id, "cell")) == 1).all()
        assert not read_mask(mask_path(masks, row.id, "nucleus")).any()


def tiled(rows, masks, folder, **options):
    """Tile a shard of crops; return its cells, its fields, and its tiles by colour."""
    folder.mkdir(exist_ok=True)
    cells, fields, paths = tile(rows, masks, folder, **{"size": 256, "enlarge": False, **options})
    tiles = {colour: [TileRecord.decode(of).tile for of in read_records(path)] for colour, path in paths.items()}
    return pd.read_parquet(cells), pd.read_parquet(fields).set_index("field"), tiles


def test_a_crop_is_its_own_tile_at_its_scale(shard, tmp_path):
    rows, masks = shard
    cells, fields, tiles = tiled(rows, masks, tmp_path)
    assert cells["field"].tolist() == [row.id for row in rows]
    for row, own in zip(rows, tiles["green"], strict=True):
        black = round(fields.loc[row.id, "green_background"])
        np.testing.assert_array_equal(own, np.maximum(read_field(row.paths)["green"].astype(int) - black, 0))


def test_a_small_crop_is_padded_and_a_large_one_shrinks(shard, tmp_path):
    rows, masks = shard
    native, padded, small = (tiled(rows[:1], masks, tmp_path, size=size)[2]["blue"][0] for size in (256, 301, 128))
    np.testing.assert_array_equal(padded, np.pad(native, (22, 23)))
    whole = native.reshape(128, 2, 128, 2).mean((1, 3))
    assert np.corrcoef(small.ravel(), whole.ravel())[0, 1] > 0.99


def test_no_filter_of_outlines_removes_a_crop(shard, tmp_path):
    cells, _, _ = tiled(*shard, tmp_path)
    # 82 x 82 µm, which no cell has, from edge to edge.
    assert (cells["area_um2"] > CurationSettings().max_cell_area).all()
    failing = filter_cells(cells, np.zeros(len(cells), bool), CurationSettings())
    assert {name for name, failed in failing.items() if failed.any()} == set()


def test_padding_beyond_the_edge_of_its_field_is_no_background(shard, tmp_path):
    rows, masks = shard
    _, fields, _ = tiled(rows, masks, tmp_path)
    pictures = {row.id: cv2.imread(row.paths["red"].path, cv2.IMREAD_UNCHANGED) for row in rows}
    padded = max(pictures, key=lambda id: (~pictures[id].any(axis=2)).mean())
    picture, data = pictures[padded], pictures[padded].any(axis=2)
    assert (~data).mean() > 0.2
    # The same crop of a camera with an offset, which the padding has not.
    picture[data] = np.minimum(picture[data].astype(int) + 3000, 65535)
    plate = tmp_path / padded.split("_")[0]
    plate.mkdir()
    cv2.imwrite(str(plate / f"{padded}_cell_image.png"), picture)
    table = f"if_plate_id,position,sample,cell_id\n{padded.replace('_', ',')}\n"
    (tmp_path / "metadata.csv").write_text(table)
    write_scan(scanned(tmp_path, crops="{root}/metadata.csv", shards=1, pixel_size=PIXEL_SIZE), tmp_path / "sheet")
    moved = read_manifest(tmp_path / "sheet" / "000.csv")
    mark_crops(moved, tmp_path / "masks", 0.0)
    _, after, _ = tiled(moved, tmp_path / "masks", tmp_path / "moved")
    for colour in COLOURS:
        offset = after.loc[padded, f"{colour}_background"] - fields.loc[padded, f"{colour}_background"]
        assert offset == pytest.approx(3000, abs=60), colour


def write_crop(folder, name, shapes):
    """Write a crop with a file for each colour, of the shape (height, width) of each."""
    rng = np.random.default_rng(len(name))
    for colour, shape in shapes.items():
        cv2.imwrite(str(folder / f"{name}_{colour}.png"), rng.integers(0, 200, shape, np.uint8))


def test_crops_of_one_file_per_colour_need_no_table_and_wrong_ones_are_named(tmp_path):
    square = dict.fromkeys(COLOURS, (128, 128))
    write_crop(tmp_path, "right", square)
    write_crop(tmp_path, "uneven", square | {"green": (128, 120)})
    write_crop(tmp_path, "field", dict.fromkeys(COLOURS, (LARGEST_CROP + 1, 40)))
    write_crop(tmp_path, "tiny", dict.fromkeys(COLOURS, (8, 8)))
    write_scan(scanned(tmp_path, crops=True, images="{root}/{id}_{colour}.png", shards=1), tmp_path / "sheet")
    rows = read_manifest(tmp_path / "sheet" / "000.csv")
    with pytest.raises(TooManyRejected):
        mark_crops(rows, tmp_path / "masks", 0.25)
    table = pq.read_table(tmp_path / "masks" / "fields.parquet").to_pandas().set_index("field")
    assert table["status"].to_dict() == {"field": "rejected", "right": "ok", "tiny": "rejected", "uneven": "rejected"}
    folder = tmp_path
    assert table["reason"].to_dict() == {
        "right": "",
        "field": f"{folder}/field_blue.png: 2049 x 40 px is larger than a crop of one cell (at most 2048 px a side); "
        "leave the key crops out if this is a field",
        "tiny": f"{folder}/tiny_red.png: 8 x 8 px is smaller than a cell (at least 16 px a side)",
        "uneven": f"{folder}/uneven_green.png: shape (128, 120) differs from (128, 128) of {folder}/uneven_red.png in "
        "the same field",
    }
    # With more of them allowed, the right one goes on.
    mark_crops(rows, tmp_path / "masks", 0.75)


def test_a_crop_that_changed_after_the_plan_is_rejected(tmp_path):
    write_crop(tmp_path, "a", dict.fromkeys(COLOURS, (64, 64)))
    write_crop(tmp_path, "bb", dict.fromkeys(COLOURS, (64, 64)))
    write_scan(scanned(tmp_path, crops=True, images="{root}/{id}_{colour}.png", shards=1), tmp_path / "sheet")
    rows = read_manifest(tmp_path / "sheet" / "000.csv")
    write_crop(tmp_path, "a", {"green": (64, 70)})
    mark_crops(rows, tmp_path / "masks", 0.5)
    table = pq.read_table(tmp_path / "masks" / "fields.parquet").to_pandas().set_index("field")
    assert table.loc["a", "reason"] == f"{tmp_path}/a_green.png: changed after the run was planned; start the run again"
    assert table.loc["bb", "status"] == "ok"


def test_masks_do_not_depend_on_threads(shard, tmp_path):
    rows, masks = shard
    mark_crops(rows, tmp_path, 0.0, threads=1)
    names = sorted(path.name for path in masks.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    assert [digest(masks / name) for name in names] == [digest(tmp_path / name) for name in names]


def test_a_table_of_subcell_portable_names_a_file_per_colour(tmp_path):
    (tmp_path / "images").mkdir()
    write_crop(tmp_path / "images", "cell_1", dict.fromkeys(COLOURS, (64, 64)))
    paths = ",".join(f"images/cell_1_{colour}.png" for colour in ("red", "yellow", "blue", "green"))
    table = f"r_image,y_image,b_image,g_image,output_prefix\n{paths},plate/cell_1\n#{paths},skipped\n"
    (tmp_path / "path_list.csv").write_text(table)
    scan = scanned(tmp_path, crops="{root}/path_list.csv", shards=1)
    write_scan(scan, tmp_path / "sheet")
    (row,) = read_manifest(tmp_path / "sheet" / "000.csv")
    assert row.id == "plate_cell_1"
    assert row.paths == {colour: f"{tmp_path}/images/cell_1_{colour}.png" for colour in COLOURS}
    without = scanned(tmp_path, crops="{root}/path_list.csv", shards=1, channels={"yellow": None, "red": None})
    header = without.tables["000.csv"].splitlines()[0].split(",")
    assert {"green", "blue"} <= set(header)
    assert not {"red", "yellow"} & set(header)


def test_a_manifest_says_the_sample_of_each_colour(published):
    scan = scanned(published, crops="{root}/metadata.csv", shards=1)
    header, *_ = scan.tables["000.csv"].splitlines()
    assert {"red_plane", "green_plane", "blue_plane", "yellow_plane"} <= set(header.split(","))
    write_scan(scan, published / "sheet")
    row = read_manifest(published / "sheet" / "000.csv")[0]
    assert {colour: plane.channel for colour, plane in row.paths.items()} == {
        "red": 2,
        "green": 3,
        "blue": 0,
        "yellow": 1,
    }
