"""Messages become values once, and what is no message is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd import envoy_api
from policyd.envoy_api import CLUSTER
from policyd.errors import StreamError
from policyd.xds import wire
from policyd.xds.snapshot import Resource, resource
from policyd.xds.sotw import Whole, Wish
from policyd.xds.stream import Push, Request

NODE = {
    "id": "reviews-1",
    "cluster": "reviews.default",
    "user_agent_build_version": {"version": {"major_number": 1, "minor_number": 40}},
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (Request(""), None)),
        ({"type_url": CLUSTER, "node": {}}, (Request(CLUSTER), wire.Node(""))),
        (
            {"type_url": CLUSTER, "node": NODE, "initial_resource_versions": {"a": "1"}},
            (
                Request(CLUSTER, initial_versions={"a": "1"}),
                wire.Node("reviews-1", "reviews.default", "1.40.0"),
            ),
        ),
        (
            {"resource_names_subscribe": ["a"], "resource_names_unsubscribe": ["b"], "response_nonce": "7"},
            (Request("", ("a",), ("b",), nonce="7"), None),
        ),
        ({"error_detail": {"message": "no"}, "response_nonce": "7"}, (Request("", nonce="7", error="no"), None)),
        ({"error_detail": {}, "response_nonce": "7"}, (Request("", nonce="7", error=""), None)),
    ],
)
def test_a_request_is_read(fields: dict[str, Any], expected: tuple[Request, wire.Node | None]) -> None:
    assert wire.decode(envoy_api.pack(wire.REQUEST, fields)) == expected


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xff", "what was sent is no DeltaDiscoveryRequest"),
        (b"\0" * (wire.MAX_REQUEST_BYTES + 1), "a request has at most 1048576 bytes, this one 1048577"),
        (envoy_api.pack(wire.REQUEST, {"node": {"id": "x" * 257}}), "a node id has at most 256 characters"),
    ],
)
def test_what_is_none_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(StreamError) as raised:
        wire.decode(data)
    assert raised.value.message == problem


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (Wish(""), None)),
        ({"type_url": CLUSTER, "node": NODE}, (Wish(CLUSTER), wire.Node("reviews-1", "reviews.default", "1.40.0"))),
        (
            {"resource_names": ["a", "b"], "version_info": "1", "response_nonce": "7"},
            (Wish("", ("a", "b"), "7"), None),
        ),
        ({"error_detail": {"message": "no"}, "response_nonce": "7"}, (Wish("", (), "7", "no"), None)),
        ({"error_detail": {}}, (Wish("", error=""), None)),
    ],
)
def test_a_request_for_the_whole_is_read(fields: dict[str, Any], expected: tuple[Wish, wire.Node | None]) -> None:
    assert wire.decode_wish(envoy_api.pack(wire.WISH, fields)) == expected


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xff\xff", "what was sent is no DiscoveryRequest"),
        (b"\0" * (wire.MAX_REQUEST_BYTES + 1), "a request has at most 1048576 bytes, this one 1048577"),
        (envoy_api.pack(wire.WISH, {"node": {"id": "x" * 257}}), "a node id has at most 256 characters"),
    ],
)
def test_what_asks_for_no_whole_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(StreamError) as raised:
        wire.decode_wish(data)
    assert raised.value.message == problem


def test_a_whole_is_written() -> None:
    one = resource(CLUSTER, "a", {"name": "a", "connect_timeout": "1s"})
    message = envoy_api.message(wire.WHOLE).FromString(wire.encode_whole(Whole(CLUSTER, "7", "v", (one,))))
    assert envoy_api.to_dict(message) == {
        "version_info": "v",
        "type_url": CLUSTER,
        "nonce": "7",
        "control_plane": {"identifier": "policyd"},
        "resources": [{"@type": CLUSTER, "name": "a", "connect_timeout": "1s"}],
    }


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        request, _ = wire.decode(data)
    except StreamError:
        return
    assert isinstance(request, Request)


def test_a_push_is_written() -> None:
    one = resource(CLUSTER, "a", {"name": "a", "connect_timeout": "1s"})
    message = envoy_api.message(wire.RESPONSE).FromString(wire.encode(Push(CLUSTER, "7", "v", (one,), ("b", "c"))))
    assert envoy_api.to_dict(message) == {
        "system_version_info": "v",
        "type_url": CLUSTER,
        "nonce": "7",
        "removed_resources": ["b", "c"],
        "control_plane": {"identifier": "policyd"},
        "resources": [
            {
                "name": "a",
                "version": one.version,
                "resource": {"@type": CLUSTER, "name": "a", "connect_timeout": "1s"},
            }
        ],
    }


@pytest.mark.parametrize("count", [0, 1, wire.FEW, wire.FEW + 1])
def test_what_was_said_before_is_said_again_with_a_nonce_of_its_own(count: int) -> None:
    some = tuple(Resource(f"c{number}", f"v{number}", CLUSTER, b"\x0a\x01c") for number in range(count))
    other = tuple(replace(one, version="w") for one in some)
    for resources in (some, some, other):
        for nonce in ("1", "2"):
            said = envoy_api.message(wire.RESPONSE).FromString(
                wire.encode(Push(CLUSTER, nonce, "7", resources, ("gone",)))
            )
            assert (said.type_url, said.nonce, said.system_version_info) == (CLUSTER, nonce, "7")
            assert [(one.name, one.version, one.resource.value) for one in said.resources] == [
                (one.name, one.version, one.body) for one in resources
            ]
            assert (list(said.removed_resources), said.control_plane.identifier) == (["gone"], "policyd")
