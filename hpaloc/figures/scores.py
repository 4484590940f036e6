"""Figures of the scores: confusion, locations, reliability, pooled calls."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hpaloc.classes import N_CLASSES, NAMES
from hpaloc.figures.style import BLUE, GREY, LIGHT, NARROW, ORANGE, SHORT, WIDE, new_figure

SCORES = ("confusion", "per_class", "reliability", "pooled")


def confusion(counts: np.ndarray, stem: Path) -> None:
    """Draw a confusion matrix: colour is the share of the true class, numbers are cells.

    Classes that neither occur nor are called are left out.

    counts: (19, 19) int, rows true, columns called
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
    """Draw accuracy against confidence with the number of cells below; table as ``bin_confidences`` makes it."""
    with new_figure(stem, NARROW, 3.9) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.12})
        width = table["high"] - table["low"]
        upper.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--", label="perfect calibration")
        upper.bar(table["low"], table["accuracy"], width, align="edge", color=LIGHT, edgecolor="white", linewidth=0.5)
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

    Owners with fewer cells than are pooled are left out, so each size has its number of owners.

    table: as ``pooled.measure_pooling`` makes it, with a column level (field, protein)
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
            axes.set_xlabel(f"Cells pooled, and {level}s with at least as many")
            axes.set_ylabel(f"Accuracy of the {level}'s call")
            if sizes:
                # Above the axes, since intervals may be anywhere in them.
                axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
            else:
                axes.text(0.5, 0.5, f"no one-label {level}", transform=axes.transAxes, ha="center")
        panels[0].set_ylim(top=1.02)


def draw_scores(folder: Path, out_dir: Path) -> None:
    """Draw the figures of every scored collection (SCORES) into out_dir/{collection}/.

    folder: the folder of ``evaluation.folder.evaluate``
    """
    tables = {
        # The name of a collection may be 007 or NA.
        name: pd.read_csv(folder / f"{name}.csv", converters={"collection": str})
        for name in ("per_class", "confusion", "reliability", "pooled", "scores")
    }
    for collection in tables["per_class"]["collection"].unique():
        own = {name: table[table["collection"] == collection] for name, table in tables.items()}
        scores = own["scores"].set_index(["level", "score"])["value"]
        ece = scores.get(("cell", "ece"))
        stems = [out_dir / str(collection) / name for name in SCORES]
        confusion(own["confusion"][list(NAMES)].to_numpy(int), stems[0])
        per_class(own["per_class"], stems[1])
        reliability(own["reliability"], None if ece is None or np.isnan(ece) else float(ece), stems[2])
        pooled(own["pooled"], stems[3])
