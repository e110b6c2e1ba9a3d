"""How secrets are written on each stream."""

from __future__ import annotations

from typing import Any

import pytest

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, SECRET, TYPE_PREFIX
from policyd.xds.anew import anew
from policyd.xds.snapshot import resource
from policyd.xds.state import Push


def push(type_url: str, *bodies: dict[str, Any]) -> Push:
    made = tuple(resource(type_url, one["name"], one) for one in bodies)
    return Push(type_url, "7", "v", made, ("gone",))


def bodies(one: Push) -> list[dict[str, Any]]:
    message = envoy_api.message(one.type_url.removeprefix(TYPE_PREFIX))
    return [envoy_api.to_dict(message.FromString(part.body)) for part in one.resources]


PEM = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
KEY = {"filename": "/key"}
FILE = {"filename": "/file"}
WRITTEN = {"inline_string": f"{PEM}\n# today\n"}


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (
            {"tls_certificate": {"certificate_chain": {"inline_string": PEM}, "private_key": KEY}},
            {"tls_certificate": {"certificate_chain": WRITTEN, "private_key": KEY}},
        ),
        (
            {"validation_context": {"trusted_ca": {"inline_string": PEM}, "crl": FILE}},
            {"validation_context": {"trusted_ca": WRITTEN, "crl": FILE}},
        ),
        (
            {"generic_secret": {"secret": FILE, "secrets": {"writing": {"inline_string": "1"}}}},
            {
                "generic_secret": {
                    "secret": FILE,
                    "secrets": {"writing": {"inline_string": "1"}, "stream": {"inline_string": "today"}},
                }
            },
        ),
        ({"validation_context": {"trusted_ca": FILE}}, {"validation_context": {"trusted_ca": FILE}}),
    ],
    ids=["a certificate", "authorities", "another secret", "what Envoy reads in a file"],
)
def test_a_secret_says_the_same_in_other_bytes(said: dict[str, Any], written: dict[str, Any]) -> None:
    before = push(SECRET, {"name": "a", **said})

    after = anew(before, "today")

    assert bodies(after) == [{"name": "a", **written}]
    assert (after.nonce, after.version, after.removed) == ("7", "v", ("gone",))
    assert [(one.name, one.version) for one in after.resources] == [(one.name, one.version) for one in before.resources]


def test_all_else_is_sent_as_it_is() -> None:
    before = push(CLUSTER, {"name": "a"})

    assert anew(before, "today") is before
