"""A one-node Slurm for tests, with queries and actions on its jobs; or a reason to skip."""

import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from slurm_daemons import (
    ACCOUNTING_PROGRAMS,
    PROGRAMS,
    answers,
    configured_otherwise,
    slurm_daemons,
    start_slurm_daemon,
    stop_daemon,
    until,
)

# The states of a finished job.
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


def stopped(process):
    """Return whether a process has ended, None if there is none with this id."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return state in "TZ"


class OneNodeSlurm:
    """A running one-node Slurm whose state is in ``folder``."""

    def __init__(self, folder):
        self.folder = folder

    def jobs(self):
        """Return (job id, state, comment, partition) of every job of the controller, oldest first."""
        done = subprocess.run(
            ["squeue", "--noheader", "--states=all", "--sort=i", "--format=%i|%T|%k|%P"],
            capture_output=True,
            text=True,
            check=False,
        )
        return [tuple(line.split("|")) for line in done.stdout.splitlines()]

    def running(self, comment, watched=None):
        """Wait until a job runs whose comment is ``comment`` or starts with it and _, and return its id."""

        def found():
            return next(
                (job for job, state, of, _ in self.jobs() if state == "RUNNING" and f"{of}_".startswith(f"{comment}_")),
                None,
            )

        return until(found, watched)

    def processes(self, job):
        """Return the ids of the processes of a running job; none while Slurm is still launching it."""
        done = subprocess.run(["scontrol", "listpids", job], capture_output=True, text=True, check=False)
        return [int(line.split()[0]) for line in done.stdout.splitlines()[1:] if int(line.split()[0]) > 0]

    def freeze(self, job):
        """Stop every process of a running job, including those that it is starting."""

        def still():
            processes = self.processes(job)
            awake = [process for process in processes if stopped(process) is False]
            for process in awake:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGSTOP)
            if not processes:
                state = next((state for id, state, _, _ in self.jobs() if id == job), "RUNNING")
                assert state == "RUNNING", f"job {job} was {state} before it could be stopped"
            return processes and not awake

        until(still)

    def ended(self):
        """Return whether no job waits, runs or is ending."""
        # If the controller does not answer, the list is empty.
        return bool(jobs := self.jobs()) and all(state in ENDED for _, state, _, _ in jobs)

    def stop(self, daemon):
        """End slurmctld or slurmd and wait until it is gone."""
        stop_daemon(self.folder / f"run/{daemon}.pid")

    def start(self, daemon):
        """Start slurmctld or slurmd again."""
        start_slurm_daemon(self.folder, daemon)


@contextmanager
def one_node_slurm(folder, accounting=False, **options):
    """Start a one-node Slurm with its state in ``folder``, yield it, and stop it; skip if that is impossible.

    ``options`` are those of slurm_daemons.
    """
    absent = [name for name in PROGRAMS + ACCOUNTING_PROGRAMS * accounting if shutil.which(name) is None]
    if absent:
        pytest.skip(f"not installed: {', '.join(absent)}")
    if os.geteuid() != 0:
        pytest.skip("only root can start a Slurm")
    with open(Path(tempfile.gettempdir(), "one-node-slurm.lock"), "w") as lock:
        # Its ports and /etc/slurm are the machine's, and tests run side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if configured_otherwise() or answers():
            pytest.skip("this machine has a Slurm of its own")
        with slurm_daemons(folder, accounting, **options):
            try:
                yield OneNodeSlurm(folder)
            finally:
                subprocess.run(["scancel", "--quiet", "--state=RUNNING"], check=False)
