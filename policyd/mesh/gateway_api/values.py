"""What Gateways, VirtualServices and their rules mean beyond what Istio's kinds can say.

Law: these are made by translation only. No file can hold one, and the kinds of which they are do not tell of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from policyd.mesh.gateway_api.sessions import Session
from policyd.mesh.istio.answers import Redirect, RegexRewrite
from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.istio.common import Resource
from policyd.mesh.istio.connection_route import TcpRoute, TlsRoute
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch, StringMatch
from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.yaml import Document, Path

MILLION = 1_000_000


class Segments(StringMatch):
    """A prefix of whole segments of a path: `/a` is of `/a` and `/a/b`, and not of `/ab`."""


class Slice(HttpMatch):
    """A match that holds for the first `below` of every million requests, wherever each of them falls."""

    below: int


class Persistent(HttpRoute):
    """A rule whose clients stay with the instance that answered them first."""

    session: Session


class PathRedirect(Redirect):
    """A redirect that replaces what a regex finds in the path."""

    regex: RegexRewrite


class OpenedListener(Gateway):
    """A listener, open at the gateway instances with these names."""

    instances: frozenset[str]


class AttachedRules(VirtualService):
    """Rules of routes; of each the document in which it stands, and its place there."""

    sources: tuple[tuple[Any, tuple[str | int, ...]], ...]

    def source(self, at: int) -> tuple[Document, Path]:
        """Where a rule is written, counted through all of its sections."""
        document, path = self.sources[at]
        return document, path


class TcpShare(TcpRoute):
    """A rule for the first `below` of every million connections; the others end there."""

    below: int


class TlsShare(TlsRoute):
    """The same for TLS that is passed on."""

    below: int


class TakesAny(ServerTls):
    """A server that asks clients for certificates, and lets them in whatever they show."""

    takes_any: ClassVar[bool] = True


class BackendTls(ClientTls):
    """TLS that gateways open to a backend, by a BackendTLSPolicy; `shows` is the credential of the gateway."""

    shows: str = ""

    @property
    def own_files(self) -> tuple[str, str] | None:
        """The certificate and the key that the gateway shows."""
        return (f"credentials/{self.shows}/tls.crt", f"credentials/{self.shows}/tls.key") if self.shows else None


class TrustsNobody(BackendTls):
    """The same where its authorities are not to be had: every certificate is refused."""

    trusts_nobody: ClassVar[bool] = True


class OpensTls(Resource):
    """A port of a host to which gateways open TLS; `is_whole`: as one of all of its ports."""

    host: str
    port: int
    is_whole: bool
    tls: BackendTls


class ShowsBackends(Resource):
    """What gateway instances (by name) show backends to which they open TLS."""

    instances: frozenset[str]
    credential: str

    @property
    def files(self) -> tuple[str, str]:
        """The certificate and its key, by path in the mesh's folder."""
        return f"credentials/{self.credential}/tls.crt", f"credentials/{self.credential}/tls.key"
