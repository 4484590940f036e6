"""The fields of a collection and the patterns of their files: from a sheet, or from the names of the files alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpaloc.config import colours_of, image_patterns, named_channels
from hpaloc.delimited import SheetError, read_delimited
from hpaloc.finding import ALL, Files, Wanted, find_fields
from hpaloc.ids import shown
from hpaloc.manifests import SheetRow
from hpaloc.patterns.pattern import CHANNEL, CHOSEN, COLOUR, FilePattern, names_between_braces
from hpaloc.rle import is_table
from hpaloc.sheet import copy_columns, read_rows, read_sheet


@dataclass(frozen=True)
class Fields:
    """The fields of a collection, before its other files are looked for.

    rows: the fields
    parts: {name of a part of the patterns: its value} of each of them
    files: those of the images of each field, if no sheet lists the fields
    columns: what ``sheet.read_other_columns`` returns of them; None if a sheet has them
    """

    rows: list[SheetRow]
    parts: Sequence[Mapping[str, str]]
    files: Sequence[Files] = ()
    columns: Sequence[Sequence[str]] | None = None


def check_placeholders(pattern: str, key: str, allowed: Sequence[str]) -> None:
    """Raise SheetError naming ``key`` if the path of a table has an unknown placeholder."""
    for name in sorted(set(names_between_braces(pattern, key)) - set(allowed)):
        known = ", ".join(f"{{{each}}}" for each in allowed)
        raise SheetError(f"{key}: {pattern!r} has the unknown placeholder {{{name}}} (known: {known})")


def table_of(name: str, collection: Mapping[str, Any]) -> str:
    """Return what the table of a collection's fields is called in messages: its sheet, or the collection itself."""
    for kind, path in (("sheet", collection.get("sheet")), ("crops", collection.get("crops"))):
        if isinstance(path, str):
            return f"{kind} {path.replace('{root}', collection['root'])}"
    return f"collection {name}"


def wanted_images(name: str, collection: Mapping[str, Any]) -> dict[str, Wanted]:
    """Return the patterns of the images of a collection by colour, or for ALL if each file holds all colours.

    collection: its section of the completed configuration, with ``images``
    Raises SheetError naming the key if a pattern has not the parts that it needs.
    """
    channels = named_channels(collection)
    key = f"config key collections.{name}.images"
    made: dict[str, FilePattern] = {}
    wanted: dict[str, Wanted] = {}
    for own_colour, texts in image_patterns(collection).items():
        here = f"{key}.{own_colour}" if own_colour else key
        patterns = [made.setdefault(text, FilePattern(text, here, collection["root"])) for text in texts]
        for pattern in patterns:
            _check_parts(pattern, patterns[0], collection, own_colour)
        chosen = {part: collection[key] for part, key in CHOSEN.items() if part in patterns[0].names}
        if not isinstance(chosen.get("z"), int):
            chosen.pop("z", None)
        for_each = own_colour is None and patterns[0].selector is not None
        for colour in colours_of(collection) if for_each else [own_colour or ALL]:
            of_colour = {CHANNEL: channels[colour]} if colour in channels else {}
            wanted[colour] = Wanted(patterns, {COLOUR: colour, **of_colour, **chosen})
    in_one_file = [of_kind.patterns[0] for of_kind in wanted.values() if not of_kind.along_z]
    if 0 < len(in_one_file) < len(wanted):
        raise SheetError(f"{in_one_file[0].key}: {in_one_file[0].text!r} lacks {{z}}, which another colour has")
    return wanted


def _check_parts(pattern: FilePattern, first: FilePattern, collection: Mapping[str, Any], colour: str | None) -> None:
    """Raise SheetError if a pattern of images has not the parts that it needs.

    first: the first of its list
    colour: the one that it is for; None if it is for all
    """
    channels = named_channels(collection)
    has = f"{pattern.key}: {pattern.text!r} has"
    if {COLOUR, CHANNEL} <= set(pattern.names):
        raise SheetError(f"{has} both {{colour}} and {{channel}}; leave one of them out")
    if CHANNEL in pattern.names and (not channels if colour is None else colour not in channels):
        lacking = f"channels.{colour}" if channels else "channels"
        raise SheetError(f"{has} {{channel}}, but the collection has no key {lacking}, which says what to put there")
    if colour is None and pattern.selector is None and not channels:
        raise SheetError(
            f"{pattern.key}: {pattern.text!r} lacks the placeholder {{colour}}, or the collection the key channels, if "
            "each file holds all colours"
        )
    if colour is None and pattern.selector != first.selector:
        raise SheetError(f"{has} not the same one of {{colour}} and {{channel}} as {first.text!r}; give both the same")
    if "sheet" in collection and not pattern.of_field:
        raise SheetError(f"{pattern.key}: {pattern.text!r} lacks the placeholder {{id}}")
    for part, key in CHOSEN.items():
        if (part in pattern.names) != (part in first.names):
            raise SheetError(f"{pattern.key}: only some of its patterns have {{{part}}}; give it to all or to none")
        if part in pattern.names and key not in collection:
            joined = ", or how the planes are joined" if part == "z" else ""
            raise SheetError(
                f"{has} {{{part}}}; say by the key {key} which number there is read{joined}, or write * or a number"
            )


def given_masks(name: str, collection: Mapping[str, Any]) -> dict[str, Wanted]:
    """Return the patterns of the masks that a collection gives, by their kind.

    collection: its section of the completed configuration, with ``masks``
    Raises SheetError naming the key if a pattern has not the parts that it needs.
    """
    kinds = {"cell_mask": "cells", "nucleus_mask": "nuclei"}
    given = {kind: key for kind, key in kinds.items() if collection["masks"][key] is not None}
    return {kind: Wanted([pattern_of_labels(name, collection, "masks", key)]) for kind, key in given.items()}


def pattern_of_labels(name: str, collection: Mapping[str, Any], section: str, key: str) -> FilePattern:
    """Return the pattern of label images, or of tables of masks, that a key of a collection has.

    collection: its section of the completed configuration
    Raises SheetError naming the key if the pattern has not the parts that it needs.
    """
    text = collection[section][key]
    pattern = FilePattern(text, f"config key collections.{name}.{section}.{key}", collection["root"])
    if pattern.chosen:
        raise SheetError(f"{pattern.key}: {text!r} has {{{pattern.chosen[0]}}}, which only images have; leave it out")
    # A table has the masks of many fields.
    if not pattern.of_field and not is_table(text):
        raise SheetError(f"{pattern.key}: {text!r} lacks the placeholder {{id}}")
    return pattern


def listed_fields(name: str, collection: Mapping[str, Any], patterns: Iterable[FilePattern]) -> Fields:
    """Read the fields that a collection's sheet lists, and its columns that are parts of the patterns of files.

    collection: its section of the completed configuration
    Raises SheetError as ``read_sheet``, and naming the sheet if it lacks such a column, and the ID without a value.
    """
    check_placeholders(collection["sheet"], f"config key collections.{name}.sheet", ["root"])
    path = collection["sheet"].format(root=collection["root"])
    rows = read_sheet(path, collection["labels"], _pixel_size(collection))
    needed = {part: pattern for pattern in patterns for part in pattern.of_field if part != "id"}
    if not needed:
        return Fields(rows, [{}] * len(rows))
    # The first reading of the sheet has already warned about its columns.
    table = {own["ID"]: own for _, own in read_delimited(path, "sheet", ["ID"], (), [*needed], told=("ID", *needed))}
    for row in rows:
        for part, pattern in needed.items():
            value = table[row.id].get(part)
            if value is None:
                raise SheetError(
                    f"{pattern.key}: {pattern.text!r} has {{{part}}}, but the sheet {path} has no column {part}; add "
                    "it, or write * in its place"
                )
            if not value or "/" in value or value in (".", ".."):
                what = f"is {shown(value)}, which cannot be part of a file name" if value else "is empty"
                raise SheetError(f"sheet {path} (ID {row.id}): {part} {what}, but {pattern.text!r} needs it")
    return Fields(rows, [table[row.id] for row in rows])


def found_fields(
    name: str, config: Mapping[str, Any], images: Mapping[str, Wanted], others: Iterable[FilePattern]
) -> Fields:
    """Find the fields of a collection without a sheet, whose parts are those of the patterns of its images.

    images: from ``wanted_images``
    others: the patterns of its other files
    Raises SheetError naming the key of a pattern that does not tell fields apart, the nearest folder if there are no
    fields, two files for one colour of a field, two files of fields that have one ID, or a file whose ID is unusable.
    """
    collection = config["collections"][name]
    patterns = list(dict.fromkeys(pattern for of_kind in images.values() for pattern in of_kind.patterns))
    _check_same_parts(patterns, others)
    names = patterns[0].of_field
    found = dict(sorted(find_fields(images, name, config["verify"]).items()))
    path_of: dict[str, str] = {}
    table = []
    for values, files in found.items():
        parts = dict(zip(names, values, strict=True))
        parts["ID"] = parts["id"] if "id" in parts else "_".join(values)
        path = min(file.path for file in files.values())
        if (other := path_of.setdefault(parts["ID"], path)) != path:
            raise SheetError(
                f"collection {name}: {shown(other, 300)} and {shown(path, 300)} are of different fields, but both have "
                f"the ID {shown(parts['ID'])}; use a pattern whose parts, or whose part {{id}}, give each its own"
            )
        table.append(parts)
    here = f"collection {name}"
    rows = read_rows(here, ((f"file {path_of[parts['ID']]}", parts) for parts in table), False, _pixel_size(collection))
    columns = copy_columns(here, [part for part in names if part != "id"], table)
    return Fields(rows, table, list(found.values()), columns)


def _check_same_parts(patterns: Sequence[FilePattern], others: Iterable[FilePattern]) -> None:
    """Raise SheetError unless all patterns of images have the same parts of a field, and the others no more."""
    first = patterns[0]
    if not first.of_field:
        raise SheetError(
            f"{first.key}: {first.text!r} has no part that tells fields apart, such as {{id}} or {{well}}; add one, or "
            "list the fields in a sheet"
        )
    for pattern in patterns:
        pattern.check_separated()
        for part in sorted(set(first.of_field) ^ set(pattern.of_field)):
            has, lacks = (first, pattern) if part in first.of_field else (pattern, first)
            raise SheetError(
                f"{has.key}: {has.text!r} has the part {{{part}}}, but {lacks.text!r} has not; give both the same "
                "parts, or write * in its place"
            )
    for pattern in others:
        for part in pattern.of_field:
            if part not in (*first.of_field, "id"):
                raise SheetError(
                    f"{pattern.key}: {pattern.text!r} has {{{part}}}, but {first.text!r} of images has not; write * in "
                    "its place, or list the fields in a sheet"
                )


def check_own_files(name: str, ids: Sequence[str], images: Mapping[str, Wanted], files: Sequence[Files]) -> None:
    """Raise SheetError naming two fields of a sheet that have one file, which patterns without ``{id}`` may find.

    ids, files: of the fields, from ``find_files``
    """
    if all("id" in pattern.of_field for of_kind in images.values() for pattern in of_kind.patterns):
        return
    owner: dict[str, str] = {}
    for id, of_field in zip(ids, files, strict=True):
        for kind in images:
            if (other := owner.setdefault(of_field[kind].path, id)) != id:
                raise SheetError(
                    f"collection {name}: the fields {shown(other)} and {shown(id)} have the same file, "
                    f"{shown(of_field[kind].path, 300)}; remove one of them, or use a pattern that tells them apart"
                )


def _pixel_size(collection: Mapping[str, Any]) -> float:
    """Return the pixel size of fields without one of their own; nan stands for the one that the files say."""
    return math.nan if collection["pixel_size"] == "file" else float(collection["pixel_size"])
