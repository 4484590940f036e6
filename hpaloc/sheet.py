"""Sheets of fields, their stable shards, and the manifests by which a workflow engine sees what changed."""

import csv
import glob
import hashlib
import io
import logging
import math
import os
import re
import stat
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpaloc.classes import COLOURS, format_labels, parse_labels
from hpaloc.files import digest, write_if_changed

log = logging.getLogger("hpaloc")

_FILES = (*COLOURS, "cell_mask", "nucleus_mask")
_CARRIED = ("antibody", "cell_line", "split")


# What stands in a manifest for the size and time of a file that is not there.
MISSING = "missing"


class SheetError(ValueError):
    """A sheet or its files are not as the configuration says; the message names the row, key or file."""


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One field as the sheet has it; ``labels`` is None where the collection carries none."""

    id: str
    labels: tuple[int, ...] | None
    pixel_size: float
    antibody: str | None = None
    cell_line: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestRow(SheetRow):
    """One field of a shard with its files: ``paths`` by colour, masks for the backend `masks`, or a seed.

    ``urls`` by colour, where the files are downloaded.
    """

    paths: dict[str, str] = field(default_factory=dict)
    cell_mask: str | None = None
    nucleus_mask: str | None = None
    seed: int | None = None
    urls: dict[str, str] = field(default_factory=dict)


def shard_of(id: str, shards: int) -> int:
    """Return the shard (0 to ``shards`` - 1) of a field id.

    The shard depends on the id alone (blake2b, 8 bytes, modulo ``shards``), so that adding or removing one field
    touches one shard, on every machine and in every session.
    """
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "big") % shards


def shard_name(shard: int) -> str:
    """Return the folder name of a shard: at least three digits, so that names sort as numbers."""
    return f"{shard:03d}"


def check_id(id: str) -> None:
    """Raise ValueError with the reason where a field id cannot serve as the start of a file name."""
    if not id:
        raise ValueError("the ID is empty")
    if id.startswith(".") or "/" in id or "\\" in id or not id.isprintable():
        raise ValueError(f"the ID {id!r} cannot be a file name (slash, leading dot or control character)")
    if len(id.encode()) > 200:
        raise ValueError(f"the ID {id[:40]!r}… is longer than 200 bytes")


def delimiter(text: str) -> str:
    """Return what divides the columns of a CSV's header: comma, semicolon or tab, the first of them that is there."""
    header = text.split("\n", 1)[0]
    return next((mark for mark in ",;\t" if mark in header), ",")


def _said(error: csv.Error) -> str:
    # The message names the delimiter as it is.
    return str(error).replace("\t", "tab")


def read_sheet(path: str | os.PathLike[str], labels: bool, pixel_size: float = 0.08) -> list[SheetRow]:
    """Read a sheet of fields.

    A CSV with a column ``ID`` and, where ``labels``, ``Label`` (class indices joined by ``|``); ``antibody``,
    ``cell_line``, ``split`` and ``pixel_size`` (µm) are read where present, other columns are left alone. A
    byte-order mark, semicolons or tabs for commas, any line ending and blank lines are accepted. ``pixel_size`` is the
    value for rows without one. Raises SheetError naming the file and the line of a missing or repeated column, an
    empty, repeated or unusable ID, an unknown label or a pixel size that is no positive number.
    """
    name = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SheetError(f"sheet {name}: no such file") from None
    except OSError as error:
        raise SheetError(f"sheet {name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise SheetError(f"sheet {name}: is no UTF-8 text (byte {error.start}); save it as CSV UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter(text), strict=True)
    try:
        columns = [column.strip() for column in reader.fieldnames or []]
    except csv.Error as error:
        raise SheetError(f"sheet {name}, line 1: {_said(error)}") from None
    reader.fieldnames = columns
    for column in ("ID", *(("Label",) if labels else ())):
        if column not in columns:
            has = ", ".join(each if each.isprintable() else repr(each) for each in columns) or "nothing"
            raise SheetError(f"sheet {name}: has no column {column} (its header has {has})")
    for column in ("ID", "Label", "pixel_size", *_CARRIED):
        if columns.count(column) > 1:
            raise SheetError(f"sheet {name}: has {columns.count(column)} columns {column}")
    rows: list[SheetRow] = []
    line_of: dict[str, int] = {}
    try:
        for cells in reader:
            here = f"sheet {name}, line {reader.line_num}"
            if not any(isinstance(value, str) and value.strip() for value in cells.values()):
                continue
            # A column without a name, such as the index that pandas writes, is one that is left alone.
            if None in cells or None in cells.values():
                raise SheetError(f"{here}: does not have {len(columns)} columns as the header has")
            id = cells["ID"].strip()
            try:
                check_id(id)
                if id in line_of:
                    raise ValueError(f"ID {id} stands already in line {line_of[id]}")
                row_labels = parse_labels(cells["Label"]) if labels else None
            except ValueError as error:
                # As it stands in the file, unless it would break the line or write to the terminal.
                shown = id if id.isprintable() else repr(id)
                of_id = f" (ID {shown if len(shown) <= 80 else shown[:40] + '…'})" if id else ""
                raise SheetError(f"{here}{of_id}: {error}") from None
            line_of[id] = reader.line_num
            size = cells.get("pixel_size", "").strip()
            try:
                row_pixel_size = float(size) if size else pixel_size
                if not 0 < row_pixel_size < float("inf"):
                    raise ValueError
            except ValueError:
                raise SheetError(f"{here} (ID {id}): pixel_size {size!r} is no positive number of µm") from None
            carried = {column: cells[column].strip() or None for column in _CARRIED if column in cells}
            rows.append(SheetRow(id, row_labels, row_pixel_size, **carried))
    except csv.Error as error:
        # The reader counts as far as the last row that could be read.
        raise SheetError(f"sheet {name}, line {reader.line_num + 1}: {_said(error)}") from None
    if not rows:
        raise SheetError(f"sheet {name}: holds no field")
    return rows


def check_pattern(pattern: str, key: str, allowed: Sequence[str], needed: Sequence[str]) -> None:
    """Raise SheetError naming ``key`` where a file pattern has an unknown placeholder or lacks a needed one."""
    try:
        parts = [part for part in string.Formatter().parse(pattern) if part[1] is not None]
        found = {name for _, name, _, _ in parts if name is not None}
    except ValueError as error:
        raise SheetError(f"{key}: {pattern!r} is no file pattern ({error})") from None
    for name in sorted(found - set(allowed)):
        known = ", ".join(f"{{{a}}}" for a in allowed)
        raise SheetError(f"{key}: {pattern!r} has the unknown placeholder {{{name}}} (known: {known})")
    for _, placed, layout, conversion in parts:
        if layout or conversion:
            raise SheetError(f"{key}: {pattern!r} has more than a name between the braces of {{{placed}}}")
    for name in needed:
        if name not in found:
            raise SheetError(f"{key}: {pattern!r} lacks the placeholder {{{name}}}")


class Folders:
    """Sizes and times of files; the names in a folder are listed once, so that asking for an absent file is free."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def stat(self, path: str) -> os.stat_result | None:
        """Return the stat of a regular file, or None where there is none; SheetError for a folder that is closed."""
        folder, slash, name = path.rpartition("/")
        names = self._names.get(folder)
        if names is None:
            try:
                names = frozenset(os.listdir(folder or slash or "."))
            except (FileNotFoundError, NotADirectoryError):
                names = frozenset()
            except OSError as error:
                raise SheetError(f"{folder or slash or '.'}: the folder cannot be listed ({error.strerror})") from None
            self._names[folder] = names
        if name not in names:
            return None
        try:
            found = os.stat(path)
        except OSError:
            # Gone meanwhile, or a link in a circle.
            return None
        return found if stat.S_ISREG(found.st_mode) else None


def _state(path: str, folders: Folders, verify: str) -> str | None:
    """Return what stands for a file's content in a manifest, ``size:time`` or a digest; None if it is absent."""
    found = folders.stat(path)
    if found is None:
        return None
    return digest(path) if verify == "content" else f"{found.st_size}:{found.st_mtime_ns}"


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
                state = state_of(path)
                if state is not None:
                    files[kind] = (path, state)
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


def write_manifests(
    folder: str | os.PathLike[str],
    rows: Sequence[SheetRow],
    files: Sequence[Mapping[str, tuple[str, str]]],
    shards: int,
    seed: int | None = None,
) -> list[str]:
    """Write one manifest a shard, each only where its content changed, and remove those of shards without fields.

    ``files`` is the result of find_files; for files that a rule makes, the state in it is empty and ``seed`` is
    what determines them. Returns the names of the shards that hold fields.
    """
    folder = Path(folder)
    kinds = [kind for kind in _FILES if files and kind in files[0]]
    header = ["id", "labels", "pixel_size", *_CARRIED, "seed", *kinds, *(f"{kind}_state" for kind in kinds)]
    of_shard: dict[str, list[int]] = {}
    for index in sorted(range(len(rows)), key=lambda index: rows[index].id):
        of_shard.setdefault(shard_name(shard_of(rows[index].id, shards)), []).append(index)
    for name, indices in of_shard.items():
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        for row, of_row in ((rows[index], files[index]) for index in indices):
            writer.writerow(
                [
                    row.id,
                    "" if row.labels is None else format_labels(row.labels),
                    repr(row.pixel_size),
                    *(getattr(row, column) or "" for column in _CARRIED),
                    "" if seed is None else seed,
                    *(of_row[kind][0] for kind in kinds),
                    *(of_row[kind][1] for kind in kinds),
                ]
            )
        write_if_changed(folder / f"{name}.csv", text.getvalue())
    for name in set(shards_of(folder)) - set(of_shard):
        (folder / f"{name}.csv").unlink()
    return sorted(of_shard, key=int)


def shards_of(folder: str | os.PathLike[str]) -> list[str]:
    """Return the names of the shards whose manifests stand in ``folder``, in order."""
    names = (Path(path).stem for path in glob.glob(os.path.join(glob.escape(os.fspath(folder)), "*.csv")))
    return sorted((name for name in names if name.isdigit()), key=int)


def read_manifest(path: str | os.PathLike[str]) -> list[ManifestRow]:
    """Read a shard's manifest; rows are sorted by id. Raises SheetError naming the file if it is no manifest."""
    rows = []
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"id", "labels", "pixel_size"} <= set(reader.fieldnames or []):
            raise SheetError(f"{os.fspath(path)}: is no manifest of a shard")
        for cells in reader:
            rows.append(
                ManifestRow(
                    id=cells["id"],
                    labels=parse_labels(cells["labels"]) if cells["labels"] else None,
                    pixel_size=float(cells["pixel_size"]),
                    antibody=cells["antibody"] or None,
                    cell_line=cells["cell_line"] or None,
                    split=cells["split"] or None,
                    paths={colour: cells[colour] for colour in COLOURS if colour in cells},
                    cell_mask=cells.get("cell_mask") or None,
                    nucleus_mask=cells.get("nucleus_mask") or None,
                    seed=int(cells["seed"]) if cells["seed"] else None,
                    urls={colour: url for colour in COLOURS if "://" in (url := cells.get(f"{colour}_state") or "")},
                )
            )
    return rows


def read_manifests(paths: Iterable[str | os.PathLike[str]]) -> list[ManifestRow]:
    """Read several shards' manifests into one list, sorted by id."""
    return sorted((row for path in paths for row in read_manifest(path)), key=lambda row: row.id)


def scan_collection(
    name: str, config: Mapping[str, Any], folder: str | os.PathLike[str] = "results/sheet"
) -> list[str]:
    """Read a collection's sheet, find its files and write its manifests below ``folder``.

    ``config`` is the completed configuration. Returns the names of the shards that hold fields. Raises SheetError
    naming the row, key or files at fault.
    """
    collection = config["collections"][name]
    key = f"config key collections.{name}"
    root = collection["root"]
    check_pattern(collection["sheet"], f"{key}.sheet", ["root"], [])
    labelled = collection["labels"]
    rows = read_sheet(collection["sheet"].format(root=root), labelled, collection["pixel_size"])
    of_collection = Path(folder) / name
    pretraining = config["train"]["pretraining"]
    if name in (config["train"]["collection"], pretraining and pretraining["collection"]):
        for row in rows:
            if row.split not in (None, "train", "validation"):
                raise SheetError(
                    f"sheet {collection['sheet']} (ID {row.id}): split {row.split!r} is not train or validation"
                )
    if "simulate" in collection:
        made = []
        for row in rows:
            into = simulated_folder(name, shard_name(shard_of(row.id, collection["shards"])))
            made.append({colour: (f"{into}/{row.id}_{colour}.png", "") for colour in COLOURS})
        return write_manifests(of_collection, rows, made, collection["shards"], config["seed"])
    if "truth" in collection:
        check_pattern(collection["truth"]["masks"], f"{key}.truth.masks", ["root", "id"], ["id"])
        check_pattern(collection["truth"]["cells"], f"{key}.truth.cells", ["root"], [])
        _write_truth_manifest(name, config, rows, of_collection)
    masks: dict[str, Sequence[str]] = {}
    if config["segmentation"]["backend"] == "masks":
        for kind, of_kind in (("cell_mask", "cells"), ("nucleus_mask", "nuclei")):
            pattern = collection["masks"][of_kind]
            if pattern is not None:
                # A table of run-length masks holds many fields in one file.
                table = pattern.endswith((".csv", ".parquet"))
                check_pattern(pattern, f"{key}.masks.{of_kind}", ["root", "id"], [] if table else ["id"])
                masks[kind] = [pattern]
    if "download" in collection:
        urls = download_urls(collection["sheet"].format(root=root), rows, collection["download"]["url"])
        # Masks made elsewhere are there already; what is fetched is not looked for.
        fetched = find_files(rows, masks, {"root": root}, name, config["verify"], config["max_rejected_fraction"])
        for row, of_row, files_of_row in zip(rows, urls, fetched, strict=True):
            into = downloaded_folder(name, shard_name(shard_of(row.id, collection["shards"])))
            # What determines the file is its address; when it is fetched it shall have the ending that it has there.
            for colour, url in of_row.items():
                files_of_row[colour] = (f"{into}/{row.id}_{colour}{_ending(url)}", url)
        return write_manifests(of_collection, rows, fetched, collection["shards"])
    for pattern in collection["images"]:
        check_pattern(pattern, f"{key}.images", ["root", "id", "colour"], ["id", "colour"])
    patterns = dict.fromkeys(COLOURS, collection["images"]) | masks
    files = find_files(rows, patterns, {"root": root}, name, config["verify"], config["max_rejected_fraction"])
    return write_manifests(of_collection, rows, files, collection["shards"])


def _write_truth_manifest(name: str, config: Mapping[str, Any], rows: Sequence[SheetRow], folder: Path) -> None:
    """Check the truth per cell of a collection and write ``truth.csv``: the true mask of each field and its state."""
    collection = config["collections"][name]
    path = collection["truth"]["cells"].format(root=collection["root"])
    known: dict[str, set[int]] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lacking = {"ID", "cell", "Label"} - set(reader.fieldnames or [])
            if lacking:
                raise SheetError(f"truth {path}: has no column {min(lacking)}")
            for cells in reader:
                cell = cells["cell"] or ""
                try:
                    parse_labels(cells["Label"])
                    if not (cell.isascii() and cell.isdigit() and int(cell) > 0):
                        raise ValueError(f"cell {cell!r} is no positive integer")
                    if int(cell) in known.setdefault(cells["ID"], set()):
                        raise ValueError(f"cell {cell} stands twice")
                except ValueError as error:
                    raise SheetError(f"truth {path}, line {reader.line_num} (ID {cells['ID']}): {error}") from None
                known[cells["ID"]].add(int(cell))
    except UnicodeDecodeError as error:
        raise SheetError(f"truth {path}: is no UTF-8 text (byte {error.start}); save it as CSV UTF-8") from None
    except csv.Error as error:
        raise SheetError(f"truth {path}, line {reader.line_num + 1}: {_said(error)}") from None
    except FileNotFoundError:
        raise SheetError(f"config key collections.{name}.truth.cells: {path}: no such file") from None
    true_rows = [row for row in rows if row.id in known]
    if not true_rows:
        log.warning("truth %s: none of its fields stands in the sheet of collection %s", path, name)
    pattern = {"truth": [collection["truth"]["masks"]]}
    found = find_files(true_rows, pattern, {"root": collection["root"]}, name, config["verify"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "mask", "state"])
    writer.writerows(sorted((row.id, *files["truth"]) for row, files in zip(true_rows, found, strict=True)))
    write_if_changed(folder / "truth.csv", text.getvalue())


def simulated_folder(collection: str, shard: str) -> str:
    """Return the folder of the simulated files of one shard."""
    return f"resources/simulated/{collection}/{shard}"


def downloaded_folder(collection: str, shard: str) -> str:
    """Return the folder of the downloaded files of one shard."""
    return f"resources/downloaded/{collection}/{shard}"


def _ending(url: str) -> str:
    name = url.split("?", 1)[0].rsplit("/", 1)[-1].lower()
    return next(
        (ending for ending in (".tif.gz", ".tiff", ".tif", ".png", ".jpeg", ".jpg") if name.endswith(ending)), ""
    )


def download_urls(path: str | os.PathLike[str], rows: Sequence[SheetRow], pattern: str) -> list[dict[str, str]]:
    """Return the address of each channel file of each field: {colour: URL}, in the order of ``rows``.

    A column ``url_red`` (and so on) of the sheet gives it outright. Elsewhere ``pattern`` is filled in: ``{colour}``,
    ``{id}``, any column of the sheet such as ``{antibody}`` and ``{image}``, and ``{antibody_number}``, the number of
    an antibody without letters and leading zeros (HPA000089 is 89), as the folders of the public images are named;
    values are quoted. Raises SheetError naming the sheet, the ID and what is lacking or is no https address.
    """
    name = os.fspath(path)
    with open(path, newline="", encoding="utf-8-sig") as file:
        text = file.read()
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter(text))
    reader.fieldnames = [column.strip() for column in reader.fieldnames or []]
    cells_of = {cells["ID"].strip(): cells for cells in reader if (cells.get("ID") or "").strip()}
    found = []
    for row in rows:
        cells = {column: (value or "").strip() for column, value in cells_of[row.id].items() if isinstance(column, str)}
        number = re.search(r"(\d+)$", cells.get("antibody", ""))
        values = {column: quote(value, safe="") for column, value in cells.items()}
        values |= {"id": quote(row.id, safe=""), "antibody_number": str(int(number[1])) if number else ""}
        of_row = {}
        for colour in COLOURS:
            here = f"sheet {name} (ID {row.id})"
            try:
                url = cells.get(f"url_{colour}") or pattern.format(**(values | {"colour": colour}))
            except (KeyError, IndexError, ValueError) as error:
                raise SheetError(f"{here}: {pattern!r} needs {error}, which the sheet has no column of") from None
            lacking = [key for _, key, _, _ in string.Formatter().parse(pattern) if key and key != "colour"]
            if not cells.get(f"url_{colour}"):
                for key in lacking:
                    if not values.get(key):
                        raise SheetError(f"{here}: {key} is empty, which {pattern!r} needs")
            if not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
                raise SheetError(f"{here}: {url!r} is no https address")
            of_row[colour] = url
        found.append(of_row)
    return found


def summary_lines(summary: str | os.PathLike[str], rejected: str | os.PathLike[str], at_most: int = 10) -> list[str]:
    """Return the files of tables.summarise and tables.list_rejected as sentences, ``at_most`` reasons a collection."""
    with open(rejected, newline="", encoding="utf-8") as file:
        reasons = list(csv.DictReader(file))
    lines = []
    with open(summary, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            predicted = f", {row['cells_predicted']} predicted" if row["cells_predicted"] else ""
            lines.append(
                f"{row['collection']}: {row['fields']} fields in, {row['fields_through']} through "
                f"({row['fields_warned']} with a warning), {row['fields_rejected']} rejected; "
                f"{row['cells']} cells found{predicted}"
            )
            own = [one for one in reasons if one["collection"] == row["collection"]]
            lines += [f"  rejected {one['field']} ({one['stage']}): {one['reason']}" for one in own[:at_most]]
            if len(own) > at_most:
                lines.append(f"  and {len(own) - at_most} more, all in {os.fspath(rejected)}")
    return lines
