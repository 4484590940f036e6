"""The parts of the examples of a training: those that train, those that validate, and those that judge a decision."""

import logging
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from hpaloc.examples import LABEL_COLUMNS
from hpaloc.training.settings import TrainingError

log = logging.getLogger("hpaloc")

# If no cell validates, the first this many training cells, whose order is random, are scored instead.
JUDGED_TRAINING_CELLS = 1024


def read_parts(examples: Path, head: str) -> dict[str, pd.DataFrame]:
    """Return the examples that train and those that validate, in the order of the record files.

    Raises TrainingError if they cannot be trained on.
    """
    columns = ["part", "field", "cell", "origin", "record_shard", "position", *LABEL_COLUMNS]
    table = pq.read_table(examples, columns=columns).to_pandas().sort_values(["record_shard", "position"])
    parts = {part: table[table["part"] == part] for part in ("train", "validation")}
    if parts["train"].empty:
        raise TrainingError(f"{examples}: there is no example of the part train")
    if head == "softmax" and (table[list(LABEL_COLUMNS)].sum(axis=1) != 1).any():
        raise TrainingError(
            "train.head: softmax needs exactly one location a cell; use sigmoid, or labels: single in the curation"
        )
    log.info("%d training cells, %d validation cells", len(parts["train"]), len(parts["validation"]))
    if parts["validation"].empty:
        log.warning(
            "no cell validates: every epoch runs, the last is kept, and thresholds are fitted on training cells"
        )
    return parts


def judged_examples(parts: Mapping[str, pd.DataFrame]) -> tuple[str, pd.DataFrame]:
    """Return the part to which a decision is fitted, and its examples: the first that train if no cell validates.

    parts: from ``read_parts``
    """
    if parts["validation"].empty:
        return "train", parts["train"][:JUDGED_TRAINING_CELLS]
    return "validation", parts["validation"]
