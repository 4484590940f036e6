"""What reruns after which change, in a finished run of jobs that do nothing: a small benchmarks/dag.py."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from dag import copy_workflow, listed_jobs, reruns, write_collections
from finished_runs import listed
from forked_plans import run
from stand_in_models import write_stand_in, write_stock

from hpaloc.classes import NAMES

FIELDS, SHARDS = 120, 8
FUTURE = 2**32


def finish(snakefile, folder):
    """Run all targets; the list of what is left over is made last, and says when the interpretation was."""
    run(snakefile, folder, "--cores", "2", "interpret")
    run(snakefile, folder, "--cores", "2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A copy of the workflow and the folder in which it has run, interpret too, over empty files."""
    folder = tmp_path_factory.mktemp("dag")
    collections = folder / "run"
    collections.mkdir()
    write_collections(collections, FIELDS, SHARDS)
    snakefile = copy_workflow(folder / "workflow")
    finish(snakefile, collections)
    return snakefile, collections


def test_nothing_is_to_be_done_where_nothing_has_changed(finished):
    done = run(*finished, "--dry-run")
    assert "Nothing to be done" in done.text
    # The manifests are written anew only where they differ.
    manifests = sorted((finished[1] / "results/sheet/test").glob("*.csv"))
    before = [path.stat().st_mtime_ns for path in manifests]
    run(*finished, "--dry-run")
    assert [path.stat().st_mtime_ns for path in manifests] == before


def test_a_field_touches_its_shard_and_a_training_key_no_segmentation(finished):
    seen = {change: (jobs, shards) for change, _, jobs, shards in reruns(*finished)}
    for change in ("a changed file", "an added row", "a removed row"):
        jobs, shards = seen[change]
        assert jobs["segment"] == jobs["tile"] == jobs["predict"] == 1, change
        assert shards["segment"] == shards["tile"] == shards["predict"], change
        assert not jobs["train"], change
    jobs, _ = seen["a changed training parameter"]
    assert jobs["train"] == 1
    assert jobs["predict"] > 1
    assert not {"segment", "tile", "curate", "records"} & set(jobs)
    # Every change was taken back.
    assert not listed(finished)[0]


def test_a_large_manifest_whose_old_content_comes_back_is_no_change(tmp_path):
    # Longer names in place of more fields: above 1 MB, Snakemake by itself compares times alone.
    folder = tmp_path / ("n" * 200)
    folder.mkdir()
    write_collections(folder, 1500, 2)
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    for collection in settings["collections"].values():
        collection |= {"root": str(folder), "images": f"{{root}}/{collection['images']}"}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    snakefile = copy_workflow(tmp_path / "workflow")
    run(snakefile, folder, "--cores", "2")
    assert (folder / "results/sheet/test/000.csv").stat().st_size > 1 << 20
    (folder / "other.yaml").write_text(yaml.safe_dump(settings | {"pixel_size": 0.1}))
    assert listed_jobs(run(snakefile, folder, "--dry-run", config="other.yaml").text)[0]["segment"] == 2
    assert "Nothing to be done" in run(snakefile, folder, "--dry-run").text


def test_a_run_whose_manifests_another_plan_rewrote_stops(finished):
    snakefile, folder = finished
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["collections"]["train"]["pixel_size"] = 0.1
    (folder / "other.yaml").write_text(yaml.safe_dump(settings))
    # A run waits for a file after it has planned and before it locks. It looks every 6 s, a tenth of the wait.
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--directory", folder, "--cores", "1"]
    command += ["--latency-wait", "60", "--wait-for-files", "go", "--configfile", folder / "config.yaml"]
    manifest = folder / "results/sheet/train/000.csv"
    before = manifest.read_bytes()
    manifest.unlink()
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        # It writes the manifest anew; from then on it waits.
        while not manifest.exists():
            assert waiting.poll() is None
        run(snakefile, folder, "--dry-run", config="other.yaml")
        assert manifest.read_bytes() != before
        (folder / "go").touch()
        printed = waiting.communicate()[0]
    finally:
        waiting.kill()
        run(snakefile, folder, "--dry-run")
    assert waiting.returncode != 0
    assert "results/sheet was changed by another snakemake with other settings" in printed
    assert manifest.read_bytes() == before


def test_another_model_of_the_same_name_predicts_anew_however_old_it_is(tmp_path):
    (tmp_path / "run").mkdir()
    write_collections(tmp_path / "run", 8, 2)
    snakefile = copy_workflow(tmp_path / "workflow")
    # One on a machine whose clock is ahead, one long ago: of an input that is newer than what was made of it Snakemake
    # would say that the job failed, and delete what it made.
    for name, date in (("newer", FUTURE), ("old", 10**8)):
        folder = write_stand_in(tmp_path / "models" / name, content=len(name))
        for file in folder.iterdir():
            os.utime(file, (date, date))
    link = tmp_path / "run/model"
    link.symlink_to(tmp_path / "models/newer")
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text()) | {"model": {"path": "model"}}
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    run(snakefile, tmp_path / "run", "predict_only", "--cores", "2")
    assert list((tmp_path / "run/results/predictions/test").glob("shards/*.parquet"))
    assert "Nothing to be done" in run(snakefile, tmp_path / "run", "predict_only", "--dry-run").text
    link.unlink()
    link.symlink_to(tmp_path / "models/old")
    jobs, _ = listed_jobs(run(snakefile, tmp_path / "run", "predict_only", "--dry-run").text)
    assert jobs["predict"] >= 1
    assert jobs["aggregate"] == 1
    assert not jobs["tile"]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A finished run, few_shot and interpret too, that reads files which people name; all are dated in the future."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "run").mkdir()
    write_collections(folder / "run", 8, 2)
    snakefile = copy_workflow(folder / "workflow")
    config = yaml.safe_load((folder / "run/config.yaml").read_text())
    config["collections"]["test"]["truth"] = {"cells": "cells.csv", "masks": "test/{id}_red.png"}
    config |= {"train": {"weights": "start.h5"}, "few_shot": {"table": "few.csv"}}
    config["interpretation"] = {"mixtures": {"collection": "test", "table": "mixtures.csv"}}
    (folder / "run/config.yaml").write_text(yaml.safe_dump(config))
    write_stock(folder / "run/start.h5")
    for name, content in TABLES.items():
        (folder / "run" / name).write_text(content)
    for name in NAMED:
        os.utime(folder / "run" / name, (FUTURE, FUTURE))
    run(snakefile, folder / "run", "all", "few_shot", "interpret", "--cores", "2")
    return snakefile, folder / "run"


TABLES = {
    "few.csv": "field,cell,label\n" + "".join(f"test-000000,{cell},{cell % 2}\n" for cell in (1, 2, 3, 4)),
    "mixtures.csv": "ID,label_a,fraction_a,label_b,fraction_b\ntest-000000,0,0.5,1,0.5\n",
    "cells.csv": "ID,cell,Label\ntest-000000,1,0\n",
}
NAMED = {"start.h5": {"train"}, "few.csv": {"few_shot"}, "mixtures.csv": {"interpret"}, "cells.csv": {"evaluate"}}


def replanned(named):
    return listed_jobs(run(*named, "all", "few_shot", "interpret", "--dry-run").text)[0]


def test_files_dated_in_the_future_are_read_once(named):
    assert not replanned(named)


@pytest.mark.parametrize("name", NAMED)
def test_another_file_of_the_same_name_is_read_however_old_it_is(named, name):
    path = named[1] / name
    before = path.read_bytes()
    if name == "start.h5":
        write_stock(path, value=1)
    else:
        path.write_text(TABLES[name].replace("test-000000,", " test-000000,", 1))
    os.utime(path, (10**8, 10**8))
    try:
        jobs = replanned(named)
        assert NAMED[name] <= set(jobs)
        assert not {"segment", "tile", "curate"} & set(jobs)
        assert jobs["predict"] == (name == "start.h5")
        # Its date alone says nothing.
        path.write_bytes(before)
        assert not replanned(named)
    finally:
        path.write_bytes(before)
        os.utime(path, (FUTURE, FUTURE))


@pytest.mark.parametrize("column", ["Label", "antibody", "cell_line", "split"])
@pytest.mark.parametrize("collection", ["train", "test"])
def test_a_corrected_annotation_reruns_what_depends_on_annotations(named, collection, column):
    sheet = named[1] / f"{collection}.csv"
    before = sheet.read_text()
    lines = before.splitlines()
    said = {"Label": "14", "antibody": "HPA1", "cell_line": "BJ", "split": "validation"}[column]
    if column == "Label":
        lines[1] = f"{collection}-000000,{said}"
    else:
        lines = [lines[0] + f",{column}", f"{lines[1]},{said}", *(f"{line}," for line in lines[2:])]
    sheet.write_text("\n".join(lines) + "\n")
    try:
        jobs = replanned(named)
        assert not {"segment", "tile"} & set(jobs)
        assert jobs["sheet"] == 1
        if collection == "train":
            assert jobs["curate"] == jobs["records"] == jobs["train"] == 1
        else:
            assert jobs["aggregate"] == jobs["evaluate"] == jobs["browse"] == jobs["study_cells"] == 1
            assert not {"predict", "browse_shard", "submit", "curate", "few_shot"} & set(jobs)
    finally:
        sheet.write_text(before)
        run(*named, "--dry-run")


@pytest.mark.parametrize("collection", ["train", "test"])
def test_another_column_reruns_only_the_tables_that_have_it(named, collection):
    sheet = named[1] / f"{collection}.csv"
    before = sheet.read_text()
    lines = before.splitlines()
    sheet.write_text("\n".join([f"{lines[0]},well", *(f"{line},{place}" for place, line in enumerate(lines[1:]))]))
    try:
        jobs = replanned(named)
        assert jobs["sheet"] == 1
        assert jobs["aggregate"] == (collection == "test")
        assert not {"segment", "tile", "predict", "browse_shard", "submit", "curate", "records", "train"} & set(jobs)
    finally:
        sheet.write_text(before)
        assert not replanned(named)


def test_only_a_column_that_groups_is_curated_by(named):
    sheet, settings = named[1] / "train.csv", named[1] / "config.yaml"
    before = sheet.read_text()
    config = yaml.safe_load(settings.read_text())
    config["curation"] = {"group_by": ["antibody", "patient"]}
    (named[1] / "other.yaml").write_text(yaml.safe_dump(config))
    lines = before.splitlines()

    def planned(patients, notes):
        """Plan with the two columns, first as all jobs of the curation last read them."""
        rows = (f"{line},{patient},{note}" for line, patient, note in zip(lines[1:], patients, notes, strict=True))
        sheet.write_text("\n".join([f"{lines[0]},patient,note", *rows]))
        return run(*named, "curate", "results/sheet/train.parquet", "--dry-run", config="other.yaml").text

    number = len(lines) - 1
    try:
        planned(range(number), ["x"] * number)
        run(*named, "curate", "results/sheet/train.parquet", "--cores", "2", config="other.yaml")
        assert "Nothing to be done" in planned(range(number), ["x"] * number)
        assert set(listed_jobs(planned(range(number), ["y"] * number))[0]) == {"sheet"}
        assert set(listed_jobs(planned(range(1, number + 1), ["x"] * number))[0]) == {"sheet", "curate"}
    finally:
        sheet.write_text(before)
        run(*named, "all", "few_shot", "interpret", "--cores", "2")


def test_how_labels_are_written_reruns_nothing_and_their_numbering_no_prediction(named):
    sheet = named[1] / "test.csv"
    before = sheet.read_text()
    sheet.write_text(re.sub(r",(\d+)$", lambda found: f",{NAMES[int(found[1])]}", before, flags=re.MULTILINE))
    assert sheet.read_text() != before
    config = yaml.safe_load((named[1] / "config.yaml").read_text())
    config["collections"]["test"]["labels"] = "hpa2018"
    (named[1] / "other.yaml").write_text(yaml.safe_dump(config))
    try:
        assert not replanned(named)
        # The numbers of 2018 up to 7 are those of 2021; in the tables of true cells and mixtures they may be others.
        planned = run(*named, "all", "few_shot", "interpret", "--dry-run", config="other.yaml")
        jobs = listed_jobs(planned.text)[0]
        assert jobs["evaluate"] == jobs["interpret"] == 1
        assert not {"segment", "tile", "predict", "aggregate", "curate", "train"} & set(jobs)
    finally:
        sheet.write_text(before)
        run(*named, "--dry-run")


def edit(room, old, new):
    """Replace the first ``old`` in a module and return what takes it back."""
    backup = room.with_suffix(".before")
    shutil.copy2(room, backup)
    text = room.read_text()
    assert old in text
    room.write_text(text.replace(old, new, 1))
    return lambda: backup.replace(room)


def test_words_and_plumbing_rerun_nothing(finished):
    library = finished[0].parent / "hpaloc"
    edits = [
        edit(library / "images.py", '"""', '"""Changed. '),
        edit(library / "evaluation/folder.py", "\nimport ", "\n# Changed.\n\nimport "),
        edit(library / "progress.py", "now - last >= 10", "now - last >= 11"),
        # Where and how often workers are started changes no mask.
        edit(library / "segmentation/workers.py", "STARTS = 3", "STARTS = 4"),
    ]
    try:
        assert not listed(finished)[0]
    finally:
        for take_back in edits:
            take_back()


def planned_after(finished, room, old, new, config="config.yaml"):
    """Return the rules that are planned after an edit, those of the report left out."""
    take_back = edit(finished[0].parent / "hpaloc" / room, old, new)
    try:
        jobs, _ = listed_jobs(run(*finished, "--dry-run", "all", "interpret", config=config).text)
    finally:
        take_back()
    return set(jobs) - {"record_run", "report_zip", "all", "interpret"}


STATEMENT = ("\nimport ", "\nCHANGED = True\nimport ")
JUDGED = {"judge_claims", "draw_interpretation"}
SEEN = {"note_seen", "find_seen", "add_seen"}
STUDIED = {"study_cells", "study_networks", "study_morphology", *JUDGED}
SCORED = {"evaluate", "draw_scores"}
PREDICTED = {"predict", "aggregate", "submit", "browse_shard", "browse", "summary", *SCORED, *JUDGED}
OF_MODEL = {"model_card", "receptive_field", "training_curves"}
LEARNED = {"learn_baselines", "learn_fusion", "model_card", *PREDICTED}
MEASURED = {"measure_baselines", *LEARNED}
TRAINED = {"train", *OF_MODEL, "add_seen", *LEARNED, "study_networks"}
CURATED = {"curate", "records", *SEEN, "study_cells", "study_morphology", *TRAINED}
TILED = {"preview", "tile", "sheet", "rejected", "measure_baselines", *CURATED}


@pytest.mark.parametrize(
    ("room", "old", "new", "planned"),
    [
        ("segmentation/watershed.py", *STATEMENT, {"segment", *TILED}),
        ("tiles.py", *STATEMENT, TILED),
        # Of the tables that people write, jobs read those of true cells, mixtures and, if they are given, masks.
        ("delimited.py", *STATEMENT, SEEN | SCORED | STUDIED),
        ("grouping.py", "DUPLICATE_BITS = 20", "DUPLICATE_BITS = 21", CURATED),
        ("splitting.py", *STATEMENT, CURATED),
        ("training/augmentation.py", *STATEMENT, TRAINED),
        ("network/resnet.py", *STATEMENT, TRAINED | MEASURED),
        ("baselines/measures.py", "_LIGHT_SIDE = 128", "_LIGHT_SIDE = 96", MEASURED),
        ("baselines/learning.py", "_MOST_CELLS = 40_000", "_MOST_CELLS = 9", LEARNED),
        ("evaluation/baselines.py", *STATEMENT, SCORED),
        ("evaluation/calibration.py", "CALIBRATION_BINS = 15", "CALIBRATION_BINS = 10", SCORED),
        ("model_card.py", '"## Limits"', '"## Bounds"', {"model_card"}),
        (
            "network/receptive_field.py",
            "RECEPTIVE_CELLS = 256",
            "RECEPTIVE_CELLS = 9",
            {"receptive_field", "training_curves"},
        ),
        ("accounting.py", '"cells_predicted",\n)', '"cells_predicted",\n    "scored",\n)', {"rejected", "summary"}),
        ("field_table.py", "the same images as", "the images of", {"sheet", "rejected", "summary"}),
        ("interpretation/studied.py", '"few_shot"]', '"seen"]', STUDIED),
        ("interpretation/claims.py", *STATEMENT, JUDGED),
        # Where files are is asked by what joins shards.
        ("layout.py", *STATEMENT, PREDICTED - {"predict", "browse_shard"} | SEEN | STUDIED),
        ("seen/finding.py", "2: 0.018", "2: 0.017", SEEN | SCORED | STUDIED),
        ("evaluation/left_out.py", "SeenError(", "SeenCollectionError(", SCORED),
        # Nobody reads mixtures here.
        ("mixtures/learning.py", "_RIDGE = 10.0", "_RIDGE = 1.0", set()),
        ("mixtures/light.py", "_GRAINS = (0.7", "_GRAINS = (0.8", PREDICTED),
        ("baselines/light.py", "_PERCENTILES = 8,", "_PERCENTILES = 9,", MEASURED),
        ("mixtures/fractions.py", "= 2 / 3", "= 1 / 3", PREDICTED - {"predict", "browse_shard"}),
        ("figures/data.py", *STATEMENT, {"explore_data"}),
        ("figures/training.py", *STATEMENT, {"training_curves"}),
        ("figures/scores.py", *STATEMENT, {"draw_scores"}),
        ("figures/style.py", *STATEMENT, {"explore_data", "training_curves", "draw_scores", "draw_interpretation"}),
        ("figures/interpretation.py", *STATEMENT, {"draw_interpretation"}),
        # What planning finds is in the manifests.
        ("finding.py", "missing[:10]", "missing[:9]", set()),
    ],
)
def test_an_edit_of_a_room_reruns_just_what_it_can_change(finished, room, old, new, planned):
    assert planned_after(finished, room, old, new) == planned


def test_a_changed_score_trains_neither_the_model_nor_a_control(finished):
    folder = finished[1]
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings |= {"evaluation": {"controls": ["tile_random_split", "shuffled_labels"]}}
    (folder / "controls.yaml").write_text(yaml.safe_dump(settings))
    try:
        run(*finished, "--cores", "2", "all", "interpret", config="controls.yaml")
        for room, old, new in (
            ("evaluation/calibration.py", "CALIBRATION_BINS = 15", "CALIBRATION_BINS = 10"),
            ("evaluation/pooled.py", "draws: int = 20", "draws: int = 10"),
            ("resampling.py", "_PRIOR_CELLS = 4", "_PRIOR_CELLS = 5"),
            ("matching.py", "MATCHING_IOU = 0.5", "MATCHING_IOU = 0.6"),
        ):
            after = planned_after(finished, room, old, new, "controls.yaml")
            assert "evaluate" in after, room
            trained = {"curate", "records", "train", "control", "records_control", "train_control", "predict"}
            assert not trained & after, room
        change = "controls.py", "_SORTED_SHARE = 0.075", "_SORTED_SHARE = 0.1"
        after = planned_after(finished, *change, "controls.yaml")
        assert {"control", "records_control", "train_control", "evaluate"} <= after
        assert not {"train", "curate", "predict"} & after
    finally:
        finish(*finished)
    assert planned_after(finished, *change) == set()


@pytest.mark.parametrize(
    ("weight", "planned"), [(0.3, {"learn_fusion", "model_card", *PREDICTED}), (0, {"model_card", *PREDICTED})]
)
def test_another_weight_of_the_fusion_trains_and_measures_nothing(finished, weight, planned):
    folder = finished[1]
    settings = yaml.safe_load((folder / "config.yaml").read_text()) | {"train": {"fusion": weight}}
    (folder / "fusion.yaml").write_text(yaml.safe_dump(settings))
    jobs, _ = listed_jobs(run(*finished, "--dry-run", "all", "interpret", config="fusion.yaml").text)
    assert set(jobs) - {"record_run", "report_zip", "all", "interpret"} == planned


def test_mixtures_are_learnt_and_forgotten_without_training(finished):
    folder = finished[1]
    settings = yaml.safe_load((folder / "config.yaml").read_text()) | {"train": {"blends": 100}}
    (folder / "blends.yaml").write_text(yaml.safe_dump(settings))
    after = {"learn_mixtures", "predict", "aggregate"}
    jobs, _ = listed_jobs(run(*finished, "--dry-run", config="blends.yaml").text)
    assert after < set(jobs)
    assert not {"train", "curate", "model_card"} & set(jobs)
    try:
        run(*finished, "--cores", "2", config="blends.yaml")
        reading = folder / "results/model/mixtures.json"
        assert reading.is_file()
        learnt = planned_after(finished, "mixtures/learning.py", "_RIDGE = 10.0", "_RIDGE = 1.0", "blends.yaml")
        assert after < learnt
        assert not {"train", "model_card", "receptive_field"} & learnt
    finally:
        finish(*finished)
    # It is kept, whatever is asked of a configuration without blends, and read by no job.
    run(*finished, "explore", "--cores", "2")
    assert reading.is_file()
    assert not listed(finished)[0]
