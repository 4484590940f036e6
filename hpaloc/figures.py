"""Figures of the data, the training and the evaluation, each as SVG and PNG.

Every function takes tables or arrays and a path without suffix. Figures are drawn without pyplot, so nothing is left
behind between calls, and the bytes of an SVG depend on its data alone.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hpaloc.classes import COLOURS, LOCATIONS, N_CLASSES, NAMES
from hpaloc.files import atomic_path
from hpaloc.images import ImageError, read_field
from hpaloc.manifests import unchanged
from hpaloc.progress import log
from hpaloc.sheet import SheetRow

EXPLORE = (
    "figure1_labels",
    "figure2a_labels_per_field",
    "figure2b_co_occurrence",
    "figure3_channels",
    "figure4_locations",
)
TRAINING = ("figure6_learning_rate", "figure7a_loss", "figure7b_accuracy", "figure7c_auc", "figure8_receptive_field")
EVALUATION = ("confusion", "per_class", "reliability", "pooled")

SHORT = tuple(location.short for location in LOCATIONS)

# Okabe and Ito's palette, made to be told apart with any colour vision.
BLUE, ORANGE, GREEN, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#56B4E9", "#8C8C8C"
_LIGHT = "#BFD7EA"

# A double journal column, and one that is half as wide, in inches (180 and 88 mm).
WIDE, NARROW = 7.09, 3.46
_DPI = 200
# Any, because the stubs of matplotlib want the keys one by one.
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
    "savefig.dpi": _DPI,
    "svg.fonttype": "none",
    "svg.hashsalt": "hpaloc",
}

# What each channel is drawn in where several are laid over each other. Magenta and green, unlike red and green, can be
# told apart with any colour vision.
OVERLAID = {"red": (0.9, 0.0, 0.9), "green": (0.1, 1.0, 0.1), "blue": (0.05, 0.15, 1.0)}

# What each colour shows, for the panels of a field.
_STAINED = {
    "red": "Microtubules",
    "green": "Protein of interest",
    "blue": "Nucleus",
    "yellow": "Endoplasmic reticulum",
}


@contextmanager
def new_figure(stem: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of that size in inches; write it as stem.svg and stem.png when the block ends well."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # Names hold dots (an antibody, a version), so the suffix is appended and not replaced.
        for suffix, metadata in ((".svg", {"Date": None, "Creator": None}), (".png", {"Software": None})):
            with atomic_path(stem.parent / f"{stem.name}{suffix}") as temporary:
                figure.savefig(temporary, metadata=metadata, bbox_inches="tight", pad_inches=0.04)


def _whole_numbers(most: int = 7) -> MaxNLocator:
    return MaxNLocator(most, integer=True, steps=[1, 2, 5, 10])


def label_distribution(label_sets: Sequence[Sequence[int]], stem: Path) -> None:
    """Draw how many fields carry each location, alone and together with others (figure 1 of the paper)."""
    total, alone = np.zeros(N_CLASSES, int), np.zeros(N_CLASSES, int)
    for labels in label_sets:
        total[list(labels)] += 1
        if len(labels) == 1:
            alone[list(labels)] += 1
    order = np.argsort(-total, kind="stable")
    with new_figure(stem, WIDE, 4.2) as figure:
        axes = figure.add_subplot()
        y = np.arange(N_CLASSES)
        axes.barh(y, alone[order], color=BLUE, label="only label of its field")
        axes.barh(y, (total - alone)[order], left=alone[order], color=_LIGHT, label="together with other labels")
        for row, index in enumerate(order):
            axes.annotate(
                f"{total[index]:,} ({alone[index]:,} alone)",
                (total[index], row),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_yticks(y, [NAMES[index] for index in order])
        axes.invert_yaxis()
        axes.margins(x=0.2, y=0.01)
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"Fields (of {len(label_sets):,})")
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="lower right")


def labels_per_field(label_sets: Sequence[Sequence[int]], stem: Path) -> None:
    """Draw how many fields carry one, two, three … labels (figure 2a)."""
    counts = Counter(len(labels) for labels in label_sets)
    numbers = np.arange(1, max(counts, default=1) + 1)
    heights = np.array([counts[number] for number in numbers])
    with new_figure(stem, NARROW, 2.6) as figure:
        axes = figure.add_subplot()
        axes.bar(numbers, heights, color=BLUE, width=0.7)
        for number, height in zip(numbers, heights, strict=True):
            share = height / max(1, len(label_sets))
            text = f"{height:,}\n{share:.1%}" if share >= 0.001 or not height else f"{height:,}\n<0.1%"
            axes.annotate(text, (number, height), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom")
        axes.set_xticks(numbers)
        axes.margins(y=0.18)
        axes.set_xlabel("Labels per field")
        axes.set_ylabel("Fields")
        axes.yaxis.set_major_locator(_whole_numbers())
        axes.yaxis.set_major_formatter("{x:,.0f}")


def co_occurrence_counts(label_sets: Sequence[Sequence[int]]) -> np.ndarray:
    """Count the fields that carry both labels of each pair; the diagonal counts fields with only that label.

    Returns (19, 19) int64, symmetric.
    """
    counts = np.zeros((N_CLASSES, N_CLASSES), int)
    for labels in label_sets:
        if len(labels) == 1:
            counts[labels[0], labels[0]] += 1
        else:
            counts[np.ix_(list(labels), list(labels))] += 1 - np.eye(len(labels), dtype=int)
    return counts


def co_occurrence(label_sets: Sequence[Sequence[int]], stem: Path) -> None:
    """Draw the matrix of fields by pair of labels (figure 2b); the diagonal holds fields with that label alone."""
    counts = co_occurrence_counts(label_sets)
    shown = np.where(np.tril(np.ones_like(counts, bool)), counts, 0)
    with new_figure(stem, WIDE, 6.6) as figure:
        axes = figure.add_subplot()
        image = _count_matrix(axes, shown, int(counts.max(initial=1)), size=5.5)
        axes.set_xticks(np.arange(N_CLASSES), SHORT, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(np.arange(N_CLASSES), NAMES)
        for row in range(N_CLASSES):
            axes.plot([-0.5, row + 0.5, row + 0.5], [row - 0.5, row - 0.5, row + 0.5], color="0.85", linewidth=0.4)
        bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=25, pad=0.01)
        top = int(counts.max(initial=1))
        bar.set_ticks(ticks := [one for one in _round_numbers(top) if one <= top], labels=[f"{one:,}" for one in ticks])
        bar.minorticks_off()
        bar.set_label("Fields with both labels (diagonal: with this label alone)")
        pairs = counts[np.tril_indices(N_CLASSES, -1)]
        axes.text(
            0.98,
            0.98,
            f"{len(label_sets):,} fields\n{int((pairs == 0).sum())} of {len(pairs)} pairs never occur (blank)",
            transform=axes.transAxes,
            ha="right",
            va="top",
        )


def _round_numbers(top: int) -> list[int]:
    """Return whole numbers up to ``top`` that lie well apart on a logarithmic scale: 1, 2, 3 … or 1, 2, 5, 10 …"""
    if top <= 8:
        return list(range(1, top + 1))
    return [step * 10**power for power in range(len(str(top))) for step in (1, 2, 5)]


def _count_matrix(axes: Axes, counts: np.ndarray, top: int, size: float) -> matplotlib.image.AxesImage:
    """Show positive counts on a logarithmic scale with their numbers; zeros stay blank."""
    norm = LogNorm(1, max(top, 2))
    image = axes.imshow(np.ma.masked_equal(counts, 0), cmap="cividis_r", norm=norm)
    for row, column in np.argwhere(counts > 0):
        value = int(counts[row, column])
        axes.text(
            column,
            row,
            f"{value}",
            ha="center",
            va="center",
            fontsize=size,
            color="white" if norm(value) > 0.55 else "black",
        )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return image


def white_levels(images: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return, per colour, the intensity to draw as white: the 99.95th percentile, so that centrosomes are not clipped.

    A colour is never stretched to more than four times the brightest one of the field: a field without staining is to
    look like one, and the noise of a channel without signal stays dark. images: colour to (H, W) of any number type.
    """
    levels = {colour: float(np.percentile(image[::2, ::2], 99.95)) for colour, image in images.items()}
    floor = max(1.0, max(levels.values()) / 4)
    return {colour: max(level, floor) for colour, level in levels.items()}


def _shrink(image: np.ndarray, white: float, side: int) -> np.ndarray:
    """Return the image as float 0 … 1, its longer side at most ``side`` px."""
    scale = min(1.0, side / max(image.shape))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.clip(small / white, 0, 1)


def scale_bar(axes: Axes, width_px: int, pixel_size: float, size: float = 7) -> None:
    """Draw a white bar of 20 µm, or less in a small field, into the lower right corner of an image ``width_px`` wide.

    Bar and length have a black edge, since a cell may lie below them.
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


def field_channels(images: Mapping[str, np.ndarray], title: str, pixel_size: float, stem: Path) -> None:
    """Draw the four colours of a field side by side (figure 3).

    images: colour to (H, W) of any number type; title: field and labels; pixel_size in µm.
    """
    white = white_levels(images)
    height, width = next(iter(images.values())).shape
    with new_figure(stem, WIDE, 0.35 + WIDE / 4 * height / width + 0.2) as figure:
        for axes, colour in zip(figure.subplots(1, 4), COLOURS, strict=True):
            grey = _shrink(images[colour], white[colour], 700)
            tint = np.zeros((*grey.shape, 3), np.float32)
            for channel in {"red": (0,), "green": (1,), "blue": (2,), "yellow": (0, 1)}[colour]:
                tint[..., channel] = grey
            if colour == "blue":
                # Pure blue is the darkest of the primaries to the eye.
                tint[..., 1] = 0.35 * grey
            _picture(axes, tint, _STAINED[colour])
        scale_bar(axes, width, pixel_size)
        figure.suptitle(title, fontsize=8)


def _picture(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow((image * 255).round().astype(np.uint8), interpolation="nearest")
    axes.set_title(title, fontsize=7.5, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def composite(images: Mapping[str, np.ndarray], side: int = 420) -> np.ndarray:
    """Return the (h, w, 3) float64 RGB picture of a field: microtubules magenta, protein green, nucleus blue.

    images: the channels red, green and blue, (H, W) of any depth. The longer side becomes at most ``side`` px.
    """
    white = white_levels({colour: images[colour] for colour in OVERLAID})
    planes = [_shrink(images[colour], white[colour], side)[..., None] * tint for colour, tint in OVERLAID.items()]
    return np.minimum(sum(planes), 1.0)


def location_panels(panels: Mapping[int, tuple[str, Mapping[str, np.ndarray], float]], stem: Path) -> None:
    """Draw one field of each location, three channels laid over each other (figure 4).

    panels: class index to the name of a one-label field, its images (colour to (H, W) of any number type) and its pixel
    size in µm. Every panel has its own scale bar, since fields differ in size. A location without a field gets an empty
    panel that says so.
    """
    columns, rows = 5, 4
    with new_figure(stem, WIDE, WIDE / columns * rows * 1.13) as figure:
        grid = figure.subplots(rows, columns).ravel()
        for axes, location in zip(grid, LOCATIONS, strict=False):
            title = location.name if len(location.name) < 24 else _broken(location.name)
            if location.index in panels:
                name, images, pixel_size = panels[location.index]
                _picture(axes, composite(images), title)
                scale_bar(axes, images["green"].shape[1], pixel_size, size=5)
                axes.set_xlabel(_shortened(name), fontsize=5, labelpad=2)
            else:
                _picture(axes, np.full((2, 2, 3), 0.93), title)
                axes.text(
                    0.5,
                    0.5,
                    "no readable\none-label field",
                    transform=axes.transAxes,
                    ha="center",
                    va="center",
                    color="0.4",
                )
        key = grid[N_CLASSES]
        key.axis("off")
        for row, (colour, text) in enumerate(
            (("#C800C8", "Microtubules"), ("#008000", "Protein"), ("#2040FF", "Nucleus"))
        ):
            key.text(0.08, 0.7 - 0.17 * row, text, color=colour, fontsize=8, weight="bold", transform=key.transAxes)


def _broken(name: str) -> str:
    """Break a long name into two lines near its middle."""
    words = name.split()
    cut = min(range(1, len(words)), key=lambda at: abs(len(" ".join(words[:at])) - len(name) / 2), default=0)
    return " ".join(words[:cut]) + "\n" + " ".join(words[cut:])


def _shortened(name: str, most: int = 20) -> str:
    return name if len(name) <= most else f"{name[: most - 7]}…{name[-6:]}"


def _readable(rows: Iterable[SheetRow]) -> tuple[SheetRow, dict[str, np.ndarray]] | None:
    """Return the first row whose four files can be read, with its images."""
    for row in rows:
        paths = getattr(row, "paths", {})
        if not set(COLOURS) <= set(paths):
            continue
        try:
            with unchanged(paths, getattr(row, "states", {})):
                return row, read_field(paths)
        except ImageError as error:
            log.warning("field %s is not drawn: %s", row.id, error)
    return None


def explore(rows: Sequence[SheetRow], out_dir: Path) -> None:
    """Draw the figures of a collection from its sheet and images: figures 1, 2a, 2b, 3 and 4 (EXPLORE).

    rows: the fields (``sheet.ManifestRow`` where images are there to be drawn). Figure 3 shows the first readable
    field with most labels, figure 4 the first readable one-label field of each location. Without any label only
    figure 3 is drawn. Raises ChangedError naming a file that is another than was planned.
    """
    names = [out_dir / name for name in EXPLORE]
    label_sets = [row.labels for row in rows if row.labels]
    if label_sets:
        label_distribution(label_sets, names[0])
        labels_per_field(label_sets, names[1])
        co_occurrence(label_sets, names[2])
    by_labels = sorted(rows, key=lambda row: -len(row.labels or ()))
    example = _readable(by_labels)
    if example is None:
        with new_figure(names[3], WIDE, 1.2) as figure:
            figure.text(0.5, 0.5, "no field of this collection has readable images", ha="center")
    else:
        row, images = example
        located = ", ".join(NAMES[label] for label in row.labels or ()) or "no label"
        field_channels(images, f"{row.id}: {located}", row.pixel_size, names[3])
    if not label_sets:
        return
    panels = {}
    for location in LOCATIONS:
        found = _readable(row for row in rows if row.labels == (location.index,))
        if found is not None:
            panels[location.index] = (found[0].id, found[1], found[0].pixel_size)
    location_panels(panels, names[4])


def learning_rate(history: pd.DataFrame, stem: Path) -> None:
    """Draw the learning rate of each epoch (figure 6); history: epoch, learning_rate."""
    with new_figure(stem, NARROW, 2.3) as figure:
        axes = figure.add_subplot()
        axes.plot(history["epoch"], history["learning_rate"], color=BLUE, marker="o", markersize=3.5)
        axes.set_xlabel("Epoch")
        axes.set_ylabel("Learning rate")
        axes.set_ylim(bottom=0)
        axes.margins(y=0.15)
        _epochs(axes, history)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-4, -4), useMathText=True)


def _epochs(axes: Axes, history: pd.DataFrame) -> None:
    first, last = int(history["epoch"].min()), int(history["epoch"].max())
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.set_xticks(range(first, last + 1, 1 + (last - first) // 10))


def curves(
    history: pd.DataFrame, columns: Mapping[str, str], ylabel: str, stem: Path, top: float | None = None
) -> None:
    """Draw columns of the history over epochs, the training part full and the validation part (val_…) dashed.

    columns: column of the training part to its name in the legend (figures 7a to 7c).
    """
    with new_figure(stem, NARROW, 2.5) as figure:
        axes = figure.add_subplot()
        colours = (BLUE, ORANGE) if len(columns) == 1 else (BLUE, SKY, ORANGE, "#E69F00")
        place = iter(colours)
        for prefix, part, style, marker in (("", "training", "-", "o"), ("val_", "validation", "--", "s")):
            # A second column may run over the first: its markers are hollow.
            for (column, name), filling in zip(columns.items(), ("full", "none"), strict=False):
                if prefix + column in history:
                    values = history[prefix + column]
                    text = f"{name}, {part}" if name else part
                    axes.plot(
                        *(history["epoch"], values, style),
                        color=next(place),
                        marker=marker,
                        markersize=3.2 if filling == "full" else 5.5,
                        fillstyle=filling,
                        label=text,
                    )
        axes.set_xlabel("Epoch")
        axes.set_ylabel(ylabel)
        _epochs(axes, history)
        if top is not None:
            axes.set_ylim(top=top)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1.2, handlelength=2.2)


def training(history: Path, fields: Path, out_dir: Path) -> None:
    """Draw the figures of a training (TRAINING) from its history.csv and its receptive fields.

    history has a row an epoch: epoch, learning_rate, loss, accuracy, balanced_accuracy, auc and the same with val_;
    fields is the .npz of ``training.measure_receptive_fields``.
    """
    table = pd.read_csv(history)
    names = [out_dir / name for name in TRAINING]
    learning_rate(table, names[0])
    curves(table, {"loss": ""}, "Loss", names[1])
    curves(table, {"accuracy": "all cells", "balanced_accuracy": "mean of classes"}, "Accuracy", names[2], top=1.02)
    curves(table, {"auc": ""}, "ROC area, mean of classes", names[3], top=1.02)
    with np.load(fields) as arrays:
        receptive_field(arrays, names[4])


def receptive_field(fields: Mapping[str, np.ndarray], stem: Path) -> None:
    """Draw what reaches one position of the last map: by back-propagation, on cells, and how much within a radius.

    fields: ``model.receptive_fields``; ``propagated`` and ``effective`` are (H, W) float, of sum 1. The square is the
    tile, the dashed one the theoretical field; the circles hold 50 % and 95 % of the effective field.
    """
    tile, theoretical = int(fields["tile"]), int(fields["theoretical"])
    with new_figure(stem, WIDE, 2.5) as figure:
        panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        titles = ("Back-propagated, constant weights", "Effective, trained network on cells")
        for axes, name, title in zip(panels, ("propagated", "effective"), titles, strict=False):
            mass = np.asarray(fields[name], float)
            half = mass.shape[0] / 2
            # The root, since the middle outshines the rest by orders of magnitude.
            axes.imshow(np.sqrt(mass), cmap="magma", extent=(-half, half, half, -half))
            for side, style in ((tile, "-"), (theoretical, "--")):
                axes.add_patch(
                    Rectangle((-side / 2, -side / 2), side, side, fill=False, color="white", linestyle=style)
                )
            axes.set_title(title)
            axes.set_xlabel("px from the middle")
        reach = max(0.6 * tile, 1.3 * float(fields["radius_95"]))
        panels[1].set_xlim(-reach, reach)
        panels[1].set_ylim(reach, -reach)
        for share, colour in ((50, SKY), (95, ORANGE)):
            radius = float(fields[f"radius_{share}"])
            panels[1].add_patch(Circle((0, 0), radius, fill=False, color=colour, linewidth=1.2))
            panels[2].plot(
                *(radius, share / 100, "o"),
                color=colour,
                markersize=5,
                zorder=3,
                label=f"{share} % within {radius:.0f} px",
            )
        for name, colour, text in (("effective", BLUE, "effective"), ("propagated", GREY, "back-propagated")):
            mass = np.asarray(fields[name], float)
            distance = np.hypot(*(np.indices(mass.shape) - (mass.shape[0] - 1) / 2)).ravel()
            order = distance.argsort()
            panels[2].plot(distance[order], mass.ravel()[order].cumsum(), color=colour, label=text)
        panels[2].axvline(tile / 2, color="0.3", linewidth=0.8, linestyle=":", label="half a tile")
        panels[2].set_xlim(0, theoretical / 2 * 1.1)
        panels[2].set_ylim(0, 1.02)
        panels[2].yaxis.set_major_formatter(PercentFormatter(1))
        panels[2].set_xlabel("Radius (px)")
        panels[2].set_ylabel("Mass within")
        panels[2].legend(loc="lower right", bbox_to_anchor=(1.02, 0.02), handlelength=1.6)


def confusion(counts: np.ndarray, stem: Path) -> None:
    """Draw a confusion matrix: colour is the share of the true class, numbers are cells.

    counts (19, 19) int: rows true, columns called. Classes that neither occur nor are called are left out.
    """
    kept = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    if not len(kept):
        kept = np.arange(N_CLASSES)
    counts = counts[np.ix_(kept, kept)]
    total = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(total, 1)
    n = len(kept)
    side = max(2.2, 0.29 * n)
    with new_figure(stem, min(WIDE, side + 2.6), min(6.6, side + 1.6)) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(
            np.ma.masked_where(np.broadcast_to(total == 0, share.shape), share), cmap="Blues", vmin=0, vmax=1
        )
        axes.set_facecolor("0.93")
        for row, column in np.argwhere(counts > 0):
            value = counts[row, column]
            text = f"{value}" if value < 10_000 else f"{value / 1000:.0f}k"
            colour = "white" if share[row, column] > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=5.5 if n > 10 else 7, color=colour)
        axes.set_xticks(np.arange(n), [SHORT[index] for index in kept], rotation=45, ha="right", rotation_mode="anchor")
        names = [f"{NAMES[index]} ({count:,})" for index, count in zip(kept, total[:, 0], strict=True)]
        axes.set_yticks(np.arange(n), names)
        axes.set_xlabel("Called location")
        axes.set_ylabel("True location (cells)")
        axes.spines[:].set(visible=True, color="0.7")
        axes.tick_params(length=0)
        bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=25, pad=0.02)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        bar.set_label("Share of the true location's cells")


def per_class(table: pd.DataFrame, stem: Path) -> None:
    """Draw recall and average precision of each location that occurs; table: name, n_cells, recall, ap."""
    table = table[table["n_cells"] > 0]
    with new_figure(stem, WIDE, 0.8 + 0.24 * max(3, len(table))) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        y = np.arange(len(table))
        for axes, column, text, colour in (
            (left, "recall", "Accuracy (share of its cells called right)", BLUE),
            (right, "ap", "Average precision", ORANGE),
        ):
            values = table[column].to_numpy(float)
            axes.barh(y, np.nan_to_num(values), color=colour, height=0.72)
            for row, value in enumerate(values):
                axes.annotate(
                    "no cell with this label alone" if np.isnan(value) else f"{value:.2f}",
                    (np.nan_to_num(value), row),
                    xytext=(3, 0),
                    textcoords="offset points",
                    va="center",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
                )
            mean = np.nanmean(values) if np.isfinite(values).any() else np.nan
            if np.isfinite(mean):
                axes.axvline(mean, color="0.25", linewidth=0.8, linestyle=":")
                axes.set_title(f"mean {mean:.3f}", fontsize=7.5)
            axes.set_xlim(0, 1.12)
            axes.set_xticks(np.linspace(0, 1, 6))
            axes.set_xlabel(text)
            axes.tick_params(axis="y", length=0)
        left.set_yticks(y, [f"{name} ({n:,})" for name, n in zip(table["name"], table["n_cells"], strict=True)])
        left.set_ylim(len(table) - 0.5, -0.5)


def reliability(table: pd.DataFrame, ece: float | None, stem: Path) -> None:
    """Draw accuracy against confidence with the number of cells below; table as ``metrics.reliability`` makes it."""
    with new_figure(stem, NARROW, 3.9) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.12})
        width = table["high"] - table["low"]
        upper.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--", label="perfect calibration")
        upper.bar(table["low"], table["accuracy"], width, align="edge", color=_LIGHT, edgecolor="white", linewidth=0.5)
        upper.plot(table["confidence"], table["accuracy"], color=BLUE, marker="o", markersize=3.5, label="cells")
        upper.set_ylim(0, 1.02)
        upper.set_xlim(0, 1)
        upper.set_ylabel("Accuracy")
        upper.legend(loc="upper left")
        if ece is not None:
            upper.set_title(f"expected calibration error {ece:.3f}", fontsize=7.5)
        lower.bar(table["low"], table["n"], width, align="edge", color=GREY, edgecolor="white", linewidth=0.5)
        lower.set_ylabel("Cells")
        lower.set_xlabel("Confidence (probability of the called location)")
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        lower.yaxis.set_major_formatter("{x:,.0f}")


def pooled(table: pd.DataFrame, stem: Path) -> None:
    """Draw the accuracy of pooled calls over the number of cells pooled.

    table: as ``metrics.pooled_accuracy`` makes it, with a column level (field, protein). Owners with fewer cells than
    are pooled drop out, so each point says how many owners it stands on.
    """
    levels = [level for level in ("field", "protein") if (table["level"] == level).any()]
    with new_figure(stem, NARROW * max(1, len(levels)), 2.9) as figure:
        panels = np.atleast_1d(figure.subplots(1, max(1, len(levels)), sharey=True))
        for axes, level in zip(panels, levels or ["field"], strict=True):
            counted = pd.to_numeric(table["size"], errors="coerce").notna()
            own = table[(table["level"] == level) & counted]
            sizes = sorted(own["size"].astype(int).unique())
            for method, colour, marker, shift in (("mean", BLUE, "o", -0.06), ("vote", ORANGE, "s", 0.06)):
                line = (
                    own[own["method"] == method].assign(size=lambda rows: rows["size"].astype(int)).sort_values("size")
                )
                x = np.searchsorted(sizes, line["size"]) + shift
                low = (line["accuracy"] - line["low"].astype(float)).clip(lower=0)
                high = (line["high"].astype(float) - line["accuracy"]).clip(lower=0)
                axes.errorbar(
                    x,
                    line["accuracy"],
                    np.nan_to_num([low, high]),
                    color=colour,
                    marker=marker,
                    markersize=3.5,
                    linewidth=1.2,
                    elinewidth=0.7,
                    capsize=2,
                    label={"mean": "mean probability", "vote": "vote"}[method],
                )
            owners = own[own["method"] == "mean"].set_index(own[own["method"] == "mean"]["size"].astype(int))[
                "n_owners"
            ]
            axes.set_xticks(np.arange(len(sizes)), [f"{size}\n{owners[size]:,}" for size in sizes])
            axes.set_xlabel(f"Cells pooled, and {level}s that have as many")
            axes.set_ylabel(f"Accuracy of the {level}'s call")
            if sizes:
                # Above the axes, since an interval may reach any place in them.
                axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
            else:
                axes.text(0.5, 0.5, f"no one-label {level}", transform=axes.transAxes, ha="center")
        panels[0].set_ylim(top=1.02)


def mixtures(true: np.ndarray, found: np.ndarray, pair: Sequence[str], stem: Path) -> None:
    """Draw inferred against true fractions of a location.

    true, found: (n,) float from 0 to 1; pair: the mixture of each point (n,), a colour and a marker each.
    """
    names = np.asarray(pair)
    with new_figure(stem, NARROW, 3.3) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        looks = zip(dict.fromkeys(names.tolist()), _looks(), strict=False)
        for name, (colour, marker) in looks:
            rows = names == name
            axes.plot(
                true[rows],
                found[rows],
                marker,
                color=colour,
                markersize=4.5,
                markeredgecolor="white",
                markeredgewidth=0.4,
                alpha=0.9,
                label=name,
            )
        error = float(np.mean(np.abs(true - found)))
        r = float(np.corrcoef(true, found)[0, 1]) if len(true) > 1 else float("nan")
        axes.set_title(f"r = {r:.3f}, mean absolute error {error:.3f}, n = {len(true)}", fontsize=7.5)
        axes.set_xlabel("True fraction")
        axes.set_ylabel("Inferred fraction")
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_aspect("equal")
        axes.legend(loc="upper left", fontsize=6)


def _looks() -> Iterator[tuple[str, str]]:
    for marker in "osD^v":
        for colour in (BLUE, ORANGE, GREEN, SKY, "#CC79A7", "#E69F00"):
            yield colour, marker


def evaluation(folder: Path, out_dir: Path) -> None:
    """Draw the figures of every scored collection (EVALUATION) into out_dir/{collection}/.

    folder: what ``metrics.evaluate`` wrote.
    """
    tables = {
        # A collection may be called 007 or NA.
        name: pd.read_csv(folder / f"{name}.csv", converters={"collection": str})
        for name in ("per_class", "confusion", "reliability", "pooled", "scores")
    }
    for collection in tables["per_class"]["collection"].unique():
        own = {name: table[table["collection"] == collection] for name, table in tables.items()}
        scores = own["scores"].set_index(["level", "score"])["value"]
        ece = scores.get(("cell", "ece"))
        stems = [out_dir / str(collection) / name for name in EVALUATION]
        confusion(own["confusion"][list(NAMES)].to_numpy(int), stems[0])
        per_class(own["per_class"], stems[1])
        reliability(own["reliability"], None if ece is None or np.isnan(ece) else float(ece), stems[2])
        pooled(own["pooled"], stems[3])
