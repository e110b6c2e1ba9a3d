"""Istio's Gateway: the ports at the edge, the hosts that are served there, and with which certificates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic.alias_generators import to_camel

from policyd.mesh.istio.common import Labels, Networking, Resource, Section
from policyd.mesh.matching import check_credential, check_host_pattern
from policyd.strict import Many, Model, Name, PortNumber, check_label

LATER: Final[Mapping[str, str]] = {
    "bind": "a gateway listens at its `address` in workloads.yaml",
    "defaultEndpoint": "a gateway leads on by VirtualServices; bind one to it",
    "targetPort": "the ports that a gateway opens are its `listen` in workloads.yaml",
    "insecureSkipVerify": "a certificate that is wanted is checked; where none is needed, write `SIMPLE`",
    "credentialNames": "",
    "tlsCertificates": "",
    "caCrl": "",
}
# what servers may be in Istio and not here: what to write instead
_PROTOCOLS: Final[Mapping[str, str]] = {
    "MONGO": "nothing here reads Mongo's protocol; write `TCP`",
    "GRPC-WEB": "sidecars translate it; write `HTTP` here, and `grpc-web` at the Service's port",
}
_MODES: Final[Mapping[str, str]] = {
    "AUTO_PASSTHROUGH": "it would lead to every service of the mesh; write `PASSTHROUGH` and `tls` rules",
}
Version = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]
ORDERED: Final = ("TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
CIPHERS: Final = frozenset(
    {
        "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA",
    }
)  # fmt: skip


def _check_server_protocol(given: Any) -> Any:
    """Return what may be a protocol of a server."""
    if isinstance(given, str) and given in _PROTOCOLS:
        raise ValueError(f"`{given}` is no protocol of a server here: {_PROTOCOLS[given]}")
    return given


def _check_server_mode(given: Any) -> Any:
    """Return what may be a server's mode."""
    if isinstance(given, str) and given in _MODES:
        raise ValueError(f"`{given}` is no mode of a server here: {_MODES[given]}")
    return given


def _check_server_host(text: str) -> str:
    """Return a host pattern, with or without the namespace (`.`: the Gateway's, `*`: any) of those that may use it."""
    namespace, slash, host = text.rpartition("/")
    if slash and namespace not in (".", "*"):
        check_label(namespace)
    check_host_pattern(host)
    return text


def _check_file(path: str) -> str:
    """Return the path of a file in the folder of credentials."""
    parts = path.split("/")
    if len(parts) < 2 or parts[0] != "credentials" or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"`{path[:80]}` is outside of `credentials/`; put the file, or a link to it, there")
    return path


def _check_cipher(name: str) -> str:
    if name not in CIPHERS:
        raise ValueError(f"`{name[:80]}` is no cipher suite of Envoy's; known are {', '.join(sorted(CIPHERS))}")
    return name


def _check_hash(text: str) -> str:
    if not re.fullmatch(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}", text):
        raise ValueError(f"`{text[:80]}` is no SHA-256 in hexadecimal")
    return text


def _check_spki(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9+/]{43}=", text):
        raise ValueError(f"`{text[:80]}` is no SHA-256 in base64")
    return text


Credential = Annotated[str, AfterValidator(check_credential)]
File = Annotated[str, AfterValidator(_check_file)]


class ServerPort(Model):
    """A port at the edge."""

    number: PortNumber
    name: Name
    protocol: Annotated[
        Literal["HTTP", "HTTP2", "GRPC", "HTTPS", "TLS", "TCP"], BeforeValidator(_check_server_protocol)
    ]


class ServerTls(Model):
    """How a server proves itself, and what it wants of clients.

    `credential_name` is a folder below `credentials/` with `tls.crt`, `tls.key` and for MUTUAL `ca.crt`, whose keys
    are readable by their owner alone. Where `https_redirect` is set, requests in plain text are sent to https.
    With ISTIO_MUTUAL both sides show their identities of the mesh. With PASSTHROUGH it proves nothing: what the client
    sends is passed on as it is.
    """

    mode: Annotated[
        Literal["SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL", "PASSTHROUGH"] | None,
        BeforeValidator(_check_server_mode),
    ] = None
    https_redirect: bool = False
    credential_name: Credential | None = None
    ca_cert_credential_name: Credential | None = None
    server_certificate: File | None = None
    private_key: File | None = None
    ca_certificates: File | None = None
    subject_alt_names: Many[Annotated[str, Field(min_length=1, max_length=2048)]] = ()
    verify_certificate_hash: Many[Annotated[str, AfterValidator(_check_hash)]] = ()
    verify_certificate_spki: Many[Annotated[str, AfterValidator(_check_spki)]] = ()
    min_protocol_version: Version = "TLS_AUTO"
    max_protocol_version: Version = "TLS_AUTO"
    cipher_suites: Many[Annotated[str, AfterValidator(_check_cipher)]] = ()

    @model_validator(mode="after")
    def _sources(self) -> ServerTls:
        files = (self.server_certificate, self.private_key)
        if not self.shows:
            return self._nothing_shown()
        if self.credential_name is not None and any(files):
            raise ValueError("`credentialName` and `serverCertificate`, `privateKey` exclude each other; keep one")
        if self.credential_name is None and None in files:
            raise ValueError("it has no certificate; give `credentialName`, or `serverCertificate` and `privateKey`")
        if self.ca_certificates is not None and self.ca_cert_credential_name is not None:
            raise ValueError("`caCertificates` and `caCertCredentialName` exclude each other; keep one")
        if self.mode == "SIMPLE" and (self.subject_alt_names or self.verify_certificate_hash):
            raise ValueError("`SIMPLE` asks for no client certificate; write `MUTUAL`")
        if self.mode != "SIMPLE" and self.ca_file is None:
            raise ValueError(f"`{self.mode}` wants client certificates; give `caCertificates`")
        return self

    def _nothing_shown(self) -> ServerTls:
        given = self.model_fields_set - {"mode", "https_redirect"}
        if self.mode is not None and given:
            field = min(to_camel(name) for name in given)
            raise ValueError(f"`{field}` means nothing with `{self.mode}`; remove it")
        return self

    @model_validator(mode="after")
    def _versions(self) -> ServerTls:
        least = "TLSV1_2" if self.min_protocol_version == "TLS_AUTO" else self.min_protocol_version
        most = "TLSV1_3" if self.max_protocol_version == "TLS_AUTO" else self.max_protocol_version
        if ORDERED.index(least) > ORDERED.index(most):
            raise ValueError(f"no version is at least `{least}` and at most `{most}`")
        return self

    @property
    def shows(self) -> bool:
        """Whether it ends TLS with a certificate of the operator's."""
        return self.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL")

    @property
    def certificate_file(self) -> str:
        """Where the certificate is, in the mesh's folder."""
        return self.server_certificate or f"credentials/{self.credential_name}/tls.crt"

    @property
    def key_file(self) -> str:
        """Where its private key is."""
        return self.private_key or f"credentials/{self.credential_name}/tls.key"

    @property
    def ca_file(self) -> str | None:
        """Where the authorities of client certificates are; None where none are wanted."""
        if self.mode not in ("MUTUAL", "OPTIONAL_MUTUAL"):
            return None
        if self.ca_certificates is not None:
            return self.ca_certificates
        name = self.ca_cert_credential_name or self.credential_name
        return f"credentials/{name}/ca.crt" if name else None


class Server(Model):
    """A port at the edge and the hosts that are served there; `<namespace>/` before one says whose rules may be."""

    port: ServerPort
    hosts: Annotated[Many[Annotated[str, AfterValidator(_check_server_host)]], Field(min_length=1)]
    tls: ServerTls | None = None
    name: Annotated[str, Field(max_length=253)] | None = None

    @model_validator(mode="after")
    def _protocol(self) -> Server:
        protocol = self.port.protocol
        if protocol in ("HTTPS", "TLS") and (self.tls is None or self.tls.mode is None):
            raise ValueError(f"`{protocol}` needs a certificate; give `tls` with its `mode`")
        if self.tls is None:
            return self
        if self.tls.https_redirect and (self.encrypted or self.section != "http"):
            raise ValueError("`httpsRedirect` is for servers in plain text; remove it")
        if protocol in ("HTTP", "HTTP2", "GRPC") and self.tls.mode is not None:
            raise ValueError(f"`{protocol}` is plain text; write `HTTPS`, or remove `tls.mode`")
        if protocol == "TCP" and self.tls.mode == "PASSTHROUGH":
            raise ValueError("`TCP` has no names to go by; write `TLS`, or remove `tls`")
        return self

    @property
    def encrypted(self) -> bool:
        """Whether clients speak TLS to it."""
        return self.port.protocol in ("HTTPS", "TLS") or (self.tls is not None and self.tls.mode is not None)

    @property
    def for_peers(self) -> bool:
        """Whether it proves itself by its identity of the mesh, and wants one."""
        return self.tls is not None and self.tls.mode == "ISTIO_MUTUAL"

    @property
    def takes_peers(self) -> bool:
        """Whether workloads of the mesh may come by their identity: nobody else's certificate is wanted then."""
        redirects = self.tls is not None and self.tls.https_redirect
        plain_requests = not self.encrypted and self.section == "http" and not redirects
        return self.for_peers or self.section == "tls" or plain_requests

    @property
    def section(self) -> Section:
        """Which rules lead on: of requests, of connections, of TLS that is passed on."""
        if self.tls is not None and self.tls.mode == "PASSTHROUGH":
            return "tls"
        return "tcp" if self.port.protocol in ("TLS", "TCP") else "http"

    @property
    def bare_hosts(self) -> tuple[str, ...]:
        """The hosts, whoever may use them."""
        return tuple(host.rpartition("/")[2] for host in self.hosts)

    def hosts_for(self, own: str, namespace: str) -> tuple[str, ...]:
        """The hosts that VirtualServices of a namespace may use; `own` is the Gateway's namespace."""
        found = []
        for text in self.hosts:
            who, slash, host = text.rpartition("/")
            if not slash or who == "*" or namespace == (own if who == "." else who):
                found.append(host)
        return tuple(found)


class GatewaySpec(Model):
    """Which gateway instances (by labels, in any namespace) open which ports."""

    selector: Annotated[Labels, Field(min_length=1)]
    servers: Annotated[Many[Server], Field(min_length=1)]


class Gateway(Resource):
    """Istio's Gateway."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
