"""Fields as OME-Zarr, read by ngff-zarr and by hpaloc itself: pixels, places, levels and masks are those of the run."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from exported_shards import IDS, write_predicted_shard

from hpaloc.classes import COLOURS
from hpaloc.images import ImageError, read_field
from hpaloc.manifests import ChangedError
from hpaloc.planes import Plane

pytest.importorskip("ome_zarr", reason="the packages of envs/ome_zarr.yaml are not installed")
STAINS = ["microtubules", "protein", "nucleus", "endoplasmic reticulum"]


def write(shard, folder, manifest=None):
    from hpaloc.exporting.ome_zarr import write_ome_zarr

    folder.mkdir()
    write_ome_zarr(folder, manifest or shard.manifest, shard.segmentation, pd.read_parquet(shard.fields))
    return folder


@pytest.fixture(scope="module", params=["uint8", "uint16"])
def written(request, tmp_path_factory):
    """A shard, and the folder of its fields as OME-Zarr."""
    folder = tmp_path_factory.mktemp("predicted")
    shard = write_predicted_shard(folder, request.param)
    return shard, write(shard, folder / "zarr")


def read(path):
    """Return the levels of an image, and what is said of it, as ngff-zarr reads them after a check of the metadata."""
    ngff_zarr = pytest.importorskip("ngff_zarr", reason="ngff-zarr, which reads what is written, is not installed")
    found = ngff_zarr.from_ome_zarr(str(path), validate=True)
    return found.images, found.metadata


def planes(shard, field):
    """Return the planes of a field as its files hold them, (4, H, W)."""
    (row,) = [row for row in shard.manifest if row.id == field]
    return np.stack([cv2.imread(row.paths[colour], cv2.IMREAD_UNCHANGED) for colour in COLOURS])


def test_every_segmented_field_is_written_and_a_rejected_one_is_not(written):
    assert sorted(path.name for path in written[1].iterdir()) == sorted(f"{id}.ome.zarr" for id in (*IDS, "empty"))


@pytest.mark.parametrize("field", IDS)
def test_pixels_places_and_channels_are_those_of_the_run(written, field):
    shard, folder = written
    images, metadata = read(folder / f"{field}.ome.zarr")
    stored = planes(shard, field)
    first = images[0]
    assert np.array_equal(np.asarray(first.data), stored)
    assert first.data.dtype == stored.dtype
    assert tuple(first.dims) == ("c", "y", "x")
    assert (first.scale["y"], first.scale["x"]) == (0.08, 0.08)
    assert (first.axes_units["y"], first.axes_units["x"]) == ("micrometer", "micrometer")
    assert metadata.name == field
    levels = pd.read_parquet(shard.fields).set_index("field").loc[field]
    assert [channel.label for channel in metadata.omero.channels] == STAINS
    assert [channel.color for channel in metadata.omero.channels] == ["FF0000", "00FF00", "0000FF", "FFFF00"]
    for colour, channel in zip(COLOURS, metadata.omero.channels, strict=True):
        assert channel.window.start == pytest.approx(levels[f"{colour}_background"], abs=1e-3)
        top = np.iinfo(stored.dtype).max
        assert channel.window.end == pytest.approx(min(levels[f"{colour}_white"], top), abs=1e-3)
        assert (channel.window.min, channel.window.max) == (0, top)


@pytest.mark.parametrize("field", [*IDS, "empty"])
def test_label_images_are_the_masks_at_the_same_place(written, field):
    shard, folder = written
    image, _ = read(folder / f"{field}.ome.zarr")
    for name, mask in zip(("cells", "nuclei"), shard.masks(field), strict=True):
        labels, _ = read(folder / f"{field}.ome.zarr/labels/{name}")
        assert np.array_equal(np.asarray(labels[0].data), mask), name
        assert len(labels) == len(image)
        for of_labels, of_image in zip(labels, image, strict=True):
            assert of_labels.data.shape == of_image.data.shape[1:]
            for axis in "yx":
                assert of_labels.scale[axis] == of_image.scale[axis]
                assert of_labels.translation[axis] == of_image.translation[axis]
    attributes = json.loads((folder / f"{field}.ome.zarr/labels/zarr.json").read_text())["attributes"]["ome"]
    assert attributes == {"version": "0.5", "labels": ["cells", "nuclei"]}


def test_each_level_of_a_pyramid_covers_the_field_and_keeps_its_place(tmp_path):
    from hpaloc.exporting.ome_zarr import write_field

    rng = np.random.default_rng(0)
    stack = rng.integers(0, 4096, (1, 1100, 530)).astype(np.uint16)
    labels = np.zeros(stack.shape[1:], np.uint16)
    # A cell at 200 to 264 µm from the top, 60 to 124 µm from the left.
    labels[400:528, 120:248] = 7
    levels = {"pixel_size": 0.5, "blue_background": 100.0, "blue_white": 900.0}
    write_field(tmp_path / "a.ome.zarr", "a", ["blue"], stack, {"cells": labels}, levels)
    images, _ = read(tmp_path / "a.ome.zarr")
    of_labels, _ = read(tmp_path / "a.ome.zarr/labels/cells")
    assert [image.data.shape for image in images] == [(1, 1100, 530), (1, 550, 265), (1, 275, 132), (1, 137, 66)]
    for image, label in zip(images, of_labels, strict=True):
        for axis, side in (("y", 1100), ("x", 530)):
            size = image.data.shape[image.dims.index(axis)]
            assert image.translation[axis] - image.scale[axis] / 2 == pytest.approx(-0.25)
            assert size * image.scale[axis] == pytest.approx(side * 0.5)
        # Odd sides lose a row or column, so that a coarse pixel may be one off.
        rows, columns = (np.asarray(label.data) == 7).nonzero()
        top, left = rows.min() * label.scale["y"], columns.min() * label.scale["x"]
        assert (top, left) == pytest.approx((200, 60), abs=label.scale["y"])
    halved = np.asarray(images[1].data)[0]
    assert np.abs(halved - stack[0].reshape(550, 2, 265, 2).mean((1, 3))).max() <= 0.5
    # Chunks of at most 1024 px, a plane each.
    assert images[0].data.chunksize == (1, 1024, 530)


def test_hpaloc_reads_it_as_the_same_field(written):
    shard, folder = written
    path = str(folder / f"{IDS[1]}.ome.zarr")
    (row,) = [row for row in shard.manifest if row.id == IDS[1]]
    again = read_field({colour: Plane(path, channel=stain) for colour, stain in zip(COLOURS, STAINS, strict=True)})
    for colour, image in read_field(row.paths).items():
        assert np.array_equal(again[colour], image), colour


def test_the_same_field_is_the_same_bytes(written, tmp_path):
    shard, folder = written
    again = write(shard, tmp_path / "again")
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()} == files


def test_a_colour_that_a_collection_lacks_is_no_channel(written, tmp_path):
    shard, _ = written
    manifest = [replace(row, paths={k: v for k, v in row.paths.items() if k != "yellow"}) for row in shard.manifest]
    images, metadata = read(write(shard, tmp_path / "three", manifest) / f"{IDS[0]}.ome.zarr")
    assert images[0].data.shape[0] == 3
    assert [channel.label for channel in metadata.omero.channels] == STAINS[:3]


def test_a_file_that_changed_or_is_gone_is_named(written, tmp_path):
    shard, _ = written
    changed = replace(shard.manifest[0], states={"green": "1:1"})
    with pytest.raises(ChangedError, match=r"field-0_green\.png: changed after the run was planned"):
        write(shard, tmp_path / "changed", [changed])
    gone = replace(shard.manifest[0], paths=shard.manifest[0].paths | {"red": "gone.png"})
    with pytest.raises(ImageError, match=r"gone\.png"):
        write(shard, tmp_path / "gone", [gone])
