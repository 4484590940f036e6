"""The 19 locations of the 2021 Human Protein Atlas competition, their order, names and colours."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

COLOURS = ("red", "green", "blue", "yellow")


@dataclass(frozen=True)
class Location:
    """One location class: its index in the label vector, full and short name, and plotting colour (hex)."""

    index: int
    name: str
    short: str
    colour: str


# Colours group the compartments: blues in the nucleus, greens and browns in the cytoplasm, reds for the cytoskeleton,
# grey for no staining. Within a group they are as far apart as possible, also for people who are red- or green-blind.
LOCATIONS = tuple(
    Location(index, name, short, colour)
    for index, (name, short, colour) in enumerate(
        (
            ("Nucleoplasm", "Nucleoplasm", "#005a94"),
            ("Nuclear membrane", "Nuc. membrane", "#6788db"),
            ("Nucleoli", "Nucleoli", "#1da6ce"),
            ("Nucleoli fibrillar center", "Nucleoli f.c.", "#98bce3"),
            ("Nuclear speckles", "Nuc. speckles", "#5433ac"),
            ("Nuclear bodies", "Nuc. bodies", "#918cff"),
            ("Endoplasmic reticulum", "ER", "#b67700"),
            ("Golgi apparatus", "Golgi", "#d7b126"),
            ("Intermediate filaments", "Int. filaments", "#c0392b"),
            ("Actin filaments", "Actin", "#ef8477"),
            ("Microtubules", "Microtubules", "#6e1615"),
            ("Mitotic spindle", "Mit. spindle", "#c24686"),
            ("Centrosome", "Centrosome", "#d2a8c3"),
            ("Plasma membrane", "Plasma membr.", "#187c3b"),
            ("Mitochondria", "Mitochondria", "#4caf50"),
            ("Aggresome", "Aggresome", "#a7e373"),
            ("Cytosol", "Cytosol", "#58886f"),
            ("Vesicles and punctate cytosolic patterns", "Vesicles", "#3f808d"),
            ("Negative", "Negative", "#9e9e9e"),
        )
    )
)
N_CLASSES = len(LOCATIONS)
NAMES = tuple(location.name for location in LOCATIONS)
NEGATIVE = NAMES.index("Negative")


def parse_labels(text: str) -> tuple[int, ...]:
    """Read a label string such as ``8|5|0``.

    Returns the distinct class indices in ascending order.
    Raises ValueError if the string is empty, or naming the part that is not an integer from 0 to 18.
    """
    parts = str(text).strip().split("|")
    if parts == [""]:
        raise ValueError("the label is empty")
    labels = set()
    for part in parts:
        part = part.strip()
        # No label has many digits, and int() refuses thousands of them with an error of its own.
        if not (part.isascii() and part.isdigit() and len(part) < 20 and int(part) < N_CLASSES):
            raise ValueError(
                f"unknown label {part[:40]!r} (labels are integers from 0 to {N_CLASSES - 1}, joined by |)"
            )
        labels.add(int(part))
    return tuple(sorted(labels))


def parse_all(texts: Iterable[str]) -> list[tuple[int, ...]]:
    """Read many label strings as ``parse_labels`` does, each distinct one once; an empty string gives no labels."""
    column = list(texts)
    known = {text: parse_labels(text) if text else () for text in set(column)}
    return [known[text] for text in column]


def unite_labels(texts: Iterable[str]) -> str:
    """Return the label string of all labels that are in any of the label strings."""
    return format_labels(label for labels in parse_all(texts) for label in labels)


def format_labels(labels: Iterable[int]) -> str:
    """Write class indices as a label string, ascending and without repeats: ``(5, 0)`` gives ``0|5``."""
    return "|".join(str(label) for label in sorted(set(labels)))


def label_matrix(label_sets: Sequence[Iterable[int]]) -> np.ndarray:
    """Return the (n, 19) float32 matrix of n label sets, one row each."""
    matrix = np.zeros((len(label_sets), N_CLASSES), np.float32)
    for row, labels in enumerate(label_sets):
        matrix[row, list(labels)] = 1.0
    return matrix


def class_prototypes(features: np.ndarray, single: np.ndarray) -> np.ndarray:
    """Return the mean feature vector of the cells of each class.

    features: (n, d) float, of labelled cells
    single: (n,) int, the only true class of each cell; -1 leaves the cell out
    Returns (19, d) float64, with a row of nan for a class without cells.
    """
    prototypes = np.full((N_CLASSES, features.shape[1]), np.nan)
    for index in range(N_CLASSES):
        if (single == index).any():
            prototypes[index] = features[single == index].mean(axis=0, dtype=np.float64)
    return prototypes
