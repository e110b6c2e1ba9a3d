"""Each view shows what there is, whatever stands in it: hostile text is text."""

from __future__ import annotations

import json
import zlib
from datetime import timedelta
from typing import Any

import pytest

from policyd._pb import admin_pb2 as pb
from policyd._pb import authority_pb2 as ca
from policyd._pb import rotation_pb2
from policyd.audit.record import Entry, Fault
from policyd.console.app import PAGES
from policyd.state_paths import state_paths
from tests.console.conftest import NOW, PLACES, Console, World, check_harmless, place
from tests.fakes.proxies import Calls
from tests.policy import traffic

HOSTILE = "</td><script src=//evil.example/x></script><img src=x onerror=alert(1)>'\"` onload=x \u202e{{7*7}}\x1b[31m"
CALLER = 'Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-reviews"'


async def looked(console: Console, world: World, *calls: Calls) -> None:
    """Two looks, between which these calls ended in ten seconds."""
    await console.desk.watch.look()
    world.later(10.0, *calls)
    await console.desk.watch.look()


def denied(path: str = "/details/0", at: int = 1, **more: Any) -> Entry:
    """A denial as the service records it."""
    fields: dict[str, Any] = {
        "time": NOW, "kind": "decision", "decision": "deny", "status": 403, "decision_id": f"{at:032x}",
        "principal": CALLER, "action": 'Action::"GET"', "resource": 'Service::"details.default"',
        "context": {"request": {"method": "GET", "host": "details", "path": path}}, "proxy": "details-v1",
        "request_id": f"r-{at}", "duration_us": 210,
    }  # fmt: skip
    return Entry(**(fields | more))


async def test_an_edge_leads_to_its_denials_and_a_denial_to_its_reason(console: Console, world: World) -> None:
    traffic.write(world.folder, [denied(at=0xABC, revision=world.ruling.revision)])
    await looked(console, world, Calls("reviews-v1", "details-v1", denied=20), Calls("ingress", "productpage-v1", 50))

    graph = check_harmless((await console.get("/")).text)
    [edge] = [a for tag, a in graph.elements if tag == "a" and a.get("data-key") == "reviews-v1~details-v1"]
    assert edge["class"].split()[:2] == ["edge", "denied"]
    assert "100 % denied" in edge["aria-label"]
    assert "mutual TLS" in edge["aria-label"]
    assert "2.0/s requests" in edge["aria-label"]

    beside = check_harmless((await console.get(edge["href"])).text)
    assert f"/decisions/{0xABC:032x}" in beside.of("a", "href")

    why = check_harmless((await console.get(f"/decisions/{0xABC:032x}")).text)
    assert "no policy permits bookinfo-reviews GET /details/0 on details" in why.text
    assert "the caller bookinfo-productpage" in why.text
    marked = [a["title"] for tag, a in why.elements if tag == "mark" and a["class"] == "failed"]
    assert set(marked) == {
        'principal == Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-productpage": it is bookinfo-reviews, '
        'in Group::"ratings-readers"'
    }


async def test_an_edge_leads_to_its_policies_and_a_decision_to_its_trace(console: Console, world: World) -> None:
    caller = CALLER.replace("bookinfo-reviews", "bookinfo-productpage")
    allowed = denied(
        at=0xABC, decision="allow", status=200, reasons=("details-from-productpage",), principal=caller,
        trace_id="0a" * 16, revision=world.ruling.revision,
    )  # fmt: skip
    traffic.write(world.folder, [allowed])
    await looked(console, world, Calls("productpage-v1", "details-v1", 20))

    beside = check_harmless((await console.get("/?edge=productpage-v1~details-v1")).text).of("a", "href")
    policy = check_harmless((await console.get("/policies?q=details-from-productpage")).text)
    decision = check_harmless((await console.get(f"/decisions/{0xABC:032x}")).text)

    assert {"/policies?q=details-from-productpage", f"/decisions/{0xABC:032x}"} <= set(beside)
    assert "policies/details.cedar" in policy.text
    assert f"/traces/{'0a' * 16}" in decision.of("a", "href")


async def test_nodes_are_versions_or_services_and_a_focus_shows_the_neighbours(console: Console, world: World) -> None:
    await looked(console, world, Calls("productpage-v1", "reviews-v1", 10), Calls("productpage-v1", "reviews-v2", 10))

    def nodes(html: str) -> set[str]:
        page = check_harmless(html)
        return {a["data-key"] for tag, a in page.elements if tag == "a" and a.get("class", "").startswith("node")}

    assert nodes((await console.get("/")).text) == {one.name for one in PLACES}
    assert nodes((await console.get("/?by=service")).text) == {one.service for one in PLACES}
    near = {"productpage-v1", "reviews-v1"}
    assert nodes((await console.get("/?focus=reviews-v1")).text) == near
    assert nodes((await console.get("/graph/part?busy=1")).text) == near | {"reviews-v2"}
    nobody = check_harmless((await console.get("/?focus=reviews-v9&edge=reviews-v9~details-v1")).text)
    for words in ("nobody here is called reviews-v9", "no call of reviews-v9 to details-v1 is here"):
        assert words in nobody.text


async def test_a_range_that_ended_shows_what_was_and_does_not_live(console: Console, world: World) -> None:
    await console.desk.watch.look()
    world.later(60.0, Calls("reviews-v1", "details-v1", denied=60))
    await console.desk.watch.look()
    world.later(3_600.0, Calls("reviews-v1", "details-v1", denied=60))
    await console.desk.watch.look()
    then = [denied(at=7, time=NOW - timedelta(seconds=3_620)), denied(at=8, time=NOW - timedelta(seconds=30))]
    traffic.write(world.folder, then)

    now = check_harmless((await console.get("/?range=1h")).text)
    was = check_harmless((await console.get("/?until=1h&edge=reviews-v1~details-v1")).text)

    assert [a for _, a in now.elements if a.get("data-live")]
    assert not [a for _, a in now.elements if a.get("class", "").startswith("edge denied")]
    [edge] = [a for _, a in was.elements if a.get("data-key") == "reviews-v1~details-v1"]
    assert edge["class"].split()[:2] == ["edge", "denied"]
    assert not [a for _, a in was.elements if a.get("data-live")]
    links = was.of("a", "href")
    assert f"/decisions/{7:032x}" in links
    assert f"/decisions/{8:032x}" not in links
    assert any("until=" in link and "since=" in link for link in links), "all decisions of that time"
    assert (await console.get("/?until=soon")).status_code == 400
    assert (await console.get("/graph/part?until=soon")).status_code == 400


async def test_a_proxy_shows_what_it_holds(console: Console, world: World) -> None:
    body = {"name": "80", "virtual_hosts": [{"name": HOSTILE, "domains": [HOSTILE], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": HOSTILE}}]}]}  # fmt: skip
    dump = {"configs": [{"version_info": "1", "route_config": body}]}
    held = zlib.compress(json.dumps(dump).encode())
    world.fake.replies["Inspect"] = pb.InspectReply(held=held)

    page = check_harmless((await console.get("/mesh/proxies/details-v1")).text)

    assert "vhost name" in page.text
    for query, status in (("", 400), ("?kind=secrets", 400), ("?kind=" + "x" * 90, 400)):
        world.fake.replies["Inspect"] = pb.InspectReply(held=b"no zlib")
        answer = await console.get(f"/mesh/proxies/details-v1{query}")
        assert answer.status_code == status
        check_harmless(answer.text)


async def test_a_rotation_says_how_far_it_is(console: Console, world: World) -> None:
    active = rotation_pb2.Generation(state="active", since=1, root_sha256="9b" * 32, intermediate_sha256="0c" * 32)
    prepared = rotation_pb2.Generation(state="prepared", since=2, root_sha256="aa" * 32, intermediate_sha256=HOSTILE)
    world.fake.replies["RotationStatus"] = rotation_pb2.RotationReply(
        generations=[active, prepared], next="activate", next_at="in 5 m",
        waited=[rotation_pb2.Waited(agent=HOSTILE, why=HOSTILE)],
    )  # fmt: skip
    page = check_harmless((await console.get("/certificates")).text)

    assert "next: policyd ca rotate activate , by itself in 5 m" in page.text
    assert "active since 1970-01-01 00:00:01 UTC root 9b9b9b9b9b9b9b9b" in page.text
    assert "evil.example" in page.text


async def test_before_two_looks_and_without_a_server_the_graph_says_why(console: Console, world: World) -> None:
    assert "no look has ended yet" in (await console.get("/")).text
    state_paths(world.folder).server.unlink()
    await console.desk.watch.look()
    page = check_harmless((await console.get("/")).text)
    assert "nothing is running for" in page.text
    assert "no server answers" in page.text


async def test_before_the_first_request_and_trace_pages_say_what_makes_one(console: Console, world: World) -> None:
    await looked(console, world)
    assert "Send a request through the mesh" in check_harmless((await console.get("/")).text).text
    assert "No trace is in the window yet" in check_harmless((await console.get("/traces")).text).text
    assert "No such trace is in the window" in check_harmless((await console.get("/traces?denied=1")).text).text
    await looked(console, world, Calls("ingress", "productpage-v1", 1))
    assert "Nobody calls anybody" not in (await console.get("/")).text


async def test_a_proxy_that_does_not_answer_is_named(console: Console, world: World) -> None:
    await looked(console, world)
    world.fake.replies["Inspect"] = pb.InspectReply(held=b"no zlib")
    await console.desk.watch.look()

    assert "details-v1 does not answer" in check_harmless((await console.get("/")).text).text


async def test_filters_are_in_the_address_and_what_means_nothing_is_refused(console: Console) -> None:
    every = check_harmless((await console.get("/decisions?count=500")).text)
    some = check_harmless((await console.get("/decisions?decision=deny&principal=bookinfo-ratings&method=get")).text)
    rows = [text for text in some.words if text.strip() in ("allow", "deny", "error")]
    assert "allow" in every.words
    assert rows
    assert {text.strip() for text in rows} - {"allow", "error"} == {"deny"}
    for query in ("decision=maybe", "status=9", "since=soon", "count=0", "kind=x", "count=99999", "path=" + "a" * 400):
        answer = await console.get(f"/decisions?{query}")
        assert answer.status_code == 400, query
        check_harmless(answer.text)


async def test_a_decision_that_is_not_there_is_not_found(console: Console) -> None:
    answer = await console.get(f"/decisions/{'f' * 32}")

    assert answer.status_code == 404
    assert "the journal has no decision" in answer.text
    assert (await console.get("/decisions/abc")).status_code == 400


async def test_policies_cases_and_revisions_are_shown(console: Console, world: World) -> None:
    policies = check_harmless((await console.get("/policies")).text)
    assert "reviews-from-productpage" in policies.text
    assert f"revision {world.ruling.revision[:12]}" in policies.text
    assert "details-from" not in (await console.get("/policies?q=only the product page shows reviews")).text
    tests = check_harmless((await console.get("/policies/tests")).text)
    assert "cases pass" in tests.text
    revisions = check_harmless((await console.get("/policies/revisions")).text)
    assert world.ruling.revision[:12] in revisions.text


async def test_two_revisions_are_compared(console: Console, world: World) -> None:
    from tests.cli.recorded import in_force

    (world.folder / "policies" / "ratings.cedar").write_text("")
    now = in_force(world.folder, NOW)

    url = f"/policies/revisions?old={world.ruling.revision}&new={now.revision}"
    compared = check_harmless((await console.get(url)).text)
    assert "policies/ratings.cedar changed" in compared.text
    assert "newly denied" in compared.text
    assert (await console.get("/policies/revisions?old=zz&new=yy")).status_code == 400
    nowhere = await console.get("/policies/revisions?old=abcdef&new=abcdef")
    assert (nowhere.status_code, "no revision abcdef is kept" in check_harmless(nowhere.text).text) == (404, True)


async def test_certificates_are_on_a_time_line(console: Console, world: World) -> None:
    traffic.write(world.folder, [issuance("spiffe://cluster.local/ns/default/sa/bookinfo-reviews")])

    page = check_harmless((await console.get("/certificates")).text)
    assert "spiffe://cluster.local/ns/default/sa/bookinfo-reviews" in page.text
    assert "in 1 h" in page.text
    assert "ends in 1 d" in page.text
    assert "0c" * 5 in page.text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("evidence=join_token", ["orders"]), ("agent=vm-1", ["orders"]), ("evidence=none", []), ("ends=30m", []),
        ("ends=2h&evidence=join_token", ["orders"]), ("ends=2h", ["orders", "reviews"]),
    ],
)  # fmt: skip
async def test_the_ledger_is_asked_across_kinds_of_evidence(
    console: Console, world: World, query: str, shown: list[str]
) -> None:
    joined, other = (issuance(f"spiffe://cluster.local/ns/default/sa/{name}") for name in ("orders", "reviews"))
    joined.detail.update(agent="vm-1", evidence={"kind": "join_token", "selectors": []})
    traffic.write(world.folder, [joined, other])

    text = check_harmless((await console.get(f"/certificates?{query}")).text).text

    assert [name for name in ("orders", "reviews") if f"/sa/{name} certificate" in text] == shown
    assert (await console.get("/certificates?ends=soon")).status_code == 400


async def test_who_decided_is_shown_and_asked_for(console: Console, world: World) -> None:
    traffic.write(world.folder, [denied("/local", 0xABC, decided_by="proxy"), denied("/central", 0xDEF)])

    both, local, central = [
        check_harmless((await console.get(f"/decisions?path=*al{more}")).text).text
        for more in ("", "&decided_by=proxy", "&decided_by=policyd")
    ]

    assert [("/local" in text, "/central" in text) for text in (both, local, central)] == [
        (True, True), (True, False), (False, True),
    ]  # fmt: skip
    assert "deny proxy" in local
    assert "by its proxy" in check_harmless((await console.get(f"/decisions/{0xABC:032x}")).text).text


async def test_what_sidecars_decide_otherwise_is_an_alarm(console: Console, world: World) -> None:
    said = {"decision_id": "ab" * 16, "local": "allow", "central": "deny", "workload": "spiffe://cluster.local/x"}
    gap = {"operation": "local.gap", "instance": HOSTILE, "lost": 7, "reason": HOSTILE}
    told = (
        (NOW - timedelta(days=2), {**gap, "lost": 8}),
        (NOW, {"operation": "local.differs", **said}),
        (NOW, gap),
    )
    assert "Alarms" not in (await console.get("/mesh/analysis")).text
    entries = [Entry(time=time, kind="operation", decision="error", detail=detail) for time, detail in told]
    traffic.write(world.folder, entries)

    page = check_harmless((await console.get("/mesh/analysis")).text)

    assert "the sidecar of spiffe://cluster.local/x said allow, policyd deny" in page.text
    assert f"/decisions/{'ab' * 16}" in page.of("a", "href")
    assert "7 decisions of" in page.text
    assert "8 decisions of" not in page.text


async def test_a_nack_is_shown_in_the_proxys_own_words(console: Console, world: World) -> None:
    world.fake.replies["Proxies"] = pb.ProxiesReply(
        proxies=[
            pb.ProxyStatus(
                instance="details-v1",
                connected=True,
                types=[pb.TypeStatus(type="listeners", state="rejected", rejection="no filter `x`", changed_at=1)],
            )
        ]
    )
    page = check_harmless((await console.get("/mesh")).text)

    assert "details-v1 refused its listeners" in page.text
    assert "no filter `x`" in page.text
    assert "NACK" in page.text


async def test_a_trace_is_a_waterfall_that_leads_to_its_decisions(console: Console, world: World) -> None:
    summary = pb.TraceSummary(
        id="0a" * 16, name="ingress", service="web.default", start_ns=int(NOW.timestamp() * 1e9),
        duration_ns=10_000_000,
        spans=2, services=["web.default", "details.default"], denied=True,
    )  # fmt: skip
    rows = [
        pb.TraceRow(name="ingress", service="web.default", kind="server", duration_ns=10_000_000),
        pb.TraceRow(
            name="egress", service="details.default", kind="client", depth=1, offset_ns=5_000_000,
            duration_ns=2_500_000,
            moved_ns=-3_000_000, orphan=True, decision="deny", policy="p", decision_id="0b" * 16,
            tags=[pb.TraceTag(name="http.method", value="GET")],
        ),
    ]  # fmt: skip
    world.fake.replies["Traces"] = pb.TracesReply(traces=[summary], window=pb.TraceWindow(bound=1 << 25, traces=1))
    world.fake.replies["Trace"] = pb.TraceReply(summary=summary, rows=rows, cut=7)

    listed = check_harmless((await console.get("/traces?service=web&slower=5ms&denied=1")).text)
    [(_, asked)] = [one for one in world.fake.requests if one[0] == "Traces"]
    assert (asked.service, asked.denied, asked.failed, asked.slower_ns) == ("web", True, False, 5_000_000)
    assert f"/traces/{'0a' * 16}" in listed.of("a", "href")
    shown = check_harmless((await console.get(f"/traces/{'0a' * 16}")).text)
    assert f"/decisions/{'0b' * 16}" in shown.of("a", "href")
    bars = [a for tag, a in shown.elements if tag == "rect" and a["class"] != "track"]
    assert [(one["class"], one["x"], one["width"]) for one in bars] == [
        ("life", "0.0", "100.0"),
        ("failed", "50.0", "25.0"),
    ]
    for words in ("7 more were not kept", "… details.default egress", "~5.0 ms", "GET"):
        assert words in shown.text
    for url in ("/traces?slower=soon", "/traces/nonsense", f"/traces/{'0g' * 16}"):
        assert (await console.get(url)).status_code == 400


async def test_routes_follow_a_request(console: Console) -> None:
    url = "/mesh/routes?request=reviews-v1+GET+http://details/details/0"
    assert "a policy denies it" in check_harmless((await console.get(url)).text).text
    assert "it gets through" in (await console.get(url.replace("reviews-v1", "productpage"))).text
    assert "is no" in (await console.get("/mesh/routes?request=nobody+GET+http://x/")).text


ASKED = {
    "/": ("", "edge", "focus", "namespace", "by", "range", "busy", "until"),
    "/graph/part": ("", "edge", "focus", "namespace"),
    "/decisions": ("", "path", "principal", "policy", "since", "decision", "method", "status", "decided_by", "count"),
    "/policies": ("", "q"),
    "/policies/tests": ("",),
    "/policies/revisions": ("", "old"),
    "/policies/trial": ("", "since", "revision"),
    "/policies/playground": ("", "file", "request", "headers"),
    "/certificates": ("", "identity", "evidence", "agent", "ends"),
    "/traces": ("", "service", "slower"),
    "/mesh": ("",),
    "/mesh/resources": ("", "q", "kind"),
    "/mesh/analysis": ("",),
    "/mesh/routes": ("", "request", "headers"),
}


@pytest.mark.parametrize("path", [path for path in PAGES if "{" not in path])
async def test_hostile_text_is_text_in_every_view(console: Console, world: World, path: str) -> None:
    beset(world)
    await looked(
        console, world, Calls(HOSTILE, "details-v1", 5, 5), Calls("reviews-v1", "details-v1", 5, security=HOSTILE)
    )
    from urllib.parse import urlencode

    for name in ASKED[path]:
        query = f"?{urlencode({name: HOSTILE, 'new': HOSTILE})}" if name else ""
        answer = await console.get(path + query)
        assert answer.status_code in (200, 400), (path, name, answer.text)
        check_harmless(answer.text)
    check_harmless((await console.get(f"/?{urlencode({'edge': f'{HOSTILE}~details-v1'})}")).text)


async def test_hostile_text_is_text_in_a_decision(console: Console, world: World) -> None:
    beset(world)
    for at in (1, 2):
        page = check_harmless((await console.get(f"/decisions/{at:032x}")).text)
        assert "evil.example" in page.text
    check_harmless((await console.get(f"/traces/{'0a' * 16}")).text)
    check_harmless((await console.get("/decisions/" + "%3Cscript%3Ealert(1)%3C%2Fscript%3E")).text)
    check_harmless((await console.get("/%3Cscript%3Ealert(1)")).text)


def beset(world: World, text: str = HOSTILE) -> None:
    """Such a text wherever others' may come from."""
    replies = world.fake.replies
    status = pb.StatusReply(
        version=text, trust_domain=text, ready=True, revision=world.ruling.revision,
        refused=[pb.Refusal(code=text, message=text, file=text, remedy=text)], warnings=[text],
    )  # fmt: skip
    replies["Status"] = status
    replies["Instances"] = pb.InstancesReply(instances=[*PLACES, place(text, text, health=text)])
    replies["Proxies"] = pb.ProxiesReply(
        proxies=[
            pb.ProxyStatus(
                instance=text, spiffe_id=text, agent=text, envoy_version=text,
                types=[pb.TypeStatus(type="routes", state="rejected", rejection=text)],
            )
        ]
    )  # fmt: skip
    replies["Resources"] = pb.ResourcesReply(
        resources=[pb.MeshResource(kind=text, namespace=text, name=text, file=text, json=json.dumps({text: text}))]
    )
    summary = pb.TraceSummary(id=text, name=text, service=text, services=[text])
    replies["Traces"] = pb.TracesReply(traces=[summary])
    tags = [pb.TraceTag(name=text, value=text), pb.TraceTag(name="http.url", value=text)]
    row = pb.TraceRow(name=text, service=text, kind=text, peer=text, decision=text, policy=text,
                      decision_id=text, tags=tags)  # fmt: skip
    replies["Trace"] = pb.TraceReply(summary=summary, rows=[row])
    replies["CaStatus"] = ca.CaStatusReply(
        trust_domain=text, warnings=[text], elements=[ca.Element(name=text, id=text, state=text, ends=1)]
    )
    replies["ListRevoked"] = ca.ListRevokedReply(revoked=[ca.Revoked(spiffe_id=text, reason=text)])
    uid = json.dumps(text)
    headers = {"request": {"method": "GET", "host": text, "path": f"/{text}", "headers": {text: text}}}
    traffic.write(
        world.folder,
        [
            denied(f"/{text}", 1, context=headers, revision=world.ruling.revision, trace_id=text),
            denied(
                text, 2, principal=f"Workload::{uid}", resource=f"Service::{uid}", action=f"Action::{uid}",
                reasons=(text,), errors=(Fault(text, text),), proxy=text,
            ),
            issuance(text),
        ],
    )  # fmt: skip


def issuance(identity: str) -> Entry:
    """A certificate as the ledger has it."""
    return Entry(
        time=NOW,
        kind="issuance",
        decision="allow",
        principal='Workload::"spiffe://cluster.local/agent/up"',
        action='Action::"x509"',
        resource=f"Workload::{json.dumps(identity)}",
        detail={
            "spiffe_id": identity,
            "serial": "0c" * 16,
            "not_after": f"{NOW.replace(hour=NOW.hour + 1, minute=30):%FT%TZ}",
            "agent": identity[:60],
            "requested_by": identity[:60],
            "evidence": {"kind": identity[:60], "selectors": []},
        },
    )
