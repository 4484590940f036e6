"""Schemas of the tables, and their reading and writing."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpaloc import joining, tables
from hpaloc.examples import EXAMPLES
from hpaloc.rejection import TooManyRejected, check_rejected, too_many


def test_cell_columns_cover_every_region_of_every_colour():
    for colour in ("red", "green", "blue", "yellow"):
        for region in ("nucleus", "cytoplasm", "ring", "cell"):
            assert tables.CELLS.field(f"{colour}_{region}_mean").type == pa.float32()
    assert tables.CELLS.field("cell").type == pa.int32()
    assert len(set(tables.CELLS.names)) == len(tables.CELLS.names)
    assert [name for name in EXAMPLES.names if name.startswith("label_")] == [f"label_{i}" for i in range(19)]


def test_a_lacking_column_is_named():
    with pytest.raises(tables.TableError, match="lacks the column cell"):
        tables.to_table(pd.DataFrame({"field": ["a"]}), tables.CELLS)


def test_missing_values_are_nulls_and_types_are_the_schema_s():
    schema = pa.schema([("a", pa.string()), ("b", pa.float32()), ("c", pa.int32())])
    from_rows = tables.to_table([{"a": None, "b": 1, "c": 2}, {"b": math.nan, "c": 3}], schema)
    columns = {"c": [2, 3], "b": [1.0, math.nan], "a": [None, None], "extra": [0, 0]}
    from_frame = tables.to_table(pd.DataFrame(columns), schema)
    assert from_rows.equals(from_frame)
    assert from_rows.schema.equals(schema)
    assert from_rows["a"].null_count == 2
    assert from_rows["b"].null_count == 1


def test_equal_tables_give_equal_bytes(tmp_path):
    table = pa.table({"a": list(range(1000)), "b": [str(i) for i in range(1000)]})
    for name in ("x.parquet", "y.parquet"):
        tables.write_table(tmp_path / name, table)
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "y.parquet").read_bytes()


def cells(path, names):
    rows = [dict.fromkeys(tables.CELLS.names) | {"field": name, "cell": i} for i, name in enumerate(names, start=1)]
    tables.write_table(path, tables.to_table(rows, tables.CELLS))
    return path


def test_reading_several_shards_adds_shard_and_row(tmp_path):
    paths = [
        cells(tmp_path / "0.parquet", ["a", "b"]),
        cells(tmp_path / "1.parquet", []),
        cells(tmp_path / "2.parquet", "c"),
    ]
    table = joining.read_cells(paths)
    assert table["field"].tolist() == ["a", "b", "c"]
    assert table["shard"].tolist() == [0, 0, 2]
    assert table["row"].tolist() == [0, 1, 0]
    assert table["cell"].dtype == np.int32


def test_reading_shards_without_cells_gives_an_empty_table(tmp_path):
    table = joining.read_cells([cells(tmp_path / "0.parquet", [])])
    assert len(table) == 0
    assert {"field", "cell", "shard", "row"} <= set(table.columns)
    assert len(joining.read_cells([])) == 0


def test_hashes_beside_a_rejected_field_keep_every_bit(tmp_path):
    top = 2**63 - 1
    for shard, rows in enumerate(
        ([{"field": "a", "hash_red": top - 1}], [{"field": "b", "hash_red": top}, {"field": "c"}])
    ):
        rows = [dict.fromkeys(tables.FIELDS.names) | row for row in rows]
        tables.write_table(tmp_path / f"{shard}.parquet", tables.to_table(rows, tables.FIELDS))
    hashes = joining.read_fields([tmp_path / "0.parquet", tmp_path / "1.parquet"])["hash_red"]
    assert hashes.isna().tolist() == [False, False, True]
    assert [int(value) for value in hashes[:2]] == [top - 1, top]


def test_a_file_that_is_no_table_of_cells_is_named(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    with pytest.raises(tables.TableError, match=r"other\.parquet: lacks the column cell"):
        joining.read_cells([tmp_path / "other.parquet"])


def test_more_than_the_fraction_rounded_up_is_too_many():
    # 0.07 * 100 is a bit more than 7.
    for fields, most, allowed in ((4, 0.25, 1), (3, 0.05, 1), (100, 0.07, 7), (3, 0.0, 0), (3, 1.0, 3)):
        assert not too_many(allowed, fields, most)
        assert too_many(allowed + 1, fields, most)


def test_too_many_rejected_lists_the_fields():
    rejected = [("a", "broken"), ("b", "missing")]
    check_rejected(rejected, 4, 0.5)
    with pytest.raises(TooManyRejected, match=r"2 of 4(.|\n)*b: missing") as error:
        check_rejected(rejected, 4, 0.25)
    assert error.value.rejected == rejected
