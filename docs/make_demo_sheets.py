"""Write the sheets of the demo into config/demo: `PYTHONPATH=. .venv/bin/python docs/make_demo_sheets.py`."""

import csv
import hashlib
import io
from pathlib import Path

import numpy as np

from hpaloc.classes import N_CLASSES, format_labels
from hpaloc.simulate.patterns import CENTROSOME, FIBRILLAR_CENTER, MITOTIC_SPINDLE, NUCLEAR_BODIES

FOLDER = Path(__file__).resolve().parents[1] / "config" / "demo"
DEMO_LINES = ("U-2 OS", "A-431", "BJ", "HEK 293", "U-251 MG", "Hep G2")
DEMO_PAIRS = ((0, 16), (0, 2), (0, 13), (13, 16), (0, 7), (0, 12))  # the most frequent pairs of the 2021 train.csv


def demo_sheet(part: str) -> str:
    """Return the text of the demo's sheet ``train`` or ``test``.

    In train each field has its own antibody, so that a split by antibody can be near any fraction; there are four
    fields per class (six for Mitotic spindle, half of whose cells divide, and for three classes of small dots), and two
    to four for each of the most frequent pairs of labels. In test each class has one antibody with two fields of
    different cell lines, and each pair one field. No antibody is in both.
    """
    single = [(label,) for label in range(N_CLASSES)]
    extra = [(MITOTIC_SPINDLE,), (FIBRILLAR_CENTER,), (NUCLEAR_BODIES,), (CENTROSOME,)]
    if part == "train":
        plan = [(labels, 1) for labels in 4 * single + 2 * [*extra, *DEMO_PAIRS, *DEMO_PAIRS[:2]]]
    else:
        plan = [(labels, 2) for labels in single] + [(labels, 1) for labels in DEMO_PAIRS]
    digest = hashlib.blake2b(f"1:{part}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    rows = []
    for antibody, (labels, fields) in enumerate(plan, 1):
        for line in rng.permutation(len(DEMO_LINES))[:fields]:
            rows.append((format_labels(labels), f"{part}-{antibody:03d}", DEMO_LINES[line]))
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(("ID", "Label", "antibody", "cell_line"))
    for number, row in enumerate((rows[k] for k in rng.permutation(len(rows))), 1):
        writer.writerow((f"demo-{part}-{number:03d}", *row))
    return sheet.getvalue()


if __name__ == "__main__":
    for part in ("train", "test"):
        (FOLDER / f"{part}.csv").write_text(demo_sheet(part), encoding="utf-8")
