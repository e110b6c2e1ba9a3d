"""What the journal asks of the file system, as one port.

Law: thin; every method is one or two system calls and raises OSError. Files are 0600, folders 0700, descriptors are
not inherited.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable
from functools import lru_cache
from mmap import MAP_SHARED, PAGESIZE, PROT_READ, PROT_WRITE, mmap
from pathlib import Path
from typing import Final

MAPPED: Final = frozenset({"ext4", "xfs", "tmpfs"})  # file systems that have a block for what was written once
MAP_LOCKED: Final = 0x2000  # of Linux, on the machines that Envoy is built for


class Disk:
    """The real file system."""

    def make_folder(self, path: Path) -> None:
        """Make the folder, for the owner only, unless it is there."""
        path.mkdir(mode=0o700, exist_ok=True)

    def open(self, path: Path) -> int:
        """Open a file for appending, made for the owner only if it is not there; never through a link."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(path, flags, 0o600)

    def write_once(self, path: Path, make: Callable[[], str]) -> str:
        """Give the file the text that `make` makes, unless it is there; what it holds then, whoever came first."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            return path.read_text("utf-8")
        draft.unlink(missing_ok=True)  # of one with our number, as in a container, that was killed here
        fd = self.open(draft)
        try:
            os.write(fd, make().encode())
            os.fsync(fd)  # a name that a power cut left without its text would end every start
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            os.close(fd)
            draft.unlink()
        return path.read_text("utf-8")

    def check_private(self, path: Path) -> None:
        """Raise PermissionError for a folder that is not the owner's alone, and ours."""
        status = path.stat(follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "not a folder of this user alone", str(path))

    def lock(self, fd: int) -> bool:
        """Lock the open file for this opener alone; whether that worked."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def size(self, fd: int) -> int:
        """The bytes of an open file."""
        return os.fstat(fd).st_size

    def write(self, fd: int, data: bytes) -> int:
        """Append once; how many bytes were taken."""
        return os.write(fd, data)

    def open_inside(self, path: Path) -> int:
        """Open a file that is there for reading and writing at any place; never through a link."""
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write_at(self, fd: int, data: bytes, offset: int) -> int:
        """Write once at `offset`, of a file that was opened inside; how many bytes were taken."""
        return os.pwrite(fd, data, offset)

    def fill(self, fd: int, byte: bytes, start: int, end: int) -> None:
        """Have nothing but `byte` from `start` to `end`, written and not only reserved."""
        while start < end:
            taken = self.write_at(fd, byte * (end - start), start)
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            start += taken

    def map(self, fd: int, start: int, end: int) -> tuple[int, mmap]:
        """What is written from `start` to `end` as memory, kept there; and where that begins, at or before `start`."""
        begin = start - start % PAGESIZE
        try:
            return begin, mmap(fd, end - begin, MAP_SHARED | MAP_LOCKED, PROT_READ | PROT_WRITE, offset=begin)
        except ValueError as error:  # it is shorter than what was written: somebody cut it
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error

    def can_map(self, folder: Path) -> bool:
        """Whether to write into a mapped file of that folder never fails, once it was written."""
        return _file_system(folder.stat().st_dev) in MAPPED

    def truncate(self, fd: int, size: int) -> None:
        """Cut to `size` bytes."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Have the data on the medium."""
        os.fdatasync(fd)

    def sync_folder(self, path: Path) -> None:
        """Have the names of a folder on the medium."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        """Close."""
        os.close(fd)

    def linked(self, fd: int) -> bool:
        """Whether the open file still has a name."""
        return os.fstat(fd).st_nlink > 0

    def modified(self, path: Path) -> float:
        """When the file was last written, in seconds since the epoch."""
        return path.stat().st_mtime

    def remove(self, path: Path) -> None:
        """Remove the file."""
        path.unlink()

    def replace(self, path: Path, content: bytes) -> None:
        """Give the file other content, whole or not at all, and have it on the medium."""
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        fd = self.open(draft)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(path)
        self.sync_folder(path.parent)

    def read_end(self, path: Path, length: int) -> tuple[int, bytes]:
        """The size of a file and its last bytes, at most `length`."""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - length))
            return size, file.read(length)

    def read_start(self, path: Path, length: int) -> bytes:
        """The first bytes of a file, at most `length`."""
        with path.open("rb") as file:
            return file.read(length)


@lru_cache(maxsize=16)
def _file_system(device: int) -> str:
    """The kind of the file system of a device, as Linux tells it; "" where it does not."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError), Path("/proc/self/mountinfo").open(encoding="utf-8", errors="replace") as mounts:
        for mount in mounts:
            fields = mount.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1]
    return ""
