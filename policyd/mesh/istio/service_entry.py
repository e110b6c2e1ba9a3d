"""Istio's ServiceEntry: names outside the mesh, their ports, and where they are served."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HostPattern, Labels, Networking, Resource
from policyd.mesh.matching import check_host
from policyd.mesh.outside import Protocol, Resolution
from policyd.mesh.protocols import by_word
from policyd.strict import NOTHING, Many, Model, Name, PortNumber

LATER: Final[Mapping[str, str]] = {
    "network": "every proxy must reach the address directly; take it out",
    "serviceAccount": "what the certificate of a host outside bears, `subjectAltNames` say; take it out",
}
MAX_ADDRESSES: Final = 256  # of one entry, each a name more that proxies know

BY_SELECTOR: Final = "machines are found by `workloadSelector`, and `endpoints` mean nothing"

_LOCALITY = re.compile(r"[A-Za-z0-9._-]{1,63}(?:/[A-Za-z0-9._-]{1,63}){0,2}")
_NAMESPACE = re.compile(r"[.*~]|[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def _check_name_outside(host: str) -> str:
    if host == "*":
        raise ValueError("`*` is every name; set `outboundTrafficPolicy: {mode: ALLOW_ANY}` in policyd.yaml instead")
    name = host.removeprefix("*.")
    if "." not in name or name.rpartition(".")[2].isdigit() or ":" in name:
        raise ValueError(f"`{host[:80]}` is no name outside the mesh; write a full DNS name, as in `www.example.com`")
    return host


def _check_vip(text: str) -> str:
    """Return an address, or a range of a few."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"`{text[:80]}` is no IP address; write one, as in `192.0.2.1`, or `192.0.2.0/28`") from None
    if found.num_addresses > MAX_ADDRESSES:
        raise ValueError(
            f"the range `{text[:80]}` has {found.num_addresses:,} addresses, and proxies know each by name; list "
            f"at most {MAX_ADDRESSES}"
        )
    return str(found) if "/" in text else str(found.network_address)


def _check_locality(locality: str) -> str:
    if not _LOCALITY.fullmatch(locality):
        raise ValueError(f"`{locality[:80]}` is no locality; write `<region>[/<zone>[/<subzone>]]`")
    return locality


def _check_export(namespace: str) -> str:
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError(f"`{namespace[:80]}` is nobody to export to; write `.`, `*`, `~` or a namespace")
    return namespace


class EntryPort(Model):
    """A port of the names: `number` is what callers use, `target_port` the endpoints' (else the same)."""

    number: PortNumber
    protocol: Protocol
    name: Name
    target_port: PortNumber | None = None


class EntryEndpoint(Model):
    """Where the names are served; `ports` by the name of the port, in the place of `target_port`.

    `labels` tell the subsets apart that DestinationRules make.
    """

    address: Annotated[str, AfterValidator(check_host)]
    ports: Mapping[Name, PortNumber] = NOTHING
    labels: Labels = NOTHING
    locality: Annotated[str, AfterValidator(_check_locality)] | None = None
    weight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class EntrySelector(Model):
    """The machines behind a name inside the mesh, by all of their labels."""

    labels: Annotated[Labels, Field(min_length=1)]


class ServiceEntrySpec(Model):
    """Names outside, and how they are found: NONE and DYNAMIC_DNS look each name up as it is asked for."""

    hosts: Annotated[Many[Annotated[HostPattern, AfterValidator(_check_name_outside)]], Field(min_length=1)]
    addresses: Many[Annotated[str, AfterValidator(_check_vip)]] = ()
    ports: Annotated[Many[EntryPort], Field(min_length=1)]
    location: Literal["MESH_EXTERNAL", "MESH_INTERNAL"] = "MESH_EXTERNAL"
    resolution: Resolution = "NONE"
    endpoints: Many[EntryEndpoint] = ()
    workload_selector: EntrySelector | None = None
    export_to: Many[Annotated[str, AfterValidator(_check_export)]] = ("*",)
    subject_alt_names: Many[Annotated[str, Field(min_length=1, max_length=2048)]] = ()

    @model_validator(mode="after")
    def _few(self) -> ServiceEntrySpec:
        if len(self.vips) > MAX_ADDRESSES:
            raise ValueError(f"`addresses` are {len(self.vips)}; list at most {MAX_ADDRESSES}")
        return self

    @property
    def vips(self) -> tuple[str, ...]:
        """The addresses that mean the host, each once."""
        every = (str(one) for text in self.addresses for one in ipaddress.ip_network(text))
        return tuple(dict.fromkeys(every))

    @model_validator(mode="after")
    def _fits(self) -> ServiceEntrySpec:
        return self._inside() if self.location == "MESH_INTERNAL" else self._outside()

    def _inside(self) -> ServiceEntrySpec:
        if self.workload_selector is None or self.endpoints:
            raise ValueError(f"inside the mesh {BY_SELECTOR}; write a WorkloadEntry for each machine")
        if self.resolution != "STATIC":
            raise ValueError("inside the mesh every machine has its address; set `resolution: STATIC`")
        if other := next((port for port in self.ports if by_word(port.protocol.lower()) is None), None):
            raise ValueError(f"the protocol {other.protocol} is not supported inside the mesh yet; use HTTP or TCP")
        if moved := next((port for port in self.ports if port.target_port not in (None, port.number)), None):
            raise ValueError(f"`targetPort` of `{moved.name}`: say it in `ports` of the WorkloadEntry; remove it")
        given = {"addresses": self.addresses, "subjectAltNames": self.subject_alt_names}
        if named := next((name for name, value in given.items() if value), None):
            raise ValueError(f"`{named}` is not supported inside the mesh yet; remove it")
        if self.export_to != ("*",):
            raise ValueError("`exportTo` is not supported inside the mesh yet; remove it")
        return self

    def _outside(self) -> ServiceEntrySpec:
        if self.workload_selector is not None:
            raise ValueError("`workloadSelector` is for machines of the mesh; set `location: MESH_INTERNAL`")
        if self.resolution in ("NONE", "DYNAMIC_DNS"):
            if self.endpoints:
                raise ValueError(f"`endpoints` mean nothing with `resolution: {self.resolution}`; remove them")
            if moved := next((port for port in self.ports if port.target_port not in (None, port.number)), None):
                raise ValueError(
                    f"`targetPort` of `{moved.name}` needs `resolution` STATIC or DNS; set one, or remove it"
                )
        elif any(host.startswith("*.") for host in self.hosts) and not self.endpoints:
            raise ValueError(f"a `*` has no address by `resolution: {self.resolution}`; set DYNAMIC_DNS")
        if self.resolution == "STATIC" and not self.endpoints:
            raise ValueError("`resolution: STATIC` needs `endpoints`; add them")
        return self


class ServiceEntry(Resource):
    """Istio's ServiceEntry: names outside the mesh, and inside it names of machines that WorkloadEntries declare."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["ServiceEntry"] = "ServiceEntry"
    spec: ServiceEntrySpec

    @property
    def is_inside(self) -> bool:
        """Whether its names are of the mesh."""
        return self.spec.location == "MESH_INTERNAL"
