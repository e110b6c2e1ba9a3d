"""Run by path before Envoy, in Envoy's own process: ask the kernel to end it with the agent, then become Envoy.

Law: standard library only, and no thread. An agent that is killed leaves no Envoy behind (Linux: PR_SET_PDEATHSIG,
prctl(2)); a `preexec_fn` would do the same but may deadlock in a process that has gRPC's threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """`arguments`: the agent's process id, the program, the program's arguments."""
    parent, program = int(arguments[0]), arguments[1]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
    os.execv(program, [program, *arguments[2:]])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
