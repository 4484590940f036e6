"""The contact sheet of a folder that is described: a row per field, a column per channel."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from hpaloc.describing.colours import Channel
from hpaloc.describing.description import Description, SeenField
from hpaloc.describing.looking import Picture
from hpaloc.describing.words import STAINED
from hpaloc.figures.style import GREY, hide_axes, new_figure, scale_bar
from hpaloc.ids import shown

# Inches a picture; together no wider than the second.
_SIDE, _WIDEST = 2.2, 13.0
# Percentiles of a picture that are shown as black and as white.
_BLACK, _WHITE = 0.5, 99.7
# Of the words above a column.
_INK = {"red": "#C2203A", "green": "#1A8A3C", "blue": "#2458C5", "yellow": "#A87B00"}
# Characters above a column, per inch.
_PER_INCH = 14


def draw_contact_sheet(found: Description, path: Path) -> None:
    """Draw the fields that were looked at: each channel with its name, guessed colour and grey levels.

    path: of the PNG; if no field could be read, none is written, and an older one is removed
    """
    if not found.seen:
        path.unlink(missing_ok=True)
        return
    side = min(_SIDE, _WIDEST / len(found.channels))
    tall = [_tallness(found, field) for field in found.seen]
    width, height = side * len(found.channels), side * sum(tall) + 0.12 * len(tall) + 0.5
    with new_figure(path.with_suffix(""), width, height, svg=False) as figure:
        grid = figure.subplots(len(tall), len(found.channels), squeeze=False, height_ratios=tall)
        for field, of_row in zip(found.seen, grid, strict=True):
            for channel, axes in zip(found.channels, of_row, strict=True):
                hide_axes(axes)
                if (picture := channel.pictures.get(field.name)) is not None:
                    _draw(axes, picture, found.pixel_size)
            name = of_row[0].text(
                0, 1.01, shown(field.name), transform=of_row[0].transAxes, color="#555555", va="bottom"
            )
            # A long name needs the width of several columns.
            name.set_in_layout(False)
        for channel, axes in zip(found.channels, grid[0], strict=True):
            _head(axes, found, channel, int(_PER_INCH * side))


def _tallness(found: Description, field: SeenField) -> float:
    """Return the height of the pictures of a field in widths."""
    shapes = [channel.pictures[field.name].small.shape for channel in found.channels if field.name in channel.pictures]
    return max(height / width for height, width in shapes)


def _draw(axes: Axes, picture: Picture, pixel_size: float | None) -> None:
    black, white = np.percentile(picture.small, (_BLACK, _WHITE))
    axes.imshow(picture.small, cmap="gray", vmin=black, vmax=max(white, black + 1), interpolation="lanczos")
    axes.text(
        0.03,
        0.03,
        f"shown: {black:.0f} to {white:.0f} of {picture.most}",
        transform=axes.transAxes,
        color="white",
        fontsize=6,
        path_effects=[withStroke(linewidth=1.5, foreground="black")],
    )
    if pixel_size:
        scale_bar(axes, picture.small.shape[1], pixel_size * picture.factor, 6)


def _head(axes: Axes, found: Description, channel: Channel, most: int) -> None:
    """Write above a column which channel it is and what colour it is taken for."""
    colour, guess = next(
        ((colour, guess) for colour, guess in found.colours.of.items() if guess.channel is channel), (None, None)
    )
    names = " · ".join(dict.fromkeys(name for name in (f"{channel.said}", *channel.names) if name))
    taken = "not used" if colour is None else f"{colour}: {STAINED[colour]}"
    doubt = "" if guess is None or guess.sure else "  (check)"
    for text, height, ink, weight in (
        (shown(names, most), 26, "black", "bold"),
        (f"{taken}{doubt}", 15, _INK.get(colour or "", GREY), "normal"),
    ):
        axes.annotate(
            text,
            (0, 1),
            (0, height),
            xycoords="axes fraction",
            textcoords="offset points",
            color=ink,
            fontweight=weight,
            fontsize=8,
            va="bottom",
        )
