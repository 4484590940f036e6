"""What is added to a model folder after its training: files with checksums of their own, and regressions in them."""

from pathlib import Path
from typing import Any

import numpy as np

from hpaloc.classes import NAMES
from hpaloc.network.folder import check_files, write_checksums


def _checksums_of(name: str) -> str:
    return f"{Path(name).stem}.checksums.json"


def add_checksums(folder: Path, name: str, *needed: str) -> None:
    """Write the checksums of a file that was added to a model folder, such as mixtures.checksums.json.

    They include the digest of the folder's own checksums.json, since what is added belongs to one network.

    needed: further files of the folder to which it belongs
    """
    write_checksums(folder, ("checksums.json", *needed, name), to=_checksums_of(name))


def find_addition(folder: Path, name: str, *needed: str) -> Path | None:
    """Return the path of a file that was added to a model folder, None if the folder has no such file.

    needed: as for ``add_checksums``

    Raises ModelError, naming the file, if it was changed or belongs to another network.
    """
    if not (folder / name).exists() and not (folder / _checksums_of(name)).exists():
        return None
    check_files(folder, _checksums_of(name), ("checksums.json", *needed, name))
    return folder / name


def check_regression(regression: Any, key: str) -> None:
    """Raise ValueError, naming the invalid key, unless a value of a JSON file is a regression of locations.

    It has classes (names), mean and scale (d,), coefficients (classes, d) and intercept (classes,), as lists.

    key: of the value in its file, which messages name
    """
    if not isinstance(regression, dict):
        raise ValueError(f"{key} is not a table")
    classes = regression.get("classes")
    if (
        not isinstance(classes, list)
        or not classes
        or sorted(map(str, classes)) != sorted(name for name in NAMES if name in classes)
    ):
        raise ValueError(f"{key}.classes is {classes!r}, not different locations")
    mean = regression.get("mean")
    width = len(mean) if isinstance(mean, list) else 0
    shapes = {"mean": (width,), "scale": (width,), "coefficients": (len(classes), width), "intercept": (len(classes),)}
    for name, shape in shapes.items():
        if not _are_numbers(regression.get(name), shape, above_zero=name == "scale"):
            raise ValueError(f"{key}.{name} is not {' x '.join(map(str, shape))} numbers")


def _are_numbers(value: Any, shape: tuple[int, ...], above_zero: bool) -> bool:
    try:
        values = np.array(value)
    except ValueError:
        # Rows of different lengths.
        return False
    # NumPy would convert texts of numbers here, and not where the regression is applied.
    if values.shape != shape or values.dtype.kind not in "iuf":
        return False
    return bool(np.isfinite(values).all() and (not above_zero or (values > 0).all()))
