"""Input that no one would write: every reader gives its result or one clear sentence, soon, and writes nothing."""

# ruff: noqa: PT017 - an error is one of the two outcomes here, and not the one that must come

import gzip
import json
import os
import signal
import struct
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bad_fields import chunk, hue, palette_png, pillow, png, pyramid, tiff, two_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from coco_masks import encode

from hpaloc import rle
from hpaloc.classes import COLOURS, N_CLASSES
from hpaloc.config import ConfigError, complete, load_schema
from hpaloc.delimited import SheetError
from hpaloc.images import ImageError, read_channel, read_field
from hpaloc.mask_tables import read_rle_table
from hpaloc.masks import MaskError, draw, read_mask
from hpaloc.patterns.folders import Folders
from hpaloc.patterns.pattern import FilePattern
from hpaloc.planes import Plane
from hpaloc.sheet import read_other_columns, read_sheet
from hpaloc.tfrecord import RecordError, TileRecord, frame, read_records, record_offsets

# Seconds that one input may take; a reader that hangs is stopped here.
PATIENCE = 60

few_and_many = pytest.mark.parametrize("examples", [60, pytest.param(5000, marks=pytest.mark.slow)])

_written: list[str] | None = None


_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate", "os.chmod"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_REACHES = {"subprocess.Popen", "os.system", "os.exec", "socket.connect", "pickle.find_class"}


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _written is None:
        return
    if event in _CHANGES | _REACHES:
        _written.append(f"{event} {arguments[0]!r}")
    elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        _written.extend([os.fsdecode(arguments[0])] if flags & _WRITING else [])


sys.addaudithook(_watch)


@contextmanager
def watched():
    """Fail where what happens inside writes a file, starts a process, unpickles, or does not end."""
    global _written

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    _written = []
    try:
        yield
        assert _written == []
    finally:
        _written = None
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(examples: int, strategy: st.SearchStrategy, body: Callable[..., None]) -> None:
    """Call ``body`` with that many inputs of a strategy."""
    options = settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    options(given(strategy)(body))()


def mutated(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy of seeds with bytes changed, cut out, repeated or put in."""

    @st.composite
    def strategy(draw_one: Callable) -> bytes:
        data = bytearray(draw_one(st.sampled_from(seeds)))
        for _ in range(draw_one(st.integers(1, 6))):
            # The first bytes say what all others mean.
            place = draw_one(st.integers(0, max(0, len(data) - 1)) | st.integers(0, min(300, max(0, len(data) - 1))))
            what = draw_one(st.sampled_from(["set", "cut", "drop", "put", "number"]))
            if what == "set" and data:
                data[place] = draw_one(st.integers(0, 255))
            elif what == "cut":
                del data[place:]
            elif what == "drop":
                del data[place : place + draw_one(st.integers(1, 8))]
            elif what == "put":
                data[place:place] = draw_one(st.binary(max_size=8))
            elif len(data) >= place + 4:
                number = draw_one(st.sampled_from([0, 1, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1]))
                struct.pack_into(draw_one(st.sampled_from(["<I", ">I"])), data, place, number)
        return bytes(data)

    return strategy()


def one_sentence(error: Exception, start: str) -> None:
    text = str(error)
    assert text.startswith(start), text
    assert text.isprintable(), repr(text)


cells_of_sheet = st.text("aAbé7 .-_/\\=|<&;\t\"'\0\x1b", max_size=12) | st.sampled_from(
    [
        "ID",
        "Label",
        "0",
        "1|2",
        "18",
        "19",
        "",
        " ",
        "..",
        "../x",
        "a\nb",
        "0.08",
        "nan",
        "1e999",
        "pixel_size",
        "split",
    ]
)
sheets = st.lists(st.lists(cells_of_sheet, min_size=1, max_size=4).map(",".join), max_size=6).map("\n".join)
sheets = st.tuples(
    st.sampled_from(
        [
            "",
            "ID,Label\n",
            "ID;Label\n",
            "ID,Label,x/y,status\n",
            "Well,ID,well,Label\n",
            "\ufeffID,Label,pixel_size\r\n",
        ]
    ),
    sheets,
).map("".join)


@few_and_many
def test_sheets(tmp_path, examples):
    path = tmp_path / "sheet.csv"

    def body(content: bytes) -> None:
        path.write_bytes(content)
        with watched():
            try:
                rows = read_sheet(path, labels=True)
            except SheetError as error:
                one_sentence(error, f"sheet {path}")
                return
            # A sheet that can be read has columns that can be copied.
            header, *copied = read_other_columns(path, labels=True) or [["id"]]
        ids = [row.id for row in rows]
        assert not copied or [row[0] for row in copied] == sorted(ids)
        assert len(set(header)) == len(header)
        assert all(name.isprintable() and "/" not in name and name for name in header)
        assert len(set(ids)) == len(ids) > 0
        for row in rows:
            # No id leads out of the folder that its files are to stand in.
            inside = os.path.normpath(tmp_path / "results" / f"{row.id}_cellmask.png")
            assert os.path.dirname(inside) == str(tmp_path / "results")
            assert row.labels
            assert 0 <= min(row.labels) <= max(row.labels) < N_CLASSES
            assert 0 < row.pixel_size < float("inf")

    fuzz(examples, sheets.map(str.encode) | mutated([b"ID,Label\na,1\nb,2|3\n"]) | st.binary(max_size=80), body)


@few_and_many
def test_file_patterns(examples):
    def body(text: str) -> None:
        # The braces and what stands between them may be any part.
        values = defaultdict(lambda: "x", {"id": "i", "colour": "red", "channel": 3, "time": 1})
        try:
            pattern = FilePattern(text, "config key images", ".")
            pattern.check_separated()
            assert "id" not in pattern.names or "i" in pattern.path(values)
            # Not the whole machine.
            if not text.startswith("/") and ".." not in text:
                pattern.find(values, Folders())
                assert pattern.nearest(Folders())
            if pattern.of_field and not text.startswith("/") and ".." not in text:
                for found, _, at in pattern.walk({"colour": COLOURS, "channel": [3], "time": [1]}, Folders()):
                    assert len(found) == len(pattern.of_field)
                    assert at
        except SheetError as error:
            assert str(error).startswith("config key images: ")

    parts = st.sampled_from(
        [
            *("{id}", "{colour}", "{root}", "{", "}", "{0}", "{id!r}", "{id:>9}", "{id.x}", "{{", "a", "/"),
            *(
                "{channel}",
                "{time}",
                "{plate}",
                "*",
                "?",
                "[0-9A-F]",
                "[!_]",
                "[",
                "[]",
                "[z-a]",
                "]",
                "1",
                ".tif",
                "..",
            ),
        ]
    )
    fuzz(examples, st.lists(parts, max_size=6).map("".join), body)


@few_and_many
def test_run_lengths(examples):
    mask = np.zeros((9, 7), bool)
    mask[2:5, 1:6] = True
    right = encode(mask)
    packed = rle.to_kaggle(right)

    def body(case: tuple[str, int, int]) -> None:
        text, height, width = case
        with watched():
            for read in (
                lambda: rle.run_lengths(text),
                lambda: rle.from_kaggle(text),
                lambda: draw({1: text, 2: right}, height, width),
            ):
                try:
                    found = read()
                except ValueError as error:
                    assert str(error)
                else:
                    if isinstance(found, np.ndarray) and found.ndim == 2:
                        assert found.shape == (height, width)

    letters = st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30) | st.text(max_size=20)
    texts = (
        letters
        | st.sampled_from([right, packed])
        | mutated([right.encode(), packed.encode()]).map(lambda data: data.decode("latin-1"))
    )
    sizes = st.sampled_from([0, 1, 7, 9, 63, 2**15, 2**31, 10**9, -1])
    fuzz(examples, st.tuples(texts, sizes, sizes), body)


def image_seeds() -> list[bytes]:
    image = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) % 251
    eight = image.astype(np.uint8)
    return [
        png(eight),
        png(image),
        tiff(eight),
        tiff(image, byteorder=">", compression="lzw"),
        tiff(eight, tile=(16, 16), compression="deflate", predictor=True),
        tiff(eight, compression="jpeg"),
        tiff(eight, bigtiff=True, compression="zstd"),
        tiff(np.stack([eight] * 4), photometric="minisblack", ome=True, metadata={"axes": "CYX"}),
        hue(eight),
        two_series(np.tile(eight, (3, 3))),
        pyramid(np.tile(eight, (6, 6))),
        pillow(eight, "L", "JPEG"),
        pillow(np.dstack([eight] * 3), "RGB", "JPEG"),
        gzip.compress(tiff(eight), mtime=0),
    ]


def with_checksums(data: bytes) -> bytes:
    """Give a PNG whose chunks were changed the checksums of what they hold now."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    at, parts = 8, [data[:8]]
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        parts.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts)


@few_and_many
def test_image_files(tmp_path, examples):
    path = tmp_path / "image"

    def body(case: tuple[bytes, str]) -> None:
        path.write_bytes(case[0])
        with watched():
            try:
                image = read_channel(path, case[1], max_pixels=10**6)
            except ImageError as error:
                one_sentence(error, f"{path}: ")
                return
        assert image.ndim == 2
        assert image.dtype in (np.uint8, np.uint16)
        assert 0 < image.size <= 10**6

    changed = mutated(image_seeds())
    files = changed | changed.map(with_checksums) | st.binary(max_size=60).map(lambda tail: b"II*\0" + tail)
    fuzz(examples * 3, st.tuples(files, st.sampled_from(COLOURS)), body)


@few_and_many
def test_files_of_many_planes(tmp_path, examples):
    path = tmp_path / "stack.tif"
    planes = np.linspace(0, 60000, 2 * 3 * 4 * 20 * 24).reshape(2, 3, 4, 20, 24).astype(np.uint16)
    names = {"Channel": {"Name": ["a", "b", "c", "d"]}}
    seeds = [
        tiff(planes, imagej=True, metadata={"axes": "TZCYX", "Labels": ["a", "b", "c", "d"] * 6}),
        tiff(planes, ome=True, metadata={"axes": "TZCYX", **names}, photometric="minisblack"),
        tiff(planes[0], ome=True, metadata={"axes": "ZCYX", **names}, photometric="minisblack", compression="deflate"),
        tiff(planes[0, 0], photometric="minisblack", planarconfig="separate", compression="zstd"),
        tiff(np.moveaxis(planes[0, 0], 0, 2), photometric="minisblack", planarconfig="contig", metadata=None),
        tiff(planes[0, 0], photometric="minisblack", metadata=None),
        *image_seeds(),
    ]

    def body(case: tuple[bytes, dict[str, Any], tuple[int | str, ...]]) -> None:
        data, chosen, channels = case
        path.write_bytes(data)
        places = {
            colour: Plane(str(path), channel, **chosen) for colour, channel in zip(COLOURS, channels, strict=True)
        }
        with watched():
            try:
                images = read_field(places, max_pixels=10**6)
            except ImageError as error:
                one_sentence(error, f"{path}")
                return
        assert len({(image.shape, str(image.dtype)) for image in images.values()}) == 1
        assert images["red"].ndim == 2
        assert 0 < images["red"].size <= 10**6

    project = st.sampled_from([None, 0, 2, "max", "mean", "sharpest"])
    number = st.sampled_from([None, 0, 1])
    keys = st.fixed_dictionaries({"project": project, "time": number, "series": number})
    fuzz(examples, st.tuples(mutated(seeds), keys, st.permutations([0, 1, 2, 3]) | st.permutations("abcd")), body)


@few_and_many
def test_mask_files(tmp_path, examples):
    labels = np.repeat(np.arange(24, dtype=np.uint16) // 6, 32).reshape(24, 32)
    seeds = {
        ".png": [png(labels), png(labels.astype(np.uint8)), palette_png(labels), palette_png(labels, bits=2)],
        ".tif": [
            tiff(labels.astype(np.uint32)),
            tiff(labels),
            tiff(labels.astype(np.float32)),
            tiff(labels, compression="lerc"),
            tiff(labels, compression="lerc", compressionargs={"compression": "deflate"}),
        ],
        ".tif.gz": [gzip.compress(tiff(labels), mtime=0)],
    }

    def body(case: tuple[str, bytes]) -> None:
        path = tmp_path / f"mask{case[0]}"
        path.write_bytes(case[1])
        with watched():
            try:
                mask = read_mask(path)
            except MaskError as error:
                one_sentence(error, f"{path}: ")
                return
        assert mask.ndim == 2
        assert mask.dtype in (np.uint16, np.uint32)

    cases = [st.tuples(st.just(suffix), mutated(of_kind).map(with_checksums)) for suffix, of_kind in seeds.items()]
    fuzz(examples, st.one_of(cases), body)


@few_and_many
def test_tables_of_masks(tmp_path, examples):
    path = tmp_path / "masks.csv"
    counts = encode(np.eye(5))
    seeds = [
        f"field,cell,height,width,rle\na,1,5,5,{counts}\nb,1,5,5,{counts}\n",
        f"ID,ImageHeight,ImageWidth,EncodedMask\na,5,5,{rle.to_kaggle(counts)}\n",
        f"ID,ImageWidth,ImageHeight,PredictionString\na,5,5,0 1 {rle.to_kaggle(counts)} 3 1 {rle.to_kaggle(counts)}\n",
    ]

    def body(content: bytes) -> None:
        path.write_bytes(content)
        with watched():
            try:
                found = read_rle_table(path, ["a"])
            except SheetError as error:
                one_sentence(error, f"table of masks {path}")
                return
            for entry in found.values():
                if not isinstance(entry, str):
                    try:
                        draw(entry[2], entry[0], entry[1])
                    except ValueError as error:
                        assert str(error)

    fuzz(examples, mutated([seed.encode() for seed in seeds]), body)


@few_and_many
def test_record_files(tmp_path, examples):
    path = tmp_path / "tiles.tfrecord"
    payloads = [TileRecord("a", 1, np.eye(8, dtype=np.uint8), 255.0).encode(format) for format in ("png", "raw")]
    whole = b"".join(map(frame, payloads))

    def body(content: bytes) -> None:
        path.write_bytes(content)
        with watched():
            try:
                records = list(read_records(path))
                assert len(record_offsets(path)) == len(records)
            except RecordError as error:
                one_sentence(error, f"{path}: ")
                return
            for record in records:
                try:
                    tile = TileRecord.decode(record)
                except ValueError as error:
                    assert str(error)
                else:
                    assert tile.tile.ndim == 2

    # Damage to the file, and payloads that were damaged before they were framed.
    fuzz(examples, mutated([whole]) | mutated(payloads).map(frame), body)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def keys(schema: dict, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, of_key in schema.get("properties", {}).items():
        found += [(*above, key), *keys(of_key, (*above, key))]
    return found


@few_and_many
def test_configurations(examples):
    known = keys(load_schema())

    def body(changes: list[tuple[tuple[str, ...], object]]) -> None:
        config: dict = {"collections": {"train": {"sheet": "s", "images": "{id}{colour}", "labels": True}}}
        for path, value in changes:
            place = config
            for key in path[:-1]:
                if not isinstance(place.get(key), dict):
                    place[key] = {}
                place = place[key]
            place[path[-1]] = value
        with watched():
            try:
                filled = complete(config)
            except ConfigError as error:
                assert str(error).startswith("config")
                assert "\n" not in str(error)
                return
        # What was accepted can be written down and is accepted again, unchanged.
        assert complete(yaml.safe_load(yaml.safe_dump(filled))) == filled

    fuzz(examples, st.lists(st.tuples(st.sampled_from(known), anything), min_size=1, max_size=3), body)


@few_and_many
def test_model_folders(tmp_path, examples):
    from hpaloc.classes import NAMES
    from hpaloc.network.calls import decision_thresholds
    from hpaloc.network.folder import check_folder, read_settings, write_checksums
    from hpaloc.network.options import ModelError

    right = {
        "config.json": {
            "channels": ["green"],
            "head": "sigmoid",
            "input_size": 32,
            "units": 8,
            "dropout": [0.5, 0.25],
            "classes": list(NAMES),
        },
        "thresholds.json": {"thresholds": dict.fromkeys(NAMES[:-1], 0.5), "negative_rule": "complement"},
    }
    (tmp_path / "model.keras").write_bytes(b"")

    def write(values: dict) -> None:
        for name, content in values.items():
            (tmp_path / name).write_text(json.dumps(content))
        write_checksums(tmp_path, ("model.keras", "config.json", "thresholds.json"))

    def check() -> None:
        with watched():
            try:
                check_folder(tmp_path)
                config, decision = read_settings(tmp_path)
            except ModelError as error:
                assert str(tmp_path) in str(error)
                assert "\n" not in str(error)
                return
            assert set(config) >= set(right["config.json"])
            thresholds = decision_thresholds(decision)
            assert thresholds is None or thresholds.shape == (N_CLASSES,)

    def body(case: tuple[str, str, object, bytes | None]) -> None:
        name, key, value, raw = case
        write(right)
        if raw is not None:
            # Digests that agree with what is there, or checksums that are themselves wrong.
            (tmp_path / name).write_bytes(raw)
            if name != "checksums.json":
                write_checksums(tmp_path, ("model.keras", "config.json", "thresholds.json"))
        else:
            write(right | {name: right.get(name, {}) | {key: value}} if name in right else right)
        check()

    names = st.sampled_from([*right, "checksums.json"])
    inside = st.sampled_from([key for content in right.values() for key in content])
    raw = st.none() | st.binary(max_size=30) | anything.map(lambda value: json.dumps(value, default=str).encode())
    fuzz(examples, st.tuples(names, inside, anything, raw), body)


def test_the_watch_sees_what_is_done(tmp_path):
    with pytest.raises(AssertionError), watched():
        Path(tmp_path / "out").write_text("x")
