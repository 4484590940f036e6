"""The table of the folds of a cross-validation, and the rows of other tables that a fold leaves out."""

import os

import numpy as np
import pandas as pd
import pyarrow as pa

FOLDS = pa.schema([("field", pa.string()), ("group", pa.string()), ("fold", pa.int32())])


def read_folds(path: str | os.PathLike[str]) -> pd.Series:
    """Read a table FOLDS; return the fold that leaves out each field, counted from 1, indexed by field."""
    return pd.read_parquet(path).set_index("field")["fold"]


def is_in_fold(table: pd.DataFrame, folds: pd.Series, fold: int) -> np.ndarray:
    """Return which rows of a table with ``field`` are of fields that a fold leaves out, (n,) bool.

    folds: from ``read_folds``
    """
    return (table["field"].map(folds) == fold).to_numpy()
