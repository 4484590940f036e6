"""Plans with the packages of the driver alone, which starts runs on a cluster."""

import subprocess
import sys

import pytest
import yaml
from stand_in_models import write_stand_in
from workflow_runs import ROOT, write_field, write_small_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The configurations of a small run, of a prediction without a sheet, and the images of the second."""
    folder = tmp_path_factory.mktemp("driver")
    write_small_run(folder)
    (folder / "images").mkdir()
    write_field(folder / "images", "a", (0,), 1)
    write_stand_in(folder / "model")
    found = {"images": "images/{id}_{colour}.png"}
    predicted = {"collections": {"new": found}, "model": {"path": "model"}, "pixel_size": 0.16}
    (folder / "new.yaml").write_text(yaml.safe_dump(predicted))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["all", "interpret", "pack_model", "--configfile", "config.yaml"],
        ["predict_only", "--configfile", "new.yaml"],
        ["describe", "--config", "images=images"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_plan_needs_no_package_that_the_driver_lacks(folder, arguments):
    program = [sys.executable, ROOT / "tests/support/plan_as_driver.py", "--snakefile", ROOT / "Snakefile"]
    extra = ["model={images_licence: CC0}"] if "pack_model" in arguments else []
    words = [*program, "--cores", "1", "--dry-run", *arguments]
    words += ["--config", *extra] if extra else []
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
