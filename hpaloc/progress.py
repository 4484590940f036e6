"""Logging of a job and progress of its long steps: bars for a person at a terminal, plain log lines otherwise."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from types import TracebackType
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")

log = logging.getLogger("hpaloc")

# Set by workflow/plugins, whose line a bar would overwrite.
RUN_LINE = "HPALOC_RUN_LINE"
# The stream that a person may be watching; log_to redirects a job's own stderr to its log file.
_screen: TextIO = sys.stderr


def log_to(path: str | os.PathLike[str]) -> None:
    """Send everything that this process writes (Python, C libraries, tracebacks) to the log file ``path``.

    An error of hpaloc's own classes ends the process with only its sentence, any other with its traceback. Progress
    bars still reach the terminal from which the process was started, if there is one.
    """
    global _screen
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # The descriptors are redirected, not only sys.stderr, because TensorFlow and image libraries write to them.
    _screen = os.fdopen(os.dup(2), "w", buffering=1)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, force=True, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.captureWarnings(True)
    sys.excepthook = _last_words


def _last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    # Errors of hpaloc's own classes name the file, the row or the key; a traceback would hide it.
    if kind.__module__.partition(".")[0] == "hpaloc":
        log.error("%s", error)
    else:
        sys.__excepthook__(kind, error, trace)


def track(iterable: Iterable[T], total: int | None = None, what: str = "fields") -> Iterator[T]:
    """Yield the items of ``iterable`` and show how many are done.

    At a terminal this is a bar, otherwise, or where one line shows the whole run (HPALOC_RUN_LINE), a log line about
    every ten seconds and at the end.

    total: the number of items, ``len(iterable)`` by default if it has one
    what: the name of the items
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if _screen.isatty() and RUN_LINE not in os.environ:
        yield from tqdm(iterable, total=total, desc=what, file=_screen, leave=False, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= 10 and done != total:
            last = now
            log.info("%s: %d%s done, %.1f/s", what, done, f" of {total}" if total else "", done / (now - start))
    seconds = max(time.monotonic() - start, 1e-9)
    log.info("%s: %d done in %.1f s (%.1f/s)", what, done, seconds, done / seconds)
