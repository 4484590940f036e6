"""Reading, checking and completing the configuration by its JSON schema."""

import copy
import difflib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from hpaloc.addresses import is_address
from hpaloc.classes import COLOURS
from hpaloc.endings import is_imported, unknown_ending
from hpaloc.ids import normal_text

# Where planning writes the sheets of the collections that take their fields from the atlas.
ATLAS_FOLDER = "resources/atlas"

SCHEMA_PATH = Path(__file__).resolve().parents[1] / "workflow" / "schemas" / "config.schema.yaml"


# Keys of `train` on which the network's weights do not depend: the device of its training, and what is learned later.
_BESIDE_TRAINING = ("gpu", "gpus", "xla", "cache", "pretraining", "blends", "fusion")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one sentence that names the key."""

    def __init__(self, sentence: str) -> None:
        # A quoted key may contain a line break.
        super().__init__(" ".join(sentence.splitlines()))


def load_schema() -> dict[str, Any]:
    """Return the JSON schema of the configuration."""
    with open(SCHEMA_PATH, encoding="utf-8") as file:
        # Every job reads the schema; libyaml, if PyYAML has it, is ten times as fast.
        return getattr(yaml, "CSafeLoader", yaml.SafeLoader)(file).get_single_data()


def _fill(value: Any, schema: Mapping[str, Any]) -> None:
    """Add the schema's defaults to ``value`` in place."""
    if isinstance(value, dict):
        for key, of_key in schema.get("properties", {}).items():
            if key not in value and "default" in of_key:
                value[key] = copy.deepcopy(of_key["default"])
            if key in value:
                _fill(value[key], of_key)
        of_others = schema.get("additionalProperties")
        if isinstance(of_others, dict):
            for key in set(value) - set(schema.get("properties", {})):
                _fill(value[key], of_others)


def read_command_line(config: Mapping[str, Any], given: Mapping[str, Any], module: bool = False) -> dict[str, Any]:
    """Return ``config`` with each value of ``--config`` converted to the type that the schema has at its key.

    Snakemake reads ``--config 'predict={views: 1}'`` as text below the first level. Null is null, as in a file. Other
    text stays text if the schema allows text at its key, and a number at the first level becomes text again if the
    schema allows no number; what is left becomes the number or boolean that YAML reads it as.

    given: what Snakemake read from ``--config``, which is already in ``config``
    module: whether ``given`` is of the workflow that uses this one, so that ``config`` is somewhere below its keys
    """
    schema = load_schema()
    read = dict(config)
    for part in _given_to_module(config, given, schema["properties"]) if module else [given]:
        read = _read_texts(read, part, schema)
    return read


def _given_to_module(config: Mapping[str, Any], given: Any, keys: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of ``given``, at any depth, that are at the first level of ``config``."""
    if not isinstance(given, Mapping):
        return []
    own = {key: value for key, value in given.items() if key in keys and key in config and _holds(config[key], value)}
    others = [part for key, value in given.items() if key not in own for part in _given_to_module(config, value, keys)]
    return [own, *others] if own else others


def _holds(value: Any, part: Any) -> bool:
    if isinstance(value, Mapping) and isinstance(part, Mapping):
        return all(key in value and _holds(value[key], part[key]) for key in part)
    return bool(value == part)


def _read_texts(value: Any, given: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(given, Mapping) and isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        # A copy: a module shares its table with the workflow around it.
        read = dict(value)
        for name in given:
            of_key = properties.get(name, others if isinstance(others, dict) else {})
            if name in value:
                read[name] = _read_texts(value[name], given[name], of_key)
        return read
    if isinstance(given, list) and isinstance(value, list):
        choices = (schema, *schema.get("oneOf", ()))
        of_items: Mapping[str, Any] = next((choice["items"] for choice in choices if "items" in choice), {})
        return [_read_texts(part, part, of_items) for part in value]
    allowed = Draft202012Validator(schema)
    if isinstance(value, int | float):
        # At the first level Snakemake turns a folder's name into a number.
        return str(value) if not allowed.is_valid(value) and allowed.is_valid(str(value)) else value
    # An empty text, such as from an empty shell variable, does not mean null.
    if not isinstance(value, str) or not value:
        return value
    try:
        meant = yaml.safe_load(value)
        # YAML 1.1 does not read 1e-3 as a number.
        meant = float(value) if isinstance(meant, str) else meant
    except (ValueError, yaml.YAMLError):
        return value
    # Snakemake drops quotes: what may be text, such as "007", stays text.
    return value if meant is not None and allowed.is_valid(value) else meant


def _settle_numbers(value: Any, key: str = "") -> Any:
    """Return ``value`` with whole floats (4.0, 1e3) as integers.

    Raises ConfigError for a key that is not text, a text with a NUL, a number that is not finite, and a value that JSON
    does not have.
    """
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise ConfigError(f"config{f' key {key}' if key else ''}: the key {name!r} is not text; quote it")
        return {name: _settle_numbers(part, f"{key}.{name}" if key else str(name)) for name, part in value.items()}
    if isinstance(value, list):
        return [_settle_numbers(part, f"{key}.{place}") for place, part in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"config key {key}: {value} is not a finite number")
        # JSON schema accepts 4.0 as an integer.
        return int(value) if value.is_integer() else value
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"config key {key}: {value!r} contains a NUL character, which no path or name can have")
    if value is not None and not isinstance(value, str | int):
        # YAML reads an unquoted 2024-01-01 as a date, which cannot be written into the records of the run.
        raise ConfigError(f"config key {key}: {value} is read as a {type(value).__name__}; quote it")
    return value


def _sentence(error: ValidationError) -> str:
    key = ".".join(str(part) for part in error.absolute_path)
    where = f"config key {key}" if key else "config"
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        unknown = next(name for name in error.instance if name not in known)
        close = difflib.get_close_matches(str(unknown), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{where}: unknown key {unknown!r} ({hint})"
    if error.validator == "required":
        lacking = next(name for name in error.validator_value if name not in error.instance)
        return f"{where}: the key {lacking!r} is missing"
    if "propertyNames" in error.absolute_schema_path:
        return f"{where}: the name {error.instance!r} may have only letters, digits, - and _"
    if error.validator == "enum" and error.parent:
        error = error.parent
    above, last = ["", "", *error.absolute_path][-2:]
    if error.instance is None and last in ("green", "blue"):
        needed = "files" if above == "images" else "channel"
        return f"{where}: is null, but every collection needs green (protein) and blue (nuclei); name its {needed}"
    if error.validator == "oneOf":
        kinds = {
            "images": "a file pattern, a list of them nor one for each colour",
            **dict.fromkeys(COLOURS, "a file pattern nor a list of them"),
            "project": "max, mean, sharpest nor the number of a plane",
        }
        return f"{where}: {error.instance!r} is neither {kinds.get(key.split('.')[-1], 'a number of µm nor file')}"
    if error.validator == "type":
        wanted = error.validator_value
        wanted = " or ".join(wanted) if isinstance(wanted, list) else wanted
        quoted = "string" in wanted and isinstance(error.instance, int | float)
        # The value is not as in the file: YAML reads 10:00:00 as 36000.
        hint = "; quote it, since YAML reads 10:00:00, 007 or on as something else" if quoted else ""
        return f"{where}: {error.instance!r} is not of type {wanted}{hint}"
    if error.validator in ("minimum", "maximum") and "unit" in error.schema:
        least, most, unit = (error.schema[name] for name in ("minimum", "maximum", "unit"))
        return f"{where}: {error.instance!r} is not a number of {unit} from {least} to {most}"
    if error.validator == "pattern":
        return f"{where}: {error.instance!r} is not written like {error.schema['examples'][0]}"
    if error.validator == "enum":
        values = (value if isinstance(value, str) else json.dumps(value) for value in error.validator_value)
        return f"{where}: {error.instance!r} is not one of {', '.join(values)}"
    if error.validator in ("minItems", "minProperties", "minLength"):
        has = f"has {len(error.instance)} of at least {error.validator_value} values"
        return f"{where}: {has if error.instance else 'is empty'}"
    return f"{where}: {error.message}"


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a configuration and fill in every default.

    Returns a new dictionary with all keys of the schema, itself complete; collections have ``images`` as a list, or as
    lists (or null) by colour, and ``root``, ``shards`` and ``pixel_size`` of their own.
    Raises ConfigError with one sentence that names the key.
    """
    schema = load_schema()
    if not isinstance(config, Mapping):
        raise ConfigError(f"config: {config!r} is not a table of keys")
    filled = _settle_numbers(dict(config))
    error = best_match(Draft202012Validator(schema).iter_errors(filled))
    if error is not None:
        raise ConfigError(_sentence(error))
    _fill(filled, schema)
    for name, collection in filled["collections"].items():
        for key in ("root", "shards", "pixel_size"):
            collection.setdefault(key, filled[key])
        _check_crops(name, collection)
        _check_source(name, collection)
        _settle_atlas(name, collection)
        _settle_images(name, collection)
        _check_sheet(name, collection)
        _check_planes(name, collection)
        if "truth" in collection and not collection["labels"]:
            raise ConfigError(f"config key collections.{name}: 'truth' only applies with labels: true")
        given = filled["segmentation"]["backend"] == "masks" and not collection.get("crops")
        if given and "masks" not in collection:
            raise ConfigError(f"config key collections.{name}: segmentation.backend masks needs the key 'masks'")
    _settle_model(filled["model"])
    _check_areas("curation", filled["curation"])
    if pretraining := filled["train"]["pretraining"]:
        _check_areas("train.pretraining.curation", pretraining["curation"])
        if pretraining["curation"]["labels"] is None:
            known = has_truth(filled["collections"].get(pretraining["collection"], {}))
            pretraining["curation"]["labels"] = "cells" if known else "single"
    predicted = filled["predict"]["collections"]
    if predicted is None:
        others = [name for name in filled["collections"] if name not in training_collections(filled)]
        filled["predict"]["collections"] = others or [filled["train"]["collection"]]
    for name in filled["predict"]["collections"]:
        if name not in filled["collections"]:
            key = "predict.collections" if predicted else "train.collection"
            raise ConfigError(
                f"config key {key}: {name!r} is not among the collections ({', '.join(filled['collections'])})"
            )
    if filled["few_shot"]["collection"] is None:
        filled["few_shot"]["collection"] = filled["predict"]["collections"][0]
    return filled


def training_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the training in a completed configuration on which the network's weights depend."""
    return {key: value for key, value in config["train"].items() if key not in _BESIDE_TRAINING}


def _check_areas(section: str, curation: Mapping[str, Any]) -> None:
    for what in ("cell", "nucleus"):
        least, most = curation[f"min_{what}_area"], curation[f"max_{what}_area"]
        if least is not None and most is not None and least > most:
            raise ConfigError(f"config key {section}.min_{what}_area: {least} is above max_{what}_area, {most}")


def _settle_model(model: dict[str, Any]) -> None:
    """Write the path of a model in its shortest form; raise ConfigError if its digest is missing, or not of a model."""
    path, sha256 = model["path"], model["sha256"]
    if path is None and sha256:
        raise ConfigError("config key model.sha256: only applies with model.path, a zip or its address")
    if path and is_address(path):
        if not sha256:
            raise ConfigError(
                f"config key model.path: {path} is an address, which may have another file tomorrow; give the SHA-256 "
                "digest of the zip as model.sha256"
            )
    elif path:
        # Shells add a slash to a folder; paths of its files would have two.
        model["path"] = str(Path(path))


def _check_crops(name: str, collection: Mapping[str, Any]) -> None:
    """Raise ConfigError if keys of a collection contradict that it has ready-made crops, or a table of them."""
    crops = collection.get("crops")
    made = [key for key in ("simulate", "download", "atlas", "masks", "truth") if key in collection]
    if crops and made:
        raise ConfigError(
            f"config key collections.{name}: {made[0]!r} cannot be combined with 'crops', pictures of one cell"
        )
    if not has_crop_table(collection):
        if "antibodies" in collection:
            raise ConfigError(f"config key collections.{name}.antibodies: only applies with a table of crops (crops)")
        return
    for key in ("sheet", "images", "series", "time", "project"):
        if key in collection:
            raise ConfigError(
                f"config key collections.{name}: {key!r} cannot be combined with 'crops: {crops}', whose table names "
                "the files"
            )
    if collection["labels"] == "hpa2018":
        raise ConfigError(f"config key collections.{name}.labels: a table of crops has names of locations; write true")
    if named_channels(collection):
        raise ConfigError(
            f"config key collections.{name}.channels: only null applies with 'crops: {crops}', whose table says which "
            "colour is where"
        )


def _check_source(name: str, collection: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a collection is simulated, downloaded or has images, and only one of them."""
    if "simulate" in collection and "download" in collection:
        raise ConfigError(f"config key collections.{name}: 'download' cannot be combined with 'simulate'")
    if "download" in collection and "images" in collection:
        raise ConfigError(
            f"config key collections.{name}: 'images' cannot be combined with 'download', which makes them"
        )
    if "simulate" in collection:
        if collection["pixel_size"] == "file":
            raise ConfigError(
                f"config key collections.{name}: pixel_size 'file' cannot be combined with 'simulate', "
                "which makes the files; give a number of µm"
            )
        for key in ("images", "truth", "masks"):
            if key in collection:
                raise ConfigError(
                    f"config key collections.{name}: {key!r} cannot be combined with 'simulate', which makes them"
                )
        if not collection["labels"]:
            raise ConfigError(f"config key collections.{name}: a simulated collection needs labels: true")
    elif not any(key in collection for key in ("images", "download")) and not has_crop_table(collection):
        raise ConfigError(f"config key collections.{name}: the key 'images' (or 'simulate' or 'download') is missing")


def _settle_atlas(name: str, collection: dict[str, Any]) -> None:
    """Write the sheet of a collection that takes its fields from the atlas."""
    if "atlas" not in collection:
        return
    sheet = f"{ATLAS_FOLDER}/{collection['atlas']}.csv"
    # A completed configuration, such as the record of a run, has both.
    if collection.setdefault("sheet", sheet) != sheet:
        raise ConfigError(f"config key collections.{name}: 'sheet' cannot be combined with 'atlas', which makes it")
    if collection["labels"] == "hpa2018":
        raise ConfigError(f"config key collections.{name}.labels: the atlas's sheets have other numbers; write true")


def _settle_images(name: str, collection: dict[str, Any]) -> None:
    """Write the patterns of images as a list, or as lists by colour, and null as what colours without one have."""
    images = collection.get("images")
    if isinstance(images, str):
        collection["images"] = [images]
    if not isinstance(images, dict):
        return
    for colour in (colour for colour in COLOURS if images[colour] is None):
        if colour in named_channels(collection):
            raise ConfigError(
                f"config key collections.{name}.channels.{colour}: images has no pattern of {colour}; add it, or write "
                "null"
            )
        collection["channels"] = {**collection.get("channels", {}), colour: None}
    given = {colour: images[colour] if colour in colours_of(collection) else None for colour in COLOURS}
    collection["images"] = {colour: [of] if isinstance(of, str) else of for colour, of in given.items()}


def _check_sheet(name: str, collection: Mapping[str, Any]) -> None:
    """Raise ConfigError if a collection without a sheet needs one."""
    needs = {
        "labels": "labels: true needs the key 'sheet', whose column Label has them",
        **dict.fromkeys(("simulate", "download"), "the key 'sheet' is missing, which lists the fields to make"),
    }
    for key, sentence in needs.items():
        listed = "sheet" in collection or has_crop_table(collection)
        if collection.get(key, False) is not False and not listed:
            raise ConfigError(f"config key collections.{name}: {sentence}")


def _check_endings(name: str, collection: Mapping[str, Any], patterns: Sequence[str]) -> None:
    """Raise ConfigError if nothing reads the files of a collection, by the endings of their patterns.

    patterns: of its images
    """
    for pattern in patterns:
        if reason := unknown_ending(pattern):
            raise ConfigError(f"config key collections.{name}.images: {pattern!r} {reason}")
    for section in ("masks", "truth", "download"):
        for key, pattern in collection.get(section, {}).items():
            if isinstance(pattern, str) and is_imported(pattern):
                raise ConfigError(
                    f"config key collections.{name}.{section}.{key}: {pattern!r} names files of a microscope, "
                    "which are only imported for the key images; name PNG or TIFF files"
                )


def _settle_series(name: str, collection: dict[str, Any], patterns: Sequence[str]) -> None:
    """Write a number of ``series`` that Snakemake read from --config as text as a number, unless it may be a name.

    patterns: of its images
    Raises ConfigError for a name if hpaloc reads files itself, whose images have numbers.
    """
    own = [pattern for pattern in patterns if not is_imported(pattern)]
    series = collection.get("series")
    if own and isinstance(series, str):
        if not (series.isascii() and series.isdigit()):
            raise ConfigError(
                f"config key collections.{name}.series: {series!r} is a name, but in {own[0]!r} images have numbers; "
                "give it one (from 0)"
            )
        collection["series"] = int(series)


def _check_planes(name: str, collection: dict[str, Any]) -> None:
    """Raise ConfigError if the keys that choose the planes of files do not fit to the files of a collection."""
    channels = named_channels(collection)
    for key in (*(["channels"] if channels else []), "series", "time", "project"):
        if key in collection and "images" not in collection:
            raise ConfigError(f"config key collections.{name}.{key}: only applies with 'images'")
    images = image_patterns(collection)
    patterns = [*itertools.chain(*images.values())]
    _check_endings(name, collection, patterns)
    _settle_series(name, collection, patterns)
    by_colour = any("{colour}" in pattern for pattern in images.get(None, ()))
    if channels and by_colour:
        raise ConfigError(
            f"config key collections.{name}.channels: only applies to files that hold all colours; leave it out, or "
            "{colour} out of images (null, for a colour that the collection lacks, applies to all files)"
        )
    unnamed = [colour for colour in COLOURS if "channels" in collection and colour not in collection["channels"]]
    if unnamed and not by_colour and None in images:
        raise ConfigError(
            f"config key collections.{name}.channels: the key {unnamed[0]!r} is missing; name the channel, or write "
            "null if the collection lacks red or yellow"
        )
    owners: dict[str, str] = {}
    # Colours with patterns of their own may be the same channel of different files.
    for colour, channel in channels.items() if None in images else ():
        other = owners.setdefault(as_written(channel), colour)
        # Microscopes with three channels have one image for red and yellow.
        if other != colour and {colour, other} != {"red", "yellow"}:
            raise ConfigError(
                f"config key collections.{name}.channels.{colour}: {channel!r} is also the channel of {other}; give "
                "each colour its own"
            )


def image_patterns(collection: Mapping[str, Any]) -> dict[str | None, list[str]]:
    """Return the patterns of the images of a completed collection by colour, or by None those for all its colours."""
    images = collection.get("images")
    if isinstance(images, dict):
        return {colour: patterns for colour, patterns in images.items() if patterns is not None}
    return {} if images is None else {None: images}


def as_written(channel: int | str) -> str:
    """Return a channel as a text that is the same for a number with and without leading zeros."""
    text = normal_text(str(channel))
    return str(int(text)) if text.isascii() and text.isdigit() else text


def named_channels(collection: Mapping[str, Any]) -> dict[str, int | str]:
    """Return, by colour, the channels of files that hold all colours; {} if a collection has a file for each colour."""
    return {colour: channel for colour, channel in collection.get("channels", {}).items() if channel is not None}


def colours_of(collection: Mapping[str, Any]) -> list[str]:
    """Return the colours that a collection has, in the order of COLOURS: all but those whose channel is null."""
    return [colour for colour in COLOURS if collection.get("channels", {}).get(colour, colour) is not None]


def training_collections(config: Mapping[str, Any]) -> list[str]:
    """Return the collections that train: that of the pretraining, if there is one, and that of the training."""
    pretraining = config["train"]["pretraining"]
    return [*([pretraining["collection"]] if pretraining else []), config["train"]["collection"]]


def curation_of(config: Mapping[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    """Return the key and the settings by which the cells of a collection are chosen: its own in a first training."""
    pretraining = config["train"]["pretraining"]
    if pretraining and name == pretraining["collection"]:
        return "train.pretraining.curation", pretraining["curation"]
    return "curation", config["curation"]


def describe_training_images(config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each collection that trains: what its images are, the size of a pixel, how cells are found.

    config: completed
    """
    sentences = []
    *before, _ = training_collections(config)
    for name in training_collections(config):
        collection = config["collections"][name]
        images = "fields that hpaloc simulated" if collection.get("simulate") else "fields"
        backend = config["segmentation"]["backend"]
        outlines = "cells by given masks" if backend == "masks" else f"cells by the backend {backend}"
        if collection.get("crops"):
            images, outlines = "ready-made crops of cells", "not segmented"
        size = collection.get("pixel_size") or config["pixel_size"]
        pixels = "pixels of the size that each file gives" if size == "file" else f"{size:g} µm per pixel"
        role = " (first training)" if name in before else ""
        sentences.append(f"Collection {name}{role}: {images}, {pixels}, {outlines}.")
    return sentences


def has_crop_table(collection: Mapping[str, Any]) -> bool:
    """Return whether a table of ready-made crops says what the fields of a collection are, and where their files."""
    return isinstance(collection.get("crops"), str)


def has_truth(collection: Mapping[str, Any]) -> bool:
    """Return whether the locations of each single cell of a collection are known."""
    return bool({"truth", "simulate"} & set(collection))


def shortened(train: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """Return the settings of a training (``train``) for at most ``epochs`` epochs; None keeps its own number.

    The learning rate follows the same course in fewer epochs: a training that stops at the highest rate is worse than
    one whose rate decays.
    """
    if epochs is None or epochs >= train["epochs"]:
        return dict(train)
    share = epochs / train["epochs"]
    rate = train["learning_rate"]
    course = {
        "ramp_epochs": round(rate["ramp_epochs"] * share),
        "sustain_epochs": round(rate["sustain_epochs"] * share),
        "decay": rate["decay"] ** (1 / share),
    }
    return {**train, "epochs": epochs, "learning_rate": {**rate, **course}}
