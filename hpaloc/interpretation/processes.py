"""Work side by side in processes."""

from collections.abc import Iterable, Iterator
from typing import Any

from joblib import Parallel, parallel_config


def in_processes(jobs: Iterable[Any], processes: int) -> Iterator[Any]:
    """Yield what each of joblib's delayed calls returns, in their order, ``processes`` of them at a time.

    Each process computes on one thread: a workflow's job is told its number of threads, and every process would start
    as many.
    """
    with parallel_config(backend="loky", inner_max_num_threads=1):
        yield from Parallel(processes, return_as="generator")(jobs)
