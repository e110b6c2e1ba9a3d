"""A network of its own for a process that runs tests beside others: the ports that folders declare do not meet.

Law: only loopback is in it, and it ends with the process. Where the system allows none, the ports that are picked still
differ (tests.ports), and those that are declared may meet.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from typing import Final

CLONE_NEWNET: Final = 0x40000000  # unshare(2)
SIOCGIFFLAGS: Final = 0x8913  # netdevice(7)
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1
_REQUEST: Final = "16sh22x"  # struct ifreq


def leave_the_network() -> bool:
    """Have this thread, and all that it starts, in a network where there is only loopback; whether that worked."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack(_REQUEST, b"lo", 0))
        flags = struct.unpack(_REQUEST, answer)[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack(_REQUEST, b"lo", flags | IFF_UP))
    return True
