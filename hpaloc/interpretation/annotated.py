"""The tables that users write for the interpretation: examples of their own labels, and known mixtures.

They are read without pandas, so that the planning process can check them.
"""

import os
from collections import Counter
from collections.abc import Iterable

from hpaloc.delimited import SheetError, read_delimited
from hpaloc.ids import cell_number, check_visible, shown
from hpaloc.location_names import read_label


def read_example_cells(path: str | os.PathLike[str]) -> dict[tuple[str, int], str]:
    """Read a table of labelled cells with field, cell and label (free text): return the label of each (field, cell).

    Raises SheetError naming file and line for a missing or duplicate column, a row with another length than the header,
    a field that is empty or has invisible characters, a cell that is not a positive integer of 32 bits or is a
    duplicate, and an empty label; and naming the file if it has no rows.
    """
    found: dict[tuple[str, int], str] = {}
    for line, row in read_delimited(path, "examples", ("field", "cell", "label")):
        field = row["field"]
        try:
            check_visible(field)
            cell = cell_number(row["cell"])
            if not row["label"]:
                raise ValueError(f"cell {cell} has no label")
            if (field, cell) in found:
                raise ValueError(f"cell {cell} appears twice")
        except ValueError as error:
            of_field = f" (field {shown(field)})" if field else ""
            raise SheetError(f"examples {os.fspath(path)}, line {line}{of_field}: {error}") from None
        found[field, cell] = row["label"]
    if not found:
        raise SheetError(f"examples {os.fspath(path)}: has no rows")
    return found


def read_mixed_fields(path: str | os.PathLike[str], of_2018: bool = False) -> dict[str, tuple[int, float, int, float]]:
    """Read a table of known mixtures with ID, label_a, fraction_a, label_b, fraction_b: return the four of each ID.

    of_2018: as in ``location_names.read_labels``
    Raises SheetError naming file and line for a missing or duplicate column, a row with another length than the header,
    an ID that is empty, has invisible characters or is a duplicate, an unknown label or one without a class, and
    fractions that are not numbers of at least 0, or are both 0; and naming the file if it has no rows.
    """
    found: dict[str, tuple[int, float, int, float]] = {}
    for line, row in read_delimited(path, "mixtures", ("ID", "label_a", "fraction_a", "label_b", "fraction_b")):
        id = row["ID"]
        try:
            check_visible(id)
            if id in found:
                raise ValueError("the field appears twice")
            labels = [_label(row[column], column, of_2018) for column in ("label_a", "label_b")]
            a, b = (_fraction(row[column], column) for column in ("fraction_a", "fraction_b"))
            if a + b == 0:
                raise ValueError("its fractions are both 0")
        except ValueError as error:
            of_id = f" (ID {shown(id)})" if id else ""
            raise SheetError(f"mixtures {os.fspath(path)}, line {line}{of_id}: {error}") from None
        found[id] = labels[0], a, labels[1], b
    if not found:
        raise SheetError(f"mixtures {os.fspath(path)}: has no rows")
    return found


def _label(text: str, column: str, of_2018: bool) -> int:
    try:
        return read_label(text, of_2018)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _fraction(text: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{column} {text[:40]!r} is not a number of at least 0")
    return value


def check_choice(labels: Iterable[str]) -> None:
    """Raise SheetError unless the examples have at least two labels, and each label at least two examples."""
    counts = Counter(labels)
    if len(counts) < 2:
        raise SheetError(f"few_shot.table: at least two labels are needed, found {len(counts)}")
    rarest = min(counts, key=lambda label: counts[label])
    if counts[rarest] < 2:
        raise SheetError(f"few_shot.table: the label {rarest!r} has only one example; add another")
