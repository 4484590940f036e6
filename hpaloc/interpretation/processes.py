"""Parallel work in processes."""

from collections.abc import Iterable, Iterator
from typing import Any

from joblib import Parallel, parallel_config


def in_processes(jobs: Iterable[Any], processes: int) -> Iterator[Any]:
    """Yield the results of joblib's delayed calls, in their order, ``processes`` calls at a time.

    Each process has one thread; otherwise every process would start as many threads as the job has.
    """
    with parallel_config(backend="loky", inner_max_num_threads=1):
        yield from Parallel(processes, return_as="generator")(jobs)
