"""Whatever is killed under load: each decision that a caller was told is on record, and the journal is whole."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from policyd import envoy_api
from policyd.audit.read import ends, newest
from policyd.audit.verify import How, verify
from policyd.ca.sealing import JournalTrust
from policyd.spiffe import SpiffeId
from policyd.state_paths import state_paths
from tests.authz.checks import check_of
from tests.server.served import WEB, Served, process

API = SpiffeId.workload("cluster.local", "default", "api")
CHECK = "/envoy.service.auth.v3.Authorization/Check"
READ = '@id("read") permit (principal, action == Action::"GET", resource == Service::"web.default");\n'
ASKERS = 8
KILLS = 3


async def ask_on(channel: grpc.aio.Channel, told: list[str]) -> None:
    """Ask again and again; `told` are the ids of the decisions that came back."""
    check = check_of(
        source__principal=str(API),
        destination__principal=str(WEB),
        context_extensions={"policyd.listener": "web-v1/inbound"},
    ).SerializeToString()
    reply_of = envoy_api.message("envoy.service.auth.v3.CheckResponse").FromString
    call = channel.unary_unary(CHECK)
    while True:
        try:
            reply: Any = reply_of(await call(check, timeout=5))
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.02)  # it is away: nothing was told
            continue
        if reply.status.code == 0:
            told.append(reply.dynamic_metadata.fields["decision_id"].string_value)


async def more(told: list[str], count: int) -> None:
    """Wait until so many more decisions have come back."""
    wanted = len(told) + count
    async with asyncio.timeout(60):
        while len(told) < wanted:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("durability", ["written", "fsync"])
async def test_no_decision_that_a_caller_was_told_is_missing_after_kill_9(
    folder: Path, short: Path, durability: str
) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "web.cedar").write_text(READ)
    (folder / "policyd.yaml").write_text(f"audit: {{durability: {durability}, segmentAge: 2s}}\nworkers: 1\n")
    dice, told = random.Random(5), list[str]()
    with process(folder, short) as started:
        served = Served(folder)
        async with served.channel("authz") as channel:
            asking = [asyncio.create_task(ask_on(channel, told)) for _ in range(ASKERS)]
            for _ in range(KILLS):
                await more(told, dice.randrange(30, 300))
                (decider,) = (await served.status()).deciders
                os.kill(decider.pid, signal.SIGKILL)
            await more(told, 50)
            os.kill(started.pid, signal.SIGKILL)
            started.wait(20)
            await asyncio.sleep(0.2)  # answers that are under way
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    journal = state_paths(folder).journal
    lines = list(newest(journal, ends(journal), lambda error: pytest.fail(str(error))))
    recorded = {line.record.decision_id for line in lines if line.record.kind == "decision"}
    assert len(told) == len(set(told))
    assert set(told) <= recorded
    root = x509.load_pem_x509_certificate((state_paths(folder).ca / "root.pem").read_bytes())
    verdict = verify(journal, How(JournalTrust(root)))
    assert verdict.problems == ()
    assert {chain.writer.split("-")[0] for chain in verdict.chains} == {"serve", "decide"}
