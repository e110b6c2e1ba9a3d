"""Keep a small process small: what starting needed is given back to the system once things are quiet."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress


def give_back() -> None:
    """Free what can be freed (glibc: malloc_trim(3)); takes a few milliseconds."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
