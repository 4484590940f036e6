"""Stable shards, and the manifests and annotations by which a workflow engine sees what changed."""

import csv
import glob
import hashlib
import io
import logging
import math
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from hpaloc.classes import COLOURS, format_labels, parse_labels
from hpaloc.files import digest, spelled_as_on_disk
from hpaloc.sheet import CARRIED, SheetError, SheetRow

log = logging.getLogger("hpaloc")

_FILES = (*COLOURS, "cell_mask", "nucleus_mask")

# What a sheet says of a field that its images and masks do not depend on.
ANNOTATIONS = ("labels", *CARRIED)

# What stands in a manifest for the size and time of a file that is not there.
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class ManifestRow(SheetRow):
    """One field of a shard with its files: ``paths`` by colour, masks for the backend `masks`, or a seed.

    ``urls`` by colour, where the files are downloaded. ``states`` has what each file was at planning, by colour,
    ``cell_mask`` and ``nucleus_mask``; files that the run makes have none.
    """

    paths: dict[str, str] = field(default_factory=dict)
    cell_mask: str | None = None
    nucleus_mask: str | None = None
    seed: int | None = None
    urls: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


class ChangedError(ValueError):
    """A file is not what it was when the run was planned; the message names it."""


def shard_of(id: str, shards: int) -> int:
    """Return the shard (0 to ``shards`` - 1) of a field id.

    The shard depends on the id alone (blake2b, 8 bytes, modulo ``shards``), so that adding or removing one field
    touches one shard, on every machine and in every session.
    """
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big") % shards


def shard_name(shard: int) -> str:
    """Return the folder name of a shard: at least three digits, so that names sort as numbers."""
    return f"{shard:03d}"


class Folders:
    """Sizes and times of files; the names in a folder are listed once, so that asking for an absent file is free."""

    def __init__(self) -> None:
        # Per folder its path as the disk spells it, its names, and those beyond ASCII by their form NFC.
        self._listed: dict[str, tuple[str, frozenset[str], dict[str, str]]] = {}

    def _list(self, folder: str) -> tuple[str, frozenset[str], dict[str, str]]:
        if folder not in self._listed:
            real = spelled_as_on_disk(folder)
            try:
                names = frozenset(os.listdir(real))
            except (FileNotFoundError, NotADirectoryError):
                names = frozenset()
            except OSError as error:
                raise SheetError(f"{folder}: the folder cannot be listed ({error.strerror})") from None
            forms = {unicodedata.normalize("NFC", name): name for name in names if not name.isascii()}
            self._listed[folder] = real, names, forms
        return self._listed[folder]

    def find(self, path: str) -> tuple[str, os.stat_result] | None:
        """Return the path of a regular file as the disk spells it, and its stat; None where there is none.

        Names that differ in their Unicode form alone are the same. Raises SheetError for a folder that is closed.
        """
        folder, slash, name = path.rpartition("/")
        real, names, forms = self._list(folder or slash or ".")
        own = name if name in names or name.isascii() else forms.get(unicodedata.normalize("NFC", name), name)
        if own not in names:
            return None
        if folder and real != folder:
            path = f"{real}/{own}"
        elif own != name:
            path = f"{folder}{slash}{own}"
        try:
            found = os.stat(path)
        except OSError:
            # Gone meanwhile, or a link in a circle.
            return None
        return (path, found) if stat.S_ISREG(found.st_mode) else None


def _state(path: str, folders: Folders, verify: str) -> tuple[str, str] | None:
    """Return the path of a file as the disk spells it, and what stands for its content in a manifest; None if absent.

    That is ``size:time`` or a digest.
    """
    found = folders.find(path)
    if found is None:
        return None
    path, stats = found
    return path, digest(path) if verify == "content" else f"{stats.st_size}:{stats.st_mtime_ns}"


def check_unchanged(paths: Mapping[str, str | os.PathLike[str]], states: Mapping[str, str]) -> None:
    """Raise ChangedError naming the first file that is not what it was at planning.

    paths: kind to file; states: kind to what it was, as a manifest has it; a file without a state is not looked at.
    """
    for path, state in [(os.fspath(path), states[kind]) for kind, path in paths.items() if kind in states]:
        try:
            found = os.stat(path)
            now = f"{found.st_size}:{found.st_mtime_ns}" if ":" in state or state == MISSING else digest(path)
        except OSError:
            now = MISSING
        if now != state:
            what = "was removed" if now == MISSING else "changed"
            raise ChangedError(f"{path}: {what} after the run was planned; start the run again")


@contextmanager
def unchanged(paths: Mapping[str, str | os.PathLike[str]], states: Mapping[str, str]) -> Iterator[None]:
    """Read files in the block and know that they are those of the plan.

    Arguments and errors are those of check_unchanged. The files are looked at after they were read, and where they
    could not be read too: a file that is cut short because it is being replaced has changed.
    """
    try:
        yield
    finally:
        check_unchanged(paths, states)


def find_files(
    rows: Sequence[SheetRow],
    patterns: Mapping[str, Sequence[str]],
    values: Mapping[str, str],
    collection: str,
    verify: str = "time",
    max_missing_fraction: float = 0.0,
) -> list[dict[str, tuple[str, str]]]:
    """Find the files of each field.

    ``patterns`` gives, per kind (a colour, ``cell_mask``, ``nucleus_mask``), the patterns to try in turn; ``{id}``
    and ``{colour}`` are filled in, and ``values`` holds the other placeholders. ``verify`` is ``time`` or
    ``content``. Returns, per row, ``{kind: (path, state)}``; a missing file has the first pattern's path and the state
    `MISSING`. Raises SheetError with the number of missing files and the first ten of them where more than
    ``max_missing_fraction`` of the fields (rounded up), or all of them, lack one; with fewer a warning says so, and
    they will be rejected when it comes to reading them. Where every field lacks the same kind the error asks for the
    pattern, where more than ten files are missing for the sheet.
    """
    folders = Folders()
    # A table of masks is the one file of all fields: its state is asked for once, since a digest reads the whole.
    state_of = lru_cache(maxsize=64)(partial(_state, folders=folders, verify=verify))
    found: list[dict[str, tuple[str, str]]] = []
    for row in rows:
        files: dict[str, tuple[str, str]] = {}
        for kind, candidates in patterns.items():
            for candidate in candidates:
                path = candidate.format(id=row.id, colour=kind, **values)
                if (there := state_of(path)) is not None:
                    files[kind] = there
                    break
            else:
                files[kind] = (candidates[0].format(id=row.id, colour=kind, **values), MISSING)
        found.append(files)
    if missing := [path for files in found for path, state in files.values() if state == MISSING]:
        lacking = sum(any(state == MISSING for _, state in files.values()) for files in found)
        everywhere = any(all(files[kind][1] == MISSING for files in found) for kind in patterns)
        total = len(rows) * len(patterns)
        first = ", ".join(missing[:10])
        which = "" if len(missing) == 1 else " the first ten:" if len(missing) > 10 else " these:"
        files_are = f"{'file' if total == 1 else 'files'} {'is' if len(missing) == 1 else 'are'}"
        text = f"collection {collection}: {len(missing)} of {total} {files_are} missing:{which} {first}"
        if lacking == len(rows) or lacking > math.ceil(max_missing_fraction * len(rows)):
            count = f"; {lacking} of {len(rows)} {'field lacks' if len(rows) == 1 else 'fields lack'} one"
            # Of one field alone, one file that is missing is that file, not the pattern.
            if len(missing) == total or (len(rows) > 1 and everywhere):
                text += f"{count}: is the pattern right?"
            elif len(missing) > 10:
                text += f"{count}: a sheet names only fields that are here"
            raise SheetError(text)
        log.warning("%s; %d of %d fields will be rejected", text, lacking, len(rows))
    return found


def manifests(
    rows: Sequence[SheetRow],
    files: Sequence[Mapping[str, tuple[str, str]]],
    shards: int,
    seed: int | None = None,
) -> dict[str, str]:
    """Return the text of the manifest and of the annotations of each shard that holds fields, by file name.

    ``files`` is the result of find_files; for files that a rule makes, the state in it is empty. Simulated ones are
    determined by ``seed``, labels and cell line, which then stand in the manifest too.
    """
    kinds = [kind for kind in _FILES if files and kind in files[0]]
    drawn = () if seed is None else ("labels", "cell_line")
    header = ["id", "pixel_size", "seed", *drawn, *kinds, *(f"{kind}_state" for kind in kinds)]
    of_shard: dict[str, list[int]] = {}
    for index in sorted(range(len(rows)), key=lambda index: rows[index].id):
        of_shard.setdefault(shard_name(shard_of(rows[index].id, shards)), []).append(index)
    texts = {}
    for name, indices in of_shard.items():
        table, annotations = [header], [["id", *ANNOTATIONS]]
        for row, of_row in ((rows[index], files[index]) for index in indices):
            said = {"labels": "" if row.labels is None else format_labels(row.labels)}
            said |= {column: getattr(row, column) or "" for column in CARRIED}
            annotations.append([row.id, *said.values()])
            table.append(
                [
                    row.id,
                    repr(row.pixel_size),
                    "" if seed is None else str(seed),
                    *(said[column] for column in drawn),
                    *(of_row[kind][0] for kind in kinds),
                    *(of_row[kind][1] for kind in kinds),
                ]
            )
        texts[f"{name}.csv"] = _csv_text(table)
        texts[annotations_name(name)] = _csv_text(annotations)
    return texts


def _csv_text(rows: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def annotations_name(shard: str) -> str:
    """Return the file name of the annotations of a shard, which stand beside its manifest."""
    return f"{shard}.annotations.csv"


def shards_of(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the shards whose manifests stand in ``folder``, in order."""
    names = (Path(path).stem for path in glob.glob(os.path.join(glob.escape(os.fspath(folder)), "*.csv")))
    return sorted((name for name in names if name.isdigit()), key=int)


def read_annotations(paths: Iterable[str | os.PathLike[str]]) -> dict[str, dict[str, str]]:
    """Read what the sheet says of the fields of shards: {id: {one of ANNOTATIONS: text}}, empty where it says nothing.

    Raises SheetError naming the file that is no table of annotations.
    """
    found = {}
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != ["id", *ANNOTATIONS]:
                raise SheetError(f"{os.fspath(path)}: is no table of annotations of a shard")
            for cells in reader:
                found[cells.pop("id")] = cells
    return found


def true_mask_states(path: str | os.PathLike[str] | None) -> dict[str, str]:
    """Return what truth.csv says that the true mask of each field was at planning, {} without such a file."""
    if path is None:
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {cells["id"]: cells["state"] for cells in csv.DictReader(file)}


def _annotated(row: ManifestRow, said: Mapping[str, str]) -> ManifestRow:
    labels = parse_labels(said["labels"]) if said.get("labels") else None
    carried: dict[str, Any] = {column: said.get(column) or None for column in CARRIED}
    return replace(row, labels=labels, **carried)


def read_manifest(path: str | os.PathLike[str]) -> list[ManifestRow]:
    """Read a shard's manifest; rows are sorted by id. Raises SheetError naming the file if it is no manifest.

    Labels and cell line are those of a simulated field, whose files depend on them; else see read_manifests.
    """
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"id", "pixel_size", "seed"} <= set(reader.fieldnames or []):
            raise SheetError(f"{os.fspath(path)}: is no manifest of a shard")
        for cells in reader:
            states = {kind: cells.get(f"{kind}_state") or "" for kind in _FILES}
            row = ManifestRow(
                id=cells["id"],
                labels=None,
                pixel_size=float(cells["pixel_size"]),
                paths={colour: cells[colour] for colour in COLOURS if colour in cells},
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
    """Read several shards' manifests, and their annotations where these are given, into one list, sorted by id."""
    said = read_annotations(annotations)
    rows = (row for path in paths for row in read_manifest(path))
    known = (_annotated(row, said[row.id]) if said else row for row in rows)
    return sorted(known, key=lambda row: row.id)
