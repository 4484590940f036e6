"""The options of a network, and the error if it cannot be built or loaded."""

from collections.abc import Sequence

from hpaloc.classes import COLOURS

# The edition of the levels by which tiles are scaled (levels.py). A network reads tiles of the edition that trained it:
# edition 1 took black for 0 and white from the brightest 0.02 % of all cells' pixels.
LEVELS_EDITION = 2
HEADS = ("sigmoid", "softmax")
# The weights of the field, besides 0, for which a training fits thresholds; see `calls.lean_on_field`.
FIELD_WEIGHTS = tuple(f"{tenth / 10:.1f}" for tenth in range(1, 11))
# How the probability of Negative follows from the network's 19 outputs; see `calls.settle_negative`.
NEGATIVE_RULES = ("complement", "network", "mean")


class ModelError(ValueError):
    """A model cannot be built or loaded as asked; the message names the key or the file."""


def check_channels(channels: Sequence[str]) -> tuple[str, ...]:
    """Return the colours of the input planes; raise ModelError if one is unknown or repeated, or there are none."""
    channels = tuple(channels)
    if not channels or len(set(channels)) != len(channels) or not set(channels) <= set(COLOURS):
        raise ModelError(f"channels must be distinct colours out of {', '.join(COLOURS)}, got {list(channels)}")
    return channels
