"""The profile on a Slurm with an accounting database; the other tests have one without."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from dag import copy_workflow, write_collections
from one_node_slurm import one_node_slurm
from workflow_runs import write_slurm_profile

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slurm():
    # Not below pytest's own folder, which the user of the database cannot enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with one_node_slurm(Path(folder), accounting=True, cpus=16, megabytes=100000) as slurm:
            yield slurm


def test_jobs_are_followed_and_accounted_for(slurm, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    write_collections(folder, 60, 2)
    snakefile = copy_workflow(tmp_path / "workflow")
    write_slurm_profile(folder)
    target = "results/sheet/test.parquet"
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--profile", "slurm", "--nocolor"]
    command += ["--configfile", "config.yaml", "--", target]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert (folder / target).is_file()
    rows = subprocess.run(
        ["sacct", "--allusers", "--allocations", "--noheader", "--parsable2", "--format=State,Account"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    # One job for the shard, segmented and tiled, and one for the table.
    assert len(rows) == 2
    assert all(row.startswith("COMPLETED|") for row in rows)
