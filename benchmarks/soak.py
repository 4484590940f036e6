"""Predict many simulated fields, some of them bad, while workers and jobs are killed at random.

Usage: python benchmarks/soak.py FOLDER [--fields 2000] [--bad 0.05] [--seed 1] [--shards 8]

Writes the fields, the bad ones in the ways of tests/support/bad_fields.py, and the folder of a small untrained model
into FOLDER. Then runs `predict_only` until it succeeds, while Dask workers and whole jobs are killed at random
(SIGKILL). At the end every good field must be there, each of its cells predicted exactly once, and every bad field
rejected with a reason. A second call continues with what the first left in FOLDER. Prints the figures and writes them
to FOLDER/soak.json. Exits with 1 if a row is lost.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import psutil  # noqa: E402
import yaml  # noqa: E402
from bad_fields import FIELDS, SUFFIXES  # noqa: E402

from hpaloc.finding import shard_of  # noqa: E402
from hpaloc.masks import mask_path, read_mask  # noqa: E402
from hpaloc.simulate.field import simulate_field  # noqa: E402

SHAPE = (320, 384)
# Those that refer to a right field by name, and the one that takes seconds to make.
LEFT_OUT = ("yellow-of-another-field", "a-field-that-is-in-the-sheet-under-two-ids", "20-000-20-000-px")
BAD = [bad for bad in FIELDS if bad.outcome == "rejected" and not bad.id.startswith(LEFT_OUT)]


def write_fields(folder: Path, count: int, share: float, seed: int) -> dict[str, str]:
    """Write the fields and the sheet; return the reason that each bad field is to get."""
    images = folder / "images"
    images.mkdir(parents=True)
    rng = random.Random(seed)
    bad = set(rng.sample(range(count), round(share * count)))
    # A hundred fields drawn, each moved and mirrored into others: drawing them all would take longer than the run.
    drawn = [simulate_field(f"drawn-{n}", (n % 19,), seed, SHAPE, pixel_size=0.16).images for n in range(100)]
    reasons = {}
    ids = []
    for n in range(count):
        id = f"field-{n:05d}"
        ids.append(id)
        step = 3 * (n // 100)
        right = {
            colour: np.ascontiguousarray(np.roll(image, step, axis=1)[:: 1 - 2 * (n // 100 % 2)])
            for colour, image in drawn[n % 100].items()
        }
        for colour, image in right.items():
            cv2.imwrite(str(images / f"{id}_{colour}.png"), image)
        if n in bad:
            how = BAD[len(reasons) % len(BAD)]
            how.make(images, id, right)
            reasons[id] = how.what
    with open(folder / "sheet.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID"])
        writer.writerows([id] for id in ids)
    return reasons


def processes(driver: int) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Return the Dask workers and the scripts of jobs that run below a process."""
    workers, jobs = [], []
    try:
        for process in psutil.Process(driver).children(recursive=True):
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "spawn_main" in words:
                workers.append(process)
            elif ".snakemake/scripts/" in words and "python" in words.split(" ", 1)[0]:
                jobs.append(process)
    except psutil.Error:
        pass
    return workers, jobs


def run(
    folder: Path, rng: random.Random, worker_every: float, job_every: float, jobs_at_most: int, threads: int
) -> Counter:
    """Run the command until it ends well, killing at random; return what was killed and how often it was started."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", str(threads), "--nocolor", "predict_only", "--configfile", str(folder / "config.yaml")]
    count: Counter = Counter()
    next_worker = next_job = None
    while True:
        count["runs"] += 1
        with open(folder / f"run-{count['runs']:02d}.log", "w") as log:
            driver = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            while driver.poll() is None:
                now = time.monotonic()
                next_worker = next_worker or now + rng.expovariate(1 / worker_every)
                next_job = next_job or now + rng.expovariate(1 / job_every)
                workers, jobs = processes(driver.pid)
                for due, what, victims in ((next_worker, "workers", workers), (next_job, "jobs", jobs)):
                    if now < due or not victims or (what == "jobs" and count["killed jobs"] >= jobs_at_most):
                        continue
                    victim = rng.choice(victims)
                    try:
                        name = Path(victim.cmdline()[-1]).name.split(".")[-2] if what == "jobs" else "worker"
                        victim.send_signal(signal.SIGKILL)
                        count[f"killed {name}"] += 1
                        count[f"killed {what}"] += 1
                    except (psutil.Error, IndexError):
                        continue
                    if what == "workers":
                        next_worker = None
                    else:
                        next_job = None
                time.sleep(0.2)
        print(f"run {count['runs']}: ended with {driver.returncode}; {dict(count)}", flush=True)
        if driver.returncode == 0:
            return count
        if count["runs"] > 60:
            raise SystemExit("the run does not come to an end")


def check(folder: Path, reasons: dict[str, str], shards: int) -> dict[str, int]:
    """Hold the results against what was written; return the figures."""
    with open(folder / "sheet.csv", newline="") as file:
        ids = [row["ID"] for row in csv.DictReader(file)]
    good = [id for id in ids if id not in reasons]
    results = folder / "results"
    with open(results / "sheet/rejected.csv", newline="") as file:
        rejected = {row["field"]: row["reason"] for row in csv.DictReader(file)}
    predicted = pd.read_parquet(results / "predictions/soak/cells.parquet", columns=["field", "cell"])
    pairs = Counter(zip(predicted["field"], predicted["cell"].tolist(), strict=True))
    expected = set()
    for id in good:
        if id in rejected:
            continue
        mask = read_mask(mask_path(results / "segmentation/soak" / shard_of(id, shards), id, "cell"))
        expected |= {(id, int(cell)) for cell in np.unique(mask) if cell}
    hidden = [path for path in results.rglob(".*") if path.name != ".snakemake_timestamp"]
    return {
        "fields": len(ids),
        "bad fields": len(reasons),
        "bad fields rejected with a reason": len(set(reasons) & set(rejected)),
        "good fields rejected": len(set(good) & set(rejected)),
        "cells found in good fields": len(expected),
        "cells predicted": len(pairs),
        "cells lost": len(expected - set(pairs)),
        "cells predicted more than once": sum(times > 1 for times in pairs.values()),
        "cells predicted of no field": len(set(pairs) - expected),
        "left under a temporary name": len(hidden),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fields", type=int, default=2000)
    parser.add_argument("--bad", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--worker-every", type=float, default=10.0, help="seconds between kills of workers, on average")
    parser.add_argument("--job-every", type=float, default=90.0, help="seconds between kills of jobs, on average")
    parser.add_argument("--jobs", type=int, default=20, help="at most so many jobs are killed, so that there is an end")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    started = time.monotonic()
    known = folder / "reasons.json"
    if known.is_file():
        reasons = json.loads(known.read_text())
    else:
        reasons = write_fields(folder, arguments.fields, arguments.bad, arguments.seed)
        known.write_text(json.dumps(reasons))
    # TensorFlow is imported by another process: its threads would be counted among the run's.
    make = f"import sys; sys.path[:0] = {sys.path[:2]!r}; from bad_input_runs import model_folder"
    make += f"; from pathlib import Path; model_folder(Path({str(folder / 'model')!r}))"
    if not (folder / "model").exists():
        subprocess.run([sys.executable, "-c", make], check=True)
    collection = {
        "sheet": "sheet.csv",
        "images": [f"images/{{id}}_{{colour}}{suffix}" for suffix in SUFFIXES],
    }
    config = {
        "collections": {"soak": collection},
        "shards": arguments.shards,
        "pixel_size": 0.16,
        "max_rejected_fraction": 2 * arguments.bad + 0.02,
        "tiles": {"size": 32},
        "predict": {"views": 1},
        "model": {"path": "model"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    print(f"{arguments.fields} fields written in {time.monotonic() - started:.0f} s", flush=True)
    rng = random.Random(arguments.seed)
    count = run(folder, rng, arguments.worker_every, arguments.job_every, arguments.jobs, arguments.threads)
    figures = {**check(folder, reasons, arguments.shards), **count, "seconds": round(time.monotonic() - started)}
    (folder / "soak.json").write_text(json.dumps(figures, indent=2) + "\n")
    for what, figure in figures.items():
        print(f"{what:40} {figure}")
    lost = (
        figures["cells lost"]
        + figures["cells predicted more than once"]
        + figures["cells predicted of no field"]
        + figures["good fields rejected"]
        + (figures["bad fields"] - figures["bad fields rejected with a reason"])
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
