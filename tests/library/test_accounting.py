"""What a run says of its fields at the end."""

import csv

import pyarrow as pa
import pyarrow.parquet as pq

from hpaloc.accounting import left_out_lines, list_rejected, list_warnings, summarise, summary_lines


def test_every_kind_of_warning_is_listed_once_and_said_at_the_end(tmp_path):
    burnt = "green is overexposed (on average {} % of a cell's pixels are at its limit, 4095): expose less"
    rows = [
        ("a", "ok", "", "", burnt.format(12), 3),
        ("b", "ok", "", "", f"{burnt.format(4.5)}; /data/b_red.tif says 0.2 µm; the same images as field a", 0),
        ("d", "ok", "", "", "/data/d_red.tif says 0.2 µm; the same images as field x", 1),
        ("c", "rejected", "tile", "c_red.tif: no such file", "", 0),
    ]
    names = ("field", "status", "stage", "reason", "warnings", "n_cells")
    pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), tmp_path / "new.parquet")
    paths = [tmp_path / name for name in ("summary.csv", "rejected.csv", "warnings.csv")]
    fields = {"new": tmp_path / "new.parquet"}
    summarise(fields, {}, paths[0])
    list_rejected(fields, paths[1])
    list_warnings(fields, paths[2])
    with open(paths[2], newline="") as file:
        assert list(csv.reader(file)) == [
            ["collection", "fields", "field", "warning"],
            ["new", "2", "a", burnt.format(12)],
            ["new", "2", "b", "/data/b_red.tif says 0.2 µm"],
            ["new", "2", "b", "the same images as field a"],
        ]
    assert summary_lines(*paths) == [
        "new: 4 fields in, 3 through (3 with a warning), 1 rejected; 4 cells found",
        "  rejected c (tile): c_red.tif: no such file",
        f"  warning in 2 fields, as in a: {burnt.format(12)}",
        "  warning in 2 fields, as in b: /data/b_red.tif says 0.2 µm",
        "  warning in 2 fields, as in b: the same images as field a",
    ]
    assert summary_lines(*paths, at_most=1)[-1] == f"  and 2 more, all in {paths[2]}"


def test_what_scores_leave_out_is_a_sentence_per_collection(tmp_path):
    rows = ["collection,kind,fields,cells", "new,id,2,30", "new,same cell,0,1", "other,antibody,1,5"]
    (tmp_path / "left_out.csv").write_text("\n".join(rows) + "\n")
    assert left_out_lines(tmp_path / "left_out.csv") == [
        "new: 31 cells are not scored, because training has seen them or their groups (cells by id: 30, by same cell: "
        "1; whole fields: 2)",
        "other: 5 cells are not scored, because training has seen them or their groups (cells by antibody: 5; whole "
        "fields: 1)",
    ]
    (tmp_path / "left_out.csv").write_text(rows[0] + "\n")
    assert left_out_lines(tmp_path / "left_out.csv") == []
