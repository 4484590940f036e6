"""The cells of a shard with their calls, for the formats that have both."""

import os

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hpaloc.classes import NAMES
from hpaloc.tables import TableError, calling_columns


def called_cells(cells: str | os.PathLike[str], predictions: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the cells of a shard with their calls.

    cells, predictions: the shard's tables of cells and of predictions
    Returns the columns of the table of cells without ``rle``, those of the predictions without ``embedding``, and
    ``called``, the name of the location with the greatest probability, as in cells.h5ad.
    Raises TableError if the two tables do not hold the same cells in the same order.
    """
    measured = pq.read_table(cells).drop_columns("rle").to_pandas()
    names = [name for name in pq.read_schema(predictions).names if name != "embedding"]
    predicted = pq.read_table(predictions, columns=names).to_pandas()
    keys = ["field", "cell"]
    if measured[keys].to_numpy().tolist() != predicted[keys].to_numpy().tolist():
        raise TableError(f"{os.fspath(predictions)}: its cells are not those of {os.fspath(cells)}")
    likeliest = predicted[calling_columns(predicted)].to_numpy().argmax(axis=1) if len(predicted) else []
    called = pd.Series(np.array(NAMES, dtype=object)[likeliest], index=measured.index, name="called", dtype=object)
    return pd.concat([measured, predicted.drop(columns=keys), called], axis=1)
