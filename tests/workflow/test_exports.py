"""The exports as targets: what they plan, what reruns them, and what a plan refuses."""

import json
import re
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import yaml
import zarr
from dag import copy_workflow, listed_jobs, with_scripts, write_collections
from exported_shards import IDS, export, write_predicted_run
from forked_plans import plan, run
from stand_in_models import write_stand_in
from workflow_runs import read_rows

SHARDS = 3
# The targets of a job per shard, and the package of each.
OF_SHARDS = {"geojson": "geojson", "ome_zarr": "ome_zarr"}


HERE = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(package) is None, reason=f"{package} is not installed"))
    for name, package in OF_SHARDS.items()
]


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A workflow of jobs that do nothing but the record of the run, and the folder in which it has predicted."""
    folder = tmp_path_factory.mktemp("exports") / "run"
    folder.mkdir()
    write_collections(folder, 12, SHARDS + 1)
    write_stand_in(folder / "model")
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["collections"]["other"] = {**settings["collections"]["test"], "shards": 1}
    settings |= {"model": {"path": "model"}, "predict": {"collections": ["test", "other"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    snakefile = copy_workflow(folder.parent / "workflow")
    with_scripts(snakefile.parent, "record_run")
    run(snakefile, folder, "--cores", "2", "predict_only")
    return snakefile, folder


@pytest.fixture
def finished(first_run, tmp_path):
    """A copy of the first run to go on with, its files as old as they are."""
    snakefile, folder = first_run
    shutil.copytree(folder, tmp_path / "run")
    return snakefile, tmp_path / "run"


def listed(finished, *targets):
    return listed_jobs(run(*finished, "--dry-run", *targets).text)


@pytest.mark.parametrize("format", HERE)
def test_an_export_is_one_job_for_each_predicted_shard_and_nothing_else(finished, format):
    jobs, shards = listed(finished, f"export_{format}")
    assert jobs == {f"{format}_shard": SHARDS + 1, f"export_{format}": 1}
    assert len(shards[f"{format}_shard"]) == SHARDS + 1
    # A dry run writes nothing.
    assert not (finished[1] / "results/export").exists()


@pytest.mark.parametrize("format", HERE)
def test_an_export_reruns_for_what_it_reads_and_is_no_part_of_a_run(finished, format):
    snakefile, folder = finished
    run(snakefile, folder, "--cores", "2", f"export_{format}")
    assert "Nothing to be done" in run(snakefile, folder, "--dry-run", f"export_{format}").text
    (folder / "test/test-000000_green.png").write_bytes(b"changed")
    _, shards = listed(finished, f"export_{format}")
    # The two collections have the same files.
    assert {name.split(",")[0] for name in shards[f"{format}_shard"]} == {"collection=test", "collection=other"}
    assert len(shards[f"{format}_shard"]) == 2
    assert shards[f"{format}_shard"] == shards["tile"] == shards["segment"]
    jobs, _ = listed(finished, "predict_only")
    assert not [name for name in jobs if format in name]


@pytest.mark.parametrize("format", HERE)
def test_the_exports_of_a_collection_that_is_predicted_no_more_are_named(finished, format):
    snakefile, folder = finished
    run(snakefile, folder, "--cores", "2", f"export_{format}")
    run(snakefile, folder, "--cores", "2", "predict_only")
    assert not read_rows(folder / "results/run/left_over.csv")
    settings = yaml.safe_load((folder / "config.yaml").read_text()) | {"predict": {"collections": ["test"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    run(snakefile, folder, "--cores", "2", "predict_only")
    left = {row["path"] for row in read_rows(folder / "results/run/left_over.csv")}
    assert f"results/export/{format}/other" in left
    assert f"results/export/{format}/test" not in left


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A folder with the predictions of a small shard, which every export may read."""
    folder = tmp_path_factory.mktemp("predicted")
    return folder, write_predicted_run(folder)


@pytest.mark.skipif(find_spec("tf2onnx") is None, reason="tf2onnx is not installed")
def test_a_model_is_written_as_onnx_once(finished):
    snakefile, folder = finished
    assert listed(finished, "export_onnx")[0] == {"export_onnx": 1}
    run(snakefile, folder, "--cores", "2", "export_onnx")
    assert "Nothing to be done" in run(snakefile, folder, "--dry-run", "export_onnx").text
    write_stand_in(folder / "model", content=1)
    assert listed(finished, "export_onnx")[0] == {"export_onnx": 1}
    write_stand_in(folder / "model")
    assert not listed(finished, "export_onnx")[0]
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    settings["predict"]["views"] = 2
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    assert listed(finished, "export_onnx")[0] == {"export_onnx": 1}


@pytest.mark.skipif(find_spec("geojson") is None, reason="geojson is not installed")
def test_cells_are_written_as_geojson(predicted):
    folder, shard = predicted
    export(folder, "geojson")
    written = folder / "results/export/geojson/new/000"
    assert {path.name for path in written.glob("[!.]*")} == {f"{id}.geojson" for id in (*IDS, "empty")}
    features = json.loads((written / f"{IDS[0]}.geojson").read_text())["features"]
    assert len(features) == shard.masks(IDS[0])[0].max()


@pytest.mark.skipif(find_spec("ome_zarr") is None, reason="ome_zarr is not installed")
def test_fields_are_written_as_ome_zarr(predicted):
    folder, shard = predicted
    export(folder, "ome_zarr")
    written = folder / "results/export/ome_zarr/new/000"
    assert {path.name for path in written.glob("[!.]*")} == {f"{id}.ome.zarr" for id in (*IDS, "empty")}
    masks = zarr.open(written / f"{IDS[1]}.ome.zarr/labels/cells")["s0"][:]
    assert np.array_equal(masks, shard.masks(IDS[1])[0])


@pytest.mark.skipif(find_spec("ome_zarr") is None, reason="ome_zarr is not installed")
def test_masks_are_exported_where_there_is_no_model(finished):
    snakefile, folder = finished
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    shutil.rmtree(folder / "model")
    # Neither labels nor a model: nothing can be trained or predicted.
    unlabelled = {name: {**of_one, "labels": False} for name, of_one in settings["collections"].items()}
    settings = {"collections": unlabelled, "predict": settings["predict"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    assert plan(snakefile, folder, "--cores", "1", "--dry-run").returncode == 1
    jobs, _ = listed(finished, "export_ome_zarr")
    assert jobs["ome_zarr_shard"] == SHARDS + 1
    assert not {"train", "predict"} & set(jobs)


@pytest.mark.parametrize("format", [*OF_SHARDS, "onnx"])
def test_a_package_that_is_not_here_is_said_before_the_first_job(finished, format, tmp_path):
    _, folder = finished
    lacking = copy_workflow(tmp_path / "lacking")
    rules = lacking.parent / "workflow/rules/common.smk"
    rules.write_text(re.sub(rf'"{format}": "\w+"', f'"{format}": "of_no_name"', rules.read_text()))
    done = plan(lacking, folder, "--cores", "1", "--dry-run", f"export_{format}")
    assert done.returncode == 1
    assert f"export_{format}: the package of_no_name is not in this environment; run with --sdm conda" in done.text
    assert plan(lacking, folder, "--cores", "1", "--dry-run", "predict_only").returncode == 0
