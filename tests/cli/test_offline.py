"""Commands that need a folder only: check, authorize, policy test; and who decided a check."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policyd._pb import admin_pb2 as pb
from policyd.audit.record import Record
from policyd.cli.check_run import Wanted, choose, judge, pages, sending_of
from policyd.cli.exits import Exit
from policyd.cli.request import Answer, Sending
from policyd.config.authority import FederatedSettings
from policyd.errors import InvalidInput
from policyd.offline.loaded import Loaded, load_folder
from policyd.sources.relations import Relations
from tests.cli.conftest import Said

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PERMIT = '@id("{id}")\npermit (principal{who}, action, resource{what});\n'


@pytest.fixture
def bookinfo(root: Path, tmp_path: Path) -> Path:
    """The declared files of the sample."""
    target = tmp_path / "bookinfo"
    skip = shutil.ignore_patterns(".policyd", "bookinfo", "__pycache__")
    shutil.copytree(root / "examples" / "bookinfo", target, ignore=skip)
    return target


def test_a_good_folder_is_ok(policyd: Callable[..., Said], bookinfo: Path) -> None:
    assert policyd("check", bookinfo) == Said(Exit.OK, "ok: 5 services, 5 workloads, 7 instances, 5 policies\n", "")
    assert policyd("check", bookinfo, "--json").value["ok"] is True
    assert not (bookinfo / ".policyd").exists()


def test_a_folder_may_be_named_as_everywhere_else(policyd: Callable[..., Said], bookinfo: Path) -> None:
    assert policyd("check", "--dir", bookinfo) == policyd("check", bookinfo)
    twice = "error: the folder is given twice\n  name it once: as DIR, or with `--dir`\n"
    assert policyd("check", bookinfo, "--dir", bookinfo) == Said(Exit.USAGE, "", twice)


def test_every_problem_is_said_at_once(policyd: Callable[..., Said], bookinfo: Path) -> None:
    (bookinfo / "groups.yaml").write_text("groups: {a: {}, a: {}}\n")
    (bookinfo / "policies" / "details.cedar").write_text("permit (principal")

    said = policyd("check", bookinfo)
    value = policyd("check", bookinfo, "--json").value

    assert (said.code, said.out) == (Exit.INVALID, "")
    assert "groups.yaml:1: " in said.err
    assert "policies/details.cedar:1: " in said.err
    assert said.err.endswith("problems found\n")
    assert {problem["file"] for problem in value["problems"]} == {"groups.yaml", "policies/details.cedar"}


def test_a_check_of_something_that_does_not_exist_is_a_problem(policyd: Callable[..., Said], bookinfo: Path) -> None:
    (bookinfo / "checks.yaml").write_text("\n- {name: x, request: nobody GET http://details/, expect: 200}\n")

    said = policyd("check", bookinfo)

    assert said.code == Exit.INVALID
    assert said.err.startswith("checks.yaml:2: `nobody` is nobody in the mesh; ")


def test_without_policies_a_warning_says_that_all_is_denied(policyd: Callable[..., Said], bookinfo: Path) -> None:
    shutil.rmtree(bookinfo / "policies")
    shutil.rmtree(bookinfo / "cases")

    said = policyd("check", bookinfo)

    assert said.code == Exit.OK
    assert "warning: policies: there are no policies: every request is denied; write" in said.out


@pytest.mark.parametrize(
    ("who", "what", "why"),
    [
        (
            "", ' == Service::"detials.default"',
            "there is no service `detials.default`; did you mean `details.default`?",
        ),
        (
            ' == Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-rating"', "",
            "there is no workload `spiffe://cluster.local/ns/default/sa/bookinfo-rating`; "
            "did you mean `spiffe://cluster.local/ns/default/sa/bookinfo-ratings`?",
        ),
        (
            "", ' == Service::"copy.default"',
            "requests to `copy.default` are decided as requests to `details.default`, with which it shares a port; "
            "write the policy for `details.default`",
        ),
        ("", ' == Service::"details.default"', None),
        (' == Workload::"spiffe://partner.org/ns/shop/sa/web"', "", None),
        ("", ' in Namespace::"default"', None),
    ],
)  # fmt: skip
def test_a_policy_that_never_matches_is_warned_of(bookinfo: Path, who: str, what: str, why: str | None) -> None:
    (bookinfo / "policies" / "extra.cedar").write_text(PERMIT.format(id="extra", who=who, what=what))
    (bookinfo / "mesh" / "copy.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: copy}\n"
        "spec: {selector: {app: details}, ports: [{port: 9080, name: http}]}\n"
    )
    workloads = (bookinfo / "workloads.yaml").read_text()
    (bookinfo / "workloads.yaml").write_text(
        re.sub(r"({service: details,[^}]*labels: {)", r"\1app: details, ", workloads)
    )

    warnings = [str(warning) for warning in load_folder(bookinfo, cases=False).warnings]

    assert warnings == ([f"policies/extra.cedar:2: `extra` never matches: {why}"] if why else [])


BANK = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: pay}
spec:
  hosts: [pay.bank.test]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.7}]
  subjectAltNames: ["spiffe://bank.test/ns/default/sa/pay"]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: pay}
spec: {host: pay.bank.test, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
"""


def test_a_trust_domain_that_a_command_made_known_is_known_offline(
    policyd: Callable[..., Said], bookinfo: Path
) -> None:
    (bookinfo / "mesh" / "pay.yaml").write_text(BANK)
    unknown = policyd("check", bookinfo)
    assert (unknown.code, "policyd ca federation create" in unknown.err) == (Exit.INVALID, True)
    state = bookinfo / ".policyd"
    state.mkdir()
    Relations(state / "federation.json").create(FederatedSettings.model_validate({"trustDomain": "bank.test"}), list)
    assert policyd("check", bookinfo).code == Exit.OK


def test_what_a_command_made_known_and_may_not_be_read_is_warned_of(
    policyd: Callable[..., Said], bookinfo: Path
) -> None:
    (bookinfo / ".policyd").write_text("a folder that cannot be entered")
    said = policyd("check", bookinfo)
    assert (said.code, said.out.splitlines()[0]) == (
        Exit.OK,
        f"warning: {bookinfo}/.policyd/federation.json: what `policyd ca federation create` made known cannot be "
        "looked at, so it is unknown here: not a directory; check as the state's owner",
    )


def test_a_request_is_decided_and_explained(policyd: Callable[..., Said], bookinfo: Path) -> None:
    allowed = policyd("authorize", "productpage", "GET", "http://details/details/0", "--dir", bookinfo)
    denied = policyd("authorize", "reviews", "GET", "http://details/details/0", "--dir", bookinfo)

    assert allowed.code == Exit.OK
    assert allowed.out.startswith("allow: permitted by `details-from-productpage` (policies/details.cedar:2)\n")
    assert '  when { context.request.path like "/details/*" };\n' in allowed.out
    assert denied.code == Exit.DENIED
    assert denied.out.startswith(
        "deny: no policy permits `bookinfo-reviews` GET /details/0 on `details`\n"
        "would be allowed with the caller `bookinfo-productpage` (by `details-from-productpage`)\n"
    )


def test_a_decision_for_programs(policyd: Callable[..., Said], bookinfo: Path) -> None:
    value = policyd("authorize", "anonymous", "DELETE", "http://reviews/", "--dir", bookinfo, "--json").value

    assert {key: value[key] for key in ("decision", "reasons", "principal", "action", "resource")} == {
        "decision": "deny", "reasons": [], "principal": 'Unauthenticated::"anonymous"',
        "action": 'Action::"DELETE"', "resource": 'Service::"reviews.default"',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nobody", "GET", "http://details/"], Exit.INVALID, "`nobody` is nobody in the mesh"),
        (["reviews", "GET", "http://nothing/"], Exit.INVALID, "no service is called `nothing`"),
        (["reviews", "GET", "details"], Exit.INVALID, "`details` is no URL of the mesh"),
        (["reviews", "GET", "http://details/", "-H", "nonsense"], Exit.USAGE, "`nonsense` is no header"),
        (["reviews", "GET"], Exit.USAGE, "missing argument `URL`"),
    ],
)
def test_a_request_that_means_nothing_is_refused(
    policyd: Callable[..., Said], bookinfo: Path, words: list[str], code: int, says: str
) -> None:
    said = policyd("authorize", *words, "--dir", bookinfo)

    assert (said.code, says in said.err) == (code, True), said


def test_cases_are_run(policyd: Callable[..., Said], bookinfo: Path) -> None:
    assert policyd("policy", "test", bookinfo) == Said(Exit.OK, "22 cases, all passed\n", "")

    cases = "- {name: wrong, request: productpage GET http://reviews/reviews/0, expect: deny}\n"
    (bookinfo / "cases" / "more.yaml").write_text(cases)
    failed = policyd("policy", "test", bookinfo)

    assert failed.code == Exit.DENIED
    assert failed.out.startswith("cases/more.yaml:1: the case `wrong` fails: expected deny, got allow by")
    assert failed.out.endswith("23 cases, 1 failed\n")
    assert policyd("policy", "test", bookinfo, "--json").value["cases"][0]["passed"] is False
    assert policyd("check", bookinfo).code == Exit.INVALID


PLACES = [
    pb.InstancePlace(
        name="ingress", service="ingress.default", role="gateway", address="127.0.0.1",
        listens=[pb.Listen(declared=8080, actual=28080)],
    ),
    pb.InstancePlace(
        name="reviews-v1", service="reviews.default", role="sidecar", address="127.0.0.1", inbound_port=20001,
        spiffe_id="spiffe://cluster.local/ns/default/sa/bookinfo-reviews", proxy_url="http://reviews-v1:s@127.0.0.1:1",
    ),
]  # fmt: skip


@pytest.fixture
def loaded(bookinfo: Path) -> Loaded:
    return load_folder(bookinfo)


def test_checks_go_where_their_words_say(loaded: Loaded) -> None:
    page, denied = loaded.questions
    mesh = loaded.live.mesh

    assert sending_of(page, PLACES, "r", mesh) == Sending(
        "GET", "http://ingress/productpage", "r", at="127.0.0.1:28080"
    )
    assert sending_of(denied, PLACES, "r", mesh) == Sending(
        "GET", "http://details:9080/details/0", "r", proxy="http://reviews-v1:s@127.0.0.1:1"
    )
    assert sending_of(denied, PLACES[:1], "r", mesh) == "no sidecar of `reviews-v1` runs here"
    assert sending_of(page, [], "r", mesh) == "nothing serves `ingress.default` here"
    assert pages(loaded, PLACES) == ["http://127.0.0.1:28080/productpage"]


TOLD = Sending("GET", "http://ingress/productpage", "r", at="127.0.0.1:28080")
PROXIED = "gatewayTopology: {proxyProtocol: {from: [%s]}}"
AWAY = "`ingress` takes connections of 192.0.2.0/24 alone (`gatewayTopology.proxyProtocol`), not of 127.0.0.1"


@pytest.mark.parametrize(
    ("topology", "client", "sent"),
    [
        ("", "", TOLD),
        (PROXIED % "127.0.0.0/8", "203.0.113.9", replace(TOLD, client="203.0.113.9")),
        (PROXIED % "127.0.0.0/8", "", replace(TOLD, client="127.0.0.1")),
        (PROXIED % "192.0.2.0/24", "203.0.113.9", AWAY),
        ("gatewayTopology: {numTrustedProxies: 1}", "203.0.113.9", replace(TOLD, forwarded="203.0.113.9")),
        ("gatewayTopology: {numTrustedProxies: 2}", "2001:db8::9", replace(TOLD, forwarded="2001:db8::9, 192.0.2.1")),
        ("gatewayTopology: {numTrustedProxies: 2}", "", TOLD),
    ],
)
def test_a_gateway_is_told_who_asks_as_what_stands_before_it_would(
    bookinfo: Path, topology: str, client: str, sent: Sending | str
) -> None:
    loaded = load_folder(before(bookinfo, topology, client))
    [question] = loaded.questions
    assert sending_of(question, PLACES, "r", loaded.live.mesh) == sent
    assert pages(loaded, PLACES) == ([] if "proxyProtocol" in topology else ["http://127.0.0.1:28080/productpage"])


def before(bookinfo: Path, topology: str, client: str) -> Path:
    """The sample with something before its gateway, and a check of a client with an address."""
    file = bookinfo / "workloads.yaml"
    gateway = "{listen: 8080}"
    text = file.read_text()
    assert gateway in text
    file.write_text(text.replace(gateway, f"{{listen: 8080, {topology}}}"))
    given = f", client: '{client}'" if client else ""
    check = f"- {{name: a, request: anonymous GET http://ingress/productpage, expect: 200{given}}}\n"
    (bookinfo / "checks.yaml").write_text(check)
    return bookinfo


def test_where_nobody_is_believed_about_a_client_a_check_names_none(bookinfo: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        load_folder(before(bookinfo, "", "203.0.113.9"))
    assert str(refused.value.problems[0]) == (
        "checks.yaml:1: nobody is believed about a client's address where `ingress` is asked; remove `client`, or give "
        "the gateway a `gatewayTopology`"
    )


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(200, "<h1>The Comedy of Errors</h1>"), ""),
        (Answer(503, "The Comedy of Errors"), "expected 200, got 503"),
        (Answer(200, "<h1>Hamlet</h1>"), "the answer does not contain `The Comedy of Errors`"),
        (Answer(problem="no answer within 15 s"), "no answer within 15 s"),
    ],
)
def test_a_check_fails_for_a_reason(loaded: Loaded, answer: Answer, problem: str) -> None:
    assert judge(loaded.questions[0], answer, None, "").problem == problem


def record(number: int) -> Record:
    asked = {"request_id": f"q{number}", "decision_id": f"d{number}"}
    return Record(writer="w", seq=number, prev="", time=NOW, kind="decision", **asked)


@pytest.mark.parametrize(
    ("decision_id", "request_ids", "seq"),
    [
        ("d2", {"q1"}, 2),
        ("d9", {"q1"}, None),
        ("", {"q3"}, 3),
        ("", {"q2", "q3"}, 2),
        ("", {"unknown"}, None),
        ("", set(), None),
    ],
)
def test_the_record_of_a_check_is_found(decision_id: str, request_ids: set[str], seq: int | None) -> None:
    records = [record(number) for number in (1, 2, 3)]

    found = choose(records, Wanted(decision_id, frozenset(request_ids)))

    assert (found.seq if found else None) == seq


def test_mesh_support_prints_the_fields_of_a_kind(policyd: Callable[..., Said]) -> None:
    said = policyd("mesh", "support", "EnvoyFilter", "Gateway")
    value = policyd("mesh", "support", "EnvoyFilter", "--json").value

    assert [line.split()[:3] for line in said.out.splitlines()[:3]] == [
        ["KIND", "PLACE", "SUPPORTED"],
        ["EnvoyFilter", "…", "no"],
        ["Gateway", "spec", "yes"],
    ]
    why = "proxies take nothing but what is made from resources; say what you need by another kind"
    assert value == {"fields": [{"kind": "EnvoyFilter", "place": "…", "fields": [], "supported": False, "why": why}]}


def test_mesh_support_of_no_kind_says_which_was_meant(policyd: Callable[..., Said]) -> None:
    said = policyd("mesh", "support", "VirtualServise")

    assert (said.code, said.err) == (
        Exit.INVALID,
        "error: `VirtualServise` is no kind\n  did you mean `VirtualService`?\n",
    )
