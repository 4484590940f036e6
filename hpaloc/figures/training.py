"""Figures of a training: learning rate, curves over epochs, receptive field."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import PercentFormatter

from hpaloc.figures.style import BLUE, GREY, NARROW, ORANGE, SKY, WIDE, new_figure

TRAINING = ("figure6_learning_rate", "figure7a_loss", "figure7b_accuracy", "figure7c_auc", "figure8_receptive_field")


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
    """Draw columns of the history over epochs, solid for the training part, dashed for validation (figures 7a to 7c).

    columns: column of the training part to its name in the legend; val_… are those of the validation part
    """
    with new_figure(stem, NARROW, 2.5) as figure:
        axes = figure.add_subplot()
        colours = (BLUE, ORANGE) if len(columns) == 1 else (BLUE, SKY, ORANGE, "#E69F00")
        place = iter(colours)
        for prefix, part, style, marker in (("", "training", "-", "o"), ("val_", "validation", "--", "s")):
            # A second column may cover the first, so its markers are hollow.
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


def draw_training(history: Path, fields: Path, out_dir: Path) -> None:
    """Draw the figures of a training (TRAINING) from its history.csv and its receptive fields.

    history: one row per epoch: epoch, learning_rate, loss, accuracy, balanced_accuracy, auc and the same with val_
    fields: the .npz of ``receptive_field.measure_receptive_fields``
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
    """Draw the receptive field of one position of the last map: by back-propagation, on cells, and by radius.

    The square is the tile, the dashed square the theoretical field; the circles hold 50 % and 95 % of the effective
    field.

    fields: as ``receptive_field.receptive_fields`` returns them; ``propagated`` and ``effective`` are (H, W) float, of
        sum 1
    """
    tile, theoretical = int(fields["tile"]), int(fields["theoretical"])
    with new_figure(stem, WIDE, 2.5) as figure:
        panels = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
        titles = ("Back-propagated, constant weights", "Effective, trained network on cells")
        for axes, name, title in zip(panels, ("propagated", "effective"), titles, strict=False):
            mass = np.asarray(fields[name], float)
            half = mass.shape[0] / 2
            # The square root, since the middle is brighter than the rest by orders of magnitude.
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
