"""What a sidecar decided by itself: its log becomes the record that policyd would have made, or nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from policyd.audit.record import Entry, Fault
from policyd.audit.stencil import EPOCH, MICROSECOND
from policyd.authz.local_record import Compared, Foreign, Reader, Told
from policyd.authz.record import Include
from policyd.authz.ruling import Ruling
from policyd.errors import IncompleteRequest
from policyd.mesh.model import Mesh
from tests.authz.checks import PAGE, REVIEWS, ruling_of
from tests.authz.lines import BEGAN, ID, LISTENER, line

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MICROS = (NOW - EPOCH) // MICROSECOND
INSTANCE = "reviews-v1"
POLICIES = """\
@id("red")
permit (principal, action in Action::"http", resource == Service::"reviews.default")
when { context.request.headers.hasTag("x-team") && context.request.headers.getTag("x-team") == "red" };
"""
OVERFLOW = """\
@id("count") forbid (principal, action in Action::"http", resource)
when { context.request.segments + 9223372036854775807 > 0 };
"""


@pytest.fixture(scope="module")
def ruling(mesh: Mesh, schema: Any) -> Ruling:
    """One policy that reads a header, and a forbid that fails."""
    return ruling_of(mesh, schema, {"p.cedar": POLICIES + OVERFLOW})


def told(ruling: Ruling, logged: bytes, *, known: bool = True) -> Told:
    reader = Reader({ruling.revision: ruling}.get if known else lambda _: None)
    first = reader.read(logged, INSTANCE, ruling.mesh, MICROS)
    again = reader.read(logged, INSTANCE, ruling.mesh, MICROS)  # from memory
    assert (again.entry, again.own, again.compared) == (first.entry, first.own, first.compared)
    return first


def test_what_was_decided_is_on_record_with_what_policies_read(ruling: Ruling) -> None:
    entry = told(ruling, line(ruling.revision)).entry

    assert (entry.decided_by, entry.kind, entry.decision, entry.status) == ("proxy", "decision", "allow", 200)
    assert (entry.decision_id, entry.revision, entry.time) == (ID, ruling.revision, BEGAN)
    assert (entry.principal, entry.action) == (f'Workload::"{PAGE}"', 'Action::"GET"')
    assert (entry.resource, entry.proxy, entry.reasons) == ('Service::"reviews.default"', "reviews-v1", ("red",))
    assert entry.context["request"] == {
        "method": "GET", "host": "reviews", "path": "/reviews/0", "segments": 2, "headers": {"x-team": "red"},
    }  # fmt: skip
    assert (entry.request_id, entry.trace_id) == ("r-1", "0af7651916cd43dd8448eb211c80319c")


EDITORS = """\
@id("red")
permit (principal, action in Action::"http", resource)
when { context has user && context.user.hasTag("roles") && context.user.getTag("roles").contains("editor") };
"""
ALICE: dict[str, Any] = {
    "id": "https://a/alice",
    "issuer": "https://a",
    "subject": "alice",
    "claims": {"roles": ["editor", 42, True], "email": ["a@example.com"]},
}


def taking(mesh: Mesh) -> Mesh:
    """A listener that takes tokens."""
    listener = replace(mesh.listeners[LISTENER], issuers={"https://a": frozenset[str]()})
    return replace(mesh, listeners={**mesh.listeners, LISTENER: listener})


def test_the_user_is_on_record_with_the_claims_that_policies_read(mesh: Mesh, schema: Any) -> None:
    ruling = ruling_of(taking(mesh), schema, {"p.cedar": EDITORS})

    entry = told(ruling, line(ruling.revision, user=ALICE)).entry

    user = {"__entity": {"type": "User", "id": "https://a/alice"}, "claims": {"roles": ["42", "editor", "true"]}}
    assert (entry.reasons, entry.context["user"]) == (("red",), user)


def test_claims_that_the_operator_lists_are_on_record_too(mesh: Mesh, schema: Any) -> None:
    ruling = ruling_of(taking(mesh), schema, {"p.cedar": EDITORS})
    reader = Reader({ruling.revision: ruling}.get, Include(claims=frozenset({"email"})))

    entry = reader.read(line(ruling.revision, user=ALICE), INSTANCE, ruling.mesh, MICROS).entry

    assert entry.context["user"]["claims"] == {"email": ["a@example.com"], "roles": ["42", "editor", "true"]}


@pytest.mark.parametrize(
    "said",
    [
        "alice",
        {"id": "https://a/alice"},
        "[" * 100_000,
        {**ALICE, "issuer": "https://b"},
        {**ALICE, "subject": ""},
        {**ALICE, "claims": {"n": 2**53}},
        {**ALICE, "claims": {"n": float("nan")}},
        {**ALICE, "claims": "none"},
    ],
)
def test_what_tells_of_no_user_that_the_listener_believes_is_no_record(mesh: Mesh, schema: Any, said: Any) -> None:
    ruling = ruling_of(taking(mesh), schema, {"p.cedar": EDITORS})

    with pytest.raises(IncompleteRequest):
        told(ruling, line(ruling.revision, user=said))


@pytest.mark.parametrize(
    ("first", "reasons"),
    [
        ("blue", ("blue", "red")),  # all that permit it
        ("red", ("red",)),  # policyd would have named another first: what the sidecar did stands
        ("gone", ("gone",)),
    ],
)
def test_of_several_policies_envoy_tells_the_first_and_the_record_has_all(
    mesh: Mesh, schema: Any, first: str, reasons: tuple[str, ...]
) -> None:
    ruling = ruling_of(mesh, schema, {"p.cedar": POLICIES + POLICIES.replace('"red")', '"blue")')})
    logged = line(ruling.revision, rule=first)

    entry = told(ruling, logged).entry

    assert (entry.reasons, entry.cached) == (reasons, False)


@pytest.mark.parametrize(
    ("name", "decision", "status", "reasons", "source"),
    [
        ("red", "deny", 403, ("red",), None),
        (" none", "deny", 403, (), "count"),  # errors are on record as policyd has them
        (" path", "deny", 400, (), "unacceptable_path"),
        (" incomplete", "error", 503, (), "incomplete_request"),
        (" failed", "deny", 403, (), "count"),  # policyd says which forbid it was
    ],
)
def test_a_denial_says_what_policyd_would(
    ruling: Ruling, name: str, decision: str, status: int, reasons: tuple[str, ...], source: str | None
) -> None:
    entry = told(ruling, line(ruling.revision, result="denied", rule=name)).entry

    assert (entry.decision, entry.status, entry.reasons) == (decision, status, reasons)
    assert [fault.source for fault in entry.errors] == ([source] if source else [])


def test_of_a_revision_that_is_no_longer_known_what_was_asked_is_on_record(ruling: Ruling) -> None:
    entry = told(ruling, line(ruling.revision), known=False).entry

    assert (entry.decision, entry.principal, entry.reasons) == ("allow", f'Workload::"{PAGE}"', ("red",))
    assert entry.context == {"request": {"method": "GET", "host": "reviews", "path": "/reviews/0"}}


def test_of_a_failed_forbid_of_an_unknown_revision_it_is_said_that_one_failed(ruling: Ruling) -> None:
    logged = line(ruling.revision, result="denied", rule=" failed")

    assert told(ruling, logged, known=False).entry.errors == (Fault("decision", "a forbid failed"),)


@pytest.mark.parametrize(
    ("central", "compared"),
    [
        ({"decision": "allow", "policy": "red"}, Compared("allow red", "allow red")),
        ({"decision": "deny", "policy": ""}, Compared("allow red", "deny")),
        ({"decision": "allow", "policy": "blue"}, Compared("allow red", "allow blue")),
    ],
)
def test_a_request_of_the_sample_is_compared(ruling: Ruling, central: dict[str, str], compared: Compared) -> None:
    found = told(ruling, line(ruling.revision, central={**central, "revision": ruling.revision})).compared

    assert found == compared
    assert found.differs == (compared.local != compared.central)


def test_what_no_text_can_be_is_said_by_nobody(ruling: Ruling) -> None:
    central = {"decision": "\ud800", "policy": "", "revision": ruling.revision}

    assert told(ruling, line(ruling.revision, central=central)).compared == Compared("allow red", "")


@pytest.mark.parametrize("central", [{}, "{", "[1]", {"decision": "deny", "policy": "", "revision": "0" * 64}])
def test_answers_by_two_revisions_are_not_compared(ruling: Ruling, central: Any) -> None:
    assert told(ruling, line(ruling.revision, central=central)).compared is None


@pytest.mark.parametrize(
    ("changes"),
    [
        {"result": ""},
        {"result": "perhaps"},
        {"rule": ""},
        {"result": "denied", "rule": " other"},
        {"rule": "x" * 300},
        {"revision": "main"},
        {"peer": ""},
        {"source": ""},
        {"source": "envoy://inner"},
        {"source": "10.0.0.1%3:1"},
        {"source": "[fe80::1%]:1"},
        {"source": "[fe80::1%3%4]:1"},
        {"destination": "10.0.0.2"},
        {"authority": ""},
        {"method": "G T"},
        {"began": "now"},
        {"decision_id": "mine"},
    ],
)
def test_what_tells_of_no_decision_is_none(ruling: Ruling, changes: dict[str, Any]) -> None:
    with pytest.raises(IncompleteRequest):
        told(ruling, line(**{"revision": ruling.revision, **changes}))


@pytest.mark.parametrize("cut", range(18))
def test_a_line_that_was_cut_is_none(ruling: Ruling, cut: int) -> None:
    with pytest.raises(IncompleteRequest):
        told(ruling, b"\x1f".join(line(ruling.revision).split(b"\x1f")[:cut]))


@pytest.mark.parametrize("listener", ["reviews-v2/inbound", "gone", ""])
def test_what_is_told_of_a_listener_of_others_is_none(ruling: Ruling, listener: str) -> None:
    with pytest.raises(Foreign):
        told(ruling, line(ruling.revision, listener=listener))


def test_what_was_remembered_of_one_instance_is_not_believed_of_another(ruling: Ruling) -> None:
    reader = Reader({ruling.revision: ruling}.get)
    reader.read(line(ruling.revision), INSTANCE, ruling.mesh, MICROS)

    with pytest.raises(Foreign):
        reader.read(line(ruling.revision), "reviews-v2", ruling.mesh, MICROS)


def test_of_revisions_that_nobody_knows_nothing_is_remembered(ruling: Ruling) -> None:
    reader = Reader(lambda _: None)
    for number in range(10):
        with pytest.raises(Foreign):
            reader.read(line(f"{number:064x}", listener="gone"), INSTANCE, ruling.mesh, MICROS)

    assert (reader._by_ends, reader._alike) == ({}, {})


@pytest.mark.parametrize(
    ("began", "believed"),
    [(NOW - timedelta(days=1), True), (NOW - timedelta(days=8), False), (NOW + timedelta(seconds=1), False)],
)
def test_a_time_that_cannot_be_is_not_believed(ruling: Ruling, began: datetime, believed: bool) -> None:
    assert told(ruling, line(ruling.revision, began=began)).entry.time == (began if believed else NOW)


def test_a_request_without_a_usable_caller_is_on_record_as_an_error(ruling: Ruling) -> None:
    logged = line(
        ruling.revision,
        result="denied",
        rule=" incomplete",
        peer="",
    )

    entry = told(ruling, logged).entry

    assert (entry.decision, entry.status, entry.principal, entry.proxy) == ("error", 503, "", "reviews-v1")


def test_of_requests_that_are_alike_each_has_what_is_its_own(ruling: Ruling) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"began": BEGAN + timedelta(milliseconds=1)},
        {"request_id": "r-2"},
        {"traceparent": "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        {"source": "10.0.0.9:1"},
        {"path": "/reviews/1"},
        {"headers": {"x-team": "blue"}},
        {"headers": {}},
        {"method": "POST"},
        {"result": "denied"},
        {"peer": str(REVIEWS)},
    ]
    lines = [line(ruling.revision, **one) for one in changes]
    include = Include(frozenset({"x-request-id"}))
    lines += [line(ruling.revision, {"x-request-id": one}) for one in "ab"]
    reader = Reader({ruling.revision: ruling}.get, include)

    def read(one: bytes, reader: Reader) -> Entry:
        return reader.read(one, INSTANCE, ruling.mesh, MICROS).entry

    together = [read(one, reader) for one in lines]

    assert together == [read(one, Reader({ruling.revision: ruling}.get, include)) for one in lines]
    assert len({str(one) for one in together}) == len(lines) - 1  # no policy reads the address


def test_a_policy_that_reads_addresses_has_each_on_record(mesh: Mesh, schema: Any) -> None:
    near = '@id("red") permit (principal, action in Action::"http", resource) when { context has source };'
    ruling = ruling_of(mesh, schema, {"p.cedar": near})
    reader = Reader({ruling.revision: ruling}.get)
    addresses = ("10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1", "[fe80::1%3]:1")

    entries = [reader.read(line(ruling.revision, source=one), INSTANCE, mesh, MICROS).entry for one in addresses]

    sources = [(one.context["source"]["ip"]["__extn"]["arg"], one.context["source"]["port"]) for one in entries]
    assert sources == [("10.0.0.1", 1), ("10.0.0.2", 1), ("fd00::1", 1), ("fe80::1", 1)]
