"""The simulated fields of a shard, on disk."""

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from hpaloc.classes import format_labels
from hpaloc.files import FileNameError, all_or_none, names_checked
from hpaloc.manifests import ManifestRow
from hpaloc.progress import log, track
from hpaloc.simulate.field import SimulatedField, simulate_field


def simulate_shard(
    rows: Sequence[ManifestRow],
    out_dir: str | Path,
    shape: tuple[int, int] = (1024, 1024),
    dtype: str = "uint8",
    density: float = 1.0,
    threads: int = 1,
) -> None:
    """Simulate the fields of a manifest's rows into ``out_dir``, ``threads`` at a time.

    Writes the files of ``write_field`` for each, of the colours that its row names, and one ``cells.csv`` (ID, cell,
    Label: the truth). A field whose ID cannot be a file name gets a warning, no files and no truth.

    shape, dtype, density: as in ``simulate_field``
    Raises ValueError naming a row without labels or seed, OSError naming a file that cannot be written.
    """
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)

    def one(row: ManifestRow) -> list[tuple[str, int, str]]:
        if row.labels is None or row.seed is None:
            raise ValueError(f"field {row.id}: a simulated field needs labels and a seed in its manifest")
        field = simulate_field(
            row.id, row.labels, row.seed, shape, row.pixel_size, row.cell_line, dtype, density=density
        )
        # A collection may lack a colour; it is drawn nevertheless, so that the others do not depend on it.
        images = {colour: field.images[colour] for colour in row.paths or field.images}
        try:
            write_field(replace(field, images=images), row.id, out)
        except FileNameError as error:
            # Without files it is rejected when they are read, like any other field that lacks one.
            log.warning("field %s: %s", row.id, error)
            return []
        return [(row.id, cell, format_labels(labels)) for cell, labels in field.truth]

    with ThreadPoolExecutor(max(1, threads)) as pool, open(out / "cells.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("ID", "cell", "Label"))
        for truth in track(pool.map(one, rows), total=len(rows), what="fields simulated"):
            writer.writerows(truth)


def write_field(field: SimulatedField, id: str, folder: Path) -> None:
    """Write a field as ``{id}_{colour}.png``, ``{id}_cellmask.png`` and ``{id}_nucleimask.png`` (16-bit), all or none.

    Raises OSError naming a file that cannot be written, and FileNameError if that is because of the ID.
    """
    with all_or_none() as written:
        for name, image in (*field.images.items(), ("cellmask", field.cells), ("nucleimask", field.nuclei)):
            written.append(_write_png(folder / f"{id}_{name}.png", image))


def _write_png(path: Path, image: np.ndarray) -> Path:
    _, encoded = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    try:
        with names_checked(path):
            path.write_bytes(encoded.data)
    except OSError as error:
        if not isinstance(error, FileNameError):
            # The error of a full disk does not name the file.
            error.filename = str(path)
        raise
    return path
