"""The folds of a cross-validation: whole groups of fields, in each fold about as many of every location."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from sklearn.model_selection import KFold

from hpaloc.classes import N_CLASSES, label_matrix, parse_labels, unite_labels
from hpaloc.grouping import group_fields


def label_fields(
    fields: pd.DataFrame, cells: pd.DataFrame, truth: pd.DataFrame | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the labels of each labelled field that has cells: those of its true cells, if they are known.

    fields: field, labels
    cells: field of every cell
    truth: from ``matching.read_truth``
    """
    texts = fields.set_index("field")["labels"] if truth is None else truth.groupby("field")["labels"].agg(unite_labels)
    with_cells = set(cells["field"])
    return {str(field): parse_labels(text) for field, text in texts.items() if text and field in with_cells}


def divide_fields(
    fields: pd.DataFrame,
    labels: Mapping[str, tuple[int, ...]],
    n_folds: int,
    group_by: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Divide the fields of a collection into folds, group by group.

    Groups with labelled fields are stratified over their locations by iterative stratification (Sechidis et al. 2011),
    and over the part that the sheet gives them. The other groups are spread at random.

    fields: as ``joining.read_fields`` returns them, with the columns that ``group_by`` names
    labels: from ``label_fields``
    group_by: see ``grouping.group_fields``

    Returns a row of ``fold_table.FOLDS`` for each field, in their order; folds are numbered from 1.
    Raises ValueError if there are too few groups of labelled fields for each fold to have one and, without any of the
    folds, for two to be left.
    """
    groups, _ = group_fields(fields, group_by)
    names, group_of = np.unique(groups, return_inverse=True)
    strata = np.zeros((len(names), N_CLASSES + 1), int)
    matrix = label_matrix([labels.get(field, ()) for field in fields["field"]])
    np.maximum.at(strata[:, :N_CLASSES], group_of, matrix.astype(int))
    labelled = np.flatnonzero(strata.any(axis=1))
    if "split" in fields:
        strata[group_of[(fields["split"] == "validation").to_numpy()], N_CLASSES] = 1
    fold_of = np.zeros(len(names), np.int32)
    if len(labelled) >= n_folds:
        splitter = MultilabelStratifiedKFold(n_folds, shuffle=True, random_state=seed)
        for fold, (_, rows) in enumerate(splitter.split(strata[labelled], strata[labelled]), 1):
            fold_of[labelled[rows]] = fold
    sizes = np.bincount(fold_of[labelled], minlength=n_folds + 1)[1:]
    if not sizes.all() or len(labelled) - sizes.max() < 2:
        raise ValueError(
            f"config key evaluation.folds: {n_folds} folds need more than {len(labelled)} groups of labelled fields "
            "(curation.group_by); ask for fewer folds, or add fields"
        )
    others = np.flatnonzero(fold_of == 0)
    for fold, rows in enumerate(_spread(len(others), n_folds, seed), 1):
        fold_of[others[rows]] = fold
    return pd.DataFrame({"field": fields["field"], "group": groups, "fold": fold_of[group_of]})


def _spread(number: int, n_folds: int, seed: int) -> list[np.ndarray]:
    """Return the rows of each fold of ``number`` rows without labels."""
    if number < n_folds:
        return [np.array([row]) for row in range(number)]
    return [rows for _, rows in KFold(n_folds, shuffle=True, random_state=seed).split(np.empty(number))]
