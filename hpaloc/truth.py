"""True labels of single cells: the tables in which people give them."""

import os

from hpaloc.classes import format_labels, parse_labels
from hpaloc.delimited import SheetError, read_delimited
from hpaloc.ids import cell_number, check_visible, shown


def read_true_cells(path: str | os.PathLike[str]) -> dict[str, dict[int, str]]:
    """Read a table of true cells with ID, cell (the number in the true mask) and Label (indices joined by ``|``).

    Returns {field: {cell: label string of ``classes.format_labels``}}.
    Raises SheetError naming the file if it has no rows, and the line of a missing or duplicate column, a row whose
    length is not that of the header, an ID that is empty or has invisible characters, an unknown label, and a cell that
    is not a positive integer of 32 bits or appears twice.
    """
    found: dict[str, dict[int, str]] = {}
    # Parsed once: cells share a few label strings.
    known: dict[str, str] = {}
    for line, row in read_delimited(path, "truth", ("ID", "cell", "Label")):
        id, label = row["ID"], row["Label"]
        try:
            check_visible(id)
            cell = cell_number(row["cell"])
            if label not in known:
                known[label] = format_labels(parse_labels(label))
            of_field = found.setdefault(id, {})
            if cell in of_field:
                raise ValueError(f"cell {cell} appears twice")
        except ValueError as error:
            of_id = f" (ID {shown(id)})" if id else ""
            raise SheetError(f"truth {os.fspath(path)}, line {line}{of_id}: {error}") from None
        of_field[cell] = known[label]
    if not found:
        raise SheetError(f"truth {os.fspath(path)}: has no rows")
    return found
