"""Dask workers that are Slurm jobs, started by dask-jobqueue."""

import asyncio
import logging
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import dask
from dask_jobqueue import SLURMCluster, slurm
from distributed import Client
from distributed.deploy.spec import ProcessInterface

from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.slurm_watch import SlurmWatch
from hpaloc.segmentation.workers import Cluster, one_line, settings_of_workers

log = logging.getLogger("hpaloc")

# Seconds that sbatch may take: it retries a busy controller several times.
_SUBMISSION = 120.0

# The shell that starts a worker does not have the Dask settings of this process.
_PROLOGUE = [f"export DASK_DISTRIBUTED__WORKER__MEMORY__{name}=False" for name in ("TARGET", "SPILL", "PAUSE")]
_PROLOGUE += ["export DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE=0.95"]


@contextmanager
def start_slurm_workers(jobqueue: Mapping[str, Any]) -> Iterator[Cluster]:
    """Yield workers that are Slurm jobs; a job that ends is replaced.

    jobqueue: the section ``dask.jobqueue`` of the configuration
    Raises SetupError naming what is wrong with it, or with Slurm.
    """
    if shutil.which("sbatch") is None:
        raise SetupError(
            f"dask.jobqueue asks for Slurm jobs, but {socket.gethostname()} has no sbatch on its PATH; "
            "set dask.jobqueue to null, or run where jobs may be submitted"
        )
    options = {key: value for key, value in jobqueue.items() if value is not None}
    section = options.get("config_name", "slurm")
    of_section = dask.config.get("jobqueue").get(section)
    if not isinstance(of_section, Mapping):
        raise SetupError(
            f"dask.jobqueue: config_name must be a section of jobqueue in Dask's own settings, not {section!r}"
        )
    jobs = options.pop("jobs", 1)
    # One field per process, as in a LocalCluster: a killed worker, or a lack of memory, then concerns one field.
    own = {key.replace("-", "_"): value for key, value in of_section.items()} | options
    processes = own.get("processes") or own.get("cores") or 1
    of_scheduler = {key: value for key, value in (own.get("scheduler_options") or {}).items() if value is not None}
    options |= {
        "processes": processes,
        "scheduler_options": {"dashboard_address": None, **of_scheduler},
        "security": options.get("security") or None,
    }
    # The watch replaces jobs; the cluster would cancel the new job of a name for the lost worker of the old one.
    with settings_of_workers(lost_worker_timeout="365 days"):
        try:
            cluster = SLURMCluster(job_cls=_SLURMJob, **options)  # type: ignore[arg-type]
        except Exception as error:
            # Settings that the schema cannot check, such as an absent network interface, may raise any error.
            raise SetupError(
                "dask.jobqueue: SLURMCluster of dask-jobqueue cannot work with these settings "
                f"({type(error).__name__}: {one_line(error)})"
            ) from error
        with cluster, Client(cluster, set_as_default=False) as client:
            log.info("segmenting on %d Slurm jobs of %d Dask workers", jobs, processes)
            cluster.scale(jobs=jobs)
            watch = SlurmWatch(cluster, jobs, processes, own.get("log_directory"))
            yield Cluster(client, lambda: jobs * processes, watch)


class _SLURMJob(slurm.SLURMJob):  # type: ignore[misc]
    """A Slurm job of dask-jobqueue that keeps the message of sbatch if it was refused."""

    # Why sbatch refused the job, its final state, when either was seen, and whether it had a worker.
    refusal: str | None = None
    ended: str | None = None
    seen = 0.0
    worked = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._job_script_prologue = [*_PROLOGUE, *self._job_script_prologue]

    async def start(self) -> None:
        try:
            await super().start()
        except (RuntimeError, ValueError, OSError) as error:
            # Raised, it would become a traceback in the log, and the job would never be tried again.
            said = str(error).partition("stderr:\n")[2].strip() or str(error)
            self.refusal = " ".join(said.split())
            self.seen = time.monotonic()
            await ProcessInterface.start(self)

    async def _submit_job(self, script_filename: str) -> Any:
        try:
            return await asyncio.wait_for(super()._submit_job(script_filename), _SUBMISSION)
        except TimeoutError as error:
            raise RuntimeError(f"no answer in {_SUBMISSION:.0f} s") from error

    async def close(self) -> None:
        with suppress(OSError):
            await super().close()
        await ProcessInterface.close(self)
