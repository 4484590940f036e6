"""Collections without a sheet: which fields and files the patterns of images find, as microscopes name them."""

import os
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml

from hpaloc.classes import COLOURS
from hpaloc.columns import read_columns
from hpaloc.config import ConfigError, complete
from hpaloc.delimited import SheetError
from hpaloc.finding import shard_of
from hpaloc.images import ImageError, read_field
from hpaloc.layout import CollectionFiles
from hpaloc.manifests import ChangedError, check_unchanged, read_annotations, read_manifests
from hpaloc.masks import write_mask
from hpaloc.matching import match_truth, read_truth
from hpaloc.patterns.folders import Folders
from hpaloc.patterns.pattern import FilePattern
from hpaloc.planes import Plane
from hpaloc.scan import scan_collection, write_scan

CHANNELS = {"red": 3, "green": 2, "blue": 1, "yellow": 4}
GUID = ("1A0B41F7-3F05-4B2A-9A39-2C7D4F1D7A9{}", "F89C55CC-993C-4950-8384-E0CC8F9E11B{}")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder, which is empty."""
    monkeypatch.chdir(tmp_path)


def touch(*paths):
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(str(path))


def scan(images, config=(), **collection):
    """Scan a collection ``new``, write its tables, and return the rows of its manifests by ID."""
    settings = {"collections": {"new": {"images": images, **collection}}, **dict(config)}
    write_scan(scan_collection("new", complete(settings)), "results/sheet/new")
    return {row.id: row for row in read_manifests(sorted(Path("results/sheet/new").glob("[0-9][0-9][0-9].csv")))}


def columns(*names):
    table = read_columns("results/sheet/new/columns.csv")
    return [tuple(row.values()) for row in table.select(["id", *names]).to_pylist()]


def refusal(*arguments, **options):
    with pytest.raises((SheetError, ConfigError)) as error:
        scan(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def write_metaxpress(guid="", ending=".TIF", folder="", thumb=True):
    """Write two sites of two wells as MetaXpress names them, and return the path of each (well, site, channel)."""
    paths = {}
    for well in ("A01", "B12"):
        for site in (1, 2):
            for channel in range(1, 5):
                start = f"{folder}Plate_1_{well}_s{site}_w{channel}"
                own = guid.format(channel)
                paths[well, site, channel] = f"{start}{own}{ending}"
                touch(paths[well, site, channel], *([f"{start}_thumb{own}{ending}"] if thumb else []))
    return paths


@pytest.mark.parametrize("ending", [".TIF", ".tif", ".Tif"])
def test_metaxpress(ending):
    paths = write_metaxpress(ending=ending)
    rows = scan("{plate}_{well}_s{site}_w{channel}.TIF", channels=CHANNELS)
    assert list(rows) == ["Plate_1_A01_1", "Plate_1_A01_2", "Plate_1_B12_1", "Plate_1_B12_2"]
    row = rows["Plate_1_B12_2"]
    assert row.paths == {colour: paths["B12", 2, CHANNELS[colour]] for colour in COLOURS}
    assert columns("plate", "well", "site")[2] == ("Plate_1_B12_1", "Plate_1", "B12", 1)


@pytest.mark.parametrize("guid", GUID)
@pytest.mark.parametrize("beside", [False, True])
def test_metaxpress_with_guids(guid, beside):
    # A GUID may begin with a digit, directly behind the number of the channel.
    folder = "Exp 7/TimePoint_1/ZStep_1/"
    paths = write_metaxpress(guid, ".tif", folder, beside)
    touch(f"{folder}Plate_1_A01_s1_w12{guid.format(2)}.tif")
    pattern = "*/TimePoint_1/ZStep_1/{plate}_{well}_s{site}_w{channel}%s*.tif"
    rows = scan(pattern % "[0-9A-F]", channels=CHANNELS)
    assert len(rows) == 4
    assert rows["Plate_1_A01_1"].paths == {colour: paths["A01", 1, CHANNELS[colour]] for colour in COLOURS}
    if beside:
        said = refusal(pattern % "", channels=CHANNELS)
        assert "finds two files for" in said
        assert "such as by [!_]* or [0-9A-F]* in place of *" in said
        assert "_thumb" in said
    assert scan(pattern % ("[!_]" if beside else ""), channels=CHANNELS) == rows


def test_the_patterns_of_the_table_find_the_files_of_the_table():
    page = (Path(__file__).resolve().parents[2] / "docs/data.md").read_text()
    rows = re.findall(r'^\| .*? \| (`.*`) \| `"(.*)"` \| (.*?) \|$', page, re.MULTILINE)
    assert len(rows) == 8
    channels = {}
    for file, text, said in rows:
        channels = yaml.safe_load(said.strip("`")) if said.startswith("`") else channels
        file = file.replace("`<br>`", "").strip("`").replace("-….", "-4950-8384-E0CC8F9E11B9.")
        touch(file)
        pattern = FilePattern(text, "", ".")
        pattern.check_separated()
        choices = {"channel": list(channels.values()), "colour": COLOURS}
        (found,) = pattern.walk(choices, Folders())
        assert found[2] == file


def test_a_part_that_differs_between_the_files_of_a_field_is_refused():
    write_metaxpress(GUID[0], ".tif", "", thumb=False)
    said = refusal("{plate}_{well}_s{site}_w{channel}_{guid}.tif", channels=CHANNELS)
    assert said.startswith("collection new: no file is found by")
    for path in Path().glob("*.tif"):
        path.rename(path.name.replace("w1", "w1_").replace("w2", "w2_").replace("w3", "w3_").replace("w4", "w4_"))
    said = refusal("{plate}_{well}_s{site}_w{channel}_{guid}.tif", channels=CHANNELS)
    assert said.endswith("write * in place of a part of the pattern that is not the same for all files of a field")


def test_operetta():
    for well in ("01", "12"):
        for channel in CHANNELS.values():
            touch(f"P1__2024/Images/r01c{well}f01p01-ch{channel}sk1fk1fl1.tiff")
            touch(f"P1__2024/Images/r01c{well}f01p02-ch{channel}sk1fk1fl1.tiff")
    touch("P1__2024/Images/Index.idx.xml")
    rows = scan("{plate}__*/Images/r{row}c{column}f{site}p01-ch{channel}sk1fk1fl1.tiff", channels=CHANNELS)
    assert list(rows) == ["P1_01_01_01", "P1_01_12_01"]
    assert rows["P1_01_12_01"].paths["blue"] == "P1__2024/Images/r01c12f01p01-ch1sk1fk1fl1.tiff"
    # `row` is the name of a column of hpaloc; numbers with leading zeros stay text.
    assert columns("plate", "sheet_row", "column", "site")[1] == ("P1_01_12_01", "P1", "01", "12", "01")


def test_cellvoyager():
    start = "AssayPlate_Greiner_{}_T0001F00{}L01"
    for well in ("A01", "H12"):
        for site in (1, 2):
            for action, channel in ((1, 1), (2, 2), (3, 3), (3, 4)):
                touch(f"{start.format(well, site)}A0{action}Z01C0{channel}.tif")
    rows = scan("{plate}_{well}_T0001F{site}L01A*Z01C{channel}.tif", channels=CHANNELS)
    assert list(rows) == [f"AssayPlate_Greiner_{well}_00{site}" for well in ("A01", "H12") for site in (1, 2)]
    assert rows["AssayPlate_Greiner_H12_002"].paths["red"] == "AssayPlate_Greiner_H12_T0001F002L01A03Z01C03.tif"
    assert columns("plate", "well", "site")[0] == ("AssayPlate_Greiner_A01_001", "AssayPlate_Greiner", "A01", "001")


def test_one_file_per_field_in_folders():
    for plate in ("P1", "P2"):
        for well in ("A1", "A2"):
            touch(
                f"data/{plate}/{well}/1.ome.tif", f"data/{plate}/{well}/._1.ome.tif", f"data/{plate}/{well}/2.OME.TIF"
            )
    touch("data/.trash/A1/1.ome.tif", "data/notes.txt", "data/P1/A1/1.xml")
    rows = scan("{root}/{plate}/{well}/{site}.ome.tif", root="data", channels={**CHANNELS, "green": "GFP"})
    assert len(rows) == 8
    assert rows["P2_A1_2"].paths["green"] == Plane("data/P2/A1/2.OME.TIF", "GFP")
    assert columns("plate", "well", "site")[-1] == ("P2_A2_2", "P2", "A2", 2)


def test_exports_with_names_of_channels():
    for site in ("01", "02"):
        for name in ("DAPI", "GFP", "GFP2", "TxRed"):
            touch(f"Exp/Plate 1/Pos{site}_ch_{name}.tif")
    names = {"red": "TxRed", "green": "GFP", "blue": "DAPI", "yellow": "GFP2"}
    rows = scan("Exp/{plate}/Pos{site}_ch_{channel}.tif", channels=names)
    assert list(rows) == ["Plate 1_01", "Plate 1_02"]
    assert rows["Plate 1_02"].paths == {colour: f"Exp/Plate 1/Pos02_ch_{names[colour]}.tif" for colour in COLOURS}


def test_a_number_stands_for_all_its_digits():
    touch(*(f"x_w{channel}.tif" for channel in range(1, 13)), *(f"y_w{channel:02d}.tif" for channel in range(1, 13)))
    rows = scan("{id}_w{channel}*.tif", channels={**CHANNELS, "red": 11})
    assert rows["x"].paths == {"red": "x_w11.tif", "green": "x_w2.tif", "blue": "x_w1.tif", "yellow": "x_w4.tif"}
    assert rows["y"].paths == {"red": "y_w11.tif", "green": "y_w02.tif", "blue": "y_w01.tif", "yellow": "y_w04.tif"}


def test_a_pattern_of_one_colour_needs_the_channel_of_this_colour():
    images = {"red": "{id}_w{channel}.tif", "green": "{id}_w2.tif", "blue": "{id}_w3.tif", "yellow": None}
    assert refusal(images, channels={"green": 0}) == (
        "config key collections.new.images.red: '{id}_w{channel}.tif' has {channel}, but the collection has no key "
        "channels.red, which says what to put there"
    )


def test_colours_with_patterns_of_their_own():
    for site in (1, 2):
        touch(*(f"{name}/s{site}.tif" for name in ("actin", "protein", "er")), f"old/s{site}.png")
    touch("dna/s1.tif")
    images = {"red": "actin/s{site}.tif", "green": "protein/s{site}.tif", "yellow": "er/s{site}.tif"}
    rows = scan(images | {"blue": ["dna/s{site}.tif", "old/s{site}.png"]})
    assert list(rows) == ["1", "2"]
    assert rows["1"].paths["blue"] == "dna/s1.tif"
    assert rows["2"].paths == {
        **{"red": "actin/s2.tif", "green": "protein/s2.tif"},
        **{"blue": "old/s2.png", "yellow": "er/s2.tif"},
    }
    said = refusal(images | {"blue": "dna/{slide}.tif"})
    assert said.startswith(
        "config key collections.new.images.red: 'actin/s{site}.tif' has the part {site}, but 'dna/{s"
    )
    # Each colour may be a channel of its own file.
    rows = scan(images | {"blue": "old/s{site}.png"}, channels=dict.fromkeys(COLOURS, 0))
    assert rows["2"].paths["yellow"] == Plane("er/s2.tif", 0)


def test_columns_are_those_of_a_sheet():
    for antibody in ("HPA1", "NA"):
        for site in ("1", "2"):
            touch(*(f"{antibody}_U-2 OS_0.1_{site}_{colour}.png" for colour in COLOURS))
    pattern = "{antibody}_{cell_line}_{pixel_size}_{site}_{colour}.png"
    scan(pattern)
    sheet = "ID,antibody,cell_line,pixel_size,site\n" + "".join(
        f"{antibody}_U-2 OS_0.1_{site},{antibody},U-2 OS,0.1,{site}\n" for antibody in ("HPA1", "NA") for site in (1, 2)
    )
    tables = {path.name: path.read_bytes() for path in Path("results/sheet/new").iterdir()}
    Path("new.csv").write_text(sheet)
    scan("{id}_{colour}.png", sheet="new.csv")
    assert tables == {path.name: path.read_bytes() for path in Path("results/sheet/new").iterdir()}
    said = read_annotations(Path("results/sheet/new").glob("*.annotations.csv"))
    assert said["HPA1_U-2 OS_0.1_1"]["antibody"] == "HPA1"
    assert said["NA_U-2 OS_0.1_1"]["antibody"] == ""


def test_a_new_file_changes_one_shard():
    touch(*(f"in/f{n:02d}.ome.tif" for n in range(12)))
    scan("in/{id}.ome.tif", channels=CHANNELS)
    before = {path.name: path.read_bytes() for path in Path("results/sheet/new").iterdir()}
    assert "columns.csv" not in before
    touch("in/g.ome.tif")
    assert "g" in scan("in/{id}.ome.tif", channels=CHANNELS)
    after = {path.name: path.read_bytes() for path in Path("results/sheet/new").iterdir()}
    shard = shard_of("g", 4)
    assert {name for name in after if before.get(name) != after[name]} == {f"{shard}.csv", f"{shard}.annotations.csv"}


def test_a_field_without_the_file_of_a_colour_is_rejected_as_with_a_sheet(caplog):
    for n in range(40):
        touch(*(f"f{n:02d}_{colour}.png" for colour in COLOURS))
    Path("f07_blue.png").unlink()
    Path("f08_red.png").unlink()
    Path("f08_red.png").symlink_to("gone")
    rows = scan("{id}_{colour}.png")
    assert "2 of 160 files are missing: these: f0" in caplog.text
    assert rows["f07"].states["blue"] == rows["f08"].states["red"] == "missing"
    assert rows["f07"].paths["blue"] == "f07_blue.png"
    for n in range(5):
        Path(f"f1{n}_green.png").unlink()
    assert "7 of 160 files are missing" in refusal("{id}_{colour}.png")
    for path in Path().glob("*_green.png"):
        path.unlink()
    assert refusal("{id}_{colour}.png").endswith("; 40 of 40 fields lack one: is the pattern right?")


def test_forms_of_letters_and_blanks():
    name = unicodedata.normalize("NFD", "é")
    touch(*(f"{name}1/{name} _{colour}.png" for colour in COLOURS))
    rows = scan("{plate}/é _{colour}.png")
    assert list(rows) == [unicodedata.normalize("NFC", "é1")]
    assert rows["é1"].paths["red"] == f"{name}1/{name} _red.png"
    rows = scan("é1/{id}_{colour}.png")
    assert list(rows) == ["é"]
    assert Path(rows["é"].paths["red"]).is_file()


def test_files_that_no_one_means():
    touch(*(f"a_{colour}.png" for colour in COLOURS), "a_violet.png", "a_red.png.part", "._b_red.png", ".c_red.png")
    Path("d_red.png").mkdir()
    assert list(scan("{id}_{colour}.png")) == ["a"]


def test_a_folder_of_ome_zarr_is_a_file():
    for name in ("a", "b"):
        touch(f"{name}.ome.zarr/.zattrs")
    Path("c.ome.zarr").mkdir()
    assert list(scan("{id}.ome.zarr", channels=CHANNELS)) == ["a", "b"]
    assert list(scan("{id}.ome.zarr/", channels=CHANNELS)) == ["a", "b"]


def test_a_part_twice_is_the_same_text():
    touch("P1/P1_A1.tif", "P1/P2_A1.tif", "P2/P2_A1.tif")
    assert list(scan("{plate}/{plate}_{well}.tif", channels=CHANNELS)) == ["P1_A1", "P2_A1"]


def test_masks_have_the_same_parts():
    touch("P1/A1.tif", "P1/A2.tif", "masks/P1-A1_cells.PNG", "masks/P1-A2_cells.png")
    config = {"segmentation": {"backend": "masks"}}
    masks = {"cells": "masks/{plate}-{well}_c*.png"}
    rows = scan("{plate}/{well}.tif", config, channels=CHANNELS, masks=masks)
    assert rows["P1_A1"].cell_mask == "masks/P1-A1_cells.PNG"
    assert rows["P1_A2"].cell_mask == "masks/P1-A2_cells.png"
    said = refusal("{plate}/{well}.tif", config, channels=CHANNELS, masks={"cells": "{day}/{well}.png"})
    assert "'{day}/{well}.png' has {day}, but '{plate}/{well}.tif' of images has not" in said


def test_true_masks_have_the_same_parts():
    touch("P1/A1.tif", "P1/A2.tif")
    Path("truth").mkdir()
    cells = np.zeros((20, 20), np.uint16)
    cells[2:9, 2:9], cells[11:18, 2:9] = 1, 2
    write_mask("truth/P1-A2_cells.png", cells)
    Path("new.csv").write_text("ID,Label,plate,well\nx,0,P1,A1\ny,0,P1,A2\n")
    Path("cells.csv").write_text("ID,cell,Label\ny,1,0\ny,2,14\n")
    truth = {"cells": "cells.csv", "masks": "truth/{plate}-{well}*.PNG"}
    rows = scan("{plate}/{well}.tif", channels=CHANNELS, sheet="new.csv", labels=True, truth=truth)
    assert list(rows) == ["x", "y"]
    files = CollectionFiles("new", ["000"], ["cells.csv"], truth["masks"], "results/sheet/new/truth.csv")
    matches = match_truth(files, read_truth(files, ["y"]), {"y": "000"}, lambda name: cells)
    assert matches.pairs["iou"].tolist() == [1.0, 1.0]
    Path("truth/P1-A2_cells.png").write_bytes(b"")
    with pytest.raises(ChangedError, match=r"^truth/P1-A2_cells\.png: changed after the run was planned"):
        match_truth(files, read_truth(files, ["y"]), {"y": "000"}, lambda name: cells)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("dat/{plate}/{well}.tif", "in the working folder nothing matches dat; it has data"),
        (
            "data/{plate}/x/{well}.tif",
            "in data/P1 nothing matches x; it has A1.tif, A2.tif, A3.tif, A4.tif, A5.tif and 2 more",
        ),
        ("data/{plate}/{well}.png", "in data/P1 nothing matches {well}.png; it has A1.tif, A2.tif"),
        ("data/{plate}/{well}_{site}.tif", "in data/P1 nothing matches {well}_{site}.tif; it has"),
        ("data/*/{well}/1.tif", "in data/P1 nothing matches {well}; it has"),
        ("/nowhere at all/{well}.tif", "in / nothing matches nowhere at all; it has"),
    ],
)
def test_where_nothing_is_found_the_nearest_folder_is_named(pattern, sentence):
    touch(*(f"data/P1/A{n}.tif" for n in range(1, 8)))
    said = refusal(pattern, channels=CHANNELS)
    assert said.startswith(f"collection new: no file is found by {pattern!r}: {sentence}")


def test_a_list_of_patterns_is_tried_in_turn():
    touch(*(f"a/{id}_{colour}.tif" for id in ("x", "y") for colour in COLOURS[:2]))
    touch(*(f"b/{id}_{colour}.png" for id in ("x", "y", "z") for colour in COLOURS))
    rows = scan(["a/{id}_{colour}.tif", "b/{id}_{colour}.png"])
    assert list(rows) == ["x", "y", "z"]
    own = {colour: f"b/x_{colour}.png" for colour in COLOURS}
    assert rows["x"].paths == own | {"red": "a/x_red.tif", "green": "a/x_green.tif"}
    assert rows["z"].paths["red"] == "b/z_red.png"


def test_two_fields_of_one_id_are_refused():
    touch("P_1/A.tif", "P/1_A.tif")
    said = refusal("{plate}/{well}.tif", channels=CHANNELS)
    assert "P/1_A.tif and P_1/A.tif are of different fields, but both have the ID P_1_A" in said


def test_a_name_that_is_no_id_is_named():
    touch("a\\b.tif")
    assert refusal("{id}.tif", channels=CHANNELS) == (
        "collection new, file a\\b.tif (ID a\\b): the ID 'a\\\\b' cannot be a file name (slash, leading dot or control "
        "character)"
    )
    Path("a\\b.tif").rename(os.fsdecode(b"\xff.tif"))
    assert refusal("{id}.tif", channels=CHANNELS).startswith("b'\\xff.tif': the name of this file is not UTF-8 text")


def test_one_time_and_one_plane_of_files_of_their_own():
    for time in (1, 2, 10):
        for z in (1, 2):
            touch(*(f"TimePoint_{time}/ZStep_{z}/A01_w{channel}.tif" for channel in CHANNELS.values()))
    pattern = "TimePoint_{time}/ZStep_{z}/{well}_w{channel}.tif"
    rows = scan(pattern, channels=CHANNELS, time=1, project=2)
    assert list(rows) == ["A01"]
    assert rows["A01"].paths["blue"] == "TimePoint_1/ZStep_2/A01_w1.tif"
    Path("new.csv").write_text("ID,well\nx,A01\n")
    rows = scan(pattern, channels=CHANNELS, time=10, project=1, sheet="new.csv")
    assert rows["x"].paths["blue"] == "TimePoint_10/ZStep_1/A01_w1.tif"


# A plate of two wells that has no part of its own, as a sheet lists it.
_WELLS = "ID,plate,well\nP_A01,P,A01\nP_B02,P,B02\n"
_ALONG_Z = [
    ("{plate}/TimePoint_1/ZStep_{z}/{plate}_{well}_w{channel}.TIF", "P/TimePoint_1/ZStep_{z}/P_{well}_w{channel}.tif"),
    # A GUID directly behind the number, and a number with zeros.
    ("{plate}/{well}_w{channel}_z{z}*.tif", f"P/{{well}}_w{{channel}}_z{{z}}{GUID[0].format(2)}.tif"),
    ("{plate}/z{z}_{well}/z{z}_w{channel}.tif", "P/z{z:03d}_{well}/z{z:03d}_w{channel}.tif"),
    ("*{z}-{plate}-{well}c{channel}*", "x{z}-P-{well}c{channel}.tif"),
]


def write_along_z(name, planes=(("A01", (1, 2, 10)), ("B02", (2,)))):
    """Write the planes of wells, and return the paths of those of blue by well, along z."""
    paths = {}
    for well, numbers in planes:
        for z in numbers:
            touch(*(name.format(well=well, z=z, channel=channel) for channel in CHANNELS.values()))
        paths[well] = [name.format(well=well, z=z, channel=1) for z in numbers]
    return paths


@pytest.mark.parametrize("sheet", [False, True])
@pytest.mark.parametrize("verify", ["time", "content"])
@pytest.mark.parametrize(("pattern", "name"), _ALONG_Z)
def test_planes_in_files_of_their_own_are_joined(pattern, name, verify, sheet):
    paths = write_along_z(name)
    Path("new.csv").write_text(_WELLS)
    if pattern.startswith("*") and not sheet:
        pattern = pattern.replace("*", "x", 1)

    options = {"sheet": "new.csv"} if sheet else {}

    def planned():
        return scan(pattern, {"verify": verify}, channels=CHANNELS, project="max", **options)

    rows = planned()
    assert list(rows) == ["P_A01", "P_B02"]
    before = rows["P_A01"]
    first, *others = paths["A01"]
    assert before.paths["blue"] == Plane(first, project="max", others=others)
    assert rows["P_B02"].paths["blue"] == Plane(paths["B02"][0], project="max")
    check_unchanged(before.paths, before.states)
    Path(others[1]).write_text("another")
    with pytest.raises(ChangedError, match=re.escape(f"{first}: one of its 3 planes along z changed after the run")):
        check_unchanged(before.paths, before.states)
    changed = planned()["P_A01"]
    assert changed.states["blue"] != before.states["blue"]
    assert changed.states["red"] == before.states["red"]
    for channel in CHANNELS.values():
        Path(name.format(well="A01", z=10, channel=channel)).unlink()
    with pytest.raises(ChangedError, match=re.escape(f"{others[1]}: was removed after the run was planned")):
        check_unchanged({"blue": before.paths["blue"]}, before.states)
    fewer = planned()["P_A01"]
    assert fewer.paths["blue"] == Plane(first, project="max", others=others[:1])
    assert fewer.states["blue"] not in (before.states["blue"], changed.states["blue"])
    check_unchanged(fewer.paths, fewer.states)


@pytest.mark.parametrize("sheet", [False, True])
def test_a_plane_that_one_colour_lacks_rejects_the_field(sheet, caplog):
    pattern, name = _ALONG_Z[0]
    write_along_z(name, (("A01", (1, 2, 3)), ("B02", (1, 2))))
    lacking = name.format(well="A01", z=2, channel=CHANNELS["red"])
    Path(lacking).unlink()
    Path("new.csv").write_text(_WELLS)
    options = {"sheet": "new.csv"} if sheet else {}
    rows = scan(pattern, {"max_rejected_fraction": 0.5}, channels=CHANNELS, project="mean", **options)
    asked = lacking[:-3] + "TIF"
    assert f"1 of 8 files is missing: {asked}; 1 of 2 fields will be rejected" in caplog.text
    with pytest.raises(ImageError, match=re.escape(f"{asked}: no such file")):
        read_field(rows["P_A01"].paths, ["red"])
    Path(lacking).write_text("back")
    assert len(scan(pattern, channels=CHANNELS, project="mean", **options)["P_A01"].paths["red"].others) == 2


def test_a_field_of_a_sheet_without_planes_is_missing(caplog):
    pattern, name = _ALONG_Z[0]
    write_along_z(name, [("A01", (1, 2))])
    Path("new.csv").write_text(_WELLS)
    scan(pattern, channels=CHANNELS, project="max", sheet="new.csv")
    asked = pattern.format(plate="P", well="B02", z="*", channel=3)
    assert f"4 of 8 files are missing: these: {asked}, " in caplog.text


def test_joined_planes_are_one_each():
    touch("A01_z01_red.tif", *(f"A01_z1_{colour}.tif" for colour in COLOURS))
    assert "finds two files for red of one field, A01_z01_red.tif and A01_z1_red.tif" in refusal(
        "{well}_z{z}_{colour}.tif", project="max"
    )
    Path("new.csv").write_text("ID,well\nx,A01\n")
    assert "finds two files for one field, A01_z01_red.tif and A01_z1_red.tif" in refusal(
        "{well}_z{z}_{colour}.tif", project="max", sheet="new.csv"
    )


def test_planes_of_some_colours_alone_are_refused():
    by_colour = {colour: f"{{well}}_z{{z}}_{colour}.tif" for colour in COLOURS} | {"red": "{well}_red.tif"}
    touch("A01_red.tif", *(f"A01_z1_{colour}.tif" for colour in COLOURS))
    key = "config key collections.new.images"
    assert refusal(by_colour, project="max") == f"{key}.red: '{{well}}_red.tif' lacks {{z}}, which another colour has"
    assert refusal("{well}_z{z}_{colour}.tif") == (
        f"{key}: '{{well}}_z{{z}}_{{colour}}.tif' has {{z}}; say by the key project which number there is read, or how "
        "the planes are joined, or write * or a number"
    )


def test_parts_are_columns_of_a_sheet():
    paths = write_metaxpress(GUID[0], ".tif", "Plate_1/")
    Path("new.csv").write_text("ID,Plate,well,site\nx,Plate_1,A01,2\ny,Plate_1,B12,1\n")
    pattern = "{plate}/{plate}_{well}_s{site}_w{channel}[0-9A-F]*.TIF"
    rows = scan(pattern, channels=CHANNELS, sheet="new.csv")
    assert rows["x"].paths == {colour: paths["A01", 2, CHANNELS[colour]] for colour in COLOURS}
    assert list(rows) == ["x", "y"]
    said = refusal(pattern.replace("[0-9A-F]", ""), channels=CHANNELS, sheet="new.csv")
    assert "finds two files for one field, Plate_1/Plate_1_" in said
    Path("new.csv").write_text("ID,plate,well\nx,Plate_1,A01\n")
    assert "has {site}, but the sheet new.csv has no column site; add it" in refusal(
        pattern, channels=CHANNELS, sheet="new.csv"
    )
    Path("new.csv").write_text("ID,plate,well,site\nx,Plate_1,A01,2\ny,Plate_1,,1\n")
    assert "sheet new.csv (ID y): well is empty, but" in refusal(pattern, channels=CHANNELS, sheet="new.csv")
    Path("new.csv").write_text("ID,plate,well,site\nx,Plate_1,A01,2\ny,Plate_1,A01,2\n")
    said = refusal(pattern, channels=CHANNELS, sheet="new.csv")
    assert said.startswith("collection new: the fields x and y have the same file, Plate_1/Plate_1_A01_s2_w")


def test_wildcards_find_the_files_of_a_sheet():
    for id in ("a", "a_1", "[b]", "c*"):
        touch(*(f"batch {len(id)}/{id}_{colour}_x{len(colour)}.TIF" for colour in COLOURS))
    touch("batch 1/.a_red_x3.tif")
    Path("new.csv").write_text("ID\na\na_1\n[b]\nc*\n")
    rows = scan("batch*/{id}_{colour}_x?.tif", sheet="new.csv")
    assert {id: row.paths["red"] for id, row in rows.items()} == {
        **{"a": "batch 1/a_red_x3.TIF", "a_1": "batch 3/a_1_red_x3.TIF"},
        **{"[b]": "batch 3/[b]_red_x3.TIF", "c*": "batch 2/c*_red_x3.TIF"},
    }
    # What differs may also be at the start.
    touch(*(f"late/2024-{n}_{n}_{colour}.TIF" for n in range(12) for colour in COLOURS), "late/.x_1_red.tif")
    Path("new.csv").write_text("ID\n1\n11\n")
    rows = scan("late/*_{id}_{colour}.tif", sheet="new.csv")
    assert {id: row.paths["red"] for id, row in rows.items()} == {
        **{"1": "late/2024-1_1_red.TIF", "11": "late/2024-11_11_red.TIF"}
    }
    # A folder whose name looks like a set of letters is found too.
    Path("batch 1").rename("batch[1]")
    Path("new.csv").write_text("ID\na\n")
    assert scan("batch[1]/{id}_{colour}_x?.tif", sheet="new.csv")["a"].paths["red"] == "batch[1]/a_red_x3.TIF"


def test_the_case_of_an_ending_does_not_count():
    touch(*(f"a_{colour}.TIF" for colour in COLOURS), *(f"b_{colour}.tif" for colour in COLOURS), "a_red.tif")
    Path("new.csv").write_text("ID\na\nb\n")
    for sheet in ({"sheet": "new.csv"}, {}):
        rows = scan("{id}_{colour}.tif", **sheet)
        # One that is spelled as in the pattern is taken before others.
        assert rows["a"].paths["red"] == "a_red.tif"
        assert rows["a"].paths["blue"] == "a_blue.TIF"
        assert rows["b"].paths["blue"] == "b_blue.tif"
    touch("b_red.Tif")
    Path("b_red.tif").rename("b_red.TIF")
    assert "b_red.TIF" in refusal("{id}_{colour}.tif", sheet="new.csv")
    assert "b_red.TIF and b_red.Tif" in refusal("{id}_{colour}.tif")
