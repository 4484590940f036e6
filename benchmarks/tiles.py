"""Measure how fast cells become tiles and tiles become examples on one core, compared with scPortrait's extraction.

usage: python benchmarks/tiles.py [--fields 12] [--real FOLDER] [--scportrait PYTHON] [--profile]

Simulated fields (1024 x 1024, 0.16 µm/px) unless --real names a folder of 2021 fields with `images` and `masks`.
Tiling is measured from image files and masks to written tables and TFRecords; reading from those files to uint8
images of 224 px. scPortrait extracts the same cells from the same masks, already in memory, at the same 256 px; it
runs if this interpreter, or the one that --scportrait names, can import it. Everything runs on one core. Rates are per
second of CPU time, so that a busy machine matters little.
"""

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.classes import COLOURS
from hpaloc.images import read_channel, read_field
from hpaloc.manifests import ManifestRow
from hpaloc.masks import read_mask, write_mask
from hpaloc.simulate.field import simulate_field
from hpaloc.tiles import tile_field, tile_shard

SIZE = 256


def write_fields(folder, fields):
    """Write (id, images, cells, nuclei) as files of a shard; return its manifest rows and segmentation folder."""
    segmentation = folder / "segmentation"
    segmentation.mkdir()
    rows, table = [], []
    for id, images, cells, nuclei, pixel_size in fields:
        paths = {colour: str(folder / f"{id}_{colour}.png") for colour in COLOURS}
        for colour, image in images.items():
            cv2.imwrite(paths[colour], image)
        write_mask(segmentation / f"{id}_cellmask.png", cells)
        write_mask(segmentation / f"{id}_nucleimask.png", nuclei)
        rows.append(ManifestRow(id=id, labels=(0,), pixel_size=pixel_size, paths=paths))
        state = {"status": "ok", "stage": "segment", "reason": "", "dtype": str(images["red"].dtype)}
        size = {"height": cells.shape[0], "width": cells.shape[1], "pixel_size": pixel_size}
        table.append({"field": id, **size, "n_cells": int(cells.max()), **state})
    pq.write_table(pa.Table.from_pylist(table), segmentation / "fields.parquet")
    return rows, segmentation


def simulated_fields(number):
    for index in range(number):
        field = simulate_field(f"bench-{index}", (index % 18,), seed=index)
        yield f"bench-{index}", field.images, field.cells, field.nuclei, 0.16


def real_fields(folder):
    for mask in sorted((Path(folder) / "masks").glob("*_cellmask.png")):
        id = mask.name.removesuffix("_cellmask.png")
        images = {colour: read_channel(Path(folder) / "images" / f"{id}_{colour}.png", colour) for colour in COLOURS}
        cells = read_mask(mask)
        level, _ = cv2.threshold(images["blue"], 0, 255, cv2.THRESH_OTSU)
        yield id, images, cells, np.where(images["blue"] > level, cells, 0).astype(cells.dtype), 0.08


def montage(rows, segmentation, path):
    """Join the fields into one picture with a margin, as scPortrait wants a slide; ids are made distinct."""
    margin = SIZE
    images, nuclei, cells = [], [], []
    highest = 0
    for row in rows:
        stack = np.stack([read_channel(row.paths[c], c) for c in ("blue", "red", "green", "yellow")])
        of_cells = read_mask(segmentation / f"{row.id}_cellmask.png").astype(np.uint32)
        of_nuclei = read_mask(segmentation / f"{row.id}_nucleimask.png").astype(np.uint32)
        images.append(np.pad(stack.astype(np.uint16), ((0, 0), (margin, margin), (margin, margin))))
        cells.append(np.pad(np.where(of_cells > 0, of_cells + highest, 0), margin))
        nuclei.append(np.pad(np.where(of_nuclei > 0, of_nuclei + highest, 0), margin))
        highest += int(of_cells.max())
    width = max(part.shape[1] for part in cells)

    def join(parts):
        gaps = [[(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])] for part in parts]
        return np.concatenate([np.pad(part, gap) for part, gap in zip(parts, gaps, strict=True)], axis=-2)

    np.savez(path, image=join(images), nuclei=join(nuclei), cells=join(cells))


def tiled(rows, segmentation, out, format):
    """Tile the shard; return cells per second of CPU, the number of cells, and the folder's tile files."""
    tiles = {colour: out / f"{colour}.tfrecord" for colour in COLOURS}
    cpu = time.process_time()
    tile_shard(rows, segmentation, out / "cells.parquet", out / "fields.parquet", tiles, size=SIZE, format=format)
    cpu = time.process_time() - cpu
    number = pq.read_metadata(out / "cells.parquet").num_rows
    return number / cpu, number, tiles


def read_rate(tiles, channels, input_size):
    """Read all tiles through tf.data, twice; return examples per second of CPU of the second time."""
    from hpaloc.records import tile_dataset

    dataset = tile_dataset({colour: [str(path)] for colour, path in tiles.items()}, channels, input_size).batch(32)
    for _ in range(2):
        cpu = time.process_time()
        number = sum(len(batch["cell"]) for batch in dataset)
        cpu = time.process_time() - cpu
    return number / cpu


def scportrait(python, path):
    """Return scPortrait's JSON line, or the reason why there is none."""
    if python is None:
        if find_spec("scportrait") is None:
            return "skipped: scportrait is not installed here (name an interpreter that has it with --scportrait)"
        python = sys.executable
    script = Path(__file__).with_name("scportrait_extraction.py")
    done = subprocess.run([python, str(script), str(path), str(SIZE)], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"skipped: scportrait failed: {done.stderr.strip().splitlines()[-1]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=12)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--scportrait", metavar="PYTHON")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fields = real_fields(arguments.real) if arguments.real else simulated_fields(arguments.fields)
        rows, segmentation = write_fields(folder, fields)
        tiled(rows[:1], segmentation, folder / "warm", "png")
        rates, files = {}, {}
        for format in ("png", "raw"):
            rates[format], number, files[format] = tiled(rows, segmentation, folder / format, format)
        print(f"{len(rows)} fields, {number} cells, one core, tiles of {SIZE} px in four colours")
        print("\ntiling, from image files to tables and TFRecords   cells/s/core   kB/cell")
        for format, rate in rates.items():
            size = sum(path.stat().st_size for path in files[format].values()) / number / 1000
            print(f"  hpaloc, {format:<42}{rate:>12.0f}{size:>10.0f}")
        fields = in_memory(rows, segmentation)
        memory = {format: tile_all(fields, format) for format in ("png", "raw")}
        print("the same from arrays in memory, as scPortrait has them")
        for format, rate in memory.items():
            print(f"  hpaloc, {format:<42}{rate:>12.0f}")
        montage(rows, segmentation, folder / "montage.npz")
        other = scportrait(arguments.scportrait, folder / "montage.npz")
        if isinstance(other, str):
            print(f"  scPortrait: {other}")
        else:
            rate = other["cells"] / other["cpu"]
            print(f"  scPortrait {other['version']}, extract(), {other['cells']} cells{rate:>25.0f}")
            for name, ours in (("png, from files", rates["png"]), ("png", memory["png"]), ("raw", memory["raw"])):
                print(f"  hpaloc ({name}) / scPortrait = {ours / rate:.1f}")
        print("\nreading back, to uint8 of 224 px                  examples/s/core")
        for format in ("png", "raw"):
            for channels in (("green",), ("red", "green", "blue"), COLOURS):
                rate = read_rate(files[format], channels, 224)
                print(f"  {format}, {len(channels)} colours{rate:>43.0f}")
            rate = read_rate(files[format], ("red", "green", "blue"), SIZE)
            print(f"  {format}, 3 colours at 256 px (no resize){rate:>22.0f}")
        if arguments.profile:
            profile = cProfile.Profile()
            profile.enable()
            tile_all(in_memory(rows, segmentation))
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(15)


def in_memory(rows, segmentation):
    """Read the shard's fields; return (id, images, cells, nuclei, pixel size) of each."""
    return [
        (
            row.id,
            read_field(row.paths),
            *(read_mask(segmentation / f"{row.id}_{kind}.png") for kind in ("cellmask", "nucleimask")),
            row.pixel_size,
        )
        for row in rows
    ]


def tile_all(fields, format="png", **options):
    """Tile fields that are in memory; return cells per second of CPU."""
    cpu = time.process_time()
    number = sum(len(tile_field(*field, SIZE, format=format, **options).cells) for field in fields)
    return number / (time.process_time() - cpu)


if __name__ == "__main__":
    main()
