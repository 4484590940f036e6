"""The supervision of Dask workers that are Slurm jobs, with reports of what they wait for."""

import logging
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distributed.core import Status

from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.workers import ANSWER, STARTS, Reminder, Restarts, one_line

log = logging.getLogger("hpaloc")

# Seconds for which Slurm may refuse every job, as it does while its controller restarts.
_PATIENCE = 40.0

# Seconds between calls of squeue: while there is no worker, and while others work.
_LOOK = 5.0
_LOOK_WHILE_WORKING = 60.0

# The most seconds between two tries of a job that was refused or that ended.
_LONGEST_DELAY = 300.0

# States of a job whose workers are gone for good.
_OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
_OVER |= {"REVOKED", "TIMEOUT"}


class SlurmWatch:
    """Resubmits jobs that were refused or that ended, reports what the workers wait for, and gives up in the end."""

    def __init__(self, cluster: Any, jobs: int, processes: int, log_directory: str | None) -> None:
        self.cluster = cluster
        self.jobs = jobs
        self.logs = Path(log_directory or ".")
        self.reminder = Reminder()
        self.restarts = Restarts(jobs * processes, "the Dask workers of the Slurm jobs (memory of dask.jobqueue)")
        # By job name, which a job keeps when it is resubmitted: how often in a row it was tried, and how often it died.
        self.tries: dict[str, int] = {}
        self.deaths: dict[str, int] = {}
        self.refused_since: float | None = None
        self.next_look = 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        workers = list(self.cluster.scheduler.workers.values())
        self.restarts.count({worker.server_id for worker in workers}, done)
        absent = self._absent({str(worker.name) for worker in workers})
        working = len(absent) < len(self.cluster.workers)
        if working:
            self.reminder.reset()
        alive = {name: job for name, job in absent.items() if job.job_id and job.ended is None}
        if alive and now >= self.next_look:
            self.next_look = now + (_LOOK_WHILE_WORKING if working else _LOOK)
            waiting = self._look(alive)
            alive = {name: job for name, job in alive.items() if job.ended is None}
            if alive and not working:
                self.reminder.say(waiting)
        if working or alive:
            self.refused_since = None
        elif len(absent) == self.jobs:
            self._give_up(absent)
        else:
            self.reminder.say("sbatch has not answered yet")
        self._try_again(absent)

    def _absent(self, workers: set[str]) -> dict[str, Any]:
        """Return the jobs without workers, and reset the counts of the others."""
        # If a job has several processes, a number follows the name of the job.
        there = workers | {name.rpartition("-")[0] for name in workers}
        absent = {}
        for name, job in list(self.cluster.workers.items()):
            if name in there:
                job.worked = True
                self.tries.pop(name, None)
                self.deaths.pop(name, None)
            else:
                absent[name] = job
        return absent

    def _look(self, alive: Mapping[str, Any]) -> str:
        """Ask the queue for jobs, mark those that have ended, and return the states of the others."""
        found, trouble = _queue([job.job_id for job in alive.values()])
        if trouble:
            return f"{len(alive)} Slurm jobs of workers were accepted, but squeue does not report them ({trouble})"
        for name, job in alive.items():
            state, _ = found.get(job.job_id, ("", ""))
            if state and state not in _OVER:
                continue
            job.ended = state or "no longer in the queue"
            job.seen = time.monotonic()
            if not job.worked:
                self.deaths[name] = self.deaths.get(name, 0) + 1
            log.warning(
                "Slurm job %s of Dask workers has ended (%s)%s; another takes its place",
                job.job_id,
                job.ended,
                "" if job.worked else " before one of them reached the scheduler",
            )
        of_state = {job.job_id: " ".join(found[job.job_id]).strip() for job in alive.values() if job.ended is None}
        return "Slurm jobs of workers: " + ", ".join(f"{job} {state}" for job, state in of_state.items())

    def _give_up(self, absent: Mapping[str, Any]) -> None:
        """Raise SetupError if no job is left and others would fail too."""
        now = time.monotonic()
        died = [job for name, job in absent.items() if job.ended and self.deaths.get(name, 0) >= STARTS]
        if died:
            raise SetupError(
                f"the Slurm jobs of Dask workers ended {STARTS} times in a row before a worker reached the scheduler; "
                f"the last was job {died[0].job_id} ({died[0].ended}){self._output(died[0].job_id)}; see the keys of "
                "dask.jobqueue (python, interface, memory, job_script_prologue)"
            )
        refused = [job for job in absent.values() if job.refusal]
        if not refused:
            return
        self.refused_since = self.refused_since or min(job.seen for job in refused)
        if now - self.refused_since >= _PATIENCE:
            raise SetupError(
                f"Slurm has refused the jobs of Dask workers for {now - self.refused_since:.0f} s; sbatch said: "
                f"{refused[-1].refusal}; see the keys of dask.jobqueue"
            )

    def _output(self, job_id: str) -> str:
        """Return the path and the last line of a job's output, as the end of a clause."""
        for path in sorted(self.logs.glob(f"*-{job_id}.*")):
            lines = path.read_text(errors="replace").split("\n") if path.is_file() else []
            if said := [line.strip() for line in lines if line.strip()]:
                return f", whose output {path} ends with: {said[-1]}"
        return f" and left no output in {self.logs.resolve()}"

    def _try_again(self, absent: Mapping[str, Any]) -> None:
        """Resubmit the jobs that were refused or have ended, after a growing delay."""
        now = time.monotonic()
        for name, job in absent.items():
            if not (job.refusal or job.ended) or now - job.seen < min(2.0 ** self.tries.get(name, 0), _LONGEST_DELAY):
                continue
            if job.refusal:
                log.warning("sbatch refused a job of Dask workers; trying again (%s)", job.refusal)
            self.tries[name] = self.tries.get(name, 0) + 1
            job.status = Status.closed
            self.cluster.workers.pop(name, None)
        if len(self.cluster.workers) < self.jobs:
            self.cluster.scale(jobs=self.jobs)


def _queue(jobs: list[str]) -> tuple[dict[str, tuple[str, str]], str]:
    """Return state and reason of the jobs that Slurm knows, and the error if it gave no answer."""
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(jobs)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, one_line(error)
    # The answer of squeue about a single job that Slurm has forgotten; among several it omits such jobs.
    if done.returncode and "Invalid job id" not in done.stderr:
        return {}, one_line(done.stderr)
    rows = [line.strip().split("|") for line in done.stdout.splitlines()]
    # None as text means that there is no reason.
    return {row[0]: (row[1], "" if row[2] == "None" else f"({row[2]})") for row in rows if len(row) == 3}, ""
