"""The split of fields into a training and a validation part, group by group."""

import math
from collections.abc import Sequence

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit

from hpaloc.classes import N_CLASSES, format_labels, label_matrix
from hpaloc.examples import PARTS


def _move_for_classes(classes: np.ndarray, sizes: np.ndarray, validation: np.ndarray, free: np.ndarray) -> None:
    """Move groups, in place, until each class that two or more groups have is in both parts."""
    for target in (True, False):
        totals = classes.sum(axis=0)
        for label in np.argsort(totals, kind="stable"):
            there = validation == target
            if totals[label] < 2 or classes[there, label].any():
                continue
            left = classes[~there].sum(axis=0)
            candidates = [
                group
                for group in np.flatnonzero(~there & free & classes[:, label])
                if (left[classes[group] & (totals >= 2)] >= 2).all()
            ]
            if candidates:
                validation[min(candidates, key=lambda group: (sizes[group], classes[group].sum(), group))] = target


def _move_for_size(
    classes: np.ndarray, sizes: np.ndarray, validation: np.ndarray, free: np.ndarray, target: int, fraction: float
) -> None:
    """Move groups, in place, until the validation part has ``target`` fields, or as near as whole groups allow."""
    totals = np.maximum(classes.T @ sizes, 1)
    while True:
        excess = int(sizes[validation & free].sum()) - target
        if excess == 0:
            return
        source = validation if excess > 0 else ~validation
        movable = free & source & (sizes < 2 * abs(excess))
        # No class may vanish from the part that a group leaves.
        held = classes[source].sum(axis=0)
        movable &= ~(classes & (held < 2)).any(axis=1)
        rows = np.flatnonzero(movable)
        if not len(rows):
            return
        surplus = (classes[validation].T @ sizes[validation]) / totals - fraction
        worth = (classes[rows] @ surplus) / classes[rows].sum(axis=1) * np.sign(excess)
        group = rows[np.lexsort((rows, -worth, sizes[rows] > abs(excess)))[0]]
        validation[group] = not validation[group]
        if abs(int(sizes[validation & free].sum()) - target) >= abs(excess):
            validation[group] = not validation[group]
            return


def split_groups(
    label_sets: Sequence[tuple[int, ...]],
    groups: Sequence[str] | np.ndarray,
    validation_fraction: float,
    seed: int,
    fixed: Sequence[str | None] | None = None,
) -> np.ndarray:
    """Divide fields into a training and a validation part, group by group.

    Groups are stratified over their label sets and classes by iterative stratification (Sechidis et al. 2011). A group
    that shares no label set with another group goes to training, unless too little would be left for validation; the
    validation part has ceil(fraction x fields of the other groups) fields, or as near as whole groups allow. Each class
    of two or more groups ends in both parts, even if that moves a group without shared label sets; a few groups with
    several labels may not allow it.

    label_sets, groups: one entry per field
    validation_fraction: with 0, only the fields that ``fixed`` puts there validate
    fixed: the part of each field if the sheet names one, else None
    Returns (n,) str, train or validation.
    Raises ValueError if there are fewer than two groups, or ``fixed`` has another name or divides a group.
    """
    names, group_of = np.unique(np.asarray(groups, str), return_inverse=True)
    n_groups = len(names)
    if n_groups < 2 and validation_fraction > 0:
        raise ValueError("a split into training and validation needs at least two groups of labelled fields")
    sizes = np.bincount(group_of)
    set_names, set_of = np.unique([format_labels(labels) for labels in label_sets], return_inverse=True)
    holds = np.zeros((n_groups, len(set_names)), bool)
    holds[group_of, set_of] = True
    classes = np.zeros((n_groups, N_CLASSES), bool)
    np.logical_or.at(classes, group_of, label_matrix(label_sets).astype(bool))

    validation = np.zeros(n_groups, bool)
    free = np.ones(n_groups, bool)
    for row, part in enumerate(fixed if fixed is not None else ()):
        if part is None:
            continue
        if part not in PARTS:
            raise ValueError(f"the split column has {part!r}, expected one of {', '.join(PARTS)}")
        group = group_of[row]
        if not free[group] and validation[group] != (part == "validation"):
            raise ValueError(f"the split column divides the group of field {names[group]}")
        free[group] = False
        validation[group] = part == "validation"

    if validation_fraction == 0:
        return np.where(validation[group_of], "validation", "train")
    shared = holds[:, holds.sum(axis=0) > 1].any(axis=1)
    drawn = free & shared
    if sizes[drawn].sum() < 2 * validation_fraction * sizes[free].sum():
        drawn = free.copy()
    members = np.flatnonzero(drawn)
    if len(members) > 1:
        strata = np.concatenate((holds[members][:, holds[members].sum(axis=0) > 1], classes[members]), axis=1)
        splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=validation_fraction, random_state=seed)
        ((_, chosen),) = splitter.split(np.empty((len(members), 1)), strata.astype(int))
        validation[members[chosen]] = True
        target = math.ceil(round(validation_fraction * sizes[members].sum(), 9))
        _move_for_size(classes, sizes, validation, drawn, target, validation_fraction)
    _move_for_classes(classes, sizes, validation, free)
    if not validation.any() or validation.all():
        # Too few groups for any class to have two: the smallest group validates.
        movable = np.flatnonzero(free)
        if not len(movable):
            raise ValueError("the split column leaves one part without fields")
        smallest = movable[np.argmin(sizes[movable])]
        validation[smallest] = not validation[smallest]
    return np.where(validation[group_of], "validation", "train")
