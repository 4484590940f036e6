"""What is in an image file: axes, channels, depth, and a small picture of each channel."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from hpaloc.describing.words import Meaning, light
from hpaloc.ids import normal_text
from hpaloc.image_files.decoding import ImageError, open_tiff, read_ome_xml
from hpaloc.image_files.stack import UNNAMED, Stack
from hpaloc.image_files.stacks import open_stack, read_planes
from hpaloc.image_metadata import ImageMetadata, read_metadata
from hpaloc.images import TINTED, strong_channels
from hpaloc.planes import Plane
from hpaloc.rle import MAX_PIXELS

# px, the longer side of the picture of a channel.
SIDE = 1024
# Planes along z that are read for a picture; of a deeper stack, the one in the middle is read.
_MOST_PLANES = 30
# Channels of a file that are looked at; a recording of spectra has many.
MOST_CHANNELS = 10
# Pages without names of axes are channels if there are no more than this.
_MOST_PAGES = 6


@dataclass(frozen=True)
class Picture:
    """One channel of a file.

    small: (h, w) float32, in grey levels, at most SIDE px a side
    factor: by which it is smaller than the image
    most: the highest grey level of the image
    """

    small: np.ndarray
    factor: float
    most: int


@dataclass
class Look:
    """What is in a file.

    error: why it cannot be read; the rest is then empty
    axes: {letter: length}, as tifffile names them; S are the samples of a pixel
    dtype: of a pixel
    one_channel: whether its name says its channel, and it has no others
    channels: the number of its channels
    names: of the channels, if the file names them
    lights: what it says of the light of each channel, if anything
    series: the number of images of the file
    tint: the colour of an RGB image of one colour
    alpha: whether its last sample is opacity
    metadata: what its header says of pixels
    pictures: of the channels
    """

    path: str
    error: str = ""
    axes: dict[str, int] = field(default_factory=dict)
    dtype: str = ""
    one_channel: bool = False
    channels: int = 1
    names: list[str] = field(default_factory=list)
    lights: list[Meaning | None] = field(default_factory=list)
    series: int = 1
    tint: str = ""
    alpha: bool = False
    metadata: ImageMetadata = field(default_factory=ImageMetadata)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def stack(self) -> str:
        """The letter of the axis that is taken for the one along z; "" if there is one plane."""
        unnamed = [axis for axis in UNNAMED if self.axes.get(axis, 1) > 1]
        if self.axes.get("Z", 1) > 1:
            return "Z"
        return unnamed[0] if unnamed and (self.one_channel or self.axes[unnamed[0]] > _MOST_PAGES) else ""


def look(path: str, one_channel: bool) -> Look:
    """Look into an image file.

    one_channel: whether the name of the file says its channel; the samples of an RGB image are then one picture, and
    pages without names of axes are planes along z
    """
    found = Look(path)
    try:
        with open_stack(Plane(path, series=0), MAX_PIXELS) as stack:
            found.axes = {axis: n for axis, n in zip(stack.axes, stack.shape, strict=True) if n > 1 or axis in "YX"}
            found.names = [normal_text(name) for name in stack.names()]
            found.series = stack.series
            # A file of a data set may hold one channel of several.
            found.one_channel = one_channel and (stack.length("C") == 1 or stack.channels is not None)
            found.channels = 1 if found.one_channel else _count_channels(found, stack)
        found.pictures = _read_pictures(found)
    except ImageError as error:
        return Look(path, error=str(error))
    found.lights = _lights(path)
    found.metadata = read_metadata(Plane(path, series=0))
    return found


def _count_channels(found: Look, stack: Stack) -> int:
    pages = [n for axis, n in found.axes.items() if axis in UNNAMED]
    if found.axes.get("C", 1) == found.axes.get("S", 1) == 1 and pages and not found.stack:
        return pages[0]
    return stack.length("CS")


def _read_pictures(found: Look) -> list[Picture]:
    depth = found.axes.get(found.stack, 1)
    chosen = {
        "series": 0,
        "time": 0 if found.axes.get("T", 1) > 1 else None,
        "project": None if depth == 1 else "max" if depth <= _MOST_PLANES else depth // 2,
    }
    numbers: Sequence[int | None] = range(min(found.channels, MOST_CHANNELS))
    if found.one_channel or (found.channels == 1 and "C" not in found.axes):
        numbers = [None]
    pictures = []
    for number in numbers:
        image = read_planes({"red": Plane(found.path, channel=number, **chosen)}, ["red"])["red"]  # type: ignore[arg-type]
        found.dtype = str(image.dtype)
        if image.ndim == 3:
            image, found.tint = _of_samples(image)
        if number == 3 and found.axes.get("S") == 4 and image.min() == np.iinfo(image.dtype).max:
            found.alpha, found.channels = True, 3
            continue
        pictures.append(_picture(image))
    return pictures


def _of_samples(image: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the grey image of an RGB image of one colour, and the colour; "" if all samples are equal."""
    samples = image[..., :3] if image.shape[2] > 2 else image[..., :1]
    if (samples == samples[..., :1]).all():
        return samples[..., 0], ""
    tint = TINTED.get(tuple(sorted(strong_channels(samples))), "several colours")
    return samples.max(axis=2), tint


def _picture(image: np.ndarray) -> Picture:
    factor = max(1.0, max(image.shape) / SIDE)
    height, width = (max(1, round(side / factor)) for side in image.shape)
    small: np.ndarray = image.astype(np.float32)
    if factor > 1:
        small = cv2.resize(small, (width, height), interpolation=cv2.INTER_AREA)
    return Picture(small, factor, int(image.max()))


def _lights(path: str) -> list[Meaning | None]:
    """Return what OME-XML says of the emission or, without it, of the fluorophore of each channel."""
    try:
        if os.path.isdir(path):
            return []
        with open(path, "rb") as file:
            if file.peek(2)[:2] not in (b"II", b"MM"):
                return []
            with open_tiff(file) as tiff:
                image = read_ome_xml(tiff, path).find("{*}Image/{*}Pixels") if tiff.is_ome else None
        channels = [] if image is None else image.findall("{*}Channel")
        said = [float(channel.get("EmissionWavelength", "nan")) for channel in channels]
    except Exception:
        # A header that cannot be read says nothing; the readers raise errors of many kinds.
        return []
    return [light(wavelength) for wavelength in said]
