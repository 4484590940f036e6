"""Measure how what hpaloc finds depends on what cameras, stitchers and converters do to the files of a field.

usage: python benchmarks/levels.py --model results/model [--data FOLDER] [--simulated 3] [--large 2] [--small 4]
                                   [--only WORD …] [--csv FILE] [--list]

The fields are simulated ones of the demo's test kind and, where the folder of --data has them, real ones of hpa-2021/
(2048 px and more, 0.08 µm) and hpa-512/ (512 px, 0.32 µm). The model is the folder of a `make demo`. Each change starts
from an untouched field of the same bit depth: 8 bit; 10 or 12 bit in 16-bit files, with dither, so that levels are not
multiples; or 12 bit with one colour ten times dimmer. Both fields are written as files (TIFF, unless the change says
otherwise), read, segmented, tiled and called. Values above a detector's range are clipped only if the change says so,
or if the files are 8-bit. Progress goes to standard error, a line per field and change to the file of --csv, and a
table to standard output, one row per change over all fields:

  cells kept    the untouched field's cells that the changed field has with an IoU of 0.6 or more. Cells of which the
                change destroys more than a tenth of the pixels (under a disc of debris, in an empty part) do not count.
  calls kept    the kept cells with the same likeliest class, by the network fused with the regression, as in the
                workflow
  tile change   the mean absolute difference of a cell's tile as the network is fed it, relative to the mean of the
                untouched tile (at least 1 of 255): the largest over kept cells, colours and fields, and the 95th
                percentile. Both tiles are cut with the untouched masks, so a different outline does not count, and
                pixels next to those that the change itself touches do not count. If those are more than half of a tile,
                the cell is left out; if a change is one of the whole field, every pixel of every cell counts.
  warnings      the fields with a warning or a rejection that the untouched field does not have, and the first of them
  met           yes, if at least 95 % of cells and calls are kept and no tile changes by more than 3 %. For changes
                that cannot be made harmless ("warns"), yes, if every field has a warning.
  worst field   the field that misses these limits by most, or comes nearest to them
"""

import argparse
import csv
import os
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# TensorFlow's messages would hide the progress.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from hpaloc.baselines.measures import measure_shard
from hpaloc.classes import COLOURS
from hpaloc.cutting import square
from hpaloc.images import check_field, read_field
from hpaloc.manifests import ManifestRow
from hpaloc.masks import write_masks
from hpaloc.matching import find_overlaps
from hpaloc.network.folder import read_settings
from hpaloc.prediction import Predictor
from hpaloc.records import tile_dataset
from hpaloc.segmentation.backends import COLOURS_OF, segment_field
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.simulate.field import simulate_field
from hpaloc.tables import PROBABILITIES
from hpaloc.tiles import tile_shard

Images = dict[str, np.ndarray]
Paths = dict[str, str]
# Field and cell.
CellKey = tuple[str, int]
Value = TypeVar("Value")

SAME_CELL = 0.6
DESTROYED = 0.1
LEAST_KEPT = 0.95
MOST_CHANGED = 0.03


# What hpaloc does, from files to calls: all that depends on its signatures.


def segment(paths: Paths, pixel_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (nuclei, cells) of a field from its files; raises ValueError for one that hpaloc rejects."""
    settings = SegmentationSettings()
    images = read_field(paths, COLOURS_OF[settings.backend])
    check_field(images, paths)
    return segment_field(images, pixel_size, settings)


class Caller:
    """The calls of a model folder as the workflow makes them: those of the network fused with its regression.

    A cell is seen in one view only, which takes an eighth of the time.

    channels, size: of the tiles that the network takes
    """

    def __init__(self, folder: Path) -> None:
        self._predictor = Predictor(folder, views=1)
        settings = read_settings(folder)[0]
        self.channels, self.size = settings["channels"], settings["input_size"]

    def call(self, folder: Path, files: Mapping[str, Path]) -> dict[CellKey, int]:
        """Return the likeliest class of each cell that ``tile`` wrote into a folder; files: its tiles."""
        cells, measures, out = (folder / f"{name}.parquet" for name in ("cells", "measures", "calls"))
        measure_shard(cells, folder / "tiled.parquet", folder, files, measures, self.channels, self.size)
        self._predictor.predict_shard(files, cells, out, measures=measures)
        table = pq.read_table(out).to_pandas()
        classes = table[list(PROBABILITIES)].to_numpy().argmax(axis=1).tolist()
        return dict(zip(zip(table["field"], table["cell"], strict=True), classes, strict=True))


def tile(
    fields: Sequence[tuple[str, Paths, float, np.ndarray, np.ndarray]], folder: Path, size: int
) -> tuple[dict[str, dict[str, Any]], dict[CellKey, np.ndarray], dict[CellKey, tuple[int, ...]], dict[str, Path]]:
    """Tile (id, paths, pixel size, nuclei, cells) of fields.

    Returns their rows of FIELDS; of every (field, cell) the tile as the network is fed it, (size, size, 4) uint8; its
    box (y0, y1, x0, x1); and the files of the tiles by colour.
    """
    rows, segmented = [], []
    for id, paths, pixel_size, nuclei, cells in fields:
        write_masks(folder, id, cells, nuclei)
        rows.append(ManifestRow(id=id, labels=None, pixel_size=pixel_size, paths=paths))
        shape = {"height": cells.shape[0], "width": cells.shape[1], "n_cells": int(cells.max()), "dtype": ""}
        segmented.append(
            {"field": id, **shape, "pixel_size": pixel_size, "status": "ok", "stage": "segment", "reason": ""}
        )
    pq.write_table(pa.Table.from_pylist(segmented), folder / "fields.parquet")
    files = {colour: folder / f"{colour}.tfrecord" for colour in COLOURS}
    cells_path, fields_path = folder / "cells.parquet", folder / "tiled.parquet"
    tile_shard(rows, folder, cells_path, fields_path, files, max_rejected_fraction=1.0, format="raw")
    table = pq.read_table(cells_path, columns=["field", "cell", "y0", "y1", "x0", "x1"]).to_pylist()
    boxes: dict[CellKey, tuple[int, ...]] = {
        (row["field"], row["cell"]): (row["y0"], row["y1"], row["x0"], row["x1"]) for row in table
    }
    tiles: dict[CellKey, np.ndarray] = {}
    if table:
        dataset = tile_dataset({colour: [str(path)] for colour, path in files.items()}, COLOURS, size)
        for batch in dataset.batch(512):
            keys = zip((name.decode() for name in batch["field"].numpy()), batch["cell"].numpy().tolist(), strict=True)
            tiles |= dict(zip(keys, batch["image"].numpy(), strict=True))
    return {row["field"]: row for row in pq.read_table(fields_path).to_pylist()}, tiles, boxes, files


# The untouched fields.


@dataclass(frozen=True)
class Source:
    """A field as it was taken: its name, {colour: (H, W) uint8}, and pixel size in µm."""

    name: str
    images: Images
    pixel_size: float


@dataclass
class Untouched:
    """A field of one bit depth before the change, and what hpaloc finds in it.

    top: the detector's largest level
    tiles, boxes, calls: by cell
    """

    source: Source
    images: Images
    top: int
    nuclei: np.ndarray
    cells: np.ndarray
    warnings: set[str] = field(default_factory=set)
    tiles: dict[int, np.ndarray] = field(default_factory=dict)
    boxes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)


def seeded(*words: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(word.encode()) for word in words])


def deeper(images: Images, top: int, name: str) -> Images:
    """Return 8-bit images as those of a detector with the largest level ``top``; saturated pixels stay saturated."""
    rng, step = seeded("dither", name), top / 255
    return {
        colour: np.where(
            image == 255, top, np.clip(np.rint(image * step + rng.uniform(-step / 2, step / 2, image.shape)), 0, top)
        ).astype(np.uint16)
        for colour, image in images.items()
    }


def dimmer(images: Images, name: str, colour: str) -> Images:
    """Return 8-bit images as those of a detector of 12 bits, with one colour ten times dimmer."""
    images = deeper(images, 4095, name)
    return {**images, colour: np.rint(images[colour] * 0.1).astype(np.uint16)}


# {name: (the detector's largest level, 8-bit images and name of a field to its images)}
BASES: dict[str, tuple[int, Callable[[Images, str], Images]]] = {
    "8 bit": (255, lambda images, name: images),
    # At most 1020: the next pixel takes an eleventh bit.
    "10 bit": (1020, lambda images, name: deeper(images, 1020, name)),
    "12 bit": (4095, lambda images, name: deeper(images, 4095, name)),
    **{f"12 bit, dim {colour}": (4095, partial(dimmer, colour=colour)) for colour in ("blue", "green", "yellow")},
}


def find_sources(data: Path, simulated: int, large: int, small: int) -> list[Source]:
    """Simulate and read the fields; folders without real images are named on standard error."""
    sources = []
    locations = ((0, 16), (14,), (2,), (7,), (13,), (10,), (17,), (6,))
    lines = ("U-2 OS", "A-431", "HEK 293", "BJ", "Hep G2", "U-251 MG")
    for index in range(simulated):
        name = f"simulated-{index}"
        made = simulate_field(name, locations[index % len(locations)], index, cell_line=lines[index % len(lines)])
        sources.append(Source(name, made.images, 0.16))
    for folder, number, pixel_size in (("hpa-2021", large, 0.08), ("hpa-512", small, 0.32)):
        # The smallest fields first: the largest one takes nearly as long as all others together.
        found = sorted((data / folder / "images").glob("*_blue.png"), key=lambda path: (Image.open(path).size, path))
        if number and not found:
            print(f"skipped: no fields in {data / folder / 'images'}", file=sys.stderr)
        for blue in found[:number]:
            id = blue.name.removesuffix("_blue.png")
            paths = {colour: str(blue.with_name(f"{id}_{colour}.png")) for colour in COLOURS}
            sources.append(Source(id[:8], read_field(paths), pixel_size))
    return sources


# Writing files: (path, image, pixel size in µm).


def write_png(path: str, image: np.ndarray, pixel_size: float) -> None:
    cv2.imwrite(path, image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def write_tiff(path: str, image: np.ndarray, pixel_size: float, byteorder: Literal["<", ">"] = "<") -> None:
    tifffile.imwrite(path, image, photometric="minisblack", metadata=None, byteorder=byteorder)


def write_imagej(path: str, image: np.ndarray, pixel_size: float) -> None:
    per_um = (1 / pixel_size, 1 / pixel_size)
    tifffile.imwrite(path, image, imagej=True, resolution=per_um, metadata={"unit": "um", "axes": "YX"})


def write_ome(
    path: str, image: np.ndarray, pixel_size: float, factor: float = 1.0, significant_bits: int | None = None
) -> None:
    size: dict[str, Any] = {f"PhysicalSize{axis}": pixel_size * factor for axis in "XY"}
    size |= {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    if significant_bits:
        size["SignificantBits"] = significant_bits
    tifffile.imwrite(path, image, ome=True, photometric="minisblack", metadata={"axes": "YX", **size})


SUFFIX = {write_png: ".png"}


# The changes: from the untouched field to changed images.

Make = Callable[[Untouched, np.random.Generator], Images]
Touch = Callable[[tuple[int, ...]], np.ndarray]
# Pixels above and below, left and right of a field.
Margin = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Change:
    """One change of a field.

    base: the untouched field, one of BASES
    make: from the untouched field to the changed images
    touched: the pixels that the change itself touches, (H, W) bool from the shape; "differing" for all that differ,
    None if it is a change of the whole field
    write: writes the files
    margin: what the changed images have around the field, from its shape
    warns: whether a warning is what is asked of hpaloc, not unchanged cells
    """

    kind: str
    name: str
    base: str
    make: Make
    touched: Touch | str | None = None
    write: Callable[..., None] = write_tiff
    warns: bool = False
    margin: Callable[[tuple[int, ...]], Margin] = lambda shape: ((0, 0), (0, 0))


def inner_point(where: np.ndarray) -> tuple[int, int]:
    """Return the (y, x) of the pixels ``where`` that is farthest from the others and from the edge of the field."""
    depth = cv2.distanceTransform(np.pad(where.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(y), int(x)


def point(before: Untouched, place: str) -> tuple[int, int]:
    """Return the (y, x) of a place: the middle of a cell of usual size, of the background, or the field's corner."""
    if place == "at the corner":
        return 3, 3
    if place == "in the background" or not before.cells.any():
        return inner_point(before.cells == 0)
    area = np.bincount(before.cells.ravel())[1:]
    cell = int(np.argsort(area)[len(area) // 2]) + 1
    return inner_point(before.cells == cell)


def painted(before: Untouched, where: np.ndarray, colours: Iterable[str], level: int | None = None) -> Images:
    """Return the images with the pixels ``where`` of some colours set to a level, None for the detector's largest."""
    level = before.top if level is None else level
    return {
        colour: np.where(where, level, image).astype(image.dtype) if colour in colours else image
        for colour, image in before.images.items()
    }


def speck(before: Untouched, rng: np.random.Generator, colour: str, place: str) -> Images:
    y, x = point(before, place)
    where = np.zeros(before.cells.shape, bool)
    where[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = True
    return painted(before, where, (colour,))


def hot_pixels(before: Untouched, rng: np.random.Generator, colour: str, number: int, level: int) -> Images:
    where = np.zeros(before.cells.size, bool)
    where[rng.choice(where.size, number, replace=False)] = True
    return painted(before, where.reshape(before.cells.shape), (colour,), level)


def line(before: Untouched, rng: np.random.Generator, colour: str, length: int, width: int) -> Images:
    y, x = point(before, "in the background")
    angle = rng.uniform(0, np.pi)
    down, right = np.indices(before.cells.shape) - np.array((y, x))[:, None, None]
    along, across = right * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - right * np.sin(angle)
    where = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)
    return painted(before, where, (colour,))


def disc(
    before: Untouched, rng: np.random.Generator, colour: str, um: float, place: str = "in the background"
) -> Images:
    y, x = point(before, place)
    radius = round(um / 2 / before.source.pixel_size)
    where = cv2.circle(np.zeros(before.cells.shape, np.uint8), (x, y), radius, (1,), -1) != 0
    return painted(before, where, (colour,))


def stripe(before: Untouched, rng: np.random.Generator, axis: int, level: int | None) -> Images:
    where = np.zeros(before.cells.shape, bool)
    at: list[Any] = [slice(None), slice(None)]
    at[axis] = where.shape[axis] * 2 // 5
    where[tuple(at)] = True
    return painted(before, where, COLOURS, level)


def rescaled(
    before: Untouched,
    rng: np.random.Generator,
    factor: float,
    colours: Sequence[str] = COLOURS,
    offset: float = 0,
    noise: float = 0,
    top: int | None = None,
) -> Images:
    """Return factor * level + offset + Gaussian noise, clipped at ``top``."""
    images = dict(before.images)
    for colour in colours:
        image = images[colour]
        values = image.astype(np.float64) * factor + offset + (rng.normal(0, noise, image.shape) if noise else 0.0)
        # A detector of more bits has levels between those of one of fewer.
        if factor > 1 and factor != round(factor):
            values += rng.uniform(-factor / 2, factor / 2, image.shape)
        most = np.iinfo(image.dtype).max if top is None else top
        images[colour] = np.clip(np.rint(values), 0, most).astype(image.dtype)
    return images


def times_257(before: Untouched, rng: np.random.Generator) -> Images:
    return {**before.images, "green": before.source.images["green"].astype(np.uint16) * np.uint16(257)}


def uneven(before: Untouched, rng: np.random.Generator) -> Images:
    height, width = before.cells.shape
    slope = np.add.outer(np.linspace(0, 100, height), np.linspace(0, 100, width)) + 100
    return {colour: np.rint(image + slope).astype(np.uint16) for colour, image in before.images.items()}


def beside(shape: tuple[int, ...], part: str) -> Margin:
    """Return what a stitcher leaves empty around a field."""
    height, width = shape
    y, x = height // 4, width // 4
    return {"a frame": ((y, y), (x, x)), "a band": ((0, 0), (0, 2 * x)), "an L": ((0, 2 * y), (0, 2 * x))}[part]


def mosaic(before: Untouched, rng: np.random.Generator, part: str, offset: int, level: int) -> Images:
    margin = beside(before.cells.shape, part)
    return {
        colour: np.pad((image.astype(np.int64) + offset).astype(image.dtype), margin, constant_values=level)
        for colour, image in before.images.items()
    }


def outside(shape: tuple[int, ...], part: str) -> np.ndarray:
    """Return the pixels of a field that are lost, (H, W) bool."""
    height, width = shape
    y, x = height // 10, width // 10
    where = np.zeros((height, width), bool)
    if part == "a frame":
        where[:] = True
        where[y : height - y, x : width - x] = False
    elif part == "an L":
        where[:, : 2 * x] = where[height - 2 * y :] = True
    else:
        where[: 3 * y, width - 3 * x :] = True
    return where


def lost(before: Untouched, rng: np.random.Generator, part: str) -> Images:
    return painted(before, outside(before.cells.shape, part), COLOURS, 0)


def out_of_focus(before: Untouched, rng: np.random.Generator) -> Images:
    sigma = 1 / before.source.pixel_size
    return {colour: cv2.GaussianBlur(image, (0, 0), sigma) for colour, image in before.images.items()}


def exchanged(before: Untouched, rng: np.random.Generator, **from_colour: str) -> Images:
    return {colour: before.images[from_colour.get(colour, colour)] for colour in COLOURS}


def in_16_bits(before: Untouched, rng: np.random.Generator) -> Images:
    return {colour: image.astype(np.uint16) for colour, image in before.images.items()}


def unchanged(before: Untouched, rng: np.random.Generator) -> Images:
    return before.images


def few_pixels() -> list[Change]:
    add = partial(Change, "few pixels", touched="differing")
    found = [
        add(f"speck of 49 saturated pixels, {colour}, {place}", "8 bit", partial(speck, colour=colour, place=place))
        for colour in ("green", "red", "yellow", "blue")
        for place in ("on a cell", "in the background", "at the corner")
    ]
    for base, level in (("8 bit", 255), ("12 bit", 65535)):
        found += [
            add(
                f"{number} hot pixel{'s' * (number > 1)} of {level} in {base} {colour}",
                base,
                partial(hot_pixels, colour=colour, number=number, level=level),
            )
            for number in (1, 30, 300)
            for colour in COLOURS
        ]
    found += [
        add(
            "one pixel of 1024 in green of at most 1020",
            "10 bit",
            partial(hot_pixels, colour="green", number=1, level=1024),
        ),
        *(
            add(
                f"saturated fibre of 2 x 200 px, {colour}",
                "12 bit",
                partial(line, colour=colour, length=200, width=2),
            )
            for colour in ("green", "blue")
        ),
        add("cosmic streak of 1 x 60 px in red", "12 bit", partial(line, colour="red", length=60, width=1)),
        add("dead column", "12 bit", partial(stripe, axis=1, level=0)),
        add("dead row", "12 bit", partial(stripe, axis=0, level=0)),
        add("hot column", "12 bit", partial(stripe, axis=1, level=None)),
    ]
    found += [
        add(
            f"saturated debris of {um} µm in {colour} ten times dimmer",
            f"12 bit, dim {colour}",
            partial(disc, colour=colour, um=um),
        )
        for colour, sizes in (("blue", (3, 8, 15)), ("green", (8,)), ("yellow", (8,)))
        for um in sizes
    ]
    found += [
        add(
            f"saturated debris of 3 µm in {colour}, on a cell",
            "12 bit",
            partial(disc, colour=colour, um=3, place="on a cell"),
        )
        for colour in ("green", "blue")
    ]
    return [*found, add("saturated debris of 8 µm in red", "12 bit", partial(disc, colour="red", um=8))]


def scales() -> list[Change]:
    add = partial(Change, "scale", base="12 bit")
    return [
        add("red of 16 bit, others of 12", make=partial(rescaled, factor=65535 / 4095, colours=("red",))),
        add("8-bit green times 257, others of 12 bit", make=times_257),
        *(
            add(f"{colour} {factor} times as bright", make=partial(rescaled, factor=factor, colours=(colour,)))
            for colour in COLOURS
            for factor in (0.5, 2)
        ),
        add("12 bit shifted left by 4", make=partial(rescaled, factor=16)),
        add("14 bit", make=partial(rescaled, factor=16383 / 4095, top=16383)),
    ]


def blacks() -> list[Change]:
    add = partial(Change, "black")
    found = [
        add(f"offset of {offset}", "12 bit", partial(rescaled, factor=1, offset=offset)) for offset in (100, 500, 2000)
    ]
    found += [
        add(
            f"offset of {offset}, {colour} alone",
            "12 bit",
            partial(rescaled, factor=1, colours=(colour,), offset=offset),
        )
        for colour, offsets in (("green", (100, 500, 2000)), ("red", (500,)), ("blue", (500,)), ("yellow", (500,)))
        for offset in offsets
    ]
    found += [
        add(f"offset of {offset}, 8 bit", "8 bit", partial(rescaled, factor=1, offset=offset)) for offset in (10, 25)
    ]
    found += [
        add("signed 16 bit stored with 32768 added", "12 bit", partial(rescaled, factor=1, offset=32768)),
        add("offset of 100 with read noise of 10", "12 bit", partial(rescaled, factor=1, offset=100, noise=10)),
        add("offset rising from 100 to 300 across the field", "12 bit", uneven, warns=True),
    ]
    empty = [(part, offset, 0, "zeros") for part in ("a frame", "a band", "an L") for offset in (0, 100, 1000)]
    empty += [("a frame", 0, 65535, "65535"), ("a frame", 100, 100, "100")]
    found += [
        add(
            f"{part} of {what} around the field, offset of {offset} inside",
            "12 bit",
            partial(mosaic, part=part, offset=offset, level=level),
            margin=partial(beside, part=part),
        )
        for part, offset, level, what in empty
    ]
    return found + [
        add(
            f"{part} of the field is lost",
            "12 bit",
            partial(lost, part=part),
            touched=partial(outside, part=part),
        )
        for part in ("a frame", "an L", "one corner")
    ]


def whites() -> list[Change]:
    add = partial(Change, "white")
    found = [
        add(
            f"{colour} overexposed {factor} times, clipped at {top}, {base}",
            base,
            partial(rescaled, factor=factor, colours=(colour,), top=top),
            warns=True,
        )
        for base, top in (("8 bit", 255), ("12 bit", 4095))
        for colour in ("green", "blue")
        for factor in (3, 10)
    ]
    return found + [
        add(f"{colour} 0.1 times as bright", "12 bit", partial(rescaled, factor=0.1, colours=(colour,)))
        for colour in COLOURS
    ]


def files() -> list[Change]:
    add = partial(Change, "file", make=unchanged)
    says = [
        add(f"OME says a pixel size {factor} times the configured one", "8 bit",
            write=partial(write_ome, factor=factor), warns=True)
        for factor in (0.5, 2, 4)
    ]  # fmt: skip
    bits = [
        add(f"OME-TIFF, SignificantBits {bits}", "12 bit", write=partial(write_ome, significant_bits=bits))
        for bits in (12, 16)
    ]
    return [
        add("ImageJ TIFF with the configured pixel size", "8 bit", write=write_imagej),
        add("OME-TIFF with the configured pixel size", "8 bit", write=write_ome),
        *bits,
        *says,
        add("PNG", "8 bit", write=write_png),
        add("PNG of 16 bit", "12 bit", write=write_png),
        add("big-endian TIFF", "8 bit", write=partial(write_tiff, byteorder=">")),
        add("big-endian TIFF of 16 bit", "12 bit", write=partial(write_tiff, byteorder=">")),
        Change("file", "8-bit values in 16-bit files", "8 bit", in_16_bits),
    ]


def others() -> list[Change]:
    add = partial(Change, "other", base="8 bit", warns=True)
    return [
        add("out of focus by 1 µm", make=out_of_focus),
        add("yellow repeats red", make=partial(exchanged, yellow="red")),
        add("red and blue swapped", make=partial(exchanged, red="blue", blue="red")),
    ]


def changes() -> list[Change]:
    return [*few_pixels(), *scales(), *blacks(), *whites(), *files(), *others()]


# Measuring.


@dataclass(frozen=True)
class Result:
    """What one change does to one field; numbers of cells, and the relative changes of their tiles by colour."""

    change: Change
    field: str
    cells: int
    left_out: int
    kept: int
    called: int
    tiles: np.ndarray
    warnings: list[str]

    def shortfall(self) -> float:
        """Return the largest share of a limit that the result uses up; above 1, it exceeds the limit."""
        lost = 1 - self.kept / max(self.cells, 1), 1 - self.called / max(self.kept, 1)
        return max(*(share / (1 - LEAST_KEPT) for share in lost), self.tiles.max(initial=0) / MOST_CHANGED)


def write_field(folder: Path, name: str, images: Images, pixel_size: float, write: Callable[..., None]) -> Paths:
    paths = {colour: str(folder / f"{name}_{colour}{SUFFIX.get(write, '.tif')}") for colour in COLOURS}
    for colour, image in images.items():
        write(paths[colour], image, pixel_size)
    return paths


def row_warnings(row: Mapping[str, Any]) -> set[str]:
    found = set(filter(None, row["warnings"].split("; ")))
    return found | ({f"rejected: {row['reason']}"} if row["status"] != "ok" else set())


def of_field(name: str, table: Mapping[CellKey, Value]) -> dict[int, Value]:
    return {cell: value for (field, cell), value in table.items() if field == name}


def measure_untouched(sources: Sequence[Source], base: str, folder: Path, caller: Caller) -> list[Untouched]:
    """Segment, tile and call the fields before any change."""
    top, make = BASES[base]
    found, rows = [], []
    for source in sources:
        images = make(source.images, source.name)
        paths = write_field(folder, source.name, images, source.pixel_size, write_tiff)
        nuclei, cells = segment(paths, source.pixel_size)
        found.append(Untouched(source, images, top, nuclei, cells))
        rows.append((source.name, paths, source.pixel_size, nuclei, cells))
    fields, tiles, boxes, files = tile(rows, folder, caller.size)
    calls = caller.call(folder, files)
    for before in found:
        name = before.source.name
        before.warnings = row_warnings(fields[name])
        before.tiles, before.boxes, before.calls = of_field(name, tiles), of_field(name, boxes), of_field(name, calls)
    return found


def tile_change(before: np.ndarray, after: np.ndarray, box: tuple[int, ...], touched: np.ndarray) -> np.ndarray | None:
    """Return the relative change of a tile (S, S, 4) in each colour apart from touched pixels; None if most are."""
    y0, y1, x0, x1 = box
    size = before.shape[0]
    counts = np.ones((size, size), bool)
    if touched[y0:y1, x0:x1].any():
        near = cv2.resize(square(touched[y0:y1, x0:x1].astype(np.float32)), (size, size), interpolation=cv2.INTER_AREA)
        # The resizing of tiles spreads a pixel to its neighbours.
        counts = cv2.dilate((near > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
        if counts.mean() < 0.5:
            return None
    old, new = (tile[counts].astype(np.float64) for tile in (before, after))
    return np.abs(new - old).mean(axis=0) / np.maximum(old.mean(axis=0), 1)


def find_touched(change: Change, before: Untouched, images: Images) -> np.ndarray:
    shape = before.cells.shape
    if change.touched is None:
        return np.zeros(shape, bool)
    if callable(change.touched):
        return change.touched(shape)
    return np.logical_or.reduce([images[colour] != before.images[colour] for colour in COLOURS])


def measure(change: Change, fields: Sequence[Untouched], folder: Path, caller: Caller) -> list[Result]:
    """Make the change in every field; segment, tile and call it, and compare."""
    rows: list[tuple[str, Paths, float, np.ndarray, np.ndarray]] = []
    masks, touched, refused = {}, {}, {}
    for before in fields:
        name, pixel_size = before.source.name, before.source.pixel_size
        images = change.make(before, seeded(change.name, name))
        touched[name] = find_touched(change, before, images)
        paths = write_field(folder, name, images, pixel_size, change.write)
        margin = change.margin(before.cells.shape)
        old_nuclei, old_cells = (np.pad(labels, margin) for labels in (before.nuclei, before.cells))
        rows.append((name, paths, pixel_size, old_nuclei, old_cells))
        try:
            nuclei, cells = segment(paths, pixel_size)
        except ValueError as error:
            refused[name], masks[name] = str(error), np.zeros_like(before.cells)
            continue
        if not (np.array_equal(cells, old_cells) and np.array_equal(nuclei, old_nuclei)):
            rows.append((f"{name}-own", paths, pixel_size, nuclei, cells))
        (top, _), (left, _) = margin
        masks[name] = cells[top : top + before.cells.shape[0], left : left + before.cells.shape[1]]
    stated, tiles, _, files = tile(rows, folder, caller.size)
    calls = caller.call(folder, files) if tiles else {}
    results = []
    for before in fields:
        name = before.source.name
        of_own = f"{name}-own" if f"{name}-own" in stated else name
        warnings = row_warnings(stated[of_own]) | ({f"rejected: {refused[name]}"} if name in refused else set())
        results.append(compare(change, before, touched[name], masks[name], of_own, tiles, calls, warnings))
    return results


def compare(
    change: Change,
    before: Untouched,
    touched: np.ndarray,
    cells: np.ndarray,
    own: str,
    tiles: Mapping[CellKey, np.ndarray],
    calls: Mapping[CellKey, int],
    warnings: set[str],
) -> Result:
    """Compare a changed field, its cells, tiles and calls, with the untouched one; own: the name of its calls."""
    name = before.source.name
    area = np.bincount(before.cells.ravel())
    destroyed = np.bincount(before.cells[touched], minlength=len(area)) > DESTROYED * area
    countable = [cell for cell in before.tiles if not destroyed[cell]]
    pairs = find_overlaps(cells, before.cells)[0]
    pairs = pairs[pairs["iou"] >= SAME_CELL]
    partner = dict(zip(pairs["truth_cell"].tolist(), pairs["cell"].tolist(), strict=True))
    kept = [cell for cell in countable if cell in partner]
    changed = [
        tile_change(before.tiles[cell], tiles[name, cell], before.boxes[cell], touched)
        for cell in kept
        if (name, cell) in tiles
    ]
    known = {re.sub(r"[\d.]+", "#", warning) for warning in before.warnings}
    return Result(
        change,
        name,
        len(countable),
        len(before.tiles) - len(countable),
        len(kept),
        sum(calls.get((own, partner[cell])) == before.calls[cell] for cell in kept),
        np.array([values for values in changed if values is not None]).reshape(-1, len(COLOURS)),
        sorted(warning for warning in warnings if re.sub(r"[\d.]+", "#", warning) not in known),
    )


HEADER = """\
| kind | change | fields | cells kept | calls kept | tile change | 95th percentile | warnings | met | worst field |
|---|---|---|---|---|---|---|---|---|---|"""


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def met(results: Sequence[Result]) -> bool:
    if results[0].change.warns:
        return all(result.warnings for result in results)
    cells, kept, called = (sum(getattr(r, what) for r in results) for what in ("cells", "kept", "called"))
    largest = max(result.tiles.max(initial=0) for result in results)
    return bool(kept >= LEAST_KEPT * cells and called >= LEAST_KEPT * kept > 0 and largest <= MOST_CHANGED)


def table_row(results: Sequence[Result]) -> str:
    change = results[0].change
    cells, kept, called = (sum(getattr(r, what) for r in results) for what in ("cells", "kept", "called"))
    tiles = np.concatenate([result.tiles for result in results])
    by_tiles = f"{100 * tiles.max():.1f} % | {100 * np.percentile(tiles, 95):.1f} %" if tiles.size else "– | –"
    warned = [result for result in results if result.warnings]
    # A path ends with the name of the file, and a bar would end the cell of the table.
    first = re.sub(r"\S*/", "", warned[0].warnings[0]).replace("|", "/") if warned else ""
    warning = f"{len(warned)}: {first}" if warned else "none"
    worst = max(results, key=Result.shortfall)
    name = f"{change.name} (warns)" if change.warns else change.name
    yes = "yes" if met(results) else "no"
    shares = f"{share(kept, cells)} | {share(called, kept)} | {by_tiles}"
    return f"| {change.kind} | {name} | {len(results)} | {shares} | {warning} | {yes} | {worst.field} |"


COLUMNS = [
    *("kind", "change", "base", "field", "cells", "left_out", "kept", "called"),
    *(f"{what}_{colour}" for colour in COLOURS for what in ("largest", "p95")),
    *("compared", "warnings"),
]


def line_of(result: Result) -> list[Any]:
    """Return the line of the CSV file of one field and change."""
    change = result.change
    tiles = [""] * (2 * len(COLOURS))
    if len(result.tiles):
        tiles = [f"{value:.4f}" for of in result.tiles.T for value in (of.max(), np.percentile(of, 95))]
    counts = [result.cells, result.left_out, result.kept, result.called]
    what = [change.kind, change.name, change.base, result.field]
    return [*what, *counts, *tiles, len(result.tiles), "; ".join(result.warnings)]


def measure_all(wanted: Sequence[Change], sources: Sequence[Source], model: Path) -> Iterator[list[Result]]:
    """Yield the results of one change after the other."""
    caller = Caller(model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # One untouched set at a time, since all of them would not fit in a small memory.
        for base in dict.fromkeys(change.base for change in wanted):
            fields = measure_untouched(sources, base, folder, caller)
            for change in (change for change in wanted if change.base == base):
                yield measure(change, fields, folder, caller)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--model", type=Path, default=root / "results/model", help="folder of a trained model")
    parser.add_argument("--data", type=Path, default=root.parent / "shared/data", help="folder of real fields")
    parser.add_argument("--simulated", type=int, default=3, help="number of simulated fields")
    parser.add_argument("--large", type=int, default=2, help="most fields of hpa-2021")
    parser.add_argument("--small", type=int, default=4, help="most fields of hpa-512")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="changes whose kind or name contains one"
    )
    parser.add_argument("--csv", type=Path, help="file for a line per field and change")
    parser.add_argument("--list", action="store_true", help="print the changes and stop")
    arguments = parser.parse_args()
    words = [word.lower() for word in arguments.only]
    wanted = [change for change in changes() if any(word in f"{change.kind}: {change.name}".lower() for word in words)]
    if arguments.list:
        print("\n".join(f"{change.kind}: {change.name} (of {change.base})" for change in wanted))
        return
    if not wanted:
        parser.error(f"no change contains {words[0]!r}; --list prints them")
    cv2.setNumThreads(1)
    sources = find_sources(arguments.data, arguments.simulated, arguments.large, arguments.small)
    if not sources:
        parser.error("no fields found; give their folder with --data, or a number above 0 with --simulated")
    started, results = time.monotonic(), {}
    with open(arguments.csv or os.devnull, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for of_change in measure_all(wanted, sources, arguments.model):
            results[of_change[0].change.name] = of_change
            writer.writerows(map(line_of, of_change))
            file.flush()
            spent = f"{len(results)}/{len(wanted)} {time.monotonic() - started:.0f} s"
            print(f"{spent}  {table_row(of_change)}", file=sys.stderr)
    print(HEADER)
    for change in wanted:
        print(table_row(results[change.name]))
    limits = f"keep {LEAST_KEPT:.0%} of cells and of calls, and every tile to within {MOST_CHANGED:.0%}"
    for what, warns in ((limits, False), ("that should warn do so in every field", True)):
        rows = [met(of_change) for of_change in results.values() if of_change[0].change.warns == warns]
        if rows:
            print(f"\n{sum(rows)} of {len(rows)} rows {what}.")


if __name__ == "__main__":
    main()
