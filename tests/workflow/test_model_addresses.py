"""Models from elsewhere: plans with a zip or an address in the place of a folder, over jobs that do nothing."""

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml
from dag import copy_workflow, listed_jobs, write_collections
from failing_server import failing_server
from forked_plans import plan, run
from stand_in_models import write_packable
from workflow_runs import change_config

from hpaloc.packing import pack_model


@pytest.fixture(scope="module")
def workflow(tmp_path_factory):
    """A copy of the workflow, a folder of collections, and three packed models, the last with a fusion."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "run").mkdir()
    write_collections(folder / "run", 8, 2)
    for name, content in (("card.md", "# Model card\n"), ("metrics.json", '{"unscored": "no labels"}')):
        (folder / name).write_text(content)
    (folder / "scores.csv").write_text("collection,level,score,value,low,high,n\n")
    tables = [folder / name for name in ("card.md", "scores.csv", "metrics.json")]
    for number in (1, 2, 3):
        model = write_packable(folder / str(number), content=number, fused=number == 3)
        pack_model(model, *tables, "CC0", folder / f"{number}.zip")
    return copy_workflow(folder / "workflow"), folder


@pytest.fixture
def folder(workflow, tmp_path):
    """A folder of collections of its own."""
    shutil.copytree(workflow[1] / "run", tmp_path / "run")
    return tmp_path / "run"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_jobs_read_a_model_that_the_plan_fetched_and_another_one_predicts_again(workflow, folder):
    snakefile, made = workflow
    archives = {f"/{number}.zip": (made / f"{number}.zip").read_bytes() for number in (1, 2)}
    with failing_server(archives) as server:
        change_config(folder, model={"path": f"{server.url}/1.zip", "sha256": sha256(made / "1.zip")})
        planned, _ = listed_jobs(run(snakefile, folder, "predict_only", "--cores", "2").text)
        # What trained the model is looked for in the first run too, whose plan has fetched it.
        assert planned["find_seen"] == 1
        # It has neither baselines nor a fusion, for which cells would be measured.
        assert not planned["measure_baselines"]
        # Jobs may run where nothing outside can be reached.
        assert len(server.requests) == 1
        assert list((folder / "results/predictions/test").glob("shards/*.parquet"))
        assert "Nothing to be done" in run(snakefile, folder, "predict_only", "--dry-run").text
        change_config(folder, model={"path": f"{server.url}/2.zip", "sha256": sha256(made / "2.zip")})
        jobs, _ = listed_jobs(run(snakefile, folder, "predict_only", "--dry-run").text)
        assert jobs["predict"] >= 1
        assert not jobs["tile"]
    # The zip of the first one is the model that has predicted, wherever it is.
    change_config(folder, model={"path": str(made / "1.zip")})
    jobs, _ = listed_jobs(run(snakefile, folder, "predict_only", "--dry-run").text)
    assert set(jobs) == {"record_run", "report_zip", "predict_only"}


@pytest.mark.parametrize("address", [True, False])
def test_a_packed_model_that_is_fused_predicts_from_measured_cells_with_and_without_labels(workflow, folder, address):
    snakefile, made = workflow
    shards = 3
    collections = yaml.safe_load((folder / "config.yaml").read_text())["collections"]
    unlabelled = collections["test"] | {"labels": False, "shards": shards}
    with failing_server({"/3.zip": (made / "3.zip").read_bytes()}) as server:
        model = {"path": f"{server.url}/3.zip" if address else str(made / "3.zip"), "sha256": sha256(made / "3.zip")}
        change_config(folder, model=model, collections={"new": unlabelled}, predict={"collections": ["new"]})
        planned, _ = listed_jobs(run(snakefile, folder, "predict_only", "--cores", "2").text)
        assert planned["measure_baselines"] == planned["predict"] == shards
        assert not planned["find_seen"]
        assert "Nothing to be done" in run(snakefile, folder, "predict_only", "--dry-run").text
        change_config(folder, collections={"new": unlabelled, "test": collections["test"]})
        change_config(folder, predict={"collections": ["new", "test"]})
        jobs, _ = listed_jobs(run(snakefile, folder, "predict_only", "--dry-run").text)
        # Those of the labelled collection, which are compared too.
        assert jobs["measure_baselines"] == jobs["predict"] >= 1
        assert jobs["evaluate"] == 1


def test_what_a_packed_model_has_seen_is_looked_for_alone_too(workflow, folder):
    change_config(folder, model={"path": str(workflow[1] / "1.zip")})
    run(workflow[0], folder, "results/evaluation/test/seen.parquet", "--cores", "2")
    # The plan of a later run has the digest of the same model.
    assert not listed_jobs(run(workflow[0], folder, "predict_only", "--dry-run").text)[0]["find_seen"]


def test_figures_of_the_data_need_no_model(workflow, folder):
    change_config(folder, model={"path": "https://localhost:9/no.zip", "sha256": "0" * 64})
    run(workflow[0], folder, "explore", "--dry-run")
    assert not (folder / "resources/models").exists()


@pytest.mark.parametrize(
    ("model", "target", "sentence"),
    [
        ({"path": "{url}/1.zip"}, "predict_only", "give the SHA-256 digest of the zip as model.sha256"),
        ({"path": "{url}/1.zip", "sha256": "1" * 64}, "predict_only", "config key model.sha256: {url}/1.zip has the"),
        ({"path": "{url}/3.zip", "sha256": "1" * 64}, "predict_only", "{url}/3.zip: the server answered 404"),
        ({"path": "ftp://host/1.zip", "sha256": "1" * 64}, "predict_only", "ftp://host/1.zip: only https is allowed"),
        ({"path": "model", "sha256": "abc"}, "predict_only", "config key model.sha256: 'abc' is not written like 9f86"),
        ({"sha256": "1" * 64}, "all", "config key model.sha256: only applies with model.path, a zip or its address"),
        ({"path": "bad.zip"}, "predict_only", "bad.zip: is not a sound zip file (File is not a zip file)"),
        ({"path": "run.zip"}, "predict_only", "run.zip is not a packed model: it has no model/package.json"),
        ({"path": "1.zip"}, "pack_model", "config key model.path: pack_model packs the model that a run trains"),
        ({}, "pack_model", "config key model.images_licence: pack_model needs the licence of the training images"),
    ],
)
def test_a_model_that_cannot_be_had_stops_the_plan_with_one_sentence(workflow, folder, model, target, sentence):
    snakefile, made = workflow
    (folder / "bad.zip").write_bytes(b"no zip")
    shutil.copy(made / "1.zip", folder)
    shutil.make_archive(str(folder / "run"), "zip", made / "1")
    with failing_server({"/1.zip": (made / "1.zip").read_bytes()}) as server:
        change_config(folder, model={key: value.format(url=server.url) for key, value in model.items()})
        done = plan(snakefile, folder, target, "--dry-run")
        assert done.returncode != 0
        assert sentence.format(url=server.url) in done.text.splitlines()[-1]
