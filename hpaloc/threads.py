"""Calls in threads, whose results come in order without all of them being in memory."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

Result = TypeVar("Result")


def in_order(
    pool: ThreadPoolExecutor, call: Callable[..., Result], jobs: Iterable[tuple[Any, ...]], ahead: int
) -> Iterator[Result]:
    """Yield the results of a call for the arguments of each job in their order, with at most ``ahead`` not yielded."""
    waiting = iter(jobs)
    running: list[Future[Result]] = [pool.submit(call, *job) for job in islice(waiting, ahead)]
    while running:
        yield running.pop(0).result()
        running += [pool.submit(call, *job) for job in islice(waiting, 1)]
