"""Whether the fields of collections allow what is asked: training, pooling of calls, a study of cells."""

import fnmatch
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from hpaloc.classes import NAMES, NEGATIVE
from hpaloc.config import ConfigError, curation_of, has_crop_table, training_collections
from hpaloc.delimited import letters_of
from hpaloc.ids import alike, normal_text
from hpaloc.linking import linked_groups
from hpaloc.manifests import SheetRow
from hpaloc.progress import log
from hpaloc.scan import Scan
from hpaloc.sheet import NAMED, OPTIONAL


def check_rows(name: str, scan: Scan, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if a collection leaves nothing to train on, to validate on, or to blend.

    ``scan`` is that of the collection ``name``; ``config`` is complete. Curation and training would find the same
    after hours of segmentation; what depends on the images (filters, near-duplicates) only they can find.
    """
    section, curation = curation_of(config, name)
    used = _rows_that_train(name, scan, config)
    _check_criteria(name, used, scan, config)
    _check_groups(name, used, scan, config)
    labels = [_labels_of(row, scan, curation) for row in used]
    # Cells whose own truth has several locations are left out.
    several = curation["labels"] != "cells" and any(len(own) > 1 for sets in labels for own in sets)
    if config["train"]["head"] == "softmax" and several:
        raise ConfigError(
            f"config key train.head: softmax needs exactly one location a cell; use sigmoid or {section}.labels: single"
        )
    alone = {own[0] for sets in labels for own in sets if len(own) == 1} - {NEGATIVE}
    # The sheet does not say the labels of simulated cells.
    if config["train"]["blends"] and name == config["train"]["collection"] and all(labels) and len(alone) < 2:
        raise ConfigError(
            "config key train.blends: blending needs cells of one location alone, from at least two locations"
        )


def check_folds(scan: Scan, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if the collection that trains has too few groups for a cross-validation.

    ``scan`` is that of the collection; ``config`` is complete. Near-duplicates, which only the images show, may leave
    fewer groups.
    """
    name, n_folds = config["train"]["collection"], config["evaluation"]["folds"]
    curation = config["curation"]
    n_groups = len(_groups(_rows_that_train(name, scan, config), scan, curation["group_by"]))
    # What is left without a fold has a training and a validation part: two groups.
    needed = max(n_folds, 4 if n_folds == 2 else 3)
    if n_groups < needed:
        raise ConfigError(
            f"config key evaluation.folds: {n_folds} folds of collection {name} need at least "
            f"{needed} groups of training fields, and curation.group_by "
            f"({', '.join(curation['group_by'])}) makes {n_groups}; ask for fewer folds, or add fields"
        )


def _check_columns(
    key: str, name: str, scan: Scan, asked: Sequence[str], more: Sequence[str] = (), table: str = "sheet"
) -> None:
    """Raise ConfigError naming ``key`` if the sheet of a collection has no values of one of the columns asked for.

    more: what else the key may name
    table: what has the columns
    """
    columns = [column for column in (*NAMED, *scan.other_columns) if column not in scan.without_values]
    known = [*columns, *more]
    here = f"config key {key}: the {table} of collection {name}"
    for column in asked:
        if column in known:
            continue
        if column in scan.without_values:
            raise ConfigError(f"{here} has no values of {column}; add them, or remove {column} from {key}")
        if letters_of(column) in map(letters_of, ("ID", "Label", *OPTIONAL)) and column not in NAMED:
            raise ConfigError(f"{here}: {column!r} cannot be used to group fields (known: {', '.join(known)})")
        letters = {letters_of(each): each for each in known}
        near = get_close_matches(letters_of(column), letters, 1)
        hint = f"; did you mean {letters[near[0]]}?" if near else ""
        raise ConfigError(f"{here} has no column {column!r}{hint} (known: {', '.join(known)})")


def _check_criteria(name: str, used: Sequence[SheetRow], scan: Scan, config: Mapping[str, Any]) -> None:
    """Check that a sheet has the columns that ``group_by`` of its curation names, and warn of fields without a value.

    An antibody may be absent, and in the collection of the pretraining any of them.
    """
    section, curation = curation_of(config, name)
    group_by = curation["group_by"]
    asked = [column for column in _columns(group_by) if column != "antibody"]
    _check_columns(f"{section}.group_by", name, scan, asked, ("duplicates", "field"))
    # By default, sheets without antibodies are usual.
    for column in _columns(group_by) if group_by != ["antibody", "duplicates"] else ():
        if lacking := sum(_value(row, scan, column) is None for row in used):
            log.warning(
                "collection %s: %d of %d training fields have no %s; in %s.group_by each has one of its own",
                *(name, lacking, len(used), column, section),
            )


def _check_groups(name: str, used: Sequence[SheetRow], scan: Scan, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if the training fields cannot be split into a training and a validation part."""
    section, curation = curation_of(config, name)
    groups = _groups(used, scan, curation["group_by"])
    fraction = curation["validation_fraction"]
    if len(groups) < 2 and fraction > 0:
        cause, others, instead = "there is one training field", "more fields", ""
        if len(used) > 1:
            column, value = _shared(used, scan, curation["group_by"])
            cause = f"all {len(used)} training fields have the {column} {value}"
            others, instead = f"fields of another {column}", f" or remove {column} from {section}.group_by"
            if column == "antibody" and len(_columns(curation["group_by"])) == 1:
                instead = f" or {section}.group_by: [duplicates] (an antibody is then in both parts)"
            if value is None:
                cause = f"all {len(used)} training fields are in one group by {column}"
                others, instead = "fields of another group", f" or remove one of these from {section}.group_by"
        raise ConfigError(
            f"collection {name}: {cause}, and a split into training and validation needs two groups; add {others}, or "
            f"set {section}.validation_fraction: 0 (no validation){instead}"
        )
    for members in groups:
        field_of = {row.split: row.id for row in members if row.split}
        if len(field_of) > 1:
            column, value = _shared(members, scan, curation["group_by"])
            which = f"the {column} {value}" if value is not None else f"one group by {column}"
            raise ConfigError(
                f"collection {name}: the column split puts {field_of['train']} and {field_of['validation']} of {which} "
                f"into different parts; give them the same part, or remove {column if value else 'one of these'} from "
                f"{section}.group_by"
            )
    # A field without a part goes with its group.
    parts = {next((row.split for row in members if row.split), None) for members in groups}
    if None not in parts:
        for part in ("train", *(["validation"] if fraction > 0 else [])):
            if part not in parts:
                raise ConfigError(
                    f"collection {name}: the column split leaves the part {part} without fields; name some, or leave "
                    "cells of the column empty"
                )


def _labels_of(row: SheetRow, scan: Scan, curation: Mapping[str, Any]) -> set[tuple[int, ...]]:
    """Return the label sets that the cells of a field can have in training; empty if they depend on the images."""
    if curation["labels"] != "cells":
        return {row.labels} if row.labels else set()
    return scan.truth.get(row.id, set()) if scan.truth is not None else set()


def _rows_that_train(name: str, scan: Scan, config: Mapping[str, Any]) -> list[SheetRow]:
    """Return the rows whose labels allow their cells to be examples; raise ConfigError if there are none."""
    section, curation = curation_of(config, name)
    if curation["labels"] == "cells":
        return [row for row in scan.rows if scan.truth is None or row.id in scan.truth]
    single = curation["labels"] == "single"
    used = [row for row in scan.rows if row.labels and (len(row.labels) == 1 or not single)]
    if not used:
        raise ConfigError(
            f"collection {name}: every field has several labels, and {section}.labels: single trains on fields with "
            f"one; set {section}.labels: all"
        )
    negatives = curation["negatives"]
    external = negatives["external"]
    if negatives["negative_fields"]:
        return used
    positive = [
        row
        for row in used
        if row.labels != (NEGATIVE,) or (external is not None and fnmatch.fnmatchcase(row.id, normal_text(external)))
    ]
    if not positive:
        raise ConfigError(
            f"collection {name}: every field that could train is labelled {NEGATIVE} ({NAMES[NEGATIVE]}), and "
            f"{section}.negatives.negative_fields: false leaves them out"
        )
    return positive


def check_unseen(config: Mapping[str, Any], scans: Mapping[str, Scan], scored: Sequence[str]) -> None:
    """Raise ConfigError if a collection to score has labels only in fields whose IDs or antibodies train the model.

    What depends on images and on other columns of sheets, the scores leave out. ``config`` is complete, ``scans`` are
    those of the collections by name, ``scored`` names the collections that are scored.
    """
    used = []
    for name in training_collections(config):
        used += _rows_that_train(name, scans[name], config)
    ids = {alike(row.id) for row in used}
    antibodies = {alike(row.antibody) for row in used if row.antibody}
    for name in scored:
        truth = scans[name].truth
        known = [row for row in scans[name].rows if (row.labels if truth is None else row.id in truth)]
        new = [row for row in known if alike(row.id) not in ids]
        if known and all(row.antibody and alike(row.antibody) in antibodies for row in new):
            raise ConfigError(
                f"collection {name}: training sees all of its {len(known)} labelled fields ({len(known) - len(new)} by "
                f"ID, {len(new)} by antibody), so there is nothing to score; set collections.{name}.labels: false to "
                "predict it without scores"
            )


def check_pooling(config: Mapping[str, Any], scans: Mapping[str, Scan]) -> None:
    """Raise ConfigError if ``predict.pool_by`` names a column without values in the sheet of a predicted collection.

    ``scans`` are those of the collections by name, empty if they are not known.
    """
    for name in config["predict"]["collections"] if scans else ():
        collection = config["collections"][name]
        table = "sheet" if "sheet" in collection else "table of crops" if has_crop_table(collection) else "pattern"
        _check_columns("predict.pool_by", name, scans[name], config["predict"]["pool_by"], table=table)


def _columns(group_by: Sequence[str]) -> list[str]:
    return [column for column in group_by if column not in ("duplicates", "field")]


def _value(row: SheetRow, scan: Scan, column: str) -> str | None:
    own = {"antibody": row.antibody, "cell_line": row.cell_line}
    return own[column] if column in own else scan.groups.get(column, {}).get(row.id)


def _shared(members: Sequence[SheetRow], scan: Scan, group_by: Sequence[str]) -> tuple[str, str | None]:
    """Return the column in which all rows have one value, and the value; else all columns, and None."""
    for column in _columns(group_by):
        values = {_value(row, scan, column) for row in members}
        if len(values) == 1 and None not in values:
            return column, values.pop()
    return " and ".join(_columns(group_by)), None


def _groups(rows: Sequence[SheetRow], scan: Scan, group_by: Sequence[str]) -> list[list[SheetRow]]:
    """Return the rows by what must not be split: those that share a known value, directly or through a third row."""
    values = ([(column, _value(row, scan, column)) for column in _columns(group_by)] for row in rows)
    known = ([(column, value) for column, value in own if value is not None] for own in values)
    return [[rows[number] for number in group] for group in linked_groups(known)]


def check_studied(scans: Mapping[str, Scan], studied: Sequence[str], config: Mapping[str, Any]) -> None:
    """Raise ConfigError if no cell to study has one known location, or interpretation.held_out cannot be held out.

    ``scans`` are those of the collections by name, ``studied`` names the collections that are studied; ``config`` is
    complete.
    """
    held_out = config["interpretation"]["held_out"]
    known = [_studied_labels(name, scans[name], config) for name in studied]
    sets = [own for of_collection in known if of_collection is not None for own in of_collection]
    alone = {own[0] for own in sets if len(own) == 1}
    if None not in known:
        if not alone:
            raise ConfigError(
                f"config key predict.collections: interpret studies cells of one known location, but all cells of "
                f"{', '.join(studied)} have several labels; predict a collection that has fields with one label"
            )
        for label in sorted(set(held_out) - alone):
            only = " alone" if any(label in own for own in sets) else ""
            raise ConfigError(
                f"config key interpretation.held_out: no field is labelled {label} ({NAMES[label]}){only}; leave it out"
            )
    source = training_collections(config)[0]
    _, curation = curation_of(config, source)
    if not held_out or (curation["labels"] == "cells" and scans[source].truth is None):
        return
    used = _rows_that_train(source, scans[source], config)
    left = [
        members
        for members in _groups(used, scans[source], curation["group_by"])
        if not any(set(held_out) & set(own) for row in members for own in _labels_of(row, scans[source], curation))
    ]
    if all(any(row.split == "validation" for row in members) for members in left):
        which = "group of training fields" if left else "group of fields"
        raise ConfigError(
            f"config key interpretation.held_out: every {which} of the collection {source} has one of these classes, "
            "so none is left to train on; hold out fewer classes"
        )


def _studied_labels(name: str, scan: Scan, config: Mapping[str, Any]) -> set[tuple[int, ...]] | None:
    """Return the label sets that cells of a studied collection can have; None if they depend on the images."""
    trains = config["model"]["path"] is None and name in training_collections(config)
    _, curation = curation_of(config, name)
    if trains and curation["labels"] != "cells":
        return {own for row in scan.rows for own in _labels_of(row, scan, curation)}
    if scan.truth is None:
        return None if "simulate" in config["collections"][name] else {row.labels for row in scan.rows if row.labels}
    return {own for sets in scan.truth.values() for own in sets}
