"""The planes of a field as its files hold them, for the formats of images."""

import numpy as np

from hpaloc.classes import COLOURS
from hpaloc.images import read_channel
from hpaloc.manifests import ManifestRow, unchanged

# What each colour stains, as channels are named for people.
STAINS = {"red": "microtubules", "green": "protein", "blue": "nucleus", "yellow": "endoplasmic reticulum"}


def read_stack(row: ManifestRow) -> tuple[list[str], np.ndarray]:
    """Read the channels of a field as stored; unlike for segmentation and tiles, hot pixels stay.

    Returns the colours that there are, in the order of COLOURS, and their planes, (C, H, W) uint8 or uint16.
    Raises ImageError naming a file that cannot be read, ChangedError naming one that changed after the run was planned.
    """
    colours = [colour for colour in COLOURS if colour in row.paths]
    with unchanged(row.paths, row.states):
        return colours, np.stack([read_channel(row.paths[colour], colour) for colour in colours])
