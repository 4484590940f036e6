"""The workflow as a module of another one, which runs to its end and keeps what is its own."""

import json
import zipfile

import pytest
import yaml
from dag import copy_workflow, with_scripts, write_collections
from forked_plans import run
from workflow_runs import ROOT, read_rows, write_small_run

# Writes the settings that a script sees where it would segment.
TELLING = """import json
from pathlib import Path
Path(snakemake.output[0]).mkdir()
Path(snakemake.output[0], "seen.json").write_text(json.dumps(snakemake.config))
"""
OUTER = """
configfile: "config.yaml"
report: "outer.rst"

rule all:
    input: "done.txt"

module hpaloc:
    snakefile: "{snakefile}"
    config: config["hpaloc"]
{more}
use rule * from hpaloc as hpaloc_*

onsuccess:
    hpaloc.onsuccess()

rule outer:
    input: "results/report.zip"
    output: "done.txt"
    benchmark: "benchmarks/outer.tsv"
    shell: "echo {{config[seed]}} > {{output}}"
"""


def write_outer(folder, snakefile, more=""):
    """Make a folder whose config.yaml is that of a run one of another workflow that uses it."""
    own = yaml.safe_load((folder / "config.yaml").read_text())
    settings = {"seed": "outer", "max_rejected_fraction": "outer", "train": {"gpu": "outer"}, "hpaloc": own}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "outer.rst").write_text("The report of the outer workflow.")
    (folder / "Snakefile").write_text(OUTER.format(snakefile=snakefile, more=more))


@pytest.fixture(scope="module")
def outer(tmp_path_factory):
    """The folder of an outer workflow that ran to its own default target; most jobs of hpaloc do nothing."""
    folder = tmp_path_factory.mktemp("outer")
    (folder / "run").mkdir()
    write_collections(folder / "run", 12, 2)
    snakefile = copy_workflow(folder / "hpaloc")
    with_scripts(snakefile.parent, "record_run", "report_zip", "segment")
    (snakefile.parent / "workflow/scripts/segment.py").write_text(TELLING)
    write_outer(folder / "run", snakefile)
    (folder / "run/results/predictions/old").mkdir(parents=True)
    printed = run(folder / "run/Snakefile", folder / "run", "--cores", "2").text
    (folder / "run/printed.txt").write_text(printed)
    return folder / "run"


def test_the_default_target_of_the_outer_workflow_stays_its_own(outer):
    assert (outer / "done.txt").read_text() == "outer\n"


def test_the_end_of_the_run_is_told_where_the_outer_workflow_asks_for_it(outer):
    assert "results/predictions/old" in (outer / "printed.txt").read_text().split("left by earlier runs", 1)[1]


def test_what_is_recorded_is_of_this_workflow_not_of_the_outer_one(outer):
    recorded = yaml.safe_load((outer / "results/run/config.yaml").read_text())
    assert recorded["train"]["gpu"] == "auto"
    assert set(recorded["collections"]) == {"train", "test"}
    environments = {row["environment"] for row in read_rows(outer / "results/run/software.csv")}
    assert environments == {"", "analysis", "segmentation", "tensorflow"}
    jobs = {(row["rule"], row["job"]) for row in read_rows(outer / "results/run/jobs.csv")}
    assert ("segment", "test/000") in jobs
    assert "outer" not in {rule for rule, _ in jobs}


def test_a_script_sees_the_settings_of_this_workflow(outer):
    seen = json.loads((outer / "results/segmentation/test/000/seen.json").read_text())
    assert seen["max_rejected_fraction"] == 0.05
    assert seen["train"]["gpu"] == "auto"
    assert "hpaloc" not in seen


def test_the_report_is_of_this_workflow_and_the_outer_one_keeps_its_own(outer):
    page = zipfile.ZipFile(outer / "results/report.zip").read("report/report.html").decode()
    assert "predicts where a stained protein is" in page
    assert "hpaloc_segment" in page
    run(outer / "Snakefile", outer, "--report", "outer.zip", "all")
    page = zipfile.ZipFile(outer / "outer.zip").read("outer/report.html").decode()
    assert "The report of the outer workflow." in page


def test_the_report_writes_no_manifest_and_nothing_is_left_to_do(outer):
    newest = max(path.stat().st_mtime_ns for path in (outer / "results/sheet").glob("*/*.csv"))
    assert newest < min(path.stat().st_mtime_ns for path in (outer / "results/segmentation").glob("*/*"))
    assert "Nothing to be done" in run(outer / "Snakefile", outer, "--dry-run").text


CHANGED = """
use rule train from hpaloc as hpaloc_train with:
    threads: 2
"""


def test_a_changed_rule_is_listed_and_a_refusal_puts_every_manifest_back(tmp_path):
    (tmp_path / "run").mkdir()
    write_collections(tmp_path / "run", 12, 2)
    snakefile = copy_workflow(tmp_path / "hpaloc")
    with_scripts(snakefile.parent, "record_run")
    write_outer(tmp_path / "run", snakefile)
    outer = tmp_path / "run/Snakefile"
    outer.write_text(outer.read_text() + CHANGED)
    run(outer, tmp_path / "run", "--cores", "2")
    assert "train" in {row["rule"] for row in read_rows(tmp_path / "run/results/run/jobs.csv")}
    sheet = tmp_path / "run/train.csv"
    sheet.write_text(sheet.read_text().rsplit("\n", 2)[0] + "\n")
    manifests = {path: path.read_bytes() for path in (tmp_path / "run/results/sheet").glob("*/*.csv")}
    words = ("--dry-run", "--config", "hpaloc={train: {weights: absent.h5}}")
    with pytest.raises(RuntimeError, match=r"config key train\.weights: no such file: absent\.h5"):
        run(outer, tmp_path / "run", *words)
    assert {path: path.read_bytes() for path in (tmp_path / "run/results/sheet").glob("*/*.csv")} == manifests


@pytest.mark.parametrize("more", ['    prefix: "analysis"', '    replace_prefix: {"results/": "analysis/"}'])
def test_a_prefix_is_refused_in_a_sentence_that_says_what_to_do(tmp_path, more):
    write_collections(tmp_path, 12, 2)
    write_outer(tmp_path, ROOT / "Snakefile", more)
    with pytest.raises(RuntimeError) as error:
        run(tmp_path / "Snakefile", tmp_path, "--dry-run")
    (line,) = (line for line in str(error.value).splitlines() if "hpaloc" in line or "rror" in line)
    assert "'prefix' and 'replace_prefix' cannot move the files of hpaloc" in line
    assert "--directory" in line
    assert not (tmp_path / "results").exists()


def test_a_setting_of_the_command_line_reaches_a_module(tmp_path):
    write_collections(tmp_path, 12, 2)
    write_outer(tmp_path, ROOT / "Snakefile")
    words = ("--dry-run", "--config", "hpaloc={predict: {views: 1}}")
    assert "results/report.zip" in run(tmp_path / "Snakefile", tmp_path, *words).text
    with pytest.raises(RuntimeError, match=r"config key predict\.views: 3 is not one of 1, 2, 4, 8"):
        run(tmp_path / "Snakefile", tmp_path, "--dry-run", "--config", "hpaloc={predict: {views: 3}}")


@pytest.mark.slow
def test_a_small_run_ends_in_another_workflow(tmp_path):
    write_small_run(tmp_path)
    write_outer(tmp_path, ROOT / "Snakefile")
    run(tmp_path / "Snakefile", tmp_path, "--cores", "2")
    assert (tmp_path / "done.txt").exists()
    assert zipfile.ZipFile(tmp_path / "results/report.zip").testzip() is None
