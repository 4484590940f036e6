"""Measure the cost of the workflow's bookkeeping at the size of a whole atlas, with empty files and jobs.

usage: python benchmarks/dag.py [--fields 82495] [--shards 144] [--cores 2]

Writes sheets and four empty channel files per field, for a training and a test collection (21,806 of 82,495 fields
train), into a temporary folder, and a copy of the workflow whose scripts only touch their outputs. Then measures the
first plan, with the scan of the folders; a run of all jobs; the plan if nothing has changed; and what a changed file,
an added row, a removed row and a changed training parameter would rerun. For each it prints wall time, processor time
(the wall time of an idle machine), and the peak memory of the largest process. Ends with an error if the wrong shards
are listed.
"""

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ("red", "green", "blue", "yellow")
# Of the 2021 competition: the fields of the training set among all, public and hidden.
TRAINING_SHARE = 21806 / 82495

# In place of every script, in bash, which starts at once. A path without a suffix is a folder; a named output may be
# several paths, of which none has a space.
TRIVIAL = """for path in ${snakemake_output[@]}; do
  case "${path##*/}" in
    *.*) : > "$path" ;;
    *) mkdir -p "$path" ;;
  esac
done
"""


@dataclass(frozen=True)
class Run:
    """A finished snakemake process: what it printed, its wall and processor time in s and its peak memory in MB."""

    text: str
    seconds: float
    processor: float
    megabytes: float


def write_collections(folder, fields, shards):
    """Write two collections of empty files and their configuration into ``folder``."""
    training = round(fields * TRAINING_SHARE)
    in_training = max(round(shards * TRAINING_SHARE), 1)
    sizes = {"train": (training, in_training), "test": (fields - training, shards - in_training)}
    collections = {}
    for name, (number, of_name) in sizes.items():
        (folder / name).mkdir()
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["ID", "Label"])
            for index in range(number):
                writer.writerow([f"{name}-{index:06d}", index % 19])
                for colour in COLOURS:
                    (folder / name / f"{name}-{index:06d}_{colour}.png").touch()
        images = f"{name}/{{id}}_{{colour}}.png"
        collections[name] = {"sheet": f"{name}.csv", "images": images, "labels": True, "shards": of_name}
    (folder / "config.yaml").write_text(yaml.safe_dump({"collections": collections}))


def copy_workflow(folder):
    """Copy the workflow into ``folder`` with scripts that only touch their outputs; return the Snakefile."""
    folder.mkdir()
    shutil.copy(ROOT / "Snakefile", folder)
    for name in ("workflow", "hpaloc", "envs", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for script in (folder / "workflow/scripts").glob("*.py"):
        script.with_suffix(".sh").write_text(TRIVIAL)
    for rules in (folder / "workflow/rules").glob("*.smk"):
        rules.write_text(re.sub(r"(scripts/\w+)\.py", r"\1.sh", rules.read_text()))
    return folder / "Snakefile"


def with_scripts(folder, *names):
    """Give stages of a copy of the workflow their own scripts back."""
    for rules in (folder / "workflow/rules").glob("*.smk"):
        text = rules.read_text()
        for name in names:
            text = text.replace(f"scripts/{name}.sh", f"scripts/{name}.py")
        rules.write_text(text)


def run(snakefile, folder, *arguments, config="config.yaml"):
    """Run snakemake in ``folder`` and return the finished Run; raise RuntimeError with its output where it fails."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", snakefile, "--directory", folder, "--nocolor"]
    command += [*arguments, "--configfile", folder / config]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        # Not process.wait: only this reports the memory of the process and of those it waited for.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        output.seek(0)
        text = output.read().decode()
    if process.returncode:
        raise RuntimeError(text[-6000:])
    return Run(text, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def listed_jobs(text):
    """Return how many jobs of each rule a dry run's text lists, and the shards of those that have one."""
    jobs = Counter()
    shards = {}
    for rule, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", text, flags=re.MULTILINE):
        jobs[rule] += 1
        wildcards = re.search(r"wildcards: (.*)", body)
        if wildcards and "shard=" in wildcards[1]:
            shards.setdefault(rule, set()).add(wildcards[1])
    return jobs, shards


def changes(folder):
    """Change the collections one thing at a time: yield what was changed, and the configuration to plan with."""
    path = folder / "test/test-000000_green.png"
    before = path.stat().st_mtime_ns
    path.write_bytes(b"changed")
    yield "a changed file", "config.yaml"
    path.write_bytes(b"")
    os.utime(path, ns=(before, before))
    sheet = folder / "test.csv"
    text = sheet.read_text()
    for colour in COLOURS:
        (folder / f"test/new_{colour}.png").touch()
    sheet.write_text(text + "new,0\n")
    yield "an added row", "config.yaml"
    lines = text.splitlines(keepends=True)
    sheet.write_text("".join(line for line in lines if not line.startswith("test-000001,")))
    yield "a removed row", "config.yaml"
    sheet.write_text(text)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "longer.yaml").write_text(yaml.safe_dump(config | {"train": {"epochs": 11}}))
    yield "a changed training parameter", "longer.yaml"


def reruns(snakefile, folder):
    """Yield each change, the plan after it, and the jobs and shards that this lists; every change is taken back."""
    for change, config in changes(folder):
        planned = run(snakefile, folder, "--dry-run", config=config)
        yield change, planned, *listed_jobs(planned.text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=82495)
    parser.add_argument("--shards", type=int, default=144)
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "run")
        folder.mkdir()
        write_collections(folder, arguments.fields, arguments.shards)
        snakefile = copy_workflow(Path(temporary, "workflow"))
        print(
            f"{arguments.fields} fields of 4 files in {arguments.shards} shards, {arguments.cores} cores\n", flush=True
        )
        print("| | jobs | wall s | processor s | MB |\n|---|---|---|---|---|")

        def row(what, done, jobs):
            times = f"{done.seconds:.1f} | {done.processor:.1f}"
            print(f"| {what} | {jobs} | {times} | {done.megabytes:.0f} |", flush=True)

        first = run(snakefile, folder, "--dry-run")
        n_jobs = listed_jobs(first.text)[0].total()
        row("first plan, with the scan", first, n_jobs)
        row("run of jobs that do nothing", run(snakefile, folder, "--cores", str(arguments.cores)), n_jobs)
        unchanged = run(snakefile, folder, "--dry-run")
        row("plan, nothing changed", unchanged, listed_jobs(unchanged.text)[0].total())
        for change, planned, jobs, shards in reruns(snakefile, folder):
            row(f"plan, {change}", planned, jobs.total())
            if change == "a changed training parameter":
                assert jobs["train"] == 1, jobs
                assert not jobs["segment"] + jobs["tile"] + jobs["curate"], jobs
            else:
                assert len(shards["segment"]) == jobs["segment"] == 1, shards
                assert shards["segment"] == shards["tile"] == shards["predict"], shards


if __name__ == "__main__":
    main()
