"""The certificates and keys of gateways, and of sidecars that open TLS to the outside, and by what collectors of spans
and lines know who sends them, as far as others may know these.

Law: a private key, and what a header proves, is a file that only proxies read. Here it is a path and, of a key, the
hash of the public key that belongs to it; nothing that is kept, sent or recorded has more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

FOLDER: Final = "credentials"


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """A file of credentials: `path` in the mesh's folder, `place` on the machine.

    `text` are its certificates in PEM, or its lists of revoked ones (`is_list`), "" for a key; `public` is the hash of
    the public key of the key, or of the first certificate, and `algorithm` is what it is for. `problem` is what is
    wrong with it, "" if nothing. `ends` is when its first certificate expires, or its first list; `ended` is the same
    where that was over when it was read, else None. Where it may be the value of a header, `writing` tells one writing
    of the file from another; `unfit` is why it is none.
    """

    path: str
    place: str
    text: str = ""
    public: str = ""
    is_key: bool = False
    problem: str = ""
    remedy: str = ""
    ended: datetime | None = None
    is_list: bool = False
    algorithm: str = ""
    ends: datetime | None = None
    writing: str = ""
    unfit: str = ""


Credentials = Mapping[str, CredentialFile]  # by path in the mesh's folder
