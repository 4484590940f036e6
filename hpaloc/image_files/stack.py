"""One image of many planes, whatever file it is in."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class Stack:
    """One image of many planes, of an open file.

    name: of the file
    axes: a letter per axis, as tifffile has them
    names: returns the names of the channels; fewer than there are if the file does not name them
    read: returns the uint8 or uint16 pixels at an index along each axis
    channels: those of which planes are in the file, if others are in other files of its data set
    series: the number of images of the file
    by_parts: whether a part of a plane is read without the rest of it
    """

    name: str
    axes: str
    shape: tuple[int, ...]
    names: Callable[[], list[str]]
    read: Callable[[Index], np.ndarray]
    channels: Sequence[int] | None = None
    series: int = 1
    by_parts: bool = False

    def length(self, axes: str) -> int:
        """Return the product of the lengths along axes; an axis that it lacks has length one."""
        lengths = dict(zip(self.axes, self.shape, strict=True))
        return math.prod(lengths.get(axis, 1) for axis in axes)
