"""Settings (policyd.yaml) become frozen values.

Law: what is not set has the safe default: loopback, a full journal denies.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from annotated_types import MaxLen
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policyd.access_log import check_format, check_json
from policyd.environment import Level
from policyd.errors import InvalidInput, Problem, SpiffeIdError
from policyd.spiffe import SpiffeId, check_trust_domain
from policyd.strict import NOTHING, Duration, Many, Model, Name, Size, parse
from policyd.yaml import load_one

SETTINGS_FILE: Final = "policyd.yaml"
MAX_WORKERS: Final = 64
MIN_CERTIFICATE_SECONDS: Final = 5.0
MAX_CERTIFICATE_SECONDS: Final = 86_400.0
_NETLOC: Final = re.compile(r"[A-Za-z0-9.:\[\]-]+")
MAX_ISSUER: Final = 150  # characters, as an operator's name begins with it
MAX_URL: Final = 2_048
MAX_CLAIM: Final = 256  # characters of its name


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a port to listen on; port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: Any) -> Address:
    """Turn `127.0.0.1:0` or `[::1]:0` into an Address; raises ValueError."""
    if isinstance(value, Address):
        return value
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    good_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535
    if address is None or not good_port or (address.version == 6) != host.startswith("["):
        raise ValueError(f"`{str(value)[:80]}` is no address; write an IP address and a port, as in `127.0.0.1:0`")
    return Address(str(address), int(port))


def _check_trust_domain(name: str) -> str:
    try:
        return check_trust_domain(name)
    except SpiffeIdError as error:
        raise ValueError(str(error)) from None


def _check_range(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(f"`{text[:80]}` is no range of addresses; write one, as in `127.0.0.2/32`") from None


def check_header(name: str) -> str:
    """Return the name of a header in lower case, as records have it; raises ValueError."""
    if not _HEADER.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no name of a header; write it as in `end-user`")
    return name.lower()


def check_attribute(path: str) -> str:
    """Return a path into the context of a record; raises ValueError."""
    if not _ATTRIBUTE.fullmatch(path):
        raise ValueError(f"`{path[:80]}` is no attribute; write it as in `request.path` or `client_ip`")
    return path


def check_claim(name: str) -> str:
    """Return the name of a claim, as records have it; raises ValueError."""
    if not 0 < len(name) <= MAX_CLAIM or not name.isprintable() or name != name.strip():
        text = f"`{name[:80]!a}` is no name of a claim; write it as in `email`, or `outer.inner` for one inside another"
        raise ValueError(text)
    return name


_BUILT_IN: Final = frozenset({"prometheus", "envoy", "policyd"})
OWN_HEADERS: Final = frozenset({
    "connection", "content-encoding", "content-length", "content-type", "host", "te", "transfer-encoding",
})  # fmt: skip
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, 5.6.2
_ATTRIBUTE: Final = re.compile(r"[a-z_]{1,64}(?:\.[a-z_]{1,64}){0,7}")
_USERS_OWN: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "iss": (("user", "issuer"), ("user", "__entity", "id")),
    "sub": (("user", "subject"), ("user", "__entity", "id")),
}
LogPath = Annotated[str, Field(pattern=r"^/[\x21-\x7e]{1,255}$")]
HeaderName = Annotated[str, AfterValidator(check_header)]
ClaimName = Annotated[str, AfterValidator(check_claim)]
Listen = Annotated[Address, BeforeValidator(parse_address)]
LOOPBACK: Final = Address("127.0.0.1", 0)


def _check_collector(url: str) -> str:
    """What tells of requests goes over TLS, or stays on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.fragment or len(url) > MAX_URL:
        raise ValueError(f"`{url[:80]}` is no URL of a collector; write it as in `https://collector:4318/v1/logs`")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError(f"`{url[:80]}` would be told in the clear; use https, or a collector on this machine")
    return url


def _check_otlp(url: str) -> str:
    """As `_check_collector`, or by gRPC: `grpcs://collector:4317`, on this machine `grpc://127.0.0.1:4317`."""
    scheme = url.partition("://")[0]
    if scheme not in ("grpc", "grpcs"):
        return _check_collector(url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    if not host or parts.username or parts.path not in ("", "/") or parts.query or parts.fragment or len(url) > MAX_URL:
        raise ValueError(f"`{url[:80]}` is no address of a collector; write it as in `grpcs://collector:4317`")
    if scheme == "grpc" and not _is_loopback(host):
        raise ValueError(f"`{url[:80]}` would be told in the clear; use grpcs, or a collector on this machine")
    return url


def _check_trusted(url: str) -> str:
    """What certificates depend on goes over TLS, or stays on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    plain = parts.scheme == "http" and _is_loopback(host)
    if (parts.scheme != "https" and not plain) or not host or parts.username or parts.fragment or len(url) > MAX_URL:
        text = f"`{url[:80]}` is no URL to trust; write it as in `https://signer.example.com/sign`, without a login"
        raise ValueError(text)
    return url


def _check_provider(name: str) -> str:
    if name in _BUILT_IN:
        raise ValueError(f"the provider `{name}` is there without being declared; use another name")
    return name


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_sent(name: str) -> str:
    """The name of a header that proxies send to a collector, in lower case."""
    if check_header(name) in OWN_HEADERS:
        raise ValueError(f"`{name}` is the proxy's own header; a collector knows who sends by another one")
    return name.lower()


def _check_credential(path: str) -> str:
    """The path of a file in the folder of credentials."""
    parts = path.split("/")
    if not 2 <= len(parts) <= 3 or parts[0] != "credentials" or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"`{path[:80]}` is no file below `credentials/`; put it, or a link to it, there")
    return path


# of each, the file that holds its value
SentHeaders = Annotated[
    Mapping[Annotated[str, AfterValidator(_check_sent)], Annotated[str, AfterValidator(_check_credential)]], MaxLen(8)
]


class ExportSettings(Model):
    """Where the journal is streamed to, as OTLP logs over HTTP; `name` is in the name of the file that says how far."""

    otlp: Annotated[str, AfterValidator(_check_collector)]
    name: Annotated[Name, Field(max_length=31)] = "otlp"
    headers_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder
    ca_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder


class IncludeSettings(Model):
    """What is recorded of requests besides what policies read."""

    headers: Annotated[Many[HeaderName], MaxLen(64)] = ()
    claims: Annotated[Many[ClaimName], MaxLen(64)] = ()


class MaskSettings(Model):
    """One value that is not recorded as it is: of a `header`, of a `claim`, or at a path of the context."""

    header: HeaderName | None = None
    claim: ClaimName | None = None
    attribute: Annotated[str, AfterValidator(check_attribute)] | None = None
    how: Literal["remove", "hash", "truncate"] = "remove"
    length: Annotated[int, Field(ge=1, le=1024)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> MaskSettings:
        if [self.header, self.claim, self.attribute].count(None) != 2:
            raise ValueError("a mask names one thing: a `header`, a `claim` or an `attribute`")
        if (self.length is None) == (self.how == "truncate"):
            raise ValueError("`length` goes with `how: truncate`, and with nothing else")
        return self

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Where the value stands in the context of a record; who a user is stands there in other words too."""
        if self.header is not None:
            return (("request", "headers", self.header),)
        if self.claim is not None:
            return (("user", "claims", self.claim), *_USERS_OWN.get(self.claim, ()))
        return (tuple((self.attribute or "").split(".")),)


class AuditSettings(Model):
    """The journal: how safe a record is before its decision takes effect, what holds when it is full."""

    durability: Literal["written", "fsync", "async"] = "written"
    on_full: Literal["deny", "drop"] = "deny"
    segment_size: Annotated[Size, Field(ge=1 << 20, le=1 << 32)] = 64 << 20
    segment_age: Annotated[Duration, Field(ge=1, le=86_400)] = 3600.0  # seconds
    retain: Annotated[Duration, Field(ge=3600)] = 7 * 86_400.0  # seconds
    export: ExportSettings | None = None
    max_size: Annotated[Size, Field(ge=1 << 20)] | None = None
    include: IncludeSettings = IncludeSettings()
    mask: Annotated[Many[MaskSettings], MaxLen(64)] = ()


def _check_bundle_endpoint(url: str) -> str:
    """Where a bundle is published (SPIFFE Federation, sections 5.2.1.1 and 5.2.2.1)."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    told = parts.username or parts.password or parts.fragment
    if parts.scheme != "https" or not host or told or len(url) > MAX_URL or not url.isprintable():
        raise ValueError(f"`{url[:80]}` is no bundle endpoint; write it as in `https://mesh.partner.org:8443/`")
    return url


def _check_token_issuer(url: str) -> str:
    """An issuer of OpenID Connect Discovery: https, without query and fragment; tokens are compared to the letter."""
    url = _check_bundle_endpoint(url)
    if "?" in url or url.endswith("/"):
        raise ValueError(f"`{url[:80]}` is no issuer; write it without `?` and without `/` at its end")
    return url


def _check_spiffe_id(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except SpiffeIdError as error:
        raise ValueError(str(error)) from None


class FederatedSettings(Model):
    """A trust domain whose workloads are known here. Its bundle is fetched from `bundle_endpoint`, which proves itself
    to be `endpoint_id` by that very bundle (`https_spiffe`) or by its name (`https_web`); without one it is imported.
    """

    trust_domain: Annotated[str, AfterValidator(_check_trust_domain)]
    bundle_endpoint: Annotated[str, AfterValidator(_check_bundle_endpoint)] | None = None
    profile: Literal["https_spiffe", "https_web"] = "https_spiffe"
    endpoint_id: Annotated[str, AfterValidator(_check_spiffe_id)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> FederatedSettings:
        proves = self.bundle_endpoint is not None and self.profile == "https_spiffe"
        if proves and self.endpoint_id is None:
            raise ValueError("an endpoint of `https_spiffe` needs its `endpointId`, or write `profile: https_web`")
        if not proves and self.endpoint_id is not None:
            raise ValueError("`endpointId` is for a `bundleEndpoint` of `https_spiffe`; remove it")
        if self.endpoint_id is not None and SpiffeId.parse(self.endpoint_id).trust_domain != self.trust_domain:
            raise ValueError(
                f"`endpointId` is not of `{self.trust_domain}`, by whose bundle it would have to prove itself"
            )
        return self


class BundleEndpointSettings(Model):
    """Where other trust domains fetch this one's bundle: with policyd's own SVID, or with a certificate from files."""

    listen: Listen
    certificate_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder
    key_file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _both(self) -> BundleEndpointSettings:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("`certificateFile` and `keyFile` go together; add the other one")
        return self


class UpstreamSettings(Model):
    """Another authority that ours is under: the file with our certificate, what signed it and the root, and the file of
    our key, or the program or the service that signs with it. Files are relative to the mesh's folder.
    """

    chain_file: Annotated[str, Field(min_length=1)]
    key_file: Annotated[str, Field(min_length=1)] | None = None
    sign_command: Annotated[Many[Annotated[str, Field(min_length=1)]], MaxLen(64)] = ()
    sign_url: Annotated[str, AfterValidator(_check_trusted)] | None = None
    sign_token_file: Annotated[str, Field(min_length=1)] | None = None
    sign_ca_file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_key(self) -> UpstreamSettings:
        if sum(map(bool, (self.key_file, self.sign_command, self.sign_url))) != 1:
            raise ValueError("give one of `keyFile`, `signCommand` and `signUrl`")
        if (self.sign_token_file or self.sign_ca_file) and not self.sign_url:
            raise ValueError("`signTokenFile` and `signCaFile` belong to `signUrl`; add it, or take them away")
        return self


MAX_COME_BACK_SECONDS: Final = 30 * 86_400


class ClusterSettings(Model):
    """A Kubernetes cluster whose pods show a projected service-account token for `audience`: who vouches for it, by its
    keys or by a review. Files are relative to the mesh's folder.
    """

    audience: Annotated[str, Field(min_length=1, max_length=255)] = "policyd"
    issuer: Annotated[str, Field(min_length=1, max_length=MAX_URL)] | None = None
    keys_file: Annotated[str, Field(min_length=1)] | None = None
    keys_url: Annotated[str, AfterValidator(_check_trusted)] | None = None
    review_url: Annotated[str, AfterValidator(_check_trusted)] | None = None
    token_file: Annotated[str, Field(min_length=1)] | None = None
    ca_file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> ClusterSettings:
        if sum(map(bool, (self.keys_file, self.keys_url, self.review_url))) != 1:
            raise ValueError("give one of `keysFile`, `keysUrl` and `reviewUrl`")
        if (self.issuer is None) is not bool(self.review_url):
            raise ValueError("`issuer` belongs to `keysFile` and `keysUrl`; a review knows it")
        if self.keys_file and (self.token_file or self.ca_file):
            raise ValueError("`tokenFile` and `caFile` belong to a URL; take them away")
        return self


class EvidenceSettings(Model):
    """What workloads without an agent may show of themselves: a pod's token, or an existing certificate of a machine
    that chains to the roots of a file.
    """

    kubernetes: Annotated[Many[ClusterSettings], MaxLen(16)] = ()
    machine_roots_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder


class CaSettings(Model):
    """The authority: `ttl` of workloads' certificates in seconds, and the file with the keys' passphrase, or the
    program that tells it; other trust domains that are known, and where this one's bundle is published; another
    authority that it is under. With `revoke_serials` proxies look at lists of revoked certificates; workloads of other
    trust domains then name theirs as the server's name (SNI).
    """

    ttl: Annotated[Duration, Field(ge=MIN_CERTIFICATE_SECONDS, le=MAX_CERTIFICATE_SECONDS)] = 3600.0
    passphrase_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder
    passphrase_command: Annotated[Many[Annotated[str, Field(min_length=1)]], MaxLen(64)] = ()
    federation: Annotated[Many[FederatedSettings], MaxLen(64)] = ()
    bundle_endpoint: BundleEndpointSettings | None = None
    token_issuer: Annotated[str, AfterValidator(_check_token_issuer)] | None = None
    upstream: UpstreamSettings | None = None
    evidence: EvidenceSettings = EvidenceSettings()
    revoke_serials: bool = False  # whether proxies look at lists of revoked certificates
    come_back_within: Annotated[Duration, Field(ge=0, le=MAX_COME_BACK_SECONDS)] = 86_400.0

    @model_validator(mode="after")
    def _one_passphrase(self) -> CaSettings:
        if self.passphrase_file and self.passphrase_command:
            raise ValueError("give either `passphraseFile` or `passphraseCommand`")
        return self

    @model_validator(mode="after")
    def _once(self) -> CaSettings:
        names = [one.trust_domain for one in self.federation]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"`{twice[0]}` stands twice under `federation`; name each trust domain once")
        return self


class ListenSettings(Model):
    """Where the servers listen; beyond loopback only if it is written here."""

    xds: Listen = LOOPBACK
    authz: Listen = LOOPBACK
    attestation: Listen = LOOPBACK
    signing: Listen = LOOPBACK
    http: Listen = LOOPBACK


def _check_login_issuer(url: str) -> str:
    """An issuer of OpenID Connect: https, or on this machine; tokens are compared to the letter."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    is_text = url.isascii() and url.isprintable() and len(url) <= MAX_ISSUER and not set(url) & set("?#~")
    if not is_safe or not is_text or not _NETLOC.fullmatch(parts.netloc):
        raise ValueError(f"`{url[:80]}` is no issuer; write it as in `https://accounts.example.com`")
    return url


class OidcSettings(Model):
    """With whom people log in to the console (OpenID Connect), and who the console is to them."""

    issuer: Annotated[str, AfterValidator(_check_login_issuer)]
    client_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
    client_secret_file: Annotated[str, Field(min_length=1)] | None = None


class ConsoleSettings(Model):
    """Where the console listens, and for who comes from elsewhere its certificate, the file of the token that opens it,
    and the names that it goes by. Files are relative to the mesh's folder. With `apply` policies that were edited in it
    can be enforced from it, by whom the operators' policies let.
    """

    listen: Listen = LOOPBACK
    apply: bool = False
    names: Many[Annotated[str, Field(pattern=r"^[A-Za-z0-9.\[\]:-]{1,253}$")]] = ()
    token_file: Annotated[str, Field(min_length=1)] | None = None
    certificate_file: Annotated[str, Field(min_length=1)] | None = None
    key_file: Annotated[str, Field(min_length=1)] | None = None
    oidc: OidcSettings | None = None

    @model_validator(mode="after")
    def _check_reach(self) -> ConsoleSettings:
        if (self.certificate_file is None) is not (self.key_file is None):
            raise ValueError("`certificateFile` and `keyFile` belong together; write both")
        if not self.listen.is_loopback and not ((self.token_file or self.oidc) and self.certificate_file):
            message = "beyond loopback the console needs `tokenFile` or `oidc`, `certificateFile` and `keyFile`"
            raise ValueError(f"{message}; write them, or listen on 127.0.0.1")
        return self


class LogSettings(Model):
    """What policyd says about itself."""

    level: Level = "info"


class ShadowSettings(Model):
    """Policies that are tried beside the active ones: a folder of `.cedar` files, relative to the mesh's folder."""

    policies: Annotated[str, Field(min_length=1)] | None = None


class OutboundSettings(Model):
    """What becomes of names outside that nothing declares: 502, or asked about like a declared one (`ALLOW_ANY`)."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"


class EgressSettings(Model):
    """What names outside may lead to: ranges allowed although they are loopback, link-local or the mesh's, and the DNS
    servers that proxies ask (none: those of their machine).
    """

    allow_addresses: Many[Annotated[str, AfterValidator(_check_range)]] = ()
    dns_resolvers: Many[Listen] = ()


class TracingSettings(Model):
    """Where proxies send the spans of requests, by OTLP over HTTP (`https://collector:4318/v1/traces`; none: to
    policyd, which keeps the last ones in a `window`), and of how many in a hundred that have no trace yet.
    """

    endpoint: Annotated[str, AfterValidator(_check_otlp)] | None = None
    headers: SentHeaders = NOTHING
    sampling: Annotated[float, Field(ge=0, le=100)] = 1.0
    window: Annotated[Size, Field(ge=0, le=1 << 32)] = 32 << 20

    @model_validator(mode="after")
    def _whom(self) -> TracingSettings:
        if self.headers and self.endpoint is None:
            raise ValueError("`headers` go with an `endpoint`: policyd knows proxies by their certificates")
        return self


class LogFormatSettings(Model):
    """What a line says: a `text` in the words of Envoy's access logs, or `labels`, an object of them."""

    text: Annotated[str, AfterValidator(check_format)] | None = None
    labels: Mapping[str, Annotated[str, AfterValidator(check_format)]] = NOTHING

    @model_validator(mode="after")
    def _one(self) -> LogFormatSettings:
        if (self.text is None) is not bool(self.labels):
            raise ValueError("a form is a `text`, or an object of `labels`")
        return self


class FileLogSettings(Model):
    """Lines in a file of each proxy's machine."""

    path: LogPath
    log_format: LogFormatSettings | None = None


class CollectorSettings(Model):
    """A collector of OTLP, over HTTP or gRPC; here a whole URL, where Istio has a service and a port."""

    endpoint: Annotated[str, AfterValidator(_check_otlp)]
    headers: SentHeaders = NOTHING


class ZipkinSettings(Model):
    """Zipkin, and which headers tell the next hop of the trace: B3's, or those and W3C's."""

    endpoint: Annotated[str, AfterValidator(_check_collector)]
    headers: SentHeaders = NOTHING
    trace_context_option: Literal["USE_B3", "USE_B3_WITH_W3C_PROPAGATION"] = "USE_B3"


class ProviderSettings(Model):
    """Where Telemetries may send what is seen of requests, by its name."""

    name: Annotated[Name, AfterValidator(_check_provider)]
    envoy_file_access_log: FileLogSettings | None = None
    envoy_otel_als: CollectorSettings | None = None
    opentelemetry: CollectorSettings | None = None
    zipkin: ZipkinSettings | None = None

    @model_validator(mode="after")
    def _one(self) -> ProviderSettings:
        kinds = (self.envoy_file_access_log, self.envoy_otel_als, self.opentelemetry, self.zipkin)
        if kinds.count(None) != len(kinds) - 1:
            known = "`envoyFileAccessLog`, `envoyOtelAls`, `opentelemetry` or `zipkin`"
            raise ValueError(f"a provider is one of {known}")
        return self


class Settings(Model):
    """policyd.yaml; every line is optional. `workers` is how many processes decide, by default one a core but one."""

    trust_domain: Annotated[str, AfterValidator(_check_trust_domain)] = "cluster.local"
    audit: AuditSettings = AuditSettings()
    ca: CaSettings = CaSettings()
    listen: ListenSettings = ListenSettings()
    console: ConsoleSettings = ConsoleSettings()
    log: LogSettings = LogSettings()
    shadow: ShadowSettings = ShadowSettings()
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] | None = None
    outbound_traffic_policy: OutboundSettings = OutboundSettings()
    egress: EgressSettings = EgressSettings()
    tracing: TracingSettings = TracingSettings()
    access_log_file: LogPath | None = None
    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"
    access_log_format: str = ""
    extension_providers: Annotated[Many[ProviderSettings], MaxLen(32)] = ()

    @model_validator(mode="after")
    def _knows_others(self) -> Settings:
        if any(one.trust_domain == self.trust_domain for one in self.ca.federation):
            raise ValueError(f"`{self.trust_domain}` is this trust domain itself; `ca.federation` names others")
        return self

    @model_validator(mode="after")
    def _check_access_log(self) -> Settings:
        if self.access_log_format:
            (check_json if self.access_log_encoding == "JSON" else check_format)(self.access_log_format)
        names = [one.name for one in self.extension_providers]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two of `extensionProviders` are called `{twice}`; give each a name of its own")
        return self


def parse_settings(text: str, file: str = SETTINGS_FILE) -> Settings:
    """Parse the text of policyd.yaml; empty text gives the defaults. Raises InvalidInput."""
    problems: list[Problem] = []
    settings = parse(Settings, load_one(text, file), problems)
    if settings is None:
        raise InvalidInput(problems)
    return settings
