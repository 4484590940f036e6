"""Files that hold many planes: layouts, selections, stacks, refusals, and equality with four files."""

import gzip
import json
import math
import os
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from tile_fields import make_field, tile, write_shard

from hpaloc import manifests
from hpaloc.classes import COLOURS
from hpaloc.config import ConfigError, complete
from hpaloc.delimited import SheetError
from hpaloc.image_metadata import check_pixel_size, read_each, resolve_pixel_size
from hpaloc.images import ImageError, read_channel, read_field
from hpaloc.manifests import ChangedError, check_unchanged, read_manifest
from hpaloc.planes import Plane
from hpaloc.scan import scan_collection, write_scan
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard

DASK = DaskSettings()

NAMES = ("Nuclei", "ER", "Tubulin", "GFP")
BY_NUMBER = {"red": 2, "green": 3, "blue": 0, "yellow": 1}
BY_NAME = {"red": "Tubulin", "green": "GFP", "blue": "Nuclei", "yellow": "ER"}
# What a stack of the tests has: time points, planes along z, channels.
T, Z, C = 2, 5, 4


def stack(*outer, dtype=np.uint16, side=(24, 40)):
    """Return planes of which no two are equal, without hot pixels."""
    shape = (*outer, *side)
    smooth = np.random.default_rng(1).random(shape)
    flat = smooth.reshape(-1, *side)
    for index, plane in enumerate(flat):
        flat[index] = cv2.GaussianBlur(plane, (0, 0), 3)
    flat -= flat.min()
    return (flat.reshape(shape) / flat.max() * np.iinfo(dtype).max).astype(dtype)


def field(path, channels, **options):
    return read_field({colour: Plane(str(path), channel=channels[colour], **options) for colour in COLOURS})


def write(path, data, **options):
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite(path, data, **options)
    return path


def ome(axes, **metadata):
    return {"ome": True, "metadata": {"axes": axes, "Channel": {"Name": list(NAMES)}, **metadata}}


def imagej(axes, planes):
    return {"imagej": True, "metadata": {"axes": axes, "Labels": [*NAMES] * planes}, "photometric": None}


# Name of a layout, its outer axes as in `stack`, the axes of the array to write, options of tifffile, and whether the
# channels have names.
LAYOUTS = [
    ("ImageJ hyperstack TZCYX", "TZC", "TZCYX", imagej("TZCYX", T * Z), True),
    ("ImageJ CYX", "C", "CYX", imagej("CYX", 1), True),
    ("OME-TIFF TZCYX", "TZC", "TZCYX", ome("TZCYX"), True),
    ("OME-TIFF CZYX", "CZ", "CZYX", ome("CZYX"), True),
    ("OME-TIFF, Deflate", "ZC", "ZCYX", {**ome("ZCYX"), "compression": "zlib"}, True),
    ("OME-TIFF, tiled", "C", "CYX", {**ome("CYX"), "tile": (16, 16), "compression": "lzw"}, True),
    ("OME-TIFF, big-endian", "C", "CYX", {**ome("CYX"), "byteorder": ">"}, True),
    ("OME-TIFF of samples", "C", "YXC", {"ome": True, "metadata": {"axes": "YXS"}, "planarconfig": "contig"}, False),
    ("named pages CYX", "C", "CYX", {"metadata": {"axes": "CYX"}}, False),
    ("pages without names", "C", "CYX", {"metadata": None}, False),
    ("pages of tifffile without axes", "C", "CYX", {}, False),
    ("interleaved YXC", "C", "YXC", {"metadata": {"axes": "YXC"}, "planarconfig": "contig"}, False),
    ("interleaved YXC, rows as pages", "C", "YXC", {"metadata": {"axes": "YXC"}}, False),
    ("interleaved YXS", "C", "YXC", {"metadata": None, "planarconfig": "contig"}, False),
    ("interleaved, Zstandard", "C", "YXC", {"metadata": None, "planarconfig": "contig", "compression": "zstd"}, False),
    ("RGB and a fourth sample", "C", "YXC", {"photometric": "rgb", "extrasamples": ["unspecified"]}, False),
    ("one header for all pages", "ZC", "ZCYX", {"metadata": {"axes": "ZCYX"}, "truncate": True}, False),
    ("BigTIFF", "C", "CYX", {**ome("CYX"), "bigtiff": True}, True),
    ("planar SYX", "C", "CYX", {"metadata": None, "planarconfig": "separate"}, False),
    ("planar, Deflate", "C", "CYX", {"metadata": None, "planarconfig": "separate", "compression": "zlib"}, False),
    ("stack of interleaved images", "ZC", "ZYXC", {"metadata": {"axes": "ZYXS"}, "planarconfig": "contig"}, False),
]


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    ("outer", "axes", "options", "named"), [row[1:] for row in LAYOUTS], ids=[r[0] for r in LAYOUTS]
)
def test_every_layout_gives_the_planes_that_were_written(tmp_path, outer, axes, options, named, gz):
    data = stack(*({"T": T, "Z": Z, "C": C}[axis] for axis in outer))
    path = write(
        tmp_path / "a.tif", np.moveaxis(data, [*range(data.ndim)], [axes.index(a) for a in f"{outer}YX"]), **options
    )
    if gz:
        path = tmp_path / "a.tif.gz"
        path.write_bytes(gzip.compress((tmp_path / "a.tif").read_bytes(), 1))
    for z in (0, 3) if "Z" in outer else (None,):
        chosen = {"time": 1} if "T" in outer else {}
        chosen |= {} if z is None else {"project": z}
        expected = data[tuple({"T": 1, "Z": z}.get(axis, slice(None)) for axis in outer)]
        for channels in (BY_NUMBER, BY_NAME) if named else (BY_NUMBER,):
            read = field(path, channels, **chosen)
            for colour, number in BY_NUMBER.items():
                np.testing.assert_array_equal(read[colour], expected[number])
                assert read[colour].dtype == np.uint16
                assert read[colour].dtype.isnative


def test_8_bit_png_of_four_samples(tmp_path):
    data = stack(4, dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), np.moveaxis(data, 0, 2)[..., [2, 1, 0, 3]])
    read = field(tmp_path / "a.png", BY_NUMBER)
    np.testing.assert_array_equal(read["green"], data[3])
    np.testing.assert_array_equal(read["red"], data[2])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_only_the_pages_of_the_planes_are_read(tmp_path, compression):
    data = stack(Z, C)
    path = write(tmp_path / "a.ome.tif", data, compression=compression, **ome("ZCYX"))
    with tifffile.TiffFile(path) as file:
        pages = [(page.dataoffsets[0], sum(page.databytecounts)) for page in file.pages]
    raw = bytearray(path.read_bytes())
    for number, (start, length) in enumerate(pages):
        if number not in {2 * C + BY_NUMBER[colour] for colour in ("red", "blue")}:
            raw[start : start + length] = b"\xff" * length
    path.write_bytes(raw)
    planes = {colour: Plane(str(path), channel, project=2) for colour, channel in BY_NUMBER.items()}
    read = read_field(planes, ["red", "blue"])
    np.testing.assert_array_equal(read["red"], data[2, 2])
    if compression:
        with pytest.raises(ImageError, match=re.escape(str(path))):
            read_field(planes)


def two_series(path):
    """Write an OME-TIFF of two images whose channels have other names."""
    data = stack(2, C)
    with tifffile.TiffWriter(path, ome=True) as file:
        for number, names in enumerate((NAMES[::-1], NAMES)):
            file.write(
                data[number], metadata={"axes": "CYX", "Channel": {"Name": list(names)}}, photometric="minisblack"
            )
    return data


def test_a_series_is_chosen_with_its_own_names(tmp_path):
    data = two_series(tmp_path / "a.ome.tif")
    for series, number in ((0, 0), (1, 3)):
        read = field(tmp_path / "a.ome.tif", BY_NAME, series=series)
        np.testing.assert_array_equal(read["green"], data[series, number])
    np.testing.assert_array_equal(field(tmp_path / "a.ome.tif", BY_NUMBER, series=1)["red"], data[1, 2])


def test_a_pyramid_is_read_at_its_finest_level(tmp_path):
    data = stack(C, side=(64, 96))
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        options = {"tile": (32, 32), "photometric": "minisblack"}
        file.write(data, subifds=1, metadata={"axes": "CYX"}, **options)
        file.write(data[:, ::2, ::2], subfiletype=1, **options)
    np.testing.assert_array_equal(field(tmp_path / "a.ome.tif", BY_NUMBER)["blue"], data[0])


@pytest.mark.parametrize("axes", ["ZCYX", "ZYX"])
def test_stacks_are_projected(tmp_path, axes):
    data = stack(Z, C)
    if axes == "ZCYX":
        path = write(tmp_path / "a.tif", data, **ome(axes))
        planes = {colour: Plane(str(path), channel) for colour, channel in BY_NUMBER.items()}
    else:
        planes = {}
        for colour, channel in BY_NUMBER.items():
            path = write(tmp_path / f"a_{colour}.tif", data[:, channel], metadata={"axes": axes})
            planes[colour] = Plane(str(path))

    def read(project):
        return read_field({colour: replace(plane, project=project) for colour, plane in planes.items()})

    for colour, channel in BY_NUMBER.items():
        np.testing.assert_array_equal(read("max")[colour], data[:, channel].max(axis=0))
        np.testing.assert_array_equal(read("mean")[colour], np.floor(data[:, channel].mean(axis=0) + 0.5))
        np.testing.assert_array_equal(read(4)[colour], data[4, channel])


def test_the_sharpest_plane_is_that_of_red_for_every_colour(tmp_path):
    fine = np.random.default_rng(2).random((Z, C, 64, 64)).astype(np.float32)
    blurred = np.empty_like(fine)
    for z in range(Z):
        for channel in range(C):
            # Red is sharp in plane 3, the others in plane 1.
            away = abs(z - (3 if channel == BY_NUMBER["red"] else 1))
            blurred[z, channel] = cv2.GaussianBlur(fine[z, channel], (0, 0), 1.5 + 2 * away)
    data = (blurred / blurred.max() * 60000).astype(np.uint16)
    together = write(tmp_path / "a.tif", data, **ome("ZCYX"))
    planes = {colour: Plane(str(together), channel, project="sharpest") for colour, channel in BY_NUMBER.items()}
    apart = {}
    for colour, channel in BY_NUMBER.items():
        path = write(tmp_path / f"a_{colour}.tif", data[:, channel], metadata={"axes": "ZYX"})
        apart[colour] = Plane(str(path), project="sharpest")
    for of_field in (planes, apart):
        for colours in (COLOURS, ("blue",)):
            for colour, image in read_field(of_field, colours).items():
                np.testing.assert_array_equal(image, data[3, BY_NUMBER[colour]])


def refused(tmp_path, channels=BY_NUMBER, data=None, options=None, **chosen):
    data = stack(C) if data is None else data
    path = write(tmp_path / "a.tif", data, **(ome("CYX") if options is None else options))
    with pytest.raises(ImageError) as error:
        field(path, channels, **chosen)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def test_a_choice_that_the_file_does_not_have_is_one_sentence_that_names_file_and_key(tmp_path):
    names = ", ".join(NAMES)
    assert (
        refused(tmp_path, BY_NAME | {"green": "gfp"})
        == f"has no channel 'gfp' (channels.green); its channels are {names}"
    )
    assert (
        refused(tmp_path, BY_NAME, options={"metadata": {"axes": "CYX"}})
        == "has no channel 'Tubulin' (channels.red); it names none of its channels"
    )
    assert (
        refused(tmp_path, BY_NUMBER | {"yellow": 4})
        == "channels.yellow 4 is out of range; the file has 4 channels, numbered from 0"
    )
    # At planning nothing tells that a name and a number are one channel.
    assert (
        refused(tmp_path, BY_NUMBER | {"green": "Tubulin"})
        == "channels.green and channels.red are the same channel; give each colour its own"
    )
    twice = ome("CYX") | {"metadata": {"axes": "CYX", "Channel": {"Name": ["a", "a", "b", "c"]}}}
    assert refused(tmp_path, BY_NUMBER | {"red": "a"}, options=twice) == (
        "2 of its channels are called 'a'; give channels.red a number"
    )
    assert refused(tmp_path, series=2) == "series 2 is out of range; the file has 1 image series, numbered from 0"
    assert refused(tmp_path, time=1) == "time 1 is out of range; the file has 1 time point, numbered from 0"
    assert refused(tmp_path, project=3) == "project 3 is out of range; the file has 1 plane along z, numbered from 0"
    deep = {"data": stack(Z, C), "options": ome("ZCYX")}
    assert (
        refused(tmp_path, project=5, **deep)
        == "project 5 is out of range; the file has 5 planes along z, numbered from 0"
    )
    assert refused(tmp_path, **deep) == "has 5 planes along z; choose one, or how they are joined, by the key project"
    # As the command Images to Stack of ImageJ saves the colours of a field.
    along_z = {"data": stack(C), "options": {"imagej": True, "metadata": {"axes": "ZYX"}, "photometric": None}}
    assert (
        refused(tmp_path, BY_NUMBER | {"red": 1, "yellow": 2}, **along_z)
        == "channels.red 1 is out of range; the file has 1 channel (4 planes along z), numbered from 0"
    )
    timed = {"data": stack(T, C), "options": ome("TCYX")}
    assert refused(tmp_path, **timed) == "has 2 time points; choose one by the key time"


def test_numbers_of_the_command_line_are_text(tmp_path):
    path = write(tmp_path / "a.tif", stack(C), metadata={"axes": "CYX"})
    numbers = {colour: str(channel) for colour, channel in BY_NUMBER.items()}
    np.testing.assert_array_equal(field(path, numbers)["green"], stack(C)[3])


def data_set(places, planes):
    """Return the OME-XML of a data set of files: {(image, z, channel): (file, page)}."""
    images = ""
    for image in sorted({image for image, _, _ in places}):
        of_image = {place: at for place, at in places.items() if place[0] == image}
        channels = "".join(
            f'<Channel ID="Channel:{image}:{c}" SamplesPerPixel="1" Name="{NAMES[c]}"/>' for c in range(C)
        )
        found = "".join(
            f'<TiffData FirstZ="{z}" FirstC="{c}" IFD="{page}" PlaneCount="1"><UUID FileName="{file}.ome.tif">urn:uuid:'
            f"{file}</UUID></TiffData>"
            for (_, z, c), (file, page) in of_image.items()
        )
        images += (
            f'<Image ID="Image:{image}" Name="{image}"><Pixels ID="Pixels:{image}" DimensionOrder="XYZCT" '
            f'Type="uint16" SizeX="40" SizeY="24" SizeC="{C}" SizeZ="{planes}" SizeT="1">{channels}{found}'
            "</Pixels></Image>"
        )
    return images


def write_data_set(folder, data, places):
    """Write the files of a data set; ``data``: (images, z, channels, height, width)."""
    images = data_set(places, data.shape[1])
    for file in {file for file, _ in places.values()}:
        pages = {page: data[place] for place, (other, page) in places.items() if other == file}
        xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{file}">{images}</OME>'
        stacked = np.stack([pages[page] for page in sorted(pages)])
        write(folder / f"{file}.ome.tif", stacked, description=xml, metadata=None)


def test_a_file_of_a_data_set_holds_its_own_image(tmp_path):
    data = stack(2, Z, C)
    # An image a file; its pages are not in the order that tifffile gives to pages without a description.
    write_data_set(
        tmp_path, data, {(i, z, c): ("ab"[i], c * Z + z) for i in range(2) for z in range(Z) for c in range(C)}
    )
    (tmp_path / "b.ome.tif").rename(tmp_path / "renamed.ome.tif")
    for name, image in (("a", 0), ("renamed", 1)):
        for channels in (BY_NUMBER, BY_NAME):
            read = field(tmp_path / f"{name}.ome.tif", channels, project=3)
            for colour, number in BY_NUMBER.items():
                np.testing.assert_array_equal(read[colour], data[image, 3, number])


def test_a_plane_in_another_file_of_its_data_set_is_named(tmp_path):
    data = stack(1, 1, C)
    write_data_set(tmp_path, data, {(0, 0, c): ("ab"[c // 2], c % 2) for c in range(C)})
    plane = Plane(str(tmp_path / "b.ome.tif"), "GFP")
    np.testing.assert_array_equal(read_channel(plane, "green"), data[0, 0, 3])
    with pytest.raises(ImageError, match=r"b\.ome\.tif: plane 1 is in another file of its data set"):
        read_channel(replace(plane, channel="ER"), "yellow")


def test_pages_that_the_ome_xml_does_not_describe_are_not_guessed(tmp_path):
    write_data_set(tmp_path, stack(1, 1, C), {(0, 0, c): ("a", c) for c in range(C)})
    path = tmp_path / "a.ome.tif"
    path.write_bytes(path.read_bytes().replace(b'SizeC="4"', b'SizeC="x"'))
    with pytest.raises(ImageError, match=re.escape(str(path))):
        field(path, BY_NUMBER)


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


@pytest.mark.parametrize("max_pixels", [24 * 40, 24 * 40 - 1])
def test_the_size_of_a_plane_counts_and_not_that_of_the_file(tmp_path, max_pixels):
    path = write(tmp_path / "a.tif", stack(Z, C), **ome("ZCYX"))
    planes = {colour: Plane(str(path), number, project="max") for colour, number in BY_NUMBER.items()}
    if max_pixels == 24 * 40:
        assert read_field(planes, max_pixels=max_pixels)["red"].shape == (24, 40)
    else:
        with pytest.raises(ImageError, match=r"24 x 40 px does not fit in the memory of the job"):
            read_field(planes, max_pixels=max_pixels)


def test_several_series_need_the_key(tmp_path):
    two_series(tmp_path / "a.ome.tif")
    with pytest.raises(ImageError, match=r"a\.ome\.tif: contains 2 image series; choose one by the key series"):
        field(tmp_path / "a.ome.tif", BY_NUMBER)


@pytest.mark.parametrize(
    ("outer", "axes", "sentence"),
    [
        ((5,), "ZYX", "contains 5 planes (axes ZYX); expected one image (choose it by the key project)"),
        ((2,), "TYX", "contains 2 planes (axes TYX); expected one image (choose it by the key time)"),
        ((4,), "CYX", "contains 4 planes (axes CYX); expected one image (choose it by the key channels)"),
        ((2, 5), "TZYX", "contains 10 planes (axes TZYX); expected one image (choose it by the keys project and time)"),
    ],
)
def test_a_stack_without_a_key_is_refused_with_the_key(tmp_path, outer, axes, sentence):
    path = write(tmp_path / "a.tif", stack(*outer), metadata={"axes": axes})
    with pytest.raises(ImageError, match=re.escape(f"{path}: {sentence}")):
        read_channel(path, "red")


def test_a_file_of_one_colour_with_channels_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", stack(Z, C), **ome("ZCYX"))
    with pytest.raises(ImageError, match=r"a\.tif: has 4 channels; choose by the key channels, with images without"):
        read_channel(Plane(str(path), project="max"), "red")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_of_one_plane_needs_no_projection(tmp_path, suffix):
    """As in a collection with stacks of some fields, and the tinted files of the Human Protein Atlas."""
    tinted = np.zeros((24, 40, 3), np.uint8)
    tinted[..., 2] = stack(1, dtype=np.uint8)[0]
    path = str(tmp_path / f"a{suffix}")
    cv2.imwrite(path, tinted)
    for project in ("max", "mean", "sharpest", 0):
        np.testing.assert_array_equal(read_channel(Plane(path, project=project), "red"), read_channel(path, "red"))
        with pytest.raises(ImageError, match="is tinted red, but was given as the blue channel"):
            read_channel(Plane(path, project=project), "blue")


@pytest.mark.parametrize("damage", [b"", b"II*\0", b"II*\0" + b"\1" * 100, b"\x1f\x8b", b"GIF89a"])
def test_damaged_files_are_named(tmp_path, damage):
    (tmp_path / "a.tif").write_bytes(damage)
    with pytest.raises(ImageError, match=re.escape(str(tmp_path / "a.tif"))):
        field(tmp_path / "a.tif", BY_NUMBER)
    with pytest.raises(ImageError, match=r"absent\.tif: no such file"):
        field(tmp_path / "absent.tif", BY_NUMBER)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with three fields of one file each."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for number in range(3):
        write(f"images/f{number}.ome.tif", stack(C) + number, **ome("CYX"))
    Path("s.csv").write_text("ID,Label\nf0,0\nf1,1\nf2,2\n")
    return {"sheet": "s.csv", "images": "images/{id}.ome.tif", "labels": True, "shards": 1, "channels": dict(BY_NAME)}


def scanned(collection, **config):
    return scan_collection("train", complete({"collections": {"train": collection}, **config}))


def planned(collection, **config):
    """Return the rows of the manifest of a collection."""
    write_scan(scanned(collection, **config), "results/sheet/train")
    return read_manifest("results/sheet/train/000.csv")


@pytest.mark.parametrize("verify", ["time", "content"])
def test_a_plan_finds_one_file_for_four_colours(project, verify):
    rows = planned(project | {"series": 0, "project": "max"}, verify=verify)
    assert [row.id for row in rows] == ["f0", "f1", "f2"]
    assert rows[1].paths == {
        colour: Plane("images/f1.ome.tif", channel=name, series=0, project="max") for colour, name in BY_NAME.items()
    }
    assert len(set(rows[1].states.values())) == 1
    np.testing.assert_array_equal(read_field(rows[1].paths)["green"], stack(C)[3] + 1)
    check_unchanged(rows[1].paths, rows[1].states)
    write("images/f1.ome.tif", stack(C)[::-1], **ome("CYX"))
    sentence = r"^images/f1\.ome\.tif: changed after the run was planned; start the run again$"
    with pytest.raises(ChangedError, match=sentence):
        check_unchanged(rows[1].paths, rows[1].states)


def test_a_file_of_four_colours_is_digested_once(project, monkeypatch):
    digested = []
    real = manifests.digest
    monkeypatch.setattr(manifests, "digest", lambda path: digested.append(str(path)) or real(path))
    row = planned(project, verify="content")[0]
    assert digested == [f"images/f{number}.ome.tif" for number in range(3)]
    check_unchanged(row.paths, row.states)
    assert digested[3:] == ["images/f0.ome.tif"]


def test_missing_files_of_four_colours_count_once(project):
    Path("images/f1.ome.tif").unlink()
    with pytest.raises(SheetError, match=r"^collection train: 1 of 3 files is missing: images/f1\.ome\.tif$"):
        scanned(project, max_rejected_fraction=0)
    row = planned(project, max_rejected_fraction=0.5)[1]
    assert set(row.states.values()) == {"missing"}
    with pytest.raises(ImageError, match=r"images/f1\.ome\.tif: no such file"):
        read_field(row.paths)


def test_planning_opens_no_image(project):
    for path in Path("images").iterdir():
        path.write_bytes(b"no image")
    assert len(planned(project)) == 3


def test_a_stack_of_each_colour_is_chosen_by_the_keys(project):
    data = stack(Z, C)
    for colour, channel in BY_NUMBER.items():
        write(f"images/f0_{colour}.tif", data[:, channel], metadata={"axes": "ZYX"})
    Path("s.csv").write_text("ID,Label\nf0,0\n")
    del project["channels"]
    (row,) = planned(project | {"images": "images/{id}_{colour}.tif", "project": "mean"})
    assert row.paths["red"] == Plane("images/f0_red.tif", project="mean")
    np.testing.assert_array_equal(read_field(row.paths)["red"], np.floor(data[:, 2].mean(axis=0) + 0.5))


def test_another_channel_changes_the_manifest(project):
    before = scanned(project).tables["000.csv"]
    project["channels"] |= {"green": "ER", "yellow": "GFP"}
    assert scanned(project).tables["000.csv"] != before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"images": "i/{id}_{colour}.tif"},
            "channels: only applies to files that hold all colours; leave it out, or {",
        ),
        ({"images": ["{id}.tif", "{id}_{colour}.tif"]}, "channels: only applies to files that hold all colours"),
        ({"channels": {"red": 0, "green": 1, "blue": 2}}, "channels: the key 'yellow' is missing"),
        (
            {"channels": BY_NUMBER | {"yellow": None}},
            "channels.yellow: null is not possible yet; name the channel of every colour",
        ),
        ({"channels": BY_NUMBER | {"cyan": 1}}, "channels: unknown key 'cyan' (known here: red, green, blue, yellow)"),
        ({"channels": BY_NUMBER | {"red": -1}}, "channels.red: -1 is less than the minimum of 0"),
        ({"channels": BY_NUMBER | {"red": ""}}, "channels.red: is empty"),
        (
            {"channels": BY_NUMBER | {"yellow": 3}},
            "channels.yellow: 3 is also the channel of green; give each colour its own",
        ),
        (
            {"channels": BY_NAME | {"blue": "GFP"}},
            "channels.blue: 'GFP' is also the channel of green; give each colour its own",
        ),
        ({"series": -1}, "series: -1 is less than the minimum of 0"),
        ({"time": "first"}, "time: 'first' is not of type integer"),
        ({"project": "median"}, "project: 'median' is neither max, mean, sharpest nor the number of a plane"),
        ({"project": -1}, "project: -1 is less than the minimum of 0"),
        ({"images": "x.tif"}, "images: 'x.tif' lacks the placeholder {id}"),
    ],
)
def test_a_mistake_in_the_keys_is_one_sentence_at_planning(project, change, sentence):
    with pytest.raises((ConfigError, SheetError)) as error:
        scanned(project | change)
    assert str(error.value).startswith(f"config key collections.train.{sentence}")


def test_without_channels_a_pattern_without_colour_names_the_key(project):
    del project["channels"]
    with pytest.raises(SheetError, match=r"lacks the placeholder \{colour\}, or the collection the key channels"):
        scanned(project)


@pytest.mark.parametrize("key", ["channels", "series", "time", "project"])
@pytest.mark.parametrize("source", ["simulate", "download"])
def test_the_keys_need_images(project, key, source):
    value = {"channels": BY_NUMBER, "project": "max"}.get(key, 0)
    with pytest.raises(ConfigError, match=rf"^config key collections\.train\.{key}: only applies with 'images'$"):
        scanned({"sheet": "s.csv", "labels": True, source: {}, key: value})


def test_the_pixel_size_and_the_bits_are_those_of_the_series(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for size in (0.1, 0.2):
            metadata = {"axes": "CYX", "PhysicalSizeX": size, "PhysicalSizeY": size, "SignificantBits": int(size * 60)}
            file.write(stack(C), metadata=metadata, photometric="minisblack")
    planes = {colour: Plane(str(tmp_path / "a.ome.tif"), number, series=1) for colour, number in BY_NUMBER.items()}
    assert resolve_pixel_size(math.nan, planes) == 0.2
    assert check_pixel_size(0.2, planes) == []
    (warning,) = check_pixel_size(0.1, planes)
    assert f"{tmp_path}/a.ome.tif says 0.2 µm" in warning
    assert {said.significant_bits for said in read_each(planes).values()} == {12}


def in_one_file(rows, folder, **options):
    """Write the four files of each row into one; return rows of the same pixels."""
    joined = []
    for row in rows:
        data = np.stack([cv2.imread(row.paths[colour], cv2.IMREAD_UNCHANGED) for colour in BY_NUMBER])
        path = write(folder / f"{row.id}.ome.tif", data, **options)
        stat = os.stat(path)
        joined.append(
            replace(
                row,
                paths={colour: Plane(str(path), number) for number, colour in enumerate(BY_NUMBER)},
                states=dict.fromkeys(COLOURS, f"{stat.st_size}:{stat.st_mtime_ns}"),
            )
        )
    return joined


@pytest.mark.workers
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_shard_has_the_bytes_of_four_files(tmp_path, dtype):
    fields = {f"f{seed}": make_field(seed, dtype=dtype) for seed in range(2)}
    apart, _ = write_shard(tmp_path / "in", fields)
    together = in_one_file(apart, tmp_path, ome=True, metadata={"axes": "CYX"}, compression="zlib")
    made = {}
    for name, rows in (("apart", apart), ("together", together)):
        masks = tmp_path / name / "masks"
        segment_shard(rows, masks, SegmentationSettings(), DASK, 1, 2000, 0.0)
        tile(rows, masks, tmp_path / name)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        made[name] = {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}
    assert len(made["apart"]) == 2 * 2 + 1 + 2 + 4
    assert made["apart"] == made["together"]


@pytest.mark.workers
def test_a_shard_rejects_the_fields_whose_file_changed_or_lacks_a_channel(tmp_path):
    apart, segmentation = write_shard(tmp_path / "in", {f"f{seed}": make_field(seed) for seed in range(3)})
    rows = in_one_file(apart, tmp_path, ome=True, metadata={"axes": "CYX", "Channel": {"Name": list(NAMES)}})
    os.utime(rows[1].paths["red"], (1, 1))
    # Segmentation does not read green.
    rows[2] = replace(rows[2], paths=rows[2].paths | {"green": Plane(rows[2].paths["green"].path, "GPF")})
    segment_shard(rows, tmp_path / "masks", SegmentationSettings(), DASK, 1, 2000, 1.0)
    wanted = {
        "f1": f"{tmp_path}/f1.ome.tif: changed after the run was planned; start the run again",
        "f2": f"{tmp_path}/f2.ome.tif: has no channel 'GPF' (channels.green); its channels are {', '.join(NAMES)}",
    }
    for table in (tmp_path / "masks/fields.parquet", tile(rows, segmentation, tmp_path, max_rejected_fraction=1.0)[1]):
        assert {row["field"]: row["reason"] for row in pq.read_table(table).to_pylist() if row["reason"]} == wanted


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
    rows = planned(project | {"images": "images/{id}.ome.zarr"}, verify=verify)
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
        scanned(project | {"images": "images/{id}.ome.zarr"}, max_rejected_fraction=0)


def test_a_folder_of_ome_zarr_of_each_colour_needs_no_key(project):
    for number in range(3):
        for colour, channel in BY_NUMBER.items():
            write_zarr(f"images/f{number}_{colour}.zarr", stack(C)[channel] + number, "YX", names=["x"])
    del project["channels"]
    row = planned(project | {"images": "images/{id}_{colour}.zarr"})[1]
    assert row.paths["red"] == "images/f1_red.zarr"
    np.testing.assert_array_equal(read_field(row.paths)["red"], stack(C)[2] + 1)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_pixel_size_of_ome_zarr(tmp_path, version):
    path = write_zarr(tmp_path / "a.ome.zarr", stack(C), "CYX", version)
    planes = {colour: Plane(str(path), number) for colour, number in BY_NUMBER.items()}
    assert resolve_pixel_size(math.nan, planes) == 0.1


def test_a_document_type_in_ome_xml_is_refused(tmp_path):
    xml = '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "a">]><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    path = write(tmp_path / "a.ome.tif", stack(C), description=f"{xml}></OME>", metadata=None)
    with pytest.raises(ImageError, match=r"a\.ome\.tif: its OME-XML has a document type"):
        field(path, BY_NAME)
