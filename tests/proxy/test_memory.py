"""What is given back once things are quiet, and that nothing breaks by it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.memory import code

MAPS = """\
00400000-00401000 r--p 00000000 08:01 1001                               /usr/bin/program
00401000-00402000 r-xp 00001000 08:01 1001                               /usr/bin/program
00403000-00404000 rw-p 00003000 08:01 1001                               /usr/bin/program
00500000-00501000 rwxp 00000000 08:01 1002                               /usr/lib/written.so
00600000-00601000 r-xs 00000000 08:01 1003                               /dev/shm/shared
00700000-00701000 r-xp 00000000 00:00 0 
01000000-01100000 rw-p 00000000 00:00 0                                  [heap]
7f0000000000-7f0000002000 r-xp 00000000 08:01 1004                       /usr/lib/a library.so (deleted)
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
"""  # noqa: W291 - as the kernel writes it

PROGRAM = """
import hashlib, ssl, sys
from proxy.memory import give_back

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssFile"))

before = resident()
give_back()
after = resident()
ssl.create_default_context()
print(before, after, hashlib.sha256(b"still here").hexdigest()[:8])
"""


def test_only_code_of_files_that_nobody_writes_is_given_back() -> None:
    assert list(code(MAPS)) == [(0x401000, 0x402000), (0x7F0000000000, 0x7F0000002000)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")
def test_a_program_is_smaller_afterwards_and_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    before, after, digest = done.stdout.split()
    assert int(after) < int(before) * 0.8
    assert digest == "0f6203d2"
