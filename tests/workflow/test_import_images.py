"""Files of microscopes in the workflow: what is imported when, what waits for it, and that nothing else differs."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from dag import copy_workflow, listed_jobs, with_scripts
from forked_plans import plan, run
from plane_files import BY_NAME, NAMES
from stand_in_models import write_stand_in
from vendor_files import WRITERS
from workflow_runs import ROOT, snakemake, write_config, write_field, write_sheet, write_small_run

from hpaloc.classes import COLOURS

IDS = [f"field-{number}" for number in range(12)]
# The stages that read channel files.
READING = ("segment", "tile", "browse_shard", "explore_data")


def settings(images="{id}.czi", **keys):
    collection = {"sheet": "new.csv", "images": images, "channels": BY_NAME, "shards": 2, **keys}
    return {"collections": {"new": collection}, "model": {"path": "model"}}


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A workflow of jobs that do nothing but the record of the run, and the folder in which it ran."""
    folder = tmp_path_factory.mktemp("import") / "run"
    folder.mkdir()
    write_stand_in(folder / "model")
    write_sheet(folder / "new.csv", [{"ID": id} for id in IDS])
    for id in IDS:
        (folder / f"{id}.czi").touch()
    write_config(folder / "config.yaml", **settings())
    snakefile = copy_workflow(folder.parent / "workflow")
    with_scripts(snakefile.parent, "record_run")
    planned = run(snakefile, folder, "--dry-run", "predict_only", "explore").text
    run(snakefile, folder, "--cores", "2", "predict_only", "explore")
    return snakefile, folder, planned


@pytest.fixture
def finished(first_run, tmp_path):
    """A copy of the first run to go on with, its files as old as they are."""
    snakefile, folder, _ = first_run
    shutil.copytree(folder, tmp_path / "run")
    return snakefile, tmp_path / "run"


def test_every_stage_that_reads_images_waits_for_the_import(first_run):
    planned = first_run[2]
    jobs, shards = listed_jobs(planned)
    assert jobs["import_images"] == jobs["segment"] == 2
    assert shards["import_images"] == shards["segment"]
    for rule in READING:
        inputs = re.findall(rf"^rule {rule}:\n    input: (.*)", planned, flags=re.MULTILINE)
        assert inputs, rule
        assert all("results/imported/new/" in line for line in inputs), rule


def test_a_finished_run_is_complete_and_leaves_nothing_over(first_run):
    snakefile, folder, _ = first_run
    assert "Nothing to be done" in run(snakefile, folder, "--dry-run", "predict_only", "explore").text
    assert "results/imported" not in (folder / "results/run/left_over.csv").read_text()
    assert "import," in (folder / "results/run/software.csv").read_text()
    assert sorted(path.name for path in (folder / "results/imported/new").iterdir()) == ["000", "001"]


def test_a_replaced_file_imports_its_shard_again_and_no_other(finished):
    snakefile, folder = finished
    (folder / f"{IDS[0]}.czi").write_bytes(b"another")
    jobs, shards = listed_jobs(run(snakefile, folder, "--dry-run", "predict_only").text)
    assert jobs["import_images"] == jobs["segment"] == jobs["tile"] == jobs["predict"] == jobs["browse_shard"] == 1
    assert shards["import_images"] == shards["segment"] == shards["tile"]


def test_another_time_point_imports_every_shard_again(finished):
    snakefile, folder = finished
    write_config(folder / "config.yaml", **settings(time=1))
    jobs, _ = listed_jobs(run(snakefile, folder, "--dry-run", "predict_only").text)
    assert jobs["import_images"] == jobs["segment"] == 2


def test_the_imported_files_of_a_collection_that_is_imported_no_more_are_named(finished):
    snakefile, folder = finished
    for id in IDS:
        (folder / f"{id}.tif").touch()
    write_config(folder / "config.yaml", **settings("{id}.tif"))
    jobs, _ = listed_jobs(run(snakefile, folder, "--dry-run", "predict_only").text)
    assert not jobs["import_images"]
    assert jobs["segment"] == 2
    run(snakefile, folder, "--cores", "2", "predict_only")
    assert "\nresults/imported/new," in (folder / "results/run/left_over.csv").read_text()


def test_an_ending_that_nothing_reads_is_refused_before_the_first_job(tmp_path):
    write_sheet(tmp_path / "new.csv", [{"ID": "a"}])
    write_config(tmp_path / "config.yaml", **settings("{id}.bmp"))
    done = plan(ROOT / "Snakefile", tmp_path, "--cores", "1", "explore", "--dry-run")
    assert done.returncode == 1
    assert "config key collections.new.images: '{id}.bmp' ends in .bmp, which nothing reads" in done.text


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A run over the same fields as four PNGs and as one file of each kind of microscope."""
    if not all(find_spec(name) for name in ("bioio", "bioio_czi", "bioio_lif", "bioio_nd2", "pylibCZIrw")):
        pytest.skip("bioio and its readers of CZI, LIF and ND2 are not installed")
    folder = tmp_path_factory.mktemp("formats")
    write_small_run(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["collections"]["test"]
    write_sheet(folder / "new.csv", [{"ID": "field-0"}, {"ID": "field-1"}])
    for id, labels in (("field-0", (0,)), ("field-1", (14,))):
        field = write_field(folder, id, labels, seed=3, dtype="uint16")
        of_name = {name: colour for colour, name in BY_NAME.items()}
        stack = np.stack([field.images[of_name[name]] for name in NAMES])
        for ending, write in WRITERS.items():
            write(folder / f"{id}{ending}", [stack[None, None]], NAMES)
    config["collections"]["png"] = {"sheet": "new.csv", "images": "{id}_{colour}.png"}
    for ending in WRITERS:
        collection = {"sheet": "new.csv", "images": f"{{id}}{ending}", "channels": BY_NAME}
        config["collections"][ending[1:]] = collection
    write_config(folder / "config.yaml", **config)
    names = ("cells.parquet", "fields.parquet", "submission.csv", "cells.h5ad")
    snakemake(folder, *(f"results/predictions/{of}/{name}" for of in ("png", "czi", "lif", "nd2") for name in names))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ending[1:] for ending in WRITERS])
@pytest.mark.parametrize(
    "files",
    [
        "segmentation/{}/000/*.png",
        "segmentation/{}/000/fields.parquet",
        "cells/{}/000*.parquet",
        "tiles/{}/000/*.tfrecord",
        "predictions/{}/shards/000.parquet",
        "predictions/{}/*.parquet",
        "predictions/{}/submission.csv",
    ],
)
def test_everything_after_the_import_is_as_of_four_plain_files(compared, kind, files):
    found = [sorted(Path(compared, "results").glob(files.format(name))) for name in ("png", kind)]
    assert len(found[0]) == len(found[1]) >= 1
    for plain, of_kind in zip(*found, strict=True):
        assert plain.name == of_kind.name
        assert plain.read_bytes() == of_kind.read_bytes(), plain.name


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ending[1:] for ending in WRITERS])
def test_the_imported_planes_are_the_only_trace_of_the_files(compared, kind):
    folder = compared / f"results/imported/{kind}/000"
    # Snakemake has a file of its own there.
    made = {path.name for path in folder.glob("[!.]*")}
    assert made == {"imported.csv", *(f"field-{number}_{colour}.tif" for number in (0, 1) for colour in COLOURS)}
