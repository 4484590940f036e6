"""The reading of mixtures: a regression that estimates the fractions of locations in a cell."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpaloc.classes import N_CLASSES, NAMES
from hpaloc.files import write_json
from hpaloc.network.additions import add_checksums, check_regression, find_addition
from hpaloc.network.folder import prototype_table, read_json, read_settings
from hpaloc.network.options import ModelError

MIXTURES = tuple(f"mixture_{index}" for index in range(N_CLASSES))
# Smaller probabilities count as this one, since their logarithms would be noise.
_LEAST_PROBABILITY = 1e-4


def cell_outputs(probabilities: np.ndarray, light: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Return the inputs of a reading: the logarithms of the probabilities of ``classes``, and the light.

    probabilities: (n, 19) float
    light: (n, d) float

    Returns (n, len(classes) + d) float64.
    """
    known = np.log(np.maximum(probabilities[:, list(classes)], _LEAST_PROBABILITY))
    return np.concatenate([known, light], axis=1, dtype=np.float64)


def write_reading(folder: Path, reading: Mapping[str, Any]) -> None:
    """Write the result of ``learning.learn_reading`` to mixtures.json of a model folder, with its checksums."""
    write_json(folder / "mixtures.json", reading)
    add_checksums(folder, "mixtures.json")


def load_reading(folder: Path) -> dict[str, Any] | None:
    """Return the reading of mixtures of a model folder, None if it has none.

    Raises ModelError, naming file and key, if it is invalid, was changed, or belongs to another network.
    """
    folder = Path(folder)
    config, decision = read_settings(folder)
    path = find_addition(folder, "mixtures.json")
    if path is not None:
        reading = read_json(path)
    elif "mixtures" in decision:
        # Folders of older versions keep it there.
        path, reading = folder / "thresholds.json", decision["mixtures"]
    else:
        return None
    try:
        check_reading(reading)
    except ValueError as error:
        raise ModelError(f"{path}: {error}") from None
    if not {"green", "blue"} <= set(config["channels"]):
        raise ModelError(
            f"{path}: mixtures are read from green and blue, but the network takes {', '.join(config['channels'])}"
        )
    return reading


def check_reading(reading: Any) -> None:
    """Raise ValueError, naming the invalid key, unless ``reading`` is a result of ``learning.learn_reading``."""
    check_regression(reading, "mixtures")
    prototype_table(reading.get("prototypes"))


def read_mixtures(reading: Mapping[str, Any], probabilities: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return the reading of each cell: an estimate of the fraction of each location, before scaling to the sum 1.

    reading: from ``learning.learn_reading``
    probabilities: (n, 19) float
    light: (n, d) float

    Returns (n, 19) float32, 0 for a class that the reading does not have.
    Raises ValueError if the reading is of other measurements.
    """
    classes = [NAMES.index(name) for name in reading["classes"]]
    outputs = cell_outputs(probabilities, light, classes)
    if outputs.shape[1] != len(reading["mean"]):
        raise ValueError(
            f"the reading of mixtures takes {len(reading['mean'])} outputs per cell, but {outputs.shape[1]} are given"
        )
    standard = (outputs - np.array(reading["mean"])) / np.array(reading["scale"])
    read = np.zeros((len(outputs), N_CLASSES), np.float32)
    read[:, classes] = standard @ np.array(reading["coefficients"]).T + np.array(reading["intercept"])
    return read
