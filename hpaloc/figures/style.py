"""The style of all figures: colours, fonts, saving, scale bar."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from hpaloc.classes import LOCATIONS
from hpaloc.files import atomic_path

SHORT = tuple(location.short for location in LOCATIONS)

# Okabe and Ito's palette, distinguishable with any colour vision.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#8C8C8C"
LIGHT = "#BFD7EA"

# A double and a single journal column, in inches (180 and 88 mm).
WIDE, NARROW = 7.09, 3.46
# Any, because the stubs of matplotlib accept only literal keys.
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "hpaloc",
}

# The colours of channels in an overlay. Magenta and green, unlike red and green, can be distinguished with any colour
# vision.
OVERLAID = {"red": (0.9, 0.0, 0.9), "green": (0.1, 1.0, 0.1), "blue": (0.05, 0.15, 1.0)}


@contextmanager
def new_figure(stem: Path, width: float, height: float, *, svg: bool = True) -> Iterator[Figure]:
    """Yield a figure of this size in inches; write it as stem.svg (unless not ``svg``) and stem.png after the block."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # Names may have dots (an antibody, a version), so the suffix is appended, not replaced.
        of_svg = [(".svg", {"Date": None, "Creator": None})] if svg else []
        for suffix, metadata in (*of_svg, (".png", {"Software": None})):
            with atomic_path(stem.parent / f"{stem.name}{suffix}") as temporary:
                figure.savefig(temporary, metadata=metadata, bbox_inches="tight", pad_inches=0.04)


def hide_axes(axes: Axes) -> None:
    """Remove the ticks and the frame of a picture."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def scale_bar(axes: Axes, width_px: int, pixel_size: float, size: float = 7) -> None:
    """Draw a white bar of 20 µm, or less in a small field, in the lower right corner of an image ``width_px`` wide.

    Bar and text have a black edge, since a cell may be below them. ``pixel_size`` is in µm.
    """
    width_um = width_px * pixel_size
    length_um = max((um for um in (1, 2, 5, 10, 20) if um <= 0.4 * width_um), default=0.5)
    length = length_um / width_um
    axes.plot(
        [0.94 - length, 0.94],
        [0.04, 0.04],
        transform=axes.transAxes,
        color="white",
        linewidth=2,
        solid_capstyle="butt",
        path_effects=[withStroke(linewidth=3.5, foreground="black")],
    )
    axes.text(
        0.94 - length / 2,
        0.06,
        f"{length_um:g} µm",
        transform=axes.transAxes,
        color="white",
        fontsize=size,
        ha="center",
        va="bottom",
        path_effects=[withStroke(linewidth=1.5, foreground="black")],
    )
