"""The Dask driver: every field accounted for, whatever happens to the workers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest
from dask import config
from distributed import LocalCluster
from segmented_fields import manifest_rows

from hpaloc.mask_tables import read_tables
from hpaloc.masks import mask_path, read_mask
from hpaloc.rejection import TooManyRejected
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard, segment_to_files

pytestmark = pytest.mark.workers

ROOT = Path(__file__).parents[2]
SETTINGS = SegmentationSettings(backend="watershed", scale=0.25)
DASK = DaskSettings()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return manifest_rows(tmp_path_factory.mktemp("fields"))


def run(rows, out, *, threads=1, settings=SETTINGS, dask=DASK, fraction=0.0):
    segment_shard(rows, out, settings, dask, threads, 4000, fraction, read_tables(rows))
    return pd.read_parquet(out / "fields.parquet")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_bytes_do_not_depend_on_the_number_of_workers(rows, tmp_path):
    rows = [*rows, replace(rows[0], id="f3")]
    table = run(rows, tmp_path / "one")
    run(rows, tmp_path / "four", threads=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")
    assert list(table["field"]) == ["f0", "f1", "f2", "f3"]
    assert (table["status"] == "ok").all()
    assert (table["stage"] == "segment").all()
    for row in table.itertuples():
        cells = read_mask(mask_path(tmp_path / "one", row.field, "cell"))
        nuclei = read_mask(mask_path(tmp_path / "one", row.field, "nucleus"))
        assert cells.shape == nuclei.shape == (row.height, row.width)
        assert row.n_cells == cells.max() > 0
        assert row.dtype == "uint8"


def test_broken_fields_are_rejected_with_a_reason_and_the_rest_goes_on(rows, tmp_path):
    absent = replace(rows[0], id="absent", paths=dict(rows[0].paths, red=str(tmp_path / "no.png")))
    (tmp_path / "half.png").write_bytes(Path(rows[1].paths["blue"]).read_bytes()[:400])
    half = replace(rows[1], id="half", paths=dict(rows[1].paths, blue=str(tmp_path / "half.png")))
    table = run([absent, rows[2], half], tmp_path / "out", fraction=0.6).set_index("field")
    assert list(table["status"]) == ["rejected", "ok", "rejected"]
    assert "no.png" in table.loc["absent", "reason"]
    assert "half.png" in table.loc["half", "reason"]
    assert not list((tmp_path / "out").glob("absent*"))
    with pytest.raises(TooManyRejected, match=r"absent: .*no\.png") as error:
        run([absent, rows[2], half], tmp_path / "again", fraction=0.1)
    assert [field for field, _ in error.value.rejected] == ["absent", "half"]
    assert len(pd.read_parquet(tmp_path / "again" / "fields.parquet")) == 3


def test_an_id_that_makes_no_file_name_rejects_its_field_alone(rows, tmp_path):
    # With what is appended the name of the cells' mask has 255 bytes, that of the nuclei two more.
    long = replace(rows[0], id="é" * 121)
    table = run([long, rows[1]], tmp_path / "out", fraction=0.5).set_index("field")
    assert list(table["status"]) == ["rejected", "ok"]
    wanted = f"{long.id}_nucleimask.png: the file system does not accept this file name (File name too long)"
    assert table.loc[long.id, "reason"] == str(tmp_path / "out" / wanted)
    assert table.loc[long.id, "n_cells"] == 0
    assert sorted(contents(tmp_path / "out")) == ["f1_cellmask.png", "f1_nucleimask.png", "fields.parquet"]


def test_an_empty_shard_is_an_empty_table(tmp_path):
    table = run([], tmp_path)
    assert len(table) == 0
    assert list(table.columns)[:2] == ["field", "height"]


def test_given_masks_and_tables_through_the_driver(rows, tmp_path):
    table = run(rows, tmp_path / "images", settings=SegmentationSettings("masks"))
    for row in rows:
        given = cv2.imread(row.cell_mask, cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read_mask(mask_path(tmp_path / "images", row.id, "cell")), given)
    assert (table["n_cells"] > 0).all()
    wrong = replace(rows[0], cell_mask=str(tmp_path / "none.png"))
    table = run([wrong, rows[1]], tmp_path / "wrong", settings=SegmentationSettings("masks"), fraction=0.5)
    assert "none.png" in table["reason"][0]


def test_one_field_can_be_run_without_dask(rows, tmp_path):
    task = {
        "field": "f0",
        "paths": rows[0].paths,
        "states": {},
        "pixel_size": 0.16,
        "settings": asdict(SETTINGS),
        "out_dir": str(tmp_path),
        "chunk_above": None,
        "max_pixels": 2**30,
        "cell_mask": None,
        "nucleus_mask": None,
        "tables": {},
    }
    row = segment_to_files(task)
    assert row["status"] == "ok"
    assert set(row["seconds"]) == {"read", "filter", "label", "write"}
    assert all(seconds > 0 for seconds in row["seconds"].values())


# A FIFO in place of a channel holds a worker in mid-field until somebody writes or kills it.
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from hpaloc.segmentation.cluster import DaskSettings
from hpaloc.segmentation.settings import SegmentationSettings
from hpaloc.segmentation.shards import segment_shard
from hpaloc.manifests import ManifestRow
import json
if __name__ == "__main__":
    rows = [ManifestRow(r["id"], None, 0.16, paths=r["paths"]) for r in json.load(open({rows!r}))]
    segment_shard(rows, {out!r}, SegmentationSettings(), {dask!r}, 1, 2000, 1.0)
"""


@contextmanager
def job_held_by(fifo: Path, rows, held: int, folder: Path, existing: bool) -> Iterator[tuple[subprocess.Popen, int]]:
    """Run a job that one field holds up; yield it and the process that its workers are children of."""
    os.mkfifo(fifo)
    listed = [{"id": row.id, "paths": row.paths} for row in rows]
    listed[held]["paths"] = dict(rows[held].paths, blue=str(fifo))
    (folder / "rows.json").write_text(json.dumps(listed))
    script = folder / "job.py"
    with ExitStack() as stack:
        dask = DASK
        if existing:
            patience = {"distributed.deploy.lost-worker-timeout": "1 hour"}
            stack.enter_context(config.set({"distributed.scheduler.allowed-failures": 1} | patience))
            cluster = stack.enter_context(
                LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
            )
            dask = DaskSettings(cluster.scheduler_address)
        script.write_text(
            SCRIPT.format(root=str(ROOT), rows=str(folder / "rows.json"), out=str(folder / "out"), dask=dask)
        )
        job = subprocess.Popen([sys.executable, str(script)], cwd=folder)
        try:
            yield job, os.getpid() if existing else job.pid
        finally:
            job.kill()
            job.wait()


def kill_worker(parent: int, fifo: Path) -> None:
    """Wait until a worker reads the FIFO, kill it, and wait until it is gone."""
    with open(fifo, "wb"):
        children = psutil.Process(parent).children(recursive=True)
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        for worker in workers:
            worker.kill()
        psutil.wait_procs(workers, timeout=60)


# The workers of the job's own cluster, and of somebody else's scheduler.
@pytest.mark.parametrize("existing", [False, True])
def test_a_killed_worker_is_replaced_and_its_field_redone(rows, tmp_path, existing):
    fifo = tmp_path / "blue.png"
    with job_held_by(fifo, rows, 1, tmp_path, existing) as (job, parent):
        kill_worker(parent, fifo)
        with open(fifo, "wb") as pipe:
            pipe.write(Path(rows[1].paths["blue"]).read_bytes())
        assert job.wait(120) == 0
    table = pd.read_parquet(tmp_path / "out" / "fields.parquet")
    assert list(table["status"]) == ["ok", "ok", "ok"]
    assert not list((tmp_path / "out").glob(".*"))


def test_a_worker_that_dies_while_it_is_started_anew_is_replaced(rows, tmp_path):
    fifo = tmp_path / "blue.png"
    with job_held_by(fifo, rows, 1, tmp_path, False) as (job, parent):
        kill_worker(parent, fifo)
        seen = set()
        while not seen:
            children = psutil.Process(parent).children(recursive=True)
            seen = {child for child in children if "spawn_main" in " ".join(child.cmdline())}
        for worker in seen:
            worker.kill()
        psutil.wait_procs(seen, timeout=60)
        with open(fifo, "wb") as pipe:
            pipe.write(Path(rows[1].paths["blue"]).read_bytes())
        assert job.wait(240) == 0
    table = pd.read_parquet(tmp_path / "out" / "fields.parquet")
    assert list(table["status"]) == ["ok", "ok", "ok"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_field_that_always_kills_its_worker_is_rejected_and_the_rest_goes_on(rows, tmp_path, existing):
    fifo = tmp_path / "blue.png"
    with job_held_by(fifo, rows, 0, tmp_path, existing) as (job, parent):
        # Twice among the others, and twice when it is tried alone.
        for _ in range(4):
            kill_worker(parent, fifo)
        assert job.wait(240) == 0
    table = pd.read_parquet(tmp_path / "out" / "fields.parquet")
    assert list(table["status"]) == ["rejected", "ok", "ok"]
    assert "worker died" in table["reason"][0]


def test_a_field_that_does_not_fit_in_memory_is_rejected_and_the_rest_goes_on(rows, tmp_path):
    # By its header the first might fit; with what is made of its channels it does not.
    greedy, larger = (replace(rows[0], id=id, paths={}) for id in ("greedy", "larger"))
    for row, side in ((greedy, 5_900), (larger, 20_000)):
        for colour, level in zip(("red", "green", "blue", "yellow"), range(1, 5), strict=True):
            image = np.zeros((side, side), np.uint8)
            image[:1000:10] = level
            row.paths[colour] = str(tmp_path / f"{row.id}_{colour}.png")
            cv2.imwrite(row.paths[colour], image)
    segment_shard([greedy, larger, *rows[1:]], tmp_path / "out", SETTINGS, DASK, 1, 450, 1.0)
    table = pd.read_parquet(tmp_path / "out" / "fields.parquet")
    assert list(table["status"]) == ["rejected", "rejected", "ok", "ok"]
    assert "out of memory" in table["reason"][0]
    assert table["reason"][1] == (
        f"{larger.paths['red']}: 20000 x 20000 px does not fit in the memory of the job "
        "(at most 36 million px; raise its mem_mb)"
    )


def test_an_existing_scheduler_is_joined(rows, tmp_path):
    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as c:
        table = run(rows[:1], tmp_path, dask=DaskSettings(c.scheduler_address))
    assert list(table["status"]) == ["ok"]
