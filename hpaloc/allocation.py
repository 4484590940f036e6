"""The memory that an image leaves behind is kept for the next one."""

import ctypes
import functools

# Of <malloc.h>: the names of two settings of the GNU C library's allocator.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Bytes. Larger arrays go back to the system at once, the most that the library allows; what is free beyond the second
# goes back too.
_LARGEST_KEPT, _MOST_KEPT = 32 * 2**20, 2**30


@functools.cache
def keep_freed_memory() -> None:
    """Keep the memory of freed arrays in this process for its next arrays, where the C library is GNU's.

    By default much of it goes back to the system, which then clears every page of the next array. Dask's workers give
    back all of it (MALLOC_TRIM_THRESHOLD_), which took 40 % of the time of a segmentation.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    set_option(_MMAP_THRESHOLD, _LARGEST_KEPT)
    set_option(_TRIM_THRESHOLD, _MOST_KEPT)
