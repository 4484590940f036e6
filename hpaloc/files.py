"""Atomic writing and digests: a killed job leaves nothing half-written under a final name."""

import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The errors for a name that is too long for the file system, or has letters that it does not accept.
_OF_NAMES = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}

# Bytes of a file's name, and of its suffix, in a temporary name. With the rest these are fewer than 143, the limit of
# the strictest file systems (eCryptfs; most have 255).
_NAME_BYTES, _SUFFIX_BYTES = 64, 16


class FileNameError(OSError):
    """A file that cannot be written because of its name; the message names the file."""

    def __str__(self) -> str:
        return f"{self.filename}: the file system does not accept this file name ({self.strerror})"


@contextmanager
def names_checked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Tell a name that the file system refuses from a disk or folder that cannot be written to.

    path: the file that the block writes, possibly under a temporary name
    Raises FileNameError naming it if the block raises an error about its name: it is too long, or has letters that the
    file system or the locale does not accept. Other errors, such as of a full disk or a closed folder, stay unchanged.
    """
    path = Path(path)
    try:
        yield
    except UnicodeEncodeError as error:
        raise FileNameError(errno.EILSEQ, f"the locale {error.encoding} cannot encode it", ascii(str(path))) from error
    except OSError as error:
        # "No such file" while a file is made or renamed is about the name if its folder, and the file to be renamed,
        # are there.
        there = path.parent.is_dir() and (error.filename2 is None or os.path.lexists(error.filename))
        refused = error.errno in _OF_NAMES or (error.errno == errno.ENOENT and there)
        if not refused or isinstance(error, FileNameError):
            raise
        raise FileNameError(error.errno, error.strerror, str(path)) from error


@contextmanager
def all_or_none() -> Iterator[list[Path]]:
    """Yield a list for the files that the block writes; if a name is refused, the files in the list are removed."""
    written: list[Path] = []
    try:
        yield written
    except FileNameError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _cut(name: str) -> str:
    """Shorten a name to fit into a temporary one, differently for each name."""
    encoded = os.fsencode(name)
    if len(encoded) <= _NAME_BYTES:
        return name
    own = hashlib.sha256(encoded).hexdigest()[:16]
    # Cut between letters: some file systems refuse parts of one.
    return f"{encoded[: _NAME_BYTES - 17].decode(errors='ignore')}~{own}"


def _prefix(path: Path) -> str:
    """Return the prefix of temporary names for ``path``, after removing those left by killed processes of this machine.

    The prefix has the machine and the process. Files of other machines stay: their processes may be alive.
    """
    start = f".{_cut(path.name)}.{socket.gethostname()[:32]}-"
    # Names, not paths: the folder of all masks of a large shard is listed for each of them.
    for name in os.listdir(path.parent):
        if not name.startswith(start):
            continue
        left = path.parent / name
        owner = name.removeprefix(start).split(".")[0]
        if owner.isdigit() and not _alive(int(owner)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return f"{start}{os.getpid()}."


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` if the block ends without error, else delete it.

    The temporary name keeps the suffix of ``path``, since many writers choose the format by it. Parent folders are
    made, the file's mode follows the umask, and temporary files left by killed processes are removed.

    Raises FileNameError if the file system refuses the name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with names_checked(path):
        suffix = path.suffix if len(os.fsencode(path.suffix)) <= _SUFFIX_BYTES else ""
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        with names_checked(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``; rename it to ``path`` if the block ends without error.

    An existing folder of that name is replaced as a whole; on an error it stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def unpacks_within(archive: zipfile.ZipFile, most: int) -> bool:
    """Return whether a zip unpacks to at most ``most`` bytes, piece by piece.

    What is compressed otherwise than by Deflate is refused: Python unpacks a piece of it whole, however large that is,
    before it looks at the size that the zip states.
    """
    entries = archive.infolist()
    known = all(entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries)
    return known and sum(entry.file_size for entry in entries) <= most


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` in one atomic step."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON in one atomic step.

    Raises ValueError for a number that is not finite.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_if_changed(path: str | os.PathLike[str], text: str) -> bool:
    """Write UTF-8 ``text`` to ``path`` unless the file has this text already; return whether it was written.

    An unchanged file keeps its modification time, by which a workflow engine decides what to rerun.
    """
    path = Path(path)
    if path.is_file() and path.read_bytes() == text.encode():
        return False
    write_text(path, text)
    return True


def digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file as 64 hexadecimal characters."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def spelled_as_on_disk(path: str) -> str:
    """Return a path with the Unicode forms that the names of its folders and its file have on disk.

    macOS writes é as e and an accent, most people and other systems as one letter. A path that exists as given, or in
    no form, is returned unchanged.
    """
    if path.isascii() or os.path.lexists(path):
        return path
    folder, slash, name = path.rpartition("/")
    folder = spelled_as_on_disk(folder) if folder else folder
    wanted = unicodedata.normalize("NFC", name)
    try:
        names = os.listdir(folder or slash or ".")
    except OSError:
        return path
    found = next((own for own in names if unicodedata.normalize("NFC", own) == wanted), None)
    return path if found is None else f"{folder}{slash}{found}"
