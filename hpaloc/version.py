"""Digests of the code behind a stage, so that a stage reruns when its code changes and not when its comments do."""

import ast
import hashlib
from functools import cache
from pathlib import Path

from hpaloc.files import digest

_PACKAGE = Path(__file__).parent

# Rooms that decide how and where results are made, written, logged or made again, not what is in them.
_PLUMBING = {"files", "progress", "version"}
_PLUMBING |= {"segmentation.errors", "segmentation.cluster", "segmentation.workers", "segmentation.joined_workers"}
_PLUMBING |= {"segmentation.local_workers", "segmentation.slurm_workers", "segmentation.slurm_watch"}


def _documented(node: ast.AST) -> bool:
    """Return whether the first statement of a module, class or function is its docstring."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _tuple(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _shape(node: object, imported: set[str]) -> str:
    """Return a syntax tree without its docstrings as text that does not depend on the version of Python.

    ``ast.dump`` does: newer versions add fields, which older code leaves empty, or omit empty ones. The names that the
    code imports are added to ``imported`` in the same pass, since reading all rooms takes most of a job's start.
    """
    if isinstance(node, list):
        return _tuple([_shape(part, imported) for part in node])
    if not isinstance(node, ast.AST):
        return repr(repr(node))
    if isinstance(node, ast.Import):
        imported.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        imported.add(node.module)
        imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    parts = [repr(type(node).__name__)]
    for name in sorted(node._fields):
        value = getattr(node, name, None)
        if isinstance(value, list) and name == "body" and _documented(node):
            value = value[1:]
        if value is not None and value != []:
            parts.append(f"({name!r}, {_shape(value, imported)})")
    return _tuple(parts)


@cache
def _read(module: str) -> tuple[bytes, frozenset[str]]:
    """Return the digest of one module's code, and the modules of hpaloc that it imports."""
    path = _PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    imported: set[str] = set()
    code = _shape(tree, imported)
    own = {name.removeprefix("hpaloc.") for name in imported if name.startswith("hpaloc.")}
    rooms = {
        name
        for name in own
        if _PACKAGE.joinpath(*name.split(".")).with_suffix(".py").exists()
        or (_PACKAGE.joinpath(*name.split(".")).is_dir())
    }
    return hashlib.blake2b(code.encode(), digest_size=16).digest(), frozenset(rooms)


@cache
def rooms_behind(*rooms: str) -> frozenset[str]:
    """Return rooms, and all that they import from hpaloc at any depth except those that only write or log.

    rooms: module names below hpaloc, such as ``segmentation.watershed``; a package counts with the imports of its
    ``__init__``
    """
    seen: set[str] = set()
    waiting = list(rooms)
    while waiting:
        room = waiting.pop()
        if room not in seen and room not in _PLUMBING:
            seen.add(room)
            waiting.extend(_read(room)[1])
    return frozenset(seen)


def room_version(*rooms: str) -> str:
    """Return a digest (16 hexadecimal characters) of the code of ``rooms_behind`` some rooms.

    Comments, docstrings and layout do not count.
    """
    joined = b"".join(name.encode() + _read(name)[0] for name in sorted(rooms_behind(*rooms)))
    return hashlib.blake2b(joined, digest_size=8).hexdigest()


def files_version(*paths: str) -> str:
    """Return a digest (16 hexadecimal characters) of the content of files.

    paths: relative to the folder hpaloc
    """
    joined = b"".join(path.encode() + digest(_PACKAGE / path).encode() for path in sorted(paths))
    return hashlib.blake2b(joined, digest_size=8).hexdigest()
