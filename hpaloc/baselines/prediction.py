"""The calls of baselines: what their regressions say of measured cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hpaloc.baselines.record import REGRESSIONS, load_baselines
from hpaloc.baselines.regression import apply_regression
from hpaloc.classes import N_CLASSES
from hpaloc.leaving_out import cell_index
from hpaloc.network.fusion import FUSED
from hpaloc.network.options import ModelError
from hpaloc.tables import PROBABILITIES


def read_measures(
    paths: Sequence[Path], names: Sequence[str] = tuple(REGRESSIONS)
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Read tables of ``measures.measure_shard``: field and cell, and the measurements of regressions, (n, d) float32.

    names: of the regressions
    """
    columns = [REGRESSIONS[name] for name in names]
    tables = [pq.read_table(path, columns=["field", "cell", *columns]) for path in paths]
    # The lists of a table without cells may have another length.
    tables = [table for table in tables if len(table)]
    ids = [table.select(["field", "cell"]).to_pandas() for table in tables]
    return pd.concat(ids or [pd.DataFrame({"field": [], "cell": []})], ignore_index=True), {
        column: np.concatenate([_matrix(table[column].combine_chunks()) for table in tables] or [np.zeros((0, 0))])
        for column in columns
    }


def _matrix(column: Any) -> np.ndarray:
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float32)


def predict_baselines(
    learned: Sequence[Mapping[str, Any]],
    paths: Sequence[Path],
    folds: pd.Series | None = None,
    names: Sequence[str] = tuple(REGRESSIONS),
) -> dict[str, pd.DataFrame]:
    """Return the probabilities of the locations of cells by each regression: field, cell, p_0 to p_18.

    learned: from ``load_baselines``: those of the one model folder or, with ``folds``, those of each fold
    paths: tables of ``measures.measure_shard``
    folds: from ``fold_table.read_folds``; the baselines of a fold predict the fields that it leaves out
    names: of the regressions

    Raises ModelError if the regressions take other measurements.
    """
    ids, measures = read_measures(paths, names)
    fold_of = np.ones(len(ids), int) if folds is None else ids["field"].map(folds).to_numpy()
    found = {}
    for name in names:
        column = REGRESSIONS[name]
        p = np.zeros((len(ids), N_CLASSES))
        for fold, baselines in enumerate(learned, 1):
            rows = fold_of == fold
            values, width = measures[column][rows], len(baselines[name]["mean"])
            if len(values) and values.shape[1] != width:
                raise ModelError(
                    f"baselines.json: {name} takes {width} measurements of a cell, but this version makes "
                    f"{values.shape[1]}"
                )
            if len(values):
                p[rows] = apply_regression(baselines[name], values)
        found[name] = pd.concat([ids, pd.DataFrame(p, columns=list(PROBABILITIES))], axis=1)
    return found


def regress_cells(model_dir: Path, paths: Sequence[Path], cells: Sequence[tuple[str, int]]) -> np.ndarray:
    """Return the probabilities of cells by the regression that is fused with a network, (n, 19) float64.

    paths: tables of ``measures.measure_shard``
    cells: field and id of each, in the order of the result

    Raises ModelError for a folder without baselines and naming a cell that is not measured, and as
    ``predict_baselines`` does.
    """
    baselines = load_baselines(model_dir)
    if baselines is None:
        raise ModelError(f"{model_dir / 'baselines.json'} is missing")
    predicted = predict_baselines([baselines], paths, names=[FUSED])[FUSED]
    rows = cell_index(predicted).get_indexer(cell_index(pd.DataFrame(cells, columns=["field", "cell"])))
    if (rows < 0).any():
        field, cell = cells[int(np.flatnonzero(rows < 0)[0])]
        raise ModelError(f"cell {cell} of field {field} is not measured")
    return predicted[list(PROBABILITIES)].to_numpy()[rows]
