"""Freed memory that stays with the process."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys, threading
import numpy as np
from hpaloc.allocation import keep_freed_memory

def allocate():
    for _ in range(50):
        np.ones(10_000_000, np.uint8)

if sys.argv[1] == "kept":
    keep_freed_memory()
# A worker's tasks run in a thread. The first call may ask for memory; only the second is counted.
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_page_faults(which):
    """Return the page faults of 50 arrays of 10 MB, one after the other, with the settings of Dask's workers."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", FAULTS, which], env=environment, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="not the C library of GNU")
def test_the_memory_of_freed_arrays_is_not_asked_for_again():
    assert count_page_faults("kept") < 0.1 * count_page_faults("returned")
