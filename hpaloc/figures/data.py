"""Figures of the data: labels, co-occurrence, the channels of a field, a field of each location."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from hpaloc.classes import LOCATIONS, N_CLASSES, NAMES
from hpaloc.figures.style import BLUE, LIGHT, NARROW, OVERLAID, SHORT, WIDE, hide_axes, new_figure, scale_bar
from hpaloc.image_metadata import PixelSizeError, resolve_pixel_size
from hpaloc.images import TINT, ImageError, read_field
from hpaloc.manifests import ManifestRow, unchanged
from hpaloc.progress import log

DATA = (
    "figure1_labels",
    "figure2a_labels_per_field",
    "figure2b_co_occurrence",
    "figure3_channels",
    "figure4_locations",
)

# The titles of the panels of a field.
_STAINED = {
    "red": "Microtubules",
    "green": "Protein of interest",
    "blue": "Nucleus",
    "yellow": "Endoplasmic reticulum",
}


def _whole_numbers() -> MaxNLocator:
    return MaxNLocator(7, integer=True, steps=[1, 2, 5, 10])


def label_distribution(label_sets: Sequence[Sequence[int]], stem: Path) -> None:
    """Draw how many fields have each location, alone and together with others (figure 1 of the paper)."""
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
        axes.barh(y, (total - alone)[order], left=alone[order], color=LIGHT, label="together with other labels")
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
    """Draw how many fields have one, two, three … labels (figure 2a)."""
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
    """Count the fields with both labels of each pair, (19, 19) int64; the diagonal counts those with one label only."""
    counts = np.zeros((N_CLASSES, N_CLASSES), int)
    for labels in label_sets:
        if len(labels) == 1:
            counts[labels[0], labels[0]] += 1
        else:
            counts[np.ix_(list(labels), list(labels))] += 1 - np.eye(len(labels), dtype=int)
    return counts


def co_occurrence(label_sets: Sequence[Sequence[int]], stem: Path) -> None:
    """Draw the matrix of fields by pair of labels (figure 2b); the diagonal has fields with that label alone."""
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
    """Return whole numbers up to ``top`` that are well apart on a logarithmic scale: 1, 2, 3 … or 1, 2, 5, 10 …"""
    if top <= 8:
        return list(range(1, top + 1))
    return [step * 10**power for power in range(len(str(top))) for step in (1, 2, 5)]


def _count_matrix(axes: Axes, counts: np.ndarray, top: int, size: float) -> AxesImage:
    """Draw positive counts on a logarithmic scale with their numbers; zeros stay blank."""
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

    It is at least a quarter of that of the brightest colour, so that the noise of a channel without signal stays dark.

    images: colour to (H, W) of any number type
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


def field_channels(images: Mapping[str, np.ndarray], title: str, pixel_size: float, stem: Path) -> None:
    """Draw the colours of a field side by side (figure 3).

    images: colour to (H, W) of any number type
    title: field and labels
    pixel_size: µm
    """
    white = white_levels(images)
    height, width = next(iter(images.values())).shape
    with new_figure(stem, WIDE / 4 * len(images), 0.35 + WIDE / 4 * height / width + 0.2) as figure:
        shown = [colour for colour in _STAINED if colour in images]
        for axes, colour in zip(figure.subplots(1, len(shown)), shown, strict=True):
            grey = _shrink(images[colour], white[colour], 700)
            tint = np.zeros((*grey.shape, 3), np.float32)
            for channel in TINT[colour]:
                tint[..., channel] = grey
            if colour == "blue":
                # Pure blue is the darkest primary colour for the eye.
                tint[..., 1] = 0.35 * grey
            _picture(axes, tint, _STAINED[colour])
        scale_bar(axes, width, pixel_size)
        figure.suptitle(title, fontsize=8)


def _picture(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow((image * 255).round().astype(np.uint8), interpolation="nearest")
    axes.set_title(title, fontsize=7.5, pad=3)
    hide_axes(axes)


def composite(images: Mapping[str, np.ndarray], side: int = 420) -> np.ndarray:
    """Return the (h, w, 3) float64 RGB picture of a field: microtubules magenta, protein green, nucleus blue.

    images: the channels red (may be absent), green and blue, (H, W) of any depth
    side: px, the most for the longer side
    """
    white = white_levels({colour: images[colour] for colour in OVERLAID if colour in images})
    planes = [_shrink(images[colour], white[colour], side)[..., None] * OVERLAID[colour] for colour in white]
    return np.minimum(sum(planes), 1.0)


def location_panels(panels: Mapping[int, tuple[str, Mapping[str, np.ndarray], float]], stem: Path) -> None:
    """Draw one field of each location, as an overlay of three channels (figure 4).

    Every panel has its own scale bar, since fields differ in size. A location without a field has an empty panel that
    says so.

    panels: class index to the name of a one-label field, its images (colour to (H, W) of any number type) and its pixel
        size in µm
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
        stains = [("#C800C8", "Microtubules"), ("#008000", "Protein"), ("#2040FF", "Nucleus")]
        without_red = bool(panels) and not any("red" in images for _, images, _ in panels.values())
        for row, (colour, text) in enumerate(stains[without_red:]):
            key.text(0.08, 0.7 - 0.17 * row, text, color=colour, fontsize=8, weight="bold", transform=key.transAxes)


def _broken(name: str) -> str:
    """Break a long name into two lines near its middle."""
    words = name.split()
    cut = min(range(1, len(words)), key=lambda at: abs(len(" ".join(words[:at])) - len(name) / 2), default=0)
    return " ".join(words[:cut]) + "\n" + " ".join(words[cut:])


def _shortened(name: str, most: int = 20) -> str:
    return name if len(name) <= most else f"{name[: most - 7]}…{name[-6:]}"


def _readable(rows: Iterable[ManifestRow]) -> tuple[ManifestRow, dict[str, np.ndarray]] | None:
    """Return the first row whose files can be read, with its pixel size, and its images."""
    for row in rows:
        try:
            with unchanged(row.paths, row.states):
                images = read_field(row.paths)
                return replace(row, pixel_size=resolve_pixel_size(row.pixel_size, row.paths)), images
        except (ImageError, PixelSizeError) as error:
            log.warning("field %s is not drawn: %s", row.id, error)
    return None


def draw_data(rows: Sequence[ManifestRow], out_dir: Path) -> None:
    """Draw the figures of a collection from its labels and images: figures 1, 2a, 2b, 3 and 4 (DATA).

    Figure 3 shows the first readable field with most labels, figure 4 the first readable one-label field of each
    location. Without any label only figure 3 is drawn.

    Raises ChangedError naming a file that changed after the run was planned.
    """
    names = [out_dir / name for name in DATA]
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
