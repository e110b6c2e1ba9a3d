"""The mesh's metrics under the names and labels that Istio's users know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.signals import FOLD, FOLDED, Party, folded, standard_labels, unfolded

REVIEWS = Party("reviews-v1", "default", "reviews", "v1", "reviews.default")
RATINGS = Party("ratings-v1", "default", "ratings", "v1", "ratings.default")
ID = "spiffe://cluster.local/ns/default/sa/bookinfo-{}"
INBOUND = {
    "local": f"{RATINGS}|{ID.format('ratings')}",
    "remote": str(REVIEWS),
    "remote_id": ID.format("reviews"),
    "response_code": "200",
    "response_flags": "-",
    "grpc_response_status": "",
    "decision": "allow",
    "policy": "ratings",
}
LABELS = {
    "reporter": "destination",
    "source_workload": "reviews-v1",
    "source_canonical_service": "reviews",
    "source_canonical_revision": "v1",
    "source_workload_namespace": "default",
    "source_principal": ID.format("reviews"),
    "source_app": "reviews",
    "source_version": "v1",
    "source_cluster": "unknown",
    "destination_workload": "ratings-v1",
    "destination_canonical_service": "ratings",
    "destination_canonical_revision": "v1",
    "destination_workload_namespace": "default",
    "destination_principal": ID.format("ratings"),
    "destination_app": "ratings",
    "destination_version": "v1",
    "destination_cluster": "unknown",
    "destination_service": "ratings.default.svc.cluster.local",
    "destination_service_name": "ratings",
    "destination_service_namespace": "default",
    "request_protocol": "http",
    "response_code": "200",
    "grpc_response_status": "",
    "response_flags": "-",
    "connection_security_policy": "mutual_tls",
    "decision": "allow",
    "policy": "ratings",
    "reason": "",
}
OUTBOUND = {
    **INBOUND,
    "local": f"{REVIEWS}|{ID.format('reviews')}",
    "remote": str(RATINGS),
    "remote_id": ID.format("ratings"),
    "cluster": "outbound|9080|v1|ratings.default",
}


def test_what_the_asked_one_counts_has_all_of_istio_s_labels() -> None:
    assert standard_labels(INBOUND) == LABELS


def test_what_the_asking_one_counts_has_the_same_ends() -> None:
    assert standard_labels(OUTBOUND) == {**LABELS, "reporter": "source", "connection_security_policy": "unknown"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"remote": "", "remote_id": ""},
            {
                f"source_{name}": "unknown"
                for name in (
                    "workload", "canonical_service", "canonical_revision", "workload_namespace", "principal", "app",
                    "version",
                )
            },
        ),
        ({"grpc_response_status": "7"}, {"grpc_response_status": "7", "request_protocol": "grpc"}),
        ({"decision": "", "policy": ""}, {"decision": "", "policy": ""}),
        ({"response_code": ""}, {"response_code": "unknown"}),
    ],
)  # fmt: skip
def test_what_is_not_known_is_unknown(changed: dict[str, str], expected: dict[str, str]) -> None:
    assert standard_labels({**INBOUND, **changed}) == {**LABELS, **expected}


@pytest.mark.parametrize(
    ("cluster", "remote", "service"),
    [
        ("outbound|443||www.example.com", "", ("www.example.com", "www.example.com", "unknown")),
        ("", "", ("BlackHoleCluster", "BlackHoleCluster", "unknown")),
        ("any-name", "", ("unknown", "unknown", "unknown")),
    ],
)
def test_a_request_to_the_outside_has_the_host_as_its_service(
    cluster: str, remote: str, service: tuple[str, str, str]
) -> None:
    labels = standard_labels({**OUTBOUND, "cluster": cluster, "remote": remote})

    names = ("destination_service", "destination_service_name", "destination_service_namespace")
    assert tuple(labels[name] for name in names) == service


_FIELDS = st.text("abcXYZ019._-", max_size=20)


@given(st.builds(Party, _FIELDS, _FIELDS, _FIELDS, _FIELDS, _FIELDS))
def test_a_party_is_read_as_it_was_written(party: Party) -> None:
    assert Party.parse(str(party)) == party


@pytest.mark.parametrize(
    "text", ["", "a", "a|b|c|d", "a|b|c|d|e|f", "a|b|c|d|e\n", "a b|c|d|e|f", '"|b|c|d|e', "a" * 397 + "||||"]
)
def test_a_peer_that_calls_itself_anything_else_is_unknown(text: str) -> None:
    assert Party.parse(text) == Party()


def test_a_telemetry_adds_changes_and_removes_labels() -> None:
    tags = {**INBOUND, "request_host": "details", "source_app": "", "without": "source_principal,policy"}

    wanted = {**LABELS, "request_host": "details", "source_app": "unknown"}
    assert standard_labels(tags) == {
        name: value for name, value in wanted.items() if name not in ("source_principal", "policy")
    }


@pytest.mark.parametrize("tags", [INBOUND, OUTBOUND])
def test_an_envoy_counts_by_one_tag_that_means_the_same(tags: dict[str, str]) -> None:
    with_label = {**tags, "request_host": "details", "without": "policy"}

    assert list(folded(tags)) == ["asks" if "cluster" in tags else "asked"]
    assert standard_labels(unfolded(folded(tags))) == standard_labels(tags)
    assert standard_labels(unfolded(folded(with_label))) == standard_labels(with_label)
    assert unfolded(tags) == tags
    no_policy = {name: value for name, value in tags.items() if name != "policy"}
    assert "policy" not in unfolded({**folded(no_policy), "without": "policy"})


@pytest.mark.parametrize(
    ("result", "rule", "labels"),
    [
        ("", "", ("allow", "open", "")),  # policyd has decided
        ("allowed", "mine", ("allow", "mine", "")),
        ("denied", "closed", ("deny", "closed", "forbidden")),
        ("denied", " none", ("deny", "", "not_permitted")),
        ("denied", " failed", ("deny", "", "not_permitted")),
        ("denied", " incomplete", ("error", "", "broken")),
    ],
)
def test_what_the_envoy_itself_decided_has_the_word_over_what_policyd_said(
    result: str, rule: str, labels: tuple[str, str, str]
) -> None:
    asked = {**INBOUND, "response_code": "403", "decision": "allow", "policy": "open"}

    found = standard_labels(unfolded(folded({**asked, "result": result, "rule": rule})))

    decision, policy, reason = labels
    assert found == standard_labels({**asked, "decision": decision, "policy": policy}) | {"reason": reason}


def test_what_a_telemetry_counts_by_has_the_word_over_the_tag_that_holds_others() -> None:
    tags = {**folded(INBOUND), "response_code": "fine", "connection_security_policy": ""}

    wanted = {**LABELS, "response_code": "fine", "connection_security_policy": "unknown"}
    assert standard_labels(unfolded(tags)) == wanted


@given(st.text(FOLD + "a|;/", max_size=40), st.text(FOLD + "a|;/", max_size=40))
def test_what_strangers_call_themselves_is_no_other_tag_s_value(remote_id: str, remote: str) -> None:
    found = unfolded(folded({**INBOUND, "remote_id": remote_id, "remote": remote}))

    assert {name: found[name] for name in FOLDED if name in INBOUND and not name.startswith("remote")} == {
        name: value for name, value in INBOUND.items() if not name.startswith("remote")
    }


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"decision": "deny", "response_code": "403", "policy": "no-delete"}, "forbidden"),
        ({"decision": "deny", "response_code": "403", "policy": ""}, "not_permitted"),
        ({"decision": "deny", "response_code": "200", "grpc_response_status": "7", "policy": ""}, "not_permitted"),
        ({"decision": "deny", "response_code": "400", "policy": ""}, "path"),
        ({"decision": "deny", "response_code": "200", "grpc_response_status": "13", "policy": ""}, "path"),
        ({"decision": "deny", "response_code": "401", "policy": ""}, "token"),
        ({"decision": "deny", "response_code": "200", "grpc_response_status": "16", "policy": ""}, "token"),
        ({"decision": "error", "response_code": "503", "policy": ""}, "broken"),
        # an Envoy that did not ask, and one whose own answer has nothing to do with it
        ({"decision": "", "policy": "", "response_code": "403"}, ""),
        # a Telemetry has another code, or none
        ({"decision": "deny", "response_code": "refused", "policy": ""}, "unknown"),
        ({"decision": "deny", "response_code": "", "policy": "", "without": "response_code"}, "unknown"),
    ],
)
def test_why_a_request_was_refused_follows_from_what_was_decided_and_answered(
    changed: dict[str, str], reason: str
) -> None:
    assert standard_labels({**INBOUND, **changed})["reason"] == reason


def test_without_the_policy_nobody_knows_whether_one_forbade() -> None:
    tags = {name: value for name, value in INBOUND.items() if name != "policy"}

    assert standard_labels({**tags, "decision": "deny", "response_code": "403"})["reason"] == "unknown"
    assert standard_labels({**tags, "decision": "deny", "response_code": "401"})["reason"] == "token"
