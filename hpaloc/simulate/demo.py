"""The sheets of the demo."""

import csv
import hashlib
from pathlib import Path

import numpy as np

from hpaloc.classes import N_CLASSES, format_labels
from hpaloc.simulate.patterns import CENTROSOME, FIBRILLAR_CENTER, MITOTIC_SPINDLE, NUCLEAR_BODIES

DEMO_LINES = ("U-2 OS", "A-431", "BJ", "HEK 293", "U-251 MG", "Hep G2")
DEMO_PAIRS = ((0, 16), (0, 2), (0, 13), (13, 16), (0, 7), (0, 12))  # the most frequent pairs of the 2021 train.csv


def demo_sheet(part: str, seed: int = 1) -> list[dict[str, str]]:
    """Return the rows (ID, Label, antibody, cell_line) of the demo's sheet ``train`` or ``test``.

    In train each field has its own antibody, so that a split by antibody can be near any fraction; there are four
    fields per class (six for Mitotic spindle, half of whose cells divide, and for three classes of small dots), and two
    to four for each of the most frequent pairs of labels. In test each class has one antibody with two fields of
    different cell lines, and each pair one field. No antibody is in both.

    Raises ValueError for another ``part``.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part {part!r} is neither train nor test")
    single = [(label,) for label in range(N_CLASSES)]
    extra = [(MITOTIC_SPINDLE,), (FIBRILLAR_CENTER,), (NUCLEAR_BODIES,), (CENTROSOME,)]
    if part == "train":
        plan = [(labels, 1) for labels in 4 * single + 2 * [*extra, *DEMO_PAIRS, *DEMO_PAIRS[:2]]]
    else:
        plan = [(labels, 2) for labels in single] + [(labels, 1) for labels in DEMO_PAIRS]
    digest = hashlib.blake2b(f"{seed}:{part}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    rows = []
    for antibody, (labels, fields) in enumerate(plan, 1):
        for line in rng.permutation(len(DEMO_LINES))[:fields]:
            rows.append((format_labels(labels), f"{part}-{antibody:03d}", DEMO_LINES[line]))
    return [
        {"ID": f"demo-{part}-{number:03d}", "Label": label, "antibody": antibody, "cell_line": line}
        for number, (label, antibody, line) in enumerate((rows[k] for k in rng.permutation(len(rows))), 1)
    ]


def write_demo_sheets(folder: str | Path, seed: int = 1) -> None:
    """Write ``train.csv`` and ``test.csv`` of the demo into a folder."""
    for part in ("train", "test"):
        rows = demo_sheet(part, seed)
        with open(Path(folder) / f"{part}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
