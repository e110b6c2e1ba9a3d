"""A program that seals a journal until it is killed: each turn with a new sealer, as after a restart.

Argument: a folder with the journal, `root.pem`, and `key.pem` of who signs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from policyd.ca.authority import Authority
from tests.audit.sealing import DOMAIN, Sealed
from tests.fakes.clock import FakeClock


def _main(folder: Path) -> None:
    pem = (folder / "key.pem").read_bytes()
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    root = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    authority = Authority(DOMAIN, root, x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT") :]), key)
    sealed = Sealed(folder / "journal", FakeClock(), authority)
    os.write(1, b"ready\n")
    while True:
        sealed.new_sealer().turn()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
