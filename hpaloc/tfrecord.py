"""Tile records: one tf.train.Example per cell and colour in TFRecord framing, written and read without TensorFlow."""

import functools
import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import google_crc32c
import imagecodecs
import numpy as np

FORMATS = ("png", "raw")

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER = _LENGTH.size + _CRC.size
_FLOAT = struct.Struct("<f")

# One fixed row filter (left neighbour) and zlib's run-length strategy take half the time of a filter per row, as OpenCV
# and libpng choose it, at the same size of tiles (benchmarks/tiles.py).
_PNG = {"level": 1, "strategy": imagecodecs.PNG.STRATEGY.RLE, "filter": imagecodecs.PNG.FILTER.SUB}


class RecordError(ValueError):
    """A record file that is cut short, damaged or of another kind; the message names the file."""


def cell_key(field: str, cell: int) -> int:
    """Return a stable 63-bit number for a cell: blake2b of its field and id."""
    text = f"{field}\0{cell}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def _masked_crc(data: bytes) -> int:
    """Return the CRC-32C, rotated and offset as the TFRecord format requires (tensorflow/core/lib/hash/crc32c.h)."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """Wrap one record: its length, the length's checksum, the payload, the payload's checksum."""
    length = _LENGTH.pack(len(payload))
    return b"".join((length, _CRC.pack(_masked_crc(length)), payload, _CRC.pack(_masked_crc(payload))))


def _length(header: bytes, name: str, at: int) -> int:
    """Return the length of the payload after a header."""
    if len(header) < _HEADER or _CRC.unpack_from(header, _LENGTH.size)[0] != _masked_crc(header[: _LENGTH.size]):
        raise RecordError(f"{name}: not a TFRecord file, or cut short at byte {at}")
    return int(_LENGTH.unpack_from(header)[0])


def _read_one(file: BinaryIO, name: str) -> bytes | None:
    header = file.read(_HEADER)
    if not header:
        return None
    length = _length(header, name, file.tell())
    if length > os.fstat(file.fileno()).st_size:
        raise RecordError(f"{name}: the record at byte {file.tell()} claims to be longer than the file")
    body = file.read(length + _CRC.size)
    if len(body) < length + _CRC.size or _CRC.unpack_from(body, length)[0] != _masked_crc(body[:length]):
        raise RecordError(f"{name}: the record ending at byte {file.tell()} is damaged or cut short")
    return body[:length]


def read_records(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the payloads of a TFRecord file in order.

    Raises RecordError if a checksum does not match.
    """
    with open(path, "rb") as file:
        while (payload := _read_one(file, os.fspath(path))) is not None:
            yield payload


def record_offsets(path: str | os.PathLike[str]) -> list[int]:
    """Return the byte offset of every record of a TFRecord file, reading only the headers.

    Raises RecordError if a header is damaged or the file is cut short.
    """
    offsets = []
    size = Path(path).stat().st_size
    with open(path, "rb") as file:
        offset = 0
        while offset < size:
            file.seek(offset)
            length = _length(file.read(_HEADER), os.fspath(path), offset)
            offsets.append(offset)
            offset += _HEADER + length + _CRC.size
        if offset != size:
            raise RecordError(f"{os.fspath(path)}: the last record is cut short")
    return offsets


def read_record_at(file: BinaryIO, offset: int) -> bytes:
    """Return the payload of the record that starts at byte ``offset`` of an open TFRecord file.

    Raises RecordError if there is no record, or it is damaged.
    """
    file.seek(offset)
    payload = _read_one(file, file.name)
    if payload is None:
        raise RecordError(f"{file.name}: has no record at byte {offset}")
    return payload


# Lengths and tags are the same in record after record.
@functools.lru_cache(4096)
def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _block(number: int, *content: bytes) -> list[bytes]:
    """Return the parts of a length-delimited protocol buffer field; an image among them is copied once, at the end."""
    return [_varint(number << 3 | 2), _varint(sum(map(len, content))), *content]


def encode_example(features: Mapping[str, bytes | int | float]) -> bytes:
    """Serialise scalar features as a tf.train.Example (tensorflow/core/example/example.proto, feature.proto).

    Bytes become a bytes_list, int an int64_list, float a float_list, each of one value; features are written in the
    order of their names, so that equal features give equal bytes.
    """
    entries: list[bytes] = []
    for name in sorted(features):
        value = features[name]
        if isinstance(value, bytes):
            feature = _block(1, *_block(1, value))
        elif isinstance(value, int):
            feature = _block(3, *_block(1, _varint(value)))
        else:
            feature = _block(2, *_block(1, _FLOAT.pack(value)))
        entries += _block(1, *_block(1, name.encode()), *_block(2, *feature))
    return b"".join(_block(1, *entries))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        if shift > 63:
            raise ValueError("not a tf.train.Example")
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        if tag & 7 != 2:
            raise ValueError("not a tf.train.Example")
        length, at = _read_varint(data, at)
        if at + length > len(data):
            raise ValueError("not a tf.train.Example")
        yield tag >> 3, data[at : at + length]
        at += length


def decode_example(payload: bytes) -> dict[str, bytes | int | float]:
    """Read a tf.train.Example of scalar features back into a dictionary.

    Raises ValueError if the payload is not such an Example.
    """
    features: dict[str, bytes | int | float] = {}
    try:
        ((_, entries),) = _blocks(payload)
        for _, entry in _blocks(entries):
            (_, name), (_, feature) = _blocks(entry)
            ((kind, values),) = _blocks(feature)
            ((_, value),) = _blocks(values)
            if kind == 1:
                features[name.decode()] = value
            elif kind == 2:
                features[name.decode()] = _FLOAT.unpack(value)[0]
            else:
                number, _ = _read_varint(value, 0)
                features[name.decode()] = number - (1 << 64) if number >> 63 else number
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise ValueError("not a tf.train.Example of scalar features") from error
    return features


@dataclass(frozen=True)
class TileRecord:
    """One cell in one colour: its field and id, its tile, and what readers divide the tile by.

    tile: (S, S) uint8 or uint16, the levels above the background
    white: ``HEADROOM`` times the distance from the background to the field's white
    """

    field: str
    cell: int
    tile: np.ndarray
    white: float

    def encode(self, format: str = "png") -> bytes:
        """Serialise as a tf.train.Example with the features cell, depth, field, format, image, key, size, white.

        Raises ValueError for a format that is neither png nor raw.
        """
        if format == "png":
            pixels = np.ascontiguousarray(self.tile)
            image = bytes(imagecodecs.png_encode(pixels, **_PNG))
        elif format == "raw":
            image = self.tile.astype(self.tile.dtype.newbyteorder("<")).tobytes()
        else:
            raise ValueError(f"unknown tile format {format!r}, expected one of {', '.join(FORMATS)}")
        return encode_example(
            {
                "cell": self.cell,
                "depth": 8 * self.tile.dtype.itemsize,
                "field": self.field.encode(),
                "format": format.encode(),
                "image": image,
                "key": cell_key(self.field, self.cell),
                "size": self.tile.shape[0],
                "white": float(self.white),
            }
        )

    @classmethod
    def decode(cls, payload: bytes) -> "TileRecord":
        """Read a serialised tile record.

        Raises ValueError if the payload is not one.
        """
        features = decode_example(payload)
        try:
            size, depth = int(features["size"]), int(features["depth"])
            image = np.frombuffer(features["image"], np.uint8)  # type: ignore[arg-type]
            if features["format"] == b"png":
                tile = cv2.imdecode(image, cv2.IMREAD_UNCHANGED)
            else:
                tile = image.view(f"<u{depth // 8}").reshape(size, size)
            if tile is None or tile.shape != (size, size) or 8 * tile.dtype.itemsize != depth:
                raise ValueError("the image is not of the stated size and depth")
            field = features["field"].decode()  # type: ignore[union-attr]
            return cls(field, int(features["cell"]), tile, float(features["white"]))
        except KeyError as error:
            raise ValueError(f"a tile record needs the feature {error}") from None
        except (TypeError, AttributeError, OverflowError, UnicodeDecodeError, cv2.error) as error:
            raise ValueError("a feature of the tile record has the wrong type") from error
