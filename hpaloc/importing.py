"""Import of files that only a reader of bioio opens (CZI, LIF, ND2 …): plain planes, and a table of what each says."""

import csv
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile

from hpaloc.classes import COLOURS
from hpaloc.endings import READERS, SHIPPED, ending_of
from hpaloc.files import FileNameError, atomic_path
from hpaloc.ids import normal_text, shown
from hpaloc.image_files.decoding import ImageError, check_size, errors_named
from hpaloc.image_files.not_made import write_reason
from hpaloc.image_files.stack import Index, Stack, only_image
from hpaloc.image_files.stacks import Opener, read_planes
from hpaloc.manifests import ChangedError, unchanged
from hpaloc.planes import Plane
from hpaloc.progress import log, track
from hpaloc.rejection import check_rejected
from hpaloc.rle import MAX_PIXELS

COLUMNS = (
    *("id", "colour", "file", "channel", "channels", "scene", "scenes", "z", "times", "dtype"),
    *("pixel_size_x", "pixel_size_y", "pixel_size_z", "acquired", "reason"),
)
# MB of the libraries, and bytes per pixel of a field: the planes of four colours, and the sum of one along z.
_LIBRARIES_MB = 400
_BYTES_PER_PIXEL = 16
# Names in a message.
_LISTED = 12
# The files of the same pixels and pixel size are the same bytes; tifffile would draw an identifier.
_UUID = "00000000-0000-0000-0000-000000000000"


class MissingReaderError(RuntimeError):
    """The environment has no reader of a kind of file; the message names the file and the package."""


@dataclass(frozen=True)
class Source:
    """What is imported as one file of the run.

    plane: what of which file
    state: that of its file at planning
    into: the name of the file that is made of it
    """

    plane: Plane
    state: str
    into: str


class Reader(Protocol):
    """What is used of a reader of bioio: the scenes of a file, and the image of the current one."""

    scenes: Sequence[str]
    physical_pixel_sizes: Any
    standard_metadata: Any
    xarray_dask_data: Any

    def set_scene(self, scene_id: int) -> None:
        """Make the scene of a number the current one."""


def find_reader(path: str) -> Callable[[str], Reader]:
    """Return the function that opens a file by the reader that bioio has for its ending.

    Raises MissingReaderError if it has none.
    """
    ending, broken = ending_of(path), ""
    try:
        from bioio.plugins import get_plugins

        if plugins := get_plugins(use_cache=True).get(ending):
            reader: Any = plugins[0].metadata.get_reader()
            return partial(_open_by_plane, reader)
    except ImportError as error:
        broken = f" ({error})"
    package = READERS[ending]
    add = "" if ending in SHIPPED else f"write {package} into envs/import.yaml and "
    raise MissingReaderError(
        f"{path}: its reader, {package}, is not in this environment{broken}; {add}run with --sdm conda, or install it "
        "here"
    )


def _open_by_plane(reader: Callable[..., Reader], path: str) -> Reader:
    """Open a file so that no more than the planes that are asked for are read."""
    try:
        return reader(path, chunk_dims=["Y", "X"])
    except TypeError:
        # Some readers read by plane anyway, and do not ask.
        return reader(path)


def _image_of(reader: Reader, path: str) -> Any:
    """Return the image of the current scene, of which nothing is read yet."""
    image = reader.xarray_dask_data
    # A CZI says where its tiles are; other readers would put tiles side by side that overlap.
    if ending_of(path) == ".czi" and dict(zip(image.dims, image.shape, strict=True)).get("M", 1) > 1:
        image = reader.mosaic_xarray_dask_data  # type: ignore[attr-defined]
    return image


def _scene(scenes: Sequence[str], series: int | str | None, name: str) -> int:
    """Return the number of the scene of a number or name."""
    if isinstance(series, str):
        numbers = [number for number, scene in enumerate(scenes) if normal_text(scene) == normal_text(series)]
        if len(numbers) > 1:
            raise ImageError(
                f"{name}: {len(numbers)} of its scenes are called {series!r}; give the key series a number"
            )
        # Snakemake reads the numbers of --config as text.
        if not numbers and not (series.isascii() and series.isdigit()):
            listed = ", ".join(shown(scene) for scene in scenes[:_LISTED]) + ", …" * (len(scenes) > _LISTED)
            raise ImageError(f"{name}: has no scene {series!r} (series); its scenes are {listed}")
        series = numbers[0] if numbers else int(series)
    number: int = only_image(range(len(scenes)), series, name)
    return number


def _tried(read: Callable[[], Any]) -> Any:
    """Return what a file says; the readers raise, and log, errors of many kinds where it says nothing."""
    logging.disable(logging.WARNING)
    try:
        return read()
    except Exception:
        return None
    finally:
        logging.disable(logging.NOTSET)


def _names(image: Any) -> list[str]:
    """Return the names that a file gives to the channels of an image; none if it has no axis of channels."""
    return [str(name) for name in np.atleast_1d(image.coords["C"])] if "C" in image.coords else []


def _said(reader: Reader, scene: int, image: Any) -> dict[str, Any]:
    """Return what a file says of a scene, by column."""
    lengths = dict(zip(image.dims, image.shape, strict=True))
    size = _tried(lambda: reader.physical_pixel_sizes)
    acquired = _tried(lambda: reader.standard_metadata.imaging_datetime.isoformat())
    return {
        "channels": " | ".join(_names(image)),
        "scene": reader.scenes[scene],
        "scenes": " | ".join(reader.scenes),
        "z": lengths.get("Z", 1),
        "times": lengths.get("T", 1),
        "dtype": str(image.dtype),
        **{f"pixel_size_{axis}": getattr(size, axis.upper(), None) for axis in "xyz"},
        "acquired": acquired,
    }


@contextmanager
def _opened(
    plane: Plane, limit: int, find: Callable[[str], Callable[[str], Reader]], said: dict[str, dict[str, Any]]
) -> Iterator[Stack]:
    """Open the scene of a plane, and add what its file says to ``said``."""
    open_file = find(plane.path)
    with errors_named(plane.path):
        reader = open_file(plane.path)
        scene = _scene(reader.scenes, plane.series, plane.path)
        reader.set_scene(scene)
        image = _image_of(reader, plane.path)
        said[plane.path] = _said(reader, scene, image)
        if image.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
            raise ImageError(f"{plane.path}: pixels are {image.dtype}, not 8- or 16-bit unsigned integers")
        axes, names = "".join(image.dims), _names(image)
        check_size([length for axis, length in zip(axes, image.shape, strict=True) if axis in "YX"], limit, plane.path)

        def read(index: Index) -> np.ndarray:
            return np.asarray(image.data[index].compute(scheduler="synchronous"))

        yield Stack(plane.path, axes, image.shape, lambda: names, read)


def _write_plane(path: Path, image: np.ndarray, said: Mapping[str, Any]) -> None:
    """Write a plane, or an RGB image, as an OME-TIFF with the pixel size that its file says."""
    sizes = {f"PhysicalSize{axis}": said[f"pixel_size_{axis.lower()}"] for axis in "XY"}
    metadata = {"axes": "YXS"[: image.ndim], "UUID": _UUID} | {key: size for key, size in sizes.items() if size}
    photometric = "rgb" if image.ndim == 3 else "minisblack"
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, image, ome=True, photometric=photometric, compression="zlib", metadata=metadata)


def read_sources(path: str | os.PathLike[str]) -> dict[str, dict[str, Source]]:
    """Read from a shard's manifest what is imported: {id: {colour: source}}."""
    with open(path, newline="", encoding="utf-8") as file:
        return {
            cells["id"]: {
                colour: Source(
                    Plane(cells[f"{colour}_source"], **json.loads(cells[f"{colour}_source_plane"] or "{}")),
                    cells[f"{colour}_source_state"],
                    Path(cells[colour]).name,
                )
                for colour in COLOURS
                if cells.get(f"{colour}_source")
            }
            for cells in csv.DictReader(file)
        }


def _import_field(
    sources: Mapping[str, Source], folder: Path, opened: Opener, said: Mapping[str, Any], limit: int
) -> str:
    """Write the planes of a field into a folder; return why they cannot be read, or "".

    In the place of planes that cannot be read the reason is written, which every stage gives that would read them.
    """
    planes = {colour: source.plane for colour, source in sources.items()}
    reason = ""
    try:
        with unchanged(planes, {colour: source.state for colour, source in sources.items()}):
            images = read_planes(planes, list(planes), limit, opened)
    except (ImageError, ChangedError) as error:
        reason = " ".join(str(error).split())
    try:
        for colour, source in sources.items():
            if reason:
                write_reason(folder / source.into, reason)
            else:
                _write_plane(folder / source.into, images[colour], said[source.plane.path])
    except FileNameError as error:
        return str(error)
    return reason


def import_shard(
    manifest: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    memory_mb: int | None = None,
    max_rejected_fraction: float = 0.05,
    find: Callable[[str], Callable[[str], Reader]] = find_reader,
) -> None:
    """Write the planes of a shard's fields that are in files of microscopes, and ``imported.csv``, what the files say.

    manifest: that of the shard; only the planes that it names are read
    folder: where the files go, under the names that the manifest gives
    memory_mb: MB, the memory of the job; None does not limit the size of a plane
    find: returns the function that opens a file; see ``find_reader``
    Raises TooManyRejected if more fields than ``max_rejected_fraction`` (rounded up to whole fields) cannot be read,
    and MissingReaderError if there is no reader of a file.
    """
    fits = MAX_PIXELS if memory_mb is None else max(0, memory_mb - _LIBRARIES_MB) * 10**6 // _BYTES_PER_PIXEL
    fields = {id: sources for id, sources in read_sources(manifest).items() if sources}
    rejected = []
    with atomic_path(Path(folder, "imported.csv")) as path, open(path, "w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for id, sources in track(fields.items(), len(fields), "fields imported"):
            said: dict[str, dict[str, Any]] = {}
            opened = partial(_opened, find=find, said=said)
            if reason := _import_field(sources, Path(folder), opened, said, fits):
                log.warning("field %s: %s", id, reason)
                rejected.append((id, reason))
            for colour, source in sources.items():
                of_file = said.get(source.plane.path, {})
                place = {"id": id, "colour": colour, "file": source.plane.path, "channel": source.plane.channel}
                writer.writerow(place | of_file | {"reason": reason})
    check_rejected(rejected, len(fields), max_rejected_fraction)
