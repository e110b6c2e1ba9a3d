"""The author's tools on Hosts: what a request to the outside is, who may send it, and why not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from policyd.authz.ruling import Ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.schema import Schema
from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.outside import Outbound
from policyd.mesh.placement import assumed
from policyd.policy.authorize import authorize
from policyd.policy.reach import Reach, what_can, who_can
from policyd.policy.request_form import parse_form
from policyd.policy.resolving import resolve_form
from policyd.spiffe import SpiffeId
from tests.authz.checks import ruling_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
WEB = SpiffeId.workload("cluster.local", "default", "web")
FILES = {
    "workloads.yaml": """\
workloads:
  web-v1: {service: web, port: 80}
  db-v1: {service: db, port: 3306, protocol: tcp}
  far-v1: {service: far, port: 80, namespace: far}
""",
    "mesh/outside.yaml": """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: near}
spec:
  hosts: ["*.near.example.com"]
  ports: [{number: 8080, name: http, protocol: HTTP}]
  exportTo: ["."]
""",
}
POLICIES = {
    "policies/out.cedar": """\
@id("web-reads")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"GET",
  resource == Host::"books.example.com") when { context.request.path like "/b/*" };
"""
}


def mesh_of(outbound: Outbound | None = None) -> Mesh:
    declaration = declare(FILES)
    return build(declaration, "cluster.local", assumed(declaration), outbound or Outbound())


@pytest.fixture(scope="module")
def ruling(schema: Schema) -> Ruling:
    return ruling_of(mesh_of(), schema, POLICIES)


def facts(**changes: Any) -> HttpFacts:
    same: dict[str, Any] = {
        "principal": WEB,
        "service": "",
        "method": "GET",
        "target": "/",
        "host": "books.example.com",
        "time": NOW,
        "source": Endpoint("127.0.0.1", 0),
        "destination": Endpoint("127.0.0.1", 80),
        "instance": "web-v1",
        "outside": "books.example.com",
    }
    return HttpFacts(**(same | changes))


@pytest.mark.parametrize(
    ("form", "meant"),
    [
        ("web GET http://books.example.com/", facts()),
        ("web GET http://Books.Example.com:80/b/1?x", facts(target="/b/1?x")),
        (
            "web CONNECT books.example.com:443",
            facts(method="CONNECT", destination=Endpoint("127.0.0.1", 443), sni="books.example.com"),
        ),
        (
            "web GET http://a.near.example.com:8080/",
            facts(host="a.near.example.com", outside="a.near.example.com", destination=Endpoint("127.0.0.1", 8080)),
        ),
    ],
)
def test_a_name_outside_is_a_host(form: str, meant: HttpFacts) -> None:
    assert resolve_form(parse_form(form), mesh_of(), NOW) == meant


def test_a_service_that_speaks_tcp_is_asked_for_connections() -> None:
    found = resolve_form(parse_form("web CONNECT db:3306"), mesh_of(), NOW)
    assert (found.principal, found.service, found.method, found.instance) == (WEB, "db.default", "CONNECT", "db-v1")


def test_any_name_is_one_where_any_may_be_asked_for() -> None:
    any_ = mesh_of(Outbound("ALLOW_ANY"))
    found = resolve_form(parse_form("web GET http://films.example.com:81/"), any_, NOW)
    assert (found.outside, found.destination.port) == ("films.example.com", 81)
    assert resolve_form(parse_form("web GET http://web/"), any_, NOW).service == "web.default"


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (
            "web GET http://boks.example.com/",
            "no service is called `boks.example.com` for callers in `default`; did you mean `books.example.com`?",
        ),
        (
            "web GET http://books.example.com:443/",
            "no port 443 of the host `books.example.com` answers requests; it has 80 (HTTP), 443 (TLS)",
        ),
        (
            "web CONNECT books.example.com:80",
            "no port 80 of the host `books.example.com` tunnels lead to; it has 80 (HTTP), 443 (TLS)",
        ),
        (
            "anonymous GET http://books.example.com/",
            "`anonymous` has no sidecar to leave the mesh by; name a workload of the mesh",
        ),
        (
            "web CONNECT web:80",
            "port 80 of `web.default` speaks HTTP, so that no tunnel leads to it; ask it, by GET or so",
        ),
        (
            "web GET http://db:3306/",
            "port 3306 of `db.default` speaks TCP, and answers no requests; write CONNECT host:port",
        ),
        ("web CONNECT http://a.b/", "`http://a.b/` is no place for a tunnel; write <host>:<port>"),
        (
            "far GET http://a.near.example.com:8080/",
            "no service is called `a.near.example.com` for callers in `far`; did you mean `books.example.com`?",
        ),
    ],
)
def test_what_leads_nowhere_is_said(form: str, problem: str) -> None:
    form = form.replace("far GET", "spiffe://cluster.local/ns/far/sa/far GET")
    with pytest.raises(InvalidInput) as caught:
        resolve_form(parse_form(form), mesh_of(), NOW)
    assert str(caught.value) == problem


def test_it_is_decided_as_the_sidecar_would(ruling: Ruling) -> None:
    assert authorize("web GET http://books.example.com/b/1", ruling, NOW).decision.allowed
    denied = authorize("web GET http://books.example.com/c", ruling, NOW)
    assert not denied.decision.allowed
    assert str(denied.request.resource) == 'Host::"books.example.com"'
    assert not authorize("web CONNECT books.example.com:443", ruling, NOW).decision.allowed


def test_who_may_ask_a_host_are_those_with_a_sidecar(ruling: Ruling) -> None:
    found = who_can("GET", "http://books.example.com/b/1", ruling, {})
    assert (found.service, found.identified) == ("books.example.com", True)
    assert found.callers == {
        f'Workload::"{WEB}"': Reach("allow", ("web-reads",)),
        'Workload::"spiffe://cluster.local/ns/default/sa/db"': Reach("deny"),
        'Workload::"spiffe://cluster.local/ns/far/sa/far"': Reach("deny"),
    }


def test_what_a_caller_may_lists_hosts_too(ruling: Ruling) -> None:
    found = what_can("web", ruling)
    assert list(found) == ["far.far", "web.default", "books.example.com"]
    assert {method: one.verdict for method, one in found["books.example.com"].items() if one.verdict != "deny"} == {
        "GET": "conditional"
    }
    assert "books.example.com" not in what_can("anonymous", ruling)
