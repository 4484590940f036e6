"""One image of many planes, whatever file it is in."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpaloc.image_files.decoding import ImageError

# Axes to which a TIFF gives no name: pages one after the other.
UNNAMED = "IQ"
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


def only_image(images: Sequence[Any], series: int | str | None, name: str) -> Any:
    """Return the one image of a file, or that of the number ``series``.

    name: of the file, for messages
    Raises ImageError if there are several and none is chosen, or not so many.
    """
    if series is None and len(images) > 1:
        raise ImageError(f"{name}: contains {len(images)} image series; choose one by the key series")
    return images[check_number(int(series or 0), len(images), "series", "image series", name)]


def check_number(number: int, length: int, key: str, what: str, name: str, hint: str = "") -> int:
    """Return the number of one of ``length`` things of a file; raise ImageError naming the key if it has fewer."""
    if number >= length:
        raise ImageError(f"{name}: {key} {number} is out of range; the file has {length} {what}, numbered from 0{hint}")
    return number
