"""The per-rule environments, built and used: the whole chain runs in them, and each lacks what it should lack."""

import re
import subprocess

import pytest
import tifffile
import yaml
from exported_shards import IDS, write_predicted_run
from model_inputs import untrained_classifier, write_model_folder
from plane_files import BY_NAME, NAMES, stack
from rule_environments import run_in_environments
from vendor_files import write_lif, write_nd2
from workflow_runs import ROOT, write_config, write_sheet, write_small_run

LACKS = {
    # It has matplotlib, for the contact sheet of a described folder.
    "segmentation": ["tensorflow", "tensorflow_io", "keras", "torch", "sklearn", "anndata"],
    "tensorflow": ["torch", "skimage", "dask", "distributed", "cc3d", "anndata", "matplotlib"],
    "analysis": ["tensorflow", "tensorflow_io", "keras", "torch", "skimage", "dask", "distributed"],
}

pytestmark = pytest.mark.slow


def scripts_of_environments():
    """Return {environment: scripts of the rules that name it}."""
    scripts = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule in path.read_text().split("\nrule ")[1:]:
            script = re.search(r"scripts/(\w+\.py)", rule)[1]
            for name in re.findall(r"envs/(\w+)\.yaml", rule):
                scripts.setdefault(name, []).append(script)
    return scripts


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    """A finished run of the chain with `--sdm conda`, as {environment: its folder}."""
    folder = tmp_path_factory.mktemp("run")
    write_small_run(folder)
    prefix = folder / "conda"
    run_in_environments(folder, prefix)
    assert (folder / "results/report.zip").stat().st_size > 0
    names = {(ROOT / f"envs/{name}.yaml").read_text(): name for name in LACKS}
    return {names[path.read_text()]: path.with_suffix("") for path in prefix.glob("*.yaml")}


def python(environment, code):
    """Run code with the interpreter of an environment, and return what it printed."""
    # -P: nothing of the working directory, as the interpreter would see it by itself.
    done = subprocess.run([environment / "bin/python", "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_environment_was_used(environments):
    assert set(environments) == set(LACKS)


@pytest.mark.parametrize("name", LACKS)
def test_an_environment_lacks_what_its_rules_do_not_need(environments, name):
    code = f"from importlib.util import find_spec; print(*[name for name in {LACKS[name]} if find_spec(name)])"
    assert python(environments[name], code).split() == []


@pytest.mark.parametrize("name", LACKS)
def test_an_environment_has_what_its_rules_import(environments, name):
    scripts = [str(ROOT / "workflow/scripts" / script) for script in scripts_of_environments()[name]]
    code = f"import runpy, sys; sys.path.append({str(ROOT)!r}); [runpy.run_path(path) for path in {scripts}]"
    python(environments[name], code)


def test_the_names_of_the_environments_are_those_of_the_rules():
    others = {
        "hpacellseg",
        "torchscript",
        "import",
        "interpretation",
        "geojson",
        "ome_zarr",
        "onnx",
        "spatialdata",
        "crate",
    }
    assert set(scripts_of_environments()) == LACKS.keys() | others
    for name in LACKS:
        assert yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"]


@pytest.mark.parametrize("write", [write_lif, write_nd2])
def test_the_environment_of_the_import_reads_files_of_microscopes(tmp_path, write):
    ending = f".{write.__name__.removeprefix('write_')}"
    pixels = stack(1, 1, 4)
    write(tmp_path / f"a{ending}", [pixels], NAMES)
    write_sheet(tmp_path / "new.csv", [{"ID": "a"}])
    collection = {"sheet": "new.csv", "images": "{id}" + ending, "channels": BY_NAME, "shards": 1}
    write_config(tmp_path / "config.yaml", collections={"new": collection})
    run_in_environments(tmp_path, tmp_path / "conda", "results/imported/new/000")
    for colour, name in BY_NAME.items():
        made = tifffile.imread(tmp_path / f"results/imported/new/000/a_{colour}.tif")
        assert (made == pixels[0, 0, NAMES.index(name)]).all(), colour


@pytest.mark.parametrize(("format", "suffix"), [("geojson", ".geojson"), ("ome_zarr", ".ome.zarr")])
def test_the_environment_of_an_export_writes_it(tmp_path, format, suffix):
    write_predicted_run(tmp_path)
    rules = ["--allowed-rules", f"{format}_shard", f"export_{format}"]
    run_in_environments(tmp_path, tmp_path / "conda", f"export_{format}", *rules)
    written = {path.name for path in (tmp_path / f"results/export/{format}/new/000").glob("[!.]*")}
    assert {f"{id}{suffix}" for id in IDS} <= written


def test_the_environment_of_onnx_writes_a_model(tmp_path):
    # What the model predicts is not read.
    write_predicted_run(tmp_path)
    channels = ("red", "green", "blue")
    write_model_folder(tmp_path / "model", untrained_classifier(channels, 32), channels, "sigmoid", 32)
    run_in_environments(tmp_path, tmp_path / "conda", "export_onnx")
    assert (tmp_path / "results/export/onnx/model.onnx").stat().st_size > 50_000_000
