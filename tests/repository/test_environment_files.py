"""Every environment lists what the scripts of its rules import, and what these packages require."""

import ast
import re
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = packages_distributions()


def rules():
    """Return (environment, script) of every rule that has both."""
    found = set()
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"\n(?:use )?rule ", path.read_text())[1:]:
            if script := re.search(r"scripts/(\w+)\.py", rule):
                found |= {(name, script[1]) for name in re.findall(r"envs/(\w+)\.yaml", rule)}
    return sorted(found)


@cache
def imported_by(path):
    """Return the packages that a module imports when it is imported itself."""
    names, waiting = set(), [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # What is imported from a package may be a module of it.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return names


@cache
def installed_by(environment):
    """Return the distributions of an environment, with all that they require."""
    listed = yaml.safe_load((ROOT / f"envs/{environment}.yaml").read_text())["dependencies"]
    named = [entry for entry in listed if isinstance(entry, str)]
    named += [entry for entries in listed if isinstance(entries, dict) for entry in entries["pip"]]
    # What has to be installed without its dependencies is in a script.
    if (script := ROOT / f"envs/{environment}.post-deploy.sh").exists():
        named += re.findall(r"([\w-]+)==", script.read_text())
    waiting, found = [canonicalize_name(re.split(r"[=<>\[ ]", entry)[0]) for entry in named], set()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting += [
            canonicalize_name(own.name) for own in needed if not own.marker or own.marker.evaluate({"extra": ""})
        ]
    return found


def imported_behind(path):
    """Return the packages that a script imports through the modules of hpaloc too."""
    waiting, read, found = [path], set(), set()
    while waiting:
        path = waiting.pop()
        if path in read:
            continue
        read.add(path)
        for name in imported_by(path):
            place = ROOT.joinpath(*name.split("."))
            if name.split(".")[0] != "hpaloc":
                found.add(name.split(".")[0])
            else:
                waiting += [own for own in (place.with_suffix(".py"), place / "__init__.py") if own.exists()]
    return found - set(sys.stdlib_module_names)


def test_every_environment_of_jobs_is_compared():
    # The process that plans has no script, and what may replace another environment is compared with it below.
    of_jobs = {path.stem for path in (ROOT / "envs").glob("*.yaml")} - {"driver", "tensorflow-latest"}
    assert {environment for environment, _ in rules()} == of_jobs


@pytest.mark.parametrize(("environment", "script"), rules())
def test_an_environment_has_what_a_script_imports(environment, script):
    installed = installed_by(environment)
    lacking = [
        name
        for name in imported_behind(ROOT / f"workflow/scripts/{script}.py")
        # One package may be installed by several distributions, as TensorFlow is for CPUs and GPUs.
        if not {canonicalize_name(own) for own in (name, *DISTRIBUTIONS.get(name, []))} & installed
    ]
    assert not lacking, f"envs/{environment}.yaml lacks what workflow/scripts/{script}.py imports"


def test_the_newest_tensorflow_comes_with_the_packages_of_the_other():
    def packages(name):
        listed = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())["dependencies"]
        return {entry.split("==")[0] for entry in listed[-1]["pip"]}

    assert packages("tensorflow-latest") == packages("tensorflow") - {"tensorflow-io"}
