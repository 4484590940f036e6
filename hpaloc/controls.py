"""Control trainings: the training examples with a split or labels that are wrong on purpose."""

import numpy as np
import pandas as pd

from hpaloc.classes import parse_labels
from hpaloc.examples import LABEL_COLUMNS
from hpaloc.shuffles import shuffled_labels

_SORTED_SHARE = 0.075


def control_examples(examples: pd.DataFrame, control: str, fraction: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Return the examples of a control training, whose score shows how far the evaluation can be trusted.

    - ``tile_random_split``: ``fraction`` of the cells validate, drawn regardless of their field, as in much of the
      literature. A score above that of the grouped split is leakage: cells of one field share label, stain and light.
    - ``class_sorted_split``: the first 7.5 % of the cells sorted by class validate, which is one class or two, as in
      the paper's notebook.
    - ``shuffled_labels``: the split stays, and every group takes the labels of another. The score is then chance,
      unless something leaks.

    examples: field, cell, copy, part, group, labels and label_0..label_18 (``examples.EXAMPLES``)

    Returns the changed rows in the order of ``examples``; copies of a cell never validate and are dropped if their
    cell does.
    Raises ValueError for an unknown control.
    """
    changed = examples.reset_index(drop=True)
    if control == "shuffled_labels":
        columns = ["labels", *LABEL_COLUMNS]
        changed[columns] = changed[columns].to_numpy()[shuffled_labels(changed["group"].to_numpy(), seed)]
        return changed.astype({column: examples[column].dtype for column in columns})
    cell = pd.factorize(pd.MultiIndex.from_frame(changed[["field", "cell"]]))[0]
    _, first = np.unique(cell, return_index=True)
    if control == "tile_random_split":
        order, share = np.random.default_rng(seed).permutation(len(first)), fraction
    elif control == "class_sorted_split":
        classes = [parse_labels(text)[0] for text in changed["labels"].iloc[first]]
        order, share = np.argsort(classes, kind="stable"), _SORTED_SHARE
    else:
        raise ValueError(f"unknown control {control!r}")
    validates = np.zeros(len(first), bool)
    validates[order[: round(len(first) * share)]] = True
    part = np.where(validates[cell], "validation", "train")
    changed["part"] = part
    return changed[(part == "train") | (changed["copy"] == 0)].reset_index(drop=True)
