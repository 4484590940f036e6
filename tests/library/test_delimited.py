"""The reader of the tables that people write: columns by name, IDs in one form, files as the disk spells them."""

import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coco_masks import encode
from test_sheet import COLOURS, scan, write

from hpaloc.config import complete
from hpaloc.delimited import SheetError, check_fields, read_delimited
from hpaloc.files import spelled_as_on_disk
from hpaloc.ids import check_id, normal_text
from hpaloc.interpretation.analysis import score_mixtures
from hpaloc.interpretation.few_shot import FewShotError, predicted_examples
from hpaloc.manifests import SheetRow, read_manifest
from hpaloc.mask_tables import read_rle_table
from hpaloc.scan import download_urls
from hpaloc.sheet import read_sheet

# Columns that sheets have besides the known ones.
ORDINARY = [
    "gene", "gene_name", "ensembl", "uniprot", "protein", "plate", "well", "site", "position", "row", "column",
    "notes", "comment", "comments", "cell", "cells", "cell_count", "cell_type", "cell_id", "cell_size", "cell_name",
    "lines", "line", "lineage", "cell_lineage", "cell_line_passage", "cell_line_source", "slide", "slides", "image",
    "images", "image_id", "image_name", "filename", "path", "url", "urls", "source", "batch", "replicate", "date",
    "exposure", "magnification", "objective", "channel", "stain", "staining", "antigen", "antiserum", "antibiotic",
    "body", "antibody_lot", "antibody_dilution", "antibody_host", "secondary_antibody", "width", "height",
    "ImageWidth", "size", "pixel", "pixels", "pixel_count", "pixel_type", "bit_depth", "z", "x", "y", "slit",
    "spit", "splice", "spot", "spin", "split_date", "passage", "donor", "tissue", "treatment", "drug", "dose",
    "control", "label_source", "annotator", "score", "quality", "focus", "index",
    "id2", "PredictionString", "experiment", "field", "tile", "resolution", "location",
    "reliability", "validated", "validation",
    "Antibody validation", "antibody_validation", "antibody_set", "antibody_class", "antibody_clone", "antibody_vendor",
    "antibody_concentration", "antibody_target", "antibody_type", "antibody_batch", "antibody_date", "antibody_test",
    "nanobody", "affibody", "autoantibody", "anti_tubulin", "cell_lane", "cell_linkage", "cell_link", "cell_area",
    "cell_cycle", "cell_density", "cell_line_type", "cell_line_authentication", "cell_line_validation", "cell_lineages",
    "cell_liner", "well_line", "cell_time", "pixel_side", "pixel_site", "pixel_depth",
    "pixel_area", "pixel_size_z", "pixel_size_unit", "pixel_size_source", "camera_pixel_size", "voxel_size",
    "size_px", "size_in_pixels", "image_size", "field_size", "nucleus_size", "step_size", "tile_size", "pixel_noise",
    "splint", "spline", "test_split", "split_test", "testsplit", "test_splits", "split_channel", "split_ratio",
    "split_by", "split_1", "splitter", "slits", "train", "test_set", "label_free", "labeler", "labelled_by",
    "number_of_antibodies", "no_antibody", "cell_sine", "labeled", "id_plate",
    "pixels_per_um", "px_per_micron", "PhysicalSizeZ", "PhysicalSizeXUnit", "lab", "lab_id", "tab", "hpa", "abs",
    "used", "list", "x_left", "train_loss", "test_result", "list_of_genes", "cell_x", "cell_y", "antibody_left_over",
    "plate_id", "well_name", "dataset", "train_set", "image_number"
]  # fmt: skip

SLIPS = [
    *((column, "antibody") for column in ("antibdoy", "antibodies", "anitbody", "AntibodyID", "antibody names")),
    *((column, "antibody") for column in ("antybody", "Antibody ID", "antibody_number", "Antibody No.", "antibodyId")),
    *((column, "antibody") for column in ("antbody", "antiboddy", "antibodys", "antybodies", "primary antibody")),
    *((column, "cell_line") for column in ("cell_lines", "celline", "cell_lne", "line_cell", "cellLineName")),
    *((column, "cell_line") for column in ("cell lines", "celllines", "cel_line", "cell_lien", "Cell line ID")),
    *((column, "pixel_size") for column in ("pixel_size_um", "pixelsize [nm]", "Pixel size (µm)", "pixel_sze")),
    *((column, "pixel_size") for column in ("pixelSizeX", "physical_pixel_size", "px_size")),
    *((column, "pixel_size") for column in ("pixel sizes", "pixle_size", "pixal_size", "pixelsizeum", "px size in µm")),
    *((column, "pixel_size") for column in ("Pixel size (µm/px)", "image pixel size", "pixel_size_microns")),
    *(
        (column, "antibody")
        for column in ("antibody_x", "antibody_y", "antibody_left", "antibody_right", "Ab", "ab_id")
    ),
    *((column, "antibody") for column in ("antibody used", "used antibody", "list of antibodies", "antibody (rabbit)")),
    *((column, "antibody") for column in ("antibody [rabbit]", "HPA_id", "HPA number", "hpaId", "id of antibody")),
    *((column, "cell_line") for column in ("cell_line_x", "cell line (ATCC)", "cell line used", "cell_line_right")),
    *(
        (column, "split")
        for column in (
            "split_x",
            "split (80/20)",
            "Train/Test",
            "train_val",
            "Train or test",
            "test/train",
            "train/validation/test",
        )
    ),
    *(
        (column, "pixel_size")
        for column in ("PhysicalSizeX", "physical_size_y", "um_per_pixel", "\u00b5m/px", "um/pixel")
    ),
    *(
        (column, "pixel_size")
        for column in (
            "microns per pixel",
            "MicronsPerPixel",
            "nm_per_px",
            "mpp",
            "resolution (um/px)",
            "pixel spacing",
        )
    ),
    *(
        (column, "pixel_size")
        for column in ("size of pixels (um)", "pixel_size_x", "micrometers/pixel", "\u03bcm per px")
    ),
    *((column, "split") for column in ("splits", "spilt", "splt", "validation_split", "train/val split", "split_set")),
    *((column, "split") for column in ("splitt", "spllit", "train_split", "train_test_split", "dataset split")),
]


@pytest.mark.parametrize("column", ORDINARY)
def test_an_ordinary_column_is_left_alone(tmp_path, caplog, column):
    (row,) = read_sheet(write(tmp_path / "s.csv", f"ID,Label,{column}\na,1,2\n"), labels=True)
    assert row == SheetRow("a", (1,), 0.08)
    assert not caplog.records


@pytest.mark.parametrize(
    ("column", "known"),
    [("fold", "split"), ("Subset", "split"), ("partition", "split"), ("pixel width", "pixel_size")],
)
def test_a_column_that_may_be_a_known_one_is_ignored_with_a_warning(tmp_path, caplog, column, known):
    assert read_sheet(write(tmp_path / "s.csv", f"ID,{column}\na,2\n"), labels=False) == [SheetRow("a", None, 0.08)]
    assert f"the column {column} is not read as {known}; name it so if it is that" in caplog.text
    caplog.clear()
    value = "0.1" if known == "pixel_size" else "train"
    read_sheet(write(tmp_path / "s.csv", f"ID,{column},{known}\na,2,{value}\n"), labels=False)
    assert not caplog.records


@pytest.mark.parametrize(("column", "known"), SLIPS)
def test_a_slip_for_a_known_column_is_refused(tmp_path, column, known):
    with pytest.raises(SheetError) as error:
        read_sheet(write(tmp_path / "s.csv", f"ID,Label,{column}\na,1,2\n"), labels=True)
    assert f"the column {column} is nearly {known}" in str(error.value)
    assert f"rename it to {known} if that is meant" in str(error.value)


@pytest.mark.parametrize(("column", "known"), SLIPS)
def test_beside_the_known_column_its_slip_is_another_one(tmp_path, column, known):
    value = "0.08" if known == "pixel_size" else "train"
    (row,) = read_sheet(write(tmp_path / "s.csv", f"ID,{known},{column}\na,{value},x\n"), labels=False)
    assert str(getattr(row, known)) == value


def test_a_long_name_is_no_slip(tmp_path):
    column = "split" + "1" * 100_000 + "q"
    assert read_sheet(write(tmp_path / "s.csv", f"ID,{column},{'validation' * 6}q\na,1,2\n"), labels=False)


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("Antibody", {"antibody": "x"}),
        ("CELL LINE", {"cell_line": "x"}),
        ("cell\u00a0line", {"cell_line": "x"}),
        ("cell-Line_", {"cell_line": "x"}),
        ("SPLIT", {"split": "x"}),
    ],
)
def test_a_column_in_another_spelling_is_the_known_one(tmp_path, caplog, header, known):
    (row,) = read_sheet(write(tmp_path / "s.csv", f"ID;{header};gene\na;x;y\n"), labels=False)
    assert {column: getattr(row, column) for column in known} == known
    assert f"is read as {next(iter(known))}" in caplog.text


def test_the_columns_of_addresses_are_known_by_other_spellings_too(tmp_path, caplog):
    text = "id;Antibody;Image;URL red\na;HPA000089;1_A1;https://example.org/red.png\n"
    sheet = write(tmp_path / "s.csv", text)
    rows = read_sheet(sheet, labels=False)
    (of_field,) = download_urls(sheet, rows, "https://example.org/{antibody_number}/{image}_{colour}.jpg")
    assert of_field["red"] == "https://example.org/red.png"
    assert of_field["blue"] == "https://example.org/89/1_A1_blue.jpg"
    told = [record.getMessage().split(": ", 1)[1] for record in caplog.records]
    assert told == [
        "the column id is read as ID, the column Antibody is read as antibody",
        "the column URL red is read as url_red, the column Image is read as image",
    ]
    # What the pattern names by its own spelling is that column.
    (of_field,) = download_urls(sheet, rows, "https://example.org/{Antibody}_{Image}_{colour}.jpg")
    assert of_field["blue"] == "https://example.org/HPA000089_1_A1_blue.jpg"
    for slip in ("url_rd", "red_url", "uri_red", "red_channel_url", "url_red_x"):
        sheet = write(tmp_path / "s.csv", f"ID,{slip}\na,https://example.org/red.png\n")
        with pytest.raises(SheetError, match=f"the column {slip} is nearly url_red"):
            download_urls(sheet, [SheetRow("a", None, 0.08)], "https://example.org/{id}_{colour}.jpg")


@pytest.mark.parametrize(
    "start", ["", "\ufeff", "sep={}\n", '\ufeff"sep={}"\r\n', "SEP={},,\r", "\n\n", "\ufeff{0}{0}\n"]
)
@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_and_line_ends_are_found(tmp_path, start, mark, end):
    other = {",": ";", ";": ",", "\t": ","}[mark]
    lines = [f"ID|Label|notes{other} free{other} long", "", "a|1|x", " ||", 'b|2|"x\ny"', "c|99|"]
    text = start.format(mark) + end.join(line.replace("|", mark) for line in lines) + end
    path = tmp_path / "s.csv"
    path.write_bytes(text.encode())
    rows = read_delimited(path, "sheet", ("ID", "Label"))
    found = [next(rows) for _ in range(3)]
    assert [row for _, row in found] == [
        {"ID": id, "Label": label} for id, label in (("a", "1"), ("b", "2"), ("c", "99"))
    ]
    before = start.replace("\r\n", "\n").replace("\r", "\n").count("\n")
    # The line in which a row ends, as an editor counts it.
    assert [line - before for line, _ in found] == [3, 6, 7]


@pytest.mark.parametrize(
    ("id", "sentence"),
    [
        ("a\xa0b", r"the ID 'a\xa0b' contains a NO-BREAK SPACE (U+00A0)"),
        ("a\u2003b", r"the ID 'a\u2003b' contains an EM SPACE (U+2003)"),
        ("a\u3000b", r"the ID 'a\u3000b' contains an IDEOGRAPHIC SPACE (U+3000)"),
        ("a\u200bb", r"the ID 'a\u200bb' contains a ZERO WIDTH SPACE (U+200B)"),
        ("\u202aC1", r"the ID '\u202aC1' contains a LEFT-TO-RIGHT EMBEDDING (U+202A)"),
        ("a\u2800b", r"the ID 'a\u2800b' contains a BRAILLE PATTERN BLANK (U+2800)"),
        ("a\ufe0fb", r"the ID 'a\ufe0fb' contains a VARIATION SELECTOR-16 (U+FE0F)"),
        ("a\ue000b", r"the ID 'a\ue000b' contains a character without a name (U+E000)"),
        ("a\x1bb", r"the ID 'a\x1bb' cannot be a file name (slash, leading dot or control character)"),
    ],
)
def test_what_nobody_sees_in_an_id_is_named(id, sentence):
    with pytest.raises(ValueError, match=r"^the ID") as error:
        check_id(id)
    assert str(error.value) == sentence


@pytest.mark.parametrize("id", ["Ζελλ-細胞-é", "a b.c", "=1+1", "Å-ſ-ẞ", "0"])
def test_what_people_see_may_be_an_id(id):
    check_id(id)


@pytest.mark.parametrize(
    "blank", [" ", "\xa0", "\u202f", "\u3000", "\u2028", "\x85", "\u200b", "\ufeff", "\u2060", "\t"]
)
def test_blanks_of_every_kind_are_taken_from_the_ends(blank):
    assert normal_text(f"{blank} e\u0301 x{blank}\xa0") == "é x"


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_sheet", ["NFC", "NFD"])
@pytest.mark.parametrize("in_config", ["NFC", "NFD"])
def test_a_field_is_found_in_either_unicode_form(tmp_path, monkeypatch, on_disk, in_sheet, in_config):
    monkeypatch.chdir(tmp_path)
    folder = Path(unicodedata.normalize(on_disk, "Aufnahmen-ü"), unicodedata.normalize(on_disk, "Plätze"))
    folder.mkdir(parents=True)
    real = {colour: folder / unicodedata.normalize(on_disk, f"Zelle-é-{colour}-ö.png") for colour in COLOURS}
    for path in real.values():
        path.touch()
    Path(folder, "feuille-à.csv").write_text(unicodedata.normalize(in_sheet, "ID\nZelle-é\n"))
    named = {"root": "Aufnahmen-ü", "sheet": "{root}/Plätze/feuille-à.csv"}
    named["images"] = "{root}/Plätze/{id}-{colour}-ö.png"
    named = {key: unicodedata.normalize(in_config, text) for key, text in named.items()}
    (shard,) = scan("new", complete({"collections": {"new": named}}))
    (row,) = read_manifest(f"results/sheet/new/{shard}.csv")
    assert row.id == "Zelle-é"
    assert row.paths == {colour: str(path) for colour, path in real.items()}


def test_where_both_forms_are_there_each_is_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for form in ("NFC", "NFD"):
        path = unicodedata.normalize(form, "é.png")
        Path(path).touch()
        assert spelled_as_on_disk(path) == path
    assert spelled_as_on_disk("ü.png") == "ü.png"
    assert spelled_as_on_disk("absent-é/ü.png") == "absent-é/ü.png"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_rows_of_a_field_in_a_table_of_masks_are_found_in_any_form(tmp_path, suffix):
    counts = encode(np.eye(5))
    names = ["Zelle-e\u0301", " b\xa0", "c"]
    table = pd.DataFrame({"field": names, "cell": 1, "height": 5, "width": 5, "rle": counts})
    if suffix == ".csv":
        table.to_csv(tmp_path / "masks.csv", index=False)
    else:
        pq.write_table(pa.Table.from_pandas(table), tmp_path / "masks.parquet")
    assert set(read_rle_table(tmp_path / f"masks{suffix}", ["Zelle-é", "b"])) == {"Zelle-é", "b"}


def test_fields_of_other_tables_are_those_of_the_sheet_letter_by_letter(caplog):
    check_fields("truth t.csv", ["a 1", "B"], {"a 1", "B", "b"}, "train")
    assert not caplog.records
    for field, id in (("b", "B"), ("A 1", "a 1"), ("a  1", "a 1"), ("straße", "STRASSE"), ("\uff42", "B")):
        with pytest.raises(
            SheetError, match=rf"^truth t\.csv \(ID {field}\): the sheet of collection train has {id}, which"
        ):
            check_fields("truth t.csv", [field, "x"], {"a 1", "B", "STRASSE", "x"}, "train")
    check_fields("truth t.csv", ["B", "B.png"], {"a 1", "B"}, "train")
    assert "truth t.csv: 1 of its 2 fields is not in the sheet of collection train and is ignored: B.png" in caplog.text


def test_examples_and_mixtures_of_other_fields_are_left_out_and_told(caplog):
    cells = pd.DataFrame({"field": ["a", "a"], "cell": [1, 2]})
    examples = pd.DataFrame({"field": ["a", "x", "a"], "cell": [1, 1, 2], "label": ["r", "r", "s"]})
    assert predicted_examples(examples, cells)["label"].tolist() == ["r", "s"]
    assert "1 fields of few_shot.table are not among the predictions, and are left out: x" in caplog.text
    with pytest.raises(FewShotError, match="none of its fields is among the predictions, for example x"):
        predicted_examples(examples.iloc[1:2], cells)
    fields = pd.DataFrame({"field": ["a", "b"]} | {f"fraction_{index}": [0.5, 0.25] for index in range(19)})
    known = pd.DataFrame({"ID": ["a", "x"], "label_a": 2, "fraction_a": 0.5, "label_b": 3, "fraction_b": 0.5})
    assert score_mixtures(fields, known, 0)["n"] == 1
    assert "1 fields of interpretation.mixtures are not predicted, and left out: x" in caplog.text


def test_a_path_with_a_nul_is_told_in_a_sentence():
    with pytest.raises(SheetError, match=r"^sheet 's\\x00\.csv': cannot be read \(embedded null byte\)$"):
        read_sheet("s\0.csv", labels=False)


def test_what_plans_reads_all_tables_without_pandas():
    code = (
        "import sys, hpaloc.scan, hpaloc.truth, hpaloc.interpretation.annotated\n"
        "print(sorted({'pandas', 'pyarrow', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
