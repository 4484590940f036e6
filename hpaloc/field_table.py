"""The table of a collection's fields, one row each, including rejected fields."""

import os
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpaloc.classes import COLOURS
from hpaloc.columns import add_columns, read_columns
from hpaloc.joining import annotate
from hpaloc.manifests import read_annotations
from hpaloc.rejection import check_rejected
from hpaloc.tables import FIELDS, TableError, write_table


def shared_channels(fields: pa.Table) -> list[str]:
    """Say for each field of a table FIELDS with which other fields it shares channel images, pixel by pixel.

    Returns n sentences, empty for a field whose channels are all its own. Blank channels do not count.
    """
    of_row: list[dict[int, list[str]]] = [{} for _ in range(len(fields))]
    names = fields["field"].to_pylist()
    recorded = [colour for colour in COLOURS if fields[f"{colour}_white"].null_count < len(fields)]
    for colour in recorded:
        holders: dict[int, list[int]] = {}
        for row, content in enumerate(fields[f"digest_{colour}"].to_pylist()):
            if content is not None:
                holders.setdefault(content, []).append(row)
        for rows in holders.values():
            for row in rows if len(rows) > 1 else ():
                other = rows[rows[0] == row]
                of_row[row].setdefault(other, []).append(colour)
    return [
        "; ".join(
            f"the same images as field {names[other]}"
            if len(colours) == len(recorded)
            else f"the same {' and '.join(colours)} image as field {names[other]}"
            for other, colours in shared.items()
        )
        for shared in of_row
    ]


def join_fields(
    paths: Mapping[str, str | os.PathLike[str]],
    annotations: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    max_rejected_fraction: float = 1.0,
    columns: str | os.PathLike[str] | None = None,
) -> None:
    """Join the field tables of a collection's shards into one Parquet file, sorted by field.

    Adds the annotations, ``shard`` (the name of the shard) and the warnings of ``shared_channels``.

    paths: {name of the shard: its table}
    annotations: the shards' tables of annotations
    columns: the table of the other columns of the sheet, which come last, see ``columns.read_columns``
    Raises TableError naming a file that is not a table of fields, a field in two shards or a field without annotation,
    and TooManyRejected if more than ``max_rejected_fraction`` of the collection's fields (rounded up) are rejected:
    small shards may each lose one.
    """
    parts = []
    for name, path in paths.items():
        table = pq.read_table(path)
        if not table.schema.equals(FIELDS):
            raise TableError(f"{os.fspath(path)}: is not a table of fields")
        parts.append(table.append_column(pa.field("shard", pa.string()), pa.array([name] * len(table), pa.string())))
    empty = FIELDS.append(pa.field("shard", pa.string())).empty_table()
    every = annotate(pa.concat_tables([empty, *parts]), read_annotations(annotations))
    joined = every.sort_by("field").combine_chunks()
    counts = joined["field"].value_counts()
    for entry in counts.to_pylist():
        if entry["counts"] > 1:
            raise TableError(f"the field {entry['values']} is in {entry['counts']} shards")
    found = zip(joined["warnings"].to_pylist(), shared_channels(joined), strict=True)
    warnings = pa.array(["; ".join(filter(None, pair)) for pair in found], pa.string())
    joined = joined.set_column(joined.schema.get_field_index("warnings"), "warnings", warnings)
    write_table(out, add_columns(joined, read_columns(columns)))
    rejected = joined.filter(pc.not_equal(joined["status"], "ok")).select(["field", "reason"]).to_pylist()
    check_rejected([(row["field"], row["reason"]) for row in rejected], len(joined), max_rejected_fraction)
