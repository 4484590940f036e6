"""The import of files of microscopes: what is planned, read, written and refused."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from plane_files import BY_NAME, BY_NUMBER, NAMES, planned, scanned, stack
from vendor_files import PIXEL_SIZE, SCENES, WRITERS, write_lif
from workflow_runs import read_rows

from hpaloc.classes import COLOURS
from hpaloc.config import ConfigError, complete
from hpaloc.endings import READERS, SHIPPED, ending_of, is_imported, unknown_ending
from hpaloc.image_files.decoding import ImageError
from hpaloc.image_metadata import read_metadata
from hpaloc.images import read_field
from hpaloc.importing import MissingReaderError, find_reader, import_shard, read_sources
from hpaloc.planes import Plane
from hpaloc.rejection import TooManyRejected

ROOT = Path(__file__).parents[2]
CHANNEL = {colour: NAMES.index(name) for colour, name in BY_NAME.items()}
# Stands for a file of a microscope; nothing opens it.
EMPTY = b"microscope"

needs_bioio = pytest.mark.skipif(
    not all(find_spec(name) for name in ("bioio", "bioio_czi", "bioio_lif", "bioio_nd2", "pylibCZIrw")),
    reason="bioio and its readers of CZI, LIF and ND2 are not installed",
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Lazy:
    """An array that counts the planes that are read of it, as a reader's image has it."""

    def __init__(self, array, reads):
        self.array, self.reads = array, reads

    def __getitem__(self, index):
        def compute(scheduler):
            self.reads.append(tuple(at for at in index if isinstance(at, int)))
            return self.array[index]

        return SimpleNamespace(compute=compute)


@dataclass
class InMemory:
    """A file of a microscope in memory, with what is used of a reader of bioio."""

    images: list
    dims: tuple = ("T", "C", "Z", "Y", "X")
    names: tuple = NAMES
    scenes: tuple = SCENES
    physical_pixel_sizes: object = field(default_factory=lambda: SimpleNamespace(X=PIXEL_SIZE, Y=PIXEL_SIZE, Z=1.0))
    reads: list = field(default_factory=list)
    current: int = 0

    def __post_init__(self):
        self.scenes = self.scenes[: len(self.images)]

    def set_scene(self, scene_id):
        self.current = scene_id

    @property
    def standard_metadata(self):
        raise ValueError("no such metadata")

    @property
    def xarray_dask_data(self):
        array = self.images[self.current]
        return SimpleNamespace(
            dims=self.dims,
            shape=array.shape,
            dtype=array.dtype,
            coords={"C": list(self.names)} if self.names else {},
            data=Lazy(array, self.reads),
        )


def collection(images="{id}.czi", ids=("a",), **keys):
    """Return a collection and write its sheet and files."""
    Path("s.csv").write_text("ID\n" + "\n".join(ids))
    for id in ids:
        Path(images.format(id=id)).write_bytes(EMPTY)
    return {"sheet": "s.csv", "images": images, "channels": BY_NAME, **keys}


def imported(found, **keys):
    """Plan a collection and import its shard from readers in memory; return the rows of the manifest and the table."""
    rows = planned(found, shards=1)
    into = Path("results/imported/train/000")
    into.mkdir(parents=True, exist_ok=True)
    import_shard("results/sheet/train/000.csv", into, **keys)
    return rows, read_rows(into / "imported.csv")


def in_memory(*images, **options):
    """Return the function that finds the reader of files whose pixels are in memory, and the reader."""
    reader = InMemory(list(images), **options)
    return lambda path: lambda path: reader, reader


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("{root}/{id}.CZI", ".czi"),
        ("{root}/{id}_{colour}.ome.tif", ".tif"),
        ("a.zarr/", ".zarr"),
        ("{root}/{id}", ""),
        ("a.b/{id}", ""),
        ("{id}.{colour}", ""),
        ("{id}.001", ""),
        ("./.czi", ""),
        ("..czi", ""),
        ("a..czi", ".czi"),
        ("{root}/{id}...Lif", ".lif"),
        ("{id}.czi//", ".czi"),
        ("a\\.nd2", ".nd2"),
        ("{id}.czi.", ""),
        ("{id}. czi", ""),
    ],
)
def test_the_ending_of_a_pattern_is_its_last_literal_one(path, ending):
    assert ending_of(path) == ending


def test_files_of_microscopes_are_imported_and_all_others_are_read():
    assert all(is_imported(f"a{ending.upper()}") for ending in READERS)
    assert not any(map(is_imported, ("a.tif", "a.ome.tiff", "a.tif.gz", "a.zarr", "a.png", "a.lsm", "a", "a.czi.tif")))


@pytest.mark.parametrize("images", ["{id}.bmp", ["{id}.tif", "{id}.webp"]])
def test_an_ending_that_nothing_reads_is_said_with_those_that_are_read(images):
    Path("s.csv").write_text("ID\na")
    with pytest.raises(
        ConfigError, match=r"^config key collections.train.images: '\{id\}\.\w+' ends in \.\w+, "
    ) as error:
        scanned({"sheet": "s.csv", "images": images, "channels": BY_NAME})
    assert all(ending in str(error.value) for ending in (".png", ".tif", ".zarr", ".czi", ".lif", ".nd2", ".dv"))
    assert unknown_ending("{id}_{colour}.JPG") is None


def test_a_manifest_names_files_of_the_run_and_beside_them_their_sources():
    (row,) = planned(collection(series="Position 2", time=1, project="max"), shards=1)
    assert row.paths == {colour: f"results/imported/train/000/a_{colour}.tif" for colour in COLOURS}
    assert not row.states
    sources = read_sources("results/sheet/train/000.csv")["a"]
    found = os.stat("a.czi")
    for colour, source in sources.items():
        assert (source.plane.path, source.plane.channel) == ("a.czi", BY_NAME[colour])
        assert (source.plane.series, source.plane.time, source.plane.project) == ("Position 2", 1, "max")
        assert source.state == f"{found.st_size}:{found.st_mtime_ns}"
        assert source.into == Path(row.paths[colour]).name


def test_a_replaced_file_and_another_key_change_the_manifest_of_their_shard_alone():
    ids = [f"f{number}" for number in range(12)]
    planned(collection(ids=ids), shards=2)
    manifests = sorted(Path("results/sheet/train").glob("00?.csv"))
    before = [path.read_bytes() for path in manifests]
    Path("f3.czi").write_bytes(EMPTY * 2)
    planned({"sheet": "s.csv", "images": "{id}.czi", "channels": BY_NAME}, shards=2)
    changed = [path.read_bytes() != old for path, old in zip(manifests, before, strict=True)]
    assert changed == ["f3," in path.read_text() for path in manifests]
    assert sum(changed) == 1
    planned({"sheet": "s.csv", "images": "{id}.czi", "channels": BY_NAME, "time": 1}, shards=2)
    assert all(path.read_bytes() != old for path, old in zip(manifests, before, strict=True))


def test_files_of_both_kinds_may_be_in_one_collection():
    found = collection(ids=("a", "b"))
    Path("b.czi").rename("b.tif")
    rows = planned(found | {"images": ["{id}.czi", "{id}.tif"]}, shards=1)
    assert rows[0].paths["red"] == "results/imported/train/000/a_red.tif"
    assert (rows[1].paths["red"].path, rows[1].paths["red"].channel) == ("b.tif", "Tubulin")
    assert read_sources("results/sheet/train/000.csv")["b"] == {}


def test_a_collection_of_plain_files_has_the_manifest_that_it_had():
    Path("s.csv").write_text("ID\na")
    for colour in COLOURS:
        Path(f"a_{colour}.tif").write_bytes(EMPTY)
    planned({"sheet": "s.csv", "images": "{id}_{colour}.tif"}, shards=1)
    header = Path("results/sheet/train/000.csv").read_text().splitlines()[0]
    assert header == "id,pixel_size,seed,red,green,blue,yellow,red_state,green_state,blue_state,yellow_state"


def test_only_an_imported_file_has_named_scenes():
    Path("s.csv").write_text("ID\na")
    with pytest.raises(ConfigError, match=r"^config key collections.train.series: 'Position 1' is a name, but "):
        scanned({"sheet": "s.csv", "images": "{id}.tif", "channels": BY_NAME, "series": "Position 1"})
    Path("a.tif").write_bytes(EMPTY)
    # As Snakemake reads the number of --config.
    (row,) = planned({"sheet": "s.csv", "images": "{id}.tif", "channels": BY_NAME, "series": "1"}, shards=1)
    assert row.paths["red"].series == 1


BY_COLOUR = {"red": "{id}.czi", "green": "{id}_2.tif", "blue": "{id}_2.tif", "yellow": None}


@pytest.mark.parametrize("images", [["{id}.czi", "{id}_2.tif"], BY_COLOUR])
def test_a_series_is_a_number_if_files_without_names_are_among_them(images):
    Path("s.csv").write_text("ID\na\nb")
    # In a list of patterns, one field has a file to import and the other has not.
    for name in ("a.czi", "b_2.tif", *(["a_2.tif", "b.czi"] if isinstance(images, dict) else [])):
        Path(name).write_bytes(EMPTY)
    channels = BY_NAME | ({"yellow": None} if isinstance(images, dict) else {})
    found = {"sheet": "s.csv", "images": images, "channels": channels, "series": "1"}
    rows = planned(found, shards=1)
    planes = [path for row in rows for path in row.paths.values() if isinstance(path, Plane)]
    imported = [source.plane for of in read_sources("results/sheet/train/000.csv").values() for source in of.values()]
    assert len(planes) + len(imported) == len(rows) * len(rows[0].paths)
    assert planes
    assert imported
    assert {plane.series for plane in (*planes, *imported)} == {1}
    with pytest.raises(ConfigError, match=r"^config key collections.train.series: '²' is a name, but in '{id}_2.tif' "):
        scanned({**found, "series": "²"})


@pytest.mark.parametrize(
    "keys",
    [
        {"images": "{id}_{colour}.png", "masks": {"cells": "{id}_mask.czi"}},
        {"images": "{id}_{colour}.png", "truth": {"cells": "t.csv", "masks": "{id}.LIF"}},
        {"download": {"url": "https://localhost/{ID}_{colour}.nd2"}},
    ],
)
def test_only_images_are_imported(keys):
    sentence = r"^config key collections\.train\.[a-z]+\.[a-z]+: '.*' names files of a microscope, which are only "
    with pytest.raises(ConfigError, match=sentence):
        complete({"collections": {"train": {"sheet": "s.csv", "labels": True, **keys}}})


def test_planes_along_z_in_files_of_their_own_are_joined():
    pixels = stack(5, 2, 4)
    for z in range(5):
        Path(f"a_z{z}.czi").write_bytes(EMPTY)

    def find(path):
        return lambda path: InMemory([pixels[int(path[-5])][:, :, None]])

    Path("s.csv").write_text("ID\na\n")
    found = {"sheet": "s.csv", "images": "{id}_z{z}.czi", "channels": BY_NAME, "time": 1, "project": "max"}
    rows, _ = imported(found, find=find)
    for colour, image in read_field(rows[0].paths).items():
        np.testing.assert_array_equal(image, pixels[:, 1, CHANNEL[colour]].max(axis=0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_planes_in_memory_become_the_same_pixels_in_plain_files(dtype):
    pixels = stack(2, 4, 5, dtype=dtype)
    find, reader = in_memory(pixels)
    rows, table = imported(collection(time=1, project=3), find=find)
    images = read_field(rows[0].paths)
    for colour, image in images.items():
        np.testing.assert_array_equal(image, pixels[1, CHANNEL[colour], 3])
        assert read_metadata(rows[0].paths[colour]).pixel_size == (PIXEL_SIZE, PIXEL_SIZE)
    # No other plane is read.
    assert sorted(reader.reads) == sorted((1, CHANNEL[colour], 3) for colour in COLOURS)
    (red,) = [line for line in table if line["colour"] == "red"]
    assert red == {
        **{"id": "a", "colour": "red", "file": "a.czi", "channel": "Tubulin", "channels": " | ".join(NAMES)},
        **{"scene": "Position 1", "scenes": "Position 1", "z": "5", "times": "2", "dtype": np.dtype(dtype).name},
        **{"pixel_size_x": "0.16", "pixel_size_y": "0.16", "pixel_size_z": "1.0", "acquired": "", "reason": ""},
    }


@pytest.mark.parametrize("project", ["max", "mean", "sharpest"])
def test_a_projection_is_that_of_a_tiff_of_the_same_planes(project):
    pixels = stack(4, 5)
    tifffile.imwrite("a.tif", pixels, ome=True, photometric="minisblack", metadata={"axes": "CZYX"})
    found = collection(channels=BY_NUMBER, project=project)
    (of_tiff,) = planned(found | {"images": "{id}.tif"}, shards=1)
    expected = read_field(of_tiff.paths)
    find, _ = in_memory(pixels[None])
    rows, _ = imported(found, find=find)
    for colour, image in read_field(rows[0].paths).items():
        np.testing.assert_array_equal(image, expected[colour])


@pytest.mark.parametrize("series", [1, "1", "Position 2"])
def test_a_scene_is_chosen_by_number_or_name(series):
    one, other = stack(1, 4, 1), stack(1, 4, 1)[..., ::-1]
    find, _ = in_memory(one, other)
    rows, table = imported(collection(series=series), find=find)
    np.testing.assert_array_equal(read_field(rows[0].paths)["green"], other[0, 3, 0])
    assert (table[0]["scene"], table[0]["scenes"]) == ("Position 2", "Position 1 | Position 2")


def test_a_scene_whose_name_is_a_number_is_found_by_its_name():
    one, other = stack(1, 4, 1), stack(1, 4, 1)[..., ::-1]
    find, _ = in_memory(one, other, scenes=("1", "0"))
    rows, _ = imported(collection(series="0"), find=find)
    np.testing.assert_array_equal(read_field(rows[0].paths)["green"], other[0, 3, 0])


@pytest.mark.parametrize(
    ("keys", "images", "sentence"),
    [
        ({}, [(1, 4, 5)], "a.czi: has 5 planes along z; choose one, or how they are joined, by the key project"),
        ({}, [(2, 4, 1)], "a.czi: has 2 time points; choose one by the key time"),
        ({}, [(1, 4, 1)] * 2, "a.czi: contains 2 image series; choose one by the key series"),
        (
            {"series": 2},
            [(1, 4, 1)] * 2,
            "a.czi: series 2 is out of range; the file has 2 image series, numbered from 0",
        ),
        ({"series": "P"}, [(1, 4, 1)], "a.czi: has no scene 'P' (series); its scenes are Position 1"),
        ({"time": 2}, [(2, 4, 1)], "a.czi: time 2 is out of range; the file has 2 time points, numbered from 0"),
        ({"project": 7}, [(1, 4, 5)], "a.czi: project 7 is out of range; the file has 5 planes along z"),
        (
            {"channels": BY_NAME | {"green": "GPF"}},
            [(1, 4, 1)],
            "a.czi: has no channel 'GPF' (channels.green); its channels are Nuclei, ER, Tubulin, GFP",
        ),
    ],
)
def test_what_is_not_in_a_file_is_refused_as_it_is_of_a_tiff(keys, images, sentence):
    find, _ = in_memory(*(stack(*shape) for shape in images))
    with pytest.raises(TooManyRejected) as error:
        imported(collection(**keys), find=find, max_rejected_fraction=0)
    assert sentence in str(error.value)


def test_pixels_of_another_type_are_refused():
    find, _ = in_memory(stack(1, 4, 1).astype(np.float32))
    with pytest.raises(TooManyRejected, match=r"a\.czi: pixels are float32, not 8- or 16-bit unsigned integers"):
        imported(collection(), find=find, max_rejected_fraction=0)


def test_tiles_are_joined_only_where_the_file_says_their_places():
    tiles, mosaic = stack(1, 4, 3), stack(1, 4, 1)
    find, reader = in_memory(tiles, dims=("T", "C", "M", "Y", "X"))
    with pytest.raises(TooManyRejected, match=r"a\.lif: has 3 images along the axis M, from which no key chooses"):
        imported(collection("{id}.lif"), find=find, max_rejected_fraction=0)
    reader.mosaic_xarray_dask_data = InMemory([mosaic]).xarray_dask_data
    rows, _ = imported(collection("{id}.czi"), find=find)
    np.testing.assert_array_equal(read_field(rows[0].paths)["green"], mosaic[0, 3, 0])


def test_a_plane_that_does_not_fit_in_memory_is_not_read():
    find, reader = in_memory(stack(1, 4, 1))
    with pytest.raises(TooManyRejected, match=r"a\.czi: 24 x 40 px does not fit in the memory of the job"):
        imported(collection(), find=find, memory_mb=400, max_rejected_fraction=0)
    assert not reader.reads


def test_a_field_that_cannot_be_read_leaves_its_reason_where_its_planes_would_be():
    good = InMemory([stack(1, 4, 1)])

    def find(path):
        def broken(path):
            raise RuntimeError("not a file of this kind")

        return broken if path == "b.czi" else lambda path: good

    rows, table = imported(collection(ids=("a", "b", "c")), find=find)
    assert [line["reason"] for line in table if line["colour"] == "red"][::2] == ["", ""]
    reason = "b.czi: cannot be read (RuntimeError: not a file of this kind)"
    assert {line["reason"] for line in table if line["id"] == "b"} == {reason}
    with pytest.raises(ImageError) as error:
        read_field(rows[1].paths)
    assert str(error.value) == reason
    assert set(read_field(rows[2].paths)) == set(COLOURS)


def test_a_file_that_is_missing_or_was_replaced_rejects_its_field():
    found = collection(ids=("a", "b", "c"))
    Path("b.czi").unlink()
    good = InMemory([stack(1, 4, 1)])

    def find(path):
        def opened(path):
            Path(path).stat()
            if path == "c.czi":
                Path(path).write_bytes(EMPTY * 2)
            return good

        return opened

    _, table = imported(found, find=find, max_rejected_fraction=0.6)
    reasons = {line["id"]: line["reason"] for line in table}
    assert reasons == {
        "a": "",
        "b": "b.czi: no such file",
        "c": "c.czi: changed after the run was planned; start the run again",
    }


def test_an_id_that_is_no_file_name_rejects_its_field():
    long = "n" * 250
    planned(collection(ids=("a", "b")), shards=1)
    manifest = Path("results/sheet/train/000.csv")
    # Only the file that is made has the long name.
    manifest.write_text(manifest.read_text().replace("000/b_", f"000/{long}_"))
    find, _ = in_memory(stack(1, 4, 1))
    import_shard(manifest, "made", find=find)
    reasons = {line["id"]: line["reason"] for line in read_rows("made/imported.csv")}
    assert reasons["a"] == ""
    assert "the file system does not accept this file name" in reasons["b"]
    # Nor can its reason be written.
    Path("b.czi").unlink()
    import_shard(manifest, "made", find=find)


def test_the_same_planes_are_the_same_bytes():
    find, _ = in_memory(stack(1, 4, 1))
    written = []
    for _ in range(2):
        imported(collection(), find=find)
        written.append([path.read_bytes() for path in sorted(Path("results/imported/train/000").iterdir())])
    assert len(written[0]) == 5
    assert written[0] == written[1]


def test_a_reader_that_is_not_installed_is_named_in_one_sentence():
    with pytest.raises(MissingReaderError) as error:
        find_reader("a.dv")
    assert str(error.value).startswith("a.dv: its reader, bioio-dv, is not in this environment")
    assert "write bioio-dv into envs/import.yaml and run with --sdm conda" in str(error.value)


def test_a_reader_that_is_shipped_need_not_be_written_into_its_environment(monkeypatch):
    # An import of it fails, as in an environment without it.
    monkeypatch.setitem(sys.modules, "bioio.plugins", None)
    with pytest.raises(MissingReaderError, match=r"^a\.lif: its reader, bioio-lif, is .*; run with --sdm conda, or "):
        find_reader("a.lif")


def test_without_a_reader_the_job_ends_rather_than_rejecting_every_field():
    with pytest.raises(MissingReaderError):
        imported(collection("{id}.dv"), max_rejected_fraction=1)


def test_the_environment_has_the_readers_that_are_shipped():
    text = (ROOT / "envs/import.yaml").read_text()
    assert all(f"- {package}==" in text for package in SHIPPED.values())


@pytest.mark.parametrize(("given", "read"), [(1, 1), ("Position 1", "Position 1"), (1.0, 1)])
def test_series_is_a_number_or_a_name(given, read):
    found = complete(
        {"collections": {"train": {"sheet": "s", "images": "{id}.czi", "channels": BY_NAME, "series": given}}}
    )
    assert found["collections"]["train"]["series"] == read


@needs_bioio
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("ending", WRITERS)
def test_the_planes_of_a_file_are_the_pixels_that_were_written(ending, dtype):
    pixels = stack(2, 3, 4, dtype=dtype)
    found = collection("{id}" + ending, time=1, project=2)
    WRITERS[ending](f"a{ending}", [pixels], NAMES)
    rows, table = imported(found)
    for colour, image in read_field(rows[0].paths).items():
        np.testing.assert_array_equal(image, pixels[1, 2, CHANNEL[colour]])
        assert read_metadata(rows[0].paths[colour]).pixel_size == pytest.approx((PIXEL_SIZE, PIXEL_SIZE))
    said = table[0]
    assert (said["channels"], said["z"], said["times"]) == (" | ".join(NAMES), "3", "2")
    assert said["dtype"] == np.dtype(dtype).name


@needs_bioio
@pytest.mark.parametrize("series", [1, "Position 2"])
@pytest.mark.parametrize("ending", [".lif", ".nd2"])
def test_a_scene_of_a_file_is_read(ending, series):
    one, other = stack(1, 1, 4), stack(1, 1, 4)[..., ::-1]
    found = collection("{id}" + ending, series=series)
    WRITERS[ending]("a" + ending, [one, other], NAMES)
    rows, table = imported(found)
    for colour, image in read_field(rows[0].paths).items():
        np.testing.assert_array_equal(image, other[0, 0, CHANNEL[colour]])
    assert table[0]["scenes"] == "Position 1 | Position 2"


@needs_bioio
@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_for_each_colour_is_read(ending):
    pixels = stack(4)
    Path("s.csv").write_text("ID\na")
    for colour in COLOURS:
        WRITERS[ending](f"a_{colour}{ending}", [pixels[CHANNEL[colour]][None, None, None]])
    rows, _ = imported({"sheet": "s.csv", "images": "{id}_{colour}" + ending})
    for colour, image in read_field(rows[0].paths).items():
        np.testing.assert_array_equal(image, pixels[CHANNEL[colour]])


@needs_bioio
@pytest.mark.parametrize("cut", [0, 20, 0.5])
@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_that_is_cut_short_or_of_another_kind_is_refused_by_name(ending, cut):
    found = collection("{id}" + ending)
    WRITERS[ending](f"a{ending}", [stack(1, 1, 4)], NAMES)
    data = Path(f"a{ending}").read_bytes()
    Path(f"a{ending}").write_bytes(data[: cut if isinstance(cut, int) else int(cut * len(data))])
    with pytest.raises(TooManyRejected, match=f"a: a{ending}: cannot be read"):
        imported(found, max_rejected_fraction=0)


@needs_bioio
def test_tiles_of_a_czi_are_joined_at_their_places():
    from pylibCZIrw import czi

    found = collection()
    pixels = stack(4, side=(80, 120))
    Path("a.czi").unlink()
    with czi.create_czi("a.czi") as file:
        for channel in range(4):
            for y, x in ((0, 0), (0, 50), (30, 0), (30, 50)):
                # They overlap.
                tile = np.ascontiguousarray(pixels[channel, y : y + 50, x : x + 70, None])
                file.write(tile, plane={"C": channel}, location=(x, y))
        file.write_metadata(channel_names=dict(enumerate(NAMES)))
    rows, _ = imported(found)
    for colour, image in read_field(rows[0].paths).items():
        np.testing.assert_array_equal(image, pixels[CHANNEL[colour]])


@needs_bioio
def test_no_more_of_a_lif_is_read_than_the_planes_that_are_asked_for():
    write_lif("a.lif", [stack(2, 3, 4)], NAMES)
    image = find_reader("a.lif")("a.lif").xarray_dask_data
    assert image.data.chunksize == (1, 1, 1, 24, 40)


def test_planning_loads_no_reader():
    code = "import sys, hpaloc.planning.fields, hpaloc.planning.settings; print('bioio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
