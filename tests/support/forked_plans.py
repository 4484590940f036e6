"""Many plans of the workflow in a row: one process that has loaded Snakemake forks for each of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

# What a plan loads, so that a fork finds it loaded.
LOADED = ("snakemake.cli", "snakemake.api", "snakemake.dag", "snakemake.scheduling.job_scheduler", "yaml", "jsonschema")


def run_plans(snakefile, folders, *arguments):
    """Run Snakemake in each folder of ``folders`` with its config.yaml; return the exit status and text of each.

    ``arguments`` stand before the configuration, such as --dry-run; for a folder of its own they may be a pair of
    (folder, further arguments).
    """
    commands = []
    for folder in folders:
        folder, further = folder if isinstance(folder, tuple) else (folder, ())
        words = ["--snakefile", snakefile, "--directory", folder, "--nocolor", *arguments, *further]
        commands.append([str(word) for word in (*words, "--configfile", Path(folder, "config.yaml"))])
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(commands), stdout=subprocess.PIPE, text=True, check=True
    )
    return [tuple(outcome) for outcome in json.loads(done.stdout)]


def _fork(command):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        from snakemake.cli import main

        status = 1
        try:
            main(command)
        except SystemExit as end:
            status = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as output:
        text = output.read()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), text


if __name__ == "__main__":
    import importlib

    for name in LOADED:
        importlib.import_module(name)
    print(json.dumps([_fork(command) for command in json.load(sys.stdin)]))
