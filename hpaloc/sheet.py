"""Sheets: the tables in which people list the fields of a collection."""

import logging
import os

from hpaloc.classes import parse_labels
from hpaloc.delimited import SheetError, read_delimited
from hpaloc.ids import alike, check_id, shown
from hpaloc.manifests import CARRIED, SheetRow

log = logging.getLogger("hpaloc")

# What a sheet may say about a field besides its ID and labels.
OPTIONAL = (*CARRIED, "pixel_size")


def read_sheet(path: str | os.PathLike[str], labels: bool, pixel_size: float = 0.08) -> list[SheetRow]:
    """Read a sheet of fields, and warn of IDs that differ only in case, blanks or the form of a letter.

    path: a table for ``read_delimited`` with the column ``ID``, possibly ``antibody``, ``cell_line``, ``split`` and
    ``pixel_size`` (µm), and others, which are ignored
    labels: whether it has the column ``Label`` (class indices joined by ``|``)
    pixel_size: µm, of rows without one
    Raises SheetError naming the file and the line of a missing or duplicate column, an empty, duplicate or unusable ID,
    an unknown label or a pixel size that is not a positive number.
    """
    name = os.fspath(path)
    rows: list[SheetRow] = []
    line_of: dict[str, int] = {}
    for line, cells in read_delimited(path, "sheet", ("ID", "Label") if labels else ("ID",), OPTIONAL):
        id = cells["ID"]
        try:
            check_id(id)
            if id in line_of:
                raise ValueError(f"ID {id} is a duplicate of line {line_of[id]}")
            row_labels = parse_labels(cells["Label"]) if labels else None
        except ValueError as error:
            of_id = f" (ID {shown(id)})" if id else ""
            raise SheetError(f"sheet {name}, line {line}{of_id}: {error}") from None
        line_of[id] = line
        size = cells.get("pixel_size", "")
        try:
            row_pixel_size = float(size) if size else pixel_size
            if not 0 < row_pixel_size < float("inf"):
                raise ValueError
        except ValueError:
            raise SheetError(
                f"sheet {name}, line {line} (ID {id}): pixel_size {size!r} is not a positive number of µm"
            ) from None
        carried = {column: cells[column] or None for column in CARRIED if column in cells}
        rows.append(SheetRow(id, row_labels, row_pixel_size, **carried))
    if not rows:
        raise SheetError(f"sheet {name}: lists no fields")
    _warn_of_alike(name, line_of)
    return rows


def _warn_of_alike(name: str, line_of: dict[str, int]) -> None:
    """Warn of IDs of a sheet that a file system, or a person, may take for the same."""
    first: dict[str, str] = {}
    pairs = [(other, id) for id in line_of if (other := first.setdefault(alike(id), id)) is not id]
    if pairs:
        one, two = pairs[0]
        more = f" (and {len(pairs) - 1} more such IDs)" if len(pairs) > 1 else ""
        log.warning(
            "sheet %s, line %d (ID %s): differs from ID %s in line %d only in case, blanks or the form of a letter, "
            "and is read as a different field%s",
            *(name, line_of[two], shown(two), shown(one), line_of[one], more),
        )
