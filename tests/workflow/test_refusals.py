"""A setting that a fresh folder refuses is refused in a finished one, and nothing there changes."""

import hashlib
import shutil
from contextlib import chdir

import pytest
import yaml
from bad_input_runs import model_folder
from bad_settings import CONFIGS, EXAMPLES, FIELDS_OF_SHEET, MIXTURES, MODELS, SHEETS, TRAININGS, TRUTH, WEIGHTS
from dag import copy_workflow
from forked_plans import run, run_plans

from hpaloc.classes import COLOURS
from hpaloc.segmentation.settings import NetworkWeights
from hpaloc.segmentation.weights import ready

SHEET = "ID,Label,antibody\n" + "".join(f"field-{i},{label},HPA{i}\n" for i, label in enumerate("00112238"))
COLLECTION = {"sheet": "sheet.csv", "images": "{id}_{colour}.png", "labels": True}


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    return copy_workflow(tmp_path_factory.mktemp("clone") / "workflow")


@pytest.fixture(scope="module")
def finished(workflow, tmp_path_factory):
    """A folder in which a run of jobs that only touch their outputs has ended."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    write_run(folder)
    run(workflow, folder, "--cores", "2")
    return folder


def write_run(folder):
    folder.mkdir()
    (folder / "sheet.csv").write_text(SHEET)
    for line in SHEET.splitlines()[1:]:
        for colour in COLOURS:
            (folder / f"{line.split(',')[0]}_{colour}.png").touch()
    (folder / "config.yaml").write_text(yaml.safe_dump({"collections": {"train": COLLECTION}, "shards": 2}))


def change(folder):
    """Make the changes that people make beside a setting: a new field, a removed one, and another image."""
    sheet = folder / "sheet.csv"
    if sheet.exists() and sheet.read_bytes() == SHEET.encode():
        sheet.write_text(SHEET.replace("field-0,0,HPA0\n", "") + "field-9,4,HPA9\n")
    for colour in COLOURS:
        (folder / f"field-9_{colour}.png").touch()
    (folder / "field-1_green.png").write_bytes(b"another image")


def state(folder):
    """Return the digest and time of every file below results/."""
    return {
        path.relative_to(folder): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted((folder / "results").rglob("*"))
        if path.is_file()
    }


def copies(folder, number, into):
    """Copy a finished folder ``number`` times, with the times of its files."""
    return [shutil.copytree(folder, into / str(index)) for index in range(number)]


def hold_refused(workflow, folders, sentences, *arguments):
    """Hold that each folder is refused with its sentence, on a line of its own, and keeps every byte of results/."""
    before = [state(folder[0] if isinstance(folder, tuple) else folder) for folder in folders]
    wrong = []
    for folder, sentence, was, (status, text) in zip(
        folders, sentences, before, run_plans(workflow, folders, *arguments), strict=True
    ):
        folder = folder[0] if isinstance(folder, tuple) else folder
        if status == 0 or sentence not in text.splitlines():
            wrong.append(f"expected {sentence!r}, got {status}: {text[-500:]}")
        elif state(folder) != was:
            wrong.append(f"{sentence!r}: results/ has changed")
    assert not wrong, "\n".join(wrong)


def config_with(given):
    """Return the configuration of a finished folder, or what stands in its place, with ``given`` changed in it."""
    settings = yaml.safe_load(given)
    return {"collections": {"train": COLLECTION}, "shards": 2, **settings} if isinstance(settings, dict) else settings


REFUSED_CONFIGS = [one for one in CONFIGS if one.outcome == "rejected" and one.id != "text-without-keys"]
REFUSED_SHEETS = [setting for setting in SHEETS if setting.outcome == "rejected"]


@pytest.mark.parametrize(
    ("mode", "changed"), [("-n", False), ("--cores=1", True)], ids=["a plan", "a run with a real change"]
)
def test_a_configuration_is_refused_in_a_finished_folder(workflow, finished, tmp_path, mode, changed):
    folders = copies(finished, len(REFUSED_CONFIGS), tmp_path)
    for folder, setting in zip(folders, REFUSED_CONFIGS, strict=True):
        (folder / "config.yaml").write_text(yaml.safe_dump(config_with(setting.given)))
        if changed:
            change(folder)
    hold_refused(workflow, folders, [setting.message for setting in REFUSED_CONFIGS], mode)


def test_a_sheet_is_refused_in_a_finished_folder(workflow, finished, tmp_path):
    folders = copies(finished, len(REFUSED_SHEETS), tmp_path)
    for folder, setting in zip(folders, REFUSED_SHEETS, strict=True):
        (folder / "sheet.csv").unlink()
        if setting.given is not None:
            content = setting.given if isinstance(setting.given, bytes) else setting.given.encode()
            (folder / "sheet.csv").write_bytes(content)
        change(folder)
    hold_refused(workflow, folders, [setting.message for setting in REFUSED_SHEETS], "-n")


def test_nothing_to_train_on_is_refused_in_a_finished_folder(workflow, finished, tmp_path):
    refused = [setting for setting in TRAININGS if setting.outcome == "rejected"]
    folders = copies(finished, len(refused), tmp_path)
    for folder, setting in zip(folders, refused, strict=True):
        rows, given = setting.given
        (folder / "sheet.csv").write_text(rows)
        for line in rows.splitlines()[1:]:
            for colour in COLOURS:
                (folder / f"{line.split(',')[0]}_{colour}.png").touch()
        (folder / "config.yaml").write_text(yaml.safe_dump(config_with(given or "{}")))
        change(folder)
    targets = [["interpret"] if "interpretation" in setting.given[1] else [] for setting in refused]
    hold_refused(workflow, list(zip(folders, targets, strict=True)), [setting.message for setting in refused], "-n")


def test_what_needs_no_training_is_planned_beside_a_wrong_training(workflow, finished, tmp_path):
    folders = copies(finished, 2, tmp_path)
    for folder in folders:
        (folder / "config.yaml").write_text(yaml.safe_dump(config_with("train: {collection: other}")))
    targets = (["explore"], ["results/segmentation/train/000"])
    for status, text in run_plans(workflow, list(zip(folders, targets, strict=True)), "-n"):
        assert status == 0, text


def test_a_removed_collection_comes_back_with_its_manifests(workflow, finished, tmp_path):
    # What planning removes and makes, a refusal puts back: a collection more, a shard less.
    (folder,) = copies(finished, 1, tmp_path)
    settings = config_with("train: {weights: absent.h5}\nshards: 1")
    settings["collections"]["new"] = COLLECTION
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    hold_refused(workflow, [folder], ["config key train.weights: no such file: absent.h5"], "-n")
    assert not (folder / "results/sheet/new").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("given") / "model")


def test_a_model_is_refused_in_a_finished_folder(workflow, finished, tmp_path, model):
    refused = [setting for setting in MODELS if setting.outcome == "rejected"]
    folders = copies(finished, len(refused), tmp_path)
    for folder, setting in zip(folders, refused, strict=True):
        shutil.copytree(model, folder / "model")
        setting.given(folder / "model")
        (folder / "config.yaml").write_text(yaml.safe_dump(config_with("model: {path: model}")))
        change(folder)
    hold_refused(workflow, folders, [setting.message for setting in refused], "-n")


def test_weights_are_refused_in_a_finished_folder(workflow, finished, tmp_path):
    refused = [setting for setting in WEIGHTS if setting.outcome == "rejected"]
    folders = copies(finished, len(refused), tmp_path)
    for folder, setting in zip(folders, refused, strict=True):
        name, *contents = setting.given
        train = name if len(contents) == 1 else None
        for content in contents:
            if content is not None:
                (folder / name).write_bytes(content)
            if not train and content is contents[0]:
                with chdir(folder):
                    ready(NetworkWeights(name, name))
        backend = {"backend": "hpacellseg", "weights": {"nuclei": name, "cells": name}}
        given = {"train": {"weights": train}} if train else {"segmentation": backend}
        (folder / "config.yaml").write_text(yaml.safe_dump(config_with(yaml.safe_dump(given))))
        change(folder)
    hold_refused(workflow, folders, [setting.message for setting in refused], "-n")


TABLES = [
    *(("truth.csv", setting, None) for setting in TRUTH),
    *(("examples.csv", setting, "few_shot") for setting in EXAMPLES),
    *(("mixtures.csv", setting, "interpret") for setting in MIXTURES),
]


def test_a_table_is_refused_in_a_finished_folder(workflow, finished, tmp_path):
    refused = [table for table in TABLES if table[1].outcome == "rejected"]
    folders = copies(finished, len(refused), tmp_path)
    targets = []
    for folder, (name, setting, target) in zip(folders, refused, strict=True):
        if setting.given is not None:
            content = setting.given if isinstance(setting.given, bytes) else setting.given.encode()
            (folder / name).write_bytes(content)
        (folder / "sheet.csv").write_text("ID,Label\n" + "".join(f"{id},0\n" for id in FIELDS_OF_SHEET))
        for id in FIELDS_OF_SHEET:
            (folder / f"{id}_mask.png").touch()
            for colour in COLOURS:
                (folder / f"{id}_{colour}.png").touch()
        given = {
            "truth.csv": {"collections": {"train": COLLECTION | {"truth": {"cells": name, "masks": "{id}_mask.png"}}}},
            "examples.csv": {"few_shot": {"table": name}},
            "mixtures.csv": {"interpretation": {"mixtures": {"collection": "train", "table": name}}},
        }[name]
        (folder / "config.yaml").write_text(yaml.safe_dump(config_with(yaml.safe_dump(given))))
        targets.append([target] if target else [])
    hold_refused(
        workflow, list(zip(folders, targets, strict=True)), [setting.message for _, setting, _ in refused], "-n"
    )


LONG = "n" * 300
WEIGHTS_CALLED_LONG = {"segmentation": {"backend": "hpacellseg", "weights": {"nuclei": LONG, "cells": LONG}}}
UNREADABLE = [
    ({"train": {"weights": f"{LONG}.h5"}}, []),
    ({"train": {"weights": f"{LONG}.h5"}}, ["results/figures/figure6_learning_rate.svg"]),
    (WEIGHTS_CALLED_LONG, []),
    (WEIGHTS_CALLED_LONG, ["results/cells/train/000.parquet"]),
    ({"model": {"path": LONG}}, []),
    ({"model": {"path": LONG}}, ["results/predictions/train/submission.csv"]),
    ({"few_shot": {"table": LONG}}, ["few_shot"]),
    ({"collections": {"train": {**COLLECTION, "sheet": LONG}}}, []),
]


def test_a_name_that_cannot_be_looked_up_is_refused_in_a_finished_folder(workflow, finished, tmp_path):
    # What is wrong with a file may be any error of the system, not only that it is missing.
    folders = copies(finished, len(UNREADABLE), tmp_path)
    for folder, (given, _) in zip(folders, UNREADABLE, strict=True):
        (folder / "config.yaml").write_text(yaml.safe_dump(config_with(yaml.safe_dump(given))))
        change(folder)
    before = [state(folder) for folder in folders]
    targets = [target for _, target in UNREADABLE]
    plans = run_plans(workflow, list(zip(folders, targets, strict=True)), "-n")
    for folder, given, was, (status, text) in zip(folders, UNREADABLE, before, plans, strict=True):
        assert status != 0, given
        assert LONG in text.splitlines()[-1], given
        assert "too long" in text.splitlines()[-1], given
        assert state(folder) == was, given
