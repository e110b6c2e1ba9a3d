"""What of an Envoy's words leaves the agent, and what never does."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from policyd.errors import EnvoyError
from proxy.identity import make_key
from proxy.look import KINDS, look_by
from tests.fakes.toy_ca import ToyCa

WEB = "spiffe://cluster.local/ns/default/sa/web"
NO_SENSE = "Envoy's answer to `/config_dump?resource=dynamic_route_configs` makes no sense"
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"


class Envoy:
    """An administration that answers by target."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    async def __call__(self, target: str) -> tuple[int, bytes]:
        self.asked.append(target)
        return self._answers.pop(0) if self._answers else (200, b"{}")


def told(held: bytes) -> Any:
    return json.loads(zlib.decompress(held))


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


async def test_dumps_of_one_kind_are_told_together() -> None:
    envoy = Envoy(
        (200, b'{"configs": [{"cluster": {"name": "a"}}]}'), (200, b'{"configs": [{"cluster": {"name": "b"}}]}')
    )

    assert told(await look_by(envoy, "clusters")) == {
        "configs": [{"cluster": {"name": "a"}}, {"cluster": {"name": "b"}}]
    }
    assert envoy.asked == list(KINDS["clusters"])


async def test_of_secrets_only_names_and_certificates_are_told() -> None:
    ca = ToyCa()
    chain = b"".join(
        x509.load_der_x509_certificate(one).public_bytes(serialization.Encoding.PEM)
        for one in ca.sign(make_key().public_key(), [WEB])
    )
    leaf = x509.load_pem_x509_certificates(chain)[0]
    identity = {
        "name": "default",
        "version_info": "7f",
        "secret": {
            "tls_certificate": {
                "certificate_chain": {"inline_bytes": encoded(chain)},
                "private_key": {"inline_string": KEY},
                "password": {"inline_string": "hunter2"},
            }
        },
    }
    roots = {
        "name": "ROOTCA",
        "secret": {"validation_context": {"trusted_ca": {"inline_string": ca.root.pem.decode()}}},
    }
    other = {"name": "token", "secret": {"generic_secret": {"secret": {"inline_string": "hunter3"}}}}
    envoy = Envoy((200, json.dumps({"configs": [identity, roots, other]}).encode()))

    held = await look_by(envoy, "secrets")
    first, second, third = told(held)["secrets"]

    assert first["certificates"][0] == {
        "subject": WEB,
        "serial": f"{leaf.serial_number:032x}",
        "not_before": f"{leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%S}.000Z",
        "not_after": f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%S}.000Z",
    }
    assert (first["name"], first["version"], first["type"]) == ("default", "7f", "identity")
    assert (second["name"], second["type"], len(second["certificates"])) == ("ROOTCA", "roots", 1)
    assert third == {"name": "token", "version": "", "type": "other", "certificates": []}
    text = zlib.decompress(held).decode()
    assert not any(secret in text for secret in ("PRIVATE KEY", "c2VjcmV0", "hunter2", "hunter3"))


@pytest.mark.parametrize(
    ("kind", "answers", "message"),
    [
        ("../quitquitquit", (), "`../quitquitquit` is nothing that an Envoy holds"),
        ("routes", ((404, b""),), "Envoy answers 404 to `/config_dump?resource=dynamic_route_configs`"),
        ("routes", ((200, b"<html>"),), NO_SENSE),
        ("routes", ((200, b"[1]"),), NO_SENSE),
    ],
)  # fmt: skip
async def test_what_cannot_be_told_is_refused(kind: str, answers: Any, message: str) -> None:
    with pytest.raises(EnvoyError) as refused:
        await look_by(Envoy(*answers), kind)

    assert str(refused.value) == message
