"""The settings of the library: one dataclass a section, with the keys and the defaults of the schema."""

import ast
from dataclasses import FrozenInstanceError, asdict, fields
from functools import reduce
from pathlib import Path

import pytest

from hpaloc.atlas.listing import AtlasSettings
from hpaloc.config import complete, load_schema
from hpaloc.curation import CurationSettings, NegativeSettings
from hpaloc.interpretation.analysis import InterpretationSettings
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import NetworkWeights, SegmentationSettings
from hpaloc.training.settings import LearningRate, TrainSettings

ROOT = Path(__file__).resolve().parents[2]

# Section of the schema: its dataclass, and the keys that it lacks.
SECTIONS = {
    "atlas": (AtlasSettings, set()),
    "segmentation": (SegmentationSettings, set()),
    "segmentation.weights": (NetworkWeights, set()),
    "dask": (DaskSettings, set()),
    "curation": (CurationSettings, set()),
    "curation.negatives": (NegativeSettings, set()),
    # The first training has settings of its own; blends and fusion are not part of the network.
    "train": (TrainSettings, {"cache", "pretraining", "blends", "fusion"}),
    "train.learning_rate": (LearningRate, set()),
    # Each of these is an argument or an input of another rule.
    "interpretation": (InterpretationSettings, {"cells", "fields", "epochs", "mixtures"}),
}
# Functions that take keys one by one: their arguments with a default, and the keys.
ARGUMENTS = {
    "Predictor": {
        "views": "predict.views",
        "batch_size": "predict.batch_size",
        "precision": "train.precision",
        "gpu": "train.gpu",
    },
    "predict_shard": {"field_weight": "predict.field_weight"},
    "tile_shard": {
        "size": "tiles.size",
        "mask_neighbours": "tiles.mask_neighbours",
        "format": "tiles.format",
        "max_rejected_fraction": "max_rejected_fraction",
    },
    "tile_field": {
        "size": "tiles.size",
        "mask_neighbours": "tiles.mask_neighbours",
        "format": "tiles.format",
    },
    "classifier": {"head": "train.head", "input_size": "train.input_size", "dropout": "train.dropout"},
    "training_dataset": {"channels": "train.channels", "input_size": "train.input_size"},
    "learn_mixtures": {"precision": "train.precision", "gpu": "train.gpu"},
    "control_examples": {"fraction": "curation.validation_fraction"},
    "read_sheet": {"pixel_size": "pixel_size"},
    "simulate_shard": {key: f"collections.*.simulate.{key}" for key in ("shape", "dtype", "density")},
}
# Through these the whole configuration passes, before any stage takes its section.
PLANNING = {"config", "planning"}
# The training takes nothing of how the tiles were cut; it notes it.
NOTED = {("train_model", "tiles")}


def section(name):
    return reduce(
        lambda part, key: part["additionalProperties"] if key == "*" else part["properties"][key],
        name.split("."),
        load_schema(),
    )


def default(schema):
    """Return the default of a key; of a table of keys, those of its keys."""
    if "properties" in schema and schema["default"] == {}:
        return {key: default(of_key) for key, of_key in schema["properties"].items()}
    return schema["default"]


def as_read(value):
    """Return a value of Python as the schema has it."""
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("name", SECTIONS)
def test_a_dataclass_has_the_keys_and_the_defaults_of_its_section(name):
    made, lacking = SECTIONS[name]
    keys = section(name)["properties"]
    assert lacking <= keys.keys()
    # In its order too, in which config.json of a model has them.
    assert [field.name for field in fields(made)] == [key for key in keys if key not in lacking]
    found = {key: as_read(value) for key, value in asdict(made()).items()}
    assert found == {key: default(keys[key]) for key in keys.keys() - lacking}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_of_the_completed_configuration_makes_its_dataclass(name):
    made, lacking = SECTIONS[name]
    collections = {"train": {"sheet": "t.csv", "images": "{id}_{colour}.png"}}
    given = reduce(lambda part, key: part[key], name.split("."), complete({"collections": collections}))
    settings = made(**{key: value for key, value in given.items() if key not in lacking})
    # Of a nested table too: its dataclass, not the dictionary.
    assert {key: as_read(value) for key, value in asdict(settings).items()} == {
        key: as_read(value) for key, value in asdict(made()).items()
    }
    assert all(type(getattr(settings, key)) is not dict for key in given.keys() - lacking)
    with pytest.raises(FrozenInstanceError):
        setattr(settings, next(iter(asdict(settings))), 1)


def functions():
    """Yield module, name and definition of every function of the library; a class's own is called like the class."""
    for path in sorted((ROOT / "hpaloc").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT / "hpaloc").with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                yield from ((module, node.name, own) for own in node.body if getattr(own, "name", "") == "__init__")
            elif isinstance(node, ast.FunctionDef) and node.name != "__init__":
                yield module, node.name, node


def test_arguments_that_are_keys_have_the_defaults_of_the_schema():
    seen = set()
    for module, name, node in functions():
        if name not in ARGUMENTS:
            continue
        seen.add(name)
        own = node.args.args[len(node.args.args) - len(node.args.defaults) :]
        defaults = {one.arg: value for one, value in zip(own, node.args.defaults, strict=True)}
        for argument, key in ARGUMENTS[name].items():
            assert as_read(ast.literal_eval(defaults[argument])) == section(key)["default"], (module, argument)
    assert seen == ARGUMENTS.keys()


def test_no_stage_takes_a_section_as_a_dictionary():
    sections = {"settings", *load_schema()["properties"]} - {"dask", "collections"}
    wrong = [
        f"{module}.{name}"
        for module, name, node in functions()
        if module not in PLANNING and not name.startswith("_")
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if argument.arg in sections
        and (name, argument.arg) not in NOTED
        and argument.annotation
        and "Mapping[str, Any]" in ast.unparse(argument.annotation)
    ]
    assert not wrong
