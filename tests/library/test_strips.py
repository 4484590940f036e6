"""Large fields are read, repaired, reduced, drawn and numbered strip by strip, with the result of the whole images."""

import tracemalloc
from dataclasses import asdict

import cv2
import numpy as np
import pytest
from test_ome_zarr import write_zarr

from hpaloc import masks
from hpaloc.classes import COLOURS
from hpaloc.images import ImageError, check_field, open_field, read_field
from hpaloc.pixels import strips
from hpaloc.pixels.detector import fill_empty, find_empty, repair_hot_pixels, repair_lines
from hpaloc.pixels.strips import Lazily, as_array, lazy_view, packed
from hpaloc.planes import Plane, as_plain
from hpaloc.segmentation import grid as grid_room
from hpaloc.segmentation.grid import Grid, grid_of
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_to_files
from hpaloc.simulate.field import simulate_field

ALL = Lazily(0, 2**30)
# Rows of a strip in these tests.
STRIP = 64
SHAPE = (700, 500)


@pytest.fixture(scope="module")
def field():
    return simulate_field("strips", (0,), 3, shape=SHAPE, dtype="uint16")


@pytest.fixture
def narrow(monkeypatch):
    """A function that makes strips narrow; before that, a field is one."""
    return lambda: [monkeypatch.setattr(room, "STRIP", STRIP) for room in (strips, grid_room)]


def broken(field):
    """Return a field with hot pixels, lines, and a part without data, at the borders of strips too."""
    rng = np.random.default_rng(0)
    images = {colour: image + np.uint16(50) for colour, image in field.images.items()}
    for image in images.values():
        image[0, 0] = image[-1, -1] = image[STRIP - 1, 40] = image[STRIP, 300] = 60000
        image[rng.integers(0, 640, 90), rng.integers(0, 500, 90)] = 60000
        image[STRIP - 1] = 65000
        image[STRIP] = 0
        image[650:] = 0
        image[:650, 70] = 65000
    return images


def test_repairs_in_strips_are_those_of_the_whole_image(field, narrow):
    images = broken(field)
    repaired = {colour: repair_hot_pixels(repair_lines(image)) for colour, image in images.items()}
    empty = find_empty(repaired)
    filled = fill_empty(repaired, empty)
    assert empty[660:].all()
    for colour, image in images.items():
        assert (repaired[colour] != image).any(axis=1).sum() > 600
    narrow()
    lazy = {colour: repair_hot_pixels(repair_lines(lazy_view(image))) for colour, image in images.items()}
    np.testing.assert_array_equal(find_empty(lazy), empty)
    for colour, image in fill_empty(lazy, empty).items():
        np.testing.assert_array_equal(as_array(image), filled[colour])
        np.testing.assert_array_equal(as_array(lazy[colour]), repaired[colour])
        np.testing.assert_array_equal(lazy[colour][STRIP - 1 : STRIP + 3], repaired[colour][STRIP - 1 : STRIP + 3])


@pytest.mark.parametrize("pixel_size", [0.08, 0.16, 0.107, 0.093, 0.5])
def test_a_channel_reduced_in_strips_is_the_channel_reduced_at_once(field, pixel_size):
    for shape in (SHAPE, (SHAPE[0] - 4, 400)):
        image = field.images["red"][: shape[0], : shape[1]]
        grid = grid_of(shape, pixel_size, 0.25)
        np.testing.assert_array_equal(grid.reduce_strips(lazy_view(image)), grid.reduce(image))


@pytest.mark.parametrize("shape", [(256, 256), (250, 243)])
def test_labels_are_drawn_where_they_were(shape):
    grid = Grid(shape, 0.25, 0.32)
    small = np.zeros(grid.coarse_shape, np.int32)
    small[10:22, 14:30] = 1
    small[40:56, 20:40] = 2
    drawn = grid.enlarge(small, 1.2)
    step = np.array(small.shape) / shape
    for label in (1, 2):
        here, there = (np.mean(np.argwhere(image == label) + 0.5, axis=0) for image in (small, drawn))
        np.testing.assert_allclose(there * step, here, atol=0.05)


def test_labels_drawn_in_strips_are_those_drawn_at_once(field, monkeypatch, narrow):
    narrow()
    monkeypatch.setattr("hpaloc.segmentation.grid._DRAWN_ROWS", 1)
    grid = Grid(SHAPE, 0.5, 0.32)
    small = field.cells[::2, ::2].astype(np.int32)
    # In two parts far from one another, of which the smaller is dropped, and over many strips.
    small[10:20, 5:15] = small[290:340, 100:130] = small.max() + 1
    small[:, 240:244] = small.max() + 1
    np.testing.assert_array_equal(as_array(grid.enlarge(small, 1.2, 333)), grid.enlarge(small, 1.2))


@pytest.mark.parametrize("step", [1, 1000])
def test_ids_shared_in_strips_are_those_shared_at_once(field, narrow, step):
    nuclei, cells = (labels.astype(np.uint32) * step for labels in (field.nuclei, field.cells))
    cells[cells == 2 * step] = 0
    at_once = masks.share_ids(nuclei, cells)
    narrow()
    lazy = masks.share_ids(packed(lazy_view(nuclei)), packed(lazy_view(cells), 2 * STRIP))
    for of_strips, whole in zip(lazy, at_once, strict=True):
        assert whole.max() == field.cells.max() - 1
        assert of_strips.dtype == whole.dtype == np.uint16
        np.testing.assert_array_equal(as_array(of_strips), whole)


def large_zarr(path, images):
    """Write an OME-Zarr with chunks as high as a strip; four channels in the order of COLOURS."""
    data = np.stack([images[colour] for colour in COLOURS])
    write_zarr(path, data[:, :32, :32], "CYX")
    group = pytest.importorskip("zarr").open_group(path, mode="r+")
    chunks = (1, STRIP, data.shape[2])
    group.create_array("0", shape=data.shape, chunks=chunks, dtype=data.dtype, overwrite=True)[:] = data
    return {colour: Plane(str(path), channel=number) for number, colour in enumerate(COLOURS)}


def segmented(paths, folder, **changes):
    folder.mkdir()
    task = {
        "field": "f",
        "paths": {colour: as_plain(path) for colour, path in paths.items()},
        "states": {},
        "pixel_size": 0.16,
        "settings": asdict(SegmentationSettings()),
        "out_dir": str(folder),
        "chunk_above": 400,
        "max_pixels": 2**30,
        "max_lazy_pixels": 2**30,
        **dict.fromkeys(("cell_mask", "nucleus_mask")),
        "tables": {},
    }
    return segment_to_files(task | changes)


@pytest.mark.parametrize("change", [broken, lambda field: field.images], ids=["a part without data", "whole"])
def test_an_ome_zarr_has_the_masks_of_its_images(tmp_path, field, narrow, change):
    """The images of PNGs are in memory, those of the OME-Zarr are not."""
    images = change(field)
    paths = {colour: tmp_path / f"{colour}.png" for colour in COLOURS}
    for colour, path in paths.items():
        cv2.imwrite(str(path), images[colour])
    planes = large_zarr(tmp_path / "a.ome.zarr", images)
    narrow()
    rows = [segmented(paths, tmp_path / "png"), segmented(planes, tmp_path / "zarr", max_pixels=10)]
    for row in rows:
        row.pop("seconds")
    assert rows[0] == rows[1]
    assert rows[0]["status"] == "ok"
    assert rows[0]["n_cells"] > 3
    for kind in ("cell", "nucleus"):
        found = [masks.mask_path(tmp_path / name, "f", kind).read_bytes() for name in ("png", "zarr")]
        assert found[0] == found[1]


def test_a_large_ome_zarr_is_not_held_in_memory(tmp_path, narrow):
    """Reading, repairing, checking and reducing three colours takes less memory than one of them."""
    narrow()
    shape = (48 * STRIP, 1000)
    rng = np.random.default_rng(0)
    data = {colour: rng.integers(0, 4000, shape, dtype=np.uint16) for colour in COLOURS}
    planes = large_zarr(tmp_path / "a.ome.zarr", data)
    grid = grid_of(shape, 0.08, 0.25)
    tracemalloc.start()
    images = open_field(planes, ("red", "yellow", "blue"), 2**30, ALL)
    check_field(images, planes)
    reduced = {colour: grid.reduce_strips(image) for colour, image in images.items()}
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - sum(small.nbytes for small in reduced.values()) < data["red"].nbytes
    np.testing.assert_array_equal(reduced["red"], grid.reduce(read_field(planes)["red"]))


def test_a_chunk_that_is_damaged_or_a_field_that_is_too_large_is_named(tmp_path, field, narrow):
    narrow()
    planes = large_zarr(tmp_path / "a.ome.zarr", field.images)
    with pytest.raises(ImageError, match=r"a\.ome\.zarr: 700 x 500 px does not fit in the memory of the job"):
        open_field(planes, COLOURS, 10**9, Lazily(400, 10**5))
    (tmp_path / "a.ome.zarr/0/c/0/10/0").write_bytes(b"x")
    row = segmented(planes, tmp_path / "out")
    assert row["status"] == "rejected"
    assert "a.ome.zarr: cannot be read" in row["reason"]
