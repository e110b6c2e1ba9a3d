"""Keep a small process small: what starting needed is given back to the system once things are quiet.

Law: nothing that is given back can be lost. Freed heap is empty, and code is never written to: what is used again
comes back from the page cache, without the disk.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

MAPS: Final = Path("/proc/self/maps")
_MADV_DONTNEED: Final = 4  # madvise(2)
# proc_pid_maps(5): readable and executable, never writable, private, of a file
_CODE: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ [1-9][0-9]* +/", re.MULTILINE)


def give_back() -> None:
    """Free what can be freed (Linux with glibc); takes a few milliseconds.

    Two kinds: heap that Python has freed (malloc_trim(3)), and the pages of programs and libraries that were mapped
    while they started (the kernel maps sixteen for each one touched), of which an idle agent runs few.
    """
    gc.collect()
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # another C library than glibc, or no /proc
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        for start, end in code(MAPS.read_text()):
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def code(maps: str) -> Iterator[tuple[int, int]]:
    """The address ranges, start and end, that hold the code of files, from the text of /proc/PID/maps."""
    for found in _CODE.finditer(maps):
        yield int(found[1], 16), int(found[2], 16)
