"""The learning rate, epoch by epoch."""


def learning_rate(
    epoch: int,
    start: float = 0.0005,
    max: float = 0.0011,
    min: float = 0.0005,
    ramp_epochs: int = 3,
    sustain_epochs: int = 2,
    decay: float = 0.75,
) -> float:
    """Return the learning rate of an epoch counted from 0.

    It runs linearly from ``start`` to ``max``, stays there for ``sustain_epochs`` and then decays by the factor
    ``decay`` an epoch towards ``min``; docs/model.md, "Training".
    """
    if epoch < ramp_epochs:
        return start + (max - start) * epoch / ramp_epochs
    if epoch < ramp_epochs + sustain_epochs:
        return max
    return (max - min) * decay ** (epoch - ramp_epochs - sustain_epochs) + min
