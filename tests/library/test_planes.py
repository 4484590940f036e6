"""Files that hold many planes: layouts, selections, stacks, refusals, and equality with four files."""

import gzip
import math
import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from plane_files import BY_NAME, BY_NUMBER, NAMES, C, T, Z, field, imagej, ome, planned, scanned, stack, write
from tile_fields import make_field, tile, write_shard

from hpaloc import manifests
from hpaloc.classes import COLOURS
from hpaloc.config import ConfigError
from hpaloc.delimited import SheetError
from hpaloc.image_files.decoding import read_image
from hpaloc.image_metadata import check_pixel_size, read_each, resolve_pixel_size
from hpaloc.images import ImageError, check_field, find_odd_colours, read_channel, read_field
from hpaloc.manifests import ChangedError, check_unchanged
from hpaloc.planes import Plane
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard

DASK = DaskSettings()

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


def apart(tmp_path, data, project, layout):
    """Write the planes of ``data`` (Z, C, Y, X) along z to files of their own."""
    planes = {}
    for colour, channel in BY_NUMBER.items():
        paths = [tmp_path / (f"{z}_{colour}" if layout == "a colour" else f"{z}.tif") for z in range(len(data))]
        for path, plane in zip(paths, data, strict=True):
            if layout == "a colour":
                cv2.imwrite(f"{path}.png", plane[channel])
            elif layout == "pages without names":
                write(path, plane, metadata=None)
            elif layout == "interleaved":
                write(path, np.moveaxis(plane, 0, -1), metadata={"axes": "YXS"}, planarconfig="contig")
            else:
                write(path, plane[None], **ome("ZCYX"))
        named = NAMES[channel] if layout == "names" else channel
        first, *others = (f"{path}.png" if layout == "a colour" else str(path) for path in paths)
        planes[colour] = Plane(first, None if layout == "a colour" else named, project=project, others=others)
    return planes


@pytest.mark.parametrize("project", ["max", "mean", "sharpest"])
@pytest.mark.parametrize("layout", ["a colour", "pages without names", "interleaved", "names"])
def test_planes_in_files_of_their_own_are_those_of_a_stack(tmp_path, layout, project):
    data = stack(Z, C)
    for z in (0, 1, 2, 4):
        data[z, BY_NUMBER["red"]] = cv2.GaussianBlur(data[z, BY_NUMBER["red"]], (0, 0), 9)
    together = write(tmp_path / "together.tif", data, **ome("ZCYX"))
    expected = field(together, BY_NUMBER, project=project)
    planes = apart(tmp_path, data, project, layout)
    for colours in (COLOURS, ["blue"]):
        for colour, image in read_field(planes, colours).items():
            np.testing.assert_array_equal(image, expected[colour])


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        (stack(30, side=(24, 40))[0][:, :30], "4.tif: shape (24, 30) differs from (24, 40) of {}/0.tif"),
        (stack(dtype=np.uint8), "4.tif: pixel type uint8 differs from that of another plane of its field"),
        (stack(2), "4.tif: shape (2, 24, 40) differs from (24, 40) of {}/0.tif"),
        (None, "4.tif: no such file"),
    ],
)
@pytest.mark.parametrize("project", ["max", "mean", "sharpest"])
def test_planes_in_files_of_their_own_are_alike(tmp_path, last, sentence, project):
    paths = [str(write(tmp_path / f"{z}.tif", plane)) for z, plane in enumerate(stack(Z))]
    Path(paths[-1]).unlink()
    if last is not None:
        write(paths[-1], last)
    with pytest.raises(ImageError) as error:
        read_channel(Plane(paths[0], project=project, others=paths[1:]), "red")
    assert str(error.value) == f"{tmp_path}/{sentence.format(tmp_path)}"


def test_a_stack_is_no_plane_of_a_stack(tmp_path):
    paths = [str(write(tmp_path / f"{z}.tif", stack(3), metadata={"axes": "ZYX"})) for z in range(2)]
    with pytest.raises(ImageError, match=r"0\.tif: has 3 planes along z, but its field has a file for each plane"):
        read_channel(Plane(paths[0], project="max", others=paths[1:]), "red")


@pytest.mark.parametrize("project", ["max", "mean", "sharpest"])
def test_planes_in_files_of_their_own_are_not_in_memory_at_once(tmp_path, project):
    side, peaks = 512, []
    for depth in (3, 12):
        paths = [str(write(tmp_path / f"{z}.tif", stack(side=(side, side)))) for z in range(depth)]
        tracemalloc.start()
        read_channel(Plane(paths[0], project=project, others=paths[1:]), "red")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + side**2


def test_the_pixel_size_is_that_of_the_first_plane(tmp_path):
    size = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}
    paths = [str(write(tmp_path / f"{z}.ome.tif", stack(), ome=True, metadata=size)) for z in range(2)]
    Path(paths[1]).write_text("")
    assert resolve_pixel_size(math.nan, {"red": Plane(paths[0], project="max", others=paths[1:])}) == 0.2


def test_hot_pixels_are_not_sharp(tmp_path):
    fine = np.random.default_rng(2).random((64, 64)).astype(np.float32)
    data = np.stack([cv2.GaussianBlur(fine, (0, 0), 1.5 + 2 * abs(z - 3)) for z in range(Z)]) * 1000
    data = data.astype(np.uint16)
    data[0, 20, 30] = 65535
    path = write(tmp_path / "a.tif", data, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_channel(Plane(str(path), project="sharpest"), "red"), data[3])


def test_a_mean_needs_little_memory(tmp_path):
    side = 1024
    path = write(tmp_path / "a.tif", np.full((Z, side, side), 65535, np.uint16), metadata={"axes": "ZYX"})
    tracemalloc.start()
    assert (read_channel(Plane(str(path), project="mean"), "red") == 65535).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * side**2


@pytest.mark.parametrize("project", ["max", "mean"])
def test_a_projection_of_one_page_leaves_the_others_of_the_page_as_they_are(tmp_path, project):
    """Interleaved pages and planar ones are read whole, and read for each colour."""
    data = stack(Z, C)
    path = write(tmp_path / "a.tif", np.moveaxis(data, 1, -1), metadata={"axes": "ZYXS"}, planarconfig="contig")
    read = field(path, BY_NUMBER, project=project)
    for colour, number in BY_NUMBER.items():
        joined = data[:, number].max(axis=0) if project == "max" else np.floor(data[:, number].mean(axis=0) + 0.5)
        np.testing.assert_array_equal(read[colour], joined)


def test_the_other_colours_have_the_sharpest_plane_of_red(tmp_path):
    data = stack(Z, side=(64, 64))
    for z in range(Z - 1):
        data[z] = cv2.GaussianBlur(data[z], (0, 0), 9)
    planes = {}
    for colour in COLOURS:
        path = write(tmp_path / f"{colour}.tif", data if colour == "red" else data[:3], metadata={"axes": "ZYX"})
        planes[colour] = Plane(str(path), project="sharpest")
    sentence = "has 3 planes along z, but red is sharpest in plane 4 (from 0); give every colour the same planes"
    with pytest.raises(ImageError, match=re.escape(f"{tmp_path}/green.tif: {sentence}")):
        read_field(planes)


def test_a_microscope_of_three_channels(tmp_path):
    path = write(tmp_path / "a.tif", stack(3), metadata={"axes": "CYX"})
    channels = {"red": 2, "green": 1, "blue": 0, "yellow": 2}
    read = field(path, channels)
    np.testing.assert_array_equal(read["yellow"], stack(3)[2])
    check_field(read, dict.fromkeys(COLOURS, str(path)))
    assert find_odd_colours(read, None)[0] == "red and yellow are the same image"
    with pytest.raises(ImageError, match=r"channels\.blue and channels\.green are the same channel"):
        field(path, channels | {"blue": 1})


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
        == "channels.red 1 is out of range; the file has 1 channel (4 planes along z), numbered from 0; if these are "
        "its colours, make them channels in Fiji: Image › Hyperstacks › Re-order Hyperstack"
    )
    along_time = {"data": stack(C), "options": {"imagej": True, "metadata": {"axes": "TYX"}, "photometric": None}}
    assert (
        refused(tmp_path, **along_time)
        == "has 4 time points; choose one by the key time, or if these are its colours, make them channels in Fiji: "
        "Image › Hyperstacks › Re-order Hyperstack"
    )
    assert refused(tmp_path, data=stack(T * C), options={"metadata": None}, project="max").startswith(
        "channels.red 2 is out of range; the file has 1 channel (8 planes along z), numbered from 0; if these are"
    )
    wavelengths = {"axes": "CYX", "Channel": {"Name": ["405", "488", "561", "640"]}}
    assert (
        refused(tmp_path, BY_NUMBER | {"red": 561}, options={"ome": True, "metadata": wavelengths})
        == "channels.red 561 is out of range; the file has 4 channels, numbered from 0; put it in quotes to name the "
        "channel"
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
    with pytest.raises(ImageError, match=r"b\.ome\.tif: plane 1 is not in the file: the recording stop"):
        read_channel(replace(plane, channel="ER"), "yellow")


def test_a_file_of_each_channel_of_a_data_set_is_that_of_its_colour(tmp_path):
    data = stack(1, Z, C)
    write_data_set(tmp_path, data, {(0, z, c): ("abcd"[c], z) for z in range(Z) for c in range(C)})
    for channel, name in enumerate("abcd"):
        path = str(tmp_path / f"{name}.ome.tif")
        np.testing.assert_array_equal(read_channel(Plane(path, project=3), "red"), data[0, 3, channel])
    write_data_set(tmp_path, data, {(0, z, c): ("ef"[c // 2], z + Z * (c % 2)) for z in range(Z) for c in range(C)})
    with pytest.raises(ImageError, match=r"e\.ome\.tif: has 2 channels; choose by the key channels"):
        read_channel(Plane(str(tmp_path / "e.ome.tif"), project=3), "red")


def described(path, data, inside):
    """Write a TIFF whose OME-XML has something inside."""
    xml = f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{inside}</OME>'
    return write(path, data, description=xml, metadata=None)


def test_the_planes_of_a_recording_that_stopped_early_are_read(tmp_path):
    channels = "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(C))
    size = f'SizeX="40" SizeY="24" SizeC="{C}" SizeZ="3" SizeT="1"'
    pixels = f'<Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint16" {size}>{channels}<TiffData/></Pixels>'
    path = described(tmp_path / "a.ome.tif", stack(10), f'<Image ID="Image:0">{pixels}</Image>')
    np.testing.assert_array_equal(field(path, BY_NUMBER, project=1)["green"], stack(10)[7])
    sentence = "plane 10 is not in the file: the recording stopped early, or it is in another file"
    with pytest.raises(ImageError, match=re.escape(f"{path}: {sentence}")):
        field(path, BY_NUMBER, project="max")


def test_ome_xml_in_another_file_is_named(tmp_path):
    path = described(tmp_path / "a.ome.tif", stack(C), '<BinaryOnly MetadataFile="x.companion.ome" UUID="urn:uuid:2"/>')
    with pytest.raises(ImageError, match=r"its OME-XML is in x\.companion\.ome; save it as an OME-TIFF that holds"):
        field(path, BY_NUMBER)


def test_planes_in_a_file_without_an_id_are_not_those_of_another(tmp_path):
    data = stack(1, 1, C)
    write_data_set(tmp_path, data, {(0, 0, c): ("aabc"[c], c % 2) for c in range(C)})
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffFile(path, _multifile=False) as file:
        xml = file.ome_metadata.replace(' UUID="urn:uuid:a"', "").replace("urn:uuid:c", "")
    write(path, data[0, 0, :2], description=xml, metadata=None)
    np.testing.assert_array_equal(read_channel(Plane(str(path), 1), "red"), data[0, 0, 1])
    for channel in (2, 3):
        with pytest.raises(ImageError, match=rf"a\.ome\.tif: plane {channel} is not in the file"):
            read_channel(Plane(str(path), channel), "red")


def test_the_pixel_size_opens_no_other_file(tmp_path, monkeypatch):
    write_data_set(tmp_path, stack(1, 1, C), {(0, 0, c): ("ab"[c // 2], c % 2) for c in range(C)})
    opened = []
    real = tifffile.TiffFile.__init__

    def record(self, file, *arguments, **options):
        opened.append(getattr(file, "name", file))
        real(self, file, *arguments, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", record)
    path = str(tmp_path / "a.ome.tif")
    read_each({"red": Plane(path, 0, series=1)})
    assert opened == [path]


def test_broken_ome_xml_is_refused(tmp_path):
    path = write(tmp_path / "a.ome.tif", stack(C), **ome("CYX"))
    path.write_bytes(path.read_bytes().replace(b"</OME>", b"</OMX>"))
    with pytest.raises(ImageError, match=r"a\.ome\.tif: its OME-XML does not describe its 4 pages; save it again"):
        field(path, BY_NUMBER)


def test_pages_that_the_ome_xml_does_not_describe_are_not_guessed(tmp_path):
    write_data_set(tmp_path, stack(1, 1, C), {(0, 0, c): ("a", c) for c in range(C)})
    path = tmp_path / "a.ome.tif"
    path.write_bytes(path.read_bytes().replace(b'SizeC="4"', b'SizeC="x"'))
    with pytest.raises(ImageError, match=re.escape(str(path))):
        field(path, BY_NUMBER)


@pytest.mark.parametrize("max_pixels", [24 * 40, 24 * 40 - 1])
def test_the_size_of_a_plane_counts_and_not_that_of_the_file(tmp_path, max_pixels):
    path = write(tmp_path / "a.tif", stack(Z, C), **ome("ZCYX"))
    planes = {colour: Plane(str(path), number, project="max") for colour, number in BY_NUMBER.items()}
    if max_pixels == 24 * 40:
        assert read_field(planes, max_pixels=max_pixels)["red"].shape == (24, 40)
    else:
        with pytest.raises(ImageError, match=r"24 x 40 px does not fit in the memory of the job"):
            read_field(planes, max_pixels=max_pixels)


@pytest.mark.parametrize(("outer", "axes", "options"), [row[1:4] for row in LAYOUTS], ids=[r[0] for r in LAYOUTS])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_a_file_cut_anywhere_is_refused_or_has_the_planes_that_are_asked_for(
    tmp_path, outer, axes, options, compression
):
    if compression and ("imagej" in options or "truncate" in options):
        pytest.skip("tifffile does not write it")
    data = stack(*({"T": T, "Z": Z, "C": C}[axis] for axis in outer))
    data = np.moveaxis(data, [*range(data.ndim)], [axes.index(a) for a in f"{outer}YX"])
    chosen = {"T": {"time": 1}, "Z": {"project": "max"}, "C": {}}
    chosen = {key: value for axis in outer for key, value in chosen[axis].items()}
    path = write(tmp_path / "a.tif", data, **{"compression": compression, **options})
    expected, whole = field(path, BY_NUMBER, **chosen), path.read_bytes()
    for length in (*(len(whole) * part // 12 for part in range(12)), len(whole) - 1):
        path.write_bytes(whole[:length])
        try:
            read = field(path, BY_NUMBER, **chosen)
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017 - some lengths are complete enough
            continue
        for colour in COLOURS:
            np.testing.assert_array_equal(read[colour], expected[colour])


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"imagej": True, "photometric": None}])
@pytest.mark.parametrize("ids", [False, True])
def test_what_is_left_of_a_stack_is_not_one_image(tmp_path, options, ids):
    path = write(tmp_path / "a.tif", stack(Z), **options)
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 3])
    with pytest.raises(ImageError, match=r"a\.tif: the TIFF is cut short; copy it again"):
        read_image(path, ids=ids)


def test_the_pages_of_scanimage_are_read(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in stack(8):
            file.write(plane, description="state.configName='a'", metadata=None, software="SI.", contiguous=False)
    with tifffile.TiffFile(path) as file:
        assert file.is_scanimage
    np.testing.assert_array_equal(read_channel(Plane(str(path), project=7), "red"), stack(8)[7])


def test_a_hyperstack_with_one_header_is_read_plane_by_plane(tmp_path):
    """As ImageJ writes files of more than 4 GB; this one has more pixels than one image may have."""
    side, planes = 1024, 1040
    description = f"ImageJ=1.54f\nimages={planes}\nchannels=4\nslices={planes // 4}\nhyperstack=true\n"
    path = tmp_path / "a.tif"
    write(path, np.zeros((side, side), np.uint8), description=description, metadata=None)
    start = path.stat().st_size - side**2
    last = stack(1, dtype=np.uint8, side=(side, side))[0]
    with open(path, "r+b") as file:
        file.seek(start + (planes - 2) * side**2)
        file.write(last.tobytes() + bytes(side**2))
    np.testing.assert_array_equal(read_channel(Plane(str(path), 2, project=planes // 4 - 1), "red"), last)


def test_pages_count_as_planes_along_z_where_they_are_joined(tmp_path):
    path = write(tmp_path / "a.tif", stack(Z), metadata=None)
    np.testing.assert_array_equal(read_channel(Plane(str(path), 0, project="max"), "red"), stack(Z).max(axis=0))


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
            {"channels": BY_NUMBER | {"blue": None}},
            "channels.blue: is null, but every collection needs green (protein) and blue (nuclei); name its channel",
        ),
        ({"channels": BY_NUMBER | {"cyan": 1}}, "channels: unknown key 'cyan' (known here: red, green, blue, yellow)"),
        ({"channels": BY_NUMBER | {"red": -1}}, "channels.red: -1 is less than the minimum of 0"),
        ({"channels": BY_NUMBER | {"red": ""}}, "channels.red: is empty"),
        (
            {"channels": BY_NUMBER | {"yellow": 3}},
            "channels.yellow: 3 is also the channel of green; give each colour its own",
        ),
        (
            {"channels": BY_NUMBER | {"blue": "3"}},
            "channels.blue: '3' is also the channel of green; give each colour its own",
        ),
        (
            {"channels": BY_NUMBER | {"blue": "03"}, "images": "{id}_{channel}.tif"},
            "channels.blue: '03' is also the channel of green; give each colour its own",
        ),
        (
            {"channels": BY_NAME | {"blue": "GFP "}},
            "channels.blue: 'GFP ' is also the channel of green; give each colour its own",
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


def test_red_and_yellow_may_be_one_channel(project):
    row = planned(project | {"channels": BY_NUMBER | {"yellow": 2}})[0]
    assert row.paths["red"] == row.paths["yellow"]


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
    headers = read_each(planes)
    assert check_pixel_size(0.2, planes, headers) == []
    (warning,) = check_pixel_size(0.1, planes, headers)
    assert f"{tmp_path}/a.ome.tif says 0.2 µm" in warning
    assert {said.significant_bits for said in headers.values()} == {12}


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


def test_a_document_type_in_ome_xml_is_refused(tmp_path):
    xml = '<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a "a">]><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    path = write(tmp_path / "a.ome.tif", stack(C), description=f"{xml}></OME>", metadata=None)
    with pytest.raises(ImageError, match=r"a\.ome\.tif: its OME-XML has a document type"):
        field(path, BY_NAME)
