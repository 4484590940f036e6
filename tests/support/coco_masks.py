"""Masks as COCO run-length strings and back, by pycocotools."""

import numpy as np
from pycocotools import mask as coco


def encode(mask):
    """Return the COCO string of a mask, (H, W) of any type, non-zero inside."""
    return coco.encode(np.asfortranarray(mask != 0, dtype=np.uint8))["counts"].decode("ascii")


def decode(counts, height, width):
    """Return the (height, width) bool mask of a COCO string."""
    return coco.decode({"counts": counts.encode("ascii"), "size": [height, width]}).astype(bool)
