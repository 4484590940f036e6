"""What a model folder keeps of its baselines: regressions learned from the cells that trained its network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpaloc.classes import NAMES
from hpaloc.files import write_json
from hpaloc.network.additions import add_checksums, check_regression, find_addition
from hpaloc.network.folder import read_json, read_settings
from hpaloc.network.options import ModelError

# The regressions, and the column of the tables of ``measures.measure_shard`` that each takes.
REGRESSIONS = {"logistic_regression": "measures", "frozen_network": "outputs"}
# The edition of these measurements: a regression takes cells that are measured as those that it learned from. A change
# of what is measured (baselines/columns.py, baselines/light.py, baselines/measures.py) needs another one.
MEASURES_EDITION = 2


def training_shares(folders: Sequence[Path]) -> np.ndarray | None:
    """Return the share of each location in the training cells, (19,) float, the mean of all model folders.

    Cells of several locations count for each. None if there is no folder, or one does not say it.

    Raises ModelError for an invalid folder.
    """
    shares = [_training_shares(folder) for folder in folders]
    known = [share for share in shares if share is not None]
    return np.mean(known, axis=0) if known and len(known) == len(shares) else None


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
    """Write the result of ``learning.learn_baselines`` to baselines.json of a model folder, with its checksums."""
    write_json(folder / "baselines.json", {"measures": MEASURES_EDITION, **baselines})
    add_checksums(folder, "baselines.json")


def load_baselines(folder: Path) -> dict[str, Any] | None:
    """Return the baselines of a model folder, None if it has none.

    Raises ModelError, naming file and key, if they are invalid, were changed, or belong to another network.
    """
    path = find_addition(folder, "baselines.json")
    if path is None:
        return None
    baselines = read_json(path, ("validation_accuracy", *REGRESSIONS))
    # The first folders do not record it.
    edition = baselines.get("measures", 1)
    if edition != MEASURES_EDITION:
        raise ModelError(
            f"{path}: the regressions learned from cells that were measured by edition {edition!r}, but cells are "
            f"measured by edition {MEASURES_EDITION} now; train the model again, or use the hpaloc that made it"
        )
    for name in REGRESSIONS:
        try:
            check_regression(baselines[name], name)
        except ValueError as error:
            raise ModelError(f"{path}: {error}") from None
    return baselines
