"""Decoded tiles, kept after the first epoch: in memory, or in one file of a temporary folder.

Decoding a tile takes ten times as long as reading it decoded.
"""

import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

log = logging.getLogger("hpaloc")

# Share of the job's memory that decoded tiles may take. The rest is for the network, TensorFlow and the batches.
MEMORY_SHARE = 0.5
# Decoded tiles that are shuffled at a time if not all of them are in memory.
SHUFFLE_BUFFER = 8192
# Neighbours in the file that are read together, in one piece.
BLOCK = 64
# Decoded tiles that are written at a time.
_WRITTEN_TOGETHER = 256
_SECONDS_OF_SILENCE = 60.0

# Returns the examples: without a seed in the order of the files, else in the order that the seed draws.
Reader = Callable[..., tf.data.Dataset]


@contextmanager
def kept_examples(
    parts: Sequence[tf.data.Dataset],
    counts: Sequence[int],
    tile_bytes: int,
    memory_mb: float,
    scratch: Path | None,
    name: str,
) -> Iterator[tuple[list[Reader], bool]]:
    """Give readers of the examples of ``parts``, and whether these are in memory.

    In memory all examples of a part are shuffled. In a file, blocks of neighbours are shuffled first, then the examples
    of some blocks. Without space for either, the record files are decoded in every epoch.

    parts: yield (image (S, S, c) uint8, label (19,) float32, weight float32)
    counts: the number of examples of each part
    tile_bytes: S * S * c
    memory_mb: the memory of the job, of which decoded tiles take at most ``MEMORY_SHARE``
    scratch: the folder of the file, which is deleted at the end; None for no file
    name: what differs between trainings that run at the same time; one that was killed leaves a file that the same
        training replaces

    Reading raises OSError if the file was cut short.
    """
    needed = sum(counts) * tile_bytes
    said = f"{sum(counts)} decoded tiles, {needed / 1e9:.2f} GB"
    if needed <= MEMORY_SHARE * memory_mb * 1e6:
        log.info("%s: in memory", said)
        yield [_in_memory(*part) for part in zip(parts, counts, strict=True)], True
    elif scratch is None or (reason := _cannot_have(scratch, needed)):
        why = reason if scratch else "train.cache is none"
        log.warning("%s: not kept, so every epoch decodes the tiles again (%s; see train.cache)", said, why)
        yield [_not_kept(*part) for part in zip(parts, counts, strict=True)], False
    else:
        log.info("%s: in a file in %s", said, scratch)
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        paths = [scratch / f"hpaloc-{digest}-{number}.tiles" for number in range(len(parts))]
        try:
            made = zip(paths, parts, counts, strict=True)
            yield [_in_file(path, part, count, tile_bytes) for path, part, count in made], False
        finally:
            for path in paths:
                path.unlink(missing_ok=True)


def _cannot_have(folder: Path, needed: int) -> str | None:
    """Return why a folder cannot have a file of ``needed`` bytes, or None if it can."""
    if not folder.is_dir():
        return f"{folder} is not a folder"
    if _file_system(folder) in ("tmpfs", "ramfs"):
        return f"{folder} is in memory"
    free = shutil.disk_usage(folder).free
    # Others write there too.
    return f"{folder} has {free / 1e9:.2f} GB free" if free < 1.1 * needed else None


def _file_system(folder: Path) -> str:
    """Return the type of the file system of a folder, or nothing where the system has no list of them."""
    mounts = Path("/proc/mounts")
    lines = mounts.read_text().splitlines() if mounts.is_file() else []
    types = {Path(line.split()[1]): line.split()[2] for line in lines}
    resolved = folder.resolve()
    return next((types[parent] for parent in (resolved, *resolved.parents) if parent in types), "")


def _in_memory(examples: tf.data.Dataset, count: int) -> Reader:
    cached = examples.cache()
    return lambda seed=None: cached if seed is None else cached.shuffle(count, seed=seed)


def _not_kept(examples: tf.data.Dataset, count: int) -> Reader:
    buffer = min(count, SHUFFLE_BUFFER)
    return lambda seed=None: examples if seed is None else examples.shuffle(buffer, seed=seed)


def _in_file(path: Path, examples: tf.data.Dataset, count: int, tile_bytes: int) -> Reader:
    """Write the images of the examples one after the other into a file; return its reader."""
    labels, weights = _write(path, examples, count)
    shape = examples.element_spec[0].shape
    blocks = -(-count // BLOCK)

    def read_images(number: np.int64) -> np.ndarray:
        first = int(number) * BLOCK
        images = np.empty((min(BLOCK, count - first), *shape), np.uint8)
        # Not mapped into memory, which schedulers would count as the job's.
        with open(path, "rb") as file:
            file.seek(first * tile_bytes)
            if file.readinto(images.reshape(-1).data) < images.nbytes:
                raise OSError(f"{path}: was cut short while the training read it")
        return images

    def read_block(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        images = tf.ensure_shape(tf.numpy_function(read_images, [number], tf.uint8), (None, *shape))
        first = number * BLOCK
        return images, labels[first : first + BLOCK], weights[first : first + BLOCK]

    def read(seed: Any = None) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(blocks)
        if seed is None:
            return numbers.map(read_block).unbatch()
        shuffled = numbers.shuffle(blocks, seed=seed).map(read_block).unbatch()
        return shuffled.shuffle(min(count, SHUFFLE_BUFFER), seed=seed)

    return read


def _write(path: Path, examples: tf.data.Dataset, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Write the images of the examples; return their labels and weights."""
    labels, weights = [], []
    start = said = time.monotonic()
    with open(path, "wb") as file:
        for images, of_labels, of_weights in examples.batch(_WRITTEN_TOGETHER).prefetch(2).as_numpy_iterator():
            file.write(images.data)
            labels.append(of_labels)
            weights.append(of_weights)
            if time.monotonic() - said > _SECONDS_OF_SILENCE:
                said = time.monotonic()
                done = len(labels) * _WRITTEN_TOGETHER
                log.info("%d of %d tiles decoded (%.0f/s)", done, count, done / (said - start))
    log.info("%d tiles decoded and written (%.0f/s)", count, count / max(time.monotonic() - start, 1e-9))
    return tf.constant(np.concatenate(labels)), tf.constant(np.concatenate(weights))
