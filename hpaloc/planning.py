"""Checks before the first job: whether configuration, sheets and files allow what is asked."""

import fnmatch
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hpaloc.classes import NAMES, NEGATIVE
from hpaloc.config import ConfigError, colours_of, training_collections
from hpaloc.delimited import check_fields, letters_of
from hpaloc.files import spelled_as_on_disk
from hpaloc.ids import alike, normal_text
from hpaloc.interpretation.annotated import check_choice, read_example_cells, read_mixed_fields
from hpaloc.layout import PATTERNS
from hpaloc.manifests import SheetRow
from hpaloc.mixtures.reading import load_reading
from hpaloc.network.folder import check_folder, check_network, check_starting_weights, read_settings
from hpaloc.network.options import ModelError
from hpaloc.progress import log
from hpaloc.scan import Scan
from hpaloc.seen.record import load_seen
from hpaloc.segmentation.settings import NetworkWeights
from hpaloc.segmentation.weights import WeightsError, named_files
from hpaloc.sheet import NAMED, OPTIONAL

# The files that a model folder needs to predict.
MODEL_FILES = ("model.keras", "config.json", "thresholds.json", "checksums.json")
# Those that it also has if it reads mixtures.
READING_FILES = ("mixtures.json", "mixtures.checksums.json")
# Those that say what trained it.
SEEN_FILES = ("seen.npz", "seen.checksums.json")


def spell_paths(config: dict[str, Any]) -> None:
    """Spell the paths of model and weights in a completed configuration as the disk does, in place."""
    for section, key in (
        (config["model"], "path"),
        (config["train"], "weights"),
        *((config["segmentation"]["weights"], key) for key in config["segmentation"]["weights"]),
    ):
        if section[key]:
            section[key] = spelled_as_on_disk(section[key])


def check_places(config: Mapping[str, Any]) -> None:
    """Raise ConfigError if a file that a user names is where this run writes: Snakemake would delete it first.

    ``config`` is complete. With model.path nothing is trained, and the model may be in ``results/model``.
    """
    collections = config["collections"]
    made_by = {"simulated": "simulate", "downloaded": "download"}
    written = [
        pattern.partition("{collection}")[0] + name
        for kind, pattern in PATTERNS.items()
        for name, collection in collections.items()
        if kind not in made_by or made_by[kind] in collection
    ]
    written += [
        f"results/{name}" for name in ("evaluation", "browser", "figures", "interpretation", "run", "report.zip")
    ]
    written += [f"results/sheet/{name}.parquet" for name in collections]
    written += [f"results/sheet/{name}.csv" for name in ("rejected", "warnings", "summary")]
    written += ["results/few_shot", "logs", "benchmarks"]
    if not config["model"]["path"]:
        written += ["results/dataset", "results/model"]
        written += ["results/pretraining"] if config["train"]["pretraining"] else []
        written += ["results/controls"] if config["evaluation"]["controls"] else []
        written += ["results/held_out"] if config["interpretation"]["held_out"] else []
    folders = [os.path.realpath(folder) for folder in written]
    for key, path in _named_paths(config):
        # What stands in a pattern before its first placeholder or wildcard.
        start = re.split(r"[{*?\[]", path)[0]
        place = os.path.realpath(start)
        if start and any(place == folder or place.startswith(folder + os.sep) for folder in folders):
            raise ConfigError(
                f"config key {key}: {path} is where this run writes, and would be deleted; copy it to another "
                "folder and name the copy"
            )


def _named_paths(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key and the path or pattern of each file that a user names, except the model."""
    yield "train.weights", config["train"]["weights"]
    for network, path in config["segmentation"]["weights"].items():
        yield f"segmentation.weights.{network}", path or ""
    yield "few_shot.table", config["few_shot"]["table"] or ""
    mixtures = config["interpretation"]["mixtures"]
    if mixtures and mixtures["collection"] in config["collections"]:
        yield "interpretation.mixtures.table", known_mixtures(config)
    for name, collection in config["collections"].items():
        images = collection.get("images", [])
        of_colours = (
            {f"images.{colour}": patterns for colour, patterns in images.items()} if isinstance(images, dict) else {}
        )
        patterns = {"sheet": [collection.get("sheet", "")], **(of_colours or {"images": images})}
        for section in ("masks", "truth"):
            patterns |= {f"{section}.{key}": [pattern] for key, pattern in collection.get(section, {}).items()}
        for key, of_key in patterns.items():
            for pattern in of_key:
                if pattern:
                    yield f"collections.{name}.{key}", pattern.replace("{root}", collection["root"])


def check_training(config: Mapping[str, Any]) -> None:
    """Raise ConfigError if a completed configuration names no usable training collection, or no file of weights."""
    collections = config["collections"]
    names = training_collections(config)
    if len(set(names)) < len(names):
        raise ConfigError(
            f"config key train.pretraining.collection: {names[0]!r} is also train.collection; name another collection"
        )
    for name, key in zip(reversed(names), ("train.collection", "train.pretraining.collection"), strict=False):
        if name not in collections:
            raise ConfigError(f"config key {key}: {name!r} is not among the collections ({', '.join(collections)})")
        if not collections[name]["labels"]:
            raise ConfigError(f"config key {key}: the collection {name!r} has no labels; set its labels: true")
        if config["curation"]["labels"] == "cells" and not {"truth", "simulate"} & set(collections[name]):
            raise ConfigError(f"config key curation.labels: cells needs the truth of the collection {name!r}")
    if config["train"]["blends"] and not {"green", "blue"} <= set(config["train"]["channels"]):
        raise ConfigError("config key train.blends: blending needs green and blue; add them to train.channels")
    _check_colours(config, [*names, *config["predict"]["collections"]], config["train"]["channels"], "train.channels")
    weights = config["train"]["weights"]
    if weights not in ("none", "imagenet"):
        try:
            check_starting_weights(weights)
        except ModelError as error:
            raise ConfigError(str(error)) from None
    if config["evaluation"]["controls"]:
        if config["curation"]["validation_fraction"] == 0:
            raise ConfigError(
                "config key evaluation.controls: a control is scored on a validation part, and there is none"
            )
        if not any(collections[name]["labels"] and name not in names for name in config["predict"]["collections"]):
            raise ConfigError("config key evaluation.controls: there is no labelled collection to predict and score")


def _check_colours(config: Mapping[str, Any], names: Sequence[str], channels: Sequence[str], key: str) -> None:
    """Raise ConfigError naming ``key`` if one of the collections ``names`` lacks a colour that a network sees."""
    for name in names:
        lacking = [colour for colour in channels if colour not in colours_of(config["collections"][name])]
        if lacking:
            others = ", ".join(colour for colour in channels if colour not in lacking)
            way_out = f"train a network without it, train.channels: [{others or 'green, blue'}]"
            raise ConfigError(
                f"config key {key}: the network sees {' and '.join(lacking)}, which the collection {name} lacks "
                f"(collections.{name}.channels); {way_out}"
            )


def check_rows(name: str, scan: Scan, config: Mapping[str, Any]) -> None:
    """Raise ConfigError if a collection leaves nothing to train on, to validate on, or to blend.

    ``scan`` is that of the collection ``name``; ``config`` is complete. Curation and training would find the same
    after hours of segmentation; what depends on the images (filters, near-duplicates) only they can find.
    """
    collection = f"collection {name}"
    used = _rows_that_train(collection, scan, config["curation"])
    _check_criteria(name, used, scan, config)
    _check_groups(collection, used, scan, config["curation"])
    labels = [_labels_of(row, scan, config["curation"]) for row in used]
    if config["train"]["head"] == "softmax" and any(len(own) > 1 for sets in labels for own in sets):
        raise ConfigError(
            "config key train.head: softmax needs exactly one location a cell; use sigmoid or curation.labels: single"
        )
    alone = {own[0] for sets in labels for own in sets if len(own) == 1} - {NEGATIVE}
    # The sheet does not say the labels of simulated cells.
    if config["train"]["blends"] and name == config["train"]["collection"] and all(labels) and len(alone) < 2:
        raise ConfigError(
            "config key train.blends: blending needs cells of one location alone, from at least two locations"
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
    """Check that a sheet has the columns that ``curation.group_by`` names, and warn of fields without a value.

    An antibody may be absent, and in the collection of the pretraining any of them.
    """
    group_by = config["curation"]["group_by"]
    if name == config["train"]["collection"]:
        asked = [column for column in _columns(group_by) if column != "antibody"]
        _check_columns("curation.group_by", name, scan, asked, ("duplicates", "field"))
    # By default, sheets without antibodies are usual.
    for column in _columns(group_by) if group_by != ["antibody", "duplicates"] else ():
        if lacking := sum(_value(row, scan, column) is None for row in used):
            log.warning(
                "collection %s: %d of %d training fields have no %s; in curation.group_by each has one of its own",
                *(name, lacking, len(used), column),
            )


def _check_groups(collection: str, used: Sequence[SheetRow], scan: Scan, curation: Mapping[str, Any]) -> None:
    """Raise ConfigError if the training fields cannot be split into a training and a validation part."""
    groups = _groups(used, scan, curation["group_by"])
    fraction = curation["validation_fraction"]
    if len(groups) < 2 and fraction > 0:
        cause, others, instead = "there is one training field", "more fields", ""
        if len(used) > 1:
            column, value = _shared(used, scan, curation["group_by"])
            cause = f"all {len(used)} training fields have the {column} {value}"
            others, instead = f"fields of another {column}", f" or remove {column} from curation.group_by"
            if column == "antibody" and len(_columns(curation["group_by"])) == 1:
                instead = " or curation.group_by: [duplicates] (an antibody is then in both parts)"
            if value is None:
                cause = f"all {len(used)} training fields are in one group by {column}"
                others, instead = "fields of another group", " or remove one of these from curation.group_by"
        raise ConfigError(
            f"{collection}: {cause}, and a split into training and validation needs two groups; add {others}, or set "
            f"curation.validation_fraction: 0 (no validation){instead}"
        )
    for members in groups:
        field_of = {row.split: row.id for row in members if row.split}
        if len(field_of) > 1:
            column, value = _shared(members, scan, curation["group_by"])
            which = f"the {column} {value}" if value is not None else f"one group by {column}"
            raise ConfigError(
                f"{collection}: the column split puts {field_of['train']} and {field_of['validation']} of {which} into "
                f"different parts; give them the same part, or remove {column if value else 'one of these'} from "
                "curation.group_by"
            )
    # A field without a part goes with its group.
    parts = {next((row.split for row in members if row.split), None) for members in groups}
    if None not in parts:
        for part in ("train", *(["validation"] if fraction > 0 else [])):
            if part not in parts:
                raise ConfigError(
                    f"{collection}: the column split leaves the part {part} without fields; name some, or leave cells "
                    "of the column empty"
                )


def _labels_of(row: SheetRow, scan: Scan, curation: Mapping[str, Any]) -> set[tuple[int, ...]]:
    """Return the label sets that the cells of a field can have in training; empty if they depend on the images."""
    if curation["labels"] != "cells":
        return {row.labels} if row.labels else set()
    return scan.truth.get(row.id, set()) if scan.truth is not None else set()


def _rows_that_train(collection: str, scan: Scan, curation: Mapping[str, Any]) -> list[SheetRow]:
    """Return the rows whose labels allow their cells to be examples; raise ConfigError if there are none."""
    if curation["labels"] == "cells":
        return [row for row in scan.rows if scan.truth is None or row.id in scan.truth]
    single = curation["labels"] == "single"
    used = [row for row in scan.rows if row.labels and (len(row.labels) == 1 or not single)]
    if not used:
        raise ConfigError(
            f"{collection}: every field has several labels, and curation.labels: single trains on fields with one; set "
            "curation.labels: all"
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
            f"{collection}: every field that could train is labelled {NEGATIVE} ({NAMES[NEGATIVE]}), and "
            "curation.negatives.negative_fields: false leaves them out"
        )
    return positive


def check_unseen(config: Mapping[str, Any], scans: Mapping[str, Scan], scored: Sequence[str]) -> None:
    """Raise ConfigError if a collection to score has labels only in fields whose IDs or antibodies train the model.

    What depends on images and on other columns of sheets, the scores leave out. ``config`` is complete, ``scans`` are
    those of the collections by name, ``scored`` names the collections that are scored.
    """
    used = []
    for name in training_collections(config):
        used += _rows_that_train(f"collection {name}", scans[name], config["curation"])
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
    """Raise ConfigError if ``predict.pool_by`` names a column of which a predicted collection's sheet has no values.

    ``scans`` are those of the collections by name, empty if they are not known.
    """
    for name in config["predict"]["collections"] if scans else ():
        table = "sheet" if "sheet" in config["collections"][name] else "pattern"
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
    above: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while above.setdefault(key, key) != key:
            above[key] = key = above[above[key]]
        return key

    for row in rows:
        for column in _columns(group_by):
            if (value := _value(row, scan, column)) is not None:
                above[root(("", row.id))] = root((column, value))
    groups: dict[tuple[str, str], list[SheetRow]] = {}
    for row in rows:
        groups.setdefault(root(("", row.id)), []).append(row)
    return list(groups.values())


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
    curation = config["curation"]
    if not held_out or (curation["labels"] == "cells" and scans[source].truth is None):
        return
    used = _rows_that_train(f"collection {source}", scans[source], curation)
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
    if trains and config["curation"]["labels"] != "cells":
        return {own for row in scan.rows for own in _labels_of(row, scan, config["curation"])}
    if scan.truth is None:
        return None if "simulate" in config["collections"][name] else {row.labels for row in scan.rows if row.labels}
    return {own for sets in scan.truth.values() for own in sets}


def check_model(config: Mapping[str, Any]) -> None:
    """Raise ConfigError if a completed configuration names no valid model folder, or other tiles than its model's."""
    path = config["model"]["path"]
    if path is None:
        raise ConfigError("config key model.path: predict_only needs the folder of a trained model")
    for name in MODEL_FILES:
        if not Path(path, name).is_file():
            raise ConfigError(f"config key model.path: {path} is not the folder of a trained model ({name} is missing)")
    try:
        check_folder(Path(path))
        made, _ = read_settings(Path(path))
        check_network(Path(path, "model.keras"), made)
        load_reading(Path(path))
        if load_seen(Path(path)) is None:
            log.warning(
                "config key model.path: %s does not say what trained the model (seen.npz), so fields and cells that it "
                "has seen are not left out of the scores",
                path,
            )
    except ModelError as error:
        raise ConfigError(str(error)) from None
    _check_colours(config, config["predict"]["collections"], made["channels"], "model.path")
    try:
        masked = made["preprocessing"]["tiles"]["mask_neighbours"]
    except (KeyError, TypeError):
        # Folders of the first versions do not record it.
        return
    asked = config["tiles"]["mask_neighbours"]
    if asked != masked:
        raise ConfigError(
            f"config key tiles.mask_neighbours: is {str(asked).lower()}, but the model {path} was trained on tiles "
            f"with {str(masked).lower()}"
        )


def check_segmentation(config: Mapping[str, Any], name: str) -> None:
    """Raise ConfigError if a completed configuration does not allow the segmentation of the collection ``name``.

    hpacellseg needs red, and the files of weights that are named must exist, as they were at their first use.
    """
    if config["segmentation"]["backend"] == "hpacellseg":
        if "red" not in colours_of(config["collections"][name]):
            raise ConfigError(
                f"config key segmentation.backend: hpacellseg finds cells in red, which the collection {name} lacks "
                f"(collections.{name}.channels); use watershed, or masks from elsewhere"
            )
        try:
            named_files(NetworkWeights(**config["segmentation"]["weights"]))
        except WeightsError as error:
            raise ConfigError(str(error)) from None


def check_interpretation(config: Mapping[str, Any], scans: Mapping[str, Scan]) -> None:
    """Raise ConfigError if a completed configuration leaves nothing to interpret, or contradicts itself.

    ``scans`` are those of the collections by name, empty if they are not known. Raises SheetError for an unusable
    table of mixtures.
    """
    settings = config["interpretation"]
    trained = config["model"]["path"] is None
    if len(settings["held_out"]) == 1:
        raise ConfigError(
            "config key interpretation.held_out: one class alone cannot be distinguished; hold out two or more"
        )
    if settings["held_out"] and not trained:
        raise ConfigError(
            "config key interpretation.held_out: classes are held out of a training, but with model.path there is none"
        )
    if trained:
        check_training(config)
    elif not any(config["collections"][name]["labels"] for name in config["predict"]["collections"]):
        raise ConfigError("config key predict.collections: interpret needs a labelled collection")
    mixtures = settings["mixtures"]
    if mixtures and mixtures["collection"] not in config["predict"]["collections"]:
        raise ConfigError(
            f"config key interpretation.mixtures.collection: {mixtures['collection']!r} is not predicted "
            f"({', '.join(config['predict']['collections'])})"
        )
    if mixtures:
        table = known_mixtures(config)
        if not Path(table).is_file():
            raise ConfigError(f"config key interpretation.mixtures.table: no such file: {table}")
        if scans:
            ids = {row.id for row in scans[mixtures["collection"]].rows}
            of_2018 = config["collections"][mixtures["collection"]]["labels"] == "hpa2018"
            check_fields(f"mixtures {table}", read_mixed_fields(table, of_2018), ids, mixtures["collection"])


def known_mixtures(config: Mapping[str, Any]) -> str:
    """Return the path of the table of known mixtures in a completed configuration, as the disk spells it."""
    mixtures = config["interpretation"]["mixtures"]
    root = config["collections"][mixtures["collection"]]["root"]
    return spelled_as_on_disk(mixtures["table"].replace("{root}", root))


def check_few_shot(config: Mapping[str, Any], scans: Mapping[str, Scan]) -> None:
    """Raise ConfigError if a completed configuration names no table of cells, or a collection that is not predicted.

    ``scans`` are those of the collections by name, empty if they are not known. Raises SheetError for an unusable
    table.
    """
    settings = config["few_shot"]
    if settings["table"] is None:
        raise ConfigError("config key few_shot.table: few_shot needs a table of cells that you labelled")
    if not Path(spelled_as_on_disk(settings["table"])).is_file():
        raise ConfigError(f"config key few_shot.table: no such file: {settings['table']}")
    if settings["collection"] not in config["predict"]["collections"]:
        raise ConfigError(
            f"config key few_shot.collection: {settings['collection']!r} is not predicted "
            f"({', '.join(config['predict']['collections'])})"
        )
    if scans:
        ids = {row.id for row in scans[settings["collection"]].rows}
        cells = read_example_cells(settings["table"])
        fields = dict.fromkeys(field for field, _ in cells)
        check_fields(f"examples {settings['table']}", fields, ids, settings["collection"])
        check_choice(label for (field, _), label in cells.items() if field in ids)
