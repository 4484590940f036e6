"""What a model folder keeps of its fusion: the weight of the regression, and the decision on what is fused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpaloc.files import write_json
from hpaloc.network.additions import add_checksums, find_addition
from hpaloc.network.folder import check_decision, read_json, read_settings
from hpaloc.network.options import ModelError

# The regression of baselines.json that is fused with the network.
FUSED = "logistic_regression"


def write_fusion(
    folder: Path,
    weight: float,
    decision: Mapping[str, Any],
    scores: Mapping[str, float],
    network_scores: Mapping[str, float],
) -> None:
    """Write fusion.json of a model folder, with checksums that include that of baselines.json, which is fused.

    weight: of the regression, see ``calls.fuse``
    decision, scores: from ``decision.fit_decision``, on fused probabilities
    network_scores: of the network alone on the same cells, from ``decision.score_decision``
    """
    scored = {"scores": dict(scores), "network_scores": dict(network_scores)}
    write_json(folder / "fusion.json", {"weight": weight, **decision, **scored})
    add_checksums(folder, "fusion.json", "baselines.json")


def load_fusion(folder: Path) -> dict[str, Any] | None:
    """Return fusion.json of a model folder, None if it has none.

    Raises ModelError, naming file and key, if it is invalid, was changed, or belongs to another network or regression.
    """
    path = find_addition(folder, "fusion.json", "baselines.json")
    if path is None:
        return None
    fusion = read_json(path, ("weight", "thresholds", "negative_rule"))
    weight = fusion["weight"]
    if type(weight) not in (int, float) or not 0 <= weight <= 1:
        raise ModelError(f"{path}: weight is {weight!r}, not a number from 0 to 1")
    check_decision(path, fusion)
    return fusion


def decision_in_use(folder: Path, fused: bool) -> dict[str, Any]:
    """Return the thresholds, temperature and prototypes of the probabilities that a model folder predicts.

    fused: whether its fusion is used, if it has one
    """
    fusion = load_fusion(folder) if fused else None
    return read_settings(folder)[1] if fusion is None else fusion
