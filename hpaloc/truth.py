"""True labels of single cells: the tables in which people give them."""

import logging
import os

from hpaloc.classes import N_CLASSES, format_labels
from hpaloc.delimited import SheetError, read_delimited
from hpaloc.ids import cell_number, check_visible, shown
from hpaloc.location_names import list_left_out, read_labels

log = logging.getLogger("hpaloc")


def read_true_cells(path: str | os.PathLike[str], of_2018: bool = False) -> dict[str, dict[int, str]]:
    """Read a table of true cells with ID, cell (the number in the true mask) and Label (see ``read_labels``).

    A label without a class is left out with a warning, and so is a cell without any other.

    of_2018: as in ``read_labels``
    Returns {field: {cell: label string of ``classes.format_labels``}}.
    Raises SheetError naming the file if it has no rows, and the line of a missing or duplicate column, a row whose
    length is not that of the header, an ID that is empty or has invisible characters, an unknown label, and a cell that
    is not a positive integer of 32 bits or appears twice.
    """
    found: dict[str, dict[int, str]] = {}
    left_out: dict[tuple[str, int], tuple[str, ...]] = {}
    for line, row in read_delimited(path, "truth", ("ID", "cell", "Label")):
        id, label = row["ID"], row["Label"]
        try:
            check_visible(id)
            cell = cell_number(row["cell"])
            labels, others = read_labels(label, of_2018)
            of_field = found.setdefault(id, {})
            if cell in of_field:
                raise ValueError(f"cell {cell} appears twice")
        except ValueError as error:
            of_id = f" (ID {shown(id)})" if id else ""
            raise SheetError(f"truth {os.fspath(path)}, line {line}{of_id}: {error}") from None
        of_field[cell] = format_labels(labels)
        if others:
            left_out[id, cell] = others
    if not found:
        raise SheetError(f"truth {os.fspath(path)}: has no rows")
    if not left_out:
        return found
    which = list_left_out(left_out.values())
    kept = {id: own for id, cells in found.items() if (own := {cell: text for cell, text in cells.items() if text})}
    if not kept:
        raise SheetError(f"truth {os.fspath(path)}: no cell has a label among the {N_CLASSES} locations: {which}")
    without = sum(map(len, found.values())) - sum(map(len, kept.values()))
    one = sum(found[id][cell].isdigit() for id, cell in left_out)
    log.warning(
        "truth %s: labels that are not among the %d locations are left out: %s; cells without another label, which are "
        "left out too: %d; cells that now have one label: %d",
        *(os.fspath(path), N_CLASSES, which, without, one),
    )
    return kept
