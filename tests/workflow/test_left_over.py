"""What a run leaves in the files of all collections is of that run, and what earlier runs left is named."""

import copy
import json
import os
import shutil

import pandas as pd
import pytest
import yaml
from dag import copy_workflow, listed_jobs, with_scripts, write_collections
from finished_runs import copy_run
from forked_plans import run
from stand_in_models import write_stand_in
from workflow_runs import read_rows

from hpaloc.classes import NAMES
from hpaloc.left_over import left_over_lines, other_settings, outdated, unconfigured, write_left_over
from hpaloc.mixtures.reading import write_reading


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A workflow of jobs that do nothing but the record of the run, the folder in which it ran, and its settings."""
    folder = tmp_path_factory.mktemp("first") / "run"
    folder.mkdir()
    write_collections(folder, 12, 3)
    snakefile = copy_workflow(folder.parent / "workflow")
    with_scripts(snakefile.parent, "record_run")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["collections"]["old"] = {**settings["collections"]["test"], "shards": 2}
    settings |= {"evaluation": {"controls": ["shuffled_labels"]}}
    do(snakefile, folder, settings)
    return snakefile, folder, settings


@pytest.fixture
def finished(first_run, tmp_path):
    """A copy of the first run to go on with, and its settings."""
    snakefile, folder, settings = first_run
    return *copy_run((snakefile, folder), tmp_path / "run"), copy.deepcopy(settings)


def do(snakefile, folder, settings, *arguments):
    """Run the workflow with these settings, and return what it printed."""
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return run(snakefile, folder, "--cores", "2", *arguments).text


def left(folder):
    return {row["path"] for row in read_rows(folder / "results/run/left_over.csv")}


def jobs(folder):
    return {f"{row['rule']}/{row['job']}".rstrip("/") for row in read_rows(folder / "results/run/jobs.csv")}


def test_a_first_run_leaves_nothing_over_and_lists_all_its_jobs(finished):
    _, folder, _ = finished
    assert read_rows(folder / "results/run/left_over.csv") == []
    ran = {str(path.relative_to(folder / "benchmarks").with_suffix("")) for path in folder.glob("benchmarks/**/*.tsv")}
    assert jobs(folder) == ran - {"record_run", "report"}
    assert {"segment/old/001", "train_control/shuffled_labels", "sheet/rejected"} <= jobs(folder)


def test_a_collection_and_a_control_taken_out_are_named_and_their_jobs_listed_no_more(finished):
    snakefile, folder, settings = finished
    del settings["collections"]["old"], settings["evaluation"]
    printed = do(snakefile, folder, settings)
    stages = ("sheet", "segmentation", "cells", "tiles", "predictions", "browser", "evaluation", "baselines")
    expected = {f"results/{stage}/old" for stage in stages}
    assert left(folder) == expected | {"results/sheet/old.parquet", "results/controls/shuffled_labels"}
    assert "left by earlier runs" in printed
    assert "results/predictions/old" in printed.split("left by earlier runs", 1)[1]
    assert not [job for job in jobs(folder) if "old" in job or "control" in job]
    assert "segment/test/000" in jobs(folder)
    # Nothing is lost, and the list is of the folder as it is: without what is deleted it is made anew.
    assert (folder / "results/predictions/old/cells.parquet").exists()
    assert "Nothing to be done" in do(snakefile, folder, settings, "--dry-run")
    (folder / "results/sheet/old.parquet").unlink()
    assert set(listed_jobs(do(snakefile, folder, settings, "--dry-run"))[0]) == {"record_run", "report_zip", "all"}
    do(snakefile, folder, settings)
    assert "results/sheet/old.parquet" not in left(folder)


def test_a_collection_that_is_predicted_no_more_has_no_predictions_of_this_run(finished):
    snakefile, folder, settings = finished
    do(snakefile, folder, settings | {"predict": {"collections": ["test"]}})
    assert {"results/predictions/old", "results/browser/old", "results/segmentation/old"} <= left(folder)
    # Its sheet is read all the same.
    assert "results/sheet/old" not in left(folder)
    assert not [job for job in jobs(folder) if "old" in job]


def test_shards_that_there_are_no_more_are_named(finished):
    snakefile, folder, settings = finished
    settings["collections"]["old"]["shards"] = 1
    # Of a truth that is configured no more.
    (folder / "results/sheet/test/truth.csv").touch()
    do(snakefile, folder, settings)
    assert left(folder) == {
        "results/sheet/test/truth.csv",
        "results/segmentation/old/001",
        "results/cells/old/001.parquet",
        "results/cells/old/001.fields.parquet",
        "results/tiles/old/001",
        "results/predictions/old/shards/001.parquet",
        "results/browser/old/001",
        "results/baselines/old/001.parquet",
    }
    assert {"segment/old/000", "aggregate/old"} <= jobs(folder)
    assert not {"segment/old/001", "predict/old/001", "browse_shard/old/001"} & jobs(folder)


def test_a_model_from_elsewhere_leaves_no_scores_record_or_report_of_the_run_before(finished):
    snakefile, folder, settings = finished
    write_stand_in(folder / "elsewhere")
    for collection in settings["collections"].values():
        collection["labels"] = False
    settings = {key: value for key, value in settings.items() if key != "evaluation"}
    settings |= {"model": {"path": "elsewhere"}}
    snakefile = shutil.copytree(snakefile.parent, folder.parent / "workflow") / "Snakefile"
    with_scripts(snakefile.parent, "evaluate")
    before = (folder / "results/report.zip").stat().st_mtime_ns
    printed = do(snakefile, folder, settings, "predict_only")
    assert (folder / "results/report.zip").stat().st_mtime_ns > before
    assert yaml.safe_load((folder / "results/run/config.yaml").read_text())["model"]["path"] == "elsewhere"
    metrics = json.loads((folder / "results/evaluation/metrics.json").read_text())
    assert metrics["unscored"] in printed
    assert "no collection that is predicted (old, test) has labels" in metrics["unscored"]
    assert not any(metrics["controls"].values())
    for name in ("scores", "per_class", "confusion", "reliability", "pooled"):
        assert len(pd.read_csv(folder / f"results/evaluation/{name}.csv")) == 0
    assert "score" in pd.read_csv(folder / "results/evaluation/scores.csv").columns
    trained = {
        "results/model",
        "results/dataset",
        "results/controls/shuffled_labels",
        "results/figures/figure7a_loss.svg",
    }
    assert trained <= left(folder)
    # The figures of labels are of the run that had some; the one of the channels is of this run.
    assert "results/figures/figure1_labels.svg" in left(folder)
    assert "results/figures/figure3_channels.svg" not in left(folder)
    assert "results/evaluation/test" in left(folder)
    assert not [job for job in jobs(folder) if "train" in job or job in ("curate", "records")]
    assert "Nothing to be done" in do(snakefile, folder, settings, "predict_only", "--dry-run")


def test_a_model_of_an_earlier_run_that_predicts_is_not_left_over(finished):
    snakefile, folder, settings = finished
    settings = {key: value for key, value in settings.items() if key != "evaluation"}
    # Of jobs that do nothing, what training has seen is an empty file.
    shutil.rmtree(folder / "results/model")
    reading = {"classes": NAMES[:1], "mean": [0], "scale": [1], "coefficients": [[0]], "intercept": [0]}
    write_reading(write_stand_in(folder / "results/model"), reading | {"prototypes": {}})
    do(snakefile, folder, settings | {"model": {"path": "results/model"}}, "predict_only")
    # Nor is the reading of mixtures, which this run takes from it.
    assert not [path for path in left(folder) if path.startswith("results/model")]
    assert "results/dataset" in left(folder)


@pytest.mark.parametrize(("folder_of_model", "link"), [("results/model", "mine"), ("results/pretraining/model", "a/b")])
def test_a_model_that_a_link_leads_to_is_not_left_over(finished, folder_of_model, link):
    snakefile, folder, settings = finished
    settings = {key: value for key, value in settings.items() if key != "evaluation"}
    shutil.rmtree(folder / "results/model")
    (folder / folder_of_model).parent.mkdir(exist_ok=True)
    write_stand_in(folder / folder_of_model)
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(folder / folder_of_model)
    do(snakefile, folder, settings | {"model": {"path": link}}, "predict_only")
    assert not [path for path in left(folder) if folder_of_model.startswith(path)]
    assert "results/dataset" in left(folder)


def test_a_reading_of_mixtures_that_is_learnt_no_more_is_kept_and_named(finished):
    snakefile, folder, settings = finished
    files = {f"results/model/{name}" for name in ("mixtures.json", "mixtures.checksums.json")}
    do(snakefile, folder, settings | {"train": {"blends": 100}})
    assert left(folder) == set()
    assert all((folder / name).is_file() for name in files)
    do(snakefile, folder, settings, "explore")
    assert all((folder / name).is_file() for name in files)
    do(snakefile, folder, settings)
    assert left(folder) == files
    assert all(
        row["what_to_do"].startswith("delete it before you copy the model")
        for row in read_rows(folder / "results/run/left_over.csv")
    )


# The last job of a study, which keeps what it was made with as the real one does.
STUDY = """
import json
from pathlib import Path

for path in snakemake.output:
    Path(path).touch()
Path(snakemake.output.made_with).write_text(json.dumps(snakemake.params.made_with))
"""


@pytest.fixture
def studied(finished):
    """The first run with jobs that keep the settings of the studies."""
    snakefile, folder, settings = finished
    snakefile = shutil.copytree(snakefile.parent, folder.parent / "workflow") / "Snakefile"
    for name in ("judge_claims", "few_shot"):
        with_scripts(snakefile.parent, name)
        (snakefile.parent / f"workflow/scripts/{name}.py").write_text(STUDY)
    return snakefile, folder, settings


def reasons(folder):
    return {row["path"]: row["reason"] for row in read_rows(folder / "results/run/left_over.csv")}


def test_a_study_of_older_predictions_is_named_until_it_is_made_anew(studied):
    snakefile, folder, settings = studied
    do(snakefile, folder, settings, "interpret")
    do(snakefile, folder, settings)
    assert left(folder) == set()
    settings |= {"predict": {"views": 1}}
    do(snakefile, folder, settings)
    (row,) = read_rows(folder / "results/run/left_over.csv")
    assert row["path"] == "results/interpretation"
    assert "older than results/predictions/old/cells.parquet" in row["reason"]
    assert row["what_to_do"] == "make it again: snakemake interpret"
    # Jobs that do nothing make the same files again, which Snakemake knows by their content.
    os.utime(folder / "results/interpretation/claims.json")
    do(snakefile, folder, settings)
    assert left(folder) == set()


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ({"interpretation": {"cells": 60}}, "interpretation.cells"),
        ({"interpretation": {"held_out": [0, 16]}}, "interpretation.held_out, networks studied"),
        ({"evaluation": {"controls": []}}, "networks studied"),
        ({"predict": {"collections": ["test"]}}, "collections studied"),
    ],
)
def test_a_study_of_other_settings_is_named(studied, section, name):
    snakefile, folder, settings = studied
    do(snakefile, folder, settings, "interpret")
    do(snakefile, folder, settings | section)
    os.utime(folder / "results/interpretation/claims.json")
    do(snakefile, folder, settings | section)
    assert reasons(folder)["results/interpretation"] == f"was made with other settings ({name})"
    do(snakefile, folder, settings)
    assert "results/interpretation" not in left(folder)


def test_labels_of_another_table_or_learner_are_named_however_old_the_table_is(studied):
    snakefile, folder, settings = studied
    lines = "".join(f"test-00000{field},{cell},{'ab'[field]}\n" for field in (0, 1) for cell in (1, 2))
    for name, last in (("few.csv", ""), ("more.csv", "test-000000,3,a\n")):
        (folder / name).write_text(f"field,cell,label\n{lines}{last}")
        os.utime(folder / name, (10**9, 10**9))
    few = {"table": "few.csv", "collection": "test"}
    do(snakefile, folder, settings | {"few_shot": few}, "few_shot")
    do(snakefile, folder, settings | {"few_shot": few})
    assert left(folder) == set()
    do(snakefile, folder, settings | {"few_shot": few | {"learner": "knn"}})
    assert reasons(folder)["results/few_shot/test"] == "was made with other settings (few_shot.learner)"
    do(snakefile, folder, settings | {"few_shot": few | {"table": "more.csv"}})
    assert "(content of few_shot.table, few_shot.table)" in reasons(folder)["results/few_shot/test"]
    do(snakefile, folder, settings | {"few_shot": few | {"collection": "old"}})
    assert "does not make it" in reasons(folder)["results/few_shot/test"]
    # The same name with other content, and as old.
    os.replace(folder / "more.csv", folder / "few.csv")
    do(snakefile, folder, settings | {"few_shot": few})
    assert reasons(folder)["results/few_shot/test"] == "was made with other settings (content of few_shot.table)"


def test_only_places_of_the_results_are_looked_at_and_the_outermost_path_is_named(tmp_path):
    for name in ("tiles/old/000/red.tfrecord", "tiles/new/000/red.tfrecord", "tiles/new/.hidden", "mine/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    kept = [f"{tmp_path}/tiles/new", f"{tmp_path}/tiles/new/000"]
    assert unconfigured(kept, results=tmp_path) == [f"{tmp_path}/tiles/old"]
    assert unconfigured(kept[:1], results=tmp_path) == [f"{tmp_path}/tiles/new/000", f"{tmp_path}/tiles/old"]
    assert unconfigured([], results=tmp_path / "absent") == []


def test_each_path_has_its_newest_date_and_what_to_do(tmp_path):
    old, study, table = tmp_path / "old", tmp_path / "study", tmp_path / "left_over.csv"
    old.mkdir()
    study.mkdir()
    for name, date in (("first", 10**9), ("second", 10**9 + 86400), ("study", 10**9)):
        (old / name).touch()
        os.utime(old / name, (date, date))
    write_left_over(table, [str(old), str(tmp_path / "gone")], {str(study): ("is older", "interpret")})
    of_old, of_study = read_rows(table)
    assert of_old["newest"][:10] in ("2001-09-10", "2001-09-09", "2001-09-11")
    assert "delete it" in of_old["what_to_do"]
    assert (of_study["reason"], of_study["what_to_do"]) == ("is older", "make it again: snakemake interpret")
    lines = left_over_lines(table, at_most=1)
    assert str(old) in lines[1]
    assert lines[2] == "  and 1 more"
    write_left_over(table, [], {})
    assert left_over_lines(table) == []


def test_a_file_is_outdated_where_a_source_is_newer(tmp_path):
    made, source = tmp_path / "made", tmp_path / "source"
    assert outdated(made, [source]) is None
    made.touch()
    assert outdated(made, [source]) is None
    source.touch()
    os.utime(made, (10**9, 10**9))
    assert str(source) in outdated(made, [source])
    os.utime(source, (10**9, 10**9))
    assert outdated(made, [source]) is None


def test_settings_of_a_study_are_compared_as_they_were_kept(tmp_path):
    path = tmp_path / "settings.json"
    assert "has no record in settings.json" in other_settings(path, {"seed": 1})
    path.write_text(json.dumps({"seed": 1, "held_out": [0, 1]}))
    assert other_settings(path, {"seed": 1, "held_out": (0, 1)}) is None
    assert other_settings(path, {"seed": 2, "draws": 3}) == "was made with other settings (draws, held_out, seed)"
    path.write_text("{")
    assert "has no record in settings.json" in other_settings(path, {"seed": 1})
