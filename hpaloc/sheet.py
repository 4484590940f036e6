"""Sheets: the tables in which people list the fields of a collection."""

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

from hpaloc.classes import parse_labels

CARRIED = ("antibody", "cell_line", "split")


class SheetError(ValueError):
    """A sheet or its files are not as the configuration says; the message names the row, key or file."""


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One field as the sheet has it; ``labels`` is None where the collection carries none."""

    id: str
    labels: tuple[int, ...] | None
    pixel_size: float
    antibody: str | None = None
    cell_line: str | None = None
    split: str | None = None


def check_id(id: str) -> None:
    """Raise ValueError with the reason where a field id cannot serve as the start of a file name."""
    if not id:
        raise ValueError("the ID is empty")
    if id.startswith(".") or "/" in id or "\\" in id or not id.isprintable():
        raise ValueError(f"the ID {id!r} cannot be a file name (slash, leading dot or control character)")
    if len(id.encode()) > 200:
        raise ValueError(f"the ID {id[:40]!r}… is longer than 200 bytes")


def delimiter(text: str) -> str:
    """Return what divides the columns of a CSV's header: comma, semicolon or tab, the first of them that is there."""
    header = text.split("\n", 1)[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def csv_sentence(error: csv.Error) -> str:
    """Return the message of a CSV error as text that a line of a terminal can show."""
    # The message names the delimiter as it is.
    return str(error).replace("\t", "tab")


def read_sheet(path: str | os.PathLike[str], labels: bool, pixel_size: float = 0.08) -> list[SheetRow]:
    """Read a sheet of fields.

    A CSV with a column ``ID`` and, where ``labels``, ``Label`` (class indices joined by ``|``); ``antibody``,
    ``cell_line``, ``split`` and ``pixel_size`` (µm) are read where present, other columns are left alone. A
    byte-order mark, semicolons or tabs for commas, any line ending and blank lines are accepted. ``pixel_size`` is the
    value for rows without one. Raises SheetError naming the file and the line of a missing or repeated column, an
    empty, repeated or unusable ID, an unknown label or a pixel size that is no positive number.
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SheetError(f"sheet {name}: no such file") from None
    except OSError as error:
        raise SheetError(f"sheet {name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise SheetError(f"sheet {name}: is no UTF-8 text (byte {error.start}); save it as CSV UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter(text), strict=True)
    try:
        columns = [column.strip() for column in reader.fieldnames or []]
    except csv.Error as error:
        raise SheetError(f"sheet {name}, line 1: {csv_sentence(error)}") from None
    reader.fieldnames = columns
    for column in ("ID", *(("Label",) if labels else ())):
        if column not in columns:
            has = ", ".join(each if each.isprintable() else repr(each) for each in columns) or "nothing"
            raise SheetError(f"sheet {name}: has no column {column} (its header has {has})")
    for column in ("ID", "Label", "pixel_size", *CARRIED):
        if columns.count(column) > 1:
            raise SheetError(f"sheet {name}: has {columns.count(column)} columns {column}")
    rows: list[SheetRow] = []
    line_of: dict[str, int] = {}
    try:
        for cells in reader:
            here = f"sheet {name}, line {reader.line_num}"
            if not any(isinstance(value, str) and value.strip() for value in cells.values()):
                continue
            # A column without a name, such as the index that pandas writes, is one that is left alone.
            if None in cells or None in cells.values():
                raise SheetError(f"{here}: does not have {len(columns)} columns as the header has")
            id = cells["ID"].strip()
            try:
                check_id(id)
                if id in line_of:
                    raise ValueError(f"ID {id} stands already in line {line_of[id]}")
                row_labels = parse_labels(cells["Label"]) if labels else None
            except ValueError as error:
                # As it stands in the file, unless it would break the line or write to the terminal.
                shown = id if id.isprintable() else repr(id)
                of_id = f" (ID {shown if len(shown) <= 80 else shown[:40] + '…'})" if id else ""
                raise SheetError(f"{here}{of_id}: {error}") from None
            line_of[id] = reader.line_num
            size = cells.get("pixel_size", "").strip()
            try:
                row_pixel_size = float(size) if size else pixel_size
                if not 0 < row_pixel_size < float("inf"):
                    raise ValueError
            except ValueError:
                raise SheetError(f"{here} (ID {id}): pixel_size {size!r} is no positive number of µm") from None
            carried = {column: cells[column].strip() or None for column in CARRIED if column in cells}
            rows.append(SheetRow(id, row_labels, row_pixel_size, **carried))
    except csv.Error as error:
        # The reader counts as far as the last row that could be read.
        raise SheetError(f"sheet {name}, line {reader.line_num + 1}: {csv_sentence(error)}") from None
    if not rows:
        raise SheetError(f"sheet {name}: holds no field")
    return rows
