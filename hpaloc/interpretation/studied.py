"""The table of the studied cells, which every step of an interpretation reads."""

import pandas as pd
import pyarrow as pa

STUDIED = pa.schema(
    [
        ("collection", pa.string()),
        ("field", pa.string()),
        ("cell", pa.int32()),
        ("key", pa.int64()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
        ("label", pa.int32()),
        ("group", pa.string()),
        ("seen", pa.bool_()),
        ("mapped", pa.bool_()),
        ("few_shot", pa.bool_()),
    ]
)


def chosen_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table STUDIED that are mapped or in the few-shot experiment, renumbered."""
    return cells[cells["mapped"] | cells["few_shot"]].reset_index(drop=True)
