"""The description of a folder: its layouts, a look into a few fields, and what the channels are."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from hpaloc.describing.colours import ENOUGH_FIELDS, Channel, Colours, find_nuclei, guess_colours
from hpaloc.describing.listing import Listing, list_images
from hpaloc.describing.looking import Look, look
from hpaloc.describing.naming import File, Layout, Layouts, find_layouts
from hpaloc.endings import is_imported

# Fields that are looked at; files that cannot be read are passed over for others, up to a number.
MOST_FIELDS, _MOST_TRIED = 4, 12


@dataclass
class SeenField:
    """A field that was looked at: its name, and the look into the file of each channel, or into its one file."""

    name: str
    looks: dict[str, Look]


@dataclass
class Description:
    """What a folder of images is.

    channels: of the layout that is described, in the order of their names or numbers
    seen: the fields that were looked at
    unreadable: sentences on the files that could not be read
    pixel_size: µm, if the files that were looked at agree; None otherwise
    nucleus: px across, of the channel of nuclei if the pixel size is not known; None if none were found
    """

    images: str
    listing: Listing
    layouts: Layouts
    channels: list[Channel]
    colours: Colours
    seen: list[SeenField]
    unreadable: list[str]
    pixel_size: float | None = None
    nucleus: float | None = None

    @property
    def layout(self) -> Layout:
        """The layout that is described, the largest."""
        return self.layouts.found[0]

    @property
    def looks(self) -> list[Look]:
        """The looks into all files that were looked at."""
        return _looks(self.seen)

    def field_name(self, values: Sequence[str]) -> str:
        """Return the ID of the field whose names have these values in their parts."""
        return _field_name(values, self.listing.folder)


def describe(images: str) -> Description:
    """Describe the images of a folder by their names and a look into a few of them.

    images: a folder, a file, or a pattern
    Raises DescriptionError if it finds no image.
    """
    listing = list_images(images)
    layouts = find_layouts(listing.paths)
    seen, unreadable = _look_into(layouts.found[0], listing.folder)
    if layouts.found[0].values("channel") and any(_holds_channels(layouts.found[0], one) for one in _looks(seen)):
        # What differs between the names is not the channel: the files have them all.
        layouts = find_layouts(listing.paths, with_channels=False)
        seen, unreadable = _look_into(layouts.found[0], listing.folder)
    pixel_size = _pixel_size(_looks(seen))
    channels = _channels(layouts.found[0], seen)
    colours = guess_colours(channels, pixel_size)
    found = Description(images, listing, layouts, channels, colours, seen, unreadable, pixel_size)
    blue = colours.of["blue"].channel
    if pixel_size is None and blue is not None and blue.pictures:
        some = list(blue.pictures.values())[:ENOUGH_FIELDS]
        sizes = sorted(find_nuclei(picture, None).diameter for picture in some)
        found.nucleus = sizes[len(sizes) // 2] or None
    return found


def _field_name(values: Sequence[str], folder: str) -> str:
    return "_".join(values) or os.path.basename(os.path.abspath(folder))


def _looks(seen: Sequence[SeenField]) -> list[Look]:
    return [of_file for field in seen for of_file in field.looks.values()]


def _holds_channels(layout: Layout, of_file: Look) -> bool:
    return not of_file.one_channel or (layout.guessed and of_file.tint == "several colours")


def _look_into(layout: Layout, folder: str) -> tuple[list[SeenField], list[str]]:
    """Return the looks into some fields of a layout, spread over it and complete if possible, and what failed."""
    if is_imported(layout.pattern):
        return [], []
    most = max(len(files) for files in layout.fields.values())
    fields = [(values, files) for values, files in layout.fields.items() if len(files) == most]
    seen: list[SeenField] = []
    unreadable: list[str] = []
    for values, files in _spread(fields):
        looks = {file.channel: look(os.path.join(folder, file.path), bool(file.channel)) for file in _one_each(files)}
        unreadable += [of_file.error for of_file in looks.values() if of_file.error]
        readable = {channel: of_file for channel, of_file in looks.items() if not of_file.error}
        if readable:
            seen.append(SeenField(_field_name(values, folder), readable))
        if len(seen) == MOST_FIELDS:
            break
    return seen, unreadable


def _spread(fields: Sequence[tuple[tuple[str, ...], list[File]]]) -> list[tuple[tuple[str, ...], list[File]]]:
    """Return fields, first some from the first to the last, then others."""
    last, gaps = len(fields) - 1, MOST_FIELDS - 1
    order = dict.fromkeys(round(last * number / gaps) for number in range(MOST_FIELDS))
    order |= dict.fromkeys(range(len(fields)))
    return [fields[index] for index in list(order)[:_MOST_TRIED]]


def _one_each(files: Sequence[File]) -> list[File]:
    """Return a file of each channel: of the first time, the plane in the middle."""
    chosen: dict[str, list[File]] = {}
    for file in sorted(files, key=lambda file: (file.channel, file.time, file.z)):
        of_channel = chosen.setdefault(file.channel, [])
        if not of_channel or of_channel[0].time == file.time:
            of_channel.append(file)
    return [of_channel[len(of_channel) // 2] for of_channel in chosen.values()]


def _channels(layout: Layout, seen: Sequence[SeenField]) -> list[Channel]:
    if values := layout.values("channel"):
        channels = [Channel(value, [value]) for value in values]
    else:
        count = max((len(of_file.pictures) for field in seen for of_file in field.looks.values()), default=0)
        channels = [Channel(number) for number in range(count)]
    for field in seen:
        for index, channel in enumerate(channels):
            of_file = field.looks.get(str(channel.said) if values else "")
            number = 0 if values else index
            if of_file is not None and number < len(of_file.pictures):
                channel.pictures[field.name] = of_file.pictures[number]
                # Files that are named by the four colours have these, whatever else they say.
                if "{colour}" not in layout.pattern:
                    _add_names(channel, of_file, number)
    return channels


def _add_names(channel: Channel, of_file: Look, number: int) -> None:
    """Add what one file says of a channel, which has this number in it."""
    said = [of_file.names[number]] if number < len(of_file.names) else []
    if of_file.tint and of_file.tint != "several colours":
        said.append(of_file.tint)
    if of_file.tint == "several colours" or (of_file.axes.get("S", 1) >= 3 and of_file.channels == 3):
        said.append(f"{('red', 'green', 'blue')[number]} of RGB" if number < 3 else "")
    channel.names += [name for name in said if name and name not in channel.names]
    if number < len(of_file.lights) and (meant := of_file.lights[number]) and meant not in channel.lights:
        channel.lights.append(meant)


def _pixel_size(looks: Sequence[Look]) -> float | None:
    """Return the pixel size in µm if every file that was looked at says the same."""
    sizes = [of_file.metadata.pixel_size for of_file in looks]
    if not sizes or None in sizes:
        return None
    sides = [side for size in sizes if size for side in size]
    return sum(sides) / len(sides) if max(sides) <= 1.02 * min(sides) else None
