"""Memory that is freed and soon wanted again: a process that reads images should keep it."""

from __future__ import annotations

import contextlib
import ctypes

#: Options of glibc's mallopt (malloc.h), and bytes: smaller arrays come from memory that was freed before, of which so
#: much may be kept.
KEPT = {-3: 256_000_000, -1: 1_000_000_000}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD


def keep_freed_memory() -> None:
    """Have the C library keep the memory of arrays for the next ones, in this process and its forks.

    Otherwise every image gets pages that the system has to clear first, which takes longer than decoding it. C
    libraries other than glibc are left as they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in KEPT.items():
            mallopt(option, value)
