"""Tables of run-length masks: their forms, the ways in which people write them, and their check at planning."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coco_masks import encode
from test_masks import blocks

from hpaloc import masks, rle
from hpaloc.delimited import SheetError
from hpaloc.mask_tables import check_table, read_rle_table
from hpaloc.rle import is_table


@pytest.mark.parametrize("form", ["own.parquet", "own.csv", "kaggle_cells.csv", "submission.csv"])
def test_rle_tables(tmp_path, form):
    images = {"a": blocks(2, 3), "7": blocks(3, 2), "other": blocks(1, 1)}
    rows = []
    for field, labels in images.items():
        height, width = labels.shape
        coded = rle.encode_labels(labels)
        if form == "submission.csv":
            triples = " ".join(f"{c} 0.5 {rle.to_kaggle(coded[i])}" for i in coded for c in (3, 18))
            rows.append({"ID": field, "ImageWidth": width, "ImageHeight": height, "PredictionString": triples})
        for cell, counts in coded.items():
            if form.startswith("own"):
                rows.append({"field": field, "cell": cell, "height": height, "width": width, "rle": counts})
            elif form == "kaggle_cells.csv":
                mask = rle.to_kaggle(counts)
                rows.append({"ID": field, "ImageHeight": height, "ImageWidth": width, "EncodedMask": mask})
    table, path = pd.DataFrame(rows), tmp_path / form
    table.to_parquet(path) if form.endswith("parquet") else table.to_csv(path, index=False)
    found = read_rle_table(path, ["a", "7", "absent"])
    assert set(found) == {"a", "7"}
    for field, (height, width, coded) in found.items():
        np.testing.assert_array_equal(masks.draw(coded, height, width), images[field])


def test_ids_of_a_parquet_table_may_be_numbers(tmp_path):
    path = tmp_path / "cells.parquet"
    row = {"ImageHeight": 1, "ImageWidth": 2, "EncodedMask": rle.to_kaggle("02")}
    pd.DataFrame([row | {"ID": field} for field in (7, 8)]).to_parquet(path)
    assert read_rle_table(path, ["7", "007"]) == {"7": (1, 2, {1: "02"})}
    pd.DataFrame([row | {"ID": [7]}]).to_parquet(path)
    with pytest.raises(SheetError, match=r"table of masks .*cells\.parquet: cannot be read"):
        read_rle_table(path, ["7"])


def test_a_bad_rle_table_names_file_and_field(tmp_path):
    path = tmp_path / "bad.csv"
    pd.DataFrame({"field": ["a"], "cell": [1], "height": [5], "rle": ["1"]}).to_csv(path, index=False)
    with pytest.raises(SheetError, match=r"bad.csv: has no column width \(its header has field, cell, height, rle\)"):
        read_rle_table(path, ["a"])
    pd.DataFrame({"name": ["a"]}).to_csv(path, index=False)
    with pytest.raises(SheetError, match="needs a column field or ID"):
        read_rle_table(path, ["a"])
    with pytest.raises(SheetError, match="no such file"):
        read_rle_table(tmp_path / "absent.csv", ["a"])


def test_a_table_whose_cells_begin_at_0_is_not_read_as_if_one_were_background(tmp_path):
    path = tmp_path / "cells.csv"
    rows = [{"field": "a", "cell": cell, "height": 1, "width": 2, "rle": encode(np.ones((1, 2)))} for cell in (0, 1)]
    rows.append({"field": "NA", "cell": 1, "height": 1, "width": 2, "rle": encode(np.ones((1, 2)))})
    pd.DataFrame(rows).to_csv(path, index=False)
    found = read_rle_table(path, ["a", "NA"])
    assert found["a"] == "field a: cell 0 is not an id; ids start at 1, since 0 is the background"
    assert found["NA"] == (1, 2, {1: "02"})


COUNTS = encode(np.ones((1, 2)))
OWN = f"field,cell,height,width,rle\na,7,1,2,{COUNTS}\n"
LONG = OWN + "a" * 20_000


@pytest.mark.parametrize(
    "content",
    [
        OWN,
        OWN.replace(",", ";"),
        OWN.replace(",", "\t"),
        "sep=;\n" + OWN.replace(",", ";"),
        "\ufeff" + OWN,
        OWN.replace("\n", "\r\n"),
        OWN.replace("cell", "Cell"),
        OWN.replace("cell", " cell "),
        OWN.replace("field,cell", "FIELD,CELL"),
        OWN.replace("height,width", "Height,WIDTH"),
        OWN.replace("rle\n", "rle,\n"),
    ],
)
def test_a_table_is_read_as_other_tables_of_people_are(tmp_path, content):
    path = tmp_path / "masks.CSV"
    path.write_bytes(content.encode())
    check_table(path, {"a"}, "train")
    assert read_rle_table(path, ["a"]) == {"a": (1, 2, {7: COUNTS})}


WRONG = [
    ("field,cell_id,height,width,rle", "the column cell_id is nearly cell, which is missing: rename it to cell if"),
    ("field,cells,height,width,rle", "the column cells is nearly cell, which is missing"),
    ("field,cell,height,width,rle,cell", "has 2 columns cell"),
    ("field,cell,cell,height,width,rle", "has 2 columns cell"),
    ("fields,cell,height,width,rle", "the column fields is nearly field, which is missing"),
    ("field,cell,height,rle", "has no column width (its header has field, cell, height, rle)"),
    ("field,cell,height,width", "has no column rle (its header has field, cell, height, width)"),
    ("ID,ImageHeight,ImageWidth", "has no column EncodedMask (its header has ID, ImageHeight, ImageWidth)"),
    ("name,mask", "needs a column field or ID (its header has name, mask)"),
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(("header", "sentence"), WRONG)
def test_a_wrong_column_is_named_at_planning_and_in_the_job(tmp_path, header, sentence, suffix):
    path = tmp_path / f"masks{suffix}"
    columns = header.split(",")
    if suffix == ".csv":
        path.write_text(f"{header}\n{','.join('1' * len(columns))}\n")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array(["1"])] * len(columns), names=columns), path)
    for call in (lambda: check_table(path, {"1"}, "train"), lambda: read_rle_table(path, ["1"])):
        with pytest.raises(SheetError) as error:
            call()
        assert str(error.value).startswith(f"table of masks {path}: {sentence}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (OWN + f"b,1,1,2,{COUNTS},x\n", ", line 3: does not have the 5 columns of the header"),
        (OWN + "b,1,1,2\n", ", line 3: does not have the 5 columns of the header"),
        (OWN.encode("utf-16"), ": is not UTF-8 text (byte 0); save it as CSV UTF-8"),
        (OWN.encode("utf-16-le"), ": is not UTF-8 text (byte 1); save it as CSV UTF-8"),
        (LONG.encode() + b"\xff", f": is not UTF-8 text (byte {len(LONG)}); save it as CSV UTF-8"),
    ],
)
def test_a_row_or_byte_that_is_wrong_is_named(tmp_path, content, sentence):
    path = tmp_path / "masks.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(SheetError) as error:
        read_rle_table(path, ["a"])
    assert str(error.value) == f"table of masks {path}{sentence}"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_rows_or_fields_of_the_sheet_is_refused_at_planning(tmp_path, suffix):
    def write(*fields):
        table = pd.DataFrame({"field": fields, "cell": 1, "height": 1, "width": 2, "rle": COUNTS}, dtype=str)
        table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)

    path = tmp_path / f"masks{suffix}"
    for fields, sentence in (
        ((), ": has no rows"),
        (("x", "y"), ": none of its fields (2) is in the sheet of collection train: x, y"),
        (("x", "A"), " (ID A): the sheet of collection train has a, which differs only in case or blanks"),
    ):
        write(*fields)
        with pytest.raises(SheetError) as error:
            check_table(path, {"a", "b"}, "train")
        assert str(error.value).startswith(f"table of masks {path}{sentence}")
    # A table may be of more fields than the sheet.
    write("x", "a")
    check_table(path, {"a", "b"}, "train")


def test_all_masks_of_a_field_may_be_one_long_value(tmp_path):
    many = " ".join(f"0 1 {rle.to_kaggle(COUNTS)}" for _ in range(10_000))
    path = tmp_path / "masks.csv"
    path.write_text(f"ID,ImageHeight,ImageWidth,PredictionString\na,1,2,{many}\n")
    assert len(many) > 131_072
    assert read_rle_table(path, ["a"]) == {"a": (1, 2, {1: COUNTS})}


def test_a_table_is_known_by_its_ending_in_any_case():
    assert [is_table(f"m.{ending}") for ending in ("csv", "CSV", "Parquet", "png")] == [True, True, True, False]
