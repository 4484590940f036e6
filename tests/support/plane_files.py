"""Files that hold many planes, for tests: their pixels, layouts and collections of them."""

import cv2
import numpy as np
import tifffile

from hpaloc.classes import COLOURS
from hpaloc.config import complete
from hpaloc.images import read_field
from hpaloc.manifests import read_manifest
from hpaloc.planes import Plane
from hpaloc.scan import scan_collection, write_scan

NAMES = ("Nuclei", "ER", "Tubulin", "GFP")
BY_NUMBER = {"red": 2, "green": 3, "blue": 0, "yellow": 1}
BY_NAME = {"red": "Tubulin", "green": "GFP", "blue": "Nuclei", "yellow": "ER"}
# What a stack of the tests has: time points, planes along z, channels.
T, Z, C = 2, 5, 4


def stack(*outer, dtype=np.uint16, side=(24, 40)):
    """Return planes of which no two are equal, without hot pixels."""
    shape = (*outer, *side)
    smooth = np.random.default_rng(1).random(shape)
    flat = smooth.reshape(-1, *side)
    for index, plane in enumerate(flat):
        flat[index] = cv2.GaussianBlur(plane, (0, 0), 3)
    flat -= flat.min()
    return (flat.reshape(shape) / flat.max() * np.iinfo(dtype).max).astype(dtype)


def field(path, channels, **options):
    return read_field({colour: Plane(str(path), channel=channels[colour], **options) for colour in COLOURS})


def write(path, data, **options):
    options = {"photometric": "minisblack", **options}
    tifffile.imwrite(path, data, **options)
    return path


def ome(axes, **metadata):
    return {"ome": True, "metadata": {"axes": axes, "Channel": {"Name": list(NAMES)}, **metadata}}


def imagej(axes, planes):
    return {"imagej": True, "metadata": {"axes": axes, "Labels": [*NAMES] * planes}, "photometric": None}


def scanned(collection, **config):
    return scan_collection("train", complete({"collections": {"train": collection}, **config}))


def planned(collection, **config):
    """Return the rows of the manifest of a collection."""
    write_scan(scanned(collection, **config), "results/sheet/train")
    return read_manifest("results/sheet/train/000.csv")
