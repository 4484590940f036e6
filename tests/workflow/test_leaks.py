"""Scores leave out what the model has seen: in the run that trains it, and with model.path in another."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from workflow_runs import change_config, planned, snakemake, write_config, write_sheet, write_small_run

from hpaloc.classes import COLOURS
from hpaloc.interpretation.analysis import labelled_predictions

METRICS = "results/evaluation/metrics.json"


def rows(**antibody_of):
    return [{"ID": name, "Label": "0", "antibody": antibody} for name, antibody in antibody_of.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run whose test collection has an ID and an antibody of the training, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    write_small_run(folder)
    test = rows(new="new-1", **{"train-0": "new-2", "known": "Antibody-2", "with-train-0": "new-2"})
    write_sheet(folder / "test.csv", test)
    asked = ["results/model/seen.npz", "results/sheet/summary.csv", "results/interpretation/cells.parquet"]
    return folder, snakemake(folder, METRICS, *asked).stdout


def left_out(folder, collection):
    return json.loads((folder / METRICS).read_text())[collection]["left_out"]["by"]


def test_the_scores_leave_out_what_the_training_has_seen(trained):
    folder, printed = trained
    found = left_out(folder, "test")
    assert {kind: of["fields"] for kind, of in found.items()} == {"id": 1, "antibody": 1, "group": 1}
    assert set(pd.read_parquet(folder / "results/evaluation/test/cells.parquet")["field"]) == {"new"}
    assert "cells are not scored, because training has seen them or their groups (cells by " in printed
    table = pd.read_csv(folder / "results/evaluation/left_out.csv")
    assert table["cells"].sum() == sum(of["cells"] for of in found.values()) > 0


def test_the_claims_are_judged_on_the_cells_that_are_scored(trained):
    folder, _ = trained
    studied = pd.read_parquet(folder / "results/interpretation/cells.parquet")
    predictions = {"test": folder / "results/predictions/test/cells.parquet"}
    judged = labelled_predictions(studied, predictions, {"test": folder / "results/evaluation/test/seen.parquet"})
    scored = pd.read_parquet(folder / "results/evaluation/test/cells.parquet")
    assert set(zip(judged["field"], judged["cell"], strict=True)) == set(
        zip(scored["field"], scored["cell"], strict=True)
    )


def test_the_same_sheet_under_another_name_is_refused(tmp_path):
    write_small_run(tmp_path)
    config = change_config(tmp_path)
    config["collections"]["again"] = config["collections"]["train"]
    change_config(tmp_path, **config)
    done = snakemake(tmp_path, "--dry-run", check=False)
    assert done.returncode != 0
    assert "collection again: training sees all of its 8 labelled fields (8 by ID, 0 by antibody)" in done.stdout
    # Named as what it is, the training collection is predicted without scores.
    del config["collections"]["again"]
    change_config(tmp_path, **config | {"predict": {"collections": ["train", "test"]}})
    jobs, _ = planned(tmp_path)
    assert jobs["find_seen"] == 1
    assert jobs["aggregate"] == 2


def test_what_a_first_training_sees_counts(tmp_path):
    write_small_run(tmp_path)
    config = change_config(tmp_path)
    write_sheet(tmp_path / "first.csv", rows(one="HPA1", two="HPA2"))
    config["collections"]["first"] = config["collections"]["train"] | {"sheet": "first.csv"}
    config["train"]["pretraining"] = {"collection": "first", "epochs": 1}
    change_config(tmp_path, **config)
    noted = re.search(r"rule note_seen:\n +input: (.*)", snakemake(tmp_path, "--dry-run").stdout)[1]
    assert {"results/pretraining/examples.parquet", "results/dataset/examples.parquet"} <= set(noted.split(", "))
    assert {"results/cells/first/000.parquet", "results/cells/train/000.parquet"} <= set(noted.split(", "))
    config["collections"]["again"] = config["collections"]["first"]
    change_config(tmp_path, **config)
    done = snakemake(tmp_path, "--dry-run", check=False)
    assert "collection again: training sees all of its 2 labelled fields (2 by ID, 0 by antibody)" in done.stdout


def test_other_fields_of_the_same_antibodies_are_refused(tmp_path):
    write_small_run(tmp_path)
    write_sheet(tmp_path / "test.csv", rows(one="antibody-1", two="antibody-2"))
    done = snakemake(tmp_path, "--dry-run", check=False)
    assert done.returncode != 0
    assert "collection test: training sees all of its 2 labelled fields (0 by ID, 2 by antibody)" in done.stdout


@pytest.fixture
def elsewhere(trained, tmp_path):
    """A run of the trained model in another folder, on copies of the training images under other names."""
    folder, _ = trained
    shutil.copytree(folder / "results/model", tmp_path / "model")
    (tmp_path / "images").mkdir()
    for source, name in (("train/*/train-0", "copy-0"), ("train/*/train-2", "copy-2"), ("test/*/new", "new")):
        (drawn,) = (folder / "resources/simulated").glob(f"{source}_red.*")
        for colour in COLOURS:
            image = drawn.with_name(drawn.name.replace("_red", f"_{colour}"))
            shutil.copy(image, tmp_path / "images" / f"{name}_{colour}{image.suffix}")
    write_sheet(tmp_path / "copies.csv", rows(**{"copy-0": "", "copy-2": ""}))
    write_sheet(tmp_path / "mixed.csv", rows(**{"copy-0": "", "new": ""}))
    write_config(
        tmp_path / "config.yaml",
        collections={
            name: {"sheet": f"{name}.csv", "images": f"images/{{id}}_{{colour}}{image.suffix}", "labels": True}
            for name in ("copies", "mixed")
        },
        shards=1,
        pixel_size=0.16,
        model={"path": "model"},
        predict={"views": 1},
    )
    return tmp_path


def test_a_model_from_elsewhere_knows_what_trained_it(elsewhere):
    # All of a collection was seen: it is predicted, and the scores say so.
    done = snakemake(elsewhere, METRICS, check=False)
    assert done.returncode != 0
    log = (elsewhere / "logs/evaluate.log").read_text()
    assert "collection copies: training has seen all of its 2 labelled fields (2 by same images)" in log
    assert (elsewhere / "results/predictions/copies/cells.parquet").exists()
    config = change_config(elsewhere)
    config["collections"]["copies"]["labels"] = False
    change_config(elsewhere, **config)
    snakemake(elsewhere, METRICS)
    assert {kind: of["fields"] for kind, of in left_out(elsewhere, "mixed").items()} == {"same images": 1}
    # What it learned to be compared with travels with it.
    scores = json.loads((elsewhere / METRICS).read_text())["mixed"]
    assert set(scores["baselines"]) == {"network_alone", "logistic_regression", "frozen_network", "majority", "chance"}


def test_an_older_model_folder_is_used_with_a_warning(elsewhere):
    added = ("seen.npz", "baselines.json", "fusion.json")
    for name in (*added, *(f"{Path(name).stem}.checksums.json" for name in added)):
        (elsewhere / "model" / name).unlink()
    done = snakemake(elsewhere, "--dry-run", METRICS)
    assert "model.path: model does not say what trained the model (seen.npz)" in done.stdout
    assert not {"find_seen", "measure_baselines"} & set(planned(elsewhere, METRICS)[0])


def test_a_changed_list_of_what_was_seen_is_refused(elsewhere):
    with open(elsewhere / "model/seen.npz", "ab") as file:
        file.write(b"more")
    done = snakemake(elsewhere, "--dry-run", METRICS, check=False)
    assert done.returncode != 0
    assert "seen.npz" in done.stdout
