"""Stable shards, the files of each field, and the manifests and annotations that a workflow engine compares."""

import csv
import glob
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hpaloc.classes import COLOURS, format_labels
from hpaloc.config import as_written
from hpaloc.delimited import SheetError
from hpaloc.layout import PATTERNS
from hpaloc.manifests import ANNOTATIONS, CARRIED, FILES, MISSING, SheetRow, file_state, state_of_all
from hpaloc.patterns.folders import Folders
from hpaloc.patterns.pattern import FilePattern
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


# The kind of a file that holds all colours.
ALL = "image"


class FoundFile(NamedTuple):
    """A file of a field and its state; of planes along z in files of their own, the first, and the paths of the others.

    state: of all of them
    """

    path: str
    state: str
    others: tuple[str, ...] = ()


# The files of a field: {kind (a colour, ALL, ``cell_mask``, ``nucleus_mask``): file}.
Files = dict[str, FoundFile]


@dataclass(frozen=True)
class Wanted:
    """The files of one kind that each field of a collection has.

    patterns: to try in turn
    choices: what the parts ``colour``, ``channel``, ``time`` and ``z`` of the patterns are for this kind
    """

    patterns: Sequence[FilePattern]
    choices: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def along_z(self) -> bool:
        """Whether a field has a file for each plane along z."""
        return "z" in self.patterns[0].names and "z" not in self.choices


def find_files(
    ids: Sequence[str],
    wanted: Mapping[str, Wanted],
    parts: Sequence[Mapping[str, str]],
    verify: str = "time",
) -> list[Files]:
    """Find the files of each field.

    wanted: {kind: its patterns}
    parts: what the other parts of the patterns are for each of the fields ``ids``
    verify: ``time`` or ``content``, what makes a file's state
    Returns the files of each field; a missing one has the first pattern's path and the state ``MISSING``.
    Raises SheetError naming two files that one pattern finds for one field and kind.
    """
    folders = Folders()
    # A table of masks is one file for all fields; its state is kept, since a digest reads the whole file.
    last: Files = {}

    def find(of_field: Mapping[str, str | int]) -> Files:
        files: Files = {}
        for kind, of_kind in wanted.items():
            values = {**of_field, **of_kind.choices}
            for pattern in of_kind.patterns:
                if (there := pattern.find(values, folders)) is not None:
                    path, stats = there
                    if kind not in last or last[kind].path != path:
                        last[kind] = FoundFile(path, file_state(path, stats, content=verify == "content"))
                    files[kind] = last[kind]
                    break
            else:
                files[kind] = FoundFile(of_kind.patterns[0].path(values), MISSING)
        return files

    fields: list[dict[str, str | int]] = [{**of_field, "id": id} for id, of_field in zip(ids, parts, strict=True)]
    along_z = [kind for kind, of_kind in wanted.items() if of_kind.along_z]
    if not along_z:
        return [find(of_field) for of_field in fields]
    found: list[Files] = []
    for of_field in fields:
        numbers: set[int] = set()
        for kind in along_z:
            for pattern in wanted[kind].patterns:
                numbers |= pattern.numbers_along_z({**of_field, **wanted[kind].choices}, folders)
        planes = [find({**of_field, "z": number}) for number in sorted(numbers)]
        # Other fields may have more planes.
        own = [files for files in planes if any(files[kind].state != MISSING for kind in along_z)]
        found.append(_along_z(own or [find({**of_field, "z": "*"})], verify))
    return found


def _along_z(planes: Sequence[Files], verify: str) -> Files:
    """Return the files of a field from those of each of its planes along z; of a kind that lacks a plane, this file."""
    joined: Files = {}
    for kind in planes[0]:
        files = list(dict.fromkeys(of_plane[kind] for of_plane in planes))
        joined[kind] = next((file for file in files if file.state == MISSING), files[0])
        if len(files) > 1 and joined[kind].state != MISSING:
            state = state_of_all([(file.path, file.state) for file in files], content=verify == "content")
            joined[kind] = FoundFile(files[0].path, state, tuple(file.path for file in files[1:]))
    return joined


def find_fields(wanted: Mapping[str, Wanted], collection: str, verify: str = "time") -> dict[tuple[str, ...], Files]:
    """Find the fields of a collection without a sheet: what the patterns of its images find.

    wanted: {kind: its patterns}, all with the same parts of a field
    verify: as in ``find_files``
    Returns {values of the parts of a field, in the order of the first pattern: files as those of ``find_files``}.
    Raises SheetError naming the pattern and the nearest folder if nothing is found, two files of one field and kind,
    and a file whose name is not UTF-8.
    """
    folders = Folders()
    rounds: dict[tuple[int, FilePattern], list[str]] = {}
    for kind, of_kind in wanted.items():
        for rank, pattern in enumerate(of_kind.patterns):
            rounds.setdefault((rank, pattern), []).append(kind)
    patterns = list(dict.fromkeys(pattern for _, pattern in rounds))
    along_z = any(of_kind.along_z for of_kind in wanted.values())
    names = patterns[0].of_field
    found: dict[tuple[str, ...], Files] = {}
    # The patterns that are tried first come first.
    for (_, pattern), kinds in sorted(rounds.items(), key=lambda item: item[0][0]):
        order = [pattern.of_field.index(name) for name in names] + [-1] * along_z
        for values, files in _find_by(pattern, {kind: wanted[kind] for kind in kinds}, verify, folders).items():
            own = found.setdefault(tuple([values[place] for place in order]), files)
            for kind in files.keys() - own.keys():
                own[kind] = files[kind]
    if not found:
        where = "; ".join(f"{pattern.text!r}: {pattern.nearest(folders)}" for pattern in patterns)
        raise SheetError(f"collection {collection}: no file is found by {where}")
    for values, files in found.items():
        for kind, of_kind in wanted.items():
            if kind not in files:
                parts = {**dict(zip((*names, "z"), values, strict=False)), **of_kind.choices}
                files[kind] = FoundFile(of_kind.patterns[0].path(parts), MISSING)
    if not along_z:
        return found
    planes: dict[tuple[str, ...], list[Files]] = {}
    for values in sorted(found, key=lambda values: int(values[-1])):
        planes.setdefault(values[:-1], []).append(found[values])
    return {values: _along_z(of_field, verify) for values, of_field in planes.items()}


def _find_by(
    pattern: FilePattern, wanted: Mapping[str, Wanted], verify: str, folders: Folders
) -> dict[tuple[str, ...], Files]:
    """Find the files of one pattern for each field, or plane along z, and the kinds ``wanted``; see ``find_fields``."""
    along_z = any(of_kind.along_z for of_kind in wanted.values())
    chosen = [name for name in pattern.chosen if not (along_z and name == "z")]
    choices = {name: [of_kind.choices[name] for of_kind in wanted.values()] for name in chosen}
    kinds_of: dict[str, list[str]] = {}
    for kind, of_kind in wanted.items():
        kinds_of.setdefault(as_written(of_kind.choices.get(pattern.selector or "", "")), []).append(kind)
    found: dict[tuple[str, ...], Files] = {}
    for values, said, path in pattern.walk(choices, folders):
        _check_utf8(path)
        if along_z:
            values = *values[:-1], str(int(values[-1]))
        there = folders.find(path)
        if there is None:
            # A link to nothing is a missing file, and another folder is none.
            if os.path.islink(path):
                found.setdefault(values, {})
            continue
        state = file_state(*there, content=verify == "content")
        files = found.setdefault(values, {})
        for kind in kinds_of[as_written(said)]:
            if kind in files and pattern.is_spelled(files[kind].path) == pattern.is_spelled(path):
                raise pattern.two_files(files[kind].path, path, f"{'' if kind == ALL else f'{kind} of '}one field")
            if kind not in files or pattern.is_spelled(path):
                files[kind] = FoundFile(there[0], state)
    return found


def _check_utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise SheetError(f"{os.fsencode(path)!r}: the name of this file is not UTF-8 text; rename it") from None


def check_missing(
    found: Sequence[Files], collection: str, max_missing_fraction: float = 0.0, listed: bool = True
) -> None:
    """Warn of the missing files of a collection, whose fields will be rejected when they are read.

    found: the result of ``find_files`` or ``find_fields``
    listed: whether a sheet lists the fields
    Raises SheetError with the number of missing files and the first ten of them if more than ``max_missing_fraction``
    of the fields (rounded up), or all of them, lack one.
    """
    missing = [file.path for files in found for file in files.values() if file.state == MISSING]
    if not missing:
        return
    lacking = sum(any(file.state == MISSING for file in files.values()) for files in found)
    everywhere = [kind for kind in found[0] if all(files[kind].state == MISSING for files in found)]
    total = len(found) * len(found[0])
    first = ", ".join(missing[:10])
    which = "" if len(missing) == 1 else " the first ten:" if len(missing) > 10 else " these:"
    files_are = f"{'file' if total == 1 else 'files'} {'is' if len(missing) == 1 else 'are'}"
    text = f"collection {collection}: {len(missing)} of {total} {files_are} missing:{which} {first}"
    if lacking == len(found) or too_many(lacking, len(found), max_missing_fraction):
        count = f"; {lacking} of {len(found)} {'field lacks' if len(found) == 1 else 'fields lack'} one"
        lacked = everywhere if set(everywhere) <= {"red", "yellow"} else []
        # For a single field, one missing file does not mean that the pattern is wrong.
        if lacked:
            null = ", ".join(f"{colour}: null" for colour in lacked)
            text += f"{count}: is the pattern right, or is there no {' and no '.join(lacked)} (channels: {{{null}}})?"
        elif len(missing) == total or (len(found) > 1 and everywhere):
            text += f"{count}: is the pattern right?"
        elif not listed and lacking == len(found) > 1:
            text += f"{count}: write * in place of a part of the pattern that is not the same for all files of a field"
        elif not listed:
            text += f"{count}: add the files, or narrow the pattern to complete fields"
        elif len(missing) > 10:
            text += f"{count}: the sheet may list only fields whose files exist"
        raise SheetError(text)
    log.warning("%s; %d of %d fields will be rejected", text, lacking, len(found))


def format_manifests(
    rows: Sequence[SheetRow],
    files: Sequence[Mapping[str, FoundFile]],
    shards: int,
    seed: int | None = None,
    planes: Mapping[str, str] | None = None,
    sources: Sequence[Mapping[str, FoundFile]] = (),
) -> dict[str, str]:
    """Return the text of the manifest and of the annotations of each shard that has fields, by file name.

    files: the result of ``find_files``; the state of a file that a rule makes is empty
    seed: that of simulated fields; labels and cell line, which determine them too, are then in the manifest as well
    planes: by colour, as text, what to read of each file; without it, files hold one image
    sources: per row, by colour, the file that is imported into the one in ``files``, and its state
    """
    planes = planes or {}
    kinds = [kind for kind in FILES if files and kind in files[0]]
    drawn = () if seed is None else ("labels", "cell_line")
    header = ["id", "pixel_size", "seed", *drawn, *kinds, *(f"{kind}_state" for kind in kinds)]
    header += [f"{colour}_plane" for colour in planes]
    imported = [colour for colour in COLOURS if any(colour in of_row for of_row in sources)]
    header += [f"{colour}_source{what}" for colour in imported for what in ("", "_state", "_plane")]
    of_shard: dict[str, list[int]] = {}
    for index in sorted(range(len(rows)), key=lambda index: rows[index].id):
        of_shard.setdefault(shard_of(rows[index].id, shards), []).append(index)
    texts = {}
    for name, indices in of_shard.items():
        table, annotations = [header], [["id", *ANNOTATIONS]]
        for index in indices:
            row, of_row, of_source = rows[index], files[index], sources[index] if sources else {}
            said = {"labels": "" if row.labels is None else format_labels(row.labels)}
            said |= {column: getattr(row, column) or "" for column in CARRIED}
            annotations.append([row.id, *said.values()])
            table.append(
                [
                    row.id,
                    repr(row.pixel_size),
                    "" if seed is None else str(seed),
                    *(said[column] for column in drawn),
                    *(of_row[kind].path for kind in kinds),
                    *(of_row[kind].state for kind in kinds),
                    *("" if colour in of_source else _plane(of_row[colour], plane) for colour, plane in planes.items()),
                    *(text for colour in imported for text in _source(of_source.get(colour), planes.get(colour, ""))),
                ]
            )
        texts[table_name("manifest", name)] = format_csv(table)
        texts[table_name("annotations", name)] = format_csv(annotations)
    return texts


def _plane(found: FoundFile, plane: str) -> str:
    return json.dumps(json.loads(plane) | {"others": found.others}) if found.others else plane


def _source(found: FoundFile | None, plane: str) -> tuple[str, str, str]:
    return ("", "", "") if found is None else (found.path, found.state, _plane(found, plane))


def format_csv(rows: Iterable[Iterable[str]]) -> str:
    """Return rows, the header first, as the text of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
