"""What a model folder keeps of its baselines: regressions learned from the cells that trained its network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from hpaloc.baselines.regression import apply_regression, check_regression
from hpaloc.classes import N_CLASSES, NAMES
from hpaloc.files import write_json
from hpaloc.network.folder import check_files, read_json, read_settings, write_checksums
from hpaloc.network.options import ModelError

# The regressions, and the column of the tables of ``measures.measure_shard`` that each takes.
REGRESSIONS = {"logistic_regression": "measures", "frozen_network": "outputs"}


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


def training_shares(folders: Sequence[Path]) -> np.ndarray | None:
    """Return the share of each location in the training cells, (19,) float, the mean of all model folders.

    Cells of several locations count for each. None if there is no folder, or one does not say it.

    Raises ModelError for an invalid folder.
    """
    shares = [_training_shares(folder) for folder in folders]
    known = [share for share in shares if share is not None]
    return np.mean(known, axis=0) if shares and len(known) == len(shares) else None


def _training_shares(folder: Path) -> np.ndarray | None:
    config, _ = read_settings(folder)
    examples = config.get("examples")
    counted = examples.get("train") if isinstance(examples, dict) else None
    if not isinstance(counted, dict):
        return None
    counts = [counted.get(name, 0) for name in NAMES]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ModelError(f"{folder / 'config.json'}: examples.train is not a table of the cells of each location")
    return np.array(counts, np.float64) / sum(counts) if any(counts) else None


def write_baselines(folder: Path, baselines: Mapping[str, Any]) -> None:
    """Write the result of ``learning.learn_baselines`` to baselines.json of a model folder, with its checksums.

    They include the digest of the folder's own checksums.json, since the cells are those that trained its network.
    """
    write_json(folder / "baselines.json", baselines)
    write_checksums(folder, ("checksums.json", "baselines.json"), to="baselines.checksums.json")


def load_baselines(folder: Path) -> dict[str, Any] | None:
    """Return the baselines of a model folder, None if it has none.

    Raises ModelError, naming file and key, if they are invalid, were changed, or belong to another network.
    """
    path = folder / "baselines.json"
    if not path.exists() and not (folder / "baselines.checksums.json").exists():
        return None
    check_files(folder, "baselines.checksums.json", ("checksums.json", "baselines.json"))
    baselines = read_json(path, ("validation_accuracy", *REGRESSIONS))
    for name in REGRESSIONS:
        try:
            check_regression(baselines[name])
        except ValueError as error:
            raise ModelError(f"{path}: {name}: {error}") from None
    return baselines


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
