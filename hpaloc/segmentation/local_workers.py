"""Dask workers that are processes of the segment job itself."""

import logging
import multiprocessing
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster
from distributed.core import Status

from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.workers import STARTS, Cluster, Restarts, one_line, settings_of_workers

log = logging.getLogger("hpaloc")


@contextmanager
def start_local_workers(n_workers: int, worker_mb: int) -> Iterator[Cluster]:
    """Yield workers on this machine, each a process of one thread.

    worker_mb: MB, the memory of each
    Raises SetupError if they cannot be started.
    """
    logging.getLogger("distributed").setLevel(logging.WARNING)
    _check_semaphores()
    with (
        # A nanny restarts its worker, however long that takes on a busy machine; by default a cluster gives the worker
        # up after 15 s, and would then wait forever without workers.
        settings_of_workers(lost_worker_timeout="1 hour"),
        _scratch() as scratch,
        _start_cluster(n_workers, worker_mb, scratch) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        log.info("segmenting with %d workers of %d MB", n_workers, worker_mb)
        yield Cluster(client, lambda: n_workers, _Watch(cluster, n_workers, worker_mb))


def _check_semaphores() -> None:
    """Raise SetupError if this process cannot make a semaphore, without which no worker starts."""
    try:
        multiprocessing.get_context("spawn").Semaphore()
    except OSError as error:
        raise SetupError(
            f"no Dask worker can be started: no semaphore can be made in /dev/shm ({error.strerror or error}); "
            "on the node of the job it must exist, be writable and have space"
        ) from error


@contextmanager
def _scratch() -> Iterator[str]:
    """Yield a new folder for the files of workers, deleted at the end."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="hpaloc-dask-", ignore_cleanup_errors=True)
        # A full file system may still accept a folder.
        Path(folder.name, "written").write_bytes(bytes(4096))
    except OSError as error:
        raise SetupError(
            f"no Dask worker can be started: its files cannot be written to the temporary folder ({one_line(error)}); "
            "set TMPDIR to a writable folder with space"
        ) from error
    with folder as name:
        yield name


def _start_cluster(n_workers: int, worker_mb: int, scratch: str) -> LocalCluster:
    for attempt in range(1, STARTS + 1):
        try:
            return _local_cluster(n_workers, worker_mb, scratch)
        except (RuntimeError, OSError) as error:
            # A worker that is killed before it has started ends the cluster too.
            if attempt == STARTS:
                raise SetupError(
                    f"the Dask workers of this job ({n_workers} of {worker_mb} MB) could not be started, "
                    f"{STARTS} times in a row ({one_line(error)})"
                ) from error
            log.warning("the workers could not be started (%s); trying again", one_line(error))
    raise AssertionError


def _local_cluster(n_workers: int, worker_mb: int, scratch: str) -> LocalCluster:
    # The error raised afterwards says in a sentence what Dask's tracebacks say.
    logging.disable(logging.ERROR)
    try:
        return LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            local_directory=scratch,
            memory_limit=f"{worker_mb}MB",
            env={"DASK_LOGGING__DISTRIBUTED": "warning"},
        )
    finally:
        logging.disable(logging.NOTSET)


class _Watch:
    """Replaces workers whose nanny has given up, as it does if the process dies while it is being restarted."""

    def __init__(self, cluster: Any, n_workers: int, worker_mb: int) -> None:
        self.cluster = cluster
        self.n_workers = n_workers
        self.restarts = Restarts(n_workers, f"the Dask workers of this job ({n_workers} of {worker_mb} MB, mem_mb)")

    def __call__(self, done: int) -> None:
        nannies = dict(self.cluster.workers)
        lost = [name for name, nanny in nannies.items() if nanny.status in (Status.closed, Status.failed)]
        # A nanny without a process has no process id; each counts once.
        self.restarts.count({nanny.pid or nanny for nanny in nannies.values()}, done)
        for name in lost:
            log.warning("worker %s could not be restarted; another takes its place", name)
            self.cluster.workers.pop(name, None)
        if lost:
            self.cluster.scale(self.n_workers)
