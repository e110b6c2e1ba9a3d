"""The way out by an egress gateway: the workload is decided about twice, under its own identity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from policyd.offline.loaded import load_texts
from policyd.reload.live import Live, shipped_schemas
from policyd.sources.files import Folder, digest
from policyd.way.model import is_denied
from tests.way.folders import way

FILES: Mapping[str, str] = {
    "workloads.yaml": """\
workloads:
  web: {service: web, port: 80}
  cart: {service: cart, port: 80}
gateways:
  out: {listen: [80], labels: {istio: egressgateway}}
""",
    "policies/books.cedar": """\
@id("web-reads-books")
permit (
  principal == Workload::"spiffe://cluster.local/ns/default/sa/web",
  action in Action::"read",
  resource == Host::"books.example.com"
);
""",
    "mesh/books.yaml": """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 192.0.2.7}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: out}
spec:
  selector: {istio: egressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [books.example.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: books}
spec:
  hosts: [books.example.com]
  gateways: [out, mesh]
  http:
    - match: [{gateways: [mesh], port: 80}]
      route: [{destination: {host: out, port: {number: 80}}}]
    - match: [{gateways: [out], port: 80}]
      route: [{destination: {host: books.example.com, port: {number: 80}}}]
""",
}


@pytest.fixture(scope="module")
def live() -> Live:
    return load_texts(Folder(Path("mesh"), FILES, digest(FILES), credentials={}), shipped_schemas())


@pytest.mark.parametrize(("caller", "word", "denied"), [("web", "allow", False), ("cart", "deny", True)])
def test_who_leaves_is_decided_about_at_both_places(live: Live, caller: str, word: str, denied: bool) -> None:
    found = way(live, f"{caller} GET http://books.example.com/x")
    (to_gateway,) = found.destinations
    (arrival,) = to_gateway.arrivals
    (outside,) = arrival.hop.destinations

    decisions = [hop.decided for hop in (found, arrival.hop)]
    assert [one.decision.word for one in decisions if one] == [word, word]
    assert {one.request.principal.id for one in decisions if one} == {f"spiffe://cluster.local/ns/default/sa/{caller}"}
    assert [hop.place.line for hop in (found, arrival.hop) if hop.place] == [24, 26]
    assert (arrival.instances, outside.cluster) == (("out",), "outbound|80||books.example.com")
    assert is_denied(found) is denied
