"""`snakemake cross_validate`: what it plans, what reruns it, and what it writes."""

import json
import shutil

import anndata
import pandas as pd
import pytest
import yaml
from dag import copy_workflow, with_scripts, write_collections
from finished_runs import copy_run, listed
from forked_plans import run
from workflow_runs import planned, read_rows, snakemake, write_sheet, write_small_run

from hpaloc.cross_validation import FOLD

SUMMARY = "results/cross_validation/summary.json"
OF_EACH_FOLD = ("curate_fold", "records_fold", "train_fold", "learn_baselines_fold", "learn_fusion_fold")
ONCE = ("divide_folds", "join_folds", "find_seen_folds", "evaluate_folds", "browse_folds", "describe_folds")
# The job that ends the cross-validation keeps what it was made with as the real one does.
DESCRIBE = """
import json
from pathlib import Path

Path(snakemake.output.summary).write_text(json.dumps({"line": "a line"}))
Path(snakemake.output.made_with).write_text(json.dumps(snakemake.params.made_with))
"""


def change(folder, **sections):
    """Merge sections into the configuration of ``folder``."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for name, section in sections.items():
        config[name] = {**config.get(name, {}), **section}
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def folder(tmp_path):
    write_small_run(tmp_path)
    change(tmp_path, evaluation={"folds": 3})
    return tmp_path


def test_each_fold_is_a_training_of_its_own_and_the_first_training_runs_once(folder):
    write_sheet(folder / "first.csv", [{"ID": f"first-{i}", "Label": label} for i, label in enumerate(["0", "14"] * 2)])
    first = {"sheet": "first.csv", "labels": True, "simulate": {"shape": [512, 512]}}
    change(folder, collections={"first": first}, train={"pretraining": {"collection": "first"}})
    jobs, _ = planned(folder, "cross_validate")
    assert all(jobs[rule] == 3 for rule in (*OF_EACH_FOLD, "predict_fold"))
    assert all(jobs[rule] == 1 for rule in ONCE)
    assert jobs["pretrain"] == jobs["cross_validate"] == 1
    # The collection that trains and that of the first training; not the one to predict, and not the model.
    assert jobs["segment"] == jobs["tile"] == 2
    assert jobs["measure_baselines"] == 1
    assert not {"train", "predict", "learn_mixtures", "evaluate", "report_zip"} & set(jobs)
    text = snakemake(folder, "--dry-run", "cross_validate").stdout
    fold = text.split("rule train_fold:")[1].split("\n[")[0]
    assert "results/pretraining/model/model.keras" in fold
    assert "gpu=1" in fold
    # It is not part of the daily work.
    assert not [rule for rule in planned(folder)[0] if "fold" in rule]


def test_too_few_groups_for_the_folds_are_one_sentence_before_the_first_job(folder):
    for of_antibodies, folds, sentence in (
        (3, 4, "4 folds of collection train need at least 4 groups of training fields"),
        (3, 2, "2 folds of collection train need at least 4 groups of training fields"),
        (2, 3, "curation.group_by (antibody, duplicates) makes 2; ask for fewer folds, or add fields"),
    ):
        rows = [{"ID": f"train-{i}", "Label": "0", "antibody": f"a{i % of_antibodies}"} for i in range(8)]
        write_sheet(folder / "train.csv", rows)
        change(folder, evaluation={"folds": folds})
        refused = snakemake(folder, "cross_validate", "--dry-run", check=False)
        assert refused.returncode == 1
        assert sentence in refused.stdout
        # Other targets do not ask for folds.
        assert planned(folder)[0]["train"] == 1
    change(folder, evaluation={"folds": 1})
    assert "config key evaluation.folds" in snakemake(folder, "--dry-run", check=False).stdout


def test_with_model_path_there_is_nothing_to_cross_validate(folder):
    change(folder, model={"path": "model"})
    refused = snakemake(folder, "cross_validate", "--dry-run", check=False)
    assert refused.returncode == 1
    assert "config key model.path: cross_validate trains a network for each fold" in refused.stdout


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A workflow of jobs that do nothing but the records, and the folder in which it ran, cross_validate too."""
    folder = tmp_path_factory.mktemp("first") / "run"
    folder.mkdir()
    write_collections(folder, 40, 4)
    change(folder, evaluation={"folds": 3})
    snakefile = copy_workflow(folder.parent / "workflow")
    with_scripts(snakefile.parent, "record_run", "describe_folds")
    (snakefile.parent / "workflow/scripts/describe_folds.py").write_text(DESCRIBE)
    run(snakefile, folder, "--cores", "2", "cross_validate")
    run(snakefile, folder, "--cores", "2")
    return snakefile, folder


@pytest.fixture
def finished(first_run, tmp_path):
    """A copy of the first run to go on with."""
    return copy_run(first_run, tmp_path / "run")


def left(folder):
    return {row["path"]: row["reason"] for row in read_rows(folder / "results/run/left_over.csv")}


def test_a_finished_cross_validation_is_not_made_again_and_is_not_left_over(finished):
    assert not listed(finished, "cross_validate")[0]
    assert not listed(finished)[0]
    assert left(finished[1]) == {}


def test_another_number_of_folds_trains_nothing_else_and_names_what_is_older(finished):
    folder = finished[1]
    change(folder, evaluation={"folds": 2})
    jobs = listed(finished)[0]
    # The line is no longer in the model card.
    assert set(jobs) == {"model_card", "record_run", "report_zip", "all"}
    run(*finished, "--cores", "2")
    assert left(folder) == {
        "results/cross_validation": "was made with other settings (evaluation.folds)",
        "results/cross_validation/3": "is from an earlier run; this configuration does not make it",
    }
    assert set(OF_EACH_FOLD) <= set(listed(finished, "cross_validate")[0])


def test_a_setting_of_the_training_trains_every_fold_again_from_its_examples(finished):
    change(finished[1], train={"epochs": 7})
    jobs = listed(finished, "cross_validate")[0]
    assert jobs["train_fold"] == jobs["predict_fold"] == 3
    assert jobs["join_folds"] == jobs["evaluate_folds"] == 1
    assert not {"segment", "tile", "divide_folds", "curate_fold", "records_fold"} & set(jobs)


def test_the_views_of_a_prediction_train_no_fold_again(finished):
    change(finished[1], predict={"views": 1})
    jobs = listed(finished, "cross_validate")[0]
    assert jobs["predict_fold"] == 3
    assert not {"train_fold", "curate_fold"} & set(jobs)


def test_a_killed_cross_validation_trains_only_the_folds_that_lack(finished):
    shutil.rmtree(finished[1] / "results/cross_validation/2/model")
    shutil.rmtree(finished[1] / "results/cross_validation/predictions")
    (finished[1] / "results/cross_validation/2/shards/000.parquet").unlink()
    jobs = listed(finished, "cross_validate")[0]
    assert jobs["train_fold"] == jobs["predict_fold"] == 1


def test_the_tables_of_another_training_collection_are_left_over(finished):
    folder = finished[1]
    change(folder, train={"collection": "test"}, predict={"collections": ["train"]})
    run(*finished, "--cores", "2")
    found = left(folder)
    assert {f"results/cross_validation/{name}/train" for name in ("predictions", "evaluation", "browser")} <= set(found)


@pytest.mark.network
@pytest.mark.slow
def test_every_cell_is_predicted_by_the_network_that_has_not_seen_its_group(folder):
    change(folder, predict={"field_weight": 0.5})
    out = folder / "results/cross_validation"
    first = out / "1/model/model.keras"
    snakemake(folder, first.relative_to(folder))
    trained = first.stat().st_mtime_ns
    snakemake(folder, "cross_validate")
    # What was finished before is not trained again.
    assert first.stat().st_mtime_ns == trained
    folds = pd.read_parquet(out / "folds.parquet").set_index("field")["fold"]
    cells, fields = (pd.read_parquet(out / f"predictions/train/{name}.parquet") for name in ("cells", "fields"))
    measured = pd.read_parquet(folder / "results/cells/train/000.parquet")
    assert cells[["field", "cell"]].equals(measured[["field", "cell"]])
    assert set(fields["field"]) == {f"train-{i}" for i in range(8)}
    assert fields.set_index("field")[FOLD].to_dict() == folds.to_dict()
    assert (fields["call_mean"] >= 0).all()
    for fold in (1, 2, 3):
        examples = pd.read_parquet(out / f"{fold}/examples.parquet")
        assert not set(examples["field"]) & set(folds.index[folds == fold])
        assert set(examples["part"]) == {"train", "validation"}
        predicted = pd.read_parquet(out / f"{fold}/shards/000.parquet")
        own = cells[cells["field"].map(folds) == fold].reset_index(drop=True)
        assert predicted[["cell", "p_0", "p_14", "leaned_0"]].equals(own[["cell", "p_0", "p_14", "leaned_0"]])
    scores = json.loads((out / "evaluation/metrics.json").read_text())["train"]
    assert scores["left_out"]["fields"] == 0
    assert scores["cells"]["ci95"]["accuracy"] is not None
    assert {"cells", "cells_leaned", "fields", "label_sets"} <= set(scores)
    assert len(anndata.read_h5ad(out / "predictions/train/cells.h5ad")) == len(cells)
    assert (out / "evaluation/train/confusion.svg").stat().st_size > 1000
    assert len(list(out.glob("browser/train/000/*"))) > 2
    # The next run adds it to the model card, and does not train the folds again.
    jobs, _ = planned(folder, "results/model/card.md")
    assert not [rule for rule in jobs if "fold" in rule]
    snakemake(folder, "results/model/card.md")
    line = json.loads((folder / SUMMARY).read_text())["line"]
    assert "in 3 folds by antibody, duplicates" in line
    assert line in (folder / "results/model/card.md").read_text()
    assert planned(folder, "cross_validate")[0].total() == 0
