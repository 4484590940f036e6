"""What all kinds of Dask workers share: their settings, their supervision, and when they are given up."""

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import dask
import distributed  # noqa: F401 - first, since the end of dask.config.set drops defaults that are loaded within it

from hpaloc.segmentation.errors import SetupError

log = logging.getLogger("hpaloc")

# How often starting a cluster is tried, and how often in a row a Slurm job of workers may end before one of them has
# reached the scheduler.
STARTS = 3

# Seconds that a scheduler, or squeue, may take to answer.
ANSWER = 40.0

# How often a field may kill its worker before it is set aside.
_DEATHS_ALLOWED = 1

# How many workers may be started per intended worker (plus one) while no field is done.
_RESTARTS = 5

# Seconds without a worker that are not reported, and seconds until an unchanged report is repeated.
QUIET = 10.0
_REMIND = 180.0


@dataclass
class Cluster:
    """A client, the number of fields to keep in flight, and the supervision of its workers.

    look: called every ``seconds`` with the number of fields done; raises SetupError if there can be no working worker
    """

    client: Any
    in_flight: Callable[[], int]
    look: Callable[[int], None]
    seconds: float = 1.0
    _next: float = 0.0

    def watch(self, done: int) -> None:
        """Call ``look`` if ``seconds`` have passed; to be called often, with the number of fields done."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.seconds
            self.look(done)


def settings_of_workers(lost_worker_timeout: str) -> AbstractContextManager[Any]:
    """Return a context with Dask's settings for the workers of a job.

    lost_worker_timeout: the time after which a cluster gives up a lost worker
    """
    return dask.config.set(
        {
            "distributed.deploy.lost-worker-timeout": lost_worker_timeout,
            "distributed.scheduler.allowed-failures": _DEATHS_ALLOWED,
            # Tasks return a few numbers: there is nothing to spill, and a paused worker would wait for itself.
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": 0.95,
        }
    )


def one_line(error: BaseException | str) -> str:
    """Return the message of an error, or of its first cause, on one line."""
    while isinstance(error, BaseException) and error.__cause__:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


class Reminder:
    """Logs what a job without workers waits for, when that changes and every few minutes."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Note that there are workers."""
        self.said = ""
        self.since = self.last = time.monotonic()

    def say(self, text: str) -> None:
        """Log what is waited for, unless that was just logged or there were workers a moment ago."""
        now = time.monotonic()
        if now - self.since >= QUIET and (text != self.said or now - self.last >= _REMIND):
            log.warning("no Dask worker for %.0f s: %s", now - self.since, text)
            self.said, self.last = text, now


class Restarts:
    """Detects workers that only end and restart, for example if their libraries do not fit in their memory."""

    def __init__(self, n_workers: int, whose: str) -> None:
        self.most = _RESTARTS * (n_workers + 1)
        self.whose = whose
        self.done = 0
        self.started: set[object] = set()

    def count(self, workers: Iterable[object], done: int) -> None:
        """Raise SetupError if there were too many workers since the last field was done."""
        if done != self.done:
            self.done = done
            self.started.clear()
        self.started.update(workers)
        if len(self.started) >= self.most:
            raise SetupError(
                f"{self.whose} end again and again, {len(self.started)} since the last field was done; see the log "
                "above or their own logs (is their memory too small?)"
            )
