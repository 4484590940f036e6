"""The calls of baselines: what their regressions say of measured cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hpaloc.baselines.record import REGRESSIONS
from hpaloc.baselines.regression import apply_regression
from hpaloc.classes import N_CLASSES
from hpaloc.network.options import ModelError


def read_measures(paths: Sequence[Path]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Read tables of ``measures.measure_shard``: field and cell, and the columns of measurements, (n, d) float32."""
    tables = [pq.read_table(path) for path in paths]
    # The lists of a table without cells may have another length.
    tables = [table for table in tables if len(table)]
    ids = [table.select(["field", "cell"]).to_pandas() for table in tables]
    return pd.concat(ids or [pd.DataFrame({"field": [], "cell": []})], ignore_index=True), {
        column: np.concatenate([_matrix(table[column].combine_chunks()) for table in tables] or [np.zeros((0, 0))])
        for column in REGRESSIONS.values()
    }


def _matrix(column: Any) -> np.ndarray:
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


def predict_baselines(baselines: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """Return the probabilities of the locations of cells by each regression: field, cell, p_0 to p_18.

    baselines: from ``load_baselines``
    paths: tables of ``measures.measure_shard``

    Raises ModelError if the regressions take other measurements.
    """
    ids, measures = read_measures(paths)
    found = {}
    for name, column in REGRESSIONS.items():
        values, width = measures[column], len(baselines[name]["mean"])
        if len(ids) and values.shape[1] != width:
            raise ModelError(
                f"baselines.json: {name} takes {width} measurements of a cell, but this version makes {values.shape[1]}"
            )
        p = apply_regression(baselines[name], values) if len(ids) else np.zeros((0, N_CLASSES))
        found[name] = pd.concat([ids, pd.DataFrame(p, columns=[f"p_{index}" for index in range(N_CLASSES)])], axis=1)
    return found


def predict_folds(
    learned: Sequence[Mapping[str, Any]], paths: Sequence[Path], fold_of: pd.Series
) -> dict[str, pd.DataFrame]:
    """Return the result of ``predict_baselines``, for each field by the baselines of the fold that leaves it out.

    learned: the baselines of each fold, from ``load_baselines``
    fold_of: the fold of each field, from 1, indexed by field

    Raises ModelError if the regressions take other measurements.
    """
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in REGRESSIONS}
    for fold, baselines in enumerate(learned, 1):
        for name, table in predict_baselines(baselines, paths).items():
            found[name].append(table[table["field"].map(fold_of) == fold])
    return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}
