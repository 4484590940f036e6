"""What training has seen of a collection, among the rows of a table of cells."""

import numpy as np
import pandas as pd


def is_left_out(cells: pd.DataFrame, seen: pd.DataFrame) -> np.ndarray:
    """Return which rows of a table with ``field`` and ``cell`` training has seen, (n,) bool.

    seen: a table ``seen.finding.LEFT_OUT``
    """
    whole = cells["field"].isin(seen.loc[seen["cell"] == 0, "field"]).to_numpy()
    return whole | cell_index(cells).isin(cell_index(seen))


def cell_index(table: pd.DataFrame, cell: str = "cell") -> pd.MultiIndex:
    """Return the index of field and cell of the rows of a table; cell: the column of the cell's id."""
    return pd.MultiIndex.from_arrays([table["field"], table[cell].astype(np.int64)])
