"""Atomic writing: an error leaves what stood there before, and nothing else."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpaloc.files import (
    FileNameError,
    atomic_directory,
    atomic_path,
    digest,
    names_checked,
    write_if_changed,
    write_json,
)

ROOT = Path(__file__).parents[2]
LONGEST = "\N{MICROSCOPE}" * 62 + "abc.png"  # 255 bytes, of letters of four


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


@pytest.mark.parametrize(
    "name", [LONGEST, "é" * 100 + ".tif", "a" * 255, "a." + "b" * 253, "field.png", "x" * 251 + ".png"], ids=len
)
def test_a_temporary_name_fits_where_the_name_itself_does(tmp_path, name):
    with atomic_path(tmp_path / name) as temporary:
        assert len(os.fsencode(temporary.name)) <= 143  # the strictest limit there is
        # No letter was cut in two.
        temporary.name.encode("utf-8", "strict")
        if name.endswith((".png", ".tif")):
            assert temporary.suffix == name[-4:]
        temporary.write_text("new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "new")]
    with atomic_directory(tmp_path / "folders" / name) as temporary:
        assert len(os.fsencode(temporary.name)) <= 143


def test_long_names_of_one_beginning_do_not_share_what_a_killed_process_left(tmp_path):
    first, second = tmp_path / LONGEST, tmp_path / LONGEST.replace("abc", "abd")
    child = os.fork()
    if child == 0:
        with atomic_path(first):
            os._exit(9)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    with atomic_path(second):
        assert left.exists()
    with atomic_path(first):
        assert not left.exists()


def test_a_name_that_is_too_long_is_told_from_other_troubles(tmp_path):
    path = tmp_path / ("é" * 130)
    with (
        pytest.raises(FileNameError, match=r"é: the file system does not accept this file name \("),
        atomic_path(path) as new,
    ):
        new.write_text("text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ENOENT])
def test_what_a_file_system_says_of_a_name(tmp_path, code):
    with (
        pytest.raises(FileNameError, match=r"a\?\.png: the file system does not accept this file name"),
        names_checked(tmp_path / "a?.png"),
    ):
        raise OSError(code, os.strerror(code), str(tmp_path / ".a?.png.temporary"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO, errno.EPERM])
def test_what_a_file_system_says_of_disks_and_folders(tmp_path, code):
    with pytest.raises(OSError, match="disk") as caught, names_checked(tmp_path / "a.png"):
        raise OSError(code, "disk")
    assert not isinstance(caught.value, FileNameError)


def test_a_folder_or_a_file_that_is_gone_is_no_matter_of_names(tmp_path):
    for source, target in ((tmp_path / "a", tmp_path / "absent" / "b"), (tmp_path / "absent", tmp_path / "b")):
        (tmp_path / "a").touch()
        with pytest.raises(FileNotFoundError), names_checked(target):
            os.replace(source, target)
    with pytest.raises(FileNotFoundError), names_checked(tmp_path / "absent" / "b"):
        (tmp_path / "absent" / "b").write_text("text")


def test_letters_that_the_locale_lacks_are_of_the_name(tmp_path):
    code = "from hpaloc.files import *\nwith atomic_path('\\N{MICROSCOPE}.png'): pass"
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=plain, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        r"hpaloc.files.FileNameError: '\U0001f52c.png': the file system does not accept this file name ("
    )
    assert list(tmp_path.iterdir()) == []


def test_json_that_cannot_be_written_leaves_the_file(tmp_path):
    path = tmp_path / "scores.json"
    write_json(path, {"name": "é", "value": 0.5})
    assert path.read_text() == '{\n  "name": "\\u00e9",\n  "value": 0.5\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text())["value"] == 0.5
    assert [*tmp_path.iterdir()] == [path]
