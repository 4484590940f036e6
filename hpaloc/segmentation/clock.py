"""The durations of the steps of a segmentation, measured where they run and collected by a caller."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_spent: ContextVar[dict[str, float] | None] = ContextVar("spent", default=None)


@contextmanager
def clock() -> Iterator[dict[str, float]]:
    """Collect the seconds of each ``step`` in this block and in what it calls: {name of the step: seconds}."""
    spent: dict[str, float] = {}
    token = _spent.set(spent)
    try:
        yield spent
    finally:
        _spent.reset(token)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Add the duration of this block to the step ``name`` of the surrounding ``clock``, if there is one."""
    started = time.perf_counter()
    yield
    spent = _spent.get()
    if spent is not None:
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - started
