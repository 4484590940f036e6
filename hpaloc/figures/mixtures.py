"""The figure of mixtures of locations with known fractions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hpaloc.figures.style import BLUE, GREEN, NARROW, ORANGE, SKY, new_figure


def mixtures(true: np.ndarray, found: np.ndarray, pair: Sequence[str], stem: Path) -> None:
    """Draw inferred against true fractions of a location.

    true, found: (n,) float from 0 to 1
    pair: (n,) str, the mixture of each point; each mixture has its colour and marker
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
