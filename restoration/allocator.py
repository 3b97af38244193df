"""Memory that a network frees is kept for its next layer. Imports nothing but the standard library."""

import ctypes
import functools
import os

# Names of mallopt's parameters in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@functools.cache
def _libc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@functools.cache
def keep_freed_memory() -> bool:
    """Let the main thread reuse large blocks that it freed, in place of asking the system anew.

    False without glibc, and where the environment has settings of its own.

    glibc maps every block above 32 MiB and unmaps it when freed, and the system clears each of its pages again: for a
    tile of 768 pixels that took 40 % of the processor time of a network call. Blocks of up to 2 GiB at the end of the
    heap stay now; `return_freed_memory` gives them back. Other threads map blocks above 64 MiB as before. No number
    changes by it.
    """
    library = None if any(name.startswith("MALLOC_") for name in os.environ) else _libc()
    return bool(library is not None and library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> None:
    """Give unused memory back to the system, such as after a job of a server."""
    if (library := _libc()) is not None:
        library.malloc_trim(0)
