"""A certificate by hand: the key is made here, the answer checked, and three files written.

Law: the key is in no argument, message or log; each file is there whole or not at all, the key 0600.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from policyd.admin_client import AdminClient
from policyd.cli.generations import replace_together
from policyd.errors import StateError
from policyd.sources.state import write_private
from policyd.spiffe import SpiffeId
from proxy.identity import Bundle, Svid, check_bundle, check_svid, make_key, request


@dataclass(frozen=True, slots=True)
class Files:
    """Where the parts lie: key in PKCS#8, chain leaf first, roots; all PEM."""

    key: Path
    certificate: Path
    roots: Path

    def all(self) -> tuple[Path, ...]:
        """Return the three."""
        return self.key, self.certificate, self.roots


@dataclass(frozen=True, slots=True)
class Target:
    """The folder to write to, and whether files there may be replaced."""

    folder: Path
    force: bool

    @property
    def files(self) -> Files:
        """Return where the parts will lie."""
        return Files(self.folder / "key.pem", self.folder / "certificate.pem", self.folder / "roots.pem")

    def check(self) -> None:
        """Raise StateError where the files could not be written, before anything is issued."""
        there = [file for file in self.files.all() if file.exists()]
        if there and not self.force:
            raise StateError(
                f"`{there[0]}` is there already", remedy="name another folder, or replace it with `--force`"
            )
        if self.folder.exists() and not self.folder.is_dir():
            raise StateError(f"`{self.folder}` is no folder", remedy="name another one")
        above = next(path for path in (self.folder, *self.folder.absolute().parents) if path.is_dir())
        if not os.access(above, os.W_OK):
            raise StateError(f"`{above}` cannot be written", remedy="name another folder")

    def write(self, svid: Svid, bundle: Bundle) -> Files:
        """Write the files, the certificate last, so that who waits for it finds its key; raises StateError."""
        files = self.files
        parts = ((files.key, svid.key_pem), (files.roots, bundle.pem()), (files.certificate, svid.chain_pem()))
        with self._explained():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path, data in parts:
                write_private(path, data)
        return files

    def replace(self, svid: Svid, bundle: Bundle) -> None:
        """Write the files so that they are of one another at every instant; raises StateError: then they stay."""
        files = self.files
        parts = {files.key: svid.key_pem, files.roots: bundle.pem(), files.certificate: svid.chain_pem()}
        with self._explained():
            replace_together(self.folder, {path.name: data for path, data in parts.items()})

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateError(f"`{self.folder}` cannot be written: {error.strerror}") from None


def obtain(client: AdminClient, spiffe_id: SpiffeId, ttl_seconds: int, now: datetime) -> tuple[Svid, Bundle]:
    """Have a new key certified and check the answer; raises PolicydError."""
    key = make_key()
    reply = client.issue(str(spiffe_id), request(key), ttl_seconds)
    bundle = check_bundle(Bundle(spiffe_id.trust_domain, tuple(reply.roots)), spiffe_id.trust_domain)
    return check_svid(key, spiffe_id, tuple(reply.chain), bundle, now), bundle


def facts(svid: Svid, files: Files) -> dict[str, str]:
    """What to tell of a certificate that was written."""
    return {
        "spiffe_id": str(svid.id),
        "serial": f"{svid.serial:032x}",
        "not_after": svid.not_after.isoformat(),
        "key": str(files.key),
        "certificate": str(files.certificate),
        "roots": str(files.roots),
    }
