"""The exports as targets: what they plan, what reruns them, and what a plan refuses."""

import hashlib
import json
import os
import re
import shutil
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import yaml
import zarr
from dag import copy_workflow, with_scripts, write_collections
from exported_shards import IDS, export, write_predicted_run
from finished_runs import copy_run, listed
from forked_plans import plan, run
from rule_environments import STAND_IN
from stand_in_models import add_fusion, write_stand_in
from workflow_runs import read_rows

SHARDS = 3
# The targets of a job per shard.
OF_SHARDS = ("geojson", "ome_zarr", "spatialdata")
TARGETS = tuple(f"export_{format}" for format in OF_SHARDS)


def with_package(snakefile, package):
    """Let a copy of the workflow take a package for the one that writes each format."""
    rules = snakefile.parent / "workflow/rules/common.smk"
    before, found, after = rules.read_text().partition("EXPORTERS = ")
    exporters, end, after = after.partition("}\n")
    rules.write_text(before + found + re.sub(r': "\w+"', f': "{package}"', exporters) + end + after)


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
    with_scripts(snakefile.parent, "record_run", "export_crate")
    # Jobs that do nothing need no package.
    with_package(snakefile, "json")
    run(snakefile, folder, "--cores", "2", "predict_only")
    return snakefile, folder


@pytest.fixture
def finished(first_run, tmp_path):
    """A copy of the first run to go on with."""
    return copy_run(first_run, tmp_path / "run")


def test_an_export_is_one_job_for_each_predicted_shard_and_nothing_else(finished):
    for format, target in zip(OF_SHARDS, TARGETS, strict=True):
        jobs, shards = listed(finished, target)
        assert jobs == {f"{format}_shard": SHARDS + 1, target: 1}
        assert len(shards[f"{format}_shard"]) == SHARDS + 1
    # A dry run writes nothing.
    assert not (finished[1] / "results/export").exists()


def test_an_export_reruns_for_what_it_reads_and_is_no_part_of_a_run(finished):
    snakefile, folder = finished
    run(snakefile, folder, "--cores", "2", *TARGETS)
    assert "Nothing to be done" in run(snakefile, folder, "--dry-run", *TARGETS).text
    (folder / "test/test-000000_green.png").write_bytes(b"changed")
    _, shards = listed(finished, *TARGETS)
    # The two collections have the same files.
    assert {name.split(",")[0] for name in shards["tile"]} == {"collection=test", "collection=other"}
    assert len(shards["tile"]) == 2
    for format in OF_SHARDS:
        assert shards[f"{format}_shard"] == shards["tile"], format
    jobs, _ = listed(finished, "predict_only")
    assert jobs["predict"] == 2
    assert not {f"{format}_shard" for format in OF_SHARDS} & set(jobs)


def test_the_exports_of_a_collection_that_is_predicted_no_more_are_named(finished):
    snakefile, folder = finished
    run(snakefile, folder, "--cores", "2", *TARGETS)
    run(snakefile, folder, "--cores", "2", "predict_only")
    assert not read_rows(folder / "results/run/left_over.csv")
    settings = yaml.safe_load((folder / "config.yaml").read_text()) | {"predict": {"collections": ["test"]}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    run(snakefile, folder, "--cores", "2", "predict_only")
    left = {row["path"] for row in read_rows(folder / "results/run/left_over.csv")}
    assert {path for path in left if "/export/" in path} == {f"results/export/{name}/other" for name in OF_SHARDS}


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


def references(value):
    """Return every @id that a part of JSON-LD refers to."""
    if isinstance(value, list):
        return {id for part in value for id in references(part)}
    if not isinstance(value, dict):
        return set()
    return {value["@id"]} if set(value) == {"@id"} else {id for part in value.values() for id in references(part)}


@pytest.mark.skipif(find_spec("rocrate") is None, reason="rocrate is not installed")
def test_a_run_is_written_as_a_crate(finished):
    from rocrate.rocrate import ROCrate

    snakefile, folder = finished
    add_fusion(folder / "model")
    run(snakefile, folder, "--cores", "2", "export_crate")
    assert "Nothing to be done" in run(snakefile, folder, "--dry-run", "export_crate").text
    path = folder / "results/export/crate/run.crate.zip"
    crate = ROCrate(path)
    (action,) = crate.get_by_type("CreateAction")
    assert action["instrument"] is crate.mainEntity
    assert crate.mainEntity["programmingLanguage"]["name"] == "Snakemake"
    assert {entity.id for entity in action["object"]} == {
        "results/run/config.yaml",
        *(f"model/{name}" for name in ("config.json", "thresholds.json", "checksums.json", "fusion.json")),
    }
    made = {entity.id for entity in action["result"]}
    tables = ("cells.parquet", "fields.parquet", "proteins.parquet", "submission.csv")
    assert {f"results/predictions/{name}/{table}" for name in ("test", "other") for table in tables} <= made
    assert {"results/sheet/rejected.csv", "results/evaluation/metrics.json", "results/run/software.csv"} <= made
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    said = json.loads(content.pop("ro-crate-metadata.json"))
    of_id = {entity["@id"]: entity for entity in said["@graph"]}
    assert len(of_id) == len(said["@graph"])
    # Every file is described, by its content too, and every description is of a file.
    files = {id for id, entity in of_id.items() if "File" in entity["@type"]}
    assert files == set(content) == {id for id in references(of_id["./"]["hasPart"])}
    for name, written in content.items():
        assert of_id[name]["sha256"] == hashlib.sha256(written).hexdigest(), name
        assert int(of_id[name]["contentSize"]) == len(written)
        assert of_id[name]["description"]
    assert content["results/run/config.yaml"] == (folder / "results/run/config.yaml").read_bytes()
    assert content["Snakefile"] == snakefile.read_bytes()
    # What is named and not described is elsewhere, or a profile.
    named = {id for entity in of_id.values() for id in references([entity[key] for key in entity if key != "@id"])}
    assert all(id.startswith(("http://", "https://")) for id in named - of_id.keys())
    profiles = {"https://w3id.org/ro/wfrun/process/0.5", "https://w3id.org/ro/wfrun/workflow/0.5"}
    assert references(of_id["./"]["conformsTo"]) == profiles
    assert references(of_id["./"]["mentions"]) == {action.id}


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """A folder with the predictions of a small shard, which every export may read."""
    folder = tmp_path_factory.mktemp("predicted")
    return folder, write_predicted_run(folder)


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


def test_a_package_that_is_not_here_is_said_before_the_first_job(finished, tmp_path, monkeypatch):
    _, folder = finished
    lacking = copy_workflow(tmp_path / "lacking")
    with_package(lacking, "of_no_name")
    for target in (*TARGETS, "export_onnx", "export_crate"):
        done = plan(lacking, folder, "--cores", "1", "--dry-run", target)
        assert done.returncode == 1
        assert f"{target}: the package of_no_name is not in this environment; run with --sdm conda" in done.text
    # With environments of their own the jobs do not need it here.
    monkeypatch.setenv("PATH", str(STAND_IN), prepend=os.pathsep)
    done = plan(lacking, folder, "--dry-run", *TARGETS, "export_onnx", "--sdm", "conda", "--cores", "1")
    assert done.returncode == 0, done.text
