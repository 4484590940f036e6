"""Digests of the code behind a stage, so that a stage reruns when its code changes and not when its comments do."""

import ast
import hashlib
from functools import cache
from pathlib import Path

from hpaloc.files import digest

_PACKAGE = Path(__file__).parent

# Rooms that decide how results are written, logged or found, not what is in them.
_PLUMBING = {"files", "progress", "config", "version", "sheet"}


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[documented:]
    return tree


def _shape(node: object) -> object:
    """Return a syntax tree as nested tuples that do not depend on the Python that parsed it.

    ``ast.dump`` does: newer ones add fields, empty in older code, or leave empty ones out.
    """
    if isinstance(node, ast.AST):
        fields = [(name, _shape(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *sorted(fields, key=lambda field: field[0]))
    if isinstance(node, list):
        return tuple(_shape(part) for part in node)
    return repr(node)


@cache
def _read(module: str) -> tuple[bytes, frozenset[str]]:
    """Return the digest of one module's code, and the modules of hpaloc that it imports."""
    path = _PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    own = {name.removeprefix("hpaloc.") for name in imported if name.startswith("hpaloc.")}
    rooms = {
        name
        for name in own
        if _PACKAGE.joinpath(*name.split(".")).with_suffix(".py").exists()
        or (_PACKAGE.joinpath(*name.split(".")).is_dir())
    }
    code = repr(_shape(_without_docstrings(tree)))
    return hashlib.blake2b(code.encode(), digest_size=16).digest(), frozenset(rooms)


def room_version(*rooms: str) -> str:
    """Return a digest (16 hexadecimal characters) of the code of rooms and of all that they import from hpaloc.

    ``rooms`` are module names below hpaloc, such as ``segmentation.watershed``; a package counts with what its
    ``__init__`` imports. Comments, docstrings and layout do not count, nor do the rooms that only write, log or
    find files.
    """
    seen: dict[str, bytes] = {}
    waiting = list(rooms)
    while waiting:
        room = waiting.pop()
        if room in seen or room.split(".")[0] in _PLUMBING:
            continue
        seen[room], imported = _read(room)
        waiting.extend(imported)
    joined = b"".join(name.encode() + seen[name] for name in sorted(seen))
    return hashlib.blake2b(joined, digest_size=8).hexdigest()


def files_version(*paths: str) -> str:
    """Return a digest (16 hexadecimal characters) of the content of files; ``paths`` are relative to hpaloc."""
    joined = b"".join(path.encode() + digest(_PACKAGE / path).encode() for path in sorted(paths))
    return hashlib.blake2b(joined, digest_size=8).hexdigest()
