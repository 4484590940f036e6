"""What a run says of its fields at the end."""

import csv

import pyarrow as pa
import pyarrow.parquet as pq

from hpaloc.accounting import list_rejected, list_warnings, summarise, summary_lines


def test_every_kind_of_warning_is_listed_once_and_said_at_the_end(tmp_path):
    burnt = "green is overexposed: {} % of the pixels in cells are at its limit, 4095"
    rows = [
        ("a", "ok", "", "", burnt.format(12), 3),
        ("b", "ok", "", "", f"{burnt.format(4.5)}; no cell was found", 0),
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
            ["new", "1", "b", "no cell was found"],
        ]
    assert summary_lines(*paths) == [
        "new: 3 fields in, 2 through (2 with a warning), 1 rejected; 3 cells found",
        "  rejected c (tile): c_red.tif: no such file",
        f"  warning in 2 fields, as in a: {burnt.format(12)}",
        "  warning in b: no cell was found",
    ]
    assert summary_lines(*paths, at_most=1)[-1] == f"  and 1 more, all in {paths[2]}"
