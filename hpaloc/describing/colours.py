"""The colour of each channel of a folder, with the reason: by names, by light, by picture, or as a guess."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy import ndimage

from hpaloc.classes import COLOURS
from hpaloc.describing.looking import Picture
from hpaloc.describing.words import COLOUR, LIGHT, STRUCTURE, Meaning, meaning
from hpaloc.segmentation import nuclei
from hpaloc.segmentation.regions import solidity

# µm per pixel that is tried if no file says one.
_SIZES = (0.08, 0.16, 0.32)
# µm, the grid on which nuclei are looked for, and their diameters.
_GRID, _SMALLEST, _LARGEST = 0.32, 8.0, 30.0
_CONVEX = 0.9
# In 16 fields of the Human Protein Atlas, 0.42 to 0.95 of the light of blue is in compact objects of this size, and in
# all but one at most 0.7 times as much of that of any other colour.
_ENOUGH, _CLEARLY = 0.3, 1.25
# Fields in which nuclei are looked for.
ENOUGH_FIELDS = 2
# µm, a usual nucleus.
USUAL_NUCLEUS = 15.0


@dataclass(frozen=True)
class Nuclei:
    """Compact objects of the size of nuclei in a channel.

    share: of the light above background that is in them
    diameter: their median diameter, px of the image; 0 if there are none
    """

    share: float
    diameter: float


@dataclass
class Channel:
    """A channel of a folder.

    said: what the names of the files have for it, or its number in the files
    names: what the names of files, the files themselves and the tint of their pixels call it
    lights: what the files say of its light
    pictures: of it, by the name of each field that was looked at
    """

    said: str | int
    names: list[str] = field(default_factory=list)
    lights: list[Meaning] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)


@dataclass(frozen=True)
class Guess:
    """The channel of a colour (None if there is none), why, and whether this is sure."""

    channel: Channel | None
    reason: str
    sure: bool = True


@dataclass
class Colours:
    """The guess of each colour, and the channels that are none, with the reason."""

    of: dict[str, Guess]
    unused: list[tuple[Channel, str]]


def find_nuclei(picture: Picture, pixel_size: float | None) -> Nuclei:
    """Look for nuclei in a channel.

    pixel_size: of the image, µm; without it, the one of some usual ones at which most light is in nuclei
    """
    found = [_nuclei(picture, size) for size in ([pixel_size] if pixel_size else _SIZES)]
    return max(found, key=lambda nuclei: nuclei.share)


def _nuclei(picture: Picture, pixel_size: float) -> Nuclei:
    size = pixel_size * picture.factor
    image = picture.small
    if size < _GRID:
        height, width = (max(1, round(side * size / _GRID)) for side in image.shape)
        image, size = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), _GRID
    signal = nuclei.above_background(image, size)
    levels = nuclei.nucleus_levels(signal, size)
    if levels is None:
        return Nuclei(0.0, 0.0)
    labels = nuclei.find(signal, size, levels)
    light, diameters = 0.0, []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        body = labels[box] == number
        diameter = 2 * math.sqrt(body.sum() * size**2 / math.pi)
        if _SMALLEST <= diameter <= _LARGEST and solidity(body) > _CONVEX:
            light += float(signal[box][body].sum())
            diameters.append(diameter)
    median = float(np.median(diameters)) if diameters else 0.0
    return Nuclei(light / max(float(signal.sum()), 1e-9), median / pixel_size)


def guess_colours(channels: Sequence[Channel], pixel_size: float | None) -> Colours:
    """Guess the colour of each channel.

    What names say of a structure or a stain counts before the names of colours, these before fluorophores and
    wavelengths, and these before pictures. In pictures only nuclei can be told from the others.

    pixel_size: µm, None if it is not known
    """
    meanings = {id(channel): _meaning(channel) for channel in channels}
    found: dict[str, Guess] = {}
    like_atlas = {meant.colour for meant in meanings.values() if meant and meant.strength <= COLOUR} >= set(COLOURS)
    for channel in sorted(channels, key=lambda channel: _strength(meanings[id(channel)])):
        meant = meanings[id(channel)]
        if meant and meant.colour and meant.colour not in found:
            certain = meant.strength == STRUCTURE or meant.colour == "blue" or (like_atlas and meant.strength == COLOUR)
            found[meant.colour] = Guess(channel, meant.reason, certain)
    left = [channel for channel in channels if all(guess.channel is not channel for guess in found.values())]
    unused = [channel for channel in left if (meant := meanings[id(channel)]) and "transmitted" in meant.reason]
    open_ones = [channel for channel in left if channel not in unused]
    if "blue" not in found and open_ones:
        _guess_nuclei(found, open_ones, pixel_size)
    _guess_others(found, open_ones, meanings)
    unused += open_ones
    of = {colour: found.get(colour, Guess(None, "no channel is left for it")) for colour in COLOURS}
    return Colours(of, [(channel, _why_unused(meanings[id(channel)], found)) for channel in unused])


def _meaning(channel: Channel) -> Meaning | None:
    said = [meant for name in channel.names if (meant := meaning(name))]
    return min([*said, *channel.lights], key=lambda meant: meant.strength, default=None)


def _strength(meant: Meaning | None) -> int:
    return meant.strength if meant else LIGHT + 1


def _guess_nuclei(found: dict[str, Guess], open_ones: list[Channel], pixel_size: float | None) -> None:
    """Give blue the channel, of those without a colour, in which nuclei are seen, or else the first."""
    seen = [_in_nuclei(channel, pixel_size) for channel in open_ones]
    best, *others = sorted(range(len(seen)), key=lambda index: -seen[index])
    channel = open_ones[best]
    if seen[best] > _ENOUGH and all(seen[best] > _CLEARLY * seen[other] for other in others):
        reason = f"by its picture: {100 * seen[best]:.0f} % of its light is in compact objects of the size of nuclei"
        found["blue"] = Guess(channel, reason, sure=False)
        open_ones.remove(channel)
    elif len(open_ones) > 1 or "green" in found:
        found["blue"] = Guess(open_ones.pop(0), "a guess: nothing says where the nuclei are", sure=False)


def _in_nuclei(channel: Channel, pixel_size: float | None) -> float:
    shares = [find_nuclei(picture, pixel_size).share for picture in list(channel.pictures.values())[:ENOUGH_FIELDS]]
    return float(np.mean(shares)) if shares else 0.0


def _guess_others(found: dict[str, Guess], open_ones: list[Channel], meanings: dict[int, Meaning | None]) -> None:
    """Give the channels that are left to the colours that are left, the protein first."""
    for colour in ("green", "red", "yellow"):
        # What is known to be another structure may be the protein, but no reference.
        fits = [channel for channel in open_ones if colour == "green" or not meanings[id(channel)]]
        fits.sort(key=lambda channel: meanings[id(channel)] is not None)
        if colour not in found and fits:
            meant = meanings[id(fits[0])]
            reason = (
                f"a guess: {meant.reason}, which may be the protein" if meant else "a guess: nothing says what it is"
            )
            found[colour] = Guess(fits[0], reason, sure=False)
            open_ones.remove(fits[0])
    if "green" not in found:
        for colour in ("red", "yellow"):
            # Files that are named by the four colours keep them.
            if colour in found and _strength(meanings[id(found[colour].channel)]) >= LIGHT:
                moved = found.pop(colour)
                reason = f"a guess: {moved.reason}, but no other channel can be the protein"
                found["green"] = Guess(moved.channel, reason, sure=False)
                return


def _why_unused(meant: Meaning | None, found: dict[str, Guess]) -> str:
    if meant is None:
        return "every colour has a channel already"
    taken = f", and {meant.colour} has a channel already" if meant.colour in found else ""
    return f"{meant.reason}{taken}"
