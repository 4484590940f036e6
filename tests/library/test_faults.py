"""A full disk and folders that may not be written to: one sentence, and what stood there before."""

import ctypes
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from segmented_fields import manifest_rows
from tile_fields import make_field, tile, write_shard
from workflow_runs import snakemake, write_config, write_sheet

from hpaloc.classes import COLOURS
from hpaloc.files import atomic_path, write_if_changed
from hpaloc.masks import write_mask
from hpaloc.segmentation.shards import segment_to_files
from hpaloc.tables import CELLS, write_table


@contextmanager
def full_disk(size: int):
    """Let no file of this process grow beyond ``size`` bytes, as on a disk that has no more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noisy_labels():
    return np.random.default_rng(0).integers(0, 60_000, (300, 300)).astype(np.uint16)


def many_rows():
    rng = np.random.default_rng(0)
    return CELLS.empty_table().from_pylist(
        [{"field": str(rng.random()), "cell": n, "rle": str(rng.random())} for n in range(5000)], schema=CELLS
    )


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("mask.png", lambda path: write_mask(path, noisy_labels())),
        ("mask.tif", lambda path: write_mask(path.with_suffix(".png"), noisy_labels().astype(np.uint32) + 70_000)),
        ("cells.parquet", lambda path: write_table(path, many_rows())),
        ("manifest.csv", lambda path: write_if_changed(path, "x" * 100_000)),
    ],
)
def test_a_full_disk_leaves_what_stood_there(tmp_path, name, write):
    path = tmp_path / name
    path.write_text("before")
    with full_disk(10_000), pytest.raises(OSError, match="File too large"):
        write(path)
    assert path.read_text() == "before"
    assert [left.name for left in tmp_path.iterdir()] == [name]


def test_a_full_disk_is_no_fault_of_a_field(tmp_path):
    row = manifest_rows(tmp_path)[0]
    (tmp_path / "out").mkdir()
    task = {
        "field": row.id,
        "paths": row.paths,
        "states": {},
        "pixel_size": 0.16,
        "settings": {"backend": "watershed", "scale": 0.25},
        "out_dir": str(tmp_path / "out"),
        "chunk_above": None,
        "max_pixels": 2**30,
        "cell_mask": None,
        "nucleus_mask": None,
        "tables": {},
    }
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        segment_to_files(task)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_stops_the_tiles_of_a_shard(tmp_path):
    rows, segmentation = write_shard(tmp_path / "fields", {"a": make_field(0), "b": make_field(1)})
    (tmp_path / "out").mkdir()
    with full_disk(8000), pytest.raises(OSError, match="File too large"):
        tile(rows, segmentation, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_writer(tmp_path):
    path = tmp_path / "a.parquet"
    child = os.fork()
    if child == 0:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 1
    foreign = tmp_path / ".a.parquet.elsewhere-1.x.parquet"
    foreign.touch()
    with atomic_path(path) as temporary, atomic_path(path) as second:
        # Both live: neither takes the other's for a remnant.
        assert temporary.exists()
        second.write_text("new")
        temporary.write_text("newer")
    assert {left.name for left in tmp_path.iterdir()} == {path.name, foreign.name}


def without_rights():
    """Take from a child process of root what lets it write where it may not (CAP_DAC_OVERRIDE, …_READ_SEARCH)."""
    drop_from_bounding_set = 24
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


@pytest.mark.workflow
@pytest.mark.parametrize("closed", ["results", "images"])
def test_a_folder_that_is_closed_stops_the_run_with_one_sentence(tmp_path, closed):
    (tmp_path / "images").mkdir()
    (tmp_path / "results").mkdir()
    for colour in COLOURS:
        Path(tmp_path / "images" / f"a_{colour}.png").touch()
    write_sheet(tmp_path / "sheet.csv", [{"ID": "a"}])
    collection = {"sheet": "sheet.csv", "images": "images/{id}_{colour}.png"}
    write_config(tmp_path / "config.yaml", collections={"new": collection})
    os.chmod(tmp_path / closed, 0o500 if closed == "results" else 0o000)
    try:
        done = snakemake(tmp_path, "--dry-run", "explore", check=False, preexec_fn=without_rights)
    finally:
        os.chmod(tmp_path / closed, 0o700)
    assert done.returncode != 0
    sentence = {
        "results": "results/sheet: cannot be read or written (Permission denied)",
        "images": "images: the folder cannot be listed (Permission denied)",
    }[closed]
    assert any(line.strip().endswith(sentence) for line in done.stdout.splitlines()), done.stdout
    assert "Traceback" not in done.stdout
