"""The text of a description: what was found, as comments, and the configuration below it."""

import json
import math
import os
import textwrap
from collections import Counter
from collections.abc import Sequence

from hpaloc.classes import COLOURS
from hpaloc.describing.colours import USUAL_NUCLEUS, Channel, Guess
from hpaloc.describing.description import Description
from hpaloc.describing.looking import MOST_CHANNELS
from hpaloc.describing.naming import Layout, escaped
from hpaloc.describing.words import STAINED
from hpaloc.endings import ending_of, is_imported
from hpaloc.ids import shown

_WIDTH = 100
# Layouts and channels, and files that cannot be read, that are listed one by one.
_LISTED, _UNREADABLE = 8, 4
_SMALL = "that are thumbnails, overviews or label images"
# Written where nothing says the pixel size and no nuclei were seen: that of the Human Protein Atlas.
_PIXEL_SIZE = 0.08


def format_description(found: Description, folder: str | os.PathLike[str]) -> str:
    """Return a description as a configuration: valid YAML, with all that was found as comments.

    folder: where the configuration and the contact sheet are written
    """
    lines = [f"What snakemake describe found in {shown(found.images)}.", ""]
    lines += [*_files(found), *_inside(found), *_colours(found)]
    warnings = _warnings(found)
    if warnings:
        lines += ["", "Look at these:", *(f"- {warning}" for warning in warnings)]
    configuration = _configuration(found)
    lines += ["", f"This text is {folder}/config.yaml; copy it and correct it."]
    if found.seen:
        lines += [f"The fields that were looked at are in {folder}/contact_sheet.png."]
    if any("CHECK" in line for line in configuration):
        lines += ["Check the lines that say CHECK: a wrong colour or pixel size gives wrong cells and wrong calls."]
    return "".join(f"{line}\n" for line in [*_commented(lines), "", *configuration])


def _commented(lines: Sequence[str]) -> list[str]:
    """Return lines as comments of YAML, the long ones wrapped."""
    wrapped = []
    for line in lines:
        if line.startswith("    "):
            # A path is not wrapped.
            wrapped.append(line)
            continue
        indent = "  " * (line.startswith("- ") or line.startswith("  "))
        wrapped += textwrap.wrap(
            line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return [f"# {line}".rstrip() for line in wrapped]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def path_of(found: Description, layout: Layout) -> str:
    """Return the pattern of a layout from the working folder, as the configuration has it."""
    folder = found.listing.folder
    if layout.own_parts:
        return os.path.join(escaped(folder), layout.pattern)
    # Nothing in the names says the field: its folder does.
    return os.path.join(escaped(os.path.dirname(folder) if folder else ".."), "{id}", layout.pattern)


def _files(found: Description) -> list[str]:
    layout, listing = found.layout, found.listing
    counts = Counter(len(files) for files in layout.fields.values())
    most = counts.most_common(1)[0][0]
    each = f", {'mostly' if len(counts) > 1 else 'each'} of {_count(most, 'file')}" if most > 1 else ""
    lines = [f"Files: {_count(len(layout.files), 'file')} of {_count(len(layout.fields), 'field')}{each}"]
    lines += [f"    {path_of(found, layout)}"]
    lines += [f"  Named as by {layout.reader}."] * bool(layout.reader)
    lines += [f"  The ID of a field is {_id_of(layout)}, as in {shown(found.field_name(next(iter(layout.fields))))}."]
    if others := found.layouts.found[1:]:
        lines += ["Not used: other images"]
        lines += [f"    {len(other.files):,} x {path_of(found, other)}" for other in others[:_LISTED]]
        left = others[_LISTED:]
        lines += [f"  {sum(len(other.files) for other in left):,} in {len(left)} more patterns"] * bool(left)
    merged, small = found.layouts.merged, found.layouts.thumbnails
    for paths, what in (
        (merged, "pictures of several colours in one, which are not single channels"),
        (small, f"pictures {_SMALL}, by their names"),
    ):
        if paths and layout.files[0].path not in paths:
            lines += [f"Not used: {len(paths):,} {what} (such as {shown(paths[0])})"]
    if listing.others:
        seen = ", ".join(f"{count:,} x {ending}" for ending, count in list(listing.others.items())[:_LISTED])
        lines += [f"Not images: {seen}"]
    return lines


def _id_of(layout: Layout) -> str:
    own = layout.own_parts or ["id"]
    return ", ".join(f"{{{part}}}" for part in own) + (" joined by _" if len(own) > 1 else "")


def _inside(found: Description) -> list[str]:
    if is_imported(found.layout.pattern):
        lines = [
            f"Inside: {ending_of(found.layout.pattern)} files are not opened here. The rule import_images reads them;"
        ]
        return [*lines, "  fill in which of their channels is which colour, and the pixel size if they do not say it."]
    if not found.seen:
        return ["Inside: no file could be read."]
    lines = [f"Inside, by {_count(len(found.looks), 'file')} of {_count(len(found.seen), 'field')}:"]
    sizes = Counter(f"{of_file.axes['X']} x {of_file.axes['Y']} px" for of_file in found.looks)
    lines += [f"  Size: {', '.join(f'{size} ({n})' if len(sizes) > 1 else size for size, n in sizes.most_common())}"]
    lines += [f"  Axes: {'; '.join(sorted({_axes(of_file.axes, of_file.stack) for of_file in found.looks}))}"]
    lines += [f"  Depth: {_depth(found)}"]
    lines += [f"  Pixel size: {_pixel_size(found)[1]}"]
    series = {of_file.series for of_file in found.looks}
    if max(series) > 1:
        lines += [f"  Series: a file holds up to {max(series)} images; hpaloc reads one of each, here the first"]
    if any(of_file.alpha for of_file in found.looks):
        lines += ["  The last sample of a pixel is its opacity, which is the same everywhere; it is not a channel."]
    return lines


_AXES = {"T": "time points", "C": "channels", "Z": "planes along z", "S": "samples (such as RGB)"}


def _axes(axes: dict[str, int], stack: str) -> str:
    said = [
        f"{n} {'planes along z' if axis == stack else _AXES.get(axis, 'pages without a name')}"
        for axis, n in axes.items()
        if axis not in "YX" and n > 1
    ]
    return f"{''.join(axes)} ({', '.join(said) or 'one plane'})"


def _depth(found: Description) -> str:
    said = []
    for dtype in sorted({of_file.dtype for of_file in found.looks}):
        most = max(of.most for of_file in found.looks if of_file.dtype == dtype for of in of_file.pictures)
        bits = next(bits for bits in (8, 10, 12, 14, 16) if most < 2**bits)
        stored = dtype.removeprefix("uint")
        real = f", so {bits} bits in {stored}" if bits < int(stored) else ""
        said.append(f"{stored} bit; the brightest pixel that was seen is {most}{real}")
    return "; ".join(said)


def _pixel_size(found: Description) -> tuple[float | str, str]:
    """Return what the configuration has for the pixel size, and what is known of it."""
    if found.pixel_size:
        return "file", f"{found.pixel_size:.4g} µm, as the files say"
    said = sorted({f"{size[0]:.4g}" for of_file in found.looks if (size := of_file.metadata.pixel_size)})
    known = f"some files say {', '.join(said)} µm, others another one or none" if said else "no file says it"
    if found.nucleus:
        guess = float(f"{USUAL_NUCLEUS / found.nucleus:.2g}")
        return guess, f"{known}; nuclei are about {found.nucleus:.0f} px across, which at {guess:g} µm is usual"
    return _PIXEL_SIZE, known


def _colours(found: Description) -> list[str]:
    if not found.channels:
        return []
    lines = ["Colours:"]
    for colour in COLOURS:
        guess = found.colours.of[colour]
        which = "none" if guess.channel is None else _called(guess.channel)
        lines += [f"  {colour} ({STAINED[colour]}): {which}; {_comment(guess)}"]
    lines += [f"  Not used: {_called(channel)}: {reason}" for channel, reason in found.colours.unused[:_LISTED]]
    return lines


def _called(channel: Channel) -> str:
    names = [name for name in channel.names if name != channel.said]
    number = f"channel {channel.said}"
    return f"{number} ({', '.join(shown(name) for name in names)})" if names else number


def _lacking(found: Description) -> list[str]:
    """Return what the colours without a channel mean."""
    lacking = [colour for colour in COLOURS if found.channels and found.colours.of[colour].channel is None]
    said = [
        f"there is no channel of {STAINED[colour]} ({colour}), without which hpaloc finds no cells to predict"
        for colour in ("blue", "green")
        if colour in lacking
    ]
    if "red" in lacking:
        said.append("a model that sees red cannot predict these fields; one that is trained without it can")
    return said


def _warnings(found: Description) -> list[str]:
    """Return what is odd about a folder, a sentence each."""
    layout = found.layout
    odd = [*found.unreadable[:_UNREADABLE], *_lacking(found)]
    if more := found.unreadable[_UNREADABLE:]:
        odd.insert(_UNREADABLE, f"{_count(len(more), 'more file')} cannot be read, of those that were looked at")
    first = layout.files[0].path
    for paths, what in ((found.layouts.merged, "of several colours in one"), (found.layouts.thumbnails, _SMALL)):
        if first in paths:
            odd.append(f"by their names these are pictures {what}, and not channels; name the folder of the channels")
    if not found.listing.complete:
        odd.append("not all folders were listed: too many files, a link to a folder, or one that cannot be read")
    most = max(len(files) for files in layout.fields.values())
    lacking = [values for values, files in layout.fields.items() if len(files) < most]
    if lacking:
        of_all = f"{len(lacking):,} of {_count(len(layout.fields), 'field')}"
        odd.append(f"{of_all} have fewer than {most} files, such as {shown(found.field_name(lacking[0]))}")
    if most < math.prod(max(1, len(layout.values(kind))) for kind in ("channel", "z", "time")):
        odd.append("no field has all channels and planes that occur in the names")
    for field in found.seen:
        of_files = field.looks.values()
        sizes = {f"{of_file.axes['X']} x {of_file.axes['Y']} px" for of_file in of_files}
        for what, values in (("size", sizes), ("depth", {of_file.dtype for of_file in of_files})):
            if len(values) > 1:
                odd.append(
                    f"the channels of the field {shown(field.name)} differ in {what} ({', '.join(sorted(values))}); "
                    "such a field is rejected"
                )
    if not layout.values("channel") and len(found.channels) == 1:
        odd.append("each file has one channel, and their names do not say which; write a pattern with {channel} for it")
    if (most := max((of_file.channels for of_file in found.looks), default=0)) > MOST_CHANNELS:
        odd.append(f"of {most} channels, only the first {MOST_CHANNELS} were looked at")
    if layout.guessed:
        odd.append(f"no word says that {', '.join(layout.values('channel'))} are channels: they occur with each field")
    return odd


def _configuration(found: Description) -> list[str]:
    layout = found.layout
    lines = ["collections:", "  new:", f"    images: {_quoted(path_of(found, layout))}", *_channels(found)]
    lines += _planes(found)
    value, known = ("file", "what the files say") if is_imported(layout.pattern) else _pixel_size(found)
    lines += [f"pixel_size: {value}  # {'' if value == 'file' else 'µm; CHECK: '}{known}"]
    lines += ["model:", "  path: models/demo  # the folder of a trained model"]
    grouping = [part for part in layout.own_parts if part.startswith(("plate", "well"))]
    if "well" in grouping:
        lines += ["# One call for each well:", f"# predict: {{pool_by: [{', '.join(grouping)}]}}"]
    return lines


def _channels(found: Description) -> list[str]:
    """Return the lines of the key channels, none if the files are named by all four colours."""
    if not found.channels:
        fill_in = "FILL IN the channel of {}: a number from 0, or its name"
        return ["    channels:", *(f"      {each}: null  # {fill_in.format(STAINED[each])}" for each in COLOURS)]
    by_colour = "{colour}" in found.layout.pattern
    lines = []
    for colour in COLOURS:
        guess = found.colours.of[colour]
        if not by_colour or guess.channel is None:
            said = "null" if guess.channel is None else _said(guess.channel)
            lines.append(f"      {colour}: {said}  # {_comment(guess)}")
    return ["    channels:", *lines] if lines else []


def _said(channel: Channel) -> str:
    said = str(channel.said)
    # A number means the same with and without leading zeros, which YAML reads as octal.
    return str(int(said)) if said.isascii() and said.isdigit() else _quoted(said)


def _comment(guess: Guess) -> str:
    return f"{'' if guess.sure else 'CHECK: '}{guess.reason}"


def _quoted(text: str) -> str:
    # A string of JSON is one of YAML.
    return json.dumps(text, ensure_ascii=False)


def _planes(found: Description) -> list[str]:
    """Return the lines of the keys that choose planes."""
    layout, lines = found.layout, []
    if max((of_file.series for of_file in found.looks), default=1) > 1:
        lines.append("    series: 0  # CHECK: of several images in a file, the first")
    if len(times := layout.values("time")) > 1:
        lines.append(f"    time: {int(times[0])}  # CHECK: of {len(times)} time points, in files of their own")
    elif max((of_file.axes.get("T", 1) for of_file in found.looks), default=1) > 1:
        lines.append("    time: 0  # CHECK: the first time point")
    if len(layout.values("z")) > 1 or any(of_file.stack for of_file in found.looks):
        lines.append("    project: max  # of the planes along z; or mean, sharpest, or the number of one")
    return lines
