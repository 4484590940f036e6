"""The choice of a segment job's Dask workers: its own processes, Slurm jobs, or those of a running scheduler."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.joined_workers import join_workers
from hpaloc.segmentation.local_workers import start_local_workers
from hpaloc.segmentation.workers import Cluster


@dataclass(frozen=True)
class DaskSettings:
    """The section ``dask`` of the configuration; its schema describes each key."""

    scheduler_address: str | None = None
    jobqueue: Mapping[str, Any] | None = None
    chunk_above: int | None = 6144


def start_cluster(settings: DaskSettings, n_workers: int, worker_mb: int) -> AbstractContextManager[Cluster]:
    """Return a context with the workers that the settings name; it ends those it started.

    n_workers: number of the job's own workers, if the settings name no others
    worker_mb: MB, the memory of each
    Raises SetupError naming the key, the folder or the command, here or on entry, if there can be no workers.
    """
    if settings.scheduler_address:
        return join_workers(settings.scheduler_address)
    if not settings.jobqueue:
        return start_local_workers(n_workers, worker_mb)
    try:
        from hpaloc.segmentation.slurm_workers import start_slurm_workers
    except ImportError as error:
        raise SetupError(
            f"dask.jobqueue needs the package dask-jobqueue, which the environment of the job lacks ({error})"
        ) from error
    return start_slurm_workers(settings.jobqueue)
