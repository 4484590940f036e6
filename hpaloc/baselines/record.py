"""What a model folder keeps of its baselines: regressions learned from the cells that trained its network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpaloc.classes import NAMES
from hpaloc.files import write_json
from hpaloc.network.folder import check_files, read_json, read_settings, write_checksums
from hpaloc.network.options import ModelError

# The regressions, and the column of the tables of ``measures.measure_shard`` that each takes.
REGRESSIONS = {"logistic_regression": "measures", "frozen_network": "outputs"}


def training_shares(folders: Sequence[Path]) -> np.ndarray | None:
    """Return the share of each location in the training cells, (19,) float, the mean of all model folders.

    Cells of several locations count for each. None if there is no folder, or one does not say it.

    Raises ModelError for an invalid folder.
    """
    shares = [_training_shares(folder) for folder in folders]
    known = [share for share in shares if share is not None]
    return np.mean(known, axis=0) if shares and len(known) == len(shares) else None


def _training_shares(folder: Path) -> np.ndarray | None:
    config, _ = read_settings(folder)
    examples = config.get("examples")
    counted = examples.get("train") if isinstance(examples, dict) else None
    if not isinstance(counted, dict):
        return None
    counts = [counted.get(name, 0) for name in NAMES]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ModelError(f"{folder / 'config.json'}: examples.train is not a table of the cells of each location")
    return np.array(counts, np.float64) / sum(counts) if any(counts) else None


def write_baselines(folder: Path, baselines: Mapping[str, Any]) -> None:
    """Write the result of ``learning.learn_baselines`` to baselines.json of a model folder, with its checksums.

    They include the digest of the folder's own checksums.json, since the cells are those that trained its network.
    """
    write_json(folder / "baselines.json", baselines)
    write_checksums(folder, ("checksums.json", "baselines.json"), to="baselines.checksums.json")


def load_baselines(folder: Path) -> dict[str, Any] | None:
    """Return the baselines of a model folder, None if it has none.

    Raises ModelError, naming file and key, if they are invalid, were changed, or belong to another network.
    """
    path = folder / "baselines.json"
    if not path.exists() and not (folder / "baselines.checksums.json").exists():
        return None
    check_files(folder, "baselines.checksums.json", ("checksums.json", "baselines.json"))
    baselines = read_json(path, ("validation_accuracy", *REGRESSIONS))
    for name in REGRESSIONS:
        try:
            _check_regression(baselines[name])
        except ValueError as error:
            raise ModelError(f"{path}: {name}: {error}") from None
    return baselines


def _check_regression(regression: Any) -> None:
    """Raise ValueError, naming the invalid key, unless ``regression`` is from ``fit_regression``."""
    if not isinstance(regression, dict):
        raise ValueError("it is not a table")
    classes = regression.get("classes")
    if (
        not isinstance(classes, list)
        or not classes
        or sorted(map(str, classes)) != sorted(name for name in NAMES if name in classes)
    ):
        raise ValueError(f"classes is {classes!r}, not different locations")
    mean = regression.get("mean")
    width = len(mean) if isinstance(mean, list) else 0
    shapes = {"mean": (width,), "scale": (width,), "coefficients": (len(classes), width), "intercept": (len(classes),)}
    for key, shape in shapes.items():
        try:
            values = np.array(regression.get(key), np.float64)
        except (TypeError, ValueError):
            values = np.zeros(0)
        if values.shape != shape or not np.isfinite(values).all() or (key == "scale" and not (values > 0).all()):
            raise ValueError(f"{key} is not {' x '.join(map(str, shape))} numbers")
