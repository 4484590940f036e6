"""Figures of what the network learned: patches, maps, curves over layers, units, activation maps, few-shot curves."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from hpaloc.classes import LOCATIONS, N_CLASSES, NAMES
from hpaloc.figures.style import BLUE, GREEN, GREY, ORANGE, OVERLAID, SHORT, WIDE, hide_axes, new_figure, scale_bar
from hpaloc.levels import HEADROOM

_LAYERS = ("stem", "stage 1", "stage 2", "stage 3", "stage 4")
_NETWORKS = {
    "trained": (BLUE, "o", "trained"),
    "random": (ORANGE, "s", "random weights"),
    "shuffled_labels": (GREEN, "^", "trained on shuffled labels"),
}
_SPACES = {
    "network": (BLUE, "o", "network"),
    "CellProfiler": (GREEN, "^", "CellProfiler"),
    "random": (ORANGE, "s", "random weights"),
}


def to_rgb(planes: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """Return the (…, 3) uint8 picture, up to white, of planes (…, channels) uint8 that the network sees.

    Colours are those of ``style.OVERLAID``, yellow is faint, and a single colour is grey.
    """
    planes = np.minimum(planes * HEADROOM, 255)
    if len(channels) == 1:
        return np.repeat(planes, 3, axis=-1).astype(np.uint8)
    picture = np.zeros((*planes.shape[:-1], 3), np.float32)
    for plane, colour in enumerate(channels):
        picture += planes[..., plane, None] * np.array(OVERLAID.get(colour, (0.4, 0.4, 0.0)), np.float32)
    return picture.clip(0, 255).astype(np.uint8)


def patch_sheet(patches: np.ndarray, channels: Sequence[str], title: str, stem: Path) -> None:
    """Draw the patches that drive units most (left) and least (right), one row per unit.

    patches: (units, 2, n, side, side, colours) uint8, as ``layers.driving_patches`` cuts them
    """
    units, _, n, side, *_ = patches.shape
    gap = max(1, side // 16)
    # Small patches are drawn with square pixels, as large as the row allows.
    with new_figure(stem, WIDE, 0.55 + WIDE / (2 * n + 0.9) * units * 1.03) as figure:
        figure.set_layout_engine("constrained", wspace=0.06)
        for axes, end, name in zip(
            figure.subplots(1, 2), range(2), ("strongest answer", "weakest answer"), strict=True
        ):
            sheet = np.full((units * (side + gap) - gap, n * (side + gap) - gap, 3), 255, np.uint8)
            for unit in range(units):
                for place in range(n):
                    y, x = unit * (side + gap), place * (side + gap)
                    sheet[y : y + side, x : x + side] = to_rgb(patches[unit, end, place], channels)
            axes.imshow(sheet, interpolation="nearest")
            hide_axes(axes)
            axes.set_title(name, fontsize=7.5)
            if end == 0:
                axes.set_yticks(np.arange(units) * (side + gap) + side / 2, [f"unit {unit}" for unit in range(units)])
                axes.tick_params(length=0)
        figure.suptitle(title, fontsize=8)


def planar(table: pd.DataFrame, stem: Path) -> None:
    """Draw the 2-D maps of the cells, by layer (columns) and method (rows); table: layer, method, label, x, y."""
    layers = list(dict.fromkeys(table["layer"]))
    methods = list(dict.fromkeys(table["method"]))
    with new_figure(stem, WIDE, 3.9) as figure:
        grid = figure.subplots(len(methods), len(layers), squeeze=False)
        for row, method in enumerate(methods):
            for column, layer in enumerate(layers):
                own = table[(table["method"] == method) & (table["layer"] == layer)]
                axes = grid[row, column]
                colours = [LOCATIONS[label].colour for label in own["label"]]
                axes.scatter(own["x"], own["y"], s=1.6, c=colours, linewidths=0)
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set(visible=True, color="0.8")
                if row == 0:
                    axes.set_title(layer)
                if column == 0:
                    axes.set_ylabel(method)
        present = sorted(table["label"].unique())
        handles = [
            Line2D([], [], marker="o", linestyle="", markersize=3.5, color=LOCATIONS[label].colour, label=SHORT[label])
            for label in present
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=7, columnspacing=0.9, handletextpad=0.1)


def read_separation(path: Path) -> pd.DataFrame:
    """Return the table of ``separation.score_separation`` from its CSV, missing numbers as nan."""
    # The layer of CellProfiler's features is an empty string, not a missing number.
    scores = {column: [""] for column in ("value", "low", "high", "shuffled")}
    return pd.read_csv(path, keep_default_na=False, na_values=scores)


def separation(table: pd.DataFrame, stem: Path) -> None:
    """Draw kNN accuracy and silhouette over the layers; table as ``separation.score_separation`` makes it."""
    with new_figure(stem, WIDE, 2.9) as figure:
        for axes, score, name in zip(
            figure.subplots(1, 2),
            ("knn_accuracy", "silhouette"),
            ("Accuracy of 10 neighbours of other groups", "Silhouette across groups"),
            strict=True,
        ):
            own = table[table["score"] == score]
            layers = list(dict.fromkeys(own.loc[own["network"] == "trained", "layer"]))
            x = np.arange(len(layers))
            for network, (colour, marker, label) in _NETWORKS.items():
                line = own[own["network"] == network].set_index("layer")
                if line.empty:
                    continue
                line = line.loc[layers]
                axes.plot(x, line["value"], color=colour, marker=marker, markersize=3.5, label=label)
                axes.fill_between(x, line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
                if network == "trained":
                    axes.plot(x, line["shuffled"], color=GREY, linestyle="--", label="labels of other groups")
            other = own[own["network"] == "CellProfiler"].iloc[0]
            axes.axhline(other["value"], color="black", linestyle=":", linewidth=0.9, label="CellProfiler features")
            axes.axhspan(other["low"], other["high"], color="black", alpha=0.05, linewidth=0)
            axes.set_xticks(x, layers, fontsize=6.5)
            axes.set_ylabel(name)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5, columnspacing=1.2)


def units(table: pd.DataFrame, layers: pd.DataFrame, stem: Path) -> None:
    """Draw the strength of the units of each layer, median and middle half, and the share that beats chance.

    table, layers: as ``units.describe_units`` makes them, with a column network
    """
    names = list(dict.fromkeys(layers["layer"]))
    networks = [name for name in _NETWORKS if name in set(layers["network"])]
    with new_figure(stem, WIDE, 4.6) as figure:
        grid = figure.subplots(2, 2, sharex=True)
        for row, (what, label) in enumerate(
            (
                ("r", "Strongest |r| to a\nCellProfiler feature"),
                ("information", "Largest mutual information\nwith a location, bits"),
            )
        ):
            upper, share = grid[row]
            for place, network in enumerate(networks):
                colour, marker, name = _NETWORKS[network]
                x = np.arange(len(names)) + 0.16 * (place - (len(networks) - 1) / 2)
                own = table[table["network"] == network]
                values = [own.loc[own["layer"] == layer, what].abs().quantile([0.25, 0.5, 0.75]) for layer in names]
                low, middle, high = (np.array([entry.iloc[at] for entry in values]) for at in range(3))
                upper.errorbar(
                    x, middle, [middle - low, high - middle], color=colour, marker=marker, markersize=3.5, linestyle="",
                    elinewidth=1.5, label=name,
                )  # fmt: skip
                of_network = layers[(layers["network"] == network) & (layers["what"] == what)].set_index("layer")
                upper.plot(
                    x, of_network.loc[names, "shuffled"], "_", color=GREY, markersize=8,
                    label="features and labels of other groups (median)" if place == 0 else None,
                )  # fmt: skip
                share.bar(x, of_network.loc[names, "significant"], 0.15, color=colour)
            upper.set_ylabel(label)
            upper.set_ylim(bottom=0)
            share.set_ylabel("Share of units significant\nover all comparisons")
            # A share of a few per cent must be visible, and a share of 0 must not fill the axis.
            share.set_ylim(0, max(0.05, 1.05 * layers.loc[layers["what"] == what, "significant"].max()))
        for axes in grid[1]:
            axes.set_xticks(np.arange(len(names)), names, fontsize=6.5)
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, columnspacing=1.2)


def activation_maps(
    fields: pd.DataFrame,
    pictures: Sequence[np.ndarray],
    maps: Sequence[np.ndarray],
    channels: Sequence[str],
    stem: Path,
) -> None:
    """Draw fields, with the activation map of their location, and with the likeliest location of each place.

    fields: collection, field, label, pixel_size (µm), one row per field
    pictures: (h, w, colours) uint8
    maps: (h, w, 19) float
    """
    rows = len(fields)
    with new_figure(stem, WIDE, 0.5 + rows * WIDE / 3.3) as figure:
        grid = figure.subplots(rows, 3, squeeze=False)
        shown: set[int] = set()
        for axes, label, pixel_size, picture, found in zip(
            grid, fields["label"].astype(int), fields["pixel_size"].astype(float), pictures, maps, strict=True
        ):
            rgb = to_rgb(picture, channels)
            # Without stain there is nothing to locate.
            grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
            axes[0].imshow(rgb, interpolation="nearest")
            axes[0].set_ylabel(SHORT[label], fontsize=7.5)
            scale_bar(axes[0], picture.shape[1], pixel_size)
            axes[1].imshow(grey, cmap="gray", vmin=0, vmax=1)
            shade = axes[1].imshow(found[..., label].astype(np.float32), cmap="inferno", vmin=0, vmax=1, alpha=0.65)
            best = found.argmax(axis=-1)
            palette = np.array([[int(place.colour[at : at + 2], 16) for at in (1, 3, 5)] for place in LOCATIONS])
            strength = np.take_along_axis(found, best[..., None], axis=-1).astype(np.float32)
            axes[2].imshow(
                (palette[best] * strength * (0.35 + 0.65 * grey[..., None] ** 0.5)).clip(0, 255).astype(np.uint8)
            )
            common = np.bincount(best.ravel(), minlength=N_CLASSES)
            shown |= {int(index) for index in np.argsort(-common)[:4] if common[index] > 0.02 * best.size}
            for panel in axes:
                hide_axes(panel)
        for axes, title in zip(grid[0], ("field and its label", "its location", "likeliest location"), strict=True):
            axes.set_title(title)
        bar = figure.colorbar(shade, ax=grid, location="right", shrink=0.5, aspect=30, pad=0.01)
        bar.set_label("probability of its location")
        handles = [
            Line2D([], [], marker="s", linestyle="", color=LOCATIONS[index].colour, label=NAMES[index])
            for index in sorted(shown)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1.0, handletextpad=0.2)


def few_shot(curves: pd.DataFrame, held_out: bool, stem: Path) -> None:
    """Draw balanced accuracy over the number of examples, a panel a learner; curves as ``few_shot.few_shot_curves``."""
    learners = list(dict.fromkeys(curves["learner"])) or ["logistic_regression"]
    with new_figure(stem, WIDE, 2.8) as figure:
        panels = figure.subplots(1, len(learners), sharey=True, squeeze=False)[0]
        for axes, learner in zip(panels, learners, strict=True):
            own = curves[curves["learner"] == learner]
            numbers = sorted(own["examples"].unique())
            for space, (colour, marker, label) in _SPACES.items():
                grouped = own[own["features"] == space].groupby("examples")["balanced_accuracy"]
                if not len(grouped):
                    continue
                axes.plot(numbers, grouped.mean(), color=colour, marker=marker, markersize=3.5, label=label)
                low, high = grouped.quantile(0.025), grouped.quantile(0.975)
                axes.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.set_title(learner.replace("_", " ").replace("knn", "nearest neighbours"))
            axes.set_xlabel("Examples per class")
            if numbers:
                axes.set_xscale("log")
                axes.set_xticks(numbers, [str(number) for number in numbers])
                axes.minorticks_off()
            else:
                axes.text(0.5, 0.5, "no class is in two groups", transform=axes.transAxes, ha="center")
        panels[0].set_ylabel(
            f"Accuracy on {'classes held out' if held_out else 'classes seen in training'}\n(mean of classes)"
        )
        panels[0].set_ylim(0, 1.02)
        if len(curves):
            panels[-1].legend(loc="lower right")


def draw_interpretation(folder: Path, network: Path, out_dir: Path) -> None:
    """Draw every figure of an interpretation from the files of ``analysis.interpret`` and ``study.study_networks``."""
    channels = (network / "channels.txt").read_text().split()
    receptive = pd.read_csv(network / "receptive_fields.csv")
    sizes = zip(receptive["patch"].astype(int), receptive["theoretical"].astype(int), strict=True)
    size_of = dict(zip(receptive["layer"], sizes, strict=True))
    with np.load(network / "patches.npz") as patches:
        for layer in _LAYERS:
            side, field = size_of[layer]
            what = "its receptive field" if side == field else f"the effective part of a receptive field of {field} px"
            title = f"{layer}: patches of {side} px, {what}"
            patch_sheet(patches[layer], channels, title, out_dir / f"patches_{layer.replace(' ', '_')}")
    planar(pd.read_parquet(folder / "planar.parquet"), out_dir / "planar")
    separation(read_separation(folder / "separation.csv"), out_dir / "separation")
    units(pd.read_parquet(folder / "units.parquet"), pd.read_csv(folder / "unit_layers.csv"), out_dir / "units")
    fields = pd.read_csv(network / "maps.csv")
    with np.load(network / "maps.npz") as stored:
        pictures = [stored[f"{number}/picture"] for number in range(len(fields))]
        maps = [stored[f"{number}/maps"] for number in range(len(fields))]
    activation_maps(fields, pictures, maps, channels, out_dir / "activation_maps")
    with np.load(network / "features.npz") as features:
        held_out = any(name.startswith("held_out/") for name in features.files)
    few_shot(pd.read_csv(folder / "few_shot.csv"), held_out, out_dir / "few_shot")
