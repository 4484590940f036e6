"""Finished runs of a copy of the workflow, to go on with: each is a pair of a Snakefile and a folder."""

import shutil

from dag import listed_jobs
from forked_plans import run


def copy_run(first_run, folder):
    """Copy the folder of a run to ``folder``, its files as old as they are; return the run that goes on there."""
    snakefile, finished = first_run
    shutil.copytree(finished, folder)
    return snakefile, folder


def listed(finished, *targets):
    """Return how many jobs of each rule a dry run lists, and the shards of those that have one."""
    return listed_jobs(run(*finished, "--dry-run", *targets).text)
