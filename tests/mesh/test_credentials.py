"""Gateways with certificates: the files are there, fit together, and a port has no two meanings."""

from __future__ import annotations

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.credentials import CredentialFile
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from tests.mesh.sample import GOOD

FILES = {
    path: CredentialFile(path, f"/mesh/{path}", **told)
    for path, told in {
        "credentials/shop/tls.crt": {"text": "C", "public": "1", "algorithm": "ECDSA"},
        "credentials/shop/tls.key": {"public": "1", "is_key": True},
        "credentials/shop/ca.crt": {"text": "CA", "public": "2"},
        "credentials/more/tls.crt": {"text": "M", "public": "5", "algorithm": "RSA"},
        "credentials/more/tls.key": {"public": "5", "is_key": True},
        "credentials/more/ca.crt": {"text": "CA", "public": "2"},
        "credentials/more/ca.crl": {"text": "L", "is_list": True},
        "credentials/same/tls.crt": {"text": "S", "public": "6", "algorithm": "RSA"},
        "credentials/same/tls.key": {"public": "6", "is_key": True},
        "credentials/other/tls.crt": {"text": "O", "public": "3"},
        "credentials/other/tls.key": {"public": "4", "is_key": True},
        "credentials/open/tls.crt": {"text": "C", "public": "1"},
        "credentials/open/tls.key": {"is_key": True, "problem": "is read by all", "remedy": "close it"},
    }.items()
}


def meshed(*servers: str, files: dict[str, CredentialFile] | None = FILES) -> Mesh:
    """The good folder with these servers at its gateway."""
    gateway = GOOD["mesh/gateway.yaml"]
    at = gateway.index("    - {")
    text = gateway[:at] + "".join(f"    - {server}\n" for server in servers)
    folder = {"workloads.yaml": GOOD["workloads.yaml"], "mesh/gateway.yaml": text}
    declaration = declare(folder)
    return build(declaration, "cluster.local", assumed(declaration), credentials=files)


def server(tls: str, host: str = "a.example", port: int = 8000) -> str:
    protocol = "HTTPS" if "mode" in tls else "HTTP"
    return f"{{port: {{number: {port}, name: p, protocol: {protocol}}}, hosts: [{host}], tls: {{{tls}}}}}"


SHOP = "mode: SIMPLE, credentialName: shop"


def test_the_mesh_keeps_the_files_that_servers_name() -> None:
    mesh = meshed(server("mode: MUTUAL, credentialName: shop"), server(SHOP, "b.example"))

    assert [file.path for file in mesh.credentials] == [
        "credentials/shop/tls.crt",
        "credentials/shop/tls.key",
        "credentials/shop/ca.crt",
    ]


@pytest.mark.parametrize(
    ("tls", "paths"),
    [
        ("mode: SIMPLE, credentialNames: [shop, more]", "shop/tls.crt shop/tls.key more/tls.crt more/tls.key"),
        ("mode: MUTUAL, credentialNames: [more, shop]",
         "more/tls.crt more/tls.key shop/tls.crt shop/tls.key more/ca.crt more/ca.crl"),
        ("mode: MUTUAL, credentialName: shop, caCrl: credentials/more/ca.crl",
         "shop/tls.crt shop/tls.key shop/ca.crt more/ca.crl"),
        ("mode: OPTIONAL_MUTUAL, credentialName: shop, caCertCredentialName: more",
         "shop/tls.crt shop/tls.key more/ca.crt more/ca.crl"),
        ("mode: MUTUAL, tlsCertificates: [{serverCertificate: credentials/shop/tls.crt, privateKey: "
         "credentials/shop/tls.key}, {serverCertificate: credentials/more/tls.crt, privateKey: "
         "credentials/more/tls.key, caCertificates: credentials/shop/ca.crt}]",
         "shop/tls.crt shop/tls.key more/tls.crt more/tls.key shop/ca.crt"),
    ],
)  # fmt: skip
def test_a_server_shows_two_certificates_and_knows_what_was_revoked(tls: str, paths: str) -> None:
    assert [file.path for file in meshed(server(tls)).credentials] == [f"credentials/{one}" for one in paths.split()]


def test_without_the_files_at_hand_nothing_is_said_of_them() -> None:
    assert meshed(server("mode: SIMPLE, credentialName: nowhere"), files=None).credentials == ()


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        (
            "mode: SIMPLE, credentialName: nowhere",
            "there is no file `credentials/nowhere/tls.crt`; put it there, or a link to it",
        ),
        (
            "mode: SIMPLE, credentialName: other",
            "the key `credentials/other/tls.key` is not that of the certificate `credentials/other/tls.crt`; "
            "put the two that belong together there",
        ),
        ("mode: SIMPLE, credentialName: open", "`credentials/open/tls.key` is read by all; close it"),
        (
            "mode: SIMPLE, serverCertificate: credentials/shop/tls.key, privateKey: credentials/shop/tls.key",
            "`credentials/shop/tls.key` is a private key; name the right file",
        ),
        (
            "mode: MUTUAL, credentialName: shop, caCertificates: credentials/ca.crt",
            "there is no file `credentials/ca.crt`; put it there, or a link to it",
        ),
        (
            "mode: MUTUAL, credentialName: shop, caCertCredentialName: other",
            "there is no file `credentials/other/ca.crt`; put it there, or a link to it",
        ),
        (
            "mode: SIMPLE, credentialNames: [shop, nowhere]",
            "there is no file `credentials/nowhere/tls.key`; put it there, or a link to it",
        ),
        (
            "mode: SIMPLE, credentialNames: [more, same]",
            "both of its certificates are for RSA: clients would never see the second one; "
            "of two, one is for RSA and one for ECDSA; keep one of these",
        ),
        (
            "mode: SIMPLE, tlsCertificates: [{serverCertificate: credentials/shop/tls.crt, privateKey: "
            "credentials/more/tls.key}]",
            "the key `credentials/more/tls.key` is not that of the certificate `credentials/shop/tls.crt`; "
            "put the two that belong together there",
        ),
        (
            "mode: MUTUAL, credentialName: shop, caCrl: credentials/shop/ca.crl",
            "there is no file `credentials/shop/ca.crl`; put it there, or a link to it",
        ),
        (
            "mode: MUTUAL, credentialName: shop, caCrl: credentials/shop/ca.crt",
            "`credentials/shop/ca.crt` is a certificate; name the right file",
        ),
    ],
)
def test_a_certificate_that_cannot_be_shown_is_refused(tls: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as error:
        meshed(server(tls))

    assert f"mesh/gateway.yaml:7: {problem}" in [str(found) for found in error.value.problems]


@pytest.mark.parametrize(
    ("servers", "problem"),
    [
        (
            [server(SHOP), server("httpsRedirect: true")],
            "port 8000 of `edge` is for TLS and plain requests at once, see the Gateway `default/edge`; "
            "give one of them another port",
        ),
        (
            [server(SHOP), server("mode: MUTUAL, credentialName: shop")],
            "the host `a.example` on port 8000 of `edge` has its TLS in `default/edge` already; "
            "write it into one server",
        ),
        (
            [server(SHOP, "'*'"), server(SHOP, "shop/*")],
            "the host `*` on port 8000 of `edge` has its TLS in `default/edge` already; write it into one server",
        ),
        (
            [server(SHOP, "'*'"), server("mode: AUTO_PASSTHROUGH", "'*.local'").replace("HTTPS", "TLS")],
            "the host `*` on port 8000 of `edge` has its TLS in `default/edge` already; write it into one server",
        ),
    ],
)
def test_servers_that_contradict_each_other_are_refused(servers: list[str], problem: str) -> None:
    with pytest.raises(InvalidInput) as error:
        meshed(*servers)

    assert [str(found) for found in error.value.problems] == [f"mesh/gateway.yaml:8: {problem}"]


def test_one_host_on_two_ports_and_two_hosts_on_one_are_no_contradiction() -> None:
    assert meshed(server(SHOP), server(SHOP, "b.example"), server("httpsRedirect: true", port=8001)).gateways


# ---- what callers show outside

OUTSIDE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  resolution: DNS
  ports: [{number: 443, name: https, protocol: HTTPS}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: books}
spec: {host: books.example.com, trafficPolicy: {tls: {TLS}}}
"""


def calling(tls: str, files: dict[str, CredentialFile] | None = FILES) -> Mesh:
    folder = {"workloads.yaml": GOOD["workloads.yaml"], "mesh/outside.yaml": OUTSIDE.replace("{TLS}", f"{{{tls}}}")}
    declaration = declare(folder)
    return build(declaration, "cluster.local", assumed(declaration), credentials=files)


@pytest.mark.parametrize(
    ("tls", "paths"),
    [
        ("mode: SIMPLE, credentialName: shop", ["ca.crt"]),
        ("mode: MUTUAL, credentialName: shop", ["tls.crt", "tls.key", "ca.crt"]),
        ("mode: SIMPLE, caCertificates: /ca.pem", []),
    ],
)
def test_the_mesh_keeps_the_files_that_callers_name(tls: str, paths: list[str]) -> None:
    assert [one.path for one in calling(tls).credentials] == [f"credentials/shop/{path}" for path in paths]


PROXYS = {"caCertificates": "/ca.pem", "clientCertificate": "/a.pem", "privateKey": "/a.key", "caCrl": "/crl.pem"}


@pytest.mark.parametrize(
    ("tls", "problem"),
    [
        ("mode: SIMPLE, credentialName: nowhere", "there is no file `credentials/nowhere/ca.crt`; put it there, or a "
         "link to it"),
        ("mode: MUTUAL, credentialName: open", "`credentials/open/tls.key` is read by all; close it"),
        ("mode: SIMPLE, credentialName: other", "there is no file `credentials/other/ca.crt`; put it there, or a link "
         "to it"),
        ("mode: MUTUAL, credentialName: other", "the key `credentials/other/tls.key` is not that of the certificate "
         "`credentials/other/tls.crt`; put the two that belong together there"),
        ("mode: MUTUAL", "`spec.trafficPolicy.tls`: `MUTUAL` needs `clientCertificate` and `privateKey`, or "
         "`credentialName`; add them"),
        ("mode: SIMPLE, credentialName: shop, caCertificates: /ca.pem", "`spec.trafficPolicy.tls`: `credentialName` "
         "has the certificates and the key; remove the other files"),
        ("mode: ISTIO_MUTUAL, credentialName: shop", "`spec.trafficPolicy.tls`: with `ISTIO_MUTUAL` nothing but "
         "`sni`, a name, is given; remove the other fields"),
        ("mode: SIMPLE, caCrl: /crl.pem", "`spec.trafficPolicy.tls`: `caCrl` lists what `caCertificates` have revoked; "
         "give these, without `insecureSkipVerify`"),
        *(
            (f"mode: MUTUAL, {', '.join(f'{name}: {path}' for name, path in {**PROXYS, relative: 'own.pem'}.items())}",
             f"`spec.trafficPolicy.tls.{relative}`: `own.pem` is a file of the caller's machine; write its whole path, "
             "from `/` on")
            for relative in PROXYS
        ),
        ("mode: SIMPLE, credentialName: ../x", "`spec.trafficPolicy.tls.credentialName`: `../x` is no name of a "
         "credential; use lower-case letters, digits, dots and dashes"),
    ],
)  # fmt: skip
def test_what_a_caller_could_not_show_is_refused(tls: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as error:
        calling(tls)
    assert f"mesh/outside.yaml:12: {problem}" in [str(one) for one in error.value.problems]


SHOWING = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web}
spec:
  workloadSelector: {labels: {app: web}}
  ingress: [{port: {number: 80}, tls: {mode: MUTUAL, credentialName: NAME}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}}
"""
ALL = ("tls.crt", "tls.key", "ca.crt")


def showing(name: str) -> Mesh:
    declaration = declare({"workloads.yaml": GOOD["workloads.yaml"], "mesh/it.yaml": SHOWING.replace("NAME", name)})
    return build(declaration, "cluster.local", assumed(declaration), credentials=FILES)


def test_a_sidecar_that_shows_a_certificate_has_it() -> None:
    assert [one.path for one in showing("shop").credentials] == [f"credentials/shop/{file}" for file in ALL]
    with pytest.raises(InvalidInput) as error:
        showing("nowhere")
    missing = [f"there is no file `credentials/nowhere/{file}`" for file in ALL]
    assert [one.message for one in error.value.problems] == missing
