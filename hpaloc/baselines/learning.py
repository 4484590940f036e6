"""The training of baselines, on the cells that trained a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpaloc.baselines.prediction import read_measures
from hpaloc.baselines.record import REGRESSIONS, write_baselines
from hpaloc.baselines.regression import apply_regression, fit_regression
from hpaloc.examples import LABEL_COLUMNS, PARTS
from hpaloc.leaving_out import cell_index
from hpaloc.progress import log

# More cells would take minutes and memory, and hardly change the coefficients.
_MOST_CELLS = 40_000


class BaselineError(ValueError):
    """The measured cells are not those of the examples; the message names a cell."""


def learn_baselines(model_dir: Path, examples: Path, paths: Sequence[Path], seed: int = 0) -> None:
    """Learn the regressions from the training cells of a network, and write them into its model folder.

    Every example of the part train counts with its weight, except synthetic ones, since cells are not measured with
    dimmed light. If there are more than 40,000, 40,000 are drawn at random. ``validation_accuracy`` is the share of
    the validation cells of one location that a regression calls right.

    examples: results/dataset/examples.parquet
    paths: tables of ``measures.measure_shard`` of all shards of the collection that trains

    Raises BaselineError naming an example that was not measured.
    """
    table = pd.read_parquet(examples)
    table = table[table["origin"] != "synthetic"]
    ids, measures = read_measures(paths)
    rows = cell_index(ids).get_indexer(cell_index(table))
    if (rows < 0).any():
        field, cell = table.iloc[int(np.flatnonzero(rows < 0)[0])][["field", "cell"]]
        raise BaselineError(f"cell {cell} of field {field} trains the network, but was not measured for the baselines")
    labels, weights = table[list(LABEL_COLUMNS)].to_numpy(int), table["weight"].to_numpy(float)
    train, validation = (np.flatnonzero(table["part"] == part) for part in PARTS)
    if len(train) > _MOST_CELLS:
        train = np.sort(np.random.default_rng(seed).choice(train, _MOST_CELLS, replace=False))
    single = validation[labels[validation].sum(axis=1) == 1]
    learned: dict[str, Any] = {"cells": len(train), "validation_accuracy": {}}
    for name, column in REGRESSIONS.items():
        known = measures[column][rows]
        learned[name] = fit_regression(known[train], labels[train], weights[train])
        if len(single):
            called = apply_regression(learned[name], known[single]).argmax(axis=1)
            learned["validation_accuracy"][name] = float((called == labels[single].argmax(axis=1)).mean())
        log.info("%s: %d measurements of %d cells", name, known.shape[1], len(train))
    write_baselines(Path(model_dir), learned)
