"""The scan: a collection's sheet and files become its manifests."""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hpaloc.addresses import split_url
from hpaloc.classes import COLOURS, parse_labels
from hpaloc.config import colours_of, curation_of, has_crop_table, named_channels, training_collections
from hpaloc.crop_tables import read_crop_table
from hpaloc.delimited import SheetError, check_fields, read_delimited
from hpaloc.endings import is_imported
from hpaloc.files import atomic_path, write_if_changed
from hpaloc.finding import (
    ALL,
    Files,
    FoundFile,
    Wanted,
    check_missing,
    find_files,
    format_csv,
    format_manifests,
    shard_of,
    shards_of,
    table_name,
)
from hpaloc.ids import shown
from hpaloc.layout import PATTERNS, CollectionFiles
from hpaloc.listing import (
    Fields,
    check_own_files,
    check_placeholders,
    found_fields,
    given_masks,
    listed_fields,
    pattern_of_labels,
    table_of,
    wanted_images,
)
from hpaloc.manifests import CARRIED, SheetRow
from hpaloc.mask_tables import check_table
from hpaloc.patterns.folders import Folders
from hpaloc.patterns.pattern import CHANNEL, CHOSEN, names_between_braces
from hpaloc.sheet import NAMED, read_other_columns, warn_of_spellings
from hpaloc.truth import read_true_cells
from hpaloc.unknown_values import is_unknown


@dataclass(frozen=True)
class Scan:
    """What was found of a collection.

    rows: its fields
    tables: {file name: text} of the tables that planning writes
    truth: {field: label sets of its true cells}, None without a table of true cells
    other_columns: the names of the columns that only the user uses
    without_values: those of them, and of antibody and cell_line, in which no field has a known value
    groups: {one of them that ``group_by`` of its curation names: {field: its known value}}, of a collection that trains
    """

    rows: list[SheetRow]
    tables: dict[str, str]
    truth: dict[str, set[tuple[int, ...]]] | None = None
    other_columns: Sequence[str] = ()
    without_values: Collection[str] = ()
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def scan_collection(name: str, config: Mapping[str, Any]) -> Scan:
    """Read a collection's sheet and find its files, or find the fields that its files have, without writing anything.

    config: the completed configuration
    Raises SheetError naming the wrong row, key or files.
    """
    collection = config["collections"][name]
    if has_crop_table(collection):
        return _scan_crops(name, config)
    images = wanted_images(name, collection) if "images" in collection else {}
    given = config["segmentation"]["backend"] == "masks" and not collection.get("crops")
    masks = given_masks(name, collection) if given else {}
    truth = {"truth": Wanted([pattern_of_labels(name, collection, "truth", "masks")])} if "truth" in collection else {}
    others = [pattern for of_kind in (*masks.values(), *truth.values()) for pattern in of_kind.patterns]
    if "sheet" in collection:
        of_images = [pattern for of_kind in images.values() for pattern in of_kind.patterns]
        fields = listed_fields(name, collection, [*of_images, *others])
    else:
        fields = found_fields(name, config, images, others)
    return with_columns(name, _scan_files(name, config, fields, images, masks, truth), config, fields.columns)


def _scan_crops(name: str, config: Mapping[str, Any]) -> Scan:
    """Read a collection's table of ready-made crops and find their files."""
    collection = config["collections"][name]
    check_placeholders(collection["crops"], f"config key collections.{name}.crops", ["root"])
    for part, path in collection.get("antibodies", {}).items():
        check_placeholders(path, f"config key collections.{name}.antibodies.{part}", ["root"])
    crops = read_crop_table(name, collection, config["verify"], config["max_rejected_fraction"])
    texts = format_manifests(crops.rows, crops.files, collection["shards"], planes=crops.planes)
    return with_columns(name, Scan(crops.rows, texts), config, crops.columns)


def with_columns(
    name: str, scan: Scan, config: Mapping[str, Any], columns: Sequence[Sequence[str]] | None = None
) -> Scan:
    """Return the scan of a collection with the columns of its sheet that only the user uses.

    columns: those of a collection without a sheet, in the form of ``sheet.read_other_columns``
    Raises SheetError as ``read_delimited`` does.
    """
    collection, places = config["collections"][name], CollectionFiles(name)
    if columns is None:
        columns = read_other_columns(collection["sheet"].format(root=collection["root"]), collection["labels"])
    header, *rows = columns or [["id"]]
    known = {
        column: {row[0]: row[at] for row in rows if row[at] and not is_unknown(row[at])}
        for at, column in enumerate(header)
        if at
    }
    tables, groups = dict(scan.tables), {}
    if known:
        tables[places.path("columns").name] = format_csv([header, *rows])
    if name in training_collections(config):
        group_by = curation_of(config, name)[1]["group_by"]
        groups = {column: values for column, values in known.items() if column in group_by}
    for column, values in groups.items():
        warn_of_spellings(table_of(name, collection), column, values.values())
    if groups:
        of_rows = ([row[0], *(values.get(row[0], "") for values in groups.values())] for row in rows)
        tables[places.path("groups").name] = format_csv([["id", *groups], *of_rows])
    without = {column for column in NAMED if all(getattr(row, column) is None for row in scan.rows)}
    without |= {column for column, values in known.items() if not values}
    return replace(scan, tables=tables, other_columns=header[1:], without_values=without, groups=groups)


def _scan_files(
    name: str,
    config: Mapping[str, Any],
    fields: Fields,
    images: dict[str, Wanted],
    masks: dict[str, Wanted],
    truth: dict[str, Wanted],
) -> Scan:
    collection = config["collections"][name]
    rows, colours, shards = fields.rows, colours_of(collection), collection["shards"]
    if name in training_collections(config):
        _check_parts(name, collection, rows)
    if "simulate" in collection:
        return Scan(rows, format_manifests(rows, _to_simulate(name, collection, rows), shards, config["seed"]))
    tables, true_labels = _scan_truth(name, config, fields, truth) if truth else ({}, None)
    ids = [row.id for row in rows]
    for pattern in (pattern for of_kind in masks.values() for pattern in of_kind.patterns):
        # A missing table is a missing file of each field.
        if not pattern.names and (table := pattern.find({}, Folders())) is not None:
            check_table(table[0], set(ids), name)
    # Masks from elsewhere exist already. Images that will be downloaded are not looked for, and some are found already.
    known = fields.files or [{}] * len(ids)
    wanted = masks if fields.files or "download" in collection else images | masks
    found = find_files(ids, wanted, fields.parts, config["verify"])
    files = [{**of_images, **others} for of_images, others in zip(known, found, strict=True)]
    check_missing(files, name, config["max_rejected_fraction"], "sheet" in collection)
    if "download" in collection:
        downloaded = _to_download(name, collection, rows)
        files = [of_row | made for of_row, made in zip(files, downloaded, strict=True)]
        return Scan(rows, format_manifests(rows, files, shards) | tables, true_labels)
    check_own_files(name, ids, images, files)
    if ALL in images:
        # A file with all colours is looked for once.
        files = [dict.fromkeys(colours, of_row.pop(ALL)) | of_row for of_row in files]
    imported = [_to_import(name, collection, row, of_row) for row, of_row in zip(rows, files, strict=True)]
    sources = [{colour: of_row[colour] for colour in made} for of_row, made in zip(files, imported, strict=True)]
    files = [of_row | made for of_row, made in zip(files, imported, strict=True)]
    texts = format_manifests(rows, files, shards, planes=_planes(collection, images), sources=sources)
    return Scan(rows, texts | tables, true_labels)


def _check_parts(name: str, collection: Mapping[str, Any], rows: Sequence[SheetRow]) -> None:
    """Raise SheetError if a sheet puts a field into a part that is neither that of training nor that of validation."""
    for row in rows:
        if row.split not in (None, "train", "validation"):
            here = f"{table_of(name, collection)} (ID {row.id})"
            raise SheetError(f"{here}: split {row.split!r} is not train or validation")


def _made(name: str, collection: Mapping[str, Any], kind: str, row: SheetRow) -> str:
    """Return how the paths of the files of a field begin that a rule makes, one of each colour."""
    folder = CollectionFiles(name).path(kind, shard_of(row.id, collection["shards"]))
    return f"{folder.with_suffix('')}/{row.id}"


def _to_simulate(name: str, collection: Mapping[str, Any], rows: Sequence[SheetRow]) -> list[Files]:
    """Return the files of each field that the rule simulate makes; SheetError for a field that it cannot draw."""
    for row in rows:
        if not row.labels:
            raise SheetError(f"sheet {collection['sheet']} (ID {row.id}): its label cannot be simulated")
    starts = [_made(name, collection, "simulated", row) for row in rows]
    return [{colour: FoundFile(f"{start}_{colour}.png", "") for colour in colours_of(collection)} for start in starts]


def _to_download(name: str, collection: Mapping[str, Any], rows: Sequence[SheetRow]) -> list[Files]:
    """Return the files of each field that the rule download makes; their states are their addresses."""
    path = collection["sheet"].format(root=collection["root"])
    urls = download_urls(path, rows, collection["download"]["url"], colours_of(collection))
    starts = [_made(name, collection, "downloaded", row) for row in rows]
    # The address determines the file, and gives it its ending.
    return [
        {colour: FoundFile(f"{start}_{colour}{_ending(url)}", url) for colour, url in of_row.items()}
        for start, of_row in zip(starts, urls, strict=True)
    ]


def _to_import(name: str, collection: Mapping[str, Any], row: SheetRow, files: Files) -> Files:
    """Return the files of a field that the rule import_images makes, each of the one in ``files``."""
    start = _made(name, collection, "imported", row)
    imported = [colour for colour in colours_of(collection) if is_imported(files[colour].path)]
    return {colour: FoundFile(f"{start}_{colour}.tif", "") for colour in imported}


def _planes(collection: Mapping[str, Any], images: Mapping[str, Wanted]) -> dict[str, str]:
    """Return, by colour, what to read of each file of a collection, as a manifest has it; {} for files of one image."""
    planes, channels = {}, named_channels(collection)
    for colour in colours_of(collection):
        of_kind = images[ALL if ALL in images else colour]
        pattern = of_kind.patterns[0]
        # What the name of a file says is not in the file.
        in_name = {CHOSEN[part] for part in pattern.names if part in CHOSEN and part in of_kind.choices}
        plane = {
            key: collection[key] for key in ("series", "time", "project") if key in collection and key not in in_name
        }
        if colour in channels and pattern.selector != CHANNEL:
            plane = {"channel": channels[colour]} | plane
        if plane:
            planes[colour] = json.dumps(plane)
    return planes


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


def _scan_truth(
    name: str, config: Mapping[str, Any], fields: Fields, truth: Mapping[str, Wanted]
) -> tuple[dict[str, str], dict[str, set[tuple[int, ...]]]]:
    """Check the true cells of a collection.

    Returns the text of the table of true masks and their states by its name, and the label sets of each field's cells.
    """
    collection = config["collections"][name]
    check_placeholders(collection["truth"]["cells"], f"config key collections.{name}.truth.cells", ["root"])
    path = collection["truth"]["cells"].format(root=collection["root"])
    known = read_true_cells(path, collection["labels"] == "hpa2018")
    check_fields(f"truth {path}", known, {row.id for row in fields.rows}, name)
    true_fields = [(row.id, parts) for row, parts in zip(fields.rows, fields.parts, strict=True) if row.id in known]
    ids, parts = [id for id, _ in true_fields], [parts for _, parts in true_fields]
    found = find_files(ids, truth, parts, config["verify"])
    check_missing(found, name)
    masks = sorted((id, files["truth"].path, files["truth"].state) for id, files in zip(ids, found, strict=True))
    labels = {id: {parse_labels(labels) for labels in set(own.values())} for id, own in known.items()}
    return {CollectionFiles(name).path("true_states").name: format_csv([("id", "mask", "state"), *masks])}, labels


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


def download_urls(
    path: str | os.PathLike[str], rows: Sequence[SheetRow], pattern: str, colours: Sequence[str] = COLOURS
) -> list[dict[str, str]]:
    """Return the address of each channel file of each field: {colour: URL}, in the order of ``rows``.

    path: the sheet; a column ``url_red`` (and so on) gives the address, otherwise ``pattern`` does
    pattern: address with ``{colour}``, ``{id}``, columns of the sheet such as ``{antibody}`` and ``{image}``, and
    ``{antibody_number}``, the antibody's number without letters and leading zeros (89 for HPA000089), as in the folder
    names of the public images; values are quoted
    colours: those that the fields have
    Raises SheetError naming the pattern if it is not one, or the sheet, the ID and what is missing, is not an https
    address, or is the address of another channel or field.
    """
    name = os.fspath(path)
    lacking = [key for key in names_between_braces(pattern, "download.url", nested=".[") if key != "colour"]
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
        for colour in colours:
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
