"""The configuration: complete with its defaults, or refused in one sentence that names the key."""

import datetime
from pathlib import Path

import pytest
import yaml
from dask.utils import parse_bytes
from made_pages import check_page
from snakemake.cli import parse_config
from snakemake.utils import update_config
from stand_in_models import write_packable, write_stand_in, write_stock

from hpaloc.config import (
    ConfigError,
    complete,
    describe_training_images,
    load_schema,
    read_command_line,
    shortened,
)
from hpaloc.manifests import SheetRow
from hpaloc.planning.settings import check_few_shot, check_training
from hpaloc.scan import Scan

ROOT = Path(__file__).resolve().parents[2]
BY_COLOUR = {colour: f"{{id}}_{colour}.png" for colour in ("red", "green", "blue", "yellow")}


def minimal(**others):
    return {"collections": {"train": {"sheet": "t.csv", "images": "{id}_{colour}.png", "labels": True}}, **others}


def test_every_key_but_the_collections_has_a_default():
    filled = complete(minimal())
    assert filled["train"]["learning_rate"]["max"] == 0.0011
    assert filled["curation"]["negatives"]["target_fraction"] == 0.1
    assert filled["collections"]["train"] == {
        "sheet": "t.csv", "images": ["{id}_{colour}.png"], "labels": True, "root": ".", "shards": 4, "pixel_size": 0.08,
    }  # fmt: skip
    assert complete(filled) == filled


@pytest.mark.parametrize(
    ("first", "labels"),
    [
        ({"simulate": {}}, "cells"),
        ({"images": "x_{id}_{colour}.png", "truth": {"cells": "c.csv", "masks": "{id}.png"}}, "cells"),
        ({"images": "x_{id}_{colour}.png"}, "single"),
    ],
)
def test_a_first_training_has_a_curation_of_its_own_with_the_truth_per_cell_where_it_is_known(first, labels):
    config = minimal(
        train={"pretraining": {"collection": "first"}}, curation={"labels": "all", "validation_fraction": 0.0}
    )
    config["collections"]["first"] = {"sheet": "s.csv", "labels": True, **first}
    curation = complete(config)["train"]["pretraining"]["curation"]
    assert (curation["labels"], curation["validation_fraction"]) == (labels, 0.2)
    config["train"]["pretraining"]["curation"] = {"labels": "all"}
    assert complete(config)["train"]["pretraining"]["curation"]["labels"] == "all"


def test_a_shorter_training_brings_its_rate_down_too():
    train = complete(minimal())["train"]
    rate = {"start": 0.0005, "max": 0.001, "min": 0.0, "ramp_epochs": 2, "sustain_epochs": 4, "decay": 0.5}
    train |= {"epochs": 10, "learning_rate": rate}
    short = shortened(train, 5)
    assert short["epochs"] == 5
    assert short["learning_rate"] == rate | {"ramp_epochs": 1, "sustain_epochs": 2, "decay": 0.25}
    # The rate of the last epoch is that of the long training's.
    last = [course["decay"] ** (epochs - course["ramp_epochs"] - course["sustain_epochs"])
            for course, epochs in ((rate, 10), (short["learning_rate"], 5))]  # fmt: skip
    assert last[0] == pytest.approx(last[1])
    assert shortened(train, None) == shortened(train, 12) == train


def test_a_collections_own_values_win():
    config = minimal(shards=9, root="/data")
    config["collections"]["train"] |= {"shards": 2, "pixel_size": 0.2}
    filled = complete(config)["collections"]["train"]
    assert (filled["shards"], filled["pixel_size"], filled["root"]) == (2, 0.2, "/data")


def test_a_model_folder_may_end_in_a_slash():
    assert complete(minimal(model={"path": "models/demo/"}))["model"]["path"] == "models/demo"
    assert complete(minimal())["model"]["path"] is None


def test_the_shipped_configurations_are_complete():
    for path in (ROOT / "config").glob("*.yaml"):
        filled = complete(yaml.safe_load(path.read_text()))
        check_training(filled)


def test_every_key_of_the_schema_says_what_it_is_and_its_default():
    def walk(schema, path):
        for key, of_key in schema.get("properties", {}).items():
            here = f"{path}.{key}" if path else key
            assert of_key.get("description", "").endswith("."), here
            optional = not here.startswith("collections.") and here != "collections"
            assert not optional or "default" in of_key, here
            walk(of_key, here)
            if isinstance(of_key.get("additionalProperties"), dict):
                walk(of_key["additionalProperties"], f"{here}.*")

    walk(load_schema(), "")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "config: the key 'collections' is missing"),
        ({"collections": {}}, "config key collections: is empty"),
        (
            {"collections": {"t": {"images": "x", "labels": True}}},
            "config key collections.t: labels: true needs the key 'sheet', whose column Label has them",
        ),
        (
            {"collections": {"t": {"download": {}}}},
            "config key collections.t: the key 'sheet' is missing, which lists the fields to make",
        ),
        (
            {"collections": {"t": {"images": dict.fromkeys(["red", "green", "blue", "yellow", "violet"], "x")}}},
            "config key collections.t.images: unknown key 'violet' (known here: red, green, blue, yellow)",
        ),
        (
            {"collections": {"t": {"images": {"red": "x", "green": 3, "blue": "x", "yellow": "x"}}}},
            "config key collections.t.images.green: 3 is neither a file pattern nor a list of them",
        ),
        (
            {"collections": {"t": {"images": 3}}},
            "config key collections.t.images: 3 is neither a file pattern, a list of them nor one for each colour",
        ),
        (
            {"collections": {"t": {"images": {"red": "x", "green": "x", "blue": "x"}}}},
            "config key collections.t.images: the key 'yellow' is missing",
        ),
        (
            {"collections": {"t": {"sheet": "x"}}},
            "collections.t: the key 'images' (or 'simulate' or 'download') is missing",
        ),
        (minimal(train={"epoch": 3}), "config key train: unknown key 'epoch' (did you mean epochs?)"),
        (minimal(train={"epochs": "ten"}), "config key train.epochs: 'ten' is not of type integer"),
        (minimal(train={"epochs": 0}), "config key train.epochs: 0 is less than the minimum of 1"),
        (minimal(train={"head": "tanh"}), "config key train.head: 'tanh' is not one of sigmoid, softmax"),
        (minimal(train={"channels": ["red", "purple"]}), "config key train.channels.1: 'purple' is not one of"),
        (minimal(segmentation={"backend": "masks"}), "train: segmentation.backend masks needs the key 'masks'"),
        (minimal(segmentation=None), "config key segmentation: None is not of type object"),
        (minimal(model={"path": ""}), "config key model.path: is empty"),
        (minimal(few_shot={"table": ""}), "config key few_shot.table: is empty"),
        (
            minimal(dask={"jobqueue": {"account": datetime.date(2024, 1, 1)}}),
            "config key dask.jobqueue.account: 2024-01-01 is read as a date; quote it",
        ),
        (minimal(dask={"jobqueue": {"x": [{1, 2}]}}), "config key dask.jobqueue.x.0: {1, 2} is read as a set; quote"),
        (minimal(root=2024), "config key root: 2024 is not of type string; quote it, since YAML reads"),
        (minimal(root={"a\nb": {0: None}}), "config key root.a b: the key 0 is not text; quote it"),
        (minimal(pixel_size=0), "config key pixel_size: 0 is not a number of µm from 0.001 to 10"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_one_sentence_with_its_key(config, message):
    with pytest.raises(ConfigError) as error:
        complete(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("coers: 2", ": unknown key 'coers' (did you mean cores?)"),
        ("n_workers: 3", ": unknown key 'n_workers' (known here: jobs, cores,"),
        ("scheduler_options: {dashbord: true}", ".scheduler_options: unknown key 'dashbord' (did you mean dashboard?)"),
        ("scheduler_options: x", ".scheduler_options: 'x' is not of type object or null"),
        ("scheduler_options: {port: 8787x}", ".scheduler_options.port: '8787x' is not of type integer or null"),
        ("security: x", ".security: 'x' is not of type boolean or null"),
        ("job_extra_directives: --exclusive", ".job_extra_directives: '--exclusive' is not of type array or null"),
        ("worker_extra_args: [{a: 1}]", ".worker_extra_args.0: {'a': 1} is not of type string or number"),
        ("job_script_prologue: load x", ".job_script_prologue: 'load x' is not of type array or null"),
        ("job_script_prologue: [5]", ".job_script_prologue.0: 5 is not of type string; quote it"),
        ("job_directives_skip: 5", ".job_directives_skip: 5 is not of type array or null"),
        ("processes: 0", ".processes: 0 is less than the minimum of 1"),
        ("cores: true", ".cores: True is not of type integer or null"),
        ("jobs: null", ".jobs: None is not of type integer"),
        ("jobs: two", ".jobs: 'two' is not of type integer"),
        ("memory: 24 XB", ".memory: '24 XB' is not written like 24GB"),
        ("memory: 0GB", ".memory: '0GB' is not written like 24GB"),
        ("memory: [24GB]", ".memory: ['24GB'] is not of type string or number or null"),
        ("memory: 0", ".memory: 0 is less than or equal to the minimum of 0"),
        ("queue: [a, b]", ".queue: ['a', 'b'] is not of type string or integer or null"),
        ("queue: ''", ".queue: is empty"),
        ("log_directory: 5", ".log_directory: 5 is not of type string or null; quote it"),
        ("silence_logs: loud", ".silence_logs: 'loud' is not one of debug, info, warning, error, critical"),
        # YAML makes 36000 of this.
        ("walltime: 10:00:00", ".walltime: 36000 is not of type string or null; quote it, since YAML reads 10:00:00,"),
        ("{}", ": is empty"),
    ],
)
def test_what_no_slurm_job_of_workers_can_have_is_refused(written, message):
    with pytest.raises(ConfigError) as error:
        complete(minimal(dask={"jobqueue": yaml.safe_load(written)}))
    assert str(error.value).startswith(f"config key dask.jobqueue{message}")


@pytest.mark.parametrize("memory", ["24GB", "24 GB", "24gib", "1.5G", ".5T", "2e9", "2E+9 B", "4096", 2.5e9, 4096])
def test_memory_may_be_written_in_any_way_that_dask_reads(memory):
    assert complete(minimal(dask={"jobqueue": {"memory": memory}}))["dask"]["jobqueue"]["memory"] == memory
    assert parse_bytes(memory) > 0


def test_what_is_predicted_by_default():
    config = minimal()
    assert complete(config)["predict"]["collections"] == ["train"]
    config["collections"]["new"] = config["collections"]["later"] = config["collections"]["train"]
    assert complete(config)["predict"]["collections"] == ["new", "later"]


@pytest.mark.parametrize(
    "collection",
    [
        {"images": BY_COLOUR | {"red": None}},
        {"images": BY_COLOUR | {"red": None, "yellow": None}},
        {"images": BY_COLOUR, "channels": {"yellow": None}},
        {"images": BY_COLOUR | {"yellow": None}, "channels": {"red": 0, "yellow": None}},
        {"images": ["{id}_{colour}.png"], "channels": {"yellow": None}},
        {"images": "{id}.tif", "channels": {"red": 0, "green": 1, "blue": 2, "yellow": None}, "series": 0.0},
        {"sheet": "t.csv", "labels": True, "simulate": {}, "channels": {"red": None}},
    ],
)
def test_a_completed_configuration_is_complete(collection):
    completed = complete({"collections": {"train": collection}})
    assert complete(completed) == completed


def test_the_images_that_train_are_described():
    config = complete(
        {
            "collections": {
                "drawn": {"sheet": "a.csv", "labels": True, "simulate": {}, "pixel_size": 0.16},
                "train": {"sheet": "b.csv", "labels": True, "images": "{id}_{colour}.png", "pixel_size": "file"},
                "cut": {"sheet": "c.csv", "labels": True, "images": "{id}_{colour}.png", "crops": True},
            },
            "train": {"pretraining": {"collection": "drawn"}},
        }
    )
    cells = "cells by the backend watershed."
    assert describe_training_images(config) == [
        f"Collection drawn (first training): fields that hpaloc simulated, 0.16 µm per pixel, {cells}",
        f"Collection train: fields, pixels of the size that each file gives, {cells}",
    ]
    config["train"] |= {"collection": "cut", "pretraining": None}
    assert describe_training_images(config) == [
        "Collection cut: ready-made crops of cells, 0.08 µm per pixel, not segmented."
    ]
    config["train"] |= {"collection": "train"}
    config["segmentation"] |= {"backend": "masks"}
    assert describe_training_images(config)[0].endswith("cells by given masks.")


def test_collections_that_training_and_prediction_name_must_exist():
    with pytest.raises(ConfigError, match=r"predict\.collections: 'test' is not among the collections \(train\)"):
        complete(minimal(predict={"collections": ["test"]}))
    filled = complete(minimal())
    filled["train"]["collection"] = "other"
    with pytest.raises(ConfigError, match=r"train\.collection: 'other' is not among the collections \(train\)"):
        check_training(filled)
    filled = complete(minimal(curation={"labels": "cells"}))
    with pytest.raises(ConfigError, match=r"curation\.labels: cells needs the truth"):
        check_training(filled)
    filled = complete({"collections": {"train": {"sheet": "s", "images": "{id}{colour}"}}})
    with pytest.raises(ConfigError, match="has no labels"):
        check_training(filled)


def test_the_reference_of_every_key_is_in_step_with_the_schema():
    check_page("make_config_table.py")


def test_controls_that_could_not_be_scored_are_refused():
    collections = {name: {"sheet": "x", "images": "{id}_{colour}", "labels": True} for name in ("train", "test")}
    controls = {"evaluation": {"controls": ["shuffled_labels"]}}
    check_training(complete({"collections": collections, **controls}))
    with pytest.raises(ConfigError, match="controls: a control is scored on a validation part"):
        check_training(complete({"collections": collections, "curation": {"validation_fraction": 0}, **controls}))
    with pytest.raises(ConfigError, match="controls: there is no labelled collection"):
        check_training(complete({"collections": {"train": collections["train"]}, **controls}))


def test_what_trained_the_starting_weights_is_known_or_warned_of(tmp_path, caplog):
    write_stand_in(tmp_path / "older")
    write_packable(tmp_path / "model")

    def check(name):
        check_training(complete(minimal(train={"weights": str(tmp_path / name / "model.keras")})))

    check("model")
    assert not caplog.records
    check("older")
    (record,) = caplog.records
    assert f"train.weights: {tmp_path}/older/model.keras does not say what trained the model" in record.getMessage()
    with open(tmp_path / "model/seen.npz", "ab") as file:
        file.write(b"more")
    with pytest.raises(ConfigError, match=r"seen\.npz was changed after the model folder was written"):
        check("model")


def test_a_training_starts_from_a_model_folder_or_a_h5_file(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "start.pkl").touch()
    write_stock(folder / "start.h5")
    write_stand_in(folder)
    (folder / "checksums.json").rename(folder / "others.json")

    def check(name):
        check_training(complete(minimal(train={"weights": str(folder / name)})))

    check("start.h5")
    with pytest.raises(ConfigError, match=r"train\.weights: .*start\.pkl is neither a \.keras nor a \.h5 file"):
        check("start.pkl")
    with pytest.raises(ConfigError, match=r"model\.keras is not in a model folder \(checksums\.json is missing\)"):
        check("model.keras")
    (folder / "others.json").rename(folder / "checksums.json")
    check("model.keras")
    (folder / "thresholds.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"thresholds\.json was changed after the model folder was written"):
        check("model.keras")
    # With its top, of another depth, of version 2.
    for layer, what in (("predictions", "unexpected"), ("conv4_block7_1_conv", "unexpected"), ("conv1_bn", "missing")):
        write_stock(folder / "start.h5", but=[layer])
        with pytest.raises(
            ConfigError, match=rf"start\.h5 does not hold Keras' ResNet50 .*: the layer {layer} is {what}"
        ):
            check("start.h5")


def test_blending_needs_the_protein_and_the_nucleus():
    collections = {"train": {"sheet": "train.csv", "images": "{id}_{colour}.png", "labels": True}}
    check_training(complete({"collections": collections, "train": {"blends": 5, "channels": ["green", "blue"]}}))
    with pytest.raises(ConfigError, match=r"train\.blends: blending needs green and blue"):
        check_training(complete({"collections": collections, "train": {"blends": 5, "channels": ["red", "green"]}}))


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("predict={views: 1}", ("predict", "views"), 1),
        ("model={path: null}", ("model", "path"), None),
        ("curation={drop_border_cells: false}", ("curation", "drop_border_cells"), False),
        ("train={learning_rate: {max: 1e-3}}", ("train", "learning_rate", "max"), 0.001),
        ("train={dropout: [0.2, 0.1]}", ("train", "dropout"), [0.2, 0.1]),
        ("curation={negatives: {external: ~, target_fraction: 0.2}}", ("curation", "negatives", "external"), None),
        ("interpretation={held_out: [4, 11]}", ("interpretation", "held_out"), [4, 11]),
        ("collections={train: {pixel_size: 0.16}}", ("collections", "train", "pixel_size"), 0.16),
        ("collections={train: {pixel_size: file}}", ("collections", "train", "pixel_size"), "file"),
        ("pixel_size=file", ("pixel_size",), "file"),
        ("interpretation={epochs: null}", ("interpretation", "epochs"), None),
        (
            "collections={train: {images: {red: null, green: 'g{id}', blue: 'b{id}', yellow: ~}}}",
            ("collections", "train", "channels"),
            {"red": None, "yellow": None},
        ),
        (
            "collections={train: {images: '{id}', channels: {red: ~, green: GFP, blue: 2, yellow: null}}}",
            ("collections", "train", "channels"),
            {"red": None, "green": "GFP", "blue": "2", "yellow": None},
        ),
        ("seed=7", ("seed",), 7),
        ("dask={jobqueue: {cores: 2, memory: 1GB, interface: ~}}", ("dask", "jobqueue", "cores"), 2),
        # What the schema takes as text alone stays text, whatever it looks like.
        ("collections={train: {sheet: 007}}", ("collections", "train", "sheet"), "007"),
        ("train={weights: none}", ("train", "weights"), "none"),
        ("train={channels: [red, green]}", ("train", "channels"), ["red", "green"]),
        ("model={path: models/1}", ("model", "path"), "models/1"),
        ("collections={train: {images: [10, 20]}}", ("collections", "train", "images"), ["10", "20"]),
        ("root=2024", ("root",), "2024"),
        ("root=1.5", ("root",), "1.5"),
        # Nothing tells a quoted text from another: where the schema takes both, it stays text.
        ('dask={jobqueue: {walltime: "10:00:00"}}', ("dask", "jobqueue", "walltime"), "10:00:00"),
        ('dask={jobqueue: {queue: "7"}}', ("dask", "jobqueue", "queue"), "7"),
        ('dask={jobqueue: {job_mem: "007"}}', ("dask", "jobqueue", "job_mem"), "007"),
        ('dask={jobqueue: {name: "on"}}', ("dask", "jobqueue", "name"), "on"),
        ('dask={jobqueue: {memory: "1e3"}}', ("dask", "jobqueue", "memory"), "1e3"),
        ('dask={jobqueue: {account: "2024-01-01"}}', ("dask", "jobqueue", "account"), "2024-01-01"),
        ("dask={jobqueue: {death_timeout: 1.5}}", ("dask", "jobqueue", "death_timeout"), "1.5"),
        ("dask={jobqueue: {walltime: 1:00:00}}", ("dask", "jobqueue", "walltime"), "1:00:00"),
        ("dask={jobqueue: {scheduler_options: {port: 8786}}}", ("dask", "jobqueue", "scheduler_options", "port"), 8786),
        ("dask={jobqueue: {nanny: false}}", ("dask", "jobqueue", "nanny"), False),
        ("dask={jobqueue: {interface: null}}", ("dask", "jobqueue", "interface"), None),
        (
            "dask={jobqueue: {worker_extra_args: [--lifetime, 0x10]}}",
            ("dask", "jobqueue", "worker_extra_args"),
            ["--lifetime", "0x10"],
        ),
    ],
)
def test_any_key_can_be_set_on_the_command_line(word, key, value):
    given = parse_config([word])
    config = minimal()
    update_config(config, given)
    found = complete(read_command_line(config, given))
    for name in key:
        found = found[name]
    assert found == value
    assert type(found) is type(value)


def test_a_text_in_a_file_is_no_number_beside_one_on_the_command_line():
    given = parse_config(["predict={views: 1}"])
    config = minimal(predict={"batch_size": "64"})
    update_config(config, given)
    with pytest.raises(ConfigError, match=r"predict.batch_size: '64' is not of type integer"):
        complete(read_command_line(config, given))


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("predict={views: 3}", "config key predict.views: 3 is not one of 1, 2, 4, 8"),
        ("train={epochs: many}", "config key train.epochs: 'many' is not of type integer"),
        ("train={epoch: 3}", "config key train: unknown key 'epoch' (did you mean epochs?)"),
        ("predict=1", "config key predict: 1 is not of type object"),
        ("model={path: ''}", "config key model.path: is empty"),
        (
            "collections={train: {channels: {green: null}}}",
            "config key collections.train.channels.green: is null, but every collection needs green (protein) and blue "
            "(nuclei); name its channel",
        ),
        (
            "collections={train: {images: {red: 'r{id}', green: 'g{id}', blue: Null, yellow: ~}}}",
            "config key collections.train.images.blue: is null, but every collection needs green (protein) and blue "
            "(nuclei); name its files",
        ),
        ("train={collection: null}", "config key train.collection: None is not of type string"),
        ("dask={jobqueue: {qeue: 007}}", "config key dask.jobqueue: unknown key 'qeue' (did you mean queue?)"),
    ],
)
def test_a_mistake_on_the_command_line_names_its_key(word, sentence):
    given = parse_config([word])
    config = minimal()
    update_config(config, given)
    with pytest.raises(ConfigError) as raised:
        complete(read_command_line(config, given))
    assert str(raised.value) == sentence


@pytest.mark.parametrize("word", ["hpaloc={predict: {views: 1}}", "tools={hpaloc: {predict: {views: 1}}}"])
def test_a_module_reads_what_the_command_line_gave_it(word):
    given = parse_config([word, "seed=other", "train={gpu: 5}"])
    own = minimal(predict={"batch_size": "64"})
    outer = {"seed": 1, "hpaloc": own, "tools": {"hpaloc": own}}
    update_config(outer, given)
    own = outer["hpaloc"] if "hpaloc" in given else outer["tools"]["hpaloc"]
    read = read_command_line(own, given, module=True)
    assert read["predict"] == {"batch_size": "64", "views": 1}
    assert own["predict"]["views"] == "1", "the table of the other workflow is its own"
    assert "seed" not in read


def test_a_module_that_is_given_the_whole_configuration_reads_it_too():
    given = parse_config(["predict={views: 1}", "seed=3"])
    config = minimal()
    update_config(config, given)
    assert complete(read_command_line(config, given, module=True))["predict"]["views"] == 1


def test_a_table_of_examples_is_read_and_warned_of_once(tmp_path, caplog):
    table = tmp_path / "cells.csv"
    table.write_text("Field,cell,label\na,1,x\na,2,x\nb,1,y\nb,2,y\n")
    settings = {"few_shot": {"table": str(table), "collection": "t"}, "predict": {"collections": ["t"]}}
    check_few_shot(settings, {"t": Scan([SheetRow(id, None, 0.08) for id in "ab"], {})})
    assert [record.getMessage() for record in caplog.records] == [
        f"examples {table}: the column Field is read as field"
    ]
