"""Servers of gRPC and policyd give the same answers: generated policy sets and calls, at a real server.

GRPC_SETS, GRPC_CALLS and GRPC_SEED choose how many and which.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest

from policyd.authz.request import host_asked
from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.policies import Policy, set_of
from policyd.cedar.schema import Schema
from policyd.envoy_api import LISTENER
from policyd.errors import PolicydError
from policyd.local.compile import Compiler
from policyd.local.guarding import METHOD_PATH, exact, guard
from policyd.mesh.model import Mesh, Served
from policyd.spiffe import SpiffeId
from policyd.xds.cache import SnapshotCache
from policyd.xds.resources.model import Guard
from policyd.xds.resources.proxyless import served
from policyd.xds.snapshot import make_snapshot, resource
from tests.fakes.xds_observer import FakeObserver
from tests.local.world import mesh_of, policies
from tests.ports import free_port
from tests.xds.grpc_processes import Processes
from tests.xds.unguarded import unguarded

pytestmark = pytest.mark.e2e

SETS = int(os.environ.get("GRPC_SETS", "30"))
CALLS = int(os.environ.get("GRPC_CALLS", "800"))
SEED = int(os.environ.get("GRPC_SEED", "1"))
AT_ONCE: Final = 50
INBOUND: Final = "shop-v1/inbound"
TRUST: Final = "spiffe://cluster.local"
CALLERS: Final = (
    f"{TRUST}/ns/default/sa/web",
    f"{TRUST}/ns/back/sa/api",
    f"{TRUST}/ns/default/sa/shop",
    f"{TRUST}/odd",
    f"{TRUST}/agent/node",  # no workload
    "spiffe://partner.org/ns/default/sa/web",  # of no trust domain that is known
)
HOSTS: Final = ("SHOP", "shop:9080")  # of each caller a connection, and each compiles all filters
PATHS: Final = (
    "/a/b", "/A/b", "/users/1", "/users/orders", "/a.b/c", "/me/home", "/admin/x", "/a/b.css", "/5/A9",
    "/a", "/a/b/c", "/a/b?x", "/a%41/b", "/a//b", "/../a", "/a/..", "/.a/b",  # no paths of methods
)  # fmt: skip
VALUES: Final = (["a"], ["A"], ["a,b"], ["a", "b"], ["b", "a"], ["1"], ["x y"], ["red"], ["a!b"], ["a", "a", "b"], [""])


@dataclass(frozen=True)
class Case:
    """A set of policies, and the filters that it came to."""

    ruling: Ruling
    guard: Guard

    @property
    def text(self) -> str:
        return "\n".join(one.text for one in self.ruling.policy_set.policies)


def case_of(found: Sequence[Policy], mesh: Mesh, schema: Schema) -> Case:
    """These policies, without those that are not compiled for gRPC."""
    ruling = make_ruling(mesh, set_of(found), schema)
    compiled = exact(Compiler(ruling).compile(mesh.listeners[INBOUND]), ruling)
    left = {one.policy for one in compiled.left}
    return (
        case_of([one for one in found if one.id not in left], mesh, schema) if left else Case(ruling, guard(compiled))
    )


def cases(chosen: random.Random, schema: Schema) -> Iterator[Case]:
    mesh = mesh_of()
    # gRPC's own header, whose words differ from one version to the next
    pool = [one for one in policies(chosen, 6 * SETS, schema) if "user-agent" not in one.text]
    for _ in range(SETS):
        yield case_of(sorted(chosen.sample(pool, chosen.randrange(1, 5)), key=lambda one: one.id), mesh, schema)


def listener(made: Sequence[Case], port: int) -> dict[str, Any]:
    """What a server is sent, with a route for each set (by the header `x-set`)."""
    instance = mesh_of().instances["shop-v1"]
    nothing = Guard(tuple({"name": n, "typed_config": {"@type": served.RBAC}} for n in ("denied", "allowed")))
    fields = next(served.listeners(instance, Served(9080, 9080, "grpc", inbound_port=port), nothing))
    [chain] = fields["filter_chains"]
    chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"] = [
        {
            "match": {"prefix": "", "headers": [{"name": "x-set", "string_match": {"exact": str(number)}}]},
            "non_forwarding_action": {},
            "typed_per_filter_config": {
                one["name"]: {
                    "@type": f"{served.RBAC}PerRoute",
                    "rbac": {"rules": one["typed_config"]["rules"]},
                }
                for one in case.guard.filters
            },
        }
        for number, case in enumerate(made)
    ]
    return fields


@dataclass(frozen=True)
class Call:
    """One call of a set."""

    case: int
    caller: str
    host: str
    path: str
    headers: tuple[tuple[str, str], ...]


def calls(chosen: random.Random) -> Iterator[Call]:
    for _ in range(CALLS):
        headers = [(name, value) for name in ("x-a", "x-b") if chosen.random() < 0.6 for value in chosen.choice(VALUES)]
        where = (chosen.choice(CALLERS[:4]) if chosen.random() < 0.9 else chosen.choice(CALLERS[4:]), HOSTS, PATHS)
        yield Call(chosen.randrange(SETS), where[0], chosen.choice(where[1]), chosen.choice(where[2]), tuple(headers))


def allowed(case: Case, call: Call) -> bool:
    """What policyd says, and that a call is one."""
    caller = SpiffeId.parse(call.caller)
    if caller.trust_domain != "cluster.local" or caller.path.startswith("/agent/"):
        return False  # policyd has no decision for these
    headers: dict[str, str] = {}
    for name, value in call.headers:
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    facts = HttpFacts(
        principal=caller,
        service="shop.default",
        method="POST",
        target=call.path,
        host=host_asked(call.host),
        time=datetime.now(UTC),
        source=Endpoint("127.0.0.1", 40000),
        destination=Endpoint("127.0.0.1", 9080),
        instance="shop-v1",
        headers=headers,
    )
    try:
        decided = case.ruling.decide(case.ruling.request(facts)).allowed
    except PolicydError:
        return False
    return decided and METHOD_PATH.fullmatch(call.path) is not None


@asynccontextmanager
async def serving(made: Sequence[Case], folder: Path, port: int) -> AsyncIterator[Processes]:
    """The server, told of all sets."""
    target = f"unix:{folder / 'xds.sock'}"
    cache, observer = SnapshotCache(), FakeObserver()
    fields = listener(made, port)
    cache.set_all({"shop-v1": make_snapshot([resource(LISTENER, fields["name"], fields)])})
    service, server, processes = unguarded(cache, observer), grpc.aio.server(), Processes(folder, target)
    server.add_generic_rpc_handlers((service.handler(),))
    server.add_insecure_port(target)
    await server.start()
    try:
        await processes.start("grpc_server.py", "shop-v1", f"127.0.0.1:{port}", "shop", names=("shop",))
        yield processes
        assert observer.rejections == []
    finally:
        await processes.end()
        service.close()
        await server.stop(0)


def channel_of(processes: Processes, caller: str, host: str, port: int) -> grpc.aio.Channel:
    chain, key = processes.authority.issue(caller)
    files = (text.encode() for text in (processes.authority.pem, key, chain))
    options = (("grpc.ssl_target_name_override", "shop"), ("grpc.default_authority", host))
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(*files), options)


async def answered(channel: grpc.aio.Channel, call: Call) -> bool:
    """Whether the application got it."""
    metadata = (("x-set", str(call.case)), *call.headers)
    try:
        answer = await channel.unary_unary(call.path)(b"", metadata=metadata, timeout=60, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        if error.details() != "Unauthorized RPC rejected":
            raise
        return False
    assert answer == b"shop"
    return True


@pytest.mark.timeout(600)
async def test_generated_policies_have_the_same_answers_at_a_server_of_grpc(schema: Schema, tmp_path: Path) -> None:
    chosen = random.Random(SEED)
    made, port = list(cases(chosen, schema)), free_port()
    asked = list(calls(chosen))
    got: list[bool] = []
    async with serving(made, tmp_path, port) as processes:
        by = {(call.caller, call.host): None for call in asked}
        channels = {key: channel_of(processes, *key, port) for key in by}
        for at in range(0, len(asked), AT_ONCE):
            some = asked[at : at + AT_ONCE]
            got += await asyncio.gather(*(answered(channels[call.caller, call.host], call) for call in some))
        for channel in channels.values():
            await channel.close()

    wanted = [allowed(made[call.case], call) for call in asked]
    differences = [
        f"\npolicyd {should}, gRPC {did} of {call}\n{made[call.case].text}"
        for call, should, did in zip(asked, wanted, got, strict=True)
        if should != did
    ]
    assert differences[:3] == []
    assert all(count > CALLS / 100 for count in Counter(wanted).values())
    assert len(Counter(wanted)) == 2
