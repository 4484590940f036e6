"""The appearance of the cell lines of the Human Protein Atlas."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class LineShape:
    """The shape of the cells of a line: sizes in µm, ratios without unit, ``density`` in cells per 1000 µm²."""

    radius: tuple[float, float]
    aspect: tuple[float, float]
    nucleus: tuple[float, float]
    nucleus_aspect: tuple[float, float]
    lobes: float
    protrusions: tuple[int, int]
    spacing: float
    crowding: float
    density: float


SHAPES = {
    "cobblestone": LineShape((11.5, 15.0), (1.0, 1.35), (6.2, 7.6), (1.05, 1.5), 0.05, (0, 0), 0.72, 0.85, 0.90),
    "spread": LineShape((12.5, 17.5), (1.0, 1.6), (6.6, 8.2), (1.15, 1.7), 0.09, (1, 4), 0.74, 0.30, 0.70),
    "spindle": LineShape((9.5, 12.5), (2.2, 3.6), (5.6, 6.8), (1.4, 2.1), 0.06, (1, 2), 0.84, 0.35, 0.70),
    "round": LineShape((9.5, 12.0), (1.0, 1.25), (5.8, 7.0), (1.0, 1.3), 0.03, (0, 1), 0.78, 0.70, 1.05),
}

# The usual shape of the lines that the Atlas uses most.
CELL_LINES = {
    "A-431": "cobblestone",
    "A549": "cobblestone",
    "CACO-2": "cobblestone",
    "HaCaT": "cobblestone",
    "Hep G2": "cobblestone",
    "MCF7": "cobblestone",
    "RT4": "cobblestone",
    "HeLa": "spread",
    "PC-3": "spread",
    "SiHa": "spread",
    "U-2 OS": "spread",
    "U-251 MG": "spread",
    "SK-MEL-30": "spread",
    "RH-30": "spread",
    "ASC TERT1": "spindle",
    "BJ": "spindle",
    "fHDF/TERT166": "spindle",
    "HUVEC TERT2": "spindle",
    "SH-SY5Y": "spindle",
    "hTERT-RPE1": "spindle",
    "HEK 293": "round",
    "HL-60": "round",
    "K-562": "round",
    "REH": "round",
    "THP-1": "round",
}


def shape_of(cell_line: str | None, field: str) -> LineShape:
    """Return the shape of a line's cells, for an unknown line by a hash of its name, without a line by the field's."""
    kind = CELL_LINES.get(cell_line or "")
    if kind is None:
        names = sorted(SHAPES)
        kind = names[hashlib.blake2b((cell_line or field).encode(), digest_size=2).digest()[0] % len(names)]
    return SHAPES[kind]
