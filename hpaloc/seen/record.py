"""What a model folder says of the fields and cells that trained its network: digests, and no names."""

import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as parts_of
from pathlib import Path

import numpy as np

from hpaloc.files import atomic_path, unpacks_within
from hpaloc.network.additions import add_checksums, find_addition
from hpaloc.network.options import ModelError

# How many perceptual hashes a field has, and how many measurements describe a cell.
N_HASHES, N_MEASURES = 3, 14


@dataclass(frozen=True)
class Seen:
    """What trained a network: its training and validation fields, and all of their cells.

    ids: (n,) uint64, digests of the fields' ids
    images: (n,) uint64, digests of the pixels of their channels
    hashes: (n, 3) uint64, the perceptual hashes of the reference colours, 0 for a colour that is lacking
    values: (n,) uint64, digests of antibodies, genes and values of the columns that ``curation.group_by`` names
    cells: (n, 14) int16, see ``finding.describe_cells``
    """

    ids: np.ndarray
    images: np.ndarray
    hashes: np.ndarray
    values: np.ndarray
    cells: np.ndarray


# Of millions of cells, some hundred megabytes.
_MOST_BYTES = 2**32
_SHAPES = {
    "ids": (np.uint64, ()),
    "images": (np.uint64, ()),
    "hashes": (np.uint64, (N_HASHES,)),
    "values": (np.uint64, ()),
    "cells": (np.int16, (N_MEASURES,)),
}


def unite_seen(parts: Sequence[Seen]) -> Seen:
    """Return what several trainings have seen together."""
    return sort_seen(Seen(*(np.concatenate([getattr(part, of.name) for part in parts]) for of in parts_of(Seen))))


def sort_seen(seen: Seen) -> Seen:
    """Return each array of what was seen sorted, without duplicates."""
    # The order of the fields would say which digests belong together.
    return Seen(*(np.unique(getattr(seen, of.name), axis=0) for of in parts_of(Seen)))


def write_seen(path: Path, seen: Seen) -> None:
    """Write what trained a network to a file seen.npz."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **vars(seen))


def read_seen(path: Path) -> Seen:
    """Read a file seen.npz; raise ModelError, naming it, if it is invalid."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not unpacks_within(archive, _MOST_BYTES):
                raise ValueError("it unpacks to more than digests take, or is not compressed by Deflate")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _SHAPES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: does not say what trained the network ({error})") from None
    for name, (dtype, shape) in _SHAPES.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape[1:] != shape or array.ndim != len(shape) + 1:
            raise ModelError(f"{path}: {name} is {array.dtype} of shape {array.shape}")
    return Seen(**arrays)


def add_seen(folder: Path, path: Path) -> None:
    """Copy a file seen.npz into a model folder, and write its checksums."""
    with atomic_path(folder / "seen.npz") as temporary:
        shutil.copyfile(path, temporary)
    add_checksums(folder, "seen.npz")


def load_seen(folder: Path) -> Seen | None:
    """Return what the network of a model folder has seen, None if the folder does not say it.

    Raises ModelError, naming the file, if it is invalid, was changed, or belongs to another network.
    """
    path = find_addition(folder, "seen.npz")
    return None if path is None else read_seen(path)
