"""Dask workers as Slurm jobs: the same bytes as from a LocalCluster, and a job that is lost is replaced."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from one_node_slurm import one_node_slurm
from segmented_fields import manifest_rows
from workflow_runs import snakemake, write_slurm_profile, write_small_run

from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard

ROOT = Path(__file__).parents[2]
SETTINGS = SegmentationSettings(backend="watershed", scale=0.25)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory):
    """A one-node Slurm for these tests."""
    with one_node_slurm(tmp_path_factory.mktemp("slurm"), cpus=32, megabytes=200000) as slurm:
        yield slurm


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return manifest_rows(tmp_path_factory.mktemp("fields"))


def jobqueue(folder: Path, jobs: int) -> dict[str, object]:
    return {
        "jobs": jobs,
        "cores": 1,
        "memory": "1500MB",
        "walltime": "00:10:00",
        "interface": "lo",
        "local_directory": str(folder),
        "log_directory": str(folder / "logs"),
    }


def test_masks_of_slurm_workers_are_those_of_local_ones(rows, tmp_path):
    segment_shard(rows, tmp_path / "local", SETTINGS, {}, 1, 2000, 0.0)
    segment_shard(rows, tmp_path / "slurm", SETTINGS, {"jobqueue": jobqueue(tmp_path, 2)}, 1, 2000, 0.0)
    local, slurm = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("local", "slurm")
    )
    assert len(local) == 7
    assert local == slurm


def test_jobs_that_end_before_a_worker_has_come_end_the_segment_job(rows, tmp_path):
    dask = {"jobqueue": jobqueue(tmp_path, 2) | {"python": "echo no such worker;"}}
    with pytest.raises(SetupError, match=r"3 times in a row .*; the last was job \d+ \(.*ends with: ") as error:
        segment_shard(rows, tmp_path / "out", SETTINGS, dask, 1, 2000, 0.0)
    assert "see the keys of dask.jobqueue" in str(error.value)


SCRIPT = """
import json, sys
sys.path.insert(0, {root!r})
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.manifests import ManifestRow

if __name__ == "__main__":
    rows = [ManifestRow(r["id"], None, 0.16, paths=r["paths"]) for r in json.load(open({rows!r}))]
    segment_shard(rows, {out!r}, SegmentationSettings(), {{"jobqueue": {jobqueue!r}}}, 1, 2000, 0.0)
"""


def test_a_cancelled_job_is_replaced_and_its_field_redone(rows, tmp_path):
    # A FIFO in place of a channel holds a worker in mid-field until somebody writes.
    fifo = tmp_path / "blue.png"
    os.mkfifo(fifo)
    listed = [{"id": row.id, "paths": row.paths} for row in rows]
    listed[1]["paths"] = dict(rows[1].paths, blue=str(fifo))
    (tmp_path / "rows.json").write_text(json.dumps(listed))
    name = f"hpaloc-{os.getpid()}"
    script = tmp_path / "job.py"
    script.write_text(
        SCRIPT.format(
            root=str(ROOT),
            rows=str(tmp_path / "rows.json"),
            out=str(tmp_path / "out"),
            jobqueue=jobqueue(tmp_path, 1) | {"job_name": name},
        )
    )
    job = subprocess.Popen([sys.executable, str(script)], cwd=tmp_path)
    try:
        with open(fifo, "wb"):
            subprocess.run(["scancel", "--signal=KILL", f"--name={name}"], check=True)
            # Until the worker is gone, the next opening of the FIFO would still find it.
            while subprocess.run(
                ["squeue", "--noheader", "--states=R,CG", f"--name={name}"], capture_output=True, text=True, check=True
            ).stdout:
                pass
        with open(fifo, "wb") as pipe:
            pipe.write(Path(rows[1].paths["blue"]).read_bytes())
        assert job.wait(120) == 0
    finally:
        job.kill()
    assert list(pd.read_parquet(tmp_path / "out" / "fields.parquet")["status"]) == ["ok"] * 3


def test_the_workflow_on_slurm_has_its_workers_there_too_where_the_configuration_says_so(slurm, tmp_path):
    """A segment job that is a Slurm job itself starts further ones, and the masks and tables are those of any other."""
    written = {}
    for name in ("local", "slurm"):
        folder = tmp_path / name
        folder.mkdir()
        write_small_run(folder)
        options = []
        if name == "slurm":
            config = yaml.safe_load((folder / "config.yaml").read_text())
            config["dask"] = {"jobqueue": jobqueue(folder / "dask", 2) | {"queue": "cpu"}}
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
            write_slurm_profile(folder)
            options = ["--profile", "slurm"]
        known = {job for job, *_ in slurm.jobs()}
        snakemake(folder, *options, "results/sheet/test.parquet", cwd=folder)
        written[name] = {
            path.relative_to(folder): path.read_bytes()
            for of_stage in ("segmentation", "cells", "tiles")
            for path in (folder / "results" / of_stage).rglob("*")
            if path.is_file() and path.name != ".snakemake_timestamp"
        }
        mine = [job for job in slurm.jobs() if job[0] not in known]
        # The two jobs of the workflow (the shard, its table) and those of the workers.
        assert len(mine) == 0 if name == "local" else len(mine) >= 4, mine
    assert len(written["local"]) >= 9
    assert written["local"] == written["slurm"]
    log = (tmp_path / "slurm/logs/segment/test/000.log").read_text()
    assert "segmenting on 2 Slurm jobs of 1 Dask workers" in log
