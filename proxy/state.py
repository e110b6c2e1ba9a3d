"""The agent's own key and SVID on disk, so that a restart needs no new token while the SVID is valid.

Law: 0600 in a 0700 folder of one agent at a time; what is read is checked as if it had come over the network. The
workloads' keys are never written.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from policyd.errors import IdentityError, KeyFileError, PolicydError, StateError
from policyd.spiffe import SpiffeId
from policyd.svid.x509 import parse
from proxy.bootstrap import Endpoint
from proxy.events import write_private
from proxy.identity import Bundle, check_svid, load_key
from proxy.join import Joined

FORMAT = 1
MAX_BYTES = 1 << 20
_OTHERS = 0o077


class StateFolder:
    """The folder `--dir`; made (0700) and locked when opened, so raises StateError while another agent has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "agent.json"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_mode & _OTHERS:
                raise StateError(f"`{folder}` is open to others", remedy=f"chmod 700 {folder}")
            self._lock = (folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StateError(f"another agent uses `{folder}`", remedy="end it, or choose another --dir") from None
        except OSError as error:
            raise StateError(f"`{folder}` cannot be used: {error.strerror}") from error

    def close(self) -> None:
        """Let another agent have the folder."""
        self._lock.close()

    def save(self, joined: Joined) -> None:
        """Keep who this agent is; raises StateError."""
        content = {
            "format": FORMAT,
            "server": joined.server,
            "attestation": joined.attestation,
            "spiffe_id": str(joined.svid.id),
            "key": joined.svid.key_pem.decode(),
            "chain": [base64.b64encode(each).decode() for each in joined.svid.chain],
            "roots": [base64.b64encode(each).decode() for each in joined.bundle.roots],
            "sequence": joined.bundle.sequence,
            "jwt_keys": joined.bundle.jwt_keys.decode(),
        }
        try:
            write_private(self._file, json.dumps(content).encode(), durable=True)
        except OSError as error:
            raise StateError(f"`{self._file}` cannot be written: {error.strerror}") from error

    def load(self, now: datetime) -> Joined | None:
        """Who this agent was, if that still holds at `now`; None where nothing is kept.

        One whose SVID has ended is given back as it was: it proves to policyd who came back, and nothing else.
        Raises KeyFileError for a file that others can read, StateError for one that is broken or newer, IdentityError
        for an SVID that does not hold.
        """
        try:
            with self._file.open("rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(MAX_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"`{self._file}` cannot be read: {error.strerror}") from error
        if stat.S_IMODE(status.st_mode) & _OTHERS or status.st_uid != os.geteuid():
            raise KeyFileError(f"`{self._file}` holds a key and is open to others", remedy="remove it and join again")
        return self._parse(data, now)

    def _parse(self, data: bytes, now: datetime) -> Joined:
        broken = StateError(f"`{self._file}` is broken", remedy="remove it and join again with a new token")
        try:
            content: dict[str, Any] = json.loads(data)
            if content["format"] != FORMAT:
                raise StateError(f"`{self._file}` has format {content['format']!r:.20}, this agent knows {FORMAT}")
            wanted = SpiffeId.parse(content["spiffe_id"])
            roots = tuple(base64.b64decode(each, validate=True) for each in content["roots"])
            jwt_keys = content.get("jwt_keys", "").encode()  # older agents kept none
            bundle = Bundle(wanted.trust_domain, roots, int(content["sequence"]), jwt_keys)
            chain = tuple(base64.b64decode(each, validate=True) for each in content["chain"])
            key = load_key(content["key"].encode())
            server, attestation = content["server"], content.get("attestation", "")  # older agents kept none
            for address in (server, *([attestation] if attestation else [])):
                Endpoint.parse(address)
            ended = min(parse(each).not_valid_after_utc for each in chain)
        except (StateError, IdentityError):
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PolicydError):
            raise broken from None
        held_at = min(now, ended - timedelta(seconds=1))
        return Joined(check_svid(key, wanted, chain, bundle, held_at, by=""), bundle, server, attestation)
