"""Atomic writing: an error leaves what stood there before, and nothing else."""

import os

import pytest

from hpaloc.files import atomic_directory, atomic_path, digest, write_if_changed


def test_a_failed_write_leaves_the_old_file_and_no_remains(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            assert temporary.suffix == ".csv"
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_good_write_replaces_the_file_under_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "deep" / "a.txt") as temporary:
            temporary.write_text("new")
    finally:
        os.umask(old)
    assert (tmp_path / "deep" / "a.txt").read_text() == "new"
    assert (tmp_path / "deep" / "a.txt").stat().st_mode & 0o777 == 0o640


def test_folders_are_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "masks"
    with atomic_directory(folder) as temporary:
        (temporary / "a").write_text("1")

    def fail():
        with atomic_directory(folder) as temporary:
            (temporary / "b").write_text("2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in folder.iterdir()] == ["a"]
    with atomic_directory(folder) as temporary:
        (temporary / "c").write_text("3")
    assert [path.name for path in folder.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [folder]


def test_unchanged_content_keeps_the_file(tmp_path):
    path = tmp_path / "a.csv"
    assert write_if_changed(path, "x\n")
    os.utime(path, ns=(1, 1))
    assert not write_if_changed(path, "x\n")
    assert path.stat().st_mtime_ns == 1
    assert write_if_changed(path, "y\n")
    path.write_bytes(b"")
    assert digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
