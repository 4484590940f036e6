"""The demo as a person runs it: one command in a fresh clone, and what it leaves."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from hpaloc.classes import N_CLASSES

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def make(folder, target):
    """Run make in ``folder`` and return what it printed."""
    done = subprocess.run(
        ["make", target], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A fresh clone in which `make demo` has ended, and what it printed last."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no clone")
    folder = tmp_path_factory.mktemp("clone") / "hpaloc"
    subprocess.run(["git", "clone", "--quiet", os.fspath(ROOT), os.fspath(folder)], check=True)
    return folder, make(folder, "demo")


def test_the_demo_ends_with_the_path_of_the_report(clone):
    folder, printed = clone
    assert printed.rstrip().endswith(f"{folder}/results/report.zip")
    for name in ("report.zip", "predictions/test/cells.parquet", "predictions/test/submission.csv"):
        assert (folder / "results" / name).stat().st_size > 0


def test_a_second_demo_has_nothing_to_do(clone):
    assert "Nothing to be done" in make(clone[0], "demo")


def test_cells_are_predicted_as_simulated(clone):
    metrics = json.loads((clone[0] / "results/evaluation/metrics.json").read_text())["test"]
    assert metrics["cells"]["accuracy"] >= 0.70
    assert metrics["segmentation"]["f1_60"] >= 0.9
    confusion = pd.read_csv(clone[0] / "results/evaluation/confusion.csv")
    assert len(confusion) == N_CLASSES
