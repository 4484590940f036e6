"""Write config/demo/seconds.csv, by which `make demo` estimates the time that is left, from the log of a demo.

usage: python docs/make_demo_seconds.py LOG

LOG is the file of .snakemake/log of a demo from nothing on two cores with nothing beside it. A second in which two jobs
ran counts as half a second for each, so the shares of all jobs add up to the run, but for its planning.
"""

import csv
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

TABLE = Path(__file__).resolve().parents[1] / "config" / "demo" / "seconds.csv"


def read_jobs(log: str) -> Iterator[tuple[str, float, float]]:
    """Yield rule, start and end of every job of a log."""
    started, at, rule = {}, 0.0, ""
    for line in log.splitlines():
        if found := re.fullmatch(r"\[(\w{3} \w{3} [^\]]+ \d{4})\]", line):
            at = time.mktime(time.strptime(found[1]))
        elif found := re.fullmatch(r"(?:local)?rule (\w+):", line):
            rule = found[1]
        elif found := re.fullmatch(r"    jobid: (\d+)", line):
            started[found[1]] = rule, at
        elif found := re.match(r"Finished jobid: (\d+)", line):
            yield *started[found[1]], at


def main(log: Path) -> None:
    """Write the number of jobs of each rule, the mean seconds of one, and its mean share of the run."""
    jobs = list(read_jobs(log.read_text()))
    times = sorted({at for _, *ends in jobs for at in ends})
    seconds, shares = defaultdict(list), defaultdict(float)
    for rule, start, end in jobs:
        # The log tells whole seconds; a job that starts and ends in the same one takes less.
        seconds[rule].append(max(end - start, 0.5))
    for since, until in pairwise(times):
        running = [rule for rule, start, end in jobs if start <= since and end >= until]
        for rule in running:
            shares[rule] += (until - since) / len(running)
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rule", "jobs", "seconds", "share"])
        for rule, of_jobs in sorted(seconds.items()):
            count = len(of_jobs)
            writer.writerow([rule, count, round(sum(of_jobs) / count, 1), round(shares[rule] / count, 1)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
