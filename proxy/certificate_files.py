"""A workload's certificate, key and roots as files, for programs that read them there: gRPC's file watcher.

Law: whoever opens the three finds those of one moment. They are in a folder of that moment, to which a link leads that
is replaced in one step; the moment before stays, for who is reading it. All of it is the agent's own user's, 0600.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from proxy.events import write_private
from proxy.identity import Bundle, Svid

CHAIN: Final = "certificates.pem"
KEY: Final = "private_key.pem"
ROOTS: Final = "ca_certificates.pem"
_NOW: Final = "now"


class CertificateFiles:
    """In `folder`, which exists, is the agent's own, and holds nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._moment = 0
        now = folder / _NOW
        self.chain, self.key, self.roots = now / CHAIN, now / KEY, now / ROOTS

    def write(self, svid: Svid, bundle: Bundle) -> None:
        """Have the three be those of `svid` and `bundle`; raises OSError, and those of before stay."""
        moment = self._folder / str(self._moment + 1)
        shutil.rmtree(moment, ignore_errors=True)  # of a try that failed
        moment.mkdir(mode=0o700)
        for name, data in ((CHAIN, svid.chain_pem()), (KEY, svid.key_pem), (ROOTS, bundle.pem())):
            write_private(moment / name, data)
        link = self._folder / f".{_NOW}"
        link.unlink(missing_ok=True)
        link.symlink_to(moment.name)
        link.replace(self._folder / _NOW)
        self._moment += 1
        shutil.rmtree(self._folder / str(self._moment - 2), ignore_errors=True)
