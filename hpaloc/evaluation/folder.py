"""The evaluation folder: metrics.json, and the scores of all collections as tables."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpaloc.evaluation.collection import evaluate_collection, plain
from hpaloc.evaluation.left_out import check_unseen, count_left_out, plain_counts, without_cells, without_fields
from hpaloc.files import atomic_path, write_json
from hpaloc.layout import CollectionFiles
from hpaloc.masks import mask_path, read_mask
from hpaloc.matching import Matches, match_truth, read_truth
from hpaloc.resampling import REPLICATES
from hpaloc.tables import PROBABILITIES, write_table

# The controls of ``controls.control_examples``; metrics.json names each.
CONTROLS = ("tile_random_split", "class_sorted_split", "shuffled_labels")

# The table ``seen.finding.LEFT_OUT`` of a collection if training has seen nothing of it.
_NOTHING = pd.DataFrame({"field": [], "cell": [], "kind": []}).astype({"field": object, "cell": int, "kind": object})
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
    seen: Mapping[str, Path | str] | None = None,
    temperature: float | None = None,
    baselines: Mapping[str, Mapping[str, pd.DataFrame]] | None = None,
    shares: np.ndarray | None = None,
) -> dict[str, Any]:
    """Score collections, write the evaluation folder, and return its metrics.

    The folder gets metrics.json; per_class.csv, confusion.csv, reliability.csv, pooled.csv, baselines.csv, scores.csv
    and left_out.csv, each with a first column ``collection``; and {collection}/cells.parquet, the true labels of each
    scored cell (field, cell, true_labels). Without any collection the tables have no rows, and metrics.json has
    ``unscored``, the reason.

    controls: the scores of the control trainings by name, see ``read_controls``; one of CONTROLS that was not trained
        is null
    seen: the table ``seen.finding.LEFT_OUT`` of each collection, which is not scored; None if it is not known what
        trained the model, and ``left_out`` of each collection is then null
    temperature: of the model, see ``calibration.calibrate``
    baselines: of each collection, see ``evaluate_collection``
    shares: (19,) float, of the locations in the training cells

    Raises SeenError naming a collection if nothing of it is left, ValueError for a control of an unknown name, and as
    ``evaluate_collection`` does.
    """
    unknown = set(controls or {}) - set(CONTROLS)
    if unknown:
        raise ValueError(f"unknown control {min(unknown)!r}, not one of {', '.join(CONTROLS)}")
    metrics: dict[str, Any] = {}
    tables: dict[str, list[pd.DataFrame]] = {}
    for files in collections:
        name = files.name
        known = _NOTHING if seen is None else pd.read_parquet(seen[name])
        cells, fields, truth, matches, left_out = _read_unseen(files, known, threads)
        learned = None if baselines is None else baselines[name]
        result = evaluate_collection(cells, fields, truth, matches, replicates, seed, temperature, learned, shares)
        metrics[name] = result.metrics | {"left_out": None if seen is None else plain_counts(left_out)}
        write_table(out_dir / name / "cells.parquet", result.cells[["field", "cell", "true_labels"]])
        for table, rows in {"left_out": left_out, **result.tables}.items():
            tables.setdefault(table, []).append(rows.assign(collection=name)[["collection", *rows.columns]])
    if not collections:
        metrics["unscored"] = unscored
        tables = {table: [rows] for table, rows in _empty_tables().items()}
    metrics["controls"] = {name: plain((controls or {}).get(name)) for name in CONTROLS}
    for table, parts in tables.items():
        filled = [rows for rows in parts if len(rows)] or parts[:1]
        with atomic_path(out_dir / f"{table}.csv") as temporary:
            pd.concat(filled, ignore_index=True).to_csv(temporary, index=False, float_format="%.6g")
    write_json(out_dir / "metrics.json", metrics)
    return metrics


def _read_unseen(
    files: CollectionFiles, seen: pd.DataFrame, threads: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame | None, Matches | None, pd.DataFrame]:
    """Return cells, fields, true cells and their matches without what training has seen, and what that is, counted."""
    cells, fields = (pd.read_parquet(files.path(kind)) for kind in ("pooled_cells", "pooled_fields"))
    truth = read_truth(files, fields["field"]) if files.true_cells else None
    check_unseen(files.name, fields, truth, seen)
    left_out = count_left_out(cells, seen)
    cells, fields = without_fields(cells, seen), without_fields(fields, seen)
    matches = None
    if truth is not None:
        truth = without_fields(truth, seen)
        matches = _match_truth(files, fields, truth, threads)
    cells, truth, matches = without_cells(cells, truth, matches, seen)
    return cells, fields, truth, matches, left_out


def _empty_tables() -> dict[str, pd.DataFrame]:
    """Return the tables without rows, with the columns that they have otherwise."""
    cells, fields = (pd.DataFrame(columns=columns) for columns in _PREDICTED_COLUMNS)
    tables = evaluate_collection(cells.astype(dict.fromkeys(PROBABILITIES, float)), fields).tables
    tables = tables | {"left_out": count_left_out(cells, _NOTHING)}
    return {table: rows.iloc[:0].reindex(columns=["collection", *rows]) for table, rows in tables.items()}


def _match_truth(files: CollectionFiles, fields: pd.DataFrame, truth: pd.DataFrame, threads: int) -> Matches:
    """Return the overlap of the true masks of some fields, those with a cell in ``truth``, with the predicted masks."""
    shard_of, status_of = (dict(zip(fields["field"], fields[column], strict=True)) for column in ("shard", "status"))

    def read_predicted(name: str) -> np.ndarray | None:
        if status_of[name] != "ok":
            return None
        return read_mask(mask_path(files.path("segmentation", shard_of[name]), name, "cell"))

    return match_truth(files, truth, shard_of, read_predicted, threads)
