"""The pages: their links lead somewhere, and what they list is there."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import hpaloc

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "config/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page):
    """Return where a page links within the repository, its pictures included."""
    found = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8"))
    return [target for pair in found if "://" not in (target := pair[0] or pair[1])]


def test_links_within_the_repository_lead_somewhere():
    assert sum(len(links(page)) for page in PAGES) > 40
    wrong = []
    for page in PAGES:
        for target in links(page):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            if not linked.exists() or (anchor and anchor not in anchors(linked)):
                wrong.append(f"{page.relative_to(ROOT)}: {target}")
    assert not wrong, "\n".join(wrong)


def test_no_target_stands_where_snakemake_takes_it_for_another_configuration():
    # The option takes as many values as follow, a target too.
    wrong = [
        f"{page.relative_to(ROOT)}: {command}"
        for page in PAGES
        for command in re.findall(r"snakemake [^`\n]*", page.read_text(encoding="utf-8"))
        if re.search(r"--configfile [^\s-]\S* +[^\s-]", command)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_folder_of_results_is_among_the_formats():
    rules = "".join(path.read_text() for path in ROOT.glob("workflow/rules/*.smk"))
    formats = (ROOT / "docs/formats.md").read_text()
    for folder in sorted(set(re.findall(r"results/([a-z_]+)/", rules))):
        assert f"`results/{folder}/" in formats, folder
    # And the tables of an interpretation in its own page.
    written = (ROOT / "workflow/rules/interpret.smk").read_text()
    study = (ROOT / "docs/interpretation.md").read_text()
    for name in re.findall(r"\"(?:results/interpretation/)?(\w+\.(?:parquet|md|json))\"", written):
        assert f"`{name}`" in study, name


def test_every_page_is_linked_from_the_front():
    front = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in front, page.name


@pytest.mark.slow
@pytest.mark.parametrize("program", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda program: program.name)
def test_benchmarks_start_as_the_page_says(program):
    if program.name == "scportrait_extraction.py":
        pytest.importorskip("scportrait", reason="scPortrait needs an environment of its own")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, f"benchmarks/{program.name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage:" in done.stdout


@pytest.mark.slow
def test_the_input_pipeline_is_timed_from_any_folder(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, ROOT / "benchmarks/training.py", "--size", "32", "--precision"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.fullmatch(r"input pipeline alone: \d+ examples/s\n", done.stdout)


def test_every_benchmark_is_listed():
    listed = (ROOT / "docs/benchmarks.md").read_text()
    for program in (ROOT / "benchmarks").glob("*.py"):
        assert program.name in listed, program.name


def test_the_picture_shows_rules_that_exist():
    rules = set(
        re.findall(r"^rule (\w+):", "".join(p.read_text() for p in ROOT.glob("workflow/rules/*.smk")), re.MULTILINE)
    )
    shown = set(re.findall(r"<text[^>]*>(\w+)</text>", (ROOT / "docs/rulegraph.svg").read_text()))
    assert shown <= rules, "run `make docs`"
    assert {"segment", "tile", "train", "predict", "evaluate", "browse", "report_zip"} <= shown


def test_the_version_is_the_same_everywhere():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert package == hpaloc.__version__
    assert package == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert f"hpaloc (version {package})" in (ROOT / "README.md").read_text(), "the methods paragraph"


def test_pre_commit_has_the_versions_of_the_lock_file():
    locked = (ROOT / "requirements.lock").read_text().splitlines()
    hooks = [
        hook
        for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
        for hook in repository["hooks"]
    ]
    assert {hook["id"] for hook in hooks} == {"ruff-check", "ruff-format", "snakefmt", "codespell"}
    for hook in hooks:
        assert set(hook["additional_dependencies"]) <= set(locked), hook["id"]


def test_every_push_is_checked_by_the_same_script_as_anywhere():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
    # YAML 1.1 takes the key "on" for a boolean.
    assert {"push", "pull_request"} <= set(workflow[True])
    (job,) = workflow["jobs"].values()
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]
    python = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert required.startswith(f">={python[0]},")


def test_pictures_are_small_shown_and_described():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for tag in re.findall(r"<img [^>]*>", pages):
        assert re.search(r"alt=\"[^\"]{20,}\"", tag), tag
    for picture in (ROOT / "docs/pictures").iterdir():
        assert picture.stat().st_size < 250_000, picture.name
        assert f"pictures/{picture.name}" in pages, picture.name


def test_the_citation_is_whole():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert all(reference["doi"] for reference in citation["references"])


def test_every_item_of_the_report_has_a_caption_a_category_and_a_title():
    for path in ROOT.glob("workflow/rules/*.smk"):
        for item in path.read_text().split("report(\n")[1:]:
            item = item.split("\n            )\n")[0].split("\n        ),\n")[0]
            for part in ("caption=", "category=", "labels="):
                assert part in item, f"{path.name}: {item[:80]}"


def test_every_caption_is_of_an_item_and_every_item_has_its_own():
    rules = "".join(path.read_text() for path in [*ROOT.glob("workflow/rules/*.smk"), ROOT / "Snakefile"])
    common = (ROOT / "workflow/rules/common.smk").read_text()
    captions = {path.stem for path in (ROOT / "workflow/report").glob("*.rst")}
    # Captions of figures have the figure's name, by which common.smk lists it; evaluate.smk lists those of its tables.
    unused = {name for name in captions if not re.search(rf"report/{name}\.rst|\"{name}\"", rules + common)}
    assert not unused
    named = set(re.findall(r"report/(\w+)\.rst", rules))
    assert named <= captions
