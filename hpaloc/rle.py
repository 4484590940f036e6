"""Run-length codec of cell masks: the COCO string form, and the Kaggle form that wraps it."""

import base64
import binascii
import os
import zlib
from itertools import pairwise

import numpy as np

# The widest field of the Human Protein Atlas has 4096 px a side. An image or a mask that claims more pixels than this
# is broken or hostile, and is refused before it takes memory.
MAX_PIXELS = 2**30
# A run takes at most 4 letters in such an image; no mask of a cell has this many letters.
_MAX_LETTERS = 2**26

# The masks of a field: its height and width in px, and the COCO string of each cell.
RunLengths = tuple[int, int, dict[int, str]]


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a mask path names a table of run-length masks (CSV, Parquet), not one field's image."""
    return os.fspath(path).lower().endswith((".csv", ".parquet"))


def _string(runs: np.ndarray, height: int, width: int) -> str:
    # Plans read no runs, and are made where pycocotools is not installed (envs/driver.yaml).
    from pycocotools import mask as coco

    return coco.frPyObjects({"counts": runs.tolist(), "size": [height, width]}, height, width)["counts"].decode("ascii")


def run_lengths(counts: str) -> np.ndarray:
    """Read the run lengths, in pixels, from a COCO run-length string.

    The string has base-32 digits, low digit first, and from the fourth run on the difference to the run two before
    (rleToString of the COCO API).

    Returns (n,) int64: background, foreground, background … in column order.
    Raises ValueError if the string does not have that form.
    """
    digits = np.frombuffer(counts.encode("ascii", errors="replace"), np.uint8).astype(np.int64) - 48
    if digits.size == 0 or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("not a COCO run-length string")
    last = np.flatnonzero((digits & 32) == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    length = last - first + 1
    if length.max() > 8:
        raise ValueError("not a COCO run-length string: a run is longer than any image")
    place = 5 * (np.arange(digits.size) - np.repeat(first, length))
    runs = np.add.reduceat((digits & 31) << place, first)
    runs -= np.where(digits[last] & 16, np.int64(1) << (5 * length), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if (runs < 0).any():
        raise ValueError("not a COCO run-length string: a run is negative")
    return runs


def encode_labels(labels: np.ndarray) -> dict[int, str]:
    """Encode all objects of a label image in one pass over the image.

    labels: (H, W), any integer type, 0 is background
    Returns {id: COCO run-length string}, ids in ascending order; each string is that of the mask ``labels == id``;
    its runs go down the columns, and the first is background.
    Raises ValueError if the image is not two-dimensional or is empty in one direction.
    """
    if labels.ndim != 2 or 0 in labels.shape:
        raise ValueError(f"a label image has two dimensions of at least one pixel, not shape {labels.shape}")
    height, width = labels.shape
    column_order = labels.ravel(order="F")
    start = np.concatenate(([0], np.flatnonzero(column_order[1:] != column_order[:-1]) + 1))
    value = column_order[start]
    length = np.diff(start, append=column_order.size)
    inside = value != 0
    start, length, value = start[inside], length[inside], value[inside]
    order = np.argsort(value, kind="stable")
    start, length, value = start[order], length[order], value[order]
    edges = np.concatenate((np.flatnonzero(np.diff(value, prepend=value[:1] - 1 if value.size else 0)), [value.size]))
    strings: dict[int, str] = {}
    for a, b in pairwise(edges):
        bounds = np.empty(2 * (b - a) + 2, dtype=np.int64)
        bounds[0], bounds[-1] = 0, column_order.size
        bounds[1:-1:2] = start[a:b]
        bounds[2:-1:2] = start[a:b] + length[a:b]
        runs = np.diff(bounds)
        if runs[-1] == 0:
            runs = runs[:-1]
        strings[int(value[a])] = _string(runs, height, width)
    return strings


def to_kaggle(counts: str) -> str:
    """Wrap a COCO run-length string in zlib and base64, the mask form of a Kaggle PredictionString."""
    return base64.b64encode(zlib.compress(counts.encode("ascii"), zlib.Z_BEST_COMPRESSION)).decode("ascii")


def from_kaggle(text: str) -> str:
    """Unwrap the mask of a Kaggle PredictionString into a COCO run-length string.

    Raises ValueError if the text is not base64 of zlib, or unpacks to more than any mask.
    """
    unpacker = zlib.decompressobj()
    try:
        counts = unpacker.decompress(base64.b64decode(text, validate=True), _MAX_LETTERS)
        if unpacker.unconsumed_tail:
            raise ValueError("not a mask: unpacks to more letters than any mask has")
        if not unpacker.eof:
            raise ValueError("not a zlib and base64 mask: cut short")
        return counts.decode("ascii")
    except (binascii.Error, zlib.error, UnicodeError) as error:
        raise ValueError(f"not a zlib and base64 mask: {error}") from error
