"""Every public function of the library says what it does, and names every error that it raises itself."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hpaloc"


def documented():
    """Yield (name for people, node) of every public function, class and method of the library."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            yield f"{module}.{node.name}", node
            for part in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    yield f"{module}.{node.name}.{part.name}", part


def raised(function):
    """Return the names of the errors that a function raises by itself and lets out."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            names.add(node.exc.func.id)
    for node in ast.walk(function):
        if isinstance(node, ast.Try):
            inside = {
                raising.exc.func.id
                for part in node.body
                for raising in ast.walk(part)
                if isinstance(raising, ast.Raise)
                and isinstance(raising.exc, ast.Call)
                and isinstance(raising.exc.func, ast.Name)
            }
            caught = {
                name.id
                for handler in node.handlers
                for name in ast.walk(handler.type or ast.Name("Exception"))
                if isinstance(name, ast.Name)
            }
            # Raised only to be caught a few lines on.
            names -= inside & caught - {
                other.exc.func.id
                for handler in node.handlers
                for other in ast.walk(handler)
                if isinstance(other, ast.Raise)
                and isinstance(other.exc, ast.Call)
                and isinstance(other.exc.func, ast.Name)
            }
    return names


PUBLIC = [pytest.param(node, id=name) for name, node in documented()]


@pytest.mark.parametrize("node", PUBLIC)
def test_it_says_what_it_does_in_a_sentence(node):
    text = ast.get_docstring(node)
    assert text, "has no docstring"
    first = re.sub(r"\s+", " ", text.split("\n\n", 1)[0])
    assert re.match(r"[A-Z\d`{(]", first), first
    assert re.search(r"[.:…)]$", first), f"no sentence: {first}"


@pytest.mark.parametrize("node", [one for one in PUBLIC if isinstance(one.values[0], ast.FunctionDef)])
def test_it_names_the_errors_it_raises(node):
    text = ast.get_docstring(node) or ""
    missing = sorted(name for name in raised(node) if name not in text)
    assert not missing, f"raises {', '.join(missing)}, of which its docstring says nothing"


@pytest.mark.parametrize("node", [one for one in PUBLIC if isinstance(one.values[0], ast.FunctionDef)])
def test_every_argument_and_result_is_typed(node):
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    untyped = [one.arg for one in arguments if one.annotation is None and one.arg not in ("self", "cls")]
    assert not untyped
    assert node.returns is not None
