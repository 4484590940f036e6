"""OME-Zarr: folders and zip files, their planes, pixel sizes, states at planning, and what is refused."""

import json
import math
import os
import pickle
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from plane_files import BY_NAME, BY_NUMBER, NAMES, C, T, Z, field, planned, scanned, stack

from hpaloc.delimited import SheetError
from hpaloc.image_metadata import check_pixel_size, read_each, resolve_pixel_size
from hpaloc.images import ImageError, open_field, read_channel, read_field
from hpaloc.manifests import ChangedError, check_unchanged, file_state
from hpaloc.pixels.strips import Lazily, LazyImage, as_array
from hpaloc.planes import Plane


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with the sheet of three fields."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Path("s.csv").write_text("ID,Label\nf0,0\nf1,1\nf2,2\n")
    images = "images/{id}.ome.zarr"
    return {"sheet": "s.csv", "images": images, "labels": True, "shards": 1, "channels": dict(BY_NAME)}


def zarr_attributes(axes, names):
    """Return the metadata of an OME-Zarr with a second, coarser level."""
    units = {"T": "time", "C": "channel"}
    levels = []
    for level in range(2):
        factors = [(0.1 * 2**level if axis in "YX" else 1.0) for axis in axes]
        transformation = {"type": "scale", "scale": factors}
        levels.append({"path": str(level), "coordinateTransformations": [transformation]})
    named = [
        {"name": axis.lower(), "type": units.get(axis, "space")} | ({"unit": "micrometer"} if axis in "ZYX" else {})
        for axis in axes
    ]
    return {
        "multiscales": [{"axes": named, "datasets": levels}],
        "omero": {"channels": [{"label": name} for name in names]},
    }


def write_zarr(path, data, axes, version="0.5", names=NAMES, **options):
    """Write an OME-Zarr folder of two levels with small chunks."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    chunks = tuple(16 if axis in "YX" else 1 for axis in axes)
    for level, pixels in enumerate((data, data[..., ::2, ::2])):
        array = group.create_array(str(level), shape=pixels.shape, chunks=chunks, dtype=pixels.dtype, **options)
        array[:] = pixels
    attributes = zarr_attributes(axes, names)
    group.attrs.update({"ome": {"version": version, **attributes}} if version == "0.5" else attributes)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("zipped", [False, True])
def test_ome_zarr_is_read_at_its_finest_level(tmp_path, version, zipped):
    data = stack(T, C, Z)
    path = write_zarr(tmp_path / "a.ome.zarr", data, "TCZYX", version)
    if zipped:
        path = Path(shutil.make_archive(tmp_path / "a.ome.zarr", "zip", path))
    for channels in (BY_NUMBER, BY_NAME):
        read = field(path, channels, time=1, project="max")
        for colour, number in BY_NUMBER.items():
            np.testing.assert_array_equal(read[colour], data[1, number].max(axis=0))
    with pytest.raises(ImageError, match=r"has 2 time points; choose one by the key time"):
        field(path, BY_NUMBER)
    with pytest.raises(ImageError, match=r"has no channel 'DAPI' \(channels\.blue\); its channels are Nuclei, ER, Tub"):
        field(path, BY_NAME | {"blue": "DAPI"}, time=0, project=0)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_big_endian_pixels_are_read(tmp_path, version):
    """As bioformats2raw writes them."""
    path = write_zarr(tmp_path / "a.ome.zarr", stack(C).astype(">u2"), "CYX", version)
    read = field(path, BY_NAME)["green"]
    np.testing.assert_array_equal(read, stack(C)[3])
    assert read.dtype.isnative


def rewritten(path, **attributes):
    """Change the metadata of an OME-Zarr 0.4."""
    said = json.loads((path / ".zattrs").read_text())
    (path / ".zattrs").write_text(json.dumps(said | attributes))
    return path


@pytest.mark.parametrize("axes", [{}, {"axes": ["t", "c", "z", "y", "x"]}])
def test_older_versions_are_read(tmp_path, axes):
    """OME-Zarr 0.1 and 0.2 have five axes without names, 0.3 has names alone."""
    path = write_zarr(tmp_path / "a.ome.zarr", stack(T, C, Z), "TCZYX", "0.4")
    rewritten(path, multiscales=[{"datasets": [{"path": "0"}], **axes}])
    np.testing.assert_array_equal(field(path, BY_NAME, time=1, project=3)["green"], stack(T, C, Z)[1, 3, 3])


def test_a_zip_file_of_each_colour_needs_no_key(tmp_path):
    path = write_zarr(tmp_path / "a.zarr", stack(C)[0], "YX")
    packed = shutil.make_archive(tmp_path / "a", "zip", path)
    np.testing.assert_array_equal(read_channel(packed, "red"), stack(C)[0])


def zip_of_the_folder(path):
    shutil.make_archive(path.parent / "b", "zip", path.parent, path.name)
    return path.parent / "b.zip"


def without_metadata(path):
    (path / ".zattrs").write_text("{")
    return path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (zip_of_the_folder, "is not an OME-Zarr (no group at its top; zip the content of the folder, not the folder)"),
        (lambda path: path / "0", "is not an OME-Zarr (no group at its top; zip the content of the folder"),
        (without_metadata, "is not an OME-Zarr (no group at its top; zip the content of the folder"),
        (lambda path: rewritten(path, multiscales=[]), "is not an OME-Zarr of images (no multiscales)"),
        (lambda path: rewritten(path, multiscales=[{"datasets": []}]), "lacks the array that its metadata name"),
        (lambda path: rewritten(path, multiscales=[{"datasets": [{"path": "9"}]}]), "lacks the array that its metad"),
        (
            lambda path: rewritten(path, omero={"channels": [{"label": "Tubulin"}, {"label": "GFP"}]}),
            "has no channel 'Tubulin' (channels.red); it names 2 of its 4 channels; give channels.red a number",
        ),
    ],
)
def test_what_is_no_whole_ome_zarr_is_refused(tmp_path, change, sentence):
    path = change(write_zarr(tmp_path / "a.ome.zarr", stack(C), "CYX", "0.4"))
    with pytest.raises(ImageError, match=re.escape(f"{path}: {sentence}")):
        field(path, BY_NAME)


def test_only_the_chunks_of_the_planes_are_read(tmp_path):
    path = write_zarr(tmp_path / "a.ome.zarr", stack(C), "CYX")
    for number in range(C):
        if number != 2:
            for chunk in Path(path, "0/c", str(number)).rglob("*"):
                if chunk.is_file():
                    chunk.write_bytes(b"broken")
    np.testing.assert_array_equal(read_channel(Plane(str(path), 2), "red"), stack(C)[2])
    with pytest.raises(ImageError, match=re.escape(str(path))):
        read_channel(Plane(str(path), 1), "red")


def test_images_that_bioformats2raw_numbers_are_series(tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    for number in range(2):
        write_zarr(tmp_path / "a.ome.zarr" / str(number), stack(C) + number, "CYX", "0.4")
    np.testing.assert_array_equal(field(tmp_path / "a.ome.zarr", BY_NAME, series=1)["green"], stack(C)[3] + 1)
    with pytest.raises(ImageError, match=r"contains 2 image series; choose one by the key series"):
        field(tmp_path / "a.ome.zarr", BY_NAME)


class MakesAFolder:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("dtype", ["<u2", "|O"])
@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_a_zarr_executes_nothing(tmp_path, dtype, place):
    path = write_zarr(tmp_path / "a.ome.zarr", stack(C), "CYX", "0.4", compressors=None)
    said = json.loads((path / "0/.zarray").read_text())
    codec = {"id": "pickle", "protocol": 5}
    said |= {"dtype": dtype, "compressor": codec} if place == "compressor" else {"dtype": dtype, "filters": [codec]}
    (path / "0/.zarray").write_text(json.dumps(said))
    for chunk in (path / "0").glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(MakesAFolder(tmp_path / "executed")))
    with pytest.raises(ImageError, match=re.escape(str(path))):
        field(path, BY_NUMBER)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("verify", ["time", "content"])
def test_a_folder_of_ome_zarr_is_planned_as_a_file(project, verify):
    for number in range(3):
        write_zarr(f"images/f{number}.ome.zarr", stack(C) + number, "CYX")
    rows = planned(project, verify=verify)
    np.testing.assert_array_equal(read_field(rows[2].paths)["green"], stack(C)[3] + 2)
    check_unchanged(rows[0].paths, rows[0].states)
    chunk = Path("images/f0.ome.zarr/0/c/3/0/1")
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"!")
    with pytest.raises(ChangedError, match=r"^images/f0\.ome\.zarr: changed after the run was planned"):
        check_unchanged(rows[0].paths, rows[0].states)
    shutil.rmtree("images/f1.ome.zarr")
    Path("images/f1.ome.zarr").mkdir()
    with pytest.raises(ChangedError, match=r"^images/f1\.ome\.zarr: was removed after the run was planned"):
        check_unchanged(rows[1].paths, rows[1].states)
    with pytest.raises(SheetError, match=r"1 of 3 files is missing: images/f1\.ome\.zarr"):
        scanned(project, max_rejected_fraction=0)


def test_a_folder_of_ome_zarr_of_each_colour_needs_no_key(project):
    for number in range(3):
        for colour, channel in BY_NUMBER.items():
            write_zarr(f"images/f{number}_{colour}.zarr", stack(C)[channel] + number, "YX", names=["x"])
    del project["channels"]
    row = planned(project | {"images": "images/{id}_{colour}.zarr"})[1]
    assert row.paths["red"] == "images/f1_red.zarr"
    np.testing.assert_array_equal(read_field(row.paths)["red"], stack(C)[2] + 1)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("zipped", [False, True])
def test_the_pixel_size_of_ome_zarr(tmp_path, version, zipped):
    path = write_zarr(tmp_path / "a.ome.zarr", stack(C), "CYX", version)
    path = shutil.make_archive(tmp_path / "a", "zip", path) if zipped else path
    planes = {colour: Plane(str(path), number) for colour, number in BY_NUMBER.items()}
    assert resolve_pixel_size(math.nan, planes) == 0.1
    assert len(check_pixel_size(0.5, planes, read_each(planes))) == 1


def test_the_pixel_size_is_that_of_the_series_that_is_read(tmp_path):
    zarr = pytest.importorskip("zarr")
    top = tmp_path / "a.ome.zarr"
    zarr.open_group(top, mode="w", zarr_format=2)
    for number in (0, 2, 3):
        path = write_zarr(top / str(number), stack(C) + number, "CYX", "0.4")
        said = json.loads((path / ".zattrs").read_text())
        said["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [1, 0.1 * number, 0.1 * number]
        (path / ".zattrs").write_text(json.dumps(said))
    planes = {colour: Plane(str(top), number, series=1) for colour, number in BY_NUMBER.items()}
    np.testing.assert_array_equal(read_field(planes)["green"], stack(C)[3] + 2)
    assert resolve_pixel_size(math.nan, planes) == 0.2


def test_a_file_that_claims_endless_planes_is_refused(tmp_path):
    path = write_zarr(tmp_path / "a.ome.zarr", stack(2, C), "ZCYX", "0.4")
    said = json.loads((path / "0/.zarray").read_text())
    (path / "0/.zarray").write_text(json.dumps(said | {"shape": [10**9, *said["shape"][1:]]}))
    for project in ("max", "sharpest"):
        with pytest.raises(ImageError, match=r"has 1000000000 planes along z; hpaloc reads at most 10000"):
            field(path, BY_NUMBER, project=project)


def test_a_zip_file_that_unpacks_to_too_much_is_refused(tmp_path):
    path = write_zarr(tmp_path / "a.ome.zarr", stack(C), "CYX")
    (path / "0/c/0/0/0").write_bytes(bytes(2**27))
    packed = Path(shutil.make_archive(tmp_path / "a.ome.zarr", "zip", path))
    with pytest.raises(ImageError, match=r"a\.ome\.zarr\.zip: unpacks to more than 1\d\d MB"):
        field(packed, BY_NUMBER)


def state(path, verify):
    return file_state(str(path), os.stat(path), content=verify == "content")


@pytest.mark.parametrize("verify", ["time", "content"])
def test_a_chunk_with_an_older_time_changes_the_folder(tmp_path, verify):
    """As cp -p and rsync -t leave it."""
    path = write_zarr(tmp_path / "a.ome.zarr", stack(C), "CYX")
    before = state(path, verify)
    one, other = path / "0/c/3/0/0", path / "0/c/2/0/0"
    for chunk, name in ((one, "x"), (other, "y")):
        chunk.rename(tmp_path / name)
    (tmp_path / "x").rename(other)
    (tmp_path / "y").rename(one)
    assert state(path, verify) != before


@pytest.mark.parametrize("verify", ["time", "content"])
def test_a_linked_level_belongs_to_the_folder(tmp_path, verify):
    path = write_zarr(tmp_path / "a.ome.zarr", stack(C), "CYX")
    (path / "0").rename(tmp_path / "level")
    (path / "0").symlink_to(tmp_path / "level")
    # A link may lead to a folder above it.
    (tmp_path / "level/up").symlink_to(path)
    before = state(path, verify)
    np.testing.assert_array_equal(field(path, BY_NAME)["green"], stack(C)[3])
    (tmp_path / "level/c/3/0/0").write_bytes(b"changed")
    assert state(path, verify) != before


@pytest.mark.parametrize("verify", ["time", "content"])
@pytest.mark.parametrize("target", ["nowhere", "0"])
def test_a_link_to_nothing_rejects_its_field_and_not_the_plan(project, verify, target):
    for number in range(3):
        write_zarr(f"images/f{number}.ome.zarr", stack(C) + number, "CYX")
    chunk = Path("images/f1.ome.zarr/0/c/3/0/0")
    chunk.unlink()
    chunk.symlink_to(target)
    rows = planned(project, verify=verify)
    read_field(rows[0].paths)
    check_unchanged(rows[1].paths, rows[1].states)
    with pytest.raises(
        ImageError, match=r"^images/f1\.ome\.zarr: 0/c/3/0/0 is a link to nothing; copy the folder again"
    ):
        read_field(rows[1].paths)


@pytest.mark.parametrize("axes", ["CYX", "TZCYX", "YXC"])
def test_a_chunk_of_several_channels_is_read_once(tmp_path, axes):
    """As some writers store all channels of a region together."""
    outer = axes.replace("Y", "").replace("X", "")
    data = stack(*({"T": T, "Z": Z, "C": C}[axis] for axis in outer))
    stored = np.moveaxis(data, [*range(data.ndim)], [axes.index(axis) for axis in f"{outer}YX"])
    path = write_zarr(tmp_path / "a.ome.zarr", data[(0,) * (data.ndim - 2)], "YX")
    group = pytest.importorskip("zarr").open_group(path, mode="r+")
    chunks = tuple({"C": 3, "T": 1, "Z": 1}.get(axis, 24) for axis in axes)
    array = group.create_array("0", shape=stored.shape, chunks=chunks, dtype=data.dtype, overwrite=True)
    array[:] = stored
    group.attrs.update({"ome": {"version": "0.5", **zarr_attributes(axes, NAMES)}})
    opened = []
    counting = True
    sys.addaudithook(lambda event, found: opened.append(str(found[0])) if counting and event == "open" else None)
    chosen = {"time": 1, "project": 2} if "T" in axes else {}
    # In the order of the file: channels 0 to 2 share their chunks, 3 is in others.
    read = read_field(
        {colour: Plane(str(path), BY_NUMBER[colour], **chosen) for colour in ("blue", "yellow", "red", "green")},
        ("blue", "yellow", "red", "green"),
    )
    counting = False
    of_field = data[tuple({"T": 1, "Z": 2}.get(axis, slice(None)) for axis in outer)]
    for colour, number in BY_NUMBER.items():
        np.testing.assert_array_equal(read[colour], of_field[number])
    chunks_read = [found for found in opened if "/0/c/" in found]
    assert len(chunks_read) == len(set(chunks_read)) == 4


@pytest.mark.parametrize("project", ["max", "mean", "sharpest"])
def test_planes_along_z_in_folders_of_their_own_are_joined_strip_by_strip(tmp_path, project):
    data = stack(Z, C)
    first, *others = (str(write_zarr(tmp_path / f"{z}.zarr", data[z][:, None], "CZYX")) for z in range(Z))
    together = write_zarr(tmp_path / "all.zarr", data, "ZCYX")
    planes = {colour: Plane(first, name, project=project, others=others) for colour, name in BY_NAME.items()}
    read = open_field(planes, list(planes), lazily=Lazily(10, 10**6))
    for colour, image in field(together, BY_NAME, project=project).items():
        assert isinstance(read[colour], LazyImage)
        np.testing.assert_array_equal(as_array(read[colour]), image)
