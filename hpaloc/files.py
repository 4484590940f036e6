"""Atomic writing and digests: a killed job leaves nothing half-written under a final name."""

import hashlib
import os
import shutil
import socket
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def _prefix(path: Path) -> str:
    """Return how temporary names for ``path`` begin, once those that killed processes of this machine left are gone.

    A name says whose it is. A process of another machine is left alone: nothing here tells whether it lives.
    """
    start = f".{path.name[:80]}.{socket.gethostname()[:40]}-"
    # Names, not paths: a folder of all masks of a large shard is gone through for each of them.
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
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well, else delete it.

    The temporary name keeps the suffix of ``path``, since many writers choose the format by it. Parent folders
    are made. The file's mode follows the umask. What a killed process left of such a name is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; put it in the place of ``path`` when the block ends well.

    An existing folder of that name is replaced whole; on an error it stays as it was.
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


def write_if_changed(path: str | os.PathLike[str], text: str) -> bool:
    """Write UTF-8 ``text`` to ``path`` unless it stands there already; return whether it was written.

    Keeping the old file keeps its modification time, by which a workflow engine decides what to rerun.
    """
    path = Path(path)
    content = text.encode()
    if path.is_file() and path.read_bytes() == content:
        return False
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return True


def digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 digest of a file as 64 hexadecimal characters."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def spelled_as_on_disk(path: str) -> str:
    """Return a path with the names of its folders and file as the disk has them, where only their Unicode form differs.

    macOS writes é as e and an accent, most people and other systems as one letter. A path that is there, or is not
    there in any form, is returned as it is.
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
