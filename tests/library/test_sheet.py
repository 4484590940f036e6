"""Sheets, shards and manifests: what is read, what is refused by row, and what a change touches."""

import csv
import math
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from hpaloc import manifests
from hpaloc.classes import NAMES
from hpaloc.columns import read_columns
from hpaloc.config import ConfigError, complete
from hpaloc.delimited import SheetError
from hpaloc.finding import shard_of, shards_of
from hpaloc.manifests import (
    ChangedError,
    check_unchanged,
    read_manifest,
    read_manifests,
    unchanged,
)
from hpaloc.planning.fields import check_pooling, check_rows
from hpaloc.scan import download_urls, scan_collection, write_scan
from hpaloc.sheet import read_other_columns, read_sheet
from hpaloc.truth import read_true_cells

COLOURS = ("red", "green", "blue", "yellow")


def scan(name, config):
    """Scan a collection and write its manifests, as planning does; return its shards."""
    return write_scan(scan_collection(name, config), f"results/sheet/{name}")


def write(path, text, **options):
    path.write_text(text, **options)
    return path


def test_labels_and_optional_columns(tmp_path):
    sheet = write(tmp_path / "s.csv", "ID,Label,antibody,pixel_size,batch\n007,8|5|0,HPA1,0.1,x\nb c,13|13,,,y\n")
    first, second = read_sheet(sheet, labels=True, pixel_size=0.08)
    assert (first.id, first.labels, first.antibody, first.pixel_size) == ("007", (0, 5, 8), "HPA1", 0.1)
    assert (second.id, second.labels, second.antibody, second.pixel_size) == ("b c", (13,), None, 0.08)


def test_names_and_the_numbers_of_2018_become_numbers_in_all_tables(project):
    as_numbers = scan_collection("train", project)
    sheet = Path(project["collections"]["train"]["sheet"])
    with sheet.open(newline="") as file:
        header, *rows = csv.reader(file)
    at = header.index("Label")
    for row in rows:
        row[at] = "|".join(NAMES[int(label)].lower() for label in row[at].split("|"))
    with sheet.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    assert scan_collection("train", project) == as_numbers
    project["collections"]["train"]["labels"] = "hpa2018"
    assert scan_collection("train", project) == as_numbers
    for row in rows:
        row[at] = "27|11"
    rows[0][at] = "27"
    with sheet.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    first, *others = scan_collection("train", project).rows
    assert first.labels == ()
    assert {row.labels for row in others} == {(8,)}
    annotations = "".join(text for name, text in scan_collection("train", project).tables.items() if "annot" in name)
    assert f"{first.id},," in annotations


def test_true_cells_have_the_numbers_of_their_collection(tmp_path):
    path = write(tmp_path / "cells.csv", "ID,cell,Label\na,1,11|Cytosol\na,2,27\nb,1,27\n")
    assert read_true_cells(path, of_2018=True) == {"a": {1: "8|16"}}


def test_a_field_without_a_class_is_not_simulated(project):
    sheet = Path(project["collections"]["train"]["sheet"])
    project["collections"]["train"] |= {"simulate": {}}
    sheet.write_text("ID,Label\na,1\nb,Rods & rings\n")
    with pytest.raises(SheetError, match=r"\(ID b\): its label cannot be simulated"):
        scan_collection("train", project)


def test_other_columns_are_copied(tmp_path, caplog):
    header = 'Patient,ID,Label,status,dose (mg/ml),gene,Antibody,gene,,Status,"a\nb"'
    path = write(tmp_path / "s.csv", f'{header}\n007,b,1,x,1,,H1,,9,y,\n 8 ,a,1,,,,,,,,"\0é"\n')
    assert read_sheet(path, labels=True)[0].antibody == "H1"
    caplog.clear()
    assert read_other_columns(path, labels=True) == [
        ["id", "Patient", "sheet_status", "dose (mg_ml)", "sheet_Status", "a_b"],
        ["a", "8", "", "", "", "\ufffdé"],
        ["b", "007", "x", "1", "y", ""],
    ]
    assert warned(caplog) == [
        "several columns are named gene and are not copied",
        "the column status is copied as sheet_status",
        "the column dose (mg/ml) is copied as dose (mg_ml)",
        "the column Status is copied as sheet_Status",
        "the column 'a\\nb' is copied as a_b",
    ]
    assert read_other_columns(write(tmp_path / "s.csv", "ID;Label;;\na;1;x;\n"), labels=True) == []
    # Without labels, the column Label is the user's.
    path.write_text("ID;Label\na;round\n")
    assert read_other_columns(path, labels=False) == [["id", "Label"], ["a", "round"]]


def test_the_table_of_columns_comes_and_goes_with_them(project):
    scan("train", project)
    before = states()
    assert "columns.csv" not in before
    sheet = Path("train.csv")
    text = sheet.read_text()
    lines = text.splitlines()
    sheet.write_text("\n".join([f"{lines[0]},well", *(f"{line},A{place}" for place, line in enumerate(lines[1:]))]))
    scan("train", project)
    assert changed(before) == {"columns.csv"}
    assert Path("results/sheet/train/columns.csv").read_text().splitlines()[:2] == ["id,well", "f00,A0"]
    sheet.write_text(text)
    scan("train", project)
    assert not changed(before)


def test_groups_are_written_for_the_training(project):
    project["curation"]["group_by"] = ["antibody", "patient", "well"]
    lines = Path("train.csv").read_text().splitlines()
    sheet = [f"{lines[0]},patient,note,well", *(f"{line},00{place // 3},x,NA" for place, line in enumerate(lines[1:]))]
    Path("train.csv").write_text("\n".join(sheet))
    found = scan_collection("train", project)
    assert found.other_columns == ["patient", "note", "well"]
    assert found.groups["patient"] == {f"f{place:02d}": f"00{place // 3}" for place in range(12)}
    assert found.groups["well"] == {}
    assert found.tables["groups.csv"].splitlines()[:2] == ["id,patient,well", "f00,000,"]
    assert found.tables["columns.csv"].splitlines()[1] == "f00,000,x,NA"
    project["curation"]["group_by"] = ["antibody"]
    assert "groups.csv" not in scan_collection("train", project).tables
    # Curation reads the text that planning compares.
    project["curation"]["group_by"] = ["antibody", "patient"]
    sheet = [
        f"{lines[0]},patient",
        *(f"{line},{place // 3}.{'0' * (place % 2)}0" for place, line in enumerate(lines[1:])),
    ]
    Path("train.csv").write_text("\n".join(sheet))
    planned = scan_collection("train", project)
    write(Path("groups.csv"), planned.tables["groups.csv"])
    read = read_columns("groups.csv", as_text=True).to_pydict()
    assert dict(zip(read["id"], read["patient"], strict=True)) == planned.groups["patient"]


def warned(caplog):
    return [record.getMessage().split(": ", 1)[1] for record in caplog.records]


@pytest.mark.parametrize(
    ("values", "one", "two"),
    [
        (("P1", "p1", "P2"), "p1", "P1"),
        (("P1", "P2", "P01"), "P01", "P1"),
        (("P 1", "P-1", "x"), "P-1", "P 1"),
        (("007", "7", "8"), "7", "007"),
        (("7", "7.0", "8"), "7.0", "7"),
        (("TRUE", "True", "no"), "True", "TRUE"),
        (("1.5", "1.05", "10"), None, None),
        (("0.10", "0.1", "0.01"), None, None),
    ],
)
def test_spellings_of_one_group_are_warned_of(project, caplog, values, one, two):
    lines = Path("train.csv").read_text().splitlines()
    sheet = [f"{lines[0]},patient,well", *(f"{line},{values[i % 3]},a{i % 3}" for i, line in enumerate(lines[1:]))]
    Path("train.csv").write_text("\n".join(sheet).replace(",a1", ",A0"))
    scan_collection("train", project)
    assert not [text for text in warned(caplog) if "patient" in text]
    project["curation"]["group_by"] = ["antibody", "patient"]
    scan_collection("train", project)
    shown = [text for text in warned(caplog) if "patient" in text or "well" in text]
    assert [text.split(" only in ")[0] for text in shown] == ([f"the patient {one} differs from {two}"] if one else [])


def test_fields_without_a_value_of_a_criterion_are_counted(project, caplog):
    lines = Path("train.csv").read_text().splitlines()
    patients = ["P1", "NA", "", *(f"P{i}" for i in range(3, len(lines) - 1))]
    sheet = [f"{lines[0]},patient", *(f"{line},{patient}" for line, patient in zip(lines[1:], patients, strict=True))]
    Path("train.csv").write_text("\n".join(sheet))
    for group_by, said in (
        (["antibody", "duplicates"], []),
        (["duplicates", "patient"], ["2 of 12 training fields have no patient"]),
    ):
        project["curation"]["group_by"] = group_by
        caplog.clear()
        check_rows("train", scan_collection("train", project), project)
        assert [text.split(";")[0] for text in warned(caplog)] == said


@pytest.mark.parametrize("column", ["antibody", "cell_line"])
def test_calls_are_not_pooled_by_a_column_without_values(project, column):
    project["predict"] |= {"collections": ["train"], "pool_by": [column]}
    path = Path("train.csv")
    lines = [line.split(",") for line in path.read_text().splitlines()]
    kept = [at for at, name in enumerate(lines[0]) if name not in ("antibody", "cell_line")]
    bare = [[line[at] for at in kept] for line in lines]
    for values, refused in (([], True), ([column, *[""] * 11, "NA"], True), ([column, *[""] * 11, "x"], False)):
        rows = [[*line, value] for line, value in zip(bare, values, strict=True)] if values else bare
        path.write_text("\n".join(map(",".join, rows)))
        scans = {"train": scan_collection("train", project)}
        if refused:
            with pytest.raises(ConfigError, match=rf"sheet of collection train has no values of {column}; add them"):
                check_pooling(project, scans)
        else:
            check_pooling(project, scans)


def test_fields_that_lose_all_labels_but_one_are_counted(tmp_path, caplog):
    text = "ID,Label\na,Rods & rings|Cytosol\nb,Midbody\nc,0|5|Midbody\nd,1\n"
    read_sheet(write(tmp_path / "s.csv", text), labels=True)
    assert warned(caplog)[0].endswith("fields without another label: 1; fields that now have one label: 1")
    caplog.clear()
    read_true_cells(
        write(tmp_path / "c.csv", "ID,cell,Label\na,1,Midbody|3\na,2,27|Midbody\na,3,0|5|27\n"), of_2018=True
    )
    assert warned(caplog)[0].endswith("which are left out too: 1; cells that now have one label: 1")


def test_a_sample_submission_is_a_sheet(tmp_path):
    text = "ID,ImageWidth,ImageHeight,PredictionString\nabc,2048,2048,0 1 eNoLCAgIMAEABJkBdQ==\n"
    (row,) = read_sheet(write(tmp_path / "s.csv", text), labels=False)
    assert (row.id, row.labels) == ("abc", None)


@pytest.mark.parametrize(
    "text",
    [
        "﻿ID,Label\na,1\nb,2\n",
        "ID,Label\r\na,1\r\nb,2\r\n",
        "ID;Label\na;1\nb;2\n",
        "ID,Label\n\na,1\n,\nb,2\n\n",
        ",ID,Label\n0,a,1\n1,b,2\n",
        "ID,Label,,\na,1,,\nb,2,x,\n",
    ],
    ids=["byte-order mark", "CRLF", "semicolons", "blank lines", "the index of pandas", "commas at the end"],
)
def test_spreadsheet_habits_are_accepted(tmp_path, text):
    path = tmp_path / "s.csv"
    path.write_bytes(text.encode())
    assert [(row.id, row.labels) for row in read_sheet(path, labels=True)] == [("a", (1,)), ("b", (2,))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,Label\na,1\n", "s.csv: has no column ID (its header has name, Label)"),
        ("ID\na\n", "s.csv: has no column Label (its header has ID)"),
        ("ID,Label\na,1\nb,19\n", "s.csv, line 3 (ID b): unknown label '19'"),
        ("ID,Label\na,1.0\n", "s.csv, line 2 (ID a): unknown label '1.0'"),
        ("ID,Label\na,\n", "s.csv, line 2 (ID a): the label is empty"),
        ("ID,Label\na,1\nb,2\na,1\n", "s.csv, line 4 (ID a): ID a is a duplicate of line 2"),
        ("ID,Label\n,1\n", "s.csv, line 2: the ID is empty"),
        ("ID,Label\n../a,1\n", "s.csv, line 2 (ID ../a): the ID '../a' cannot be a file name"),
        ("ID,Label\na/b,1\n", "cannot be a file name"),
        ("ID,Label\na\n", "s.csv, line 2: does not have the 2 columns"),
        ("ID,Label\na,1,2\n", "s.csv, line 2: does not have the 2 columns"),
        (",ID,Label\n0,a,1,2\n", "s.csv, line 2: does not have the 3 columns"),
        ("ID,Label,pixel_size\na,1,zero\n", "s.csv, line 2 (ID a): pixel_size 'zero' is not a number of µm"),
        ("ID,Label,pixel_size\na,1,-1\n", "pixel_size '-1' is not a number of µm"),
        ('""7\tLabel\n', "s.csv, line 1: 'tab' expected after"),
        ('ID\tLabel\n"a"b\t1\n', "s.csv, line 2: 'tab' expected after"),
        ("ID,Label\n", "s.csv: lists no fields"),
        ("", "s.csv: has no column ID (its header has nothing)"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, message):
    with pytest.raises(SheetError) as error:
        read_sheet(write(tmp_path / "s.csv", text), labels=True)
    assert message in str(error.value)
    assert str(error.value).isprintable()


def test_a_missing_sheet_is_named(tmp_path):
    with pytest.raises(SheetError, match=r"absent\.csv: no such file"):
        read_sheet(tmp_path / "absent.csv", labels=True)


@pytest.mark.parametrize("name", ["M.CSV", "m.csv"])
def test_a_table_of_masks_is_checked_at_planning(project, name):
    project["segmentation"]["backend"] = "masks"
    project["collections"]["train"]["masks"] = {"cells": name, "nuclei": None}
    with pytest.raises(SheetError, match=rf"12 of 60 files are missing.* {name}.*: is the pattern right"):
        scan_collection("train", project)
    write(Path(name), "field,cell_id,height,width,rle\nf01,1,1,1,01\n")
    with pytest.raises(SheetError, match=rf"table of masks {name}: the column cell_id is nearly cell"):
        scan_collection("train", project)
    write(Path(name), "field,Cell,height,width,rle\nf01,1,1,1,01\n")
    assert len(scan_collection("train", project).rows) == 12


def test_shards_are_stable_and_even():
    # Written down once: another value here would move every field of every user to another shard.
    assert [shard_of(id, 144) for id in ("a", "5c27f04c-bb99-11e8-b2b9-ac1f6b6435d0", "ä b")] == ["047", "019", "022"]
    sizes = Counter(shard_of(f"field-{i}", 10) for i in range(20_000))
    assert max(sizes.values()) / min(sizes.values()) < 1.15


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working directory with twelve fields in four shards."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    ids = [f"f{i:02d}" for i in range(12)]
    for id in ids:
        for colour in COLOURS:
            Path(f"images/{id}_{colour}.png").write_bytes(f"{id}{colour}".encode())
    Path("train.csv").write_text("ID,Label\n" + "".join(f"{id},{i}\n" for i, id in enumerate(ids)))
    return complete(
        {"collections": {"train": {"sheet": "train.csv", "images": "images/{id}_{colour}.png", "labels": True}}}
    )


def states():
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("results/sheet/train").iterdir()}


def tables_of(id):
    shard = shard_of(id, 4)
    return {f"{shard}.csv", f"{shard}.annotations.csv"}


def changed(before):
    after = states()
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_every_field_is_in_one_manifest_with_its_files(project):
    shards = scan("train", project)
    assert shards == shards_of("results/sheet/train")
    tables = [f"results/sheet/train/{shard}.csv" for shard in shards]
    rows = read_manifests(tables, [path.replace(".csv", ".annotations.csv") for path in tables])
    assert [row.id for row in rows] == [f"f{i:02d}" for i in range(12)]
    row = next(row for row in rows if row.id == "f03")
    assert row.labels == (3,)
    assert row.paths == {colour: f"images/f03_{colour}.png" for colour in COLOURS}


def test_a_second_scan_writes_nothing(project):
    scan("train", project)
    before = states()
    scan("train", project)
    assert not changed(before)


def test_a_changed_added_or_removed_field_touches_one_manifest(project):
    scan("train", project)
    before = states()
    Path("images/f05_green.png").write_bytes(b"longer than before")
    scan("train", project)
    assert changed(before) == {f"{shard_of('f05', 4)}.csv"}

    before = states()
    for colour in COLOURS:
        Path(f"images/new_{colour}.png").write_bytes(b"1")
    with open("train.csv", "a") as sheet:
        sheet.write("new,3\n")
    scan("train", project)
    assert changed(before) == tables_of("new")

    before = states()
    text = Path("train.csv").read_text()
    Path("train.csv").write_text("".join(line for line in text.splitlines(True) if not line.startswith("f02")))
    scan("train", project)
    assert changed(before) == tables_of("f02")


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("column", ["Label", "antibody", "cell_line", "split", "pixel_size"])
def test_what_a_manifest_holds_is_what_images_and_masks_depend_on(project, column, simulated):
    if simulated:
        del project["collections"]["train"]["images"]
        project["collections"]["train"]["simulate"] = {}
    columns = ["Label", "antibody", "cell_line", "split", "pixel_size"]
    said = {f"f{i:02d}": dict(zip(columns, (str(i), "HPA1", "BJ", "train", "0.1"), strict=True)) for i in range(12)}

    def write_sheet():
        lines = [",".join([id, *of_field.values()]) for id, of_field in said.items()]
        Path("train.csv").write_text("\n".join([",".join(["ID", *columns]), *lines]))

    write_sheet()
    scan("train", project)
    before = states()
    said["f05"][column] = "0.2" if column == "pixel_size" else "validation" if column == "split" else "14"
    write_sheet()
    scan("train", project)
    manifest, annotations = sorted(tables_of("f05"), reverse=True)
    assert manifest == f"{shard_of('f05', 4)}.csv"
    # Images are drawn by label and cell line.
    drawn = simulated and column in ("Label", "cell_line")
    expected = {manifest} if drawn or column == "pixel_size" else set()
    assert changed(before) == expected | ({annotations} if column != "pixel_size" else set())


def test_the_manifest_leaves_the_pixel_size_to_the_files_of_rows_without_one(project):
    Path("train.csv").write_text("ID,Label,pixel_size\nf01,1,0.2\nf02,2,\n")
    project["collections"]["train"] |= {"pixel_size": "file", "shards": 1}
    scan("train", project)
    first, second = read_manifest("results/sheet/train/000.csv")
    assert first.pixel_size == 0.2
    assert math.isnan(second.pixel_size)


def test_a_shard_without_fields_loses_its_manifest_and_its_annotations(project):
    scan("train", project)
    Path("train.csv").write_text("ID,Label\nf03,3\n")
    assert scan("train", project) == [shard_of("f03", 4)]
    assert set(states()) == tables_of("f03")


@pytest.mark.parametrize("verify", ["time", "content"])
def test_a_file_that_changes_after_planning_is_named(project, verify):
    project["verify"] = verify
    Path("images/f03_red.png").unlink()
    project["max_rejected_fraction"] = 0.1
    shards = scan("train", project)
    rows = {row.id: row for row in read_manifests(f"results/sheet/train/{shard}.csv" for shard in shards)}
    for row in rows.values():
        check_unchanged(row.paths, row.states)
    before = os.stat("images/f05_green.png")
    Path("images/f05_green.png").write_bytes(b"F05green")
    os.utime("images/f05_green.png", ns=(0, before.st_mtime_ns + (verify == "time")))
    Path("images/f03_red.png").write_bytes(b"late")
    Path("images/f04_blue.png").unlink()
    for id, colour, what in (("f05", "green", "changed"), ("f03", "red", "changed"), ("f04", "blue", "was removed")):
        sentence = f"images/{id}_{colour}.png: {what} after the run was planned; start the run again"
        with pytest.raises(ChangedError, match=f"^{re.escape(sentence)}$"):
            check_unchanged(rows[id].paths, rows[id].states)
        # A file that cannot be read because it is being replaced has changed; what else goes wrong stays what it is.
        with pytest.raises(ChangedError), unchanged(rows[id].paths, rows[id].states):
            raise OSError("cut short")
    with pytest.raises(OSError, match="cut short"), unchanged(rows["f06"].paths, rows["f06"].states):
        raise OSError("cut short")


def test_files_that_the_run_makes_have_no_state(project):
    collection = project["collections"]["train"]
    del collection["images"]
    for made in ({"simulate": {}}, {"download": {"url": "https://example.org/{id}_{colour}.jpg", "per_second": 1}}):
        project["collections"]["train"] = collection | made
        shards = scan("train", project)
        assert not any(row.states for row in read_manifest(f"results/sheet/train/{shards[0]}.csv"))


def test_verify_content_ignores_times_and_sees_content(project):
    project["verify"] = "content"
    scan("train", project)
    before = states()
    os.utime("images/f05_green.png", (1, 1))
    scan("train", project)
    assert not changed(before)
    Path("images/f05_green.png").write_bytes(b"f05GREEN")
    os.utime("images/f05_green.png", (1, 1))
    scan("train", project)
    assert changed(before) == {f"{shard_of('f05', 4)}.csv"}


def test_the_first_pattern_that_exists_is_taken_file_by_file(project):
    project["collections"]["train"]["images"] = ["other/{id}_{colour}.tif", "images/{id}_{colour}.png"]
    Path("other").mkdir()
    Path("other/f00_red.tif").write_bytes(b"tiff")
    shards = scan("train", project)
    rows = {row.id: row for shard in shards for row in read_manifest(f"results/sheet/train/{shard}.csv")}
    assert rows["f00"].paths["red"] == "other/f00_red.tif"
    assert rows["f00"].paths["blue"] == "images/f00_blue.png"


def test_missing_files_are_counted_and_the_first_ten_named(project):
    for i in range(3):
        for colour in COLOURS:
            Path(f"images/f{i:02d}_{colour}.png").unlink()
    with pytest.raises(SheetError) as error:
        scan("train", project)
    text = str(error.value)
    assert text.startswith("collection train: 12 of 48 files are missing: the first ten: images/f00_red.png")
    assert text.count(".png") == 10
    assert text.endswith("; 3 of 12 fields lack one: the sheet may list only fields whose files exist")


@pytest.mark.parametrize("fields", [2, 12])
@pytest.mark.parametrize("colours", [["yellow"], COLOURS])
def test_where_all_fields_lack_a_colour_the_pattern_is_asked_for(project, fields, colours):
    lines = Path("train.csv").read_text().splitlines(True)
    Path("train.csv").write_text("".join(lines[: fields + 1]))
    for colour in colours:
        for path in Path("images").glob(f"*_{colour}.png"):
            path.unlink()
    with pytest.raises(
        SheetError, match=rf"; {fields} of {fields} fields lack one: is the pattern right(\?|, or .*\?)$"
    ):
        scan("train", project)


def test_where_all_fields_lack_another_file_the_pattern_is_not_to_blame(project):
    for i in range(12):
        Path(f"images/f{i:02d}_{COLOURS[i % 4]}.png").unlink()
    with pytest.raises(
        SheetError, match=r"; 12 of 12 fields lack one: the sheet may list only fields whose files exist$"
    ):
        scan("train", project)


def test_one_missing_file_is_one_sentence(project):
    Path("images/f04_blue.png").unlink()
    project["max_rejected_fraction"] = 0
    with pytest.raises(SheetError, match=r"^collection train: 1 of 48 files is missing: images/f04_blue\.png$"):
        scan("train", project)


def test_a_tolerated_field_without_a_file_stays_in_its_manifest_until_the_file_comes(project, caplog):
    scan("train", project)
    manifest = f"results/sheet/train/{shard_of('f04', 4)}.csv"
    whole = Path(manifest).read_text()
    Path("images/f04_blue.png").rename("aside")
    scan("train", project)
    assert "images/f04_blue.png; 1 of 12 fields will be rejected" in caplog.text
    assert Path(manifest).read_text() != whole
    (row,) = (row for row in read_manifest(manifest) if row.id == "f04")
    assert row.paths["blue"] == "images/f04_blue.png"
    Path("aside").rename("images/f04_blue.png")
    scan("train", project)
    assert Path(manifest).read_text() == whole


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("images/{id}.png", "lacks the placeholder {colour}"),
        ("images/{name}_{colour}.png", "has {name}, but the sheet train.csv has no column name"),
        ("images/{id_{colour}.png", "is not a pattern"),
        ("images/{id.__class__}_{colour}", "has {id.__class__}, which is not a name"),
        ("images/{ID}_{colour}.png", "has {ID}; write {id}"),
        ("images/{id}_{color}.png", "has {color}; write {colour}"),
    ],
)
def test_bad_patterns_are_named(project, pattern, message):
    project["collections"]["train"]["images"] = [pattern]
    with pytest.raises(SheetError) as error:
        scan("train", project)
    assert message in str(error.value)
    assert "collections.train.images" in str(error.value)


def test_simulated_fields_are_determined_by_the_seed(project):
    collection = project["collections"]["train"]
    del collection["images"]
    collection["simulate"] = {"shape": [256, 256]}
    shards = scan("train", project)
    before = states()
    row = read_manifest(f"results/sheet/train/{shards[0]}.csv")[0]
    assert row.seed == 1
    assert row.paths["red"] == f"resources/simulated/train/{shards[0]}/{row.id}_red.png"
    project["seed"] = 2
    scan("train", project)
    assert changed(before) == {f"{shard}.csv" for shard in shards}


def test_truth_is_checked_and_its_masks_are_followed(project):
    Path("cells.csv").write_text("ID,cell,Label\nf00,1,3\nf00,2,18\n")
    project["collections"]["train"]["truth"] = {"cells": "cells.csv", "masks": "images/{id}_mask.png"}
    with pytest.raises(SheetError, match=r"1 of 1 file is missing: images/f00_mask\.png; 1 of 1 field lacks one: is "):
        scan("train", project)
    Path("images/f00_mask.png").write_bytes(b"mask")
    scan("train", project)
    before = states()
    assert "truth.csv" in before
    Path("images/f00_mask.png").write_bytes(b"another mask")
    scan("train", project)
    assert changed(before) == {"truth.csv"}
    Path("cells.csv").write_text("ID,cell,Label\nf00,1,99\n")
    with pytest.raises(SheetError, match=r"cells\.csv, line 2 \(ID f00\): unknown label '99'"):
        scan("train", project)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("f00,1.0,3\n", r"cells\.csv, line 2 \(ID f00\): cell '1\.0' is not a positive integer"),
        ("f00,1,3\nf00,0,3\n", r"cells\.csv, line 3 \(ID f00\): cell '0' is not a positive integer"),
        ("f00,,3\n", r"cells\.csv, line 2 \(ID f00\): cell '' is not a positive integer"),
        ("f00,1,3\nf01,1,3\nf00,1,4\n", r"cells\.csv, line 4 \(ID f00\): cell 1 appears twice"),
    ],
)
def test_a_true_cell_that_is_no_id_or_stands_twice_is_named_before_anything_runs(project, rows, sentence):
    Path("cells.csv").write_text(f"ID,cell,Label\n{rows}")
    project["collections"]["train"]["truth"] = {"cells": "cells.csv", "masks": "images/{id}_red.png"}
    with pytest.raises(SheetError, match=sentence):
        scan("train", project)


def test_fields_of_a_truth_that_are_not_in_the_sheet_are_told(project, caplog):
    project["collections"]["train"]["truth"] = {"cells": "cells.csv", "masks": "images/{id}_red.png"}
    Path("cells.csv").write_text("ID,cell,Label\nf00.png,1,3\n")
    with pytest.raises(
        SheetError, match=r"truth cells\.csv: none of its fields \(1\) is in the sheet of .* train: f00\.png"
    ):
        scan("train", project)
    Path("cells.csv").write_text("ID,cell,Label\nF00,1,3\nf01,1,3\n")
    with pytest.raises(
        SheetError, match=r"truth cells\.csv \(ID F00\): the sheet of collection train has f00, which diff"
    ):
        scan("train", project)
    Path("cells.csv").write_text("ID,cell,Label\nf00,1,3\n" + "".join(f"x{n:02d},1,3\n" for n in range(12)))
    assert not caplog.records
    scan("train", project)
    first = ", ".join(f"x{n:02d}" for n in range(10))
    sentence = "12 of its 13 fields are not in the sheet of collection train and are ignored: the first ten: "
    assert [record.getMessage() for record in caplog.records] == [f"truth cells.csv: {sentence}{first}"]
    assert Path("results/sheet/train/truth.csv").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("ID,cell,Label\nf\xfc,1,3\n".encode("latin-1"), r"truth cells\.csv: is not UTF-8 text \(byte 15\)"),
        (b"ID,cell,Label\nf00,1\n", r"truth cells\.csv, line 2: does not have the 3 columns"),
        (
            b"ID,cell,Label\n" + b"x" * 200_000,
            r"truth cells\.csv, line 2: (field larger than field limit|does not have the 3 columns)",
        ),
    ],
    ids=["Latin-1", "a short row", "no line end"],
)
def test_a_truth_that_cannot_be_read_is_named(project, content, sentence):
    Path("cells.csv").write_bytes(content)
    project["collections"]["train"]["truth"] = {"cells": "cells.csv", "masks": "images/{id}_mask.png"}
    with pytest.raises(SheetError, match=sentence):
        scan("train", project)


def test_the_split_of_a_first_training_is_checked_before_anything_runs(project):
    project["collections"]["first"] = project["collections"]["train"] | {"sheet": "first.csv"}
    Path("first.csv").write_text("ID,Label,split\nf00,1,test\n")
    scan("first", project)
    project["train"]["pretraining"] = {"collection": "first", "curation": project["curation"]}
    with pytest.raises(SheetError, match=r"first\.csv \(ID f00\): split 'test' is not train or validation"):
        scan("first", project)


def test_a_first_training_is_split_by_columns_of_its_own(project):
    project["collections"]["first"] = project["collections"]["train"] | {"sheet": "first.csv"}
    Path("first.csv").write_text("ID,Label,patient\nf00,1,p1\nf01,2,p1\n")
    by_patient = project["curation"] | {"group_by": ["duplicates", "patient"]}
    project["train"]["pretraining"] = {"collection": "first", "curation": by_patient}
    assert scan_collection("first", project).groups == {"patient": {"f00": "p1", "f01": "p1"}}


def test_a_downloaded_collection_has_its_truth_and_its_masks(project):
    collection = project["collections"]["train"]
    del collection["images"]
    collection["download"] = {"url": "https://example.org/{id}_{colour}.jpg", "per_second": 1}
    collection["truth"] = {"cells": "cells.csv", "masks": "images/{id}_red.png"}
    collection["masks"] = {"cells": "images/{id}_green.png", "nuclei": None}
    project["segmentation"]["backend"] = "masks"
    Path("cells.csv").write_text("ID,cell,Label\nf00,1,3\n")
    shards = scan("train", project)
    assert "truth.csv" in states()
    rows = [row for shard in shards for row in read_manifest(f"results/sheet/train/{shard}.csv")]
    assert {row.id: row.cell_mask for row in rows} == {f"f{i:02d}": f"images/f{i:02d}_green.png" for i in range(12)}
    assert {row.urls["blue"] for row in rows} == {f"https://example.org/f{i:02d}_blue.jpg" for i in range(12)}
    before = states()
    Path("images/f05_green.png").write_bytes(b"another mask")
    scan("train", project)
    assert changed(before) == {f"{shard_of('f05', 4)}.csv"}


def test_a_table_of_masks_is_read_once_for_all_fields(project, monkeypatch):
    read = []
    monkeypatch.setattr(manifests, "digest", lambda path: read.append(path) or "digest")
    project["verify"] = "content"
    project["segmentation"]["backend"] = "masks"
    project["collections"]["train"]["masks"] = {"cells": "masks.csv", "nuclei": None}
    write(Path("masks.csv"), "field,height,width,rle\nf00,1,1,01\n")
    scan("train", project)
    assert read.count("masks.csv") == 1
    assert len(read) == 12 * len(COLOURS) + 1


def test_a_column_named_colour_is_not_taken_for_that_of_the_channel(tmp_path):
    sheet = write(tmp_path / "s.csv", "ID,colour\na,pink\n")
    (of_field,) = download_urls(sheet, read_sheet(sheet, labels=False), "https://example.org/{id}_{colour}.jpg")
    assert of_field["red"] == "https://example.org/a_red.jpg"
