"""The rooms of the library: a rule reruns for all that its script runs, and rooms import from the floors below."""

import ast
import re
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from hpaloc.version import _PLUMBING, rooms_behind

ROOT = Path(__file__).resolve().parents[2]
# What an address gives does not depend on the code that asks for it, and a folder is described each time.
UNVERSIONED = {"download", "describe"}


def module_name(path):
    return ".".join(path.relative_to(ROOT / "hpaloc").with_suffix("").parts)


MODULES = {module_name(path): path for path in (ROOT / "hpaloc").rglob("*.py") if path.name != "__init__.py"}


def imported(path):
    """Return the modules of hpaloc that a program imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.removeprefix("hpaloc.") for name in found} & MODULES.keys()


def rules():
    """Return {rule: (its script, the rooms of its digest)} of all rules."""
    found = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk"), key=lambda path: "use rule" in path.read_text()):
        for block in re.split(r"^ *(?=(?:use )?rule \w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            base, name = re.match(r"(?:use rule (\w+) as |rule )(\w+)", block).groups()
            script = re.search(r'"\.\./(scripts/\w+\.py)"', block)
            rooms = re.search(r"code_of\(([^)]*)\)", block)
            of_base = found.get(base, (None, []))
            found[name] = (
                ROOT / "workflow" / script[1] if script else of_base[0],
                re.findall(r'"([\w.]+)"', rooms[1]) if rooms else [] if "params:" in block else of_base[1],
            )
    return found


def test_a_rule_names_the_rooms_that_its_script_runs_and_no_others():
    wrong = []
    for name, (script, rooms) in rules().items():
        run, named = rooms_behind(*imported(script)), rooms_behind(*rooms)
        if run != named and name not in UNVERSIONED:
            wrong.append(f"{name} lacks {sorted(run - named)} and does not need {sorted(named - run)}")
    assert not wrong, "\n".join(wrong)


def test_rooms_that_do_not_count_import_none_that_does():
    assert not {other for room in _PLUMBING for other in imported(MODULES[room])} - _PLUMBING


def floors():
    """Return {room: its floor} of the table in docs/architecture.md; a folder of rooms is one room."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.*) \|$", text, flags=re.MULTILINE)
    return {room: int(floor) for floor, cell in rows for room in re.findall(r"`(\w+/?)`", re.sub(r"\(.*?\)", "", cell))}


def room_of(module):
    folder, dot, _ = module.partition(".")
    return folder + "/" * bool(dot)


def test_every_room_has_a_floor_and_imports_from_those_below_it():
    floor = floors()
    rooms = {room_of(module) for module in MODULES}
    wrong = [f"{room} is in the table or in hpaloc alone" for room in sorted(rooms ^ floor.keys())]
    within = defaultdict(dict)
    for module, path in MODULES.items():
        for other in imported(path):
            own, room = room_of(module), room_of(other)
            if module == other:
                continue
            if own == room:
                within[own].setdefault(module, set()).add(other)
            elif floor.get(room, -1) >= floor.get(own, 99):
                wrong.append(f"{module} (floor {floor[own]}) imports {other} (floor {floor[room]})")
    for graph in within.values():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            wrong.append(" imports ".join(error.args[1]))
    assert not wrong, "\n".join(wrong)
