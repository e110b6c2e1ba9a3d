"""Gateway: the listeners at the edge, with which certificates, and whose routes may be attached to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policyd.mesh.gateway_api.common import (
    GROUP,
    GatewayApiResource,
    GroupName,
    Hostname,
    KindName,
    ObjectName,
    Stable,
)
from policyd.mesh.istio.common import Labels
from policyd.mesh.matching import check_credential
from policyd.strict import NOTHING, Many, Model, Name, PortNumber

LATER: Final[Mapping[str, str]] = {
    "infrastructure": "the instances of a gateway, their labels and their places are those of workloads.yaml",
    "allowedListeners": "write all listeners into the Gateway",
    "defaultScope": "name the Gateway in `parentRefs` of the routes",
    "options": "versions and ciphers of TLS are those of an Istio `Gateway`",
}
KEY: Final = f"Gateway.{GROUP}"  # as kubectl tells it from Istio's
NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"  # which Kubernetes gives to every namespace


def _check_selected(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return labels that a namespace of this mesh can have: it has nothing but its name."""
    if unknown := next((label for label in labels if label != NAMESPACE_LABEL), None):
        raise ValueError(f"a namespace here has no label `{unknown[:80]}`; its only one is `{NAMESPACE_LABEL}`")
    return labels


class NamespaceExpression(Model):
    """A condition on a namespace's name."""

    key: Literal["kubernetes.io/metadata.name"]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Many[Name] = ()

    def holds(self, namespace: str) -> bool:
        """Whether a namespace is one of those that are meant."""
        if self.operator in ("Exists", "DoesNotExist"):
            return self.operator == "Exists"
        return (namespace in self.values) is (self.operator == "In")


class NamespaceSelector(Model):
    """Namespaces, by their only label, which is their name."""

    match_labels: Annotated[Labels, AfterValidator(_check_selected)] = NOTHING
    match_expressions: Many[NamespaceExpression] = ()

    def selects(self, namespace: str) -> bool:
        """Whether a namespace is one of those that are meant."""
        named = self.match_labels.get(NAMESPACE_LABEL, namespace) == namespace
        return named and all(one.holds(namespace) for one in self.match_expressions)


class RouteNamespaces(Model):
    """The namespaces whose routes may be attached."""

    from_: Annotated[Literal["All", "Same", "Selector", "None"], Field(alias="from")] = "Same"
    selector: NamespaceSelector | None = None

    @model_validator(mode="after")
    def _one(self) -> RouteNamespaces:
        if (self.from_ == "Selector") is (self.selector is None):
            raise ValueError("`selector` is for `from: Selector`, which needs it; add or remove it")
        return self

    def allow(self, own: str, namespace: str) -> bool:
        """Whether routes of a namespace may be attached; `own` is the Gateway's."""
        if self.selector is not None:
            return self.selector.selects(namespace)
        return self.from_ == "All" or (self.from_ == "Same" and namespace == own)


class RouteKind(Model):
    """A kind of routes."""

    group: GroupName = GROUP
    kind: KindName


class AllowedRoutes(Model):
    """Which routes may be attached: of which namespaces, and of which kinds (none given: all that fit)."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: Annotated[Many[RouteKind], Field(max_length=8)] = ()


class CertificateRef(Model):
    """A certificate with its key: the Secret `<name>` is the folder `credentials/<name>`.

    One of another namespace is `credentials/<namespace>.<name>`.
    """

    group: GroupName = ""
    kind: KindName = "Secret"
    name: Annotated[str, AfterValidator(check_credential)]
    namespace: Name | None = None


class ListenerTls(Model):
    """How a listener proves itself; with Passthrough what clients send is passed on as it is."""

    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: Annotated[Many[CertificateRef], Field(max_length=2)] = ()

    @model_validator(mode="after")
    def _shown(self) -> ListenerTls:
        if (self.mode == "Terminate") is (not self.certificate_refs):
            raise ValueError("`certificateRefs` is for `Terminate`, which needs it; add or remove it")
        return self


def _in_capitals(given: Any) -> Any:
    """Return the specification's protocols in capitals, however they are written; others as they are."""
    known = isinstance(given, str) and given.upper() in ("HTTP", "HTTPS", "TLS", "TCP", "UDP")
    return given.upper() if known else given


class Listener(Model):
    """A port at the edge, and the host that is served there (none given: every host)."""

    name: ObjectName
    hostname: Hostname | None = None
    port: PortNumber
    protocol: Annotated[str, Field(min_length=1, max_length=255), BeforeValidator(_in_capitals)]
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()

    @model_validator(mode="after")
    def _fits(self) -> Listener:
        if self.protocol in ("HTTPS", "TLS") and self.tls is None:
            raise ValueError(f"`{self.protocol}` needs `tls`; add it")
        if self.protocol in ("HTTP", "TCP", "UDP") and self.tls is not None:
            raise ValueError(f"`{self.protocol}` is plain text; write `HTTPS` or `TLS`, or remove `tls`")
        if self.protocol in ("TCP", "UDP") and self.hostname is not None:
            raise ValueError(f"`{self.protocol}` has no names to go by; remove `hostname`")
        if self.protocol == "HTTPS" and self.tls is not None and self.tls.mode == "Passthrough":
            raise ValueError("what is passed through is not looked into; write `TLS`, or `mode: Terminate`")
        return self

    @property
    def host(self) -> str:
        """The host, or `*`."""
        return self.hostname or "*"

    @property
    def passes_through(self) -> bool:
        """Whether TLS is passed on as it is."""
        return self.tls is not None and self.tls.mode == "Passthrough"


class ClientAuthoritiesRef(Model):
    """Whose certificates of clients are good: the ConfigMap (or Secret) `<name>` is `credentials/<name>/ca.crt`."""

    group: GroupName
    kind: KindName
    name: Annotated[str, AfterValidator(check_credential)]
    namespace: Name | None = None


class ClientValidation(Model):
    """Clients show a certificate of these authorities, or are not let in; with `AllowInsecureFallback` they are."""

    ca_certificate_refs: Annotated[Many[ClientAuthoritiesRef], Field(min_length=1, max_length=8)]
    mode: Literal["AllowValidOnly", "AllowInsecureFallback"] = "AllowValidOnly"

    @model_validator(mode="after")
    def _one(self) -> ClientValidation:
        if len(self.ca_certificate_refs) > 1:
            raise ValueError("of `caCertificateRefs` one is supported; put all authorities into its `ca.crt`")
        return self


class ClientTlsConfig(Model):
    """What clients must show; nothing where it does not say."""

    validation: ClientValidation | None = None


class PortTlsConfig(Model):
    """The same for the listeners of a port."""

    port: PortNumber
    tls: ClientTlsConfig


class FrontendTls(Model):
    """What clients of listeners for HTTPS must show: on a port that has words of its own these, else `default`."""

    default: ClientTlsConfig
    per_port: Annotated[Many[PortTlsConfig], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _distinct(self) -> FrontendTls:
        ports = [one.port for one in self.per_port]
        if twice := next((port for port in ports if ports.count(port) > 1), None):
            raise ValueError(f"port {twice} is there twice; keep one")
        return self


class BackendClientTls(Model):
    """What a gateway shows backends to which a BackendTLSPolicy has it open TLS."""

    client_certificate_ref: CertificateRef | None = None


class GatewayTls(Model):
    """TLS of a whole gateway: what clients must show, and what it shows backends."""

    frontend: FrontendTls | None = None
    backend: BackendClientTls | None = None


class GatewayAddress(Model):
    """Which gateway instance it is: that at an `IPAddress`, or of a Service's `Hostname`, as in `ingress`; "": any."""

    type: Annotated[str, Field(min_length=1, max_length=253)] = "IPAddress"
    value: Annotated[str, Field(max_length=253)] = ""


class KubernetesGatewaySpec(Model):
    """The class, and the listeners; without `addresses` it is those instances that have Istio's own gateway label."""

    gateway_class_name: ObjectName
    listeners: Annotated[Many[Listener], Field(min_length=1, max_length=64)]
    addresses: Annotated[Many[GatewayAddress], Field(max_length=16)] = ()
    tls: GatewayTls = GatewayTls()

    @property
    def client_certificate(self) -> CertificateRef | None:
        """What it shows backends."""
        return self.tls.backend.client_certificate_ref if self.tls.backend is not None else None

    @property
    def lets_anybody_in(self) -> bool:
        """Whether some of its listeners take clients whose certificates are not good."""
        frontend = self.tls.frontend
        every = (frontend.default, *(one.tls for one in frontend.per_port)) if frontend is not None else ()
        return any(one.validation is not None and one.validation.mode != "AllowValidOnly" for one in every)

    def wanted_of_clients(self, listener: Listener) -> ClientValidation | None:
        """What clients of a listener must show."""
        frontend = self.tls.frontend
        if frontend is None or listener.protocol != "HTTPS":
            return None
        own = next((one.tls for one in frontend.per_port if one.port == listener.port), frontend.default)
        return own.validation

    @model_validator(mode="after")
    def _distinct(self) -> KubernetesGatewaySpec:
        names = [one.name for one in self.listeners]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the listener `{twice}` is there twice; rename one")
        return self


class KubernetesGateway(GatewayApiResource):
    """The Gateway API's Gateway."""

    api_version: Stable = "gateway.networking.k8s.io/v1"
    kind: Literal["Gateway"] = "Gateway"
    spec: KubernetesGatewaySpec

    @property
    def kind_key(self) -> str:
        """As kubectl tells it from Istio's."""
        return KEY
