"""The settings of the network and its training: the section `train` of the configuration."""

from collections.abc import Sequence
from dataclasses import dataclass


class TrainingError(ValueError):
    """Training cannot start or continue; the message names the setting or the data."""


@dataclass(frozen=True)
class LearningRate:
    """The course of the learning rate: the section ``train.learning_rate``."""

    start: float = 0.0005
    max: float = 0.0011
    min: float = 0.0005
    ramp_epochs: int = 3
    sustain_epochs: int = 2
    decay: float = 0.75

    def at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0.

        It rises linearly from ``start`` to ``max``, stays there for ``sustain_epochs``, then decays towards ``min`` by
        the factor ``decay`` per epoch; docs/model.md, "Training".
        """
        # config.shortened fits this course into fewer epochs.
        if epoch < self.ramp_epochs:
            return self.start + (self.max - self.start) * epoch / self.ramp_epochs
        if epoch < self.ramp_epochs + self.sustain_epochs:
            return self.max
        return (self.max - self.min) * self.decay ** (epoch - self.ramp_epochs - self.sustain_epochs) + self.min


@dataclass(frozen=True)
class TrainSettings:
    """The section ``train``, whose schema says what each key means.

    The keys ``pretraining`` and ``blends`` are not part of this training.
    """

    collection: str = "train"
    channels: Sequence[str] = ("red", "green", "blue")
    input_size: int = 224
    weights: str = "none"
    head: str = "sigmoid"
    epochs: int = 10
    batch_size: int = 32
    learning_rate: LearningRate = LearningRate()
    dropout: Sequence[float] = (0.5, 0.25)
    brightness: float = 0.1
    contrast: float = 0.15
    rotation: bool = False
    zoom: float = 0.0
    gain: float = 0.0
    averaging: float = 0.0
    class_weight_m: float = 50
    precision: str = "auto"
    gpu: str = "auto"
    gpus: int = 1
    xla: str | bool = "auto"

    def __post_init__(self) -> None:
        if not isinstance(self.learning_rate, LearningRate):
            object.__setattr__(self, "learning_rate", LearningRate(**self.learning_rate))
