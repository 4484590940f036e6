"""Runs of the workflow in which each rule has its own environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from workflow_runs import ROOT

# A conda whose environments are made from the package index, for machines without one.
STAND_IN = ROOT / "tests/support/conda-on-pypi/bin"


def run_in_environments(folder, prefix, *targets):
    """Run the workflow of a folder with `--sdm conda`; its environments are made below ``prefix``."""
    # The stand-in runs the Python that is found first, and installs with the uv beside it.
    search = [str(Path(sys.executable).parent), os.environ["PATH"]]
    if shutil.which("conda") is None:
        search.insert(0, str(STAND_IN))
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder]
    command += ["--cores", "2", "--nocolor", "--sdm", "conda", "--conda-prefix", prefix, *targets]
    command += ["--configfile", folder / "config.yaml"]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | {"PATH": os.pathsep.join(search)},
    )
    assert done.returncode == 0, done.stdout[-6000:]
