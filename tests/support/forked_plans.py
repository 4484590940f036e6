"""Many runs of Snakemake in a row: one process, that has loaded it once, forks for each of them.

Half of a plan's time is Snakemake's own start. The process loads nothing of hpaloc, so that each run reads the code of
the workflow that it is given. It lives as long as the process of the tests that asked first, or until that one dies.
"""

import atexit
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# The modules of a plan, loaded before the fork.
LOADED = (
    *("snakemake.cli", "snakemake.api", "snakemake.dag", "snakemake.profiles", "snakemake.scheduling.job_scheduler"),
    *("snakemake.report.html_reporter", "docutils.core", "jinja2", "jsonschema", "nbformat", "requests", "smart_open"),
    "yaml",
)


@dataclass
class Plan:
    """A finished run: its exit status, and what it printed to stdout and stderr."""

    returncode: int
    text: str


def plan(snakefile, folder, *arguments, config="config.yaml"):
    """Run Snakemake in ``folder``, and return the finished run however it ended.

    ``arguments`` stand before the configuration, such as --dry-run. The run has the environment and the working
    directory of the caller.
    """
    words = ["--snakefile", snakefile, "--directory", folder, "--nocolor", *arguments]
    # Last, since it takes every following word that is not an option as a file.
    words += ["--configfile", Path(folder, config)]
    command = {"words": [str(word) for word in words], "environment": dict(os.environ), "directory": os.getcwd()}
    process = _process()
    process.stdin.write(json.dumps(command) + "\n")
    process.stdin.flush()
    return Plan(*json.loads(process.stdout.readline()))


def run(snakefile, folder, *arguments, config="config.yaml"):
    """Run Snakemake in ``folder`` and return the finished run; raise RuntimeError with its output if it fails."""
    done = plan(snakefile, folder, *arguments, config=config)
    if done.returncode:
        raise RuntimeError(done.text[-6000:])
    return done


def run_plans(snakefile, folders, *arguments):
    """Run Snakemake in each folder of ``folders`` with its config.yaml; return the exit status and text of each.

    A folder may be a pair of (folder, further arguments).
    """
    outcomes = []
    for folder in folders:
        folder, further = folder if isinstance(folder, tuple) else (folder, ())
        done = plan(snakefile, folder, *arguments, *further)
        outcomes.append((done.returncode, done.text))
    return outcomes


@cache
def _process():
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end():
        process.stdin.close()
        process.wait()

    atexit.register(end)
    return process


def _fork(command):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        os.chdir(command["directory"])
        os.environ.clear()
        os.environ.update(command["environment"])
        from snakemake.cli import main

        status = 1
        try:
            main(command["words"])
        except SystemExit as end:
            status = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as output:
        text = output.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), text


if __name__ == "__main__":
    import importlib

    for name in LOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), flush=True)
