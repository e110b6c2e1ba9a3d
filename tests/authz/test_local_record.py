"""What a sidecar decided by itself: its log becomes the record that policyd would have made, or nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from policyd import envoy_api
from policyd.audit.record import Entry, Fault
from policyd.audit.stencil import EPOCH, MICROSECOND
from policyd.authz.local_record import Compared, Reader, Told
from policyd.authz.record import Include
from policyd.authz.ruling import Ruling
from policyd.errors import IncompleteRequest
from policyd.mesh.model import Mesh
from tests.authz.checks import PAGE, REVIEWS, changed, ruling_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MICROS = (NOW - EPOCH) // MICROSECOND
ID = "4b4613d7-14ea-4b04-b833-9cd0c0bb8add"
BEGAN = datetime(2026, 11, 23, 11, 59, 59, 250_000, UTC)
LISTENER = "reviews-v1/inbound"
POLICIES = """\
@id("red")
permit (principal, action in Action::"http", resource == Service::"reviews.default")
when { context.request.headers.hasTag("x-team") && context.request.headers.getTag("x-team") == "red" };
"""
OVERFLOW = """\
@id("count") forbid (principal, action in Action::"http", resource)
when { context.request.segments + 9223372036854775807 > 0 };
"""


def socket(ip: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": ip, "port_value": port}}


def metadata(**namespaces: dict[str, str]) -> dict[str, Any]:
    """Dynamic metadata; `rbac` and `ext_authz` are Envoy's filters."""
    return {"filter_metadata": {f"envoy.filters.http.{name}": fields for name, fields in namespaces.items()}}


def rule(name: str, word: str = "denied") -> dict[str, str]:
    return {"enforced_engine_result": word, "enforced_effective_policy_id": name}


def log(revision: str, **changes: Any) -> Any:
    """What Envoy logs of a request that its filter let pass; `changes` by path, None takes a part out."""
    fields: dict[str, Any] = {
        "common_properties": {
            "downstream_remote_address": socket("10.0.0.1", 41000),
            "downstream_local_address": socket("10.0.0.2", 15006),
            "start_time": BEGAN.isoformat().replace("+00:00", "Z"),
            "route_name": revision,
            "tls_properties": {"peer_certificate_properties": {"subject_alt_name": [{"uri": str(PAGE)}]}},
            "metadata": metadata(rbac=rule("red", "allowed")),
        },
        "request": {
            "authority": "Reviews:9080",
            "path": "/reviews/0?token=secret",
            "request_id": "r-1",
            "request_headers": {
                ":method": "GET",
                "x-team": "red",
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            },
        },
    }
    made = envoy_api.build("envoy.data.accesslog.v3.HTTPAccessLogEntry", changed(fields, changes))
    kept = made.common_properties.filter_state_objects["policyd.decision_id"]
    kept.type_url, kept.value = (
        "type.googleapis.com/google.protobuf.StringValue",
        StringValue(value=ID).SerializeToString(),
    )
    return made


@pytest.fixture(scope="module")
def ruling(mesh: Mesh, schema: Any) -> Ruling:
    """One policy that reads a header, and a forbid that fails."""
    return ruling_of(mesh, schema, {"p.cedar": POLICIES + OVERFLOW})


def told(ruling: Ruling, logged: Any, *, known: bool = True) -> Told:
    listener = ruling.mesh.listeners[LISTENER]
    reader = Reader({ruling.revision: ruling}.get if known else lambda _: None)
    first = reader.read(logged.SerializeToString(), listener, ruling.mesh, MICROS)
    again = reader.read(logged.SerializeToString(), listener, ruling.mesh, MICROS)  # from memory
    assert (again.entry, again.own, again.compared) == (first.entry, first.own, first.compared)
    return first


def test_what_was_decided_is_on_record_with_what_policies_read(ruling: Ruling) -> None:
    entry = told(ruling, log(ruling.revision)).entry

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
    "is": "somebody",
    "user": {
        "id": "https://a/alice",
        "issuer": "https://a",
        "subject": "alice",
        "claims": {"roles": ["editor", 42, True], "email": ["a@example.com"]},
    },
}


def taking(mesh: Mesh) -> Mesh:
    """A listener that takes tokens."""
    listener = replace(mesh.listeners[LISTENER], issuers={"https://a": frozenset[str]()})
    return replace(mesh, listeners={**mesh.listeners, LISTENER: listener})


def with_user(said: Any) -> dict[str, Any]:
    return {"filter_metadata": {**metadata(rbac=rule("red", "allowed"))["filter_metadata"], "policyd.user": said}}


def test_the_user_is_on_record_with_the_claims_that_policies_read(mesh: Mesh, schema: Any) -> None:
    ruling = ruling_of(taking(mesh), schema, {"p.cedar": EDITORS})

    entry = told(ruling, log(ruling.revision, common_properties__metadata=with_user(ALICE))).entry

    user = {"__entity": {"type": "User", "id": "https://a/alice"}, "claims": {"roles": ["42", "editor", "true"]}}
    assert (entry.reasons, entry.context["user"]) == (("red",), user)


def test_claims_that_the_operator_lists_are_on_record_too(mesh: Mesh, schema: Any) -> None:
    ruling = ruling_of(taking(mesh), schema, {"p.cedar": EDITORS})
    reader = Reader({ruling.revision: ruling}.get, Include(claims=frozenset({"email"})))
    logged = log(ruling.revision, common_properties__metadata=with_user(ALICE)).SerializeToString()

    entry = reader.read(logged, ruling.mesh.listeners[LISTENER], ruling.mesh, MICROS).entry

    assert entry.context["user"]["claims"] == {"email": ["a@example.com"], "roles": ["42", "editor", "true"]}


@pytest.mark.parametrize(
    "said",
    [
        {"user": "alice"},
        {"user": {}},
        {"user": {**ALICE["user"], "issuer": "https://b"}},
        {"user": {**ALICE["user"], "subject": ""}},
        {"user": {**ALICE["user"], "claims": {"n": 2**53}}},
        {"user": {**ALICE["user"], "claims": {"n": float("nan")}}},
        {"user": {**ALICE["user"], "claims": "none"}},
    ],
)
def test_what_tells_of_no_user_that_the_listener_believes_is_no_record(mesh: Mesh, schema: Any, said: Any) -> None:
    ruling = ruling_of(taking(mesh), schema, {"p.cedar": EDITORS})

    with pytest.raises(IncompleteRequest):
        told(ruling, log(ruling.revision, common_properties__metadata=with_user(said)))


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
    logged = log(ruling.revision, common_properties__metadata=metadata(rbac=rule(first, "allowed")))

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
    entry = told(ruling, log(ruling.revision, common_properties__metadata=metadata(rbac=rule(name)))).entry

    assert (entry.decision, entry.status, entry.reasons) == (decision, status, reasons)
    assert [fault.source for fault in entry.errors] == ([source] if source else [])


def test_of_a_revision_that_is_no_longer_known_what_was_asked_is_on_record(ruling: Ruling) -> None:
    entry = told(ruling, log(ruling.revision), known=False).entry

    assert (entry.decision, entry.principal, entry.reasons) == ("allow", f'Workload::"{PAGE}"', ("red",))
    assert entry.context == {"request": {"method": "GET", "host": "reviews", "path": "/reviews/0"}}


def test_of_a_failed_forbid_of_an_unknown_revision_it_is_said_that_one_failed(ruling: Ruling) -> None:
    logged = log(ruling.revision, common_properties__metadata=metadata(rbac=rule(" failed")))

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
    both = metadata(rbac=rule("red", "allowed"), ext_authz={**central, "revision": ruling.revision})

    found = told(ruling, log(ruling.revision, common_properties__metadata=both)).compared

    assert found == compared
    assert found.differs == (compared.local != compared.central)


@pytest.mark.parametrize("central", [{}, {"decision": "deny", "policy": "", "revision": "0" * 64}])
def test_answers_by_two_revisions_are_not_compared(ruling: Ruling, central: dict[str, str]) -> None:
    both = metadata(rbac=rule("red", "allowed"), ext_authz=central)

    assert told(ruling, log(ruling.revision, common_properties__metadata=both)).compared is None


@pytest.mark.parametrize(
    ("changes"),
    [
        {"common_properties__metadata": None},
        {"common_properties__metadata": metadata(rbac=rule("red", "perhaps"))},
        {"common_properties__metadata": metadata(rbac=rule("", "allowed"))},
        {"common_properties__metadata": metadata(rbac=rule(" other", "denied"))},
        {"common_properties__metadata": metadata(rbac=rule("x" * 300, "denied"))},
        {"common_properties__route_name": "main"},
        {"common_properties__tls_properties": None},
        {"common_properties__downstream_remote_address": None},
        {"request__authority": ""},
        {"request__request_headers": {":method": "G T"}},
    ],
)
def test_what_tells_of_no_decision_is_none(ruling: Ruling, changes: dict[str, Any]) -> None:
    with pytest.raises(IncompleteRequest):
        told(ruling, log(ruling.revision, **changes))


@pytest.mark.parametrize(
    ("began", "believed"),
    [(NOW - timedelta(days=1), True), (NOW - timedelta(days=8), False), (NOW + timedelta(seconds=1), False)],
)
def test_a_time_that_cannot_be_is_not_believed(ruling: Ruling, began: datetime, believed: bool) -> None:
    logged = log(ruling.revision, common_properties__start_time=began.isoformat().replace("+00:00", "Z"))

    assert told(ruling, logged).entry.time == (began if believed else NOW)


def test_a_request_without_a_usable_caller_is_on_record_as_an_error(ruling: Ruling) -> None:
    logged = log(
        ruling.revision,
        common_properties__metadata=metadata(rbac=rule(" incomplete")),
        common_properties__tls_properties=None,
    )

    entry = told(ruling, logged).entry

    assert (entry.decision, entry.status, entry.principal, entry.proxy) == ("error", 503, "", "")


def test_of_requests_that_are_alike_each_has_what_is_its_own(ruling: Ruling) -> None:
    listener = ruling.mesh.listeners[LISTENER]
    later = (BEGAN + timedelta(milliseconds=1)).isoformat().replace("+00:00", "Z")
    changes: list[dict[str, Any]] = [
        {},
        {"common_properties__start_time": later},
        {"request__request_id": "r-2"},
        {"common_properties__downstream_remote_address": socket("10.0.0.9", 1)},
        {"request__path": "/reviews/1"},
        {"request__request_headers": {":method": "GET", "x-team": "blue"}},
        {"request__request_headers": {":method": "POST", "x-team": "red"}},
        {"common_properties__metadata": metadata(rbac=rule("red"))},
        {"common_properties__tls_properties__peer_certificate_properties__subject_alt_name": [{"uri": str(REVIEWS)}]},
    ]
    logged = [log(ruling.revision, **one) for one in changes]

    include = Include(frozenset({"x-request-id"}))
    logged += [log(ruling.revision, request__request_headers={":method": "GET", "x-request-id": one}) for one in "ab"]
    reader = Reader({ruling.revision: ruling}.get, include)

    def read(one: Any, reader: Reader) -> Entry:
        return reader.read(one.SerializeToString(), listener, ruling.mesh, MICROS).entry

    together = [read(one, reader) for one in logged]

    assert together == [read(one, Reader({ruling.revision: ruling}.get, include)) for one in logged]
    assert len({str(one) for one in together}) == len(logged) - 1  # no policy reads the address
