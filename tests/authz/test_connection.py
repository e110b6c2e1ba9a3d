"""A connection to a service that speaks TCP: who connects, to what, and that no request passes for one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from policyd import envoy_api
from policyd.authz.record import Outcome, entry_of
from policyd.authz.request import Query, read_check
from policyd.authz.ruling import Ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.schema import Schema
from policyd.errors import IncompleteRequest
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.spiffe import SpiffeId
from tests.authz.checks import address, ruling_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
WEB, DB = (SpiffeId.workload("cluster.local", "default", name) for name in ("web", "db"))
WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80, inboundPort: 1001}
  db-v1: {service: db, port: 3306, protocol: tcp, inboundPort: 1002, labels: {tier: data}}
"""
POLICY = """
@id("db-from-web")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/web", action == Action::"connect",
  resource == Service::"db.default")
when { context.destination.port == 3306 && context.destination.labels.hasTag("tier") };
"""


def mesh_of() -> Mesh:
    declaration = declare({"workloads.yaml": WORKLOADS})
    return build(declaration, "cluster.local", assumed(declaration))


def check_of(**changes: Any) -> Any:
    """web connects to db, as the sidecar of db tells it."""
    attributes: dict[str, Any] = {
        "source": {"principal": str(WEB), "address": address("127.0.0.1", 41000)},
        "destination": {"principal": str(DB), "address": address("127.0.0.1", 1002)},
        "request": {"http": {"method": "CONNECT", "host": "echo:3306"}},
        "context_extensions": {"policyd.listener": "db-v1/inbound"},
    }
    return envoy_api.build("envoy.service.auth.v3.CheckRequest", {"attributes": attributes | changes})


@pytest.fixture(scope="module")
def permitting(schema: Schema) -> Ruling:
    return ruling_of(mesh_of(), schema, {"policies/db.cedar": POLICY})


def test_a_connection_is_read_whole() -> None:
    mesh = mesh_of()
    assert read_check(check_of(), DB, mesh, NOW) == Query(
        facts=HttpFacts(
            principal=WEB,
            service="db.default",
            method="CONNECT",
            target="",
            host="echo",
            time=NOW,
            source=Endpoint("127.0.0.1", 41000),
            destination=Endpoint("127.0.0.1", 3306),
            instance="db-v1",
        ),
        listener=mesh.listeners["db-v1/inbound"],
    )


EDGE = SpiffeId.workload("cluster.local", "default", "edge")
GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 9443, name: tls, protocol: TLS}, hosts: ["*"], tls: {mode: PASSTHROUGH}}]
"""


def at_the_edge(**headers: str) -> Query:
    """A stranger's connection, as the gateway tells it of the tunnel that it makes of it."""
    files = {"workloads.yaml": WORKLOADS + "gateways:\n  edge: {listen: [9443]}\n", "mesh/edge.yaml": GATEWAY}
    declaration = declare(files)
    check = check_of(
        source={"principal": str(WEB), "address": address("192.0.2.7", 41000)},
        destination={"address": address("127.0.0.1", 9443)},
        request={"http": {"method": "CONNECT", "host": "0.edge.default:9443", "headers": headers}},
        context_extensions={"policyd.listener": "edge/gateway/9443/connections"},
    )
    return read_check(check, EDGE, build(declaration, "cluster.local", assumed(declaration)), NOW, ())


@pytest.mark.parametrize(("headers", "sni"), [({}, ""), ({"x-policyd-sni": "db.example"}, "db.example")])
def test_a_connection_at_the_edge_is_nobodys_and_has_the_name_that_was_asked_for(
    headers: dict[str, str], sni: str
) -> None:
    assert at_the_edge(**headers).facts == HttpFacts(
        principal=None,
        service="edge.default",
        method="CONNECT",
        target="",
        host=sni,
        time=NOW,
        source=Endpoint("192.0.2.7", 41000),
        destination=Endpoint("127.0.0.1", 9443),
        instance="edge",
        sni=sni,
    )


def test_a_name_that_cannot_be_is_no_question() -> None:
    with pytest.raises(IncompleteRequest, match="is no name to ask for"):
        at_the_edge(**{"x-policyd-sni": "invalid:a_b c"})


def test_elsewhere_nobody_is_believed_about_the_name_they_asked_for() -> None:
    request = {"http": {"method": "CONNECT", "host": "echo:3306", "headers": {"x-policyd-sni": "db.example"}}}
    assert read_check(check_of(request=request), DB, mesh_of(), NOW).facts.sni == ""


REQUEST = {"http": {"method": "GET", "path": "/", "host": "db"}}


@pytest.mark.parametrize(
    ("changes", "peer", "message"),
    [
        ({}, WEB, f"the listener `db-v1/inbound` belongs to `{DB}`, not to the asking `{WEB}`"),
        (
            {"destination": {"principal": str(WEB), "address": address("127.0.0.1", 1002)}},
            DB,
            f"`{DB}` asks about a connection to `'{WEB}'`",
        ),
        (
            {"source": {"address": address("127.0.0.1", 41000)}},
            DB,
            "a peer without an identity on `db-v1/inbound`, which verifies them",
        ),
        ({"request": REQUEST}, DB, "`GET` at `db-v1/inbound`, which is for connections"),
        (
            {
                "destination": {"principal": str(WEB), "address": address("127.0.0.1", 1001)},
                "context_extensions": {"policyd.listener": "web-v1/inbound"},
            },
            WEB,
            "`CONNECT` at `web-v1/inbound`, which is for requests",
        ),
        ({"request": {}}, DB, "the check has no usable method"),
    ],
)
def test_what_is_no_connection_of_ones_own_is_no_question(
    changes: dict[str, Any], peer: SpiffeId, message: str
) -> None:
    with pytest.raises(IncompleteRequest) as caught:
        read_check(check_of(**changes), peer, mesh_of(), NOW)
    assert str(caught.value) == message


@pytest.mark.parametrize(("source", "allowed"), [(WEB, True), (DB, False)])
def test_policies_decide_who_connects(permitting: Ruling, source: SpiffeId, allowed: bool) -> None:
    check = check_of(source={"principal": str(source), "address": address("127.0.0.1", 41000)})
    decision = permitting.decide(permitting.request(read_check(check, DB, permitting.mesh, NOW).facts))
    assert decision.allowed is allowed


def test_the_record_of_a_connection_has_no_path(permitting: Ruling) -> None:
    query = read_check(check_of(), DB, permitting.mesh, NOW)
    question = permitting.engine.question(permitting.request(query.facts))
    entry = entry_of(
        Outcome("allow", 200, "r", query, question.request, permitting.engine.answer(question)), "d", NOW, 1
    )
    assert (entry.action, entry.resource, entry.proxy) == ('Action::"connect"', 'Service::"db.default"', "db-v1")
    assert entry.context["request"] == {"method": "CONNECT", "host": "echo"}
    assert entry.context["destination"] == {"port": 3306, "labels": {"app": "db", "tier": "data"}}


SECURE = "workloads: {web-v1: {service: web, port: 80}, db-v1: {service: db, port: 3306, protocol: PROTOCOL}}\n"


@pytest.mark.parametrize(
    ("protocol", "headers", "sni"),
    [
        ("tls", {}, "echo"),
        ("tls", {"x-policyd-sni": "db.example"}, "db.example"),
        ("tcp", {}, ""),
        ("tcp", {"x-policyd-sni": "db.example"}, ""),
    ],
)
def test_a_service_of_tls_is_asked_for_by_the_name_that_its_sidecar_holds_the_client_to(
    protocol: str, headers: dict[str, str], sni: str
) -> None:
    declaration = declare({"workloads.yaml": SECURE.replace("PROTOCOL", protocol)})
    mesh = build(declaration, "cluster.local", assumed(declaration))
    check = check_of(request={"http": {"method": "CONNECT", "host": "Echo:3306", "headers": headers}})

    assert read_check(check, DB, mesh, NOW, ()).facts.sni == sni


@pytest.mark.parametrize(
    ("host", "headers"),
    [
        ("echo:1", {"x-policyd-sni": "a,b"}),
        ("echo.:1", {}),  # which many take for `echo`, and a policy for another
        ("echo:1:2", {}),  # its client would be held to `echo`, and `echo:1` decided about
    ],
)
def test_what_is_no_name_is_no_connection(host: str, headers: dict[str, str]) -> None:
    declaration = declare({"workloads.yaml": SECURE.replace("PROTOCOL", "tls")})
    mesh = build(declaration, "cluster.local", assumed(declaration))
    check = check_of(request={"http": {"method": "CONNECT", "host": host, "headers": headers}})

    with pytest.raises(IncompleteRequest, match="is no name to ask for"):
        read_check(check, DB, mesh, NOW, ())
