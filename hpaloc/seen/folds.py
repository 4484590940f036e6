"""What the networks of a cross-validation have seen of the fields that they predict."""

from collections.abc import Sequence

import pandas as pd

from hpaloc.fold_table import is_in_fold
from hpaloc.seen.finding import find_seen, note_seen
from hpaloc.seen.record import Seen, unite_seen


def keep_criteria(
    cells: pd.DataFrame, fields: pd.DataFrame, columns: pd.DataFrame, group_by: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the tables of ``read_collection`` with the values of only those columns of the sheet that group fields.

    group_by: the columns whose values are kept; antibodies and genes are not kept without being named
    """
    own = fields.assign(**{name: None for name in ("antibody", "cell_line") if name not in group_by})
    return cells, own, columns[[name for name in columns if name in group_by]]


def find_seen_by_folds(
    tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    folds: pd.Series,
    examples: Sequence[pd.DataFrame],
    before: Sequence[Seen],
    group_by: Sequence[str],
    threads: int = 1,
) -> pd.DataFrame:
    """Find the fields and cells of a collection that the network which predicts them has seen, as ``find_seen`` does.

    tables: of the collection, from ``keep_criteria``
    folds: from ``read_folds``
    examples: those of each fold, from ``curation.curate``
    before: what all networks have seen before: a first training, starting weights
    group_by: as in ``find_seen``

    Returns a table ``finding.LEFT_OUT``.
    """
    cells, fields, columns = tables
    parts = []
    for fold, of_fold in enumerate(examples, 1):
        seen = unite_seen([*before, note_seen(cells, fields, columns, of_fold, group_by)])
        left_out = is_in_fold(fields, folds, fold)
        rows = (is_in_fold(cells, folds, fold), left_out, left_out)
        own = [table[of_table].reset_index(drop=True) for table, of_table in zip(tables, rows, strict=True)]
        parts.append(find_seen(own[0], own[1], own[2], seen, group_by, threads))
    return pd.concat(parts, ignore_index=True)
