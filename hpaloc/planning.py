"""What can be known before the first job: whether configuration, sheets and files are fit for what is asked."""

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpaloc.classes import NAMES, NEGATIVE
from hpaloc.config import ConfigError, training_collections
from hpaloc.files import spelled_as_on_disk
from hpaloc.interpretation.annotated import check_choice, check_examples, check_mixtures, read_example_cells
from hpaloc.manifests import SheetRow
from hpaloc.mixtures.reading import load_reading
from hpaloc.network.folder import check_folder, check_network, check_starting_weights, read_settings
from hpaloc.network.options import ModelError
from hpaloc.segmentation.weights import WeightsError, named_files

# What a model folder must hold to predict.
MODEL_FILES = ("model.keras", "config.json", "thresholds.json", "checksums.json")
# And beside them, where it reads mixtures.
READING_FILES = ("mixtures.json", "mixtures.checksums.json")


def check_training(config: Mapping[str, Any]) -> None:
    """Raise ConfigError where a completed configuration names no usable training collection, or no file of weights."""
    collections = config["collections"]
    names = training_collections(config)
    if len(set(names)) < len(names):
        raise ConfigError(
            f"config key train.pretraining.collection: {names[0]!r} is the collection that trains at last"
        )
    for name, key in zip(reversed(names), ("train.collection", "train.pretraining.collection"), strict=False):
        if name not in collections:
            raise ConfigError(f"config key {key}: {name!r} is not among the collections ({', '.join(collections)})")
        if not collections[name]["labels"]:
            raise ConfigError(f"config key {key}: the collection {name!r} has no labels (labels: true)")
        if config["curation"]["labels"] == "cells" and not {"truth", "simulate"} & set(collections[name]):
            raise ConfigError(f"config key curation.labels: cells needs the truth of the collection {name!r}")
    if config["train"]["blends"] and not {"green", "blue"} <= set(config["train"]["channels"]):
        raise ConfigError("config key train.blends: blending needs green and blue, and train.channels lacks one")
    weights = config["train"]["weights"]
    if weights not in ("none", "imagenet"):
        try:
            check_starting_weights(weights)
        except ModelError as error:
            raise ConfigError(str(error)) from None
    if config["evaluation"]["controls"]:
        if config["curation"]["validation_fraction"] == 0:
            raise ConfigError(
                "config key evaluation.controls: a control is scored on a validation part, of which there is none"
            )
        if not any(collections[name]["labels"] and name not in names for name in config["predict"]["collections"]):
            raise ConfigError("config key evaluation.controls: there is no labelled collection to predict and score")


def check_rows(name: str, rows: Sequence[SheetRow], config: Mapping[str, Any]) -> None:
    """Raise ConfigError where the rows of a collection leave nothing to train on, or nothing to validate on.

    ``rows`` are those of the collection ``name``; ``config`` is complete. Curation finds the same later, after hours
    of segmentation; what only the images tell (filters, near-duplicates) it alone finds.
    """
    curation = config["curation"]
    collection = f"collection {name}"
    used = _rows_that_train(collection, rows, curation)
    groups = _groups(used, curation["group_by"])
    fraction = curation["validation_fraction"]
    if len(groups) < 2 and fraction > 0:
        antibody = next(iter(groups)) if len(used) > 1 else None
        cause = f"all {len(used)} fields that train are of the antibody {antibody}" if antibody else "one field trains"
        others = "fields of another antibody" if antibody else "more fields"
        instead = " or curation.group_by: [duplicates] (an antibody is then in both parts)" if antibody else ""
        raise ConfigError(
            f"{collection}: {cause}, and a split into training and validation needs two groups; add {others}, or set "
            f"curation.validation_fraction: 0 (no validation){instead}"
        )
    for group, members in groups.items():
        field_of = {row.split: row.id for row in members if row.split}
        if len(field_of) > 1:
            raise ConfigError(
                f"{collection}: the column split puts {field_of['train']} and {field_of['validation']} of the "
                f"antibody {group} into different parts; give them one part, or leave antibody out of "
                "curation.group_by"
            )
    parts = {row.split for row in used}
    if None not in parts:
        for part in ("train", *(["validation"] if fraction > 0 else [])):
            if part not in parts:
                raise ConfigError(
                    f"{collection}: the column split leaves the part {part} without fields; name some, or leave cells "
                    "of the column empty"
                )


def _rows_that_train(collection: str, rows: Sequence[SheetRow], curation: Mapping[str, Any]) -> list[SheetRow]:
    """Return the rows whose cells can become examples by their labels; ConfigError where there is none."""
    if curation["labels"] == "cells":
        return list(rows)
    single = curation["labels"] == "single"
    used = [row for row in rows if row.labels and (len(row.labels) == 1 or not single)]
    if not used:
        raise ConfigError(
            f"{collection}: every field has several labels, and curation.labels: single trains on fields of one; set "
            "curation.labels: all"
        )
    negatives = curation["negatives"]
    external = negatives["external"]
    if negatives["negative_fields"]:
        return used
    positive = [
        row
        for row in used
        if row.labels != (NEGATIVE,) or (external is not None and fnmatch.fnmatchcase(row.id, external))
    ]
    if not positive:
        raise ConfigError(
            f"{collection}: every field that could train is labelled {NEGATIVE} ({NAMES[NEGATIVE]}), and "
            "curation.negatives.negative_fields: false leaves those out"
        )
    return positive


def _groups(rows: Sequence[SheetRow], group_by: Sequence[str]) -> dict[str, list[SheetRow]]:
    """Return the rows by what must not be split: the antibody where it is known and counts, else the field."""
    groups: dict[str, list[SheetRow]] = {}
    for row in rows:
        by_antibody = "antibody" in group_by and row.antibody is not None
        # A field may be named like an antibody.
        groups.setdefault(str(row.antibody) if by_antibody else f"\0{row.id}", []).append(row)
    return groups


def check_held_out(rows: Mapping[str, Sequence[SheetRow]], config: Mapping[str, Any]) -> None:
    """Raise ConfigError where interpretation.held_out names a class that no field has, or leaves no other class.

    ``rows`` of the collections by name; ``config`` is complete.
    """
    if config["curation"]["labels"] == "cells":
        return
    held_out = set(config["interpretation"]["held_out"])
    known = {label for of_collection in rows.values() for row in of_collection for label in row.labels or ()}
    for label in sorted(held_out - known):
        raise ConfigError(
            f"config key interpretation.held_out: no field is labelled {label} ({NAMES[label]}); leave it out"
        )
    source = training_collections(config)[0]
    if held_out and all(held_out & set(row.labels or ()) for row in rows[source]):
        raise ConfigError(
            f"config key interpretation.held_out: every field of the collection {source} has one of these classes, and "
            "none is left to train on"
        )


def check_model(config: Mapping[str, Any]) -> None:
    """Raise ConfigError where a completed configuration names no folder of a trained model, or other tiles than its."""
    path = config["model"]["path"]
    if path is None:
        raise ConfigError("config key model.path: predict_only needs the folder of a trained model")
    for name in MODEL_FILES:
        if not Path(path, name).is_file():
            raise ConfigError(f"config key model.path: {path} is no folder of a trained model ({name} is missing)")
    try:
        check_folder(Path(path))
        made, _ = read_settings(Path(path))
        check_network(Path(path, "model.keras"), made)
        load_reading(Path(path))
    except ModelError as error:
        raise ConfigError(str(error)) from None
    try:
        masked = made["preprocessing"]["tiles"]["mask_neighbours"]
    except (KeyError, TypeError):
        # Folders of the first versions do not say.
        return
    asked = config["tiles"]["mask_neighbours"]
    if asked != masked:
        raise ConfigError(
            f"config key tiles.mask_neighbours: is {str(asked).lower()}, and the model {path} was trained on tiles "
            f"where it was {str(masked).lower()}"
        )


def check_segmentation(config: Mapping[str, Any]) -> None:
    """Raise ConfigError where files of weights that a completed configuration names are missing or were changed."""
    if config["segmentation"]["backend"] == "hpacellseg":
        try:
            named_files(config["segmentation"])
        except WeightsError as error:
            raise ConfigError(str(error)) from None


def check_interpretation(config: Mapping[str, Any], rows: Mapping[str, Sequence[SheetRow]]) -> None:
    """Raise ConfigError where a completed configuration leaves nothing to interpret, or asks for what it rules out.

    ``rows`` of the collections by name, where they are known. Raises SheetError for a table of mixtures that cannot be
    used.
    """
    settings = config["interpretation"]
    trained = config["model"]["path"] is None
    if len(settings["held_out"]) == 1:
        raise ConfigError("config key interpretation.held_out: one class alone cannot be told from another")
    if settings["held_out"] and not trained:
        raise ConfigError(
            "config key interpretation.held_out: classes are held out of a training, and with model.path there is none"
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
        if rows:
            check_mixtures(table, {row.id for row in rows[mixtures["collection"]]}, mixtures["collection"])


def known_mixtures(config: Mapping[str, Any]) -> str:
    """Return the path of the table of known mixtures that a completed configuration names, as the disk spells it."""
    mixtures = config["interpretation"]["mixtures"]
    root = config["collections"][mixtures["collection"]]["root"]
    return spelled_as_on_disk(mixtures["table"].replace("{root}", root))


def check_few_shot(config: Mapping[str, Any], rows: Mapping[str, Sequence[SheetRow]]) -> None:
    """Raise ConfigError where a completed configuration names no table of cells, or a collection not predicted.

    ``rows`` of the collections by name, where they are known. Raises SheetError for a table that cannot be used.
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
    if rows:
        ids = {row.id for row in rows[settings["collection"]]}
        check_examples(settings["table"], ids, settings["collection"])
        check_choice(label for (field, _), label in read_example_cells(settings["table"]).items() if field in ids)
