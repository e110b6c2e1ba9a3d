"""The two files of a folder that are in words of our own: workloads.yaml and groups.yaml.

Law: a model checks what one field, or one entry, can tell by itself; nothing is cross-checked yet.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from policyd.mesh.istio.common import Labels
from policyd.mesh.istio.workload_entry import Weight
from policyd.mesh.locality import check_locality
from policyd.mesh.matching import check_account_template, check_ip, check_path, check_range, check_variables
from policyd.mesh.model import CertificateForwarding
from policyd.mesh.protocols import Protocol, by_name, undeclared
from policyd.strict import NOTHING, Many, Model, Name, PortNumber
from policyd.yaml import Path

GROUPS_FILE: Final = "groups.yaml"
MAX_PORTS: Final = 64  # of one workload
MAX_TRUSTED_PROXIES: Final = 32  # in a row, before one gateway


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _as_command(value: Any) -> Any:
    """Split a command that is one text as a shell would, as Compose does."""
    try:
        return shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"`{value[:80]}` is no command: {str(error).lower()}; close the quote") from None


Address = Annotated[str, AfterValidator(check_ip)]
Range = Annotated[str, AfterValidator(check_range)]
Command = Annotated[Many[str], Field(min_length=1, max_length=1000), BeforeValidator(_as_command)]
Listens = Annotated[Many[PortNumber], Field(min_length=1, max_length=64), BeforeValidator(_as_list)]
Member = Annotated[str, Field(min_length=1, max_length=2048)]


class PortSpec(Model):
    """A port that an application serves: `port` is the Service's, its `protocol` that of its name unless given.

    The application listens on `appPort`, its peers reach its sidecar on `inboundPort`; both are picked unless given.
    """

    port: PortNumber
    name: Name | None = None
    protocol: Protocol | None = None
    app_port: PortNumber | None = None
    inbound_port: PortNumber | None = None

    @cached_property
    def speaks(self) -> Protocol:
        """What is decided on it."""
        return self.protocol or (by_name(self.name) or undeclared(self.port) if self.name else "http")

    @cached_property
    def called(self) -> str:
        """Its name, by which a Service may lead to it."""
        return self.name or self.speaks


class MetricsSpec(Model):
    """Where an application shows metrics for Prometheus: on its first port unless another one is given."""

    path: Annotated[str, AfterValidator(check_path)] = "/metrics"
    port: PortNumber | None = None


class WorkloadSpec(Model):
    """One instance to run, in Compose's words; without `command` it is started by someone else.

    `port` is the Service's, `ports` are they where there are several; the other ports are picked free unless given.
    Of the requests to several instances each gets its `weight`'s share (none given: 1). A `proxyless` one has no
    sidecar: its application speaks xDS by itself, as gRPC does, and its peers reach it on `inboundPort`.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["port"]}, {"required": ["ports"]}]})

    service: Name
    port: PortNumber | None = None
    protocol: Protocol | None = None
    ports: Annotated[Many[PortSpec], Field(max_length=MAX_PORTS)] = ()
    command: Command | None = None
    health: Annotated[str, AfterValidator(check_path)] | None = None
    labels: Labels = NOTHING
    environment: Annotated[Mapping[str, str], AfterValidator(check_variables)] = NOTHING
    workdir: Annotated[str, Field(min_length=1)] | None = None
    service_account: Name | None = None
    namespace: Name | None = None
    address: Address = "127.0.0.1"
    app_port: PortNumber | None = None
    inbound_port: PortNumber | None = None
    outbound_port: PortNumber | None = None
    locality: Annotated[str, AfterValidator(check_locality)] | None = None
    weight: Weight | None = None
    metrics: MetricsSpec | None = None
    proxyless: bool = False

    @model_validator(mode="after")
    def _one_form(self) -> WorkloadSpec:
        if (self.port is None) is not bool(self.ports):
            raise ValueError("give either `port` or `ports`" if self.ports else "`port` is missing; add it, or `ports`")
        of_one = {"protocol": self.protocol, "appPort": self.app_port, "inboundPort": self.inbound_port}
        if self.ports and (given := next((name for name, value in of_one.items() if value is not None), None)):
            raise ValueError(f"`{given}` is of a single `port`; write it into the entries of `ports`")
        names = [port.called for port in self.ports if len(self.ports) > 1]
        numbers = [port.port for port in self.ports]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two of `ports` are called `{twice}`; give each a `name` of its own")
        if again := next((number for number in numbers if numbers.count(number) > 1), None):
            raise ValueError(f"port {again} is in `ports` twice; remove one")
        return self

    @cached_property
    def serves(self) -> tuple[tuple[Path, PortSpec], ...]:
        """Its ports, each with the place of its fields in the spec."""
        if self.port is None:
            return tuple((("ports", at), port) for at, port in enumerate(self.ports))
        one = PortSpec(port=self.port, protocol=self.protocol, app_port=self.app_port, inbound_port=self.inbound_port)
        return (((), one),)

    @cached_property
    def given_ports(self) -> tuple[tuple[Path, int], ...]:
        """The ports of the machine that are given, each with the place of its field."""
        fields: list[tuple[Path, int | None]] = [(("outboundPort",), self.outbound_port)]
        for where, port in self.serves:
            fields += [((*where, "appPort"), port.app_port), ((*where, "inboundPort"), port.inbound_port)]
        return tuple((path, number) for path, number in fields if number is not None)

    @cached_property
    def shown(self) -> tuple[tuple[int, str, str], ...]:
        """What of its ports callers of its Service see."""
        return tuple((port.port, port.speaks, port.called) for _, port in self.serves)


class ProxyProtocolSpec(Model):
    """Each connection begins with a PROXY header, of version 1 or 2, and comes from one of these ranges."""

    from_: Annotated[Many[Range], Field(alias="from", min_length=1, max_length=64)]


def _check_forwarding(given: Any) -> Any:
    if given == "ALWAYS_FORWARD_ONLY":
        raise ValueError("anybody could claim a certificate that nobody has seen; write `APPEND_FORWARD`")
    return given


class TopologySpec(Model):
    """What stands before a gateway: so many proxies that add to `x-forwarded-for`, or one that says it in first bytes.

    What a gateway tells of clients' certificates (`x-forwarded-client-cert`) is nothing, unless it says otherwise here.
    """

    num_trusted_proxies: Annotated[int, Field(ge=0, le=MAX_TRUSTED_PROXIES)] = 0
    forward_client_cert_details: Annotated[CertificateForwarding, BeforeValidator(_check_forwarding)] = "UNDEFINED"
    proxy_protocol: ProxyProtocolSpec | None = None


class GatewayInstanceSpec(Model):
    """An Envoy at the edge that opens the ports `listen`; it serves the Service of its own name.

    With `http3` its encrypted servers speak HTTP/3 too, on the UDP port of the same number.
    """

    listen: Listens
    labels: Labels = NOTHING
    service_account: Name | None = None
    namespace: Name | None = None
    address: Address = "127.0.0.1"
    locality: Annotated[str, AfterValidator(check_locality)] | None = None
    gateway_topology: TopologySpec | None = None
    http3: bool = False


class ServiceAccountSpec(Model):
    """Labels of an identity; policies see them as the Workload's tags."""

    labels: Labels = NOTHING


class Defaults(Model):
    """What holds where an instance does not say otherwise; `{service}` stands for its service's name."""

    namespace: Name = "default"
    service_account: Annotated[str, AfterValidator(check_account_template)] = "{service}"
    gateway_topology: TopologySpec = TopologySpec()


class WorkloadsFile(Model):
    """workloads.yaml; service accounts by `<name>` or `<name>.<namespace>`."""

    workloads: Mapping[Name, WorkloadSpec] = NOTHING
    gateways: Mapping[Name, GatewayInstanceSpec] = NOTHING
    service_accounts: Mapping[str, ServiceAccountSpec] = NOTHING
    defaults: Defaults = Defaults()


class GroupSpec(Model):
    """Members, as people write them: `<service account>[.<namespace>]` or SPIFFE ID, `<service>[.<namespace>]`."""

    workloads: Many[Member] = ()
    users: Many[Member] = ()
    hosts: Many[Member] = ()
    services: Many[Member] = ()
    operators: Many[Member] = ()
    groups: Many[Member] = ()


class GroupsFile(Model):
    """groups.yaml."""

    groups: Mapping[Name, GroupSpec] = NOTHING
