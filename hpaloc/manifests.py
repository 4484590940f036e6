"""Manifests: the fields of a shard with their files, as the stages read them, and their annotations from the sheet."""

import csv
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hpaloc.classes import COLOURS, parse_labels
from hpaloc.files import digest
from hpaloc.planes import Plane, files_of, is_zarr, list_zarr

# The kinds of files in a manifest.
FILES = (*COLOURS, "cell_mask", "nucleus_mask")

CARRIED = ("antibody", "cell_line", "split")
# What a sheet says about a field that does not affect its images and masks.
ANNOTATIONS = ("labels", *CARRIED)

# The state, in a manifest, of a file that does not exist.
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One field of a sheet.

    labels: None if the collection has no labels
    pixel_size: µm; nan for the one that its files say, which the field's row in the table FIELDS has
    """

    id: str
    labels: tuple[int, ...] | None
    pixel_size: float
    antibody: str | None = None
    cell_line: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestRow(SheetRow):
    """One field of a shard with its files.

    paths: by colour; a plane if its file holds others too
    cell_mask, nucleus_mask: given masks, for the backend ``masks``
    seed: of a simulated field
    urls: by colour, of files that are downloaded
    states: by colour, ``cell_mask`` and ``nucleus_mask``, the state of each file at planning; files that the run makes
    have none
    """

    paths: dict[str, str | Plane] = field(default_factory=dict)
    cell_mask: str | None = None
    nucleus_mask: str | None = None
    seed: int | None = None
    urls: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


class ManifestError(ValueError):
    """A file is not a shard's manifest or table of annotations; the message names it."""


class ChangedError(ValueError):
    """A file has changed since the run was planned; the message names it."""


def _entry_state(entry: os.DirEntry[str], content: bool) -> str:
    try:
        found = entry.stat()
        return digest(entry.path) if content else f"{found.st_size}:{found.st_mtime_ns}"
    except OSError:
        # A link to nothing; reading raises an error, which rejects the field.
        return MISSING


def file_state(path: str, stats: os.stat_result, content: bool) -> str:
    """Return the state of a file or of an OME-Zarr folder: ``size:time``, or a digest of its ``content``.

    The time of a folder is a digest of the paths, sizes and times of its files. Any other folder in the place of a file
    counts as missing.
    """
    if stat.S_ISREG(stats.st_mode):
        return digest(path) if content else f"{stats.st_size}:{stats.st_mtime_ns}"
    if not is_zarr(path):
        return MISSING
    try:
        states = [(inside, _entry_state(entry, content)) for inside, entry in list_zarr(path)]
    except OSError:
        # A folder in it cannot be listed.
        return MISSING
    return state_of_all(states, content)


def state_of_all(states: Sequence[tuple[str, str]], content: bool) -> str:
    """Return one state, ``size:digest`` or a digest of the ``content``, from the paths and the states of files."""
    lines = "".join(f"{path}\0{state}\n" for path, state in states)
    of_all = hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
    if content:
        return of_all
    return f"{sum(int(state.split(':')[0]) for _, state in states if state != MISSING)}:{of_all[:16]}"


def _state_now(path: str, content: bool) -> str:
    try:
        return file_state(path, os.stat(path), content)
    except OSError:
        return MISSING


def check_unchanged(paths: Mapping[str, str | os.PathLike[str]], states: Mapping[str, str]) -> None:
    """Raise ChangedError naming the first file that has changed since planning.

    paths: {kind: file}
    states: {kind: state at planning, as in a manifest}; a file without a state is not checked
    """
    # A file with several colours is checked once.
    for files, state in dict.fromkeys((files_of(path), states[kind]) for kind, path in paths.items() if kind in states):
        content = ":" not in state and state != MISSING
        each = [(path, _state_now(path, content)) for path in files]
        removed = next((path for path, now in each if now == MISSING), None)
        now = each[0][1] if len(each) == 1 else state_of_all(each, content)
        if now != state:
            changed = "changed" if len(each) == 1 else f"one of its {len(each)} planes along z changed"
            what = changed if removed is None else "was removed"
            raise ChangedError(f"{removed or files[0]}: {what} after the run was planned; start the run again")


@contextmanager
def unchanged(paths: Mapping[str, str | os.PathLike[str]], states: Mapping[str, str]) -> Iterator[None]:
    """Check that the files that the block reads are those of the plan; arguments and errors as in ``check_unchanged``.

    They are checked after reading, also if reading failed: a file that is cut short because it is being replaced has
    changed.
    """
    try:
        yield
    finally:
        check_unchanged(paths, states)


def read_annotations(paths: Iterable[str | os.PathLike[str]]) -> dict[str, dict[str, str]]:
    """Read the annotations of the fields of shards: {id: {one of ANNOTATIONS: text}}, "" without a value in the sheet.

    Raises ManifestError naming the file that is not a table of annotations.
    """
    found = {}
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != ["id", *ANNOTATIONS]:
                raise ManifestError(f"{os.fspath(path)}: is not a shard's table of annotations")
            for cells in reader:
                found[cells.pop("id")] = cells
    return found


def true_mask_files(path: str | os.PathLike[str] | None) -> dict[str, tuple[str, str]]:
    """Return each field's true mask and its state at planning from truth.csv, {} without such a file."""
    if path is None:
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {cells["id"]: (cells["mask"], cells["state"]) for cells in csv.DictReader(file)}


def _annotated(row: ManifestRow, said: Mapping[str, str]) -> ManifestRow:
    labels = parse_labels(said["labels"]) if said.get("labels") else None
    carried: dict[str, Any] = {column: said.get(column) or None for column in CARRIED}
    return replace(row, labels=labels, **carried)


def _place(cells: Mapping[str, str], colour: str) -> str | Plane:
    plane = cells.get(f"{colour}_plane")
    return Plane(cells[colour], **json.loads(plane)) if plane else cells[colour]


def read_manifest(path: str | os.PathLike[str]) -> list[ManifestRow]:
    """Read a shard's manifest, with rows sorted by id.

    It has labels and cell lines only of simulated fields, whose files depend on them; see ``read_manifests``.

    Raises ManifestError naming the file if it is not a manifest.
    """
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"id", "pixel_size", "seed"} <= set(reader.fieldnames or []):
            raise ManifestError(f"{os.fspath(path)}: is not a shard's manifest")
        for cells in reader:
            states = {kind: cells.get(f"{kind}_state") or "" for kind in FILES}
            row = ManifestRow(
                id=cells["id"],
                labels=None,
                pixel_size=float(cells["pixel_size"]),
                paths={colour: _place(cells, colour) for colour in COLOURS if colour in cells},
                cell_mask=cells.get("cell_mask") or None,
                nucleus_mask=cells.get("nucleus_mask") or None,
                seed=int(cells["seed"]) if cells["seed"] else None,
                urls={colour: states[colour] for colour in COLOURS if "://" in states[colour]},
                states={kind: state for kind, state in states.items() if state and "://" not in state},
            )
            rows.append(_annotated(row, cells))
    return rows


def read_manifests(
    paths: Iterable[str | os.PathLike[str]], annotations: Iterable[str | os.PathLike[str]] = ()
) -> list[ManifestRow]:
    """Read the manifests of several shards, and their annotations if given, into one list sorted by id."""
    said = read_annotations(annotations)
    rows = (row for path in paths for row in read_manifest(path))
    known = (_annotated(row, said[row.id]) if said else row for row in rows)
    return sorted(known, key=lambda row: row.id)
