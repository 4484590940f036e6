"""Run the whole workflow on as many fields as a table lists, with small simulated images, and measure every stage.

usage: python benchmarks/rehearsal.py FOLDER --labels train.csv [--fields 21806] [--cores 2]
       python benchmarks/rehearsal.py --compare SMALL LARGE

The configuration is config/kaggle-2021.yaml, cut down in what is not measured: the network (32 px, one epoch, one view)
and two of the three controls. The fields are the first of the table, with its labels. Each is simulated by itself, so
that no two have cells in common: 224 x 224 px of 0.32 µm (drawn with half as many pixels in a row, to save time) with
about half of the cells of a field of the competition. The number of fields in a shard is that of the configuration for
21,806 fields.

Prints for each rule its jobs, their time together, the greatest memory of one, and the disk and files of its outputs;
then replaces the images of one held-out field, runs again, and prints what reran. Snakemake looks at the memory of a
job twice a second at first, every 30 s after half a minute; the memory of the largest process of the run is exact.
Everything is written to FOLDER/rehearsal.json, and --compare prints two of these files, with the factor from the first
to the second. A call that was interrupted continues; the seconds of the whole run are then those of the rest.
"""

import argparse
import csv
import json
import os
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from dag import run  # noqa: E402
from make_kaggle_sheets import divide_sheet  # noqa: E402

from hpaloc.classes import COLOURS, parse_labels  # noqa: E402
from hpaloc.simulate.field import simulate_field  # noqa: E402

ALL_FIELDS = 21806
# By default Snakemake looks at all ready jobs once a second, and for each job that has ended once more a second.
POLLING = ("--max-jobs-per-timespan", "6000/1m")
# On few cores, jobs of one core side by side take less time than jobs of all cores, one after the other.
SHARED = ("segment", "tile", "measure_baselines", "predict", "browse_shard")
ONE_CORE = ("--set-threads", *(f"{rule}=1" for rule in SHARED))
SHAPE, PIXEL_SIZE, DENSITY = (224, 224), 0.32, 2.5
MEASURES = ("s", "MB", "disk MB", "files")


def write_images(field, folder, seed=1):
    """Simulate a field (ID, labels as text) and write its channel files into ``folder``, unless they are there."""
    id, labels = field
    paths = {colour: folder / f"{id}_{colour}.png" for colour in COLOURS}
    if seed == 1 and all(path.is_file() for path in paths.values()):
        return
    height, width = SHAPE
    # Enlarged afterwards: with twice as many pixels in a row, drawing takes twice as long.
    half = simulate_field(id, parse_labels(labels), seed, (height // 2, width // 2), 2 * PIXEL_SIZE, density=DENSITY)
    for colour, path in paths.items():
        # An interrupted call leaves no half of a file.
        temporary = path.with_suffix(".part.png")
        cv2.imwrite(str(temporary), cv2.resize(half.images[colour], (width, height), interpolation=cv2.INTER_CUBIC))
        temporary.replace(path)


def write_fields(folder, labels, fields, cores):
    """Write the sheets, the images and the configuration of the first ``fields`` fields of a table of labels."""
    header, *lines = labels.read_text(encoding="utf-8").splitlines()
    for name, text in divide_sheet("\n".join([header, *lines[:fields]])).items():
        (folder / name).write_text(text)
    (folder / "train").mkdir(exist_ok=True)
    rows = [(row["ID"], row["Label"]) for row in csv.DictReader([header, *lines[:fields]])]
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(partial(write_images, folder=folder / "train"), rows, chunksize=20))
    config = yaml.safe_load((ROOT / "config/kaggle-2021.yaml").read_text())
    config["shards"] = max(1, round(config["shards"] * len(rows) / ALL_FIELDS))
    config["pixel_size"] = PIXEL_SIZE
    config["tiles"]["size"] = 64
    config["train"] |= {"input_size": 32, "epochs": 1}
    config["predict"] = {"views": 1}
    config["evaluation"]["controls"] = ["tile_random_split"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return len(rows)


def outputs_of(snakemake, folder):
    """Return {rule: its outputs} and {benchmark file: its rule} of a finished run."""
    outputs, rules = defaultdict(list), {}
    for line in snakemake("--summary").text.splitlines():
        cells = line.split("\t")
        # The log of an output that is not made yet is "-".
        if len(cells) == 6 and cells[3].startswith("logs/"):
            path, _, rule, logs, *_ = cells
            outputs[rule].append(folder / path)
            # Each rule's log and benchmark have the same path, in two folders.
            rules[folder / "benchmarks" / Path(logs).relative_to("logs").with_suffix(".tsv")] = rule
    return outputs, rules


def on_disk(path):
    """Return the bytes that a file or a folder takes on disk, and its number of files; none of what is deleted."""
    paths = [part for part in (path, *path.rglob("*")) if part.exists()]
    return sum(part.lstat().st_blocks * 512 for part in paths), sum(part.is_file() for part in paths)


def measure(outputs, rules, since=0.0):
    """Return {rule: number of jobs and MEASURES} of the jobs that ended after ``since``, in the order of their end."""
    found = {}
    ended = {path: path.stat().st_mtime for path in rules if path.is_file()}
    for path in sorted((path for path, at in ended.items() if at >= since), key=ended.get):
        job = pd.read_csv(path, sep="\t", na_values=["-", "NA"]).iloc[-1]
        rule = found.setdefault(rules[path], dict.fromkeys(("jobs", *MEASURES), 0))
        rule["jobs"] += 1
        rule["s"] += float(job["s"])
        # A job of a moment ends before its memory is measured.
        rule["MB"] = max(rule["MB"], float(job["max_rss"]) if pd.notna(job["max_rss"]) else 0)
    for name, rule in found.items():
        taken = [on_disk(path) for path in outputs[name]]
        rule["disk MB"], rule["files"] = sum(size for size, _ in taken) / 1e6, sum(files for _, files in taken)
    return found


def rehearse(folder, labels, fields, cores):
    """Run the workflow, replace the images of one field, run it again, and return all measurements."""
    start = time.monotonic()
    count = write_fields(folder, labels, fields, cores)
    print(f"{count} fields simulated in {time.monotonic() - start:.0f} s", flush=True)
    snakemake = partial(run, ROOT / "Snakefile", folder)
    found = {"fields": count, "cores": cores}

    def timed(name, arguments, since):
        done = snakemake(*arguments)
        outputs, rules = outputs_of(snakemake, folder)
        found[name] = {"seconds": done.seconds, "MB": done.megabytes, "rules": measure(outputs, rules, since)}
        (folder / "rehearsal.json").write_text(json.dumps(found, indent=2) + "\n")

    if any((folder / ".snakemake/locks").glob("*")):
        # Of a run that was killed.
        snakemake("--unlock")
    planned = snakemake("--dry-run")
    found["plan"] = {"seconds": planned.seconds, "MB": planned.megabytes}
    options = ("--cores", str(cores), *POLLING, *ONE_CORE)
    timed("all", options, 0.0)
    with open(folder / "held_out.csv", newline="") as file:
        row = next(csv.DictReader(file))
    write_images((row["ID"], row["Label"]), folder / "train", seed=2)
    timed("one field changed", options, time.time())
    return found


def table(found, measures=MEASURES):
    """Return the rows of Markdown of the rules of a run."""
    lines = [f"| rule | jobs | {' | '.join(measures)} |", f"|{'---|' * (2 + len(measures))}"]
    for name, rule in found["rules"].items():
        numbers = " | ".join(f"{rule[measure]:,.0f}" for measure in measures)
        lines.append(f"| {name} | {rule['jobs']} | {numbers} |")
    return lines


def compared(small, large):
    """Return the rows of Markdown of the rules of two runs, each with the factor from the first to the second."""
    factor = large["fields"] / small["fields"]
    lines = [
        f"From {small['fields']:,} to {large['fields']:,} fields, {factor:.1f} times as many:\n",
        f"| rule | jobs | {' | '.join(f'{measure} | times' for measure in MEASURES)} |",
        f"|{'---|' * (2 + 2 * len(MEASURES))}",
    ]
    for name, rule in large["all"]["rules"].items():
        before = small["all"]["rules"].get(name, {})
        pairs = [(rule[measure], before.get(measure, 0)) for measure in MEASURES]
        numbers = [f"{now:,.0f} | {f'{now / then:.1f}' if then else ''}" for now, then in pairs]
        lines.append(f"| {name} | {rule['jobs']} | {' | '.join(numbers)} |")
    return lines


def show(found):
    """Print the measurements of a rehearsal."""
    print(f"\nThe plan: {found['plan']['seconds']:.0f} s, {found['plan']['MB']:.0f} MB.")
    # The second run leaves the outputs as large as they were.
    for name, measures in (("all", MEASURES), ("one field changed", ("s", "MB"))):
        done = found[name]
        times = f"{done['seconds']:,.0f} s with {found['cores']} cores"
        print(f"\n{found['fields']:,} fields, {name}: {times}; the largest process had {done['MB']:,.0f} MB")
        print("\n".join(["", *table(done, measures)]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--labels", type=Path, help="a CSV with the columns ID and Label")
    parser.add_argument("--fields", type=int, default=ALL_FIELDS)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("SMALL", "LARGE"), help="two files rehearsal.json")
    arguments = parser.parse_args()
    if arguments.compare:
        print("\n".join(compared(*(json.loads(path.read_text()) for path in arguments.compare))))
        return
    if not (arguments.folder and arguments.labels):
        parser.error("name FOLDER and --labels, or --compare")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    show(rehearse(arguments.folder.resolve(), arguments.labels, arguments.fields, arguments.cores))


if __name__ == "__main__":
    main()
