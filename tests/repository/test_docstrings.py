"""Every public function of the library says what it does, of what shape and type its arrays are, and names every error
that it raises, by itself or through the private functions of its room."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hpaloc"
# (n,), (H, W), (n, S, S, colours), (planes · rows · S, columns · S)
SHAPE = re.compile(r"\((?:…|[\w.]+(?: [·+-] \w+)*),[^()]*(?:\([^()]*\)[^()]*)*\)")
DTYPE = re.compile(r"\b(u?int\d*|float\d*|bool|str|label images?|(?:any|any number|an integer) type|dtype)\b")


def documented(*rooms):
    """Yield (place and name, node) of every public function, class and method of some rooms, or of all."""
    for path in rooms or sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(ROOT)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            yield f"{place}:{node.lineno}: {node.name}", node
            for part in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    yield f"{place}:{part.lineno}: {node.name}.{part.name}", part


def arguments_of(function):
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def takes_or_gives_arrays(annotation):
    return annotation is not None and "ndarray" in ast.unparse(annotation)


def arrays():
    """Yield (place and name, docstring, names of the array arguments) of every public function with arrays."""
    for name, node in documented():
        if not isinstance(node, ast.FunctionDef):
            continue
        own = [one.arg for one in arguments_of(node) if takes_or_gives_arrays(one.annotation)]
        text = ast.get_docstring(node) or ""
        # The patterns of the simulator share one form, which its room tells once.
        if re.match(r"hpaloc/simulate/patterns\.py:\d+: draw_", name):
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
                caught = guarded.get(id(call), set())
                further = raised_through(private[called], private, seen | {called})
                names |= set() if "Exception" in caught else further - caught
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


def test_the_checks_see_the_library():
    # A list of offenders is empty too where nobody was looked at.
    seen = [name.partition(": ")[2] for name, _ in documented()]
    assert len(seen) > 400
    assert {"write_scan", "segment_shard", "Folders", "Folders.find"} <= set(seen)
    assert len(list(arrays())) > 100


def test_it_says_what_it_does_in_a_sentence():
    wrong = []
    for name, node in documented():
        first = re.sub(r"\s+", " ", (ast.get_docstring(node) or "").split("\n\n", 1)[0])
        if not first:
            wrong.append(f"{name} has no docstring")
        elif not re.match(r"[A-Z\d`{(]", first) or not re.search(r"[.:…)]$", first):
            wrong.append(f"{name} has no sentence: {first}")
    assert not wrong, "\n".join(wrong)


def test_errors_are_named():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        private = private_functions(path)
        for name, node in documented(path):
            if isinstance(node, ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                missing = sorted(error for error in raised_through(node, private) if error not in text)
                wrong += [f"{name} says nothing of {', '.join(missing)}"] if missing else []
    assert not wrong, "\n".join(wrong)


def test_arrays_have_a_shape_and_a_type():
    wrong = []
    for name, text, own in arrays():
        unnamed = [one for one in own if not re.search(rf"\b{one}\b", text)]
        wrong += [f"{name} says nothing of {', '.join(unnamed)}"] if unnamed else []
        wrong += [] if SHAPE.search(text) else [f"{name} says no shape, such as (n, 19)"]
        wrong += [] if DTYPE.search(text) else [f"{name} says no type, such as float32 or bool"]
    assert not wrong, "\n".join(wrong)


def test_every_argument_and_result_is_typed():
    wrong = []
    for name, node in documented():
        if not isinstance(node, ast.FunctionDef):
            continue
        untyped = [one.arg for one in arguments_of(node) if one.annotation is None and one.arg not in ("self", "cls")]
        wrong += [f"{name} gives no type to {', '.join(untyped)}"] if untyped else []
        wrong += [] if node.returns is not None else [f"{name} gives no type to its result"]
    assert not wrong, "\n".join(wrong)


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
