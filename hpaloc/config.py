"""Reading, checking and completing the configuration by its JSON schema."""

import copy
import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

SCHEMA_PATH = Path(__file__).resolve().parents[1] / "workflow" / "schemas" / "config.schema.yaml"

# What a model folder must hold to predict.
MODEL_FILES = ("model.keras", "config.json", "thresholds.json", "checksums.json")
# And beside them, where it reads mixtures.
READING_FILES = ("mixtures.json", "mixtures.checksums.json")


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one sentence that names the key."""


def load_schema(path: Path = SCHEMA_PATH) -> dict[str, Any]:
    """Return the JSON schema of the configuration."""
    with open(path, encoding="utf-8") as file:
        # libyaml, where PyYAML has it, is ten times as fast, and every job reads the schema.
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


def _settle_numbers(value: Any, key: str = "") -> Any:
    """Return ``value`` with whole floats (4.0, 1e3) as integers; raise ConfigError for a key or number that is none."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise ConfigError(f"config{f' key {key}' if key else ''}: the key {name!r} is no text; quote it")
        return {name: _settle_numbers(part, f"{key}.{name}" if key else str(name)) for name, part in value.items()}
    if isinstance(value, list):
        return [_settle_numbers(part, f"{key}.{place}") for place, part in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"config key {key}: {value} is no number to work with")
        # JSON schema takes 4.0 for an integer.
        return int(value) if value.is_integer() else value
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
        return f"{where}: the key {lacking!r} is needed"
    if "propertyNames" in error.absolute_schema_path:
        return f"{where}: the name {error.instance!r} is not of letters, digits, - and _"
    if error.validator == "oneOf":
        return f"{where}: {error.instance!r} is neither a file pattern nor a list of them"
    if error.validator == "type":
        wanted = error.validator_value
        wanted = " or ".join(wanted) if isinstance(wanted, list) else wanted
        return f"{where}: {error.instance!r} is not of type {wanted}"
    if error.validator == "enum":
        return f"{where}: {error.instance!r} is not one of {', '.join(map(str, error.validator_value))}"
    if error.validator == "minItems" or error.validator == "minProperties" or error.validator == "minLength":
        return f"{where}: is empty"
    return f"{where}: {error.message}"


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check a configuration and fill in every default.

    Returns a new dictionary with all keys of the schema; collections have ``images`` as a list, and ``root``,
    ``shards`` and ``pixel_size`` of their own. Raises ConfigError with one sentence that names the key.
    """
    schema = load_schema()
    if not isinstance(config, Mapping):
        raise ConfigError(f"config: {config!r} is no table of keys")
    filled = _settle_numbers(dict(config))
    error = best_match(Draft202012Validator(schema).iter_errors(filled))
    if error is not None:
        raise ConfigError(_sentence(error))
    _fill(filled, schema)
    for name, collection in filled["collections"].items():
        for key in ("root", "shards", "pixel_size"):
            collection.setdefault(key, filled[key])
        if "simulate" in collection and "download" in collection:
            raise ConfigError(f"config key collections.{name}: 'download' cannot stand beside 'simulate'")
        if "download" in collection and "images" in collection:
            raise ConfigError(
                f"config key collections.{name}: 'images' cannot stand beside 'download', which makes them"
            )
        if "simulate" in collection:
            for key in ("images", "truth", "masks"):
                if key in collection:
                    raise ConfigError(
                        f"config key collections.{name}: {key!r} cannot stand beside 'simulate', which makes them"
                    )
            if not collection["labels"]:
                raise ConfigError(f"config key collections.{name}: a simulated collection needs labels: true")
        elif "images" not in collection and "download" not in collection:
            raise ConfigError(
                f"config key collections.{name}: the key 'images' (or 'simulate' or 'download') is needed"
            )
        elif "images" in collection:
            images = collection["images"]
            collection["images"] = [images] if isinstance(images, str) else images
        if "truth" in collection and not collection["labels"]:
            raise ConfigError(f"config key collections.{name}: 'truth' is of use with labels: true only")
        if filled["segmentation"]["backend"] == "masks" and "masks" not in collection:
            raise ConfigError(f"config key collections.{name}: segmentation.backend masks needs the key 'masks'")
    if filled["model"]["path"]:
        # With the slash that a shell puts behind a folder every file of it would have two.
        filled["model"]["path"] = str(Path(filled["model"]["path"]))
    curation = filled["curation"]
    for what in ("cell", "nucleus"):
        least, most = curation[f"min_{what}_area"], curation[f"max_{what}_area"]
        if least is not None and most is not None and least > most:
            raise ConfigError(f"config key curation.min_{what}_area: {least} is above max_{what}_area, {most}")
    predicted = filled["predict"]["collections"]
    if predicted is None:
        others = [name for name in filled["collections"] if name not in training_collections(filled)]
        filled["predict"]["collections"] = others or [filled["train"]["collection"]]
    for name in predicted or ():
        if name not in filled["collections"]:
            raise ConfigError(
                f"config key predict.collections: {name!r} is not among the collections "
                f"({', '.join(filled['collections'])})"
            )
    if filled["few_shot"]["collection"] is None:
        filled["few_shot"]["collection"] = filled["predict"]["collections"][0]
    return filled


def training_collections(config: Mapping[str, Any]) -> list[str]:
    """Return the collections that train: that of the first training, where there is one, and that of the last."""
    pretraining = config["train"]["pretraining"]
    return [*([pretraining["collection"]] if pretraining else []), config["train"]["collection"]]


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
        if not Path(weights).is_file():
            raise ConfigError(f"config key train.weights: no such file: {weights}")
        if Path(weights).suffix not in (".keras", ".h5"):
            raise ConfigError(f"config key train.weights: {weights} is neither a .keras nor a .h5 file")
        for name in MODEL_FILES if Path(weights).suffix == ".keras" else ():
            if not Path(weights).with_name(name).is_file():
                raise ConfigError(f"config key train.weights: {weights} is in no model folder ({name} is missing)")
    if config["evaluation"]["controls"]:
        if config["curation"]["validation_fraction"] == 0:
            raise ConfigError(
                "config key evaluation.controls: a control is scored on a validation part, of which there is none"
            )
        if not any(collections[name]["labels"] and name not in names for name in config["predict"]["collections"]):
            raise ConfigError("config key evaluation.controls: there is no labelled collection to predict and score")


def check_model(config: Mapping[str, Any]) -> None:
    """Raise ConfigError where a completed configuration names no folder of a trained model, or other tiles than its."""
    path = config["model"]["path"]
    if path is None:
        raise ConfigError("config key model.path: predict_only needs the folder of a trained model")
    for name in MODEL_FILES:
        if not Path(path, name).is_file():
            raise ConfigError(f"config key model.path: {path} is no folder of a trained model ({name} is missing)")
    try:
        made = json.loads(Path(path, "config.json").read_text(encoding="utf-8"))["preprocessing"]["tiles"]
        masked = made["mask_neighbours"]
    except (KeyError, TypeError, ValueError):
        # Of an older folder, or a broken one, of which loading it says more.
        return
    asked = config["tiles"]["mask_neighbours"]
    if asked != masked:
        raise ConfigError(
            f"config key tiles.mask_neighbours: is {str(asked).lower()}, and the model {path} was trained on tiles "
            f"where it was {str(masked).lower()}"
        )


def shortened(train: Mapping[str, Any], epochs: int | None) -> dict[str, Any]:
    """Return the settings of a training (``train``) for at most ``epochs`` epochs, None for as many as it has.

    The learning rate runs through the same course in fewer epochs: a training that stops at the greatest rate is worse
    than one that comes down.
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


def check_interpretation(config: Mapping[str, Any]) -> None:
    """Raise ConfigError where a completed configuration leaves nothing to interpret, or asks for what it rules out."""
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


def check_few_shot(config: Mapping[str, Any]) -> None:
    """Raise ConfigError where a completed configuration names no table of cells, or a collection not predicted."""
    settings = config["few_shot"]
    if settings["table"] is None:
        raise ConfigError("config key few_shot.table: few_shot needs a table of cells that you labelled")
    if not Path(settings["table"]).is_file():
        raise ConfigError(f"config key few_shot.table: no such file: {settings['table']}")
    if settings["collection"] not in config["predict"]["collections"]:
        raise ConfigError(
            f"config key few_shot.collection: {settings['collection']!r} is not predicted "
            f"({', '.join(config['predict']['collections'])})"
        )
