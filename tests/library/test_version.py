"""What counts as a change of a stage's code: statements do, comments and docstrings do not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "hpaloc"


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "hpaloc", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def version(folder, *rooms):
    code = f"from hpaloc.version import room_version; print(room_version(*{rooms!r}))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True).stdout


def edit(folder, room, old, new):
    path = folder / "hpaloc" / room
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_docstrings_comments_and_layout_do_not_count(copy):
    before = version(copy, "masks")
    edit(copy, "images.py", '"""', '"""Changed. ')
    edit(copy, "masks.py", "\nimport ", "\n# A comment.\n\nimport ")
    assert version(copy, "masks") == before


def test_a_changed_statement_counts_also_in_a_room_below(copy):
    before = version(copy, "tiles"), version(copy, "rle")
    edit(copy, "images.py", "MIN_SIDE = 16", "MIN_SIDE = 17")
    assert version(copy, "tiles") != before[0]
    assert version(copy, "rle") == before[1]


def test_rooms_that_only_write_or_log_do_not_count(copy):
    before = version(copy, "masks", "images")
    edit(copy, "progress.py", "now - last >= 10", "now - last >= 11")
    assert version(copy, "masks", "images") == before


@pytest.mark.parametrize(
    "part", ["cell_lines", "layout", "scene", "drawing", "patterns", "protein", "camera", "field", "shard"]
)
def test_a_shard_is_simulated_again_when_a_part_of_the_simulator_changes(copy, part):
    before = version(copy, "simulate.shard")
    edit(copy, f"simulate/{part}.py", "\n\n\n", "\n\n\nCHANGED = True\n\n\n")
    assert version(copy, "simulate.shard") != before
