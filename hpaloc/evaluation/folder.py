"""The evaluation folder: metrics.json, and the scores of all collections as tables."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpaloc.evaluation.collection import evaluate_collection, plain
from hpaloc.files import atomic_path, write_json
from hpaloc.layout import CollectionFiles
from hpaloc.masks import mask_path, read_mask
from hpaloc.matching import Matches, match_truth, read_truth
from hpaloc.resampling import REPLICATES
from hpaloc.tables import PROBABILITIES, write_table

# The controls of ``controls.control_examples``; metrics.json names each.
CONTROLS = ("tile_random_split", "class_sorted_split", "shuffled_labels")

# The columns of cells and of fields that `evaluate_collection` reads.
_PREDICTED_COLUMNS = (("field", "cell", "labels", *PROBABILITIES), ("field", "sheet_labels", "antibody"))


def read_controls(configs: Mapping[str, Path | str], model: Path | str | None = None) -> dict[str, dict[str, Any]]:
    """Read the scores of control trainings on their own validation parts.

    configs: the config.json of each control's model folder, by name
    model: that of the real training, whose scores on its own validation part are added to each as ``real_training``

    Returns the ``scores`` of each config.json.
    Raises ValueError naming a file without scores.
    """

    def scores(path: Path | str) -> dict[str, Any]:
        found = json.loads(Path(path).read_text(encoding="utf-8")).get("scores")
        if found is None:
            raise ValueError(f"{path}: this model folder has no scores; train it with this version of hpaloc")
        return found

    real = {"real_training": scores(model)} if configs and model else {}
    return {name: scores(path) | real for name, path in configs.items()}


def evaluate(
    collections: Sequence[CollectionFiles],
    out_dir: Path,
    controls: Mapping[str, Mapping[str, Any]] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    threads: int = 1,
    unscored: str | None = None,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Score collections, write the evaluation folder, and return its metrics.

    The folder gets metrics.json and per_class.csv, confusion.csv, reliability.csv, pooled.csv, scores.csv, each with a
    first column ``collection``; and {collection}/cells.parquet, the true labels of each scored cell (field, cell,
    true_labels). Without any collection the tables have no rows, and metrics.json has ``unscored``, the reason.

    controls: the scores of the control trainings by name, see ``read_controls``; one of CONTROLS that was not trained
        is null
    temperature: of the model, see ``calibration.calibrate``

    Raises ValueError for a control of an unknown name, and as ``evaluate_collection`` does.
    """
    metrics: dict[str, Any] = {}
    tables: dict[str, list[pd.DataFrame]] = {}
    for files in collections:
        name = files.name
        cells, fields = (pd.read_parquet(files.path(kind)) for kind in ("pooled_cells", "pooled_fields"))
        truth, matches = _match_truth(files, fields, threads)
        result = evaluate_collection(cells, fields, truth, matches, replicates, seed, temperature)
        metrics[name] = result.metrics
        write_table(out_dir / name / "cells.parquet", result.cells[["field", "cell", "true_labels"]])
        for table, rows in result.tables.items():
            tables.setdefault(table, []).append(rows.assign(collection=name)[["collection", *rows.columns]])
    if not collections:
        metrics["unscored"] = unscored
        cells, fields = (pd.DataFrame(columns=columns) for columns in _PREDICTED_COLUMNS)
        empty = evaluate_collection(cells.astype(dict.fromkeys(PROBABILITIES, float)), fields).tables
        tables = {table: [rows.iloc[:0].reindex(columns=["collection", *rows])] for table, rows in empty.items()}
    unknown = set(controls or {}) - set(CONTROLS)
    if unknown:
        raise ValueError(f"unknown control {min(unknown)!r}, not one of {', '.join(CONTROLS)}")
    metrics["controls"] = {name: plain((controls or {}).get(name)) for name in CONTROLS}
    for table, parts in tables.items():
        with atomic_path(out_dir / f"{table}.csv") as temporary:
            pd.concat(parts, ignore_index=True).to_csv(temporary, index=False, float_format="%.6g")
    write_json(out_dir / "metrics.json", metrics)
    return metrics


def _match_truth(
    files: CollectionFiles, fields: pd.DataFrame, threads: int
) -> tuple[pd.DataFrame, Matches] | tuple[None, None]:
    """Return the true cells of a collection's fields, and the overlap of their masks with the predicted masks."""
    if not files.true_cells:
        return None, None
    truth = read_truth(files, fields["field"])
    shard_of, status_of = (dict(zip(fields["field"], fields[column], strict=True)) for column in ("shard", "status"))

    def read_predicted(name: str) -> np.ndarray | None:
        if status_of[name] != "ok":
            return None
        return read_mask(mask_path(files.path("segmentation", shard_of[name]), name, "cell"))

    return truth, match_truth(files, truth, shard_of, read_predicted, threads)
