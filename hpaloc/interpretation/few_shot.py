"""Learning new locations from a few cells: the experiment on held-out classes, and the tool for a user's labels."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from joblib import delayed
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier

from hpaloc.embeddings import read_embeddings
from hpaloc.files import atomic_path, write_json, write_text
from hpaloc.interpretation.annotated import check_choice, read_example_cells
from hpaloc.interpretation.processes import in_processes
from hpaloc.interpretation.separation import standardised
from hpaloc.progress import log, track
from hpaloc.resampling import share_interval, wilson_interval
from hpaloc.tables import write_table

LEARNERS = ("logistic_regression", "knn", "random_forest")
# Share of a class's groups that gives examples in a draw; the cells of the others are classified.
EXAMPLE_SHARE = 0.5
FEW_SHOT_COLUMNS = ["features", "learner", "examples", "draw", "used", "n_cells", "balanced_accuracy"]
_TREES, _NEIGHBOURS, _FOLDS = 100, 5, 5
# A mean over draws needs fewer trees than a label, and forests take most of the time of the draws.
_TREES_OF_A_DRAW = 50


class FewShotError(ValueError):
    """The table of examples cannot be learned from; the message names its row, field, cell or label."""


def learner(name: str, fewest: int, seed: int, trees: int = _TREES) -> BaseEstimator:
    """Return an unfitted learner of LEARNERS for standardised features and classes of at least ``fewest`` examples.

    ``trees`` is for the random forest. Raises ValueError for another name.
    """
    if name == "logistic_regression":
        return LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000)
    if name == "knn":
        return KNeighborsClassifier(min(_NEIGHBOURS, fewest), weights="distance")
    if name == "random_forest":
        return RandomForestClassifier(trees, class_weight="balanced", random_state=seed, n_jobs=1)
    raise ValueError(f"unknown learner {name!r}, not one of {', '.join(LEARNERS)}")


def draw_examples(
    labels: np.ndarray, groups: np.ndarray, number: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``number`` example cells per class, and the cells to classify: two arrays of row numbers, (m,) int64 each.

    Half of each class's groups (at least one, at most all but one) give examples; all cells of the groups that give
    none are classified, so no cell is classified by examples of its own field. The first of its classes decides the
    side of a group of several classes; a class that is then without examples is not classified. A class with fewer
    cells in its groups gives all.

    labels: (n,) classes
    groups: (n,) what the two sides may not share
    """
    classes = np.unique(labels)
    giving: set[Any] = set()
    telling: set[Any] = set()
    for label in classes:
        own = generator.permutation(np.unique(groups[labels == label])).tolist()
        wanted = min(max(1, round(EXAMPLE_SHARE * len(own))), len(own) - 1)
        free = [group for group in own if group not in giving | telling]
        more = max(0, wanted - sum(group in giving for group in own))
        giving |= set(free[:more])
        telling |= set(free[more:])
    gives = np.isin(groups, list(giving))
    examples = [generator.permutation(np.flatnonzero(gives & (labels == label)))[:number] for label in classes]
    chosen = np.concatenate(examples)
    return chosen, np.flatnonzero(~gives & np.isin(labels, labels[chosen]))


def few_shot_curves(
    spaces: Mapping[str, np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    numbers: Sequence[int],
    draws: int,
    seed: int,
    processes: int = 1,
) -> pd.DataFrame:
    """Measure how well classes are learned from 1, 2, 5 … examples each, in several spaces of features.

    All spaces and learners have the same draws. Features are standardised over all cells, as in ``assign_labels``,
    since the features of the cells to classify are known. Classes in fewer than two groups are left out, and so are
    draws in which fewer than two classes have both examples and cells to classify.

    spaces: name to features (n, d) float of the same cells
    labels, groups: (n,) of any type

    Returns a row for each draw: features, learner, examples (wanted per class), draw, used (examples in total), n_cells
    (classified), balanced_accuracy, the mean over classes of the share that is right; without rows if nothing is left.
    """
    held = pd.Series(groups).groupby(labels).nunique()
    kept = np.isin(labels, held.index[held > 1])
    if len(held[held > 1]) < 2:
        log.warning("fewer than two classes are in two groups: there is no few-shot experiment")
        return pd.DataFrame(columns=FEW_SHOT_COLUMNS)
    for label in held.index[held < 2]:
        log.warning("class %s is in one group only, and is left out of the few-shot experiment", label)
    labels, groups = labels[kept], groups[kept]
    spaces = {name: standardised(features[kept]) for name, features in spaces.items()}
    generator = np.random.default_rng(seed)
    drawn = [
        (number, draw, *draw_examples(labels, groups, number, generator)) for number in numbers for draw in range(draws)
    ]
    asked = len(drawn)
    drawn = [draw for draw in drawn if len(np.unique(labels[draw[3]])) > 1]
    if len(drawn) < asked:
        log.warning("%d of %d draws, with fewer than two classes to classify, are left out", asked - len(drawn), asked)
    jobs = (delayed(_told)(spaces, labels, examples, told, seed) for _, _, examples, told in drawn)
    found = track(in_processes(jobs, processes), len(drawn), "draws")
    rows = [
        (space, name, number, draw, len(examples), len(told), balanced)
        for (number, draw, examples, told), scores in zip(drawn, found, strict=True)
        for (space, name), balanced in scores.items()
    ]
    return pd.DataFrame(rows, columns=FEW_SHOT_COLUMNS)


def _told(
    spaces: Mapping[str, np.ndarray], labels: np.ndarray, examples: np.ndarray, told: np.ndarray, seed: int
) -> dict[tuple[str, str], float]:
    """Return the balanced accuracy of every learner in every space for one draw."""
    true = labels[told]
    fewest = int(np.bincount(np.unique(labels[examples], return_inverse=True)[1]).min())
    scores = {}
    for space, features in spaces.items():
        for name in LEARNERS:
            model = learner(name, fewest, seed, _TREES_OF_A_DRAW).fit(features[examples], labels[examples])
            right = model.predict(features[told]) == true
            scores[space, name] = float(np.mean([right[true == label].mean() for label in np.unique(true)]))
    return scores


def read_examples(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of labelled cells, see ``annotated.read_example_cells``: return field str, cell int, label str."""
    rows = [(*key, label) for key, label in read_example_cells(path).items()]
    return pd.DataFrame(rows, columns=["field", "cell", "label"])


def predicted_examples(examples: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Return the examples (field, cell, label) whose field is among ``cells`` (field, cell); warn about others.

    Raises FewShotError if there are none.
    """
    here = examples["field"].isin(cells["field"].unique())
    elsewhere = examples.loc[~here, "field"].unique()
    first = ", ".join(elsewhere[:10])
    if len(examples) and not here.any():
        raise FewShotError(f"few_shot.table: none of its fields is among the predictions, for example {first}")
    if len(elsewhere):
        log.warning(
            "%d fields of few_shot.table are not among the predictions, and are left out: %s", len(elsewhere), first
        )
    return examples[here].reset_index(drop=True)


def example_rows(examples: pd.DataFrame, cells: pd.DataFrame) -> np.ndarray:
    """Return the row of each example in ``cells`` (field, cell), (n,) int.

    Raises FewShotError naming an unknown field or cell, SheetError unless two labels have two examples each.
    """
    index = pd.MultiIndex.from_arrays([cells["field"], cells["cell"].astype(int)])
    rows = index.get_indexer(pd.MultiIndex.from_frame(examples[["field", "cell"]]))
    for place in np.flatnonzero(rows < 0):
        field, cell = examples.iloc[place][["field", "cell"]]
        of_field = cells.loc[cells["field"] == field, "cell"]
        if of_field.empty:
            raise FewShotError(f"few_shot.table: there is no field {field!r} among the predictions")
        raise FewShotError(
            f"few_shot.table: field {field} has no cell {cell}; its {len(of_field)} cells are numbered "
            f"{of_field.min()} to {of_field.max()}"
        )
    check_choice(examples["label"])
    return rows


def cross_validated(
    features: np.ndarray, labels: np.ndarray, fields: np.ndarray, name: str, seed: int
) -> dict[str, Any]:
    """Classify every example by a learner without examples of its field, and return how often that is right.

    features: (n, d) float, standardised
    labels, fields: (n,) str

    Returns accuracy, low, high (95 % interval, by field), n (the classified examples), by_label, and
    ``by``: ``field`` if at least two labels have examples in two fields, so that learners from other fields know them;
    else ``cell``, with examples of one field on both sides, which makes the accuracy too high.
    """
    spread = pd.Series(fields).groupby(labels).nunique()
    across = bool((spread > 1).sum() >= 2)
    owners = fields if across else np.arange(len(labels))
    folds = min(_FOLDS, len(np.unique(owners)), int(np.unique(labels, return_counts=True)[1].max()))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    called = np.full(len(labels), None, object)
    with warnings.catch_warnings():
        # Labels with fewer examples than folds are common here, and handled below.
        warnings.simplefilter("ignore", UserWarning)
        parts = list(splitter.split(features, labels, owners))
    for known, asked in parts:
        present, counts = np.unique(labels[known], return_counts=True)
        if len(present) < 2:
            continue
        # A label without examples here cannot be learned, so its cells are not classified.
        asked = asked[np.isin(labels[asked], present)]
        if len(asked):
            model = learner(name, int(counts.min()), seed).fit(features[known], labels[known])
            called[asked] = model.predict(features[asked])
    told = np.array([call is not None for call in called])
    right = called[told] == labels[told]
    result: dict[str, Any] = {"by": "field" if across else "cell", "n": int(told.sum())}
    if not told.any():
        return result | {"accuracy": None, "low": None, "high": None, "by_label": {}}
    low, high = share_interval(right, fields[told]) or wilson_interval(float(right.sum()), len(right))
    by_label = {str(label): float(right[labels[told] == label].mean()) for label in np.unique(labels[told])}
    return result | {"accuracy": float(right.mean()), "low": low, "high": high, "by_label": by_label}


def assign_labels(
    cells: pd.DataFrame, features: np.ndarray, examples: pd.DataFrame, name: str, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Give every cell one of the examples' labels, by a learner on frozen features.

    cells: field, cell (n rows)
    features: (n, d) float
    examples: as ``read_examples`` returns them
    name: one of LEARNERS

    Returns field, cell, label, given (whether it was an example), probability (of the label), p_<label> for each label,
    similarity (cosine of its standardised features with those of the nearest example of its label: low for a cell
    unlike all examples), and a summary with the counts and the cross-validated accuracy.
    Raises FewShotError, see ``predicted_examples`` and ``example_rows``.
    """
    examples = predicted_examples(examples, cells)
    rows = example_rows(examples, cells)
    labels = examples["label"].to_numpy(str)
    names, counts = np.unique(labels, return_counts=True)
    # Similarity is by the scale of all cells, not of the few examples.
    scaled = standardised(features)
    fields = examples["field"].to_numpy(str)
    checked = cross_validated(scaled[rows], labels, fields, name, seed)
    model = learner(name, int(counts.min()), seed).fit(scaled[rows], labels)
    probabilities = model.predict_proba(scaled)
    best = probabilities.argmax(axis=1)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
    alike = np.stack([(scaled @ scaled[rows[labels == label]].T).max(axis=1) for label in names], axis=1)
    table = cells[["field", "cell"]].assign(label=names[best], given=False)
    table.loc[table.index[rows], "given"] = True
    table.loc[table.index[rows], "label"] = labels
    place = np.searchsorted(names, table["label"].to_numpy(str))
    at = np.arange(len(table))
    table["probability"] = probabilities[at, place].astype(np.float32)
    table["similarity"] = alike[at, place].astype(np.float32)
    for index, label in enumerate(names):
        table[f"p_{label}"] = probabilities[:, index].astype(np.float32)
    summary = {
        "learner": name,
        "cells": len(table),
        "examples": dict(zip(names.tolist(), counts.tolist(), strict=True)),
        "fields_of_examples": {label: len(np.unique(fields[labels == label])) for label in names},
        "labelled": table.loc[~table["given"], "label"].value_counts().to_dict(),
        "cross_validation": checked,
    }
    return table, summary


def summary_page(summary: Mapping[str, Any], collection: str, model: str) -> str:
    """Return the Markdown page about what was learned from which examples, and how reliable it is."""
    checked = summary["cross_validation"]
    if checked["accuracy"] is None:
        sure = "No example could be classified by the others: the accuracy of these labels is unknown."
    else:
        sure = (
            f"Examples classified by a learner that saw none of their {checked['by']}: {checked['accuracy']:.2f} of "
            f"{checked['n']} right (95 % interval {checked['low']:.2f} to {checked['high']:.2f})."
        )
    if checked["by"] == "cell":
        sure += (
            " Examples of one field are on both sides, since fewer than two labels have examples in two fields: this "
            "is an upper bound; label cells of more fields for an estimate."
        )
    lines = [
        f"| {_in_table(label)} | {count} | {summary['fields_of_examples'][label]} | "
        + (f"{checked['by_label'][label]:.2f}" if label in checked["by_label"] else "not classified")
        + f" | {summary['labelled'].get(label, 0)} |"
        for label, count in summary["examples"].items()
    ]
    return "\n".join(
        [
            f"# Labels from a few cells: {collection}",
            "",
            f"{summary['learner'].replace('_', ' ').capitalize()} on the frozen embeddings of {model}.",
            "",
            sure,
            "",
            "| label | examples | their fields | right when classified | other cells with this label |",
            "|---|---|---|---|---|",
            *lines,
            "",
            "Every cell gets one of these labels, even a cell that shows something else: `probability` only compares "
            "them. `similarity` to the nearest example is low for such cells; sort by it before you trust a label.",
            "",
        ]
    )


def _in_table(text: str) -> str:
    """Escape free text for a Markdown table."""
    return re.sub(r"([\\`*|<\[])", r"\\\1", " ".join(text.split()))


def read_features(paths: Sequence[Path]) -> tuple[pd.DataFrame, np.ndarray]:
    """Read the cells (field, cell) and embeddings (n, d) float32 of a collection's shards of predictions."""
    cells = [pq.read_table(path, columns=["field", "cell"]).to_pandas() for path in paths]
    return pd.concat(cells, ignore_index=True), np.concatenate([read_embeddings(path) for path in paths])


def write_labels(labelled: pd.DataFrame, summary: Mapping[str, Any], collection: str, model: str, folder: Path) -> None:
    """Write the result of ``assign_labels`` as cells.parquet, cells.csv, summary.json and README.md in ``folder``."""
    write_table(folder / "cells.parquet", labelled)
    with atomic_path(folder / "cells.csv") as temporary:
        labelled.to_csv(temporary, index=False, float_format="%.4g")
    write_json(folder / "summary.json", summary)
    write_text(folder / "README.md", summary_page(summary, collection, model))
