"""Whether the settings, and the files that they name, allow what is asked."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpaloc.baselines.record import load_baselines
from hpaloc.config import (
    ConfigError,
    colours_of,
    curation_of,
    has_crop_table,
    has_truth,
    image_patterns,
    training_collections,
)
from hpaloc.delimited import check_fields
from hpaloc.files import spelled_as_on_disk
from hpaloc.interpretation.annotated import check_choice, read_example_cells, read_mixed_fields
from hpaloc.layout import PATTERNS
from hpaloc.mixtures.reading import load_reading
from hpaloc.network.folder import check_folder, check_network, check_starting_weights, read_settings
from hpaloc.network.fusion import load_fusion
from hpaloc.network.options import ModelError
from hpaloc.progress import log
from hpaloc.scan import Scan
from hpaloc.seen.record import load_seen
from hpaloc.segmentation.settings import NetworkWeights
from hpaloc.segmentation.weights import ALL_NETWORKS, NETWORKS, WeightsError, compare, find, named_file, used_networks
from hpaloc.unpacking import PLACE, model_folder, provide_model

NO_MODEL = "config key model.path: predict_only needs a trained model: its folder, its zip, or the address of its zip"
# The files that a model folder needs to predict.
MODEL_FILES = ("model.keras", "config.json", "thresholds.json", "checksums.json")
# Those that it also has if it reads mixtures.
READING_FILES = ("mixtures.json", "mixtures.checksums.json")
# Those that say what trained it.
SEEN_FILES = ("seen.npz", "seen.checksums.json")
# Those of its baselines.
BASELINE_FILES = ("baselines.json", "baselines.checksums.json")
# Those that it also has if the network is fused with its regression.
FUSION_FILES = ("fusion.json", "fusion.checksums.json")


def spell_paths(config: dict[str, Any]) -> None:
    """Spell the paths of model and weights in a completed configuration as the disk does, in place."""
    for section, key in (
        (config["model"], "path"),
        (config["train"], "weights"),
        *((config["segmentation"]["weights"], network) for network in ALL_NETWORKS),
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
        written += ["results/dataset", "results/model", "results/model.zip", "results/cross_validation"]
        written += ["results/pretraining"] if config["train"]["pretraining"] else []
        written += ["results/controls"] if config["evaluation"]["controls"] else []
        written += ["results/held_out"] if config["interpretation"]["held_out"] else []
    folders = [os.path.realpath(folder) for folder in written]
    for key, path in _named_paths(config):
        # The part of a pattern before its first placeholder or wildcard.
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
    for network in ALL_NETWORKS:
        yield f"segmentation.weights.{network}", config["segmentation"]["weights"][network] or ""
    yield "few_shot.table", config["few_shot"]["table"] or ""
    mixtures = config["interpretation"]["mixtures"]
    if mixtures and mixtures["collection"] in config["collections"]:
        yield "interpretation.mixtures.table", known_mixtures(config)
    if any("atlas" in collection for collection in config["collections"].values()):
        yield "atlas.xml", (config["atlas"]["xml"] or "").replace("{root}", config["root"])
    for name, collection in config["collections"].items():
        patterns = {"sheet": [collection.get("sheet", "")]}
        if has_crop_table(collection):
            patterns["crops"] = [collection["crops"]]
        patterns |= {f"antibodies.{part}": [path] for part, path in collection.get("antibodies", {}).items()}
        for colour, of_colour in image_patterns(collection).items():
            patterns[f"images.{colour}" if colour else "images"] = of_colour
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
        section, curation = curation_of(config, name)
        if curation["labels"] == "cells" and not has_truth(collections[name]):
            raise ConfigError(f"config key {section}.labels: cells needs the truth of the collection {name!r}")
    if config["train"]["blends"] and not {"green", "blue"} <= set(config["train"]["channels"]):
        raise ConfigError("config key train.blends: blending needs green and blue; add them to train.channels")
    _check_colours(config, [*names, *config["predict"]["collections"]], config["train"]["channels"], "train.channels")
    weights = config["train"]["weights"]
    if weights not in ("none", "imagenet"):
        try:
            check_starting_weights(weights)
            if Path(weights).suffix == ".keras":
                _check_seen(Path(weights).parent, "train.weights", weights)
        except ModelError as error:
            raise ConfigError(str(error)) from None
    if config["evaluation"]["controls"]:
        if config["curation"]["validation_fraction"] == 0:
            raise ConfigError(
                "config key evaluation.controls: a control is scored on a validation part, and there is none"
            )
        if not any(collections[name]["labels"] and name not in names for name in config["predict"]["collections"]):
            raise ConfigError("config key evaluation.controls: there is no labelled collection to predict and score")


def _check_seen(folder: Path, key: str, given: str) -> None:
    """Warn if a model folder does not say what trained it; raise ModelError if what it says is damaged."""
    if load_seen(folder) is None:
        log.warning(
            "config key %s: %s does not say what trained the model (seen.npz), so fields and cells that it has seen "
            "are not left out of the scores",
            key,
            given,
        )


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


def check_model(config: Mapping[str, Any]) -> None:
    """Make the folder of the model that a completed configuration names, if it is a zip, and check it.

    Raises ConfigError if there is no valid model, or it needs other tiles or colours than the configuration makes.
    """
    given, sha256 = config["model"]["path"], config["model"]["sha256"]
    if given is None:
        raise ConfigError(NO_MODEL)
    try:
        provide_model(given, sha256)
        path = model_folder(given, sha256)
        # A zip is not unpacked again while its folder is there.
        again = f"; delete {path}, and it is unpacked again" if PLACE in Path(path).parents else ""
        for name in MODEL_FILES:
            if not Path(path, name).is_file():
                raise ConfigError(
                    f"config key model.path: {path} is not the folder of a trained model ({name} is missing){again}"
                )
        try:
            check_folder(Path(path))
        except ModelError as error:
            raise ModelError(f"{error}{again}") from None
        made, _ = read_settings(Path(path))
        check_network(Path(path, "model.keras"), made)
        load_reading(Path(path))
        load_baselines(Path(path))
        load_fusion(Path(path))
        _check_seen(Path(path), "model.path", given)
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
            f"config key tiles.mask_neighbours: is {str(asked).lower()}, but the model {given} was trained on tiles "
            f"with {str(masked).lower()}"
        )


def check_packing(config: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a completed configuration trains a model and says under which licence its images are."""
    if config["model"]["path"]:
        raise ConfigError("config key model.path: pack_model packs the model that a run trains; leave the key out")
    if not config["model"]["images_licence"]:
        raise ConfigError(
            "config key model.images_licence: pack_model needs the licence of the training images, such as CC BY-SA 4.0"
        )


def check_segmentation(config: Mapping[str, Any], name: str) -> None:
    """Raise ConfigError if a completed configuration does not allow the segmentation of the collection ``name``.

    hpacellseg needs red. The files of weights that are named must exist, as they were at their first use, and a network
    that is used must be named or published.
    """
    backend, colours = config["segmentation"]["backend"], colours_of(config["collections"][name])
    if backend == "hpacellseg" and "red" not in colours:
        raise ConfigError(
            f"config key segmentation.backend: hpacellseg finds cells in red, which the collection {name} lacks "
            f"(collections.{name}.channels); use watershed, or masks from elsewhere"
        )
    weights = NetworkWeights(**config["segmentation"]["weights"])
    try:
        used = used_networks(backend, "yellow" in colours)
        for network in NETWORKS.get(backend, ()):
            found = find(weights, network) if network in used else named_file(weights, network)
            if isinstance(found, Path):
                compare(found)
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
