"""The scan: a collection's sheet and files become its manifests."""

import json
import math
import os
import re
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpaloc.classes import COLOURS, parse_labels
from hpaloc.config import training_collections
from hpaloc.delimited import SheetError, check_fields, read_delimited
from hpaloc.endings import is_imported
from hpaloc.files import atomic_path, spelled_as_on_disk, write_if_changed
from hpaloc.finding import find_files, format_csv, format_manifests, shard_of, shards_of, split_url, table_name
from hpaloc.ids import shown
from hpaloc.layout import PATTERNS, CollectionFiles
from hpaloc.manifests import CARRIED, SheetRow
from hpaloc.mask_tables import check_table
from hpaloc.rle import is_table
from hpaloc.sheet import NAMED, is_unknown, read_other_columns, read_sheet, warn_of_spellings
from hpaloc.truth import read_true_cells


def _placeholders(pattern: str, key: str, nested: str = "") -> list[str]:
    """Return the names between the braces of a pattern; SheetError naming ``key`` if there is more than a name.

    nested: the letters that no name has, since format() would take a part of the value there
    """
    try:
        parts = [part for part in string.Formatter().parse(pattern) if part[1] is not None]
    except ValueError as error:
        raise SheetError(f"{key}: {pattern!r} is not a pattern ({error})") from None
    for _, name, layout, conversion in parts:
        if layout or conversion or set(nested) & set(name or ""):
            raise SheetError(f"{key}: {pattern!r} has more than a name between the braces of {{{name}}}")
    return [name for _, name, _, _ in parts if name is not None]


def check_pattern(pattern: str, key: str, allowed: Sequence[str], needed: Sequence[str]) -> None:
    """Raise SheetError naming ``key`` if a file pattern has an unknown placeholder or lacks a needed one."""
    found = _placeholders(pattern, key)
    for name in sorted(set(found) - set(allowed)):
        known = ", ".join(f"{{{a}}}" for a in allowed)
        raise SheetError(f"{key}: {pattern!r} has the unknown placeholder {{{name}}} (known: {known})")
    for name in needed:
        if name not in found:
            hint = ", or the collection the key channels, if each file holds all colours" if name == "colour" else ""
            raise SheetError(f"{key}: {pattern!r} lacks the placeholder {{{name}}}{hint}")


@dataclass(frozen=True)
class Scan:
    """What was found of a collection.

    rows: its fields
    tables: {file name: text} of the tables that planning writes
    truth: {field: label sets of its true cells}, None without a table of true cells
    other_columns: the names of the columns that only the user uses
    without_values: those of them, and of antibody and cell_line, in which no field has a known value
    groups: {one of them that ``curation.group_by`` names: {field: its known value}}, of a collection that trains
    """

    rows: list[SheetRow]
    tables: dict[str, str]
    truth: dict[str, set[tuple[int, ...]]] | None = None
    other_columns: Sequence[str] = ()
    without_values: Collection[str] = ()
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def scan_collection(name: str, config: Mapping[str, Any]) -> Scan:
    """Read a collection's sheet and find its files, without writing anything.

    config: the completed configuration
    Raises SheetError naming the wrong row, key or files.
    """
    return with_columns(name, _scan_files(name, config), config)


def with_columns(name: str, scan: Scan, config: Mapping[str, Any]) -> Scan:
    """Return the scan of a collection with the columns of its sheet that only the user uses.

    Raises SheetError as ``read_delimited`` does.
    """
    collection, places = config["collections"][name], CollectionFiles(name)
    sheet = collection["sheet"].format(root=collection["root"])
    header, *rows = read_other_columns(sheet, collection["labels"]) or [["id"]]
    known = {
        column: {row[0]: row[at] for row in rows if row[at] and not is_unknown(row[at])}
        for at, column in enumerate(header)
        if at
    }
    tables, groups = dict(scan.tables), {}
    if known:
        tables[places.path("columns").name] = format_csv([header, *rows])
    if name in training_collections(config):
        groups = {column: values for column, values in known.items() if column in config["curation"]["group_by"]}
    for column, values in groups.items():
        warn_of_spellings(sheet, column, values.values())
    if groups:
        of_rows = ([row[0], *(values.get(row[0], "") for values in groups.values())] for row in rows)
        tables[places.path("groups").name] = format_csv([["id", *groups], *of_rows])
    without = {column for column in NAMED if all(getattr(row, column) is None for row in scan.rows)}
    without |= {column for column, values in known.items() if not values}
    return replace(scan, tables=tables, other_columns=header[1:], without_values=without, groups=groups)


def _scan_files(name: str, config: Mapping[str, Any]) -> Scan:
    collection = config["collections"][name]
    places = CollectionFiles(name)
    key = f"config key collections.{name}"
    root = collection["root"]
    check_pattern(collection["sheet"], f"{key}.sheet", ["root"], [])
    labelled = collection["labels"]
    # nan stands for the pixel size that the files say.
    pixel_size = math.nan if collection["pixel_size"] == "file" else collection["pixel_size"]
    rows = read_sheet(collection["sheet"].format(root=root), labelled, pixel_size)
    tables = {}
    if name in training_collections(config):
        for row in rows:
            if row.split not in (None, "train", "validation"):
                raise SheetError(
                    f"sheet {collection['sheet']} (ID {row.id}): split {row.split!r} is not train or validation"
                )
    if "simulate" in collection:
        made = []
        for row in rows:
            if not row.labels:
                raise SheetError(f"sheet {collection['sheet']} (ID {row.id}): its label cannot be simulated")
            into = places.path("simulated", shard_of(row.id, collection["shards"]))
            made.append({colour: (f"{into}/{row.id}_{colour}.png", "") for colour in COLOURS})
        return Scan(rows, format_manifests(rows, made, collection["shards"], config["seed"]))
    true_labels = None
    if "truth" in collection:
        check_pattern(collection["truth"]["masks"], f"{key}.truth.masks", ["root", "id"], ["id"])
        check_pattern(collection["truth"]["cells"], f"{key}.truth.cells", ["root"], [])
        true_cells = read_true_cells(collection["truth"]["cells"].format(root=root), labelled == "hpa2018")
        tables[places.path("true_states").name] = _truth_manifest(name, config, rows, true_cells)
        true_labels = {id: {parse_labels(labels) for labels in set(own.values())} for id, own in true_cells.items()}
    masks = _given_masks(name, config, rows) if config["segmentation"]["backend"] == "masks" else {}
    if "download" in collection:
        urls = download_urls(collection["sheet"].format(root=root), rows, collection["download"]["url"])
        # Masks from elsewhere exist already; files that will be downloaded are not looked for.
        fetched = find_files(rows, masks, {"root": root}, name, config["verify"], config["max_rejected_fraction"])
        for row, of_row, files_of_row in zip(rows, urls, fetched, strict=True):
            into = places.path("downloaded", shard_of(row.id, collection["shards"])).with_suffix("")
            # The address determines the file, and gives it its ending.
            for colour, url in of_row.items():
                files_of_row[colour] = (f"{into}/{row.id}_{colour}{_ending(url)}", url)
        return Scan(rows, format_manifests(rows, fetched, collection["shards"]) | tables, true_labels)
    channels = collection.get("channels")
    by_colour = [] if channels else ["colour"]
    for pattern in collection["images"]:
        check_pattern(pattern, f"{key}.images", ["root", "id", *by_colour], ["id", *by_colour])
    # A file with all colours is looked for once.
    patterns = dict.fromkeys(["image"] if channels else COLOURS, collection["images"]) | masks
    files = find_files(rows, patterns, {"root": root}, name, config["verify"], config["max_rejected_fraction"])
    if channels:
        files = [dict.fromkeys(COLOURS, of_row.pop("image")) | of_row for of_row in files]
    sources = [
        _to_import(row.id, of_row, places, collection["shards"]) for row, of_row in zip(rows, files, strict=True)
    ]
    texts = format_manifests(rows, files, collection["shards"], planes=_planes(collection), sources=sources)
    return Scan(rows, texts | tables, true_labels)


def _to_import(
    id: str, files: dict[str, tuple[str, str]], places: CollectionFiles, shards: int
) -> dict[str, tuple[str, str]]:
    """Return, by colour, the files of a field that are imported; ``files`` gets those that are made of them instead."""
    sources = {colour: files[colour] for colour in COLOURS if colour in files and is_imported(files[colour][0])}
    into = places.path("imported", shard_of(id, shards))
    files |= {colour: (f"{into}/{id}_{colour}.tif", "") for colour in sources}
    return sources


def _planes(collection: Mapping[str, Any]) -> dict[str, str]:
    """Return, by colour, what to read of each file of a collection, as a manifest has it; {} for files of one image."""
    chosen = {key: collection[key] for key in ("series", "time", "project") if key in collection}
    if "series" in chosen and not any(is_imported(pattern) for pattern in collection["images"]):
        # Snakemake reads the numbers of --config as text.
        chosen["series"] = int(chosen["series"])
    channels = collection.get("channels", {})
    own = {colour: ({"channel": channels[colour]} if channels else {}) | chosen for colour in COLOURS}
    return {colour: json.dumps(plane) for colour, plane in own.items() if plane}


def _given_masks(name: str, config: Mapping[str, Any], rows: Sequence[SheetRow]) -> dict[str, Sequence[str]]:
    """Check the patterns, and the tables, of the masks that a collection gives; return them by their kind."""
    collection = config["collections"][name]
    masks: dict[str, Sequence[str]] = {}
    for kind, of_kind in (("cell_mask", "cells"), ("nucleus_mask", "nuclei")):
        pattern = collection["masks"][of_kind]
        if pattern is None:
            continue
        masks[kind] = [pattern]
        # A table of run-length masks has many fields in one file.
        table = is_table(pattern)
        key = f"config key collections.{name}.masks.{of_kind}"
        check_pattern(pattern, key, ["root", "id"], [] if table else ["id"])
        if table and "{id}" not in pattern:
            path = spelled_as_on_disk(pattern.format(root=collection["root"]))
            # A missing table is a missing file of each field.
            if os.path.isfile(path):
                check_table(path, {row.id for row in rows}, name)
    return masks


def plan_collections(config: Mapping[str, Any]) -> dict[str, Scan]:
    """Scan the collections of a completed configuration and write their tables into ``results/sheet``.

    All collections are read before the first table is written, so a wrong sheet changes no table. It is done once in a
    process: a workflow that changes a rule of this one parses the rules again.

    Returns the scans by collection, without the texts of their tables.
    Raises SheetError naming the wrong row, key or files.
    """
    return _planned(os.getcwd(), json.dumps(config))


@cache
def _planned(working_folder: str, config: str) -> dict[str, Scan]:
    completed = json.loads(config)
    scans = {name: scan_collection(name, completed) for name in completed["collections"]}
    for name, scan in scans.items():
        write_scan(scan, CollectionFiles(name).path("true_states").parent)
    return {name: replace(scan, tables={}) for name, scan in scans.items()}


# The tables that this process replaced: the content of each before, and its times of access and change in ns; None if
# there was no table.
_REPLACED: dict[Path, tuple[bytes, tuple[int, int]] | None] = {}


def write_scan(scan: Scan, folder: str | os.PathLike[str]) -> list[str]:
    """Write the tables of a scan into ``folder``, each only if its content changed; see ``restore_tables``.

    Manifests and annotations of shards that no longer have fields are removed, and so are tables of columns that the
    sheet no longer has.

    Returns the names of the shards that have fields.
    """
    folder = Path(folder)
    shards = shards_of(folder)
    gone = {table_name(kind, shard) for kind in ("manifest", "annotations") for shard in shards}
    gone = (gone | {Path(PATTERNS[kind]).name for kind in ("columns", "groups")}) - set(scan.tables)
    for path in sorted(folder / name for name in {*scan.tables, *gone}):
        text = scan.tables.get(path.name)
        before = path.read_bytes() if path.is_file() else None
        if before == (None if text is None else text.encode()):
            continue
        if before is None:
            _REPLACED.setdefault(path, None)
        else:
            status = path.stat()
            _REPLACED.setdefault(path, (before, (status.st_atime_ns, status.st_mtime_ns)))
        if text is None:
            path.unlink()
        else:
            write_if_changed(path, text)
    return shards_of(folder)


def restore_tables() -> None:
    """Restore the tables that this process changed by ``write_scan``, with their times, and remove the new ones.

    Raises OSError of the last table that could not be restored, after the others were.
    """
    failed = None
    for path, before in _REPLACED.items():
        try:
            _restore(path, before)
        except OSError as error:
            failed = error
    _REPLACED.clear()
    if failed is not None:
        raise failed


def _restore(path: Path, before: tuple[bytes, tuple[int, int]] | None) -> None:
    if before is not None:
        content, times = before
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        os.utime(path, ns=times)
        return
    path.unlink(missing_ok=True)
    # Also the folder of a new collection, and the folders above in a new run.
    for folder in path.parents:
        try:
            folder.rmdir()
        except OSError:
            break


def _truth_manifest(
    name: str, config: Mapping[str, Any], rows: Sequence[SheetRow], known: Mapping[str, Mapping[int, str]]
) -> str:
    """Check the true cells (``known``) of a collection and return the text of truth.csv: true masks and states."""
    collection = config["collections"][name]
    path = collection["truth"]["cells"].format(root=collection["root"])
    check_fields(f"truth {path}", known, {row.id for row in rows}, name)
    true_rows = [row for row in rows if row.id in known]
    pattern = {"truth": [collection["truth"]["masks"]]}
    found = find_files(true_rows, pattern, {"root": collection["root"]}, name, config["verify"])
    masks = sorted((row.id, *files["truth"]) for row, files in zip(true_rows, found, strict=True))
    return format_csv([("id", "mask", "state"), *masks])


def _ending(url: str) -> str:
    name = url.split("?", 1)[0].rsplit("/", 1)[-1].lower()
    return next(
        (ending for ending in (".tif.gz", ".tiff", ".tif", ".png", ".jpeg", ".jpg") if name.endswith(ending)), ""
    )


def _address(url: str) -> tuple[str, ...]:
    """Return the parts of an address that a server sees; ValueError if it is none, has a user name or a bad port."""
    parts = split_url(url)
    if re.search(r"[@\\\s]", parts.netloc):
        raise ValueError(url)
    return parts.scheme, str(parts.hostname), str(parts.port), parts.path, parts.query


def download_urls(path: str | os.PathLike[str], rows: Sequence[SheetRow], pattern: str) -> list[dict[str, str]]:
    """Return the address of each channel file of each field: {colour: URL}, in the order of ``rows``.

    path: the sheet; a column ``url_red`` (and so on) gives the address, otherwise ``pattern`` does
    pattern: address with ``{colour}``, ``{id}``, columns of the sheet such as ``{antibody}`` and ``{image}``, and
    ``{antibody_number}``, the antibody's number without letters and leading zeros (89 for HPA000089), as in the folder
    names of the public images; values are quoted
    Raises SheetError naming the pattern if it is not one, or the sheet, the ID and what is missing, is not an https
    address, or is the address of another channel or field.
    """
    name = os.fspath(path)
    lacking = [key for key in _placeholders(pattern, "download.url", nested=".[") if key != "colour"]
    for key in lacking:
        if not key or key.isdigit():
            raise SheetError(f"download.url: {pattern!r} has {{{key}}}, which does not name a column")
    named = dict.fromkeys(["antibody", *(key for key in lacking if key not in ("ID", "id", "antibody_number"))])
    given = [f"url_{colour}" for colour in COLOURS]
    # The first reading of the sheet has already warned about its usual columns.
    table = read_delimited(path, "sheet", ["ID"], given, [*named], told=("ID", *CARRIED))
    cells_of = {cells["ID"]: cells for _, cells in table}
    found = []
    owners: dict[tuple[str, ...], tuple[str, str]] = {}
    for row in rows:
        here = f"sheet {name} (ID {row.id})"
        cells = cells_of[row.id]
        cells |= {column: "" for column in NAMED if is_unknown(cells.get(column, ""))}
        number = re.search(r"(?<![0-9])[0-9]+\Z", cells["antibody"]) if "antibody" in cells else None
        values = {column: quote(value, safe="") for column, value in cells.items() if column not in given}
        values |= {"id": quote(row.id, safe=""), "antibody_number": (number[0].lstrip("0") or "0") if number else ""}
        of_row = {}
        for colour in COLOURS:
            url = cells.get(f"url_{colour}")
            if not url:
                for key in lacking:
                    if key not in values:
                        raise SheetError(f"{here}: {pattern!r} needs {key!r}, but the sheet has no such column")
                    if not values[key]:
                        raise SheetError(f"{here}: {key} is empty, but {pattern!r} needs it")
                url = pattern.format(**(values | {"colour": colour}))
            try:
                address = _address(url)
            except ValueError:
                raise SheetError(f"{here}: {url!r} is not an https address") from None
            id, other = owners.setdefault(address, (row.id, colour))
            if (id, other) != (row.id, colour):
                of = "" if id == row.id else f" of ID {shown(id)}"
                raise SheetError(f"{here}: {colour} has the same address as {other}{of}, {url!r}; give each its own")
            of_row[colour] = url
        found.append(of_row)
    return found
