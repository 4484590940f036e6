"""The choice of a segment job's Dask workers: its own processes, Slurm jobs, or those of a running scheduler."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from hpaloc.segmentation.errors import SetupError
from hpaloc.segmentation.joined_workers import join_workers
from hpaloc.segmentation.local_workers import start_local_workers
from hpaloc.segmentation.workers import Cluster


def start_cluster(dask_settings: Mapping[str, Any], n_workers: int, worker_mb: int) -> AbstractContextManager[Cluster]:
    """Return a context with the workers that the section ``dask`` of the configuration names; it ends those it started.

    n_workers: number of the job's own workers, if the section names no others
    worker_mb: MB, the memory of each
    Raises SetupError naming the key, the folder or the command, here or on entry, if there can be no workers.
    """
    if dask_settings.get("scheduler_address"):
        return join_workers(dask_settings["scheduler_address"])
    if not dask_settings.get("jobqueue"):
        return start_local_workers(n_workers, worker_mb)
    try:
        from hpaloc.segmentation.slurm_workers import start_slurm_workers
    except ImportError as error:
        raise SetupError(
            f"dask.jobqueue needs the package dask-jobqueue, which the environment of the job lacks ({error})"
        ) from error
    return start_slurm_workers(dask_settings["jobqueue"])
