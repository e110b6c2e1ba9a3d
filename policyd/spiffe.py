"""SPIFFE IDs as a frozen value, parsed and checked once.

Law: whoever holds a SpiffeId holds a valid one (SPIFFE-ID specification, sections 2 to 2.4). Text with upper-case
letters in the scheme or trust domain is refused, not folded, so that equal identities are equal bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from policyd.errors import SpiffeIdError

SCHEME = "spiffe://"
MAX_ID_BYTES = 2048  # section 2.3
MAX_TRUST_DOMAIN_BYTES = 255

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")


def check_trust_domain(name: str) -> str:
    """Return `name` if it is a trust domain name (section 2.1), else raise SpiffeIdError."""
    if not _TRUST_DOMAIN.fullmatch(name):
        raise SpiffeIdError(
            f"`{name}` is no trust domain name", remedy="use lower-case letters, digits, dots, dashes and underscores"
        )
    if len(name) > MAX_TRUST_DOMAIN_BYTES:
        raise SpiffeIdError(f"a trust domain name has at most {MAX_TRUST_DOMAIN_BYTES} bytes, this one {len(name)}")
    return name


def _check_path(path: str) -> None:
    if not path:
        return
    for segment in path[1:].split("/"):
        if segment in ("", ".", "..") or not _SEGMENT.fullmatch(segment):
            raise SpiffeIdError(
                f"`{path}` is no path of a SPIFFE ID",
                remedy="each segment has letters, digits, dots, dashes or underscores, and is not `.` or `..`",
            )


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """`spiffe://<trust_domain><path>`; `path` is empty (a trust domain's own id) or starts with a slash."""

    trust_domain: str
    path: str

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        if self.path and not self.path.startswith("/"):
            raise SpiffeIdError(f"the path of a SPIFFE ID starts with a slash, `{self.path}` does not")
        _check_path(self.path)
        if len(SCHEME) + len(self.trust_domain) + len(self.path) > MAX_ID_BYTES:
            raise SpiffeIdError(f"a SPIFFE ID has at most {MAX_ID_BYTES} bytes")

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Parse a whole URI; raises SpiffeIdError for anything else, a trailing newline included."""
        if not text.startswith(SCHEME):
            raise SpiffeIdError(f"`{text[:80]}` is no SPIFFE ID", remedy="it starts with `spiffe://`")
        trust_domain, slash, rest = text[len(SCHEME) :].partition("/")
        return cls(trust_domain, slash + rest)

    @classmethod
    def workload(cls, trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
        """The id of a workload: `/ns/<namespace>/sa/<service account>`, as Istio forms it."""
        return cls(trust_domain, f"/ns/{namespace}/sa/{service_account}")

    @classmethod
    def agent(cls, trust_domain: str, name: str) -> SpiffeId:
        """The id of an agent: `/agent/<name>`."""
        return cls(trust_domain, f"/agent/{name}")

    @classmethod
    def server(cls, trust_domain: str) -> SpiffeId:
        """The id of policyd's own servers."""
        return cls(trust_domain, "/policyd/server")

    @classmethod
    def journal(cls, trust_domain: str) -> SpiffeId:
        """The id that the journal's seals are signed as."""
        return cls(trust_domain, "/policyd/journal")

    @property
    def is_policyd(self) -> bool:
        """Whether it is policyd's own, and no workload's."""
        return self.path.startswith("/policyd/")

    @property
    def namespace(self) -> str | None:
        """The namespace, where the path is `/ns/<namespace>/sa/<service account>`."""
        parts = self._account()
        return parts[0] if parts else None

    @property
    def service_account(self) -> str | None:
        """The service account, where the path is `/ns/<namespace>/sa/<service account>`."""
        parts = self._account()
        return parts[1] if parts else None

    @property
    def agent_name(self) -> str | None:
        """The agent's name, where the path is `/agent/<name>`."""
        parts = self.path.split("/")
        return parts[2] if len(parts) == 3 and parts[1] == "agent" else None

    def _account(self) -> tuple[str, str] | None:
        parts = self.path.split("/")
        if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa":
            return parts[2], parts[4]
        return None

    def __str__(self) -> str:
        """The URI."""
        return f"{SCHEME}{self.trust_domain}{self.path}"
