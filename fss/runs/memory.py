"""How the process treats memory that is freed and soon wanted again."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's numbers, malloc.h


def keep_freed_memory() -> None:
    """Keep glibc from handing large blocks back: fetching them anew, page by page, can outlast their use.

    Holds for the whole process, so only a command that does nothing else may ask for it. Elsewhere a no-op.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
