"""What the settings in force believe as evidence of a workload: tokens of clusters, certificates of machines.

Law: files are read when they are needed, so that what changes in them counts from then on; one that cannot be read is
believed by nobody, and says so on record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509

from policyd.ca.cluster_keys import ClusterKeys
from policyd.ca.files import read_file
from policyd.ca.kubernetes import MAX_KEYS_BYTES, ByKeys, ByReview, Cluster
from policyd.ca.sealing import read_roots
from policyd.ca.serving.proving import Evidences
from policyd.ca.web import Service
from policyd.config.authority import ClusterSettings, EvidenceSettings
from policyd.errors import IdentityError, StateError


@dataclass(slots=True)
class Believed:
    """Gives what `settings` say at that moment; files are relative to `directory`."""

    settings: Callable[[], EvidenceSettings]
    directory: Path
    clock: Callable[[], float]
    _of: tuple[EvidenceSettings, tuple[Cluster, ...]] | None = None

    def __call__(self) -> Evidences:
        """What is believed now; raises IdentityError where a file cannot be read."""
        said = self.settings()
        if self._of is None or self._of[0] != said:
            self._of = (said, tuple(self._clusters(said)))
        file = said.machine_roots_file
        return Evidences(self._of[1], self._roots(self.directory / file) if file else ())

    def _clusters(self, said: EvidenceSettings) -> Iterator[Cluster]:
        for one in said.kubernetes:
            if one.review_url:
                yield ByReview(one.audience, self._service(one.review_url, one))
            else:
                yield ByKeys(one.issuer or "", one.audience, self._keys(one))

    def _keys(self, one: ClusterSettings) -> Callable[[], bytes]:
        if one.keys_url:
            return ClusterKeys(self._service(one.keys_url, one), self.clock)
        return partial(_read, self.directory / (one.keys_file or ""), MAX_KEYS_BYTES)

    def _service(self, url: str, one: ClusterSettings) -> Service:
        token, roots = (self.directory / file if file else None for file in (one.token_file, one.ca_file))
        return Service(url, token, roots)

    def _roots(self, path: Path) -> tuple[x509.Certificate, ...]:
        return read_roots(_read(path, MAX_KEYS_BYTES))


def _read(path: Path, most: int) -> bytes:
    try:
        return read_file(path, most)
    except StateError as error:
        raise IdentityError(error.message) from error
