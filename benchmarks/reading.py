"""Measure how long the channels of one file take to read, compared with four files of one channel.

Usage: python benchmarks/reading.py [--repeats 15] [--files 82495]

A simulated field of 2048 x 2048 px is written in each layout, as one file of four channels and as four files of one,
with the same compression. Both are read in turns; the ratio is that of the medians of their processor times. At last,
a collection of many files of four channels is planned.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numcodecs
import numpy as np
import tifffile
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpaloc.classes import COLOURS
from hpaloc.image_files.stacks import read_planes
from hpaloc.images import read_channel
from hpaloc.planes import Plane
from hpaloc.simulate.field import simulate_field

SIDE = 2048
NAMES = [colour.capitalize() for colour in COLOURS]
Writer = Callable[[Path, np.ndarray], None]

# Plans a collection; prints seconds and the peak of memory in MB.
PLAN = """
import resource, sys, time
sys.path.insert(0, {root!r})
from hpaloc.config import complete
from hpaloc.scan import scan_collection, write_scan
start = time.perf_counter()
channels = {{"red": 0, "green": 1, "blue": 2, "yellow": 3}}
collection = {{"sheet": "sheet.csv", "images": "images/{{id}}.tif", "channels": channels, "shards": 144}}
write_scan(scan_collection("many", complete({{"collections": {{"many": collection}}}})), "plan")
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def tiff(**options: object) -> Writer:
    """Return a writer of TIFFs by tifffile, with its options."""
    return lambda path, data: tifffile.imwrite(path, data, photometric="minisblack", **options)


def imagej(path: Path, data: np.ndarray) -> None:
    """Write an ImageJ hyperstack."""
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "CYX"[-data.ndim :]})


def ome(compression: str, **options: object) -> Writer:
    """Return a writer of OME-TIFFs, planes one after the other."""
    return lambda path, data: tifffile.imwrite(
        path,
        data,
        ome=True,
        metadata={"axes": "CYX"[-data.ndim :]},
        photometric="minisblack",
        compression=compression,
        **options,
    )


def chunky(samples: int, compression: str | None) -> Writer:
    """Return a writer of TIFFs whose pixels have several samples."""

    def write(path: Path, data: np.ndarray) -> None:
        if data.ndim == 3:
            data = np.moveaxis(data[:samples], 0, 2)
        options = {"planarconfig": "contig"} if data.ndim == 3 else {}
        tifffile.imwrite(path, data, photometric="minisblack", compression=compression, metadata=None, **options)

    return write


def pyramid(path: Path, data: np.ndarray) -> None:
    """Write an OME-TIFF of tiles with two coarser levels."""
    with tifffile.TiffWriter(path, ome=True) as file:
        options = {"photometric": "minisblack", "tile": (512, 512), "compression": "zlib"}
        file.write(data, subifds=2, metadata={"axes": "CYX"[-data.ndim :]}, **options)
        for step in (2, 4):
            file.write(data[..., ::step, ::step], subfiletype=1, **options)


def ome_zarr(version: str, codec: str, together: int = 1) -> Writer:
    """Return a writer of OME-Zarr with chunks of 1024 px and of so many channels."""
    old = version == "0.4"
    packages = {
        "blosc": (zarr.codecs.BloscCodec(), "Blosc"),
        "zstd": (zarr.codecs.ZstdCodec(), "Zstd"),
        "gzip": (zarr.codecs.GzipCodec(), "GZip"),
    }

    def write(path: Path, data: np.ndarray) -> None:
        group = zarr.open_group(path, mode="w", zarr_format=2 if old else 3)
        compressor = getattr(numcodecs, packages[codec][1])() if old else packages[codec][0]
        chunks = (together, 1024, 1024)[-data.ndim :]
        group.create_array("0", shape=data.shape, chunks=chunks, dtype=data.dtype, compressors=compressor)[:] = data
        axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"[-data.ndim :]]
        said = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
        group.attrs.update(said if old else {"ome": {"version": version, **said}})

    return write


def layouts() -> Iterator[tuple[str, str, int, Writer]]:
    """Yield name, ending of files, number of channels and writer of each layout."""
    yield "ImageJ hyperstack", "tif", 4, imagej
    for compression in ("zlib", "lzw", "zstd"):
        yield f"OME-TIFF, {compression}", "tif", 4, ome(compression)
    yield "OME-TIFF, tiles and pyramid, zlib", "tif", 4, pyramid
    for samples in (3, 4):
        for compression in (None, "zlib", "lzw", "zstd"):
            name = f"{samples} samples per pixel, {compression or 'not compressed'}"
            yield name, "tif", samples, chunky(samples, compression)
    for version in ("0.4", "0.5"):
        for codec in ("blosc", "zstd", "gzip"):
            yield f"OME-Zarr {version}, {codec}", "zarr", 4, ome_zarr(version, codec)
    yield "OME-Zarr 0.5, zstd, chunks of four channels", "zarr", 4, ome_zarr("0.5", "zstd", 4)


def measure(name: str, ending: str, n: int, write: Writer, data: np.ndarray, repeats: int, folder: Path) -> str:
    """Write a layout, read it in turns, and return its row of the table."""
    colours = COLOURS[:n]
    one = folder / f"one.{ending}"
    write(one, data[:n])
    singles = {colour: folder / f"{colour}.{ending}" for colour in colours}
    for colour, plane in zip(colours, data, strict=False):
        write(singles[colour], plane)
    planes = {colour: Plane(str(one), channel=number) for number, colour in enumerate(colours)}
    times: dict[str, list[float]] = {"one": [], "single": []}
    for repeat in range(repeats + 1):
        for kind in ("one", "single") if repeat % 2 else ("single", "one"):
            start = time.process_time()
            if kind == "one":
                read = read_planes(planes, colours)
            else:
                read = {colour: read_channel(path, colour) for colour, path in singles.items()}
            spent = time.process_time() - start
            if repeat:
                times[kind].append(spent)
            else:
                assert all(np.array_equal(read[colour], plane) for colour, plane in zip(colours, data, strict=False))
    from_one, from_singles = (1000 * statistics.median(times[kind]) for kind in ("one", "single"))
    ratios = sorted(a / b for a, b in zip(times["one"], times["single"], strict=True))
    middle = f"{ratios[len(ratios) // 4]:.2f} – {ratios[-1 - len(ratios) // 4]:.2f}"
    return f"| {name} | {from_one:.0f} | {from_singles:.0f} | {from_one / from_singles:.2f} | {middle} |"


def plan(files: int, folder: Path) -> str:
    """Plan a collection of many files of four channels, in a process of its own."""
    (folder / "images").mkdir()
    imagej(folder / "first.tif", np.zeros((4, 16, 16), np.uint8))
    with open(folder / "sheet.csv", "w", encoding="utf-8") as sheet:
        sheet.write("ID\n")
        for n in range(files):
            sheet.write(f"f{n:06}\n")
            shutil.copyfile(folder / "first.tif", folder / f"images/f{n:06}.tif")
    job = PLAN.format(root=str(Path(__file__).resolve().parents[1]))
    done = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, check=True, cwd=folder)
    seconds, megabytes = map(float, done.stdout.split())
    return f"{files:,} files of four channels are planned in {seconds:.0f} s within {megabytes:.0f} MB."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--files", type=int, default=82_495)
    arguments = parser.parse_args()
    for dtype in ("uint8", "uint16"):
        field = simulate_field("reading", (0,), 0, shape=(SIDE, SIDE), pixel_size=0.08, dtype=dtype)
        data = np.stack([field.images[colour] for colour in COLOURS])
        print(f"\n{dtype}\n\n| layout | one file, ms | single files, ms | ratio | ratios of the middle half |")
        print("|---|---|---|---|---|")
        for layout in layouts():
            with tempfile.TemporaryDirectory() as folder:
                print(measure(*layout, data, arguments.repeats, Path(folder)), flush=True)
    if arguments.files:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{plan(arguments.files, Path(folder))}")
    print(f"peak memory of this program: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
