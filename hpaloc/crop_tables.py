"""Tables of ready-made crops, pictures of one cell each: what the crops are, and in which files."""

import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from hpaloc.classes import NEGATIVE, format_labels
from hpaloc.config import colours_of
from hpaloc.delimited import SheetError, read_delimited, read_header
from hpaloc.files import spelled_as_on_disk
from hpaloc.finding import Files, FoundFile
from hpaloc.ids import normal_text, shown
from hpaloc.location_names import HPAV23_CLASSES, list_left_out
from hpaloc.manifests import MISSING, SheetRow, file_state
from hpaloc.patterns.folders import Folders
from hpaloc.rejection import too_many
from hpaloc.sheet import copy_columns, read_rows

log = logging.getLogger("hpaloc")

# The table of HPAv23 in CHAMMI-75 (github.com/CaicedoLab/CHAMMI-75, benchmarks/HPAv23): the columns that name the file
# of a crop, {plate}/{plate}_{position}_{sample}_{cell_id}_cell_image.png beside the table, and what is in each sample
# of this PNG: nuclei in red, endoplasmic reticulum in green, microtubules in blue, the protein in alpha.
_HPAV23 = ("if_plate_id", "position", "sample", "cell_id")
_HPAV23_CHANNELS = {"red": 2, "green": 3, "blue": 0, "yellow": 1}
# The table of SubCellPortable (github.com/CellProfiling/SubCellPortable, README.md): paths of a file for each colour
# beside the table. A row that starts with # is skipped; in its first edition the header does, too.
_SUBCELL = {"red": "r_image", "yellow": "y_image", "blue": "b_image", "green": "g_image"}
_PREFIX = "output_prefix"


@dataclass(frozen=True)
class Crop:
    """One row of a table of crops.

    place: where it is in the table, for messages
    cells: its values as those of a sheet, by column, with ``ID``
    paths: its file by colour
    """

    place: str
    cells: dict[str, str]
    paths: dict[str, str]


@dataclass(frozen=True)
class CropTable:
    """The crops of a collection.

    rows, files: of each crop
    columns: what ``sheet.read_other_columns`` returns of them
    planes: by colour, what to read of each file, as a manifest has it; {} if a file holds one colour
    """

    rows: list[SheetRow]
    files: list[Files]
    columns: list[list[str]]
    planes: dict[str, str] = field(default_factory=dict)


def read_crop_table(
    name: str, collection: Mapping[str, Any], verify: str = "time", max_missing_fraction: float = 0.0
) -> CropTable:
    """Read the table of a collection of ready-made crops, and find their files.

    name, collection: the collection and its section of the completed configuration
    verify: ``time`` or ``content``, what makes the state of a file
    max_missing_fraction: share of the crops whose files may be missing, with a warning
    Raises SheetError naming the table, and the line of a row whose file cannot be one, is missing or is that of another
    row.
    """
    path = collection["crops"].replace("{root}", collection["root"])
    here, header = f"crops {path}", read_header(path, "crops", (*_HPAV23, *_SUBCELL.values()))
    parts = {
        part: _read_list(listed.replace("{root}", collection["root"]))
        for part, listed in collection.get("antibodies", {}).items()
    }
    part_of = _part_of(name, parts)
    others = [column for column, count in Counter(header).items() if column and count == 1]
    if set(_HPAV23) <= set(header):
        crops, planes = _read_hpav23(path, others, collection["labels"], part_of), _HPAV23_CHANNELS
    elif {column.lstrip("# ") for column in header} >= {*_SUBCELL.values(), _PREFIX}:
        if collection["labels"] or parts:
            raise SheetError(f"{here}: has no labels and no antibodies; list labelled crops in a sheet (crops: true)")
        crops, planes = _read_subcell(path, header[0], colours_of(collection)), {}
    else:
        raise SheetError(
            f"{here}: is neither the table of HPAv23 ({', '.join(_HPAV23)}) nor that of SubCellPortable "
            f"({', '.join(_SUBCELL.values())}, {_PREFIX}); its header has {', '.join(map(shown, header)) or 'nothing'}"
        )
    used = list(crops)
    if not used:
        listed = " of an antibody in the lists" if parts else ""
        raise SheetError(
            f"{here}: has no crop{listed}" + " that has one of the 19 classes" * bool(collection["labels"])
        )
    for crop in used:
        part = part_of.get(crop.cells.get("antibody", ""))
        crop.cells["split"] = part if part in ("train", "validation") else ""
    size = math.nan if collection["pixel_size"] == "file" else float(collection["pixel_size"])
    rows = read_rows(here, ((crop.place, crop.cells) for crop in used), bool(collection["labels"]), size)
    _check_own_files(here, used)
    copied = [column for column in others if column in used[0].cells and column not in ("ID", "Label")]
    columns = copy_columns(here, copied, [crop.cells for crop in used])
    colours = colours_of(collection)
    files = _find_files(used, colours, verify)
    _check_missing(here, used, files, max_missing_fraction)
    chosen = {colour: json.dumps({"channel": planes[colour]}) for colour in colours if planes}
    return CropTable(rows, files, columns, chosen)


def _read_hpav23(path: str, others: Sequence[str], labels: bool, part_of: Mapping[str, str]) -> Iterator[Crop]:
    """Yield the crops of a table of HPAv23; with ``labels``, only those that have one of the 19 classes.

    others: the columns to copy
    part_of: the part of each antibody whose crops are wanted; {} for all antibodies
    """
    needed = [*_HPAV23, *(["locations"] if labels else []), *(["antibody"] if part_of else [])]
    loose = [column for column in ("antibody", "atlas_name", *others) if column not in needed]
    left_out: list[list[str]] = []
    for line, cells in read_delimited(path, "crops", needed, (), [*dict.fromkeys(loose)], told=(*needed, *loose)):
        if part_of and cells["antibody"] not in part_of:
            continue
        place = f"line {line}"
        number = re.fullmatch(r"(\d+)(\.0+)?", cells["cell_id"], re.ASCII)
        if number is None:
            raise SheetError(f"crops {path}, {place}: cell_id {cells['cell_id'][:40]!r} is not a number")
        names = {column: cells[column] for column in _HPAV23} | {"cell_id": number[1]}
        for column, value in names.items():
            if not value or "/" in value or value in (".", ".."):
                what = f"{shown(value)}, which cannot be part of a file name" if value else "empty"
                raise SheetError(f"crops {path}, {place}: {column} is {what}")
        id = "_".join(names.values())
        own = {**cells, "ID": id, "cell_line": cells.get("atlas_name", "")}
        if labels:
            classes, unknown = _classes_of(cells["locations"])
            if not classes:
                left_out.append(unknown)
                continue
            own["Label"] = format_labels(classes)
        file = os.path.join(os.path.dirname(path), names["if_plate_id"], f"{id}_cell_image.png")
        yield Crop(place, own, dict.fromkeys(_HPAV23_CHANNELS, file))
    if left_out:
        log.warning(
            "crops %s: crops that have none of the 19 classes are left out: %d, of %s",
            *(path, len(left_out), list_left_out(left_out)),
        )


def _classes_of(locations: str) -> tuple[list[int], list[str]]:
    """Return the classes in a text of the column locations, and the names that are none; no text is Negative."""
    if not locations:
        return [NEGATIVE], []
    names = locations.split(",")
    known = [HPAV23_CLASSES[name] for name in names if name in HPAV23_CLASSES]
    return known, [name for name in names if name not in HPAV23_CLASSES]


def _read_subcell(path: str, first: str, colours: Sequence[str]) -> Iterator[Crop]:
    """Yield the crops of a table of SubCellPortable; first: the name of its first column, which may start with #."""
    columns = {colour: first if column == first.lstrip("# ") else column for colour, column in _SUBCELL.items()}
    folder = os.path.dirname(path)
    for line, cells in read_delimited(path, "crops", [*columns.values(), _PREFIX]):
        place = f"line {line}"
        if cells[first].startswith("#"):
            continue
        paths = {}
        for colour in colours:
            given, column = cells[columns[colour]], _SUBCELL[colour]
            here = f"crops {path}, {place}: {column} is"
            if not given:
                hint = f"; if there is no {colour}, write channels: {{{colour}: null}}" * (colour in ("red", "yellow"))
                raise SheetError(f"{here} empty{hint}")
            if "://" in given:
                raise SheetError(f"{here} {shown(given)}, an address; download the file and write its path")
            if not os.path.isabs(given) and os.path.normpath(given).split(os.sep)[0] == os.pardir:
                raise SheetError(f"{here} {shown(given)}, outside of the folder of the table; write the whole path")
            paths[colour] = os.path.join(folder, given)
        _check_colours(f"crops {path}, {place}", paths)
        yield Crop(place, {"ID": cells[_PREFIX].strip("/").replace("/", "_")}, paths)


def _read_list(path: str) -> list[str]:
    """Return the antibodies in a list, one per line; SheetError naming the file if it cannot be read or lists none."""
    try:
        with open(spelled_as_on_disk(path), encoding="utf-8-sig") as file:
            found = [text for line in file if (text := normal_text(line))]
    except OSError as error:
        raise SheetError(f"antibodies {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise SheetError(f"antibodies {path}: is not UTF-8 text") from None
    if not found:
        raise SheetError(f"antibodies {path}: lists no antibody")
    return found


def _part_of(name: str, lists: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the part of each antibody; SheetError if one is in the lists of two parts."""
    part_of: dict[str, str] = {}
    for part, antibodies in lists.items():
        for antibody in antibodies:
            if (other := part_of.setdefault(antibody, part)) != part:
                raise SheetError(
                    f"config key collections.{name}.antibodies: {shown(antibody)} is in the lists of {other} and {part}"
                )
    return part_of


def _check_colours(here: str, paths: Mapping[str, str]) -> None:
    """Raise SheetError if two colours of a crop are one file; red and yellow may be."""
    for first, second in combinations(paths, 2):
        if paths[first] == paths[second] and {first, second} != {"red", "yellow"}:
            columns = f"{_SUBCELL[first]} and {_SUBCELL[second]}"
            raise SheetError(f"{here}: {columns} are both {shown(paths[first], 300)}; give each colour its own file")


def _check_own_files(here: str, crops: Sequence[Crop]) -> None:
    """Raise SheetError naming two rows of one file."""
    owner: dict[str, str] = {}
    for crop in crops:
        for file in crop.paths.values():
            if (other := owner.setdefault(file, crop.place)) != crop.place:
                raise SheetError(f"{here}, {crop.place}: the file {shown(file, 300)} is that of {other}, too")


def _find_files(crops: Sequence[Crop], colours: Sequence[str], verify: str) -> list[Files]:
    """Return the files of the crops by colour, and their states."""
    folders = Folders()

    def find(path: str) -> FoundFile:
        if (there := folders.find(path)) is None:
            return FoundFile(path, MISSING)
        return FoundFile(there[0], file_state(*there, verify == "content"))

    found = []
    for crop in crops:
        # A file that holds all colours is looked for once.
        known = {path: find(path) for path in dict.fromkeys(crop.paths.values())}
        found.append({colour: known[crop.paths[colour]] for colour in colours})
    return found


def _check_missing(here: str, crops: Sequence[Crop], found: Sequence[Files], max_missing_fraction: float) -> None:
    """Warn of crops whose files are missing, which are rejected when they are read.

    Raises SheetError if these are all, or more than ``max_missing_fraction`` of the crops (rounded up).
    """
    missing = [
        (crop.place, file.path)
        for crop, files in zip(crops, found, strict=True)
        for file in dict.fromkeys(files.values())
        if file.state == MISSING
    ]
    if not missing:
        return
    lacking = len({place for place, _ in missing})
    first = ", ".join(f"{path} ({place})" for place, path in missing[:10])
    text = f"{here}: {lacking} of {len(crops)} crops lack a file{' (the first ten)' * (len(missing) > 10)}: {first}"
    if lacking == len(crops):
        raise SheetError(f"{text}; is the table beside the folders of its files?")
    if too_many(lacking, len(crops), max_missing_fraction):
        raise SheetError(f"{text}; add the files, or remove the rows")
    log.warning("%s; they will be rejected", text)
