"""Inferred and known fractions of locations in mixed fields."""

import numpy as np
import pandas as pd

from hpaloc.classes import NAMES
from hpaloc.mixtures.fractions import FRACTIONS


def compare_fractions(fields: pd.DataFrame, mixtures: pd.DataFrame) -> pd.DataFrame:
    """List the inferred and the known fractions of locations in fields of mixed proteins.

    A field without cells counts as found 0 and 0.

    fields: field, fraction_0..fraction_18 (``pooling.aggregate`` with prototypes)
    mixtures: ID, label_a, fraction_a, label_b, fraction_b, one row per field

    Returns one row for each field and each of its two locations: field, pair, location, true, found.
    Raises ValueError naming a mixed field that is not in ``fields``.
    """
    row = pd.Index(fields["field"]).get_indexer(pd.Index(mixtures["ID"]))
    if (row < 0).any():
        raise ValueError(f"field {mixtures['ID'].iloc[int(row.argmin())]}: is mixed, but is not among the fields")
    fractions = np.nan_to_num(fields[list(FRACTIONS)].to_numpy(np.float64))
    pairs = zip(mixtures["label_a"], mixtures["label_b"], strict=True)
    named = pd.DataFrame({"field": mixtures["ID"], "pair": [f"{NAMES[a]} + {NAMES[b]}" for a, b in pairs]})
    sides = [
        named.assign(
            location=mixtures[f"label_{side}"],
            true=mixtures[f"fraction_{side}"],
            found=fractions[row, mixtures[f"label_{side}"]],
        )
        for side in ("a", "b")
    ]
    return pd.concat(sides).sort_index(kind="stable").reset_index(drop=True)
