"""Every public function of the library says what it does, of what shape and type its arrays are, and names every error
that it raises, by itself or through the private functions of its room."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "hpaloc"
# (n,), (H, W), (n, S, S, colours), (planes · rows · S, columns · S)
SHAPE = re.compile(r"\((?:…|[\w.]+(?: [·+-] \w+)*),[^()]*(?:\([^()]*\)[^()]*)*\)")
DTYPE = re.compile(r"\b(u?int\d*|float\d*|bool|str|label images?|(?:any|any number|an integer) type|dtype)\b")


def documented(*rooms):
    """Yield (name for people, node) of every public function, class and method of some rooms, or of all."""
    for path in rooms or sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            yield f"{module}.{node.name}", node
            for part in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    yield f"{module}.{node.name}.{part.name}", part


def takes_or_gives_arrays(annotation):
    return annotation is not None and "ndarray" in ast.unparse(annotation)


def arrays():
    """Yield (name for people, docstring, names of the array arguments) of every public function with arrays."""
    for name, node in documented():
        if not isinstance(node, ast.FunctionDef):
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        own = [one.arg for one in arguments if takes_or_gives_arrays(one.annotation)]
        text = ast.get_docstring(node) or ""
        # The patterns of the simulator share one form, which its room tells once.
        if name.startswith("simulate.patterns.draw_"):
            text += ast.get_docstring(ast.parse((PACKAGE / "simulate/patterns.py").read_text(encoding="utf-8"))) or ""
        if own or takes_or_gives_arrays(node.returns):
            yield name, text, own


def private_functions(path):
    """Return the private functions and methods of a room by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("_")
    }


def raised_through(function, private, seen=frozenset()):
    """Return the names of the errors that a function lets out, its room's private functions looked into."""
    names = raised(function)
    guarded = {
        id(call): caught_by(node)
        for node in ast.walk(function)
        if isinstance(node, ast.Try)
        for part in node.body
        for call in ast.walk(part)
        if isinstance(call, ast.Call)
    }
    for call in ast.walk(function):
        if isinstance(call, ast.Call):
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
            if called in private and called not in seen:
                names |= raised_through(private[called], private, seen | {called}) - guarded.get(id(call), set())
    return names


def caught_by(trial):
    """Return the names of the errors that a try statement catches."""
    return {
        name.id
        for handler in trial.handlers
        for name in ast.walk(handler.type or ast.Name("Exception"))
        if isinstance(name, ast.Name)
    }


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
            # Raised only to be caught a few lines on.
            names -= inside & caught_by(node) - {
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


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_errors_are_named(path):
    private = private_functions(path)
    silent = {}
    for name, node in documented(path):
        if isinstance(node, ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            missing = {error for error in raised_through(node, private) if error not in text}
            if missing:
                silent[name] = sorted(missing)
    assert not silent


@pytest.mark.parametrize(("text", "own"), [pytest.param(text, own, id=name) for name, text, own in arrays()])
def test_arrays_have_a_shape_and_a_type(text, own):
    unnamed = [name for name in own if not re.search(rf"\b{name}\b", text)]
    assert not unnamed, f"says nothing of {', '.join(unnamed)}"
    assert SHAPE.search(text), "says no shape, such as (n, 19)"
    assert DTYPE.search(text), "says no type, such as float32 or bool"


@pytest.mark.parametrize(
    ("text", "shape", "dtype"),
    [
        ("labels (n,) int64 classes", True, True),
        ("Return the (H, W, 3) picture.", True, False),
        ("a mask (bool) of the cell", False, True),
        ("the longest (see ``raster``)", False, False),
        ("(planes · rows · S, columns · S) uint8", True, True),
    ],
)
def test_the_check_tells_shapes_and_types_from_words(text, shape, dtype):
    assert bool(SHAPE.search(text)) == shape
    assert bool(DTYPE.search(text)) == dtype


def test_the_check_looks_through_private_functions():
    room = ast.parse(
        "def take(x):\n  return _inner(x)\ndef _inner(x):\n  raise ValueError('x')\n"
        "def guard(x):\n  try:\n    _inner(x)\n  except ValueError:\n    return None\n"
    )
    functions = {node.name: node for node in room.body}
    private = {"_inner": functions["_inner"]}
    assert raised_through(functions["take"], private) == {"ValueError"}
    assert raised_through(functions["guard"], private) == set()


@pytest.mark.parametrize("node", [one for one in PUBLIC if isinstance(one.values[0], ast.FunctionDef)])
def test_every_argument_and_result_is_typed(node):
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    untyped = [one.arg for one in arguments if one.annotation is None and one.arg not in ("self", "cls")]
    assert not untyped
    assert node.returns is not None
