"""Landlock: a process gives away what it may open, and never gets it back. Linux 5.13 and newer.

Law: thin, and only ever less. Where the kernel has none of it, `shut` says so and the other bounds hold alone; where it
has some, an error is raised and nothing is answered.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sysconfig
from collections.abc import Iterable
from typing import Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same system calls on every architecture
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_NO_NEW_PRIVILEGES: Final = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# version -> the accesses to files that it knows: each handled one is refused unless a rule allows it
_FILES: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP: Final = 0b11  # bind and connect, from version 4 on
_OTHERS: Final = 0b11  # sockets without a path, and signals, of who is not shut in: from version 6 on
# the interpreter's own code, what the C library and DuckDB look up, and randomness: secret to nobody
_CODE: Final = ("stdlib", "platstdlib", "purelib", "platlib")
_SYSTEM: Final = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/urandom"),
    *("/proc/self/cgroup", "/proc/self/mountinfo", "/sys/fs/cgroup"),  # how much memory there is
)

_libc: Final = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Which version of Landlock the kernel has; 0: none."""
    found: int = _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))
    return max(0, found)


def shut(files: Iterable[str]) -> bool:
    """From now on this thread, and whatever it starts, reads `files` and code, writes none, and reaches no network.

    Whether the kernel can do that; raises OSError where it fails.
    """
    known = version()
    if not known:
        return False
    handled = max(bits for since, bits in _FILES.items() if since <= known)
    rules = struct.pack("=QQQ", handled, _TCP if known >= 4 else 0, _OTHERS if known >= 6 else 0)
    size = 8 if known < 4 else 16 if known < 6 else 24
    ruleset = _checked(_libc.syscall(_CREATE, rules, ctypes.c_size_t(size), ctypes.c_uint32(0)))
    try:
        for path in {*files, *(sysconfig.get_path(name) for name in _CODE), *_SYSTEM}:
            _allow_reading(ruleset, path)
        _checked(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _checked(_libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)))
    finally:
        os.close(ruleset)
    return True


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        allowed = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)  # noqa: PTH112 - it is opened already
        rule = struct.pack("=Qi", allowed, opened)
        _checked(_libc.syscall(_ADD, ruleset, ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)))
    finally:
        os.close(opened)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result
