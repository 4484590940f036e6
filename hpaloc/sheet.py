"""Sheets: the tables in which people list the fields of a collection."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hpaloc.classes import COLOURS, N_CLASSES
from hpaloc.delimited import SheetError, letters_of, read_delimited, read_header
from hpaloc.ids import alike, check_id, shown
from hpaloc.location_names import list_left_out, read_labels
from hpaloc.manifests import CARRIED, SheetRow
from hpaloc.unknown_values import is_unknown

log = logging.getLogger("hpaloc")

# What a sheet may say about a field besides its ID and labels.
OPTIONAL = (*CARRIED, "pixel_size")

# The columns of the tables to which those of a sheet are copied (a test compares them with the tables), and the
# criterion of groups that is not a column.
_COLOUR = f"({'|'.join(COLOURS)})"
_OURS = re.compile(
    r"id|field|cell|shard|row|_index|labels|antibody|cell_line|split|sheet_labels|called|called_labels|call_mean|call_vote"
    r"|(p|share|fraction|mixture)_\d+|height|width|dtype|pixel_size|n_cells|n_fields|duplicates|status|stage|reason|warnings|[yx][01]"
    r"|centroid_[yx](_um)?|(nucleus_)?area_(px|um2)|nucleus_fraction|nucleus_cytoplasm_area_ratio|border|focus|saturation"
    rf"|rle|green_signal|green_threshold|(hash|digest)_{_COLOUR}|{_COLOUR}_(background|noise|white|full_scale|median|p99"
    r"|peak|saturated|nucleus_cytoplasm_ratio|(cell|nucleus|cytoplasm|ring)_(mean|std))",
    re.IGNORECASE,
)

# The columns that say of what a field is.
NAMED = ("antibody", "cell_line")
_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)|(?<=\d)\.0+$")
_NUMBER = re.compile(r"\+?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# µm. Those of light microscopes are from 0.01 to 7; that of an image in nm, or in m, is not among them.
_PIXEL_SIZES = (0.001, 10.0)


def read_sheet(path: str | os.PathLike[str], labels: bool | str, pixel_size: float = 0.08) -> list[SheetRow]:
    """Read a sheet of fields, and warn of IDs, antibodies and cell lines that differ only in their spelling.

    Values such as NA and unknown in ``antibody`` and ``cell_line`` are read as empty, and labels without a class are
    left out, each with a warning.

    path: a table for ``read_delimited`` with the column ``ID``, possibly ``antibody``, ``cell_line``, ``split`` and
    ``pixel_size`` (µm), and others, for which see ``read_other_columns``
    labels: whether it has the column ``Label`` (see ``location_names.read_labels``), ``hpa2018`` if with the numbers of
    2018
    pixel_size: µm, of rows without one; nan for the one that their files say
    Raises SheetError naming the file and the line of a missing or duplicate column, an empty, duplicate or unusable ID,
    an unknown label or a pixel size that is not a number from 0.001 to 10, and the file if it has no fields or
    no labels with a class.
    """
    name = f"sheet {os.fspath(path)}"
    table = read_delimited(path, "sheet", ("ID", "Label") if labels else ("ID",), OPTIONAL)
    rows = read_rows(name, ((f"line {line}", cells) for line, cells in table), labels, pixel_size)
    if not rows:
        raise SheetError(f"{name}: lists no fields")
    return rows


def read_rows(
    name: str, table: Iterable[tuple[str, Mapping[str, str]]], labels: bool | str, pixel_size: float
) -> list[SheetRow]:
    """Read the rows of a sheet, or of a table that was made from file names, as ``read_sheet`` does.

    name: of the table, for messages
    table: where each row is, for messages, and its values by column
    Raises SheetError as ``read_sheet`` does, except for a table without rows.
    """
    rows: list[SheetRow] = []
    place_of: dict[str, str] = {}
    unknown: dict[str, list[str]] = {}
    left_out: list[tuple[str, ...]] = []
    for place, cells in table:
        id = cells["ID"]
        try:
            check_id(id)
            if id in place_of:
                raise ValueError(f"ID {id} is a duplicate of {place_of[id]}")
            row_labels, others = read_labels(cells["Label"], labels == "hpa2018") if labels else (None, ())
        except ValueError as error:
            of_id = f" (ID {shown(id)})" if id else ""
            raise SheetError(f"{name}, {place}{of_id}: {error}") from None
        place_of[id] = place
        left_out.append(others)
        size = cells.get("pixel_size", "")
        least, most = _PIXEL_SIZES
        if size and not (_NUMBER.fullmatch(size) and least <= float(size) <= most):
            wanted = f"a number of µm from {least:g} to {most:g}, such as 0.08"
            raise SheetError(f"{name}, {place} (ID {id}): pixel_size {size[:40]!r} is not {wanted}")
        carried = {column: cells[column] or None for column in CARRIED if column in cells}
        for column in carried.keys() & set(NAMED):
            if (value := carried[column]) and is_unknown(value):
                unknown.setdefault(column, []).append(value)
                carried[column] = None
        rows.append(SheetRow(id, row_labels, float(size) if size else pixel_size, **carried))
    _warn_of_left_out(name, rows, left_out)
    _warn_of_alike(name, place_of)
    for column in NAMED:
        if values := unknown.get(column):
            which = ", ".join(map(shown, dict.fromkeys(values)))
            number = f"{len(values)} field{'s' if len(values) > 1 else ''}"
            log.warning("%s: the %s of %s (%s) is read as empty", name, column, number, which)
        warn_of_spellings(name, column, (value for row in rows if (value := getattr(row, column)) is not None))
    return rows


def read_other_columns(path: str | os.PathLike[str], labels: bool | str) -> list[list[str]]:
    """Read the columns of a sheet that hpaloc does not use and only copies to its tables.

    A name that a table of hpaloc has gets ``sheet_`` in front; columns of one name are left out; each with a warning.

    path, labels: as in ``read_sheet``, which has read the sheet
    Returns a row of names, the first of them ``id``, and a row of texts for each field, sorted by id; nothing without
    such columns.
    """
    kind, needed = "sheet", ("ID", "Label") if labels else ("ID",)
    known = (*needed, *OPTIONAL)
    header = read_header(path, kind, known)
    columns = [column for column, count in Counter(header).items() if count == 1]
    columns = _others(columns, known)
    twice = _others([column for column, count in Counter(header).items() if count > 1], known)
    if twice:
        which = ", ".join(map(shown, twice))
        log.warning("sheet %s: several columns are named %s and are not copied", os.fspath(path), which)
    if not columns:
        return []
    table = read_delimited(path, kind, needed, OPTIONAL, columns, told=(*known, *columns))
    return copy_columns(f"sheet {os.fspath(path)}", columns, (cells for _, cells in table))


def _others(columns: Sequence[str], known: Sequence[str]) -> list[str]:
    letters = {letters_of(column) for column in known}
    return [column for column in columns if column and letters_of(column) not in letters]


def copy_columns(name: str, columns: Sequence[str], table: Iterable[Mapping[str, str]]) -> list[list[str]]:
    """Return columns as hpaloc copies them to its tables, in the form of ``read_other_columns``.

    name: of the table, for messages
    columns: other than those that hpaloc uses, which are left out
    table: the values by column of each row, also of ``ID``
    """
    columns = _others(columns, ("ID", *OPTIONAL))
    if not columns:
        return []
    names: dict[str, str] = {}
    for column in columns:
        # In HDF5 names are paths.
        copied = "".join(each if each.isprintable() and each != "/" else "_" for each in column)
        while _OURS.fullmatch(copied) or copied in (".", "..", *names.values()):
            copied = f"sheet_{copied}"
        names[column] = copied
        if copied != column:
            log.warning("%s: the column %s is copied as %s", name, shown(column), shown(copied))
    # HDF5 has no NUL in texts.
    rows = sorted([cells["ID"], *(cells[column].replace("\0", "\ufffd") for column in columns)] for cells in table)
    return [["id", *names.values()], *rows]


def _warn_of_left_out(name: str, rows: Sequence[SheetRow], left_out: Sequence[Sequence[str]]) -> None:
    """Warn of labels that have no class, and of fields that have no other, or one; SheetError if no field has another.

    left_out: the labels without a class of each row
    """
    if not any(left_out):
        return
    which, without = list_left_out(left_out), sum(row.labels == () for row in rows)
    one = sum(len(row.labels or ()) == 1 for row, others in zip(rows, left_out, strict=True) if others)
    if without == len(rows):
        raise SheetError(f"{name}: no field has a label among the {N_CLASSES} locations: {which}")
    log.warning(
        "%s: labels that are not among the %d locations are left out: %s; fields without another label: %d; "
        "fields that now have one label: %d",
        *(name, N_CLASSES, which, without, one),
    )


def _warn_of_alike(name: str, place_of: dict[str, str]) -> None:
    """Warn of IDs of a sheet that a file system, or a person, may take for the same."""
    first: dict[str, str] = {}
    pairs = [(other, id) for id in place_of if (other := first.setdefault(alike(id), id)) is not id]
    if pairs:
        one, two = pairs[0]
        more = f" (and {len(pairs) - 1} more such IDs)" if len(pairs) > 1 else ""
        log.warning(
            "%s, %s (ID %s): differs from ID %s in %s only in case, blanks or the form of a letter, "
            "and is read as a different field%s",
            *(name, place_of[two], shown(two), shown(one), place_of[one], more),
        )


def warn_of_spellings(name: str, column: str, values: Iterable[str]) -> None:
    """Warn of values of a column of the table ``name`` that a person may take for the same."""
    first: dict[str, str] = {}
    pairs = [
        (other, value)
        for value in dict.fromkeys(values)
        if (other := first.setdefault(_ZEROS.sub("", letters_of(value)), value)) != value
    ]
    if pairs:
        more = f" (and {len(pairs) - 1} more such values)" if len(pairs) > 1 else ""
        log.warning(
            "%s: the %s %s differs from %s only in case, blanks, _, -, leading zeros or .0, "
            "and is read as a different one%s",
            *(name, column, shown(pairs[0][1]), shown(pairs[0][0]), more),
        )
