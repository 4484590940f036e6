"""What became of each field of a shard: its row in the table beside the masks."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpaloc.files import FileNameError
from hpaloc.images import ImageError
from hpaloc.masks import MaskError
from hpaloc.rejection import check_rejected
from hpaloc.tables import SEGMENTED, to_table, write_table

log = logging.getLogger("hpaloc")


def new_row(field: str, pixel_size: float) -> dict[str, Any]:
    """Return the row of SEGMENTED of a field that has no masks yet; pixel_size: µm."""
    row = {"field": field, "height": 0, "width": 0, "dtype": "", "pixel_size": pixel_size, "n_cells": 0}
    return row | {"status": "ok", "stage": "segment", "reason": ""}


def reason_of(error: BaseException) -> str:
    """Return why a field is rejected, from the error of reading or segmenting it."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return f"does not fit in the memory of its worker ({text or type(error).__name__})"
    if isinstance(error, ImageError | MaskError | ValueError | FileNameError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def write_outcome(
    rows: Sequence[Mapping[str, Any]], out_dir: str | os.PathLike[str], max_rejected_fraction: float
) -> None:
    """Write the rows of a shard's fields as fields.parquet (schema SEGMENTED) into a folder.

    Raises TooManyRejected, after writing, if more than ceil(max_rejected_fraction x fields) are rejected.
    """
    write_table(Path(out_dir, "fields.parquet"), to_table(rows, SEGMENTED))
    rejected = [(row["field"], row["reason"]) for row in rows if row["status"] == "rejected"]
    for field, reason in rejected:
        log.warning("rejected %s: %s", field, reason)
    check_rejected(rejected, len(rows), max_rejected_fraction)
