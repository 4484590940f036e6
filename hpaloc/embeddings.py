"""The embeddings of cells, as the tables of predictions hold them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


def read_embeddings(path: Path) -> np.ndarray:
    """Read the embeddings, (n, d) float32, of the n cells of one shard's predictions, in their order."""
    column = pq.read_table(path, columns=["embedding"])["embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size).astype(np.float32)
