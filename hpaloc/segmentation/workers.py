"""What the Dask workers of every kind share: how they are looked after, and when they are given up."""

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import dask
import distributed  # noqa: F401 - its defaults have to be there first: where they come later, the end of set drops them

from hpaloc.segmentation.weights import SetupError

log = logging.getLogger("hpaloc")

# How often a cluster is tried to be started, and how often in a row a Slurm job of workers may end before one has
# reached the scheduler.
STARTS = 3

# Seconds that a scheduler, or squeue, may take to answer.
ANSWER = 40.0

# How often a field may take its worker down with it before it is set aside.
_DEATHS_ALLOWED = 1

# How many workers may be started for each that there is to be, and one more, while no field is done.
_RESTARTS = 5

# Seconds without a worker that are nothing to speak of, and seconds until the log says again that nothing has changed.
QUIET = 10.0
_REMIND = 180.0


@dataclass
class Cluster:
    """A client, how many fields to keep in flight, and what looks after the workers while fields are out.

    look takes the number of fields done and is called every ``seconds``; it raises SetupError where no worker can be
    had that works.
    """

    client: Any
    in_flight: Callable[[], int]
    look: Callable[[int], None]
    seconds: float = 1.0
    _next: float = 0.0

    def watch(self, done: int) -> None:
        """Look after the workers when it is time again; to be called often, with the number of fields done."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.seconds
            self.look(done)


def settings_of_workers(lost_worker_timeout: str) -> AbstractContextManager[Any]:
    """Set Dask's settings for workers of a job, within a ``with``.

    lost_worker_timeout: after how long a cluster gives up a worker that was lost.
    """
    return dask.config.set(
        {
            "distributed.deploy.lost-worker-timeout": lost_worker_timeout,
            "distributed.scheduler.allowed-failures": _DEATHS_ALLOWED,
            # Tasks return a few numbers: there is nothing to spill, and a paused worker would only wait for itself.
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": 0.95,
        }
    )


def one_line(error: BaseException | str) -> str:
    """Return what an error says, or the last thing that it was caused by, on one line."""
    while isinstance(error, BaseException) and error.__cause__:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


class Reminder:
    """Says in the log what a job without workers waits for: when that changes, and every few minutes."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Note that there are workers."""
        self.said = ""
        self.since = self.last = time.monotonic()

    def say(self, text: str) -> None:
        """Say what is waited for, unless that was said or workers were there a moment ago."""
        now = time.monotonic()
        if now - self.since >= QUIET and (text != self.said or now - self.last >= _REMIND):
            log.warning("no Dask worker for %.0f s: %s", now - self.since, text)
            self.said, self.last = text, now


class Restarts:
    """Knows when workers only end and are started anew, as where their memory does not hold their libraries."""

    def __init__(self, n_workers: int, whose: str) -> None:
        self.most = _RESTARTS * (n_workers + 1)
        self.whose = whose
        self.done = 0
        self.started: set[object] = set()

    def count(self, workers: Iterable[object], done: int) -> None:
        """Raise SetupError when too many workers were there since a field was done."""
        if done != self.done:
            self.done = done
            self.started.clear()
        self.started.update(workers)
        if len(self.started) >= self.most:
            raise SetupError(
                f"{self.whose} end again and again, {len(self.started)} since the last field was done; what they said "
                "stands above in this log or in theirs (is their memory too small?)"
            )
