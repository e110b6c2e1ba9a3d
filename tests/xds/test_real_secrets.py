"""Secrets that the real Envoy rejects: it is told which one it is, and in its words, while the others serve."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import pytest

from policyd.envoy_api import LISTENER, SECRET, TYPE_PREFIX
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources import listeners
from policyd.xds.resources.tls import TLS, over_ads
from policyd.xds.snapshot import Resource, Snapshot, check_snapshot, make_snapshot, resource
from policyd.xds.status import troubles
from tests.certificates import Authority
from tests.ports import free_port
from tests.xds.envoy_process import EnvoyProcess, eventually
from tests.xds.test_real_envoy import NODE, Control, serving

pytestmark = pytest.mark.e2e

AUTHORITY = Authority("the edge")
ANSWER = TYPE_PREFIX + "envoy.extensions.filters.network.direct_response.v3.Config"
KINDS = (LISTENER, SECRET)
GOES_ON = f"the proxy of `{NODE}` rejected secrets and goes on with what it had"

MIXED = (
    "`mixed`: Failed to load private key from <inline>, Cause: "
    "error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH"
)
NONE = "`none`: Failed to load certificate chain from <inline>"


def secret(name: str, chain: str, key: str) -> Resource:
    pair = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
    return resource(SECRET, name, {"name": name, "tls_certificate": pair})


def server(name: str, port: int) -> Resource:
    """A listener with the certificate of its name, and something behind it."""
    common = {"tls_certificate_sds_secret_configs": [over_ads(name)]}
    context = {"@type": f"{TLS}.DownstreamTlsContext", "common_tls_context": common}
    answer = {"name": "answer", "typed_config": {"@type": ANSWER, "response": {"inline_string": name}}}
    chain = {"filters": [answer], "transport_socket": {"name": "tls", "typed_config": context}}
    return resource(LISTENER, name, listeners.listener(name, "127.0.0.1", port, chain, "INBOUND"))


def snapshot(ports: Mapping[str, int], pairs: Mapping[str, tuple[str, str]]) -> Snapshot:
    served = (server(name, port) for name, port in ports.items())
    return check_snapshot(make_snapshot((*served, *(secret(name, *pair) for name, pair in pairs.items()))))


async def answers(name: str, port: int) -> bool:
    """Whether a TLS client that trusts the authority finds the certificate of that name there."""
    trusting = ssl.create_default_context(cadata=AUTHORITY.pem)
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname=name)
    except OSError:
        return False
    writer.transport.abort()  # what Envoy says and its end are not waited for: the one may overtake the other
    return True


async def test_each_secret_that_envoy_rejects_is_named_with_its_words_and_the_others_serve() -> None:
    names = ("first", "mixed", "none", "last")
    ports = {name: free_port() for name in names}
    good = {name: AUTHORITY.issue(name) for name in names}
    pairs = {**good, "mixed": (good["mixed"][0], good["last"][1]), "none": ("no certificate", good["none"][1])}
    cache = SnapshotCache()
    cache.set_all({NODE: snapshot(ports, pairs)})
    async with EnvoyProcess(NODE) as envoy, serving(envoy, cache) as control:
        told: list[str] = []

        async def both_are_told() -> bool:
            told[:] = troubles(control.service.statuses())
            return len(told) == 1 and "`mixed`" in told[0] and "`none`" in told[0]

        await eventually(both_are_told, "both are told")
        assert told == [f"{GOES_ON}: {MIXED}; {NONE}"]
        assert sorted(text for _, _, text in control.observer.rejections) == [MIXED, NONE]
        for name in ("first", "last"):
            await eventually(lambda name=name: answers(name, ports[name]), name)

        cache.set_all({NODE: snapshot(ports, {**pairs, "mixed": good["mixed"]})})
        await eventually(lambda: answers("mixed", ports["mixed"]), "mixed")

        async def one_is_told() -> bool:
            told[:] = troubles(control.service.statuses())
            return len(told) == 1 and "`mixed`" not in told[0]

        await eventually(one_is_told, "one is told")
        assert told == [f"{GOES_ON}: {NONE}"]

        cache.set_all({NODE: snapshot(ports, good)})
        await eventually(lambda: answers("none", ports["none"]), "none")
        assert list(troubles(control.service.statuses())) == []


def asking(name: str, port: int, authorities: str) -> Resource:
    """A listener that checks its clients by authorities, with the certificate `first`."""
    common = {
        "tls_certificate_sds_secret_configs": [over_ads("first")],
        "validation_context_sds_secret_config": over_ads(authorities),
    }
    context = {"@type": f"{TLS}.DownstreamTlsContext", "common_tls_context": common}
    chain = {"filters": [], "transport_socket": {"name": "tls", "typed_config": context}}
    return resource(LISTENER, name, listeners.listener(name, "127.0.0.1", port, chain, "INBOUND"))


async def test_what_envoy_rejected_is_told_again_whenever_it_comes_back() -> None:
    ports, good = {name: free_port() for name in ("first", "last")}, AUTHORITY.issue("first")
    asks = asking("asks", free_port(), "nobody")
    nobody = {"name": "nobody", "validation_context": {"trusted_ca": {"inline_string": "no certificate"}}}

    def served(last: tuple[str, str]) -> Snapshot:
        parts = (
            snapshot(ports, {"first": good, "last": last}),
            make_snapshot((asks, resource(SECRET, "nobody", nobody))),
        )
        return check_snapshot(make_snapshot(one for part in parts for kind in KINDS for one in part.of(kind).values()))

    cache = SnapshotCache()
    cache.set_all({NODE: served((good[0], AUTHORITY.issue("last")[1]))})

    async def told(control: Control, *names: str) -> bool:
        lines = list(troubles(control.service.statuses()))
        return len(lines) == 1 and all((f"`{name}`" in lines[0]) == (name in names) for name in ("last", "nobody"))

    async with EnvoyProcess(NODE) as envoy:
        for _ in range(2):
            async with serving(envoy, cache) as control:
                await eventually(lambda: told(control, "last", "nobody"), "both are told")
                await eventually(lambda: answers("first", ports["first"]), "the other one serves")
        async with serving(envoy, cache) as control:
            cache.set_all({NODE: served(AUTHORITY.issue("last"))})
            await eventually(lambda: answers("last", ports["last"]), "the new one serves")
            await eventually(lambda: told(control, "nobody"), "one is told")
