"""Stand-ins for published crops of single cells, made from simulated fields in the layout of each publication."""

from pathlib import Path

import cv2
import numpy as np
from workflow_runs import write_sheet

from hpaloc.location_names import HPAV23_CLASSES
from hpaloc.simulate.field import simulate_field

# HPAv23: crops of 1024 px at 0.08 µm, reduced to 256 px.
SIDE, PIXEL_SIZE = 256, 0.32
# The order in which the colours of a crop are saved by OpenCV: blue, green, red and alpha of the PNG.
SAVED = ("red", "yellow", "blue", "green")
PARTS = ("train", "valid", "test")


def cut_crops(field, side=SIDE):
    """Yield id, picture (side, side, 4) in the order SAVED and true labels of the cells of a simulated field.

    A crop has its cell in the middle, shows the cells around it, and is black beyond the edge of the field.
    """
    image = np.dstack([field.images[colour] for colour in SAVED])
    half = side // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)))
    for id, labels in field.truth:
        rows, columns = np.nonzero(field.cells == id)
        if not len(rows):
            continue
        top, left = (rows.min() + rows.max() + 1) // 2, (columns.min() + columns.max() + 1) // 2
        yield id, padded[top : top + side, left : left + side], labels


def write_hpav23(folder, antibodies, most=6, dtype="uint16"):
    """Write crops, table and lists of antibodies as HPAv23 has them, from one simulated field for each antibody.

    antibodies: {antibody: (a part of PARTS or None, class indices, the text of its column locations)}
    most: crops of an antibody
    """
    folder = Path(folder)
    table = []
    for number, (antibody, (_, labels, locations)) in enumerate(antibodies.items()):
        plate, position = str(10 + number % 2), f"A{number + 1}"
        field = simulate_field(antibody, labels, 1, (320, 320), PIXEL_SIZE, dtype=dtype, silent_fraction=0.0)
        (folder / plate).mkdir(parents=True, exist_ok=True)
        for id, picture, _ in [*cut_crops(field)][:most]:
            cv2.imwrite(str(folder / plate / f"{plate}_{position}_1_{id}_cell_image.png"), picture)
            row = {"cell_id": id, "if_plate_id": plate, "position": position, "sample": 1, "atlas_name": "U-2 OS"}
            table.append(row | {"antibody": antibody, "gene_names": f"GENE{number}", "locations": locations})
    write_sheet(folder / "metadata.csv", table)
    for part in PARTS:
        listed = [antibody for antibody, (own, _, _) in antibodies.items() if own == part]
        (folder / f"{part}_antibodies.txt").write_text("".join(f"{antibody}\n" for antibody in listed))
    return table


def locations_of(labels):
    """Return the text of the column locations of HPAv23 for classes; that of Negative is empty."""
    names = {index: name for name, index in HPAV23_CLASSES.items()}
    return "" if labels == (18,) else ",".join(names[label] for label in labels)
