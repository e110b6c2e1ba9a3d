"""What is told of a request against what a real Envoy does with it, for every route of Bookinfo's tasks and more."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, LISTENER, ROUTE
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources.filters import manager, rds
from policyd.xds.snapshot import Resource, Snapshot, check_snapshot, make_snapshot, resource
from policyd.xds.walk.asked import Asked
from policyd.xds.walk.sent import Sent
from policyd.xds.walk.step import Step, chain_for, steps
from tests.way.folders import loaded, shared, task
from tests.xds.envoy_process import EnvoyProcess, eventually
from tests.xds.test_real_envoy import NODE, serving

pytestmark = pytest.mark.e2e

EVERYTHING = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - match:
        - {uri: {exact: /exact}, headers: {x-a: {exact: one}, x-b: {}}}
        - {uri: {exact: /Exact}, ignoreUriCase: true, method: {exact: POST}}
      redirect: {uri: /elsewhere, authority: other.example.com, redirectCode: 302}
    - match: [{uri: {prefix: /moved}}]
      redirect: {prefixRewrite: /new, scheme: https}
    - match: [{uri: {exact: /port}}]
      redirect: {port: 8443}
    - match: [{uri: {prefix: /api/}, withoutHeaders: {x-a: {prefix: t}}}]
      rewrite: {uri: /, authority: inside.example.com}
      headers: {request: {set: {x-c: "100%"}, add: {x-a: more}, remove: [x-b]}}
      route: [{destination: {host: reviews}}]
    - match: [{uri: {regex: "/(books|authors)/[0-9]{1,3}"}}]
      rewrite: {uriRegexRewrite: {match: "^/([a-z]+)/([0-9]+)", rewrite: '/by-id/\\2/\\1'}}
      route: [{destination: {host: details}}]
    - match: [{queryParams: {q: {exact: "a b"}}}, {queryParams: {q: {regex: "[0-9]+"}, more: {}}}]
      route: [{destination: {host: ratings}}]
    - match: [{headers: {x-a: {regex: "(?i)TWO|three"}}, uri: {prefix: /}}]
      directResponse: {status: 418, body: {string: teapot}}
    - match: [{authority: {prefix: "reviews.default"}}]
      route: [{destination: {host: productpage}, weight: 3}, {destination: {host: details}, weight: 1}]
    - match: [{scheme: {exact: http}, uri: {prefix: /reviews}}]
      rewrite: {uri: /stars}
      route: [{destination: {host: reviews}}]
    - route: [{destination: {host: ratings}}]
"""
WILD = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild}
spec:
  hosts: ["*.books.example.com", "books.example.com"]
  http:
    - match: [{uri: {exact: /a}}]
      directResponse: {status: 203}
    - route: [{destination: {host: details}}]
"""
SHARES = shared("[{name: reviews, port: 9080}, {name: nobody, port: 80}, {name: ratings, port: 9080}]")
SCENARIOS: Mapping[str, Mapping[str, str]] = {
    "plain": {},
    "everything": {"mesh/everything.yaml": EVERYTHING, "mesh/wild.yaml": WILD},
    "shares": {"mesh/shares.yaml": SHARES},
    **{
        name: task("subsets", name)
        for name in (
            "reviews-v1", "reviews-v2", "reviews-v3", "reviews-half-v3", "reviews-by-user", "reviews-timeout",
            "reviews-mirror", "ratings-delay", "ratings-abort", "ratings-slow",
        )
    },
}  # fmt: skip
HOSTS = ("reviews", "reviews:9080", "reviews.default.svc.cluster.local", "ratings", "Details", "reviews:80",
         "a.books.example.com", "x.y.books.example.com:80", "books.example.com", "nowhere")  # fmt: skip
PATHS = ("/", "/exact", "/EXACT", "/moved/x?y=1", "/api/x//y/../z", "/books/12", "/books/1234", "/p?q=a%20b",
         "/p?q=a+b", "/p?more&q=12", "/p?q=x&q=12&more=", "/%72eviews/0", "/reviews/0", "/a", "/port",
         "/a%2Fb", "/./a")  # fmt: skip
HEADERS: tuple[Mapping[str, str], ...] = ({}, {"x-a": "one", "x-b": "1"}, {"x-a": "two"}, {"end-user": "jason"})
GATEWAY_HOSTS = ("any.example.com", "ingress:8080")
GATEWAY_PATHS = ("/productpage", "/static/x.css", "/login", "/api/v1/products/1", "/nope")
TOLD = "x-told-"


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a request; one that went on tells cluster, path, Host and the headers that rules change.

    Of several headers of one name Envoy tells the first.
    """

    status: int
    location: str = ""
    cluster: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[str, ...] = ()


def told(sent: Sent, listener: str, asked: Asked) -> set[Seen]:
    """What the program says that may come of a request."""
    chain = chain_for(sent.listener(listener) or {}, encrypted=False)
    return {seen for _, found in steps(sent, chain or {}, asked) for seen in may_come(found)}


def may_come(found: Step) -> Iterator[Seen]:
    if found.answer is not None:
        yield Seen(found.answer.status, found.answer.location)
    for leg in found.legs:
        headers = tuple(leg.asked.headers.get(name, "").partition(",")[0] for name in ("x-a", "x-b", "x-c"))
        if not leg.copy:
            yield Seen(200, "", leg.cluster, leg.asked.path, leg.asked.authority.lower(), headers)


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("x", timeout=20)
        self._path = str(path)

    def connect(self) -> None:
        """As the class does, elsewhere."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)

    def ask(self, asked: Asked) -> Seen:
        """Send a request and say what came of it."""
        self.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"host": asked.authority, "content-length": "0", **asked.headers}.items():
            self.putheader(name, value)
        self.endheaders()
        response = self.getresponse()
        response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        if f"{TOLD}path" not in headers:
            return Seen(response.status, headers.get("location", ""))
        changed = tuple(headers[f"{TOLD}{name}"] for name in ("x-a", "x-b", "x-c"))
        place = headers[f"{TOLD}cluster"], headers[f"{TOLD}path"], headers[f"{TOLD}host"].lower()
        return Seen(response.status, "", *place, changed)


def lay(envoy: EnvoyProcess, tables: Mapping[str, dict[str, Any]]) -> Snapshot:
    """Each table behind a listener of its own; all clusters lead to one that tells what it gets."""
    made: list[Resource] = [listener(envoy, "app", {"route_config": {"name": "app", "virtual_hosts": [echo()]}})]
    names: set[str] = set()
    for name, table in tables.items():
        made += [listener(envoy, name, rds(name)), resource(ROUTE, name, bare(table) | {"name": name} | TELLS)]
        names |= set(clusters_of(table))
    pipe = {"endpoint": {"address": {"pipe": {"path": str(envoy.folder / "app")}}}}
    for name in names:
        places = {"cluster_name": name, "endpoints": [{"lb_endpoints": [pipe]}]}
        made.append(resource(CLUSTER, name, {"name": name, "type": "STATIC", "load_assignment": places}))
    return check_snapshot(make_snapshot(made))


TELLS = {
    "response_headers_to_add": [{"header": {"key": f"{TOLD}cluster", "value": "%UPSTREAM_CLUSTER_RAW%"}}],
}


def echo() -> dict[str, Any]:
    values = {"path": "%REQ(:PATH)%", "host": "%REQ(:AUTHORITY)%"} | {n: f"%REQ({n})%" for n in ("x-a", "x-b", "x-c")}
    headers = [
        {"header": {"key": TOLD + key, "value": value}, "keep_empty_value": True} for key, value in values.items()
    ]
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}, "response_headers_to_add": headers}
    return {"name": "app", "domains": ["*"], "routes": [route]}


def listener(envoy: EnvoyProcess, name: str, routes: dict[str, Any]) -> Resource:
    chain = {"filters": [manager(name, [], routes)]}
    address = {"pipe": {"path": str(envoy.folder / name)}}
    return resource(LISTENER, name, {"name": name, "address": address, "filter_chains": [chain]})


def bare(node: Any) -> Any:
    """A table without what concerns filters that are not here."""
    if isinstance(node, dict):
        return {key: bare(value) for key, value in node.items() if key != "typed_per_filter_config"}
    return [bare(one) for one in node] if isinstance(node, list) else node


def clusters_of(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(found := node.get("cluster"), str):
            yield found
        for one in node.get("weighted_clusters", {}).get("clusters", ()):
            yield one["name"]
        for value in node.values():
            yield from clusters_of(value)
    for one in node if isinstance(node, list) else ():
        yield from clusters_of(one)


def tables_of_all() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, files in SCENARIOS.items():
        live = loaded(files)
        found[name] = dict(Sent(live.snapshots["productpage-v1"]).routes("outbound") or {})
    found["gateway"] = dict(Sent(live.snapshots["ingress"]).routes("gateway/8080") or {})
    assert found["gateway"]["virtual_hosts"]
    return found


def requests(name: str) -> Iterator[Asked]:
    """What is asked in a scenario: of that with every kind of match everything, else what its task is about."""
    if name == "gateway":
        hosts, paths, methods = GATEWAY_HOSTS, GATEWAY_PATHS, ("GET",)
    elif name == "everything":
        hosts, paths, methods = HOSTS, PATHS, ("GET", "POST")
    else:
        hosts, paths, methods = HOSTS[:4], ("/%72eviews/0", "/reviews/0", "/a"), ("GET",)
    for method, host, path, headers in itertools.product(methods, hosts, paths, HEADERS):
        yield Asked(method, host, path, "http", headers)


def compare(envoy: EnvoyProcess, sent: Sent, name: str) -> Iterator[tuple[str, Asked, Seen, set[Seen]]]:
    """The requests of which something else came than was told."""
    with closing(Connection(envoy.folder / name)) as connection:
        for asked in requests(name):
            got, said = connection.ask(asked), told(sent, name, asked)
            if got not in said:
                yield name, asked, got, said


async def test_what_is_told_is_what_envoy_does() -> None:
    """Two thousand requests; of shares one is met, and it is one that was told."""
    tables, cache = tables_of_all(), SnapshotCache()
    async with EnvoyProcess(NODE) as envoy:
        snapshot = lay(envoy, tables)
        cache.set_all({NODE: snapshot})
        async with serving(envoy, cache):
            await eventually(envoy.live, "live")
            for name in tables:
                found = await asyncio.to_thread(lambda at: list(compare(envoy, Sent(snapshot), at)), name)
                assert found == [], "\n".join(map(str, found[:5]))
