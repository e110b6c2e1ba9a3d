"""A SPIFFE library of others, unchanged, in a process of its own: it finds certificates, tokens, bundles, and renewals.

In a process of its own also because it brings its own copy of the same protobuf messages.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta
from typing import Any

from policyd.errors import IssuanceDenied
from policyd.spiffe import SpiffeId
from proxy.assignment import Registered
from tests.fakes.signer import FakeControl
from tests.proxy.test_workload_api import API, MINE, PATIENCE, WEB, Machine, running

LOOK = """
import json
from spiffe import SpiffeId, TrustDomain, WorkloadApiClient

with WorkloadApiClient() as client:
    svids = client.fetch_x509_svids()
    roots = client.fetch_x509_bundles().get_bundle_for_trust_domain(TrustDomain("cluster.local"))
    keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(TrustDomain("cluster.local"))
    token = client.fetch_jwt_svid(audience={"shop"}, subject=SpiffeId("spiffe://cluster.local/ns/default/sa/web"))
    checked = client.validate_jwt_svid(token.token, "shop")
    print(json.dumps({
        "x509": [str(one.spiffe_id) for one in svids],
        "roots": len(roots.x509_authorities),
        "keys": list(keys.jwt_authorities),
        "jwt": [str(token.spiffe_id), sorted(token.audience), str(checked.spiffe_id)],
    }))
"""
FOLLOW = """
import time
from spiffe import X509Source

with X509Source() as source:
    first = source.svid.leaf.serial_number
    while source.svid.leaf.serial_number == first:
        time.sleep(0.05)
    print('{"renewed": "%s"}' % source.svid.spiffe_id)
"""
REFUSED = """
import json
from spiffe import WorkloadApiClient

with WorkloadApiClient() as client:
    try:
        client.fetch_x509_svid()
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
"""


async def said(machine: Machine, script: str) -> Any:
    """What a program prints that knows nothing of policyd but where the socket is."""
    environment = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix://{machine.place.socket}"}
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", script, env=environment, stdout=pipe, stderr=pipe
    )
    try:
        out, errors = await asyncio.wait_for(program.communicate(), PATIENCE)
    finally:
        if program.returncode is None:
            program.kill()
    assert program.returncode == 0, errors.decode()
    return json.loads(out)


async def test_the_library_finds_all_that_the_process_is() -> None:
    async with running() as machine:
        machine.register(Registered(WEB, MINE), Registered(API, MINE))
        assert await said(machine, LOOK) == {
            "x509": [str(WEB), str(API)],
            "roots": 1,
            "keys": ["k1"],
            "jwt": [str(WEB), ["shop"], str(WEB)],
        }


async def test_the_library_hears_of_a_renewal() -> None:
    async with running(FakeControl(life=timedelta(seconds=6))) as machine:
        machine.register(Registered(WEB, MINE))
        assert await said(machine, FOLLOW) == {"renewed": str(WEB)}


async def test_the_library_is_told_that_a_process_is_nobody() -> None:
    async with running() as machine:
        machine.register(Registered(SpiffeId.workload("cluster.local", "default", "db"), frozenset({"unix:uid:9"})))
        found = await said(machine, REFUSED)
        assert "no identity issued" in found["text"]
        machine.control.failure = IssuanceDenied("no")
        machine.register(Registered(WEB, MINE))
        assert "no identity issued" in (await said(machine, REFUSED))["text"]
