"""The table of training examples: its schema, and its order, which is that of the record files."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from hpaloc.classes import N_CLASSES
from hpaloc.progress import log
from hpaloc.tables import to_table

LABEL_COLUMNS = tuple(f"label_{index}" for index in range(N_CLASSES))
PARTS = ("train", "validation")

RECORDS_PER_FILE = 2048

EXAMPLES = pa.schema(
    [
        ("part", pa.string()),
        ("record_shard", pa.int32()),
        ("position", pa.int32()),
        ("field", pa.string()),
        ("cell", pa.int32()),
        ("key", pa.int64()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("group", pa.string()),
        ("origin", pa.string()),
        ("copy", pa.int32()),
        ("copies", pa.int32()),
        ("green_scale", pa.float32()),
        ("weight", pa.float32()),
        ("labels", pa.string()),
        *((column, pa.uint8()) for column in LABEL_COLUMNS),
    ]
)


def place(examples: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Shuffle each part and give each example its record file and its position in it.

    examples: columns of EXAMPLES; record_shard and position may be absent and are replaced
    Returns the examples in the order of the record files.
    """
    placed = []
    for part in PARTS:
        members = examples[examples["part"] == part]
        members = members.iloc[rng.permutation(len(members))]
        number = np.arange(len(members))
        # Files of nearly equal length rather than a short last one.
        files = max(1, math.ceil(len(members) / RECORDS_PER_FILE))
        starts = np.arange(files) * len(members) // files
        shard = np.searchsorted(starts, number, side="right") - 1
        placed.append(members.assign(record_shard=shard.astype(np.int32), position=(number - starts[shard])))
    return to_table(pd.concat(placed, ignore_index=True), EXAMPLES).to_pandas()


def without_classes(examples: pd.DataFrame, held_out: Sequence[int]) -> pd.DataFrame:
    """Return the examples of groups that have none of the ``held_out`` classes (indices).

    A dark cell next to a cell of such a class, which trains as Negative, would show its stain and light.

    Raises ValueError if nothing is left to train on.
    """
    held = examples[[f"label_{label}" for label in held_out]].to_numpy().any(axis=1)
    beside = examples["group"].isin(examples.loc[held, "group"]).to_numpy()
    kept = examples[~beside].reset_index(drop=True)
    if not (kept["part"] == "train").any():
        raise ValueError("interpretation.held_out: no training example is left without these classes")
    log.info(
        "%d of %d examples are of held-out classes, %d more are of their groups",
        *(int(held.sum()), len(examples), int((beside & ~held).sum())),
    )
    return kept
