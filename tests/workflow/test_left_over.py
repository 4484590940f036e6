"""What a run leaves in the files of all collections is of that run, and what earlier runs left is named."""

import copy
import csv
import json
import os
import shutil

import pandas as pd
import pytest
import yaml
from dag import copy_workflow, listed_jobs, with_scripts, write_collections
from forked_plans import run
from stand_in_models import write_stand_in

from hpaloc.classes import NAMES
from hpaloc.left_over import foreign_collections, left_over_lines, outdated, unconfigured, write_left_over
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
    """A copy of the first run to go on with, its files as old as they are."""
    snakefile, folder, settings = first_run
    shutil.copytree(folder, tmp_path / "run")
    return snakefile, tmp_path / "run", copy.deepcopy(settings)


def do(snakefile, folder, settings, *arguments):
    """Run the workflow with these settings, and return what it printed."""
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return run(snakefile, folder, "--cores", "2", *arguments).text


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def left(folder):
    return {row["path"] for row in rows(folder / "results/run/left_over.csv")}


def jobs(folder):
    return {f"{row['rule']}/{row['job']}".rstrip("/") for row in rows(folder / "results/run/jobs.csv")}


def test_a_first_run_leaves_nothing_over_and_lists_all_its_jobs(finished):
    _, folder, _ = finished
    assert rows(folder / "results/run/left_over.csv") == []
    ran = {str(path.relative_to(folder / "benchmarks").with_suffix("")) for path in folder.glob("benchmarks/**/*.tsv")}
    assert jobs(folder) == ran - {"record_run", "report"}
    assert {"segment/old/001", "train_control/shuffled_labels", "sheet/rejected"} <= jobs(folder)


def test_a_collection_and_a_control_taken_out_are_named_and_their_jobs_listed_no_more(finished):
    snakefile, folder, settings = finished
    del settings["collections"]["old"], settings["evaluation"]
    printed = do(snakefile, folder, settings)
    stages = ("sheet", "segmentation", "cells", "tiles", "predictions", "browser", "evaluation")
    expected = {f"results/{stage}/old" for stage in stages}
    assert left(folder) == expected | {"results/sheet/old.parquet", "results/controls/shuffled_labels"}
    assert "not of this run, left by earlier ones" in printed
    assert "results/predictions/old" in printed.split("not of this run", 1)[1]
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
    reading = {"classes": NAMES[:1], "mean": [0], "scale": [1], "coefficients": [[0]], "intercept": [0]}
    write_reading(write_stand_in(folder / "results/model"), reading | {"prototypes": {}})
    do(snakefile, folder, settings | {"model": {"path": "results/model"}}, "predict_only")
    # Nor is the reading of mixtures, which this run takes from it.
    assert not [path for path in left(folder) if path.startswith("results/model")]
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
        for row in rows(folder / "results/run/left_over.csv")
    )


def test_a_study_of_older_predictions_is_named_until_it_is_made_anew(finished):
    snakefile, folder, settings = finished
    study = folder / "results/interpretation"
    study.mkdir()
    pd.DataFrame({"collection": ["test", "old"]}).to_parquet(study / "cells.parquet")
    (study / "claims.json").touch()
    do(snakefile, folder, settings)
    assert left(folder) == set()
    do(snakefile, folder, settings | {"predict": {"views": 1}})
    (row,) = rows(folder / "results/run/left_over.csv")
    assert row["path"] == "results/interpretation"
    assert "older than results/predictions/old/cells.parquet" in row["reason"]
    assert row["what_to_do"] == "make it anew: snakemake interpret"
    (study / "claims.json").touch()
    do(snakefile, folder, settings | {"predict": {"views": 1}})
    assert left(folder) == set()
    # One whose cells are of a collection that is not studied any more is older than nothing.
    do(snakefile, folder, settings | {"predict": {"views": 1, "collections": ["test"]}})
    os.utime(study / "claims.json")
    do(snakefile, folder, settings | {"predict": {"views": 1, "collections": ["test"]}})
    reasons = {row["path"]: row["reason"] for row in rows(folder / "results/run/left_over.csv")}
    assert reasons["results/interpretation"].startswith("has cells of collection old")


def test_only_places_of_the_results_are_looked_at_and_the_outermost_path_is_named(tmp_path):
    for name in ("tiles/old/000/red.tfrecord", "tiles/new/000/red.tfrecord", "tiles/new/.hidden", "mine/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    kept = [f"{tmp_path}/tiles/new", f"{tmp_path}/tiles/new/000"]
    assert unconfigured(kept, tmp_path) == [f"{tmp_path}/tiles/old"]
    assert unconfigured(kept[:1], tmp_path) == [f"{tmp_path}/tiles/new/000", f"{tmp_path}/tiles/old"]
    assert unconfigured([], tmp_path / "absent") == []


def test_each_path_has_its_newest_date_and_what_to_do(tmp_path):
    old, study, table = tmp_path / "old", tmp_path / "study", tmp_path / "left_over.csv"
    old.mkdir()
    study.mkdir()
    for name, date in (("first", 10**9), ("second", 10**9 + 86400), ("study", 10**9)):
        (old / name).touch()
        os.utime(old / name, (date, date))
    write_left_over(table, [str(old), str(tmp_path / "gone")], {str(study): ("is older", "interpret")})
    of_old, of_study = rows(table)
    assert of_old["newest"][:10] in ("2001-09-10", "2001-09-09", "2001-09-11")
    assert "delete it" in of_old["what_to_do"]
    assert (of_study["reason"], of_study["what_to_do"]) == ("is older", "make it anew: snakemake interpret")
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


def test_cells_of_a_collection_that_is_not_studied_are_known(tmp_path):
    path = tmp_path / "cells.parquet"
    assert foreign_collections(path, ["test"]) is None
    pd.DataFrame({"collection": ["test", "old"]}).to_parquet(path)
    assert foreign_collections(path, ["test", "old", "train"]) is None
    assert "collection old" in foreign_collections(path, ["test"])
