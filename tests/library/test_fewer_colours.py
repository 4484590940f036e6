"""Collections without red, yellow or both: from the configuration to cells, tiles, records, figures and pictures."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from plane_files import BY_NUMBER, write
from segmented_fields import best_ious
from stand_in_models import write_stand_in
from tile_fields import make_field, tile, write_shard

from hpaloc import field_table, images, records
from hpaloc.browser.pictures import shown_levels
from hpaloc.classes import COLOURS
from hpaloc.config import ConfigError, colours_of, complete
from hpaloc.delimited import SheetError
from hpaloc.examples import EXAMPLES
from hpaloc.figures.data import draw_data
from hpaloc.grouping import group_fields, near_duplicates
from hpaloc.image_files.decoding import ImageError
from hpaloc.manifests import read_manifest
from hpaloc.measuring import find_implausible, measure_field
from hpaloc.planning.settings import check_model, check_segmentation, check_training
from hpaloc.scan import download_urls, scan_collection
from hpaloc.segmentation import weights
from hpaloc.segmentation.backends import segment_field
from hpaloc.segmentation.settings import NetworkWeights, SegmentationSettings
from hpaloc.segmentation.shards import segment_to_files
from hpaloc.sheet import read_sheet
from hpaloc.simulate.field import simulate_field
from hpaloc.simulate.shard import simulate_shard
from hpaloc.tables import CELLS, FIELDS, to_table
from hpaloc.tfrecord import record_offsets

LACKING = [("yellow",), ("red",), ("red", "yellow")]
WATERSHED = SegmentationSettings(backend="watershed")


def names(lacking):
    return "without " + " and ".join(lacking)


each_lack = pytest.mark.parametrize("lacking", LACKING, ids=names)


def without(images, lacking):
    return {colour: image for colour, image in images.items() if colour not in lacking}


def planned(collection, folder):
    """Scan a collection of one shard and return the rows of its manifest."""
    config = complete({"collections": {"train": {"sheet": "s.csv", "labels": True, "shards": 1, **collection}}})
    texts = scan_collection("train", config).tables
    Path(folder, "m.csv").write_text(texts["000.csv"])
    return read_manifest(Path(folder, "m.csv"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s.csv").write_text("ID,Label\na,0\n")
    return tmp_path


@each_lack
def test_files_of_one_colour_are_looked_for_in_the_colours_that_there_are(folder, lacking, caplog):
    there = [colour for colour in COLOURS if colour not in lacking]
    for colour in there:
        Path(f"a_{colour}.png").write_bytes(b"x")
    (row,) = planned({"images": "{id}_{colour}.png", "channels": dict.fromkeys(lacking)}, folder)
    assert row.paths == {colour: f"a_{colour}.png" for colour in there}
    assert set(row.states) == set(there)
    assert not caplog.records


@each_lack
def test_a_file_of_all_colours_has_planes_of_those_that_there_are(folder, lacking):
    write("a.tif", np.zeros((4, 24, 40), np.uint8), imagej=True, metadata={"axes": "CYX"})
    (row,) = planned({"images": "{id}.tif", "channels": BY_NUMBER | dict.fromkeys(lacking)}, folder)
    assert {colour: plane.channel for colour, plane in row.paths.items()} == without(BY_NUMBER, lacking)
    assert "yellow" not in lacking or "yellow" not in Path("m.csv").read_text()


@each_lack
def test_simulated_fields_leave_the_colours_out_and_keep_the_others(folder, lacking):
    collection = {"simulate": {"shape": [96, 96]}, "pixel_size": 0.3}
    (row,) = planned(collection | {"channels": dict.fromkeys(lacking)}, folder)
    assert set(row.paths) == set(COLOURS) - set(lacking)
    (of_four,) = planned(collection, folder)
    simulate_shard([row], folder / "fewer", (96, 96))
    simulate_shard([of_four], folder / "four", (96, 96))
    for path in (folder / "four").iterdir():
        twin = folder / "fewer" / path.name
        if any(path.name == f"a_{colour}.png" for colour in lacking):
            assert not twin.exists()
        else:
            assert twin.read_bytes() == path.read_bytes()


def test_addresses_are_of_the_colours_that_there_are(folder):
    urls = {"images": None, "download": {"url": "https://example.org/{id}_{colour}.jpg"}}
    (row,) = planned({"download": urls["download"], "channels": {"yellow": None}, "pixel_size": 0.08}, folder)
    assert row.urls == {colour: f"https://example.org/a_{colour}.jpg" for colour in ("red", "green", "blue")}
    # An address that the sheet gives for the colour is not asked for either.
    Path("u.csv").write_text("ID,url_yellow\na,ftp://example.org/a\n")
    rows = read_sheet("u.csv", labels=False)
    (of_row,) = download_urls("u.csv", rows, "https://example.org/{id}_{colour}.jpg", ["green", "blue"])
    assert set(of_row) == {"green", "blue"}


@each_lack
def test_missing_files_are_not_a_lacking_colour_but_may_be(folder, lacking):
    Path("s.csv").write_text("ID,Label\na,0\nb,0\n")
    for colour in set(COLOURS) - set(lacking):
        for id in "ab":
            Path(f"{id}_{colour}.png").write_bytes(b"x")
    null = ", ".join(f"{colour}: null" for colour in lacking)
    hint = f"is the pattern right, or is there no {' and no '.join(lacking)} (channels: {{{null}}})?"
    with pytest.raises(SheetError, match=re.escape(hint) + "$"):
        planned({"images": "{id}_{colour}.png"}, folder)
    Path("a_blue.png").unlink()
    Path("b_blue.png").unlink()
    with pytest.raises(SheetError, match=r"is the pattern right\?$"):
        planned({"images": "{id}_{colour}.png"}, folder)


@pytest.mark.parametrize("colour", ["green", "blue"])
@pytest.mark.parametrize("source", [{"images": "{id}_{colour}.png"}, {"simulate": {}}, {"download": {}}])
def test_nuclei_and_protein_are_always_needed(colour, source):
    collection = {"sheet": "s.csv", "labels": True, **source, "channels": {colour: None}}
    with pytest.raises(ConfigError, match=rf"train\.channels\.{colour}: is null, but every collection needs green"):
        complete({"collections": {"train": collection}})


@pytest.mark.parametrize("colour", ["green", "blue"])
def test_nuclei_and_protein_need_files(colour):
    images = {each: f"{{id}}_{each}.png" for each in COLOURS} | {colour: None}
    with pytest.raises(ConfigError, match=rf"train\.images\.{colour}: is null, .* \(nuclei\); name its files$"):
        complete({"collections": {"train": {"images": images}}})


def test_the_command_line_may_say_null():
    from hpaloc.config import read_command_line

    given = {"collections": {"train": {"sheet": "s", "simulate": {}, "labels": True, "channels": {"yellow": "null"}}}}
    config = complete(read_command_line(given, given))
    assert colours_of(config["collections"]["train"]) == ["red", "green", "blue"]


def config_of(channels, **keys):
    simulated = {"sheet": "s", "labels": True, "simulate": {}}
    return complete({"collections": {"train": simulated, "test": simulated | {"channels": channels}}, **keys})


def test_a_network_is_trained_for_the_colours_of_every_collection():
    pretraining = {"pretraining": {"collection": "test"}}
    for keys in ({}, {"train": {"collection": "test"}}, {"predict": {"collections": ["train"]}, "train": pretraining}):
        with pytest.raises(
            ConfigError, match=r"sees red, which the collection test lacks .*channels: \[green, blue\]$"
        ):
            check_training(config_of({"red": None}, **keys))
    # A collection that is neither trained on nor predicted may lack it.
    check_training(config_of({"red": None}, predict={"collections": ["train"]}))
    check_training(config_of({"red": None}, train={"channels": ["green", "blue"]}))
    check_training(config_of({"yellow": None}))


def test_a_model_that_sees_a_lacking_colour_is_refused(tmp_path):
    model = str(write_stand_in(tmp_path / "model"))
    check_model(config_of({"yellow": None}, model={"path": model}))
    with pytest.raises(ConfigError, match=r"^config key model\.path: the network sees red, which the coll"):
        check_model(config_of({"red": None}, model={"path": model}))
    check_model(config_of({"red": None}, model={"path": model}, predict={"collections": ["train"]}))


def test_hpacellseg_needs_red_of_the_collection_that_it_segments():
    config = config_of({"red": None}, segmentation={"backend": "hpacellseg"})
    check_segmentation(config, "train")
    with pytest.raises(
        ConfigError, match=r"hpacellseg finds cells in red, which the collection test lacks .*watershed"
    ):
        check_segmentation(config, "test")
    check_segmentation(config_of({"yellow": None}, segmentation={"backend": "hpacellseg"}), "test")


def test_torchscript_needs_a_file_for_the_collection_without_yellow():
    segmentation = {"backend": "hpacellseg", "weights": {"format": "torchscript"}}
    config = config_of({"yellow": None}, segmentation=segmentation)
    check_segmentation(config, "train")
    with pytest.raises(ConfigError, match=r"^segmentation\.weights\.cells_without_yellow: no published network"):
        check_segmentation(config, "test")


def test_instanseg_needs_a_file_and_no_other_colour_than_blue(tmp_path):
    segmentation = {"backend": "instanseg"}
    with pytest.raises(ConfigError, match=r"^segmentation\.weights\.instanseg: no published network"):
        check_segmentation(config_of({"red": None, "yellow": None}, segmentation=segmentation), "test")
    own = tmp_path / "instanseg.pt"
    segmentation["weights"] = {"instanseg": str(own)}
    with pytest.raises(ConfigError, match=r"^segmentation\.weights\.instanseg: .*no such file"):
        check_segmentation(config_of({"yellow": None}, segmentation=segmentation), "test")
    own.write_bytes(b"own")
    check_segmentation(config_of({"red": None, "yellow": None}, segmentation=segmentation), "test")


def test_the_networks_of_hpacellseg_follow_the_colours(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched = []

    def fetch(url, path):
        fetched.append(url.rsplit("/", 1)[1])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"weights")

    monkeypatch.setattr(weights, "fetch", fetch)
    own = tmp_path / "own.pth"
    own.write_bytes(b"own")
    assert weights.ready(NetworkWeights(cells=str(own)), yellow=True)[1] == own
    assert weights.ready(NetworkWeights(cells=str(own)), yellow=False)[1].name == "dpn_unet_cell_v2.pth"
    assert weights.ready(NetworkWeights(cells_without_yellow=str(own)), yellow=False)[1] == own
    assert fetched == ["dpn_unet_nuclei_v1.pth", "dpn_unet_cell_v2.pth"]


def test_the_network_of_two_channels_gets_zeros_for_yellow():
    from hpaloc.segmentation.hpacellseg import _plane

    field = {"red": np.full((4, 6), 9, np.uint16), "blue": np.full((4, 6), 5, np.uint16)}
    assert _plane(field, "red") is field["red"]
    empty = _plane(field, "yellow")
    assert (empty.dtype, empty.shape, empty.max()) == (np.uint16, (4, 6), 0)


@pytest.fixture(scope="module")
def simulated():
    return simulate_field("f", (0,), 3, shape=(640, 640))


@each_lack
def test_cells_are_found_in_the_colours_that_there_are(simulated, lacking):
    nuclei, cells = segment_field(without(simulated.images, lacking), 0.16, WATERSHED)
    assert cells.shape == nuclei.shape == (640, 640)
    np.testing.assert_array_equal(nuclei[nuclei > 0], cells[nuclei > 0])
    np.testing.assert_array_equal(np.unique(cells), np.arange(cells.max() + 1))
    found = best_ious(simulated.cells, cells)
    # Cells that are only known to be near their nuclei are right in the middle.
    assert np.mean(found >= (0.3 if len(lacking) == 2 else 0.6)) > 0.8


def test_cells_without_red_and_yellow_end_near_their_nuclei(simulated):
    nuclei, cells = segment_field({"blue": simulated.images["blue"]}, 0.16, WATERSHED)
    distance = cv2.distanceTransform((nuclei == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) * 0.16
    from hpaloc.segmentation.cells import REACH

    assert REACH - 1 < distance[cells > 0].max() < REACH + 1
    # Half way to a nearer nucleus, and all of what is near.
    assert (cells[distance < REACH - 1] > 0).mean() > 0.98


def test_the_same_cells_in_blocks_without_red_and_yellow(simulated):
    only = {"blue": simulated.images["blue"]}
    cells, in_blocks = (segment_field(only, 0.16, WATERSHED, chunk_above=above)[1] for above in (None, 512))
    assert in_blocks.max() == cells.max()
    assert best_ious(cells, in_blocks).min() > 0.95


def test_a_backend_without_its_colours_is_one_sentence():
    image = np.zeros((32, 32), np.uint8)
    with pytest.raises(ValueError, match=r"^backend hpacellseg needs the channels red, blue; missing: red$"):
        segment_field({"blue": image}, 0.1, SegmentationSettings(backend="hpacellseg"))


def test_a_field_is_segmented_from_its_files(simulated, tmp_path):
    paths = {}
    for colour, image in without(simulated.images, ["yellow"]).items():
        paths[colour] = str(tmp_path / f"{colour}.png")
        cv2.imwrite(paths[colour], image)
    task = {"field": "f", "paths": paths, "states": {}, "pixel_size": 0.16, "settings": {}, "out_dir": str(tmp_path)}
    task |= {"chunk_above": None, "max_pixels": 10**8, "cell_mask": None, "nucleus_mask": None, "tables": {}}
    row = segment_to_files(task)
    assert row["status"] == "ok"
    assert row["n_cells"] > 0
    assert segment_to_files(task | {"paths": paths | {"yellow": str(tmp_path / "no.png")}})["status"] == "rejected"


@each_lack
def test_measurements_are_those_of_four_colours_and_empty_for_the_lacking(lacking):
    pictures, cells, nuclei = make_field(1)
    row, rows = measure_field("a", pictures, cells, nuclei, 0.08)
    fewer, of_cells = measure_field("a", without(pictures, lacking), cells, nuclei, 0.08)
    whole, less = (
        [to_table(of_field, FIELDS).to_pandas(), to_table(of_each, CELLS).to_pandas()]
        for of_field, of_each in (([row], rows), ([fewer], of_cells))
    )
    for of_four, of_fewer in zip(whole, less, strict=True):
        own = [name for name in of_four if any(colour in name.split("_") for colour in lacking)]
        own += ["focus"] if "red" in lacking and "focus" in of_four else []
        assert of_fewer[own].isna().all(axis=None)
        others = of_four.columns.difference([*own, "saturation"])
        pd.testing.assert_frame_equal(of_fewer[others], of_four[others])
    assert find_implausible(fewer, of_cells) is not None


def test_cells_of_a_reach_are_not_blamed_for_their_share(simulated):
    pictures = without(simulated.images, ["red", "yellow"])
    nuclei, _ = segment_field(pictures, 0.16, WATERSHED)
    # 1.5 µm around the nuclei, which then fill more than half of the cells.
    tight = cv2.dilate(nuclei, np.ones((17, 17), np.uint8))
    tight[nuclei > 0] = nuclei[nuclei > 0]
    row, rows = measure_field("a", pictures, tight, nuclei, 0.16)
    assert np.median([cell["nucleus_fraction"] for cell in rows]) > 0.45
    assert find_implausible(row, rows) == []
    with_red = without(simulated.images, ["yellow"])
    assert "do not look like nuclei" in find_implausible(*measure_field("a", with_red, tight, nuclei, 0.16))[0]
    # Blue that shows something else is still seen.
    swapped = pictures | {"blue": simulated.images["red"]}
    assert "do not look like nuclei" in find_implausible(*measure_field("a", swapped, tight, nuclei, 0.16))[0]


@pytest.mark.parametrize(
    ("lacking", "asked"),
    [
        ((), "are red and yellow dark, or swapped with blue?"),
        (("yellow",), "is red dark, or swapped with blue?"),
        (("red", "yellow"), "are the given cells nuclei?"),
    ],
)
def test_no_cytoplasm_names_the_colours_that_there_are(simulated, lacking, asked):
    pictures = without(simulated.images, lacking)
    row, rows = measure_field("a", pictures, simulated.nuclei, simulated.nuclei, 0.16)
    assert find_implausible(row, rows)[-1].endswith(asked)


@each_lack
def test_a_shard_has_empty_tile_files_of_the_lacking_colours(tmp_path, lacking):
    rows, segmentation = write_shard(tmp_path / "in", {"a": make_field(1), "b": make_field(2)})
    _, _, of_four = tile(rows, segmentation, tmp_path / "four")
    fewer = [replace(row, paths=without(row.paths, lacking)) for row in rows]
    cells, fields, tiles = tile(fewer, segmentation, tmp_path / "fewer")
    for colour in COLOURS:
        expected = b"" if colour in lacking else of_four[colour].read_bytes()
        assert tiles[colour].read_bytes() == expected
    assert (pq.read_schema(cells), pq.read_schema(fields)) == (CELLS, FIELDS)
    assert pq.read_table(fields)["status"].to_pylist() == ["ok", "ok"]


def test_records_are_of_the_colours_that_there_are(tmp_path):
    rows, segmentation = write_shard(tmp_path / "in", {"a": make_field(1)})
    fewer = [replace(row, paths=without(row.paths, ["yellow"])) for row in rows]
    cells, _, tiles = tile(fewer, segmentation, tmp_path / "fewer")
    from hpaloc.tfrecord import decode_example, read_records

    keys = [decode_example(payload)["key"] for payload in read_records(tiles["green"])]
    ids = pq.read_table(cells)["cell"].to_pylist()
    table = pd.DataFrame({"field": "a", "cell": ids, "part": "train", "record_shard": 0, "position": range(len(ids))})
    table = table.assign(shard=0, row=range(len(ids)), green_scale=1.0, key=keys)
    out = {part: tmp_path / part for part in ("train", "validation")}
    records.write_dataset(table, {colour: [path] for colour, path in tiles.items()}, out)
    written = sorted(path.name.split("-")[0] for path in out["train"].iterdir())
    assert written == ["blue", "green", "red"]
    assert len(record_offsets(next(out["train"].glob("red-*")))) == len(ids)
    assert set(EXAMPLES.names) >= {"position", "record_shard"}


def test_fields_are_compared_in_the_colours_that_there_are():
    rng = np.random.default_rng(0)
    same = rng.integers(2**63, size=3, dtype=np.uint64)
    other = rng.integers(2**63, size=3, dtype=np.uint64)
    # 6 of 63 bits and 13 of 126, as 20 of 189.
    near = same ^ np.uint64(0b111111)
    for columns, most in ((1, 6), (2, 12), (3, 18)):
        hashes = np.array([same[:columns], near[:columns], other[:columns]])
        assert near_duplicates(hashes).tolist() == [[0, 1]], (columns, most)
        assert not len(near_duplicates(np.array([same[:columns], (near ^ np.uint64(1 << 20))[:columns]])))
    fields = pd.DataFrame(
        {"field": ["a", "b", "c", "d"], "hash_blue": [int(same[1]), int(near[1]), int(other[1]), None]}
    )
    fields["hash_blue"] = fields["hash_blue"].astype("UInt64")
    fields["hash_red"] = fields["hash_yellow"] = pd.Series([None] * 4, dtype="UInt64")
    groups, summary = group_fields(fields, ["duplicates"])
    assert groups.tolist() == ["a", "a", "c", "d"]
    assert summary["duplicate_pairs"] == 1
    assert summary["group_by"] == ["duplicates"]


def test_a_copy_is_the_same_images_without_the_lacking_colour():
    pictures, cells, nuclei = make_field(1)
    rows = [measure_field(name, without(pictures, ["red"]), cells, nuclei, 0.08)[0] | {"field": name} for name in "ab"]
    assert field_table.shared_channels(to_table(rows, FIELDS)) == [
        "the same images as field b",
        "the same images as field a",
    ]


def test_all_images_of_a_field_are_those_that_there_are(tmp_path):
    paths = {}
    for colour, image in without(make_field(1)[0], ["red"]).items():
        paths[colour] = str(tmp_path / f"{colour}.png")
        cv2.imwrite(paths[colour], image)
    read = images.read_field(paths)
    assert list(read) == ["green", "blue", "yellow"]
    images.check_field(read, paths)
    # Made-up green and yellow have the same cells.
    assert [text.partition(":")[0] for text in images.find_odd_colours(read, None)] == ["yellow repeats green"]
    cv2.imwrite(paths["yellow"], read["blue"])
    with pytest.raises(ImageError, match="yellow is the same image as blue"):
        images.check_field(images.read_field(paths), paths)


def test_an_empty_image_in_the_place_of_yellow_names_the_way_out():
    pictures, paths = make_field(1)[0], {colour: f"{colour}.png" for colour in COLOURS}
    for colour, hint in (("yellow", "; if there is no yellow, write channels: {yellow: null}"), ("red", "")):
        empty = pictures | {colour: np.zeros_like(pictures[colour])}
        with pytest.raises(ImageError, match=re.escape(f"the {colour} channel is empty or saturated{hint}") + "$"):
            images.check_field(empty, paths)


@each_lack
def test_figures_show_the_colours_that_there_are(tmp_path, lacking):
    rows, _ = write_shard(tmp_path / "in", {"a": make_field(1)})
    draw_data([replace(row, paths=without(row.paths, lacking)) for row in rows], tmp_path)
    channels, locations = ((tmp_path / f"figure{name}.svg").read_text() for name in ("3_channels", "4_locations"))
    shown = {"red": "Microtubules", "green": "Protein of interest", "blue": ">Nucleus<", "yellow": "Endoplasmic"}
    assert {colour for colour, name in shown.items() if name in channels} == set(COLOURS) - set(lacking)
    # The class of that name is there; the key is not.
    assert locations.count("Microtubules") == (1 if "red" in lacking else 2)


def test_pictures_need_no_level_of_a_lacking_colour():
    levels = {"green_background": 1.0, "green_white": 9.0, "red_background": np.nan, "red_white": np.nan}
    assert json.dumps(shown_levels({"green": np.full((2, 2), 9, np.uint8)}, levels)["green"].tolist()) == (
        "[[255, 255], [255, 255]]"
    )
