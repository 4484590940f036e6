"""Stable shards, the files of each field, and the manifests and annotations that a workflow engine compares."""

import csv
import glob
import hashlib
import io
import logging
import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from hpaloc.classes import format_labels
from hpaloc.delimited import SheetError
from hpaloc.files import spelled_as_on_disk
from hpaloc.layout import PATTERNS
from hpaloc.manifests import ANNOTATIONS, CARRIED, FILES, MISSING, SheetRow, file_state
from hpaloc.planes import is_zarr
from hpaloc.rejection import too_many

log = logging.getLogger("hpaloc")


def shard_of(id: str, shards: int) -> str:
    """Return the name of a field's shard, ``000`` to ``shards`` - 1: at least three digits, so that names sort.

    The shard depends only on the id (blake2b, 8 bytes, modulo ``shards``), so that adding or removing a field changes
    one shard, on every machine and in every session.
    """
    return f"{int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), 'big') % shards:03d}"


def table_name(kind: str, shard: str) -> str:
    """Return the file name of the ``manifest`` or the ``annotations`` of a shard, which are in the same folder."""
    return os.path.basename(PATTERNS[kind]).format(shard=shard)


def shards_of(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the shards whose manifests are in ``folder``, in order."""
    names = (Path(path).stem for path in glob.glob(os.path.join(glob.escape(os.fspath(folder)), "*.csv")))
    return sorted((name for name in names if name.isdigit()), key=int)


class Folders:
    """Sizes and times of files; each folder is listed once, so that looking for an absent file costs nothing."""

    def __init__(self) -> None:
        # Per folder: its path as spelled on disk, its names, and the non-ASCII names by their form NFC.
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
        """Return the path of a file or an OME-Zarr folder as spelled on disk, and its stat; None if there is none.

        Names that differ only in their Unicode form are the same.

        Raises SheetError for a folder that cannot be listed.
        """
        folder, slash, name = path.rstrip("/").rpartition("/")
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
            # Removed meanwhile, or a circular link.
            return None
        return (path, found) if stat.S_ISREG(found.st_mode) or is_zarr(path) else None


def _state(path: str, folders: Folders, verify: str) -> tuple[str, str] | None:
    """Return the path of a file as spelled on disk, and its state (``size:time`` or a digest); None if it is absent."""
    found = folders.find(path)
    if found is None:
        return None
    path, stats = found
    return path, file_state(path, stats, content=verify == "content")


def find_files(
    rows: Sequence[SheetRow],
    patterns: Mapping[str, Sequence[str]],
    values: Mapping[str, str],
    collection: str,
    verify: str = "time",
    max_missing_fraction: float = 0.0,
) -> list[dict[str, tuple[str, str]]]:
    """Find the files of each field, and warn of missing ones, whose fields will be rejected when they are read.

    patterns: {kind (a colour, ``cell_mask``, ``nucleus_mask``): patterns to try in turn, with ``{id}``, ``{colour}``}
    values: the other placeholders of the patterns
    verify: ``time`` or ``content``, what makes a file's state
    Returns, per row, ``{kind: (path, state)}``; a missing file has the first pattern's path and the state ``MISSING``.
    Raises SheetError with the number of missing files and the first ten of them if more than ``max_missing_fraction``
    of the fields (rounded up), or all of them, lack one.
    """
    folders = Folders()
    # A table of masks is one file for all fields; its state is cached, since a digest reads the whole file.
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
        everywhere = [kind for kind in patterns if all(files[kind][1] == MISSING for files in found)]
        total = len(rows) * len(patterns)
        first = ", ".join(missing[:10])
        which = "" if len(missing) == 1 else " the first ten:" if len(missing) > 10 else " these:"
        files_are = f"{'file' if total == 1 else 'files'} {'is' if len(missing) == 1 else 'are'}"
        text = f"collection {collection}: {len(missing)} of {total} {files_are} missing:{which} {first}"
        if lacking == len(rows) or too_many(lacking, len(rows), max_missing_fraction):
            count = f"; {lacking} of {len(rows)} {'field lacks' if len(rows) == 1 else 'fields lack'} one"
            lacked = everywhere if set(everywhere) <= {"red", "yellow"} else []
            # For a single field, one missing file does not mean that the pattern is wrong.
            if lacked:
                null = ", ".join(f"{colour}: null" for colour in lacked)
                text += (
                    f"{count}: is the pattern right, or is there no {' and no '.join(lacked)} (channels: {{{null}}})?"
                )
            elif len(missing) == total or (len(rows) > 1 and everywhere):
                text += f"{count}: is the pattern right?"
            elif len(missing) > 10:
                text += f"{count}: the sheet may list only fields whose files exist"
            raise SheetError(text)
        log.warning("%s; %d of %d fields will be rejected", text, lacking, len(rows))
    return found


def split_url(url: str) -> SplitResult:
    """Return the parts of an address; raise ValueError with the reason unless it is https, or http on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ValueError(f"{url}: is not an address ({error})") from None
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise ValueError(f"{url}: only https is allowed")
    if not parts.hostname:
        raise ValueError(f"{url}: has no host")
    return parts


def format_manifests(
    rows: Sequence[SheetRow],
    files: Sequence[Mapping[str, tuple[str, str]]],
    shards: int,
    seed: int | None = None,
    planes: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the text of the manifest and of the annotations of each shard that has fields, by file name.

    files: the result of ``find_files``; the state of a file that a rule makes is empty
    seed: that of simulated fields; labels and cell line, which determine them too, are then in the manifest as well
    planes: by colour, as text, what to read of each file; without it, files hold one image
    """
    planes = planes or {}
    kinds = [kind for kind in FILES if files and kind in files[0]]
    drawn = () if seed is None else ("labels", "cell_line")
    header = ["id", "pixel_size", "seed", *drawn, *kinds, *(f"{kind}_state" for kind in kinds)]
    header += [f"{colour}_plane" for colour in planes]
    of_shard: dict[str, list[int]] = {}
    for index in sorted(range(len(rows)), key=lambda index: rows[index].id):
        of_shard.setdefault(shard_of(rows[index].id, shards), []).append(index)
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
                    *planes.values(),
                ]
            )
        texts[table_name("manifest", name)] = format_csv(table)
        texts[table_name("annotations", name)] = format_csv(annotations)
    return texts


def format_csv(rows: Iterable[Iterable[str]]) -> str:
    """Return rows, the header first, as the text of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
