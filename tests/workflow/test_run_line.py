"""The line of `make demo`: what it estimates, and what a person sees of a run."""

import os
import pty
import re
import subprocess
import sys

import pytest
from snakemake_logger_plugin_hpaloc import SECONDS, Estimate, read_seconds, tell
from workflow_runs import ROOT, planned

# Two jobs of the one rule run side by side.
DEMO = {"train": (225.0, 225.0), "segment": (75.0, 37.5)}
JOBS = {"train": 1, "segment": 2}


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_demo_is_expected_to_take_what_it_took(clock):
    estimate = Estimate(DEMO, JOBS, clock)
    assert estimate.left() == 300
    for job in (1, 2):
        estimate.start(job, "segment")
    clock.now += 30
    assert estimate.left() == 270
    clock.now += 45
    for job in (1, 2):
        estimate.end(job, done=True)
    assert estimate.left() == 225
    estimate.start(3, "train")
    clock.now += 100
    assert estimate.left() == pytest.approx(125)


def test_a_slow_machine_moves_the_estimate_and_a_job_that_fails_is_not_done(clock):
    estimate = Estimate(DEMO, JOBS, clock)
    for job in (1, 2):
        estimate.start(job, "segment")
        clock.now += 150
        estimate.end(job, done=True)
    assert 2 * 225 < estimate.left() < 4 * 225
    estimate.start(3, "train")
    clock.now += 2000
    estimate.end(3, done=False)
    estimate.start(3, "train")
    assert estimate.left() > 225
    clock.now += 10
    estimate.end(3, done=True)
    assert estimate.left() == 0


def test_rules_that_the_demo_lacks_count_as_a_mean_job(clock):
    assert Estimate(DEMO, {"download": 2}, clock).left() == 225 + 37.5


def test_times_are_told_in_minutes():
    told = [tell(seconds) for seconds in (0, 59, 61, 3600, 7200, 36000)]
    assert told[:2] == ["under a minute left"] * 2
    assert told[2:] == ["about 2 min left", "about 60 min left", "about 2 h left", "about 10 h left"]


def test_every_job_of_the_demo_has_its_seconds(tmp_path):
    (tmp_path / "config").symlink_to(ROOT / "config")
    jobs, _ = planned(tmp_path, config="config/config.yaml")
    assert set(jobs) == set(read_seconds()), f"python docs/make_demo_seconds.py renews {SECONDS.name}"


VARIABLES = ("HPALOC_RUN_LINE", "TF_CPP_MIN_LOG_LEVEL")


def watch(folder, *arguments):
    """Run Snakemake in a terminal; return its exit status and all that it wrote."""
    terminal, end = pty.openpty()
    # Tests in this process may have set the variables of jobs.
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"PYTHONPATH": str(ROOT / "workflow/plugins"), "TERM": "xterm-256color", "COLUMNS": "80"}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "hpaloc", *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=end, stderr=end, stdin=subprocess.DEVNULL)
    os.close(end)
    written = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            # Linux says so that the last writer has closed.
            break
        if not part:
            break
        written.append(part)
    os.close(terminal)
    return process.wait(), b"".join(written).decode()


def left_on_screen(written):
    """Return the lines that stay, without colours and without those that were written over."""
    # The line is erased before each new state: up, and erase.
    plain = re.sub(r"\x1b\[\?25[lh]|\x1b\[[0-9;]*m", "", written).replace("\r\n", "\n")
    lines = []
    for line in plain.split("\n"):
        lines.append(line.split("\x1b[2K")[-1].split("\r")[-1])
    return [line for line in lines if line.strip()]


SNAKEFILE = """
rule all:
    input: "a.txt", "b.txt"

rule good:
    output: "a.txt"
    shell: "sleep 1.2; echo $HPALOC_RUN_LINE $TF_CPP_MIN_LOG_LEVEL > {output}"

rule bad:
    input: "a.txt"
    output: "b.txt"
    log: "bad.log"
    shell: "(echo what went wrong; test -e mended) > {log} && touch {output}"
"""


def test_a_person_sees_one_line_and_the_log_of_a_job_that_fails(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    status, written = watch(tmp_path)
    assert status == 1
    assert "0 of 3 jobs done" in written
    assert "1 of 3 jobs done" in written
    assert "minute left" in written
    # It is one line even in a narrow terminal, so there is no step up by two.
    assert "\x1b[1A\x1b[2K\x1b[1A" not in written
    # The job has the two variables that keep jobs from writing over the line.
    assert (tmp_path / "a.txt").read_text() == "1 1\n"
    # The table of jobs is not printed, the log of the job that failed is.
    assert "Job stats" not in written
    assert "what went wrong" in written
    (tmp_path / "mended").touch()
    status, written = watch(tmp_path)
    assert status == 0, written
    assert "2 of 2 jobs done" in written
    assert len(left_on_screen(written)) <= 6, left_on_screen(written)
    status, written = watch(tmp_path, "--dry-run", "--forceall")
    assert status == 0
    assert "Job stats" in written
    assert "jobs done" not in written
