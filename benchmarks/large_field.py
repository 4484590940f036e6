"""Measure the memory and time of the segmentation of one large field in an OME-Zarr.

Usage: python benchmarks/large_field.py [--side 10000] [--dtype uint8] [--memory 4000] [--folder FOLDER]

The field repeats a simulated one. Prints the peak of the sum of the memory of the job, its Dask scheduler and its
worker.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import contextlib

from hpaloc.classes import COLOURS
from hpaloc.manifests import ManifestRow
from hpaloc.planes import Plane
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.simulate.field import simulate_field

CHUNK, TILE = 1024, 2500
LEVELS = 3


def write_field(path: Path, side: int, dtype: str) -> None:
    """Write a pyramid of four channels of side x side px, mirrored copies of simulated fields, in chunks of 1024 px."""
    tiles = [
        simulate_field(f"f{n}", (label,), 1, shape=(TILE, TILE), pixel_size=0.08, dtype=dtype).images
        for n, label in enumerate((0, 5, 13))
    ]
    group = zarr.open_group(path, mode="w", zarr_format=3)
    levels = [
        group.create_array(str(n), shape=(len(COLOURS), *[-(-side // 2**n)] * 2), chunks=(1, CHUNK, CHUNK), dtype=dtype)
        for n in range(LEVELS)
    ]
    for number, colour in enumerate(COLOURS):
        for y, top in enumerate(range(0, side, TILE)):
            row = [
                tiles[(3 * y + 5 * x + x * y) % 3][colour][:, :: -1 if x % 2 else 1] for x in range(-(-side // TILE))
            ]
            rows = np.hstack(row)[:: -1 if y % 2 else 1][: side - top, :side]
            for n, level in enumerate(levels):
                level[number, top // 2**n : (top + TILE) // 2**n] = rows[:: 2**n, :: 2**n]
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": [1, 2**n, 2**n]}]}
        for n in range(LEVELS)
    ]
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}})


def watch(peak: list[float]) -> None:
    """Note the most memory of this process and those that it starts, in bytes, until it ends."""
    me = psutil.Process()
    while True:
        total = 0
        for process in (me, *me.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        peak[0] = max(peak[0], total)
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--dtype", choices=("uint8", "uint16"), default="uint8")
    parser.add_argument("--memory", type=int, default=4000, help="MB of the job")
    parser.add_argument("--folder", type=Path, help="where the field is written; deleted at the end")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder, "field.ome.zarr")
        write_field(path, arguments.side, arguments.dtype)
        paths = {colour: Plane(str(path), channel=number) for number, colour in enumerate(COLOURS)}
        peak = [0.0]
        threading.Thread(target=watch, args=(peak,), daemon=True).start()
        start = time.perf_counter()
        row = ManifestRow("field", None, 0.08, paths=paths)
        segment_shard([row], Path(folder, "masks"), SegmentationSettings(), DaskSettings(), 1, arguments.memory, 0.0)
        seconds = time.perf_counter() - start
        print(f"{arguments.side} px, {arguments.dtype}: peak {peak[0] / 1e9:.2f} GB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
