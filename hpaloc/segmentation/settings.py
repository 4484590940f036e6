"""The settings of segmentation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkWeights:
    """The section ``segmentation.weights``: paths, or None for the published ones of a format."""

    nuclei: str | None = None
    cells: str | None = None
    cells_without_yellow: str | None = None
    instanseg: str | None = None
    format: str = "pickle"


@dataclass(frozen=True)
class SegmentationSettings:
    """The section ``segmentation`` of the configuration; its schema describes each key."""

    backend: str = "watershed"
    scale: float = 0.25
    device: str = "auto"
    reduced_labelling: bool = False
    weights: NetworkWeights = NetworkWeights()

    def __post_init__(self) -> None:
        if not isinstance(self.weights, NetworkWeights):
            object.__setattr__(self, "weights", NetworkWeights(**self.weights))
