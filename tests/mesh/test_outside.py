"""Names outside the mesh: which addresses none may have, and which ServiceEntries make no sense."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.outside import Outbound, Outside, OutsideEndpoint, OutsidePort, covers_name, forbidden, is_forbidden
from policyd.mesh.placement import assumed
from tests.mesh.sample import GOOD, meshed, problems

ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  addresses: [192.0.2.7]
  ports:
    - {number: 80, name: http, protocol: HTTP, targetPort: 8080}
    - {number: 443, name: tls, protocol: TLS}
  location: MESH_EXTERNAL
  resolution: STATIC
  endpoints:
    - {address: 192.0.2.1, ports: {http: 8081}, locality: eu/north, weight: 3}
    - {address: 192.0.2.2}
  exportTo: ["."]
  subjectAltNames: [books.example.net]
"""


def folder(entry: str = ENTRY) -> dict[str, str]:
    return {**GOOD, "mesh/outside.yaml": entry}


def mesh_of(entry: str = ENTRY, outbound: Outbound | None = None) -> Mesh:
    declaration = declare(folder(entry))
    return build(declaration, "cluster.local", assumed(declaration), outbound or Outbound())


def test_an_entry_is_read_whole() -> None:
    assert mesh_of().outside == (
        Outside(
            host="books.example.com",
            resolution="STATIC",
            ports=(OutsidePort(80, "http", "HTTP", 8080), OutsidePort(443, "tls", "TLS", 443)),
            endpoints=(
                OutsideEndpoint("192.0.2.1", {"http": 8081}, 3, "eu/north"),
                OutsideEndpoint("192.0.2.2"),
            ),
            seen_by=frozenset({"default"}),
            vips=("192.0.2.7",),
            namespace="default",
            names=("books.example.net",),
        ),
    )


WILD = ENTRY.replace("  addresses: [192.0.2.7]\n", "").partition("  resolution:")[0].replace(", targetPort: 8080", "")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "books.example.com",
            "web.default.svc.cluster.local",
            "5: the host `web.default.svc.cluster.local` is the service `web.default` of the mesh; "
            "rename or remove one",
        ),
        (
            "books.example.com",
            "books",
            "5: `spec.hosts[0]`: `books` is no name outside the mesh; write a full DNS name, as in `www.example.com`",
        ),
        (
            "[books.example.com]",
            '["*"]',
            "5: `spec.hosts[0]`: `*` is every name; "
            "set `outboundTrafficPolicy: {mode: ALLOW_ANY}` in policyd.yaml instead",
        ),
        (
            "[books.example.com]",
            '["192.0.2.9"]',
            "5: `spec.hosts[0]`: `192.0.2.9` is no name outside the mesh; "
            "write a full DNS name, as in `www.example.com`",
        ),
        (
            "[192.0.2.7]",
            "[192.0.0.0/16]",
            "6: `spec.addresses[0]`: the range `192.0.0.0/16` has 65,536 addresses, and proxies know each by name; "
            "list at most 256",
        ),
        ("[192.0.2.7]", "[192.0.2.0/24, 192.0.3.1]", "4: `spec`: `addresses` are 257; list at most 256"),
        (
            "[192.0.2.7]",
            "[192.0.2]",
            "6: `spec.addresses[0]`: `192.0.2` is no IP address; write one, as in `192.0.2.1`, or `192.0.2.0/28`",
        ),
        ("name: tls", "name: http", "9: port 443 (`http`) repeats a number or a name; give each its own"),
        (
            "protocol: TLS",
            "protocol: MONGO",
            "9: `spec.ports[1].protocol` must be 'HTTP', 'HTTP2', 'GRPC', 'HTTPS', 'TLS' or 'TCP', "
            "not the text `MONGO`",
        ),
        (
            "MESH_EXTERNAL",
            "MESH_INTERNAL",
            "4: `spec`: inside the mesh machines are found by `workloadSelector`, and `endpoints` mean nothing; "
            "write a WorkloadEntry for each machine",
        ),
        (
            "address: 192.0.2.2",
            "address: 127.0.0.1",
            "14: `127.0.0.1` is an address that no host outside may have; "
            "list it under `allowAddresses` of `egress` in policyd.yaml if that is meant",
        ),
        (
            "address: 192.0.2.2",
            "address: 169.254.169.254",
            "14: `169.254.169.254` is an address that no host outside may have; "
            "list it under `allowAddresses` of `egress` in policyd.yaml if that is meant",
        ),
        (
            "address: 192.0.2.2",
            "address: books.example.org",
            "14: `books.example.org` is no IP address, which `resolution: STATIC` needs; "
            "write one, or set `resolution: DNS`",
        ),
        (
            "{http: 8081}",
            "{web: 8081}",
            "13: no port is called `web`; there are http, tls",
        ),
        (
            "address: 192.0.2.2",
            "address: 192.0.2.2, network: far",
            "14: field `network` of ServiceEntry is not supported in `spec.endpoints[1]`; "
            "every proxy must reach the address directly; take it out",
        ),
        (
            "address: 192.0.2.2",
            "address: 192.0.2.2, serviceAccount: a",
            "14: field `serviceAccount` of ServiceEntry is not supported in `spec.endpoints[1]`; "
            "what the certificate of a host outside bears, `subjectAltNames` say; take it out",
        ),
        (
            "eu/north",
            "eu/north/a/b",
            "13: `spec.endpoints[0].locality`: `eu/north/a/b` is no locality; write `<region>[/<zone>[/<subzone>]]`",
        ),
        (
            'exportTo: ["."]',
            'exportTo: ["A"]',
            "15: `spec.exportTo[0]`: `A` is nobody to export to; write `.`, `*`, `~` or a namespace",
        ),
        (
            "resolution: STATIC",
            "resolution: NONE",
            "4: `spec`: `endpoints` mean nothing with `resolution: NONE`; remove them",
        ),
        (
            "resolution: STATIC",
            "workloadSelector: {labels: {app: x}}\n  resolution: STATIC",
            "4: `spec`: `workloadSelector` is for machines of the mesh; set `location: MESH_INTERNAL`",
        ),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_with_its_line(old: str, new: str, problem: str) -> None:
    assert old in ENTRY
    assert problems(folder(ENTRY.replace(old, new))) == [f"mesh/outside.yaml:{problem}"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            WILD.replace("books.example.com", '"*.example.com"') + "  resolution: DNS\n",
            "mesh/outside.yaml:4: `spec`: a `*` has no address by `resolution: DNS`; set DYNAMIC_DNS",
        ),
        (
            WILD.replace("name: http", "name: http, targetPort: 81"),
            "mesh/outside.yaml:4: `spec`: `targetPort` of `http` needs `resolution` STATIC or DNS; "
            "set one, or remove it",
        ),
        (
            WILD + "  resolution: STATIC\n",
            "mesh/outside.yaml:4: `spec`: `resolution: STATIC` needs `endpoints`; add them",
        ),
        (
            f"{WILD}---\n{WILD}".replace("name: books", "name: more"),
            "mesh/outside.yaml:15: the host `books.example.com` has one of these ports in another ServiceEntry "
            "already; declare each port of a host once",
        ),
    ],
)
def test_an_entry_that_has_no_meaning_is_refused(entry: str, problem: str) -> None:
    assert problems(folder(entry)) == [problem]


def test_what_one_namespace_sees_another_may_declare_for_itself() -> None:
    far = WILD.replace("name: books", "name: books, namespace: far")
    both = mesh_of(f'{WILD}  exportTo: ["."]\n---\n{far}  exportTo: ["."]\n')

    assert [one.seen_by for one in both.outside] == [frozenset({"default"}), frozenset({"far"})]
    assert both.host("books.example.com", "far") == both.outside[1]
    assert both.host("books.example.com", "elsewhere") is None


def test_the_nearest_pattern_means_a_name() -> None:
    other = ENTRY.replace("[books.example.com]", '["*.example.com"]').replace("  addresses: [192.0.2.7]\n", "")
    mesh = mesh_of(f"{ENTRY}---\n{other.replace('name: books', 'name: all')}")

    hosts = {
        name: found.host
        for name in ("books.example.com", "a.b.example.com", "example.com")
        if (found := mesh.host(name, "default"))
    }
    assert hosts == {"books.example.com": "books.example.com", "a.b.example.com": "*.example.com"}


def test_an_operator_may_allow_an_address() -> None:
    entry = ENTRY.replace("address: 192.0.2.2", "address: 127.0.0.2")
    allowed = Outbound(allow=(ip_network("127.0.0.2/32"),))

    assert mesh_of(entry, allowed).outside[0].endpoints[1].address == "127.0.0.2"


@given(st.ip_addresses(), st.ip_addresses(v=4).map(lambda ip: ip_network(f"{ip}/32")))
def test_exactly_what_is_allowed_leaves_the_ranges(ip: object, allowed: object) -> None:
    address, network = str(ip), ip_network(str(allowed))
    before = is_forbidden(address, forbidden(["10.0.0.9"], ()))

    assert is_forbidden(address, forbidden(["10.0.0.9"], (network,))) == (
        before and not (ip_address(address) in network if ip_address(address).version == network.version else False)
    )


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.255.0.1", "0.0.0.0", "169.254.169.254", "100.100.100.200", "168.63.129.16", "::1", "::",
     "fe80::1", "::ffff:127.0.0.1", "::ffff:192.0.2.1", "fd00:ec2::254", "224.0.0.1", "10.0.0.9"],
)  # fmt: skip
def test_no_host_has_an_address_of_the_machine_its_helpers_or_the_mesh(address: str) -> None:
    assert is_forbidden(address, forbidden(["10.0.0.9"], ()))


def test_other_addresses_are_free() -> None:
    ranges = forbidden(["10.0.0.9"], (ip_network("127.0.0.2/32"),))
    assert not [one for one in ("127.0.0.2", "10.0.0.8", "192.0.2.1", "2001:db8::1") if is_forbidden(one, ranges)]


@pytest.mark.parametrize(
    ("pattern", "name", "held"),
    [
        ("*", "a.b", True),
        ("a.b", "a.b", True),
        ("a.b", "c.a.b", False),
        ("*.a.b", "c.a.b", True),
        ("*.a.b", "d.c.a.b", True),
        ("*.a.b", "a.b", False),
        ("*.a.b", "ca.b", False),
        ("*.a.b", "c.a.b.c", False),
    ],
)
def test_a_pattern_holds_for_the_names_below_it(pattern: str, name: str, held: bool) -> None:
    assert covers_name(pattern, name) is held


def test_a_range_of_a_few_addresses_is_each_of_them() -> None:
    text = ENTRY.replace("[192.0.2.7]", '[192.0.2.8/30, 192.0.2.9, "2001:db8::/127"]')
    [entry] = [one for one in meshed({**GOOD, "mesh/outside.yaml": text}).outside if one.vips]
    assert entry.vips == ("192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11", "2001:db8::", "2001:db8::1")
