"""A server whose authority is a company's intermediate: its files are watched, and what is wrong with them is said."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from policyd._pb import rotation_pb2
from policyd.svid.x509 import verify
from proxy.control import Unreachable
from proxy.join import join
from proxy.outside import utc_now
from tests.ca.company import Company, lay
from tests.ca.samples import a_key
from tests.fakes.signing_service import SigningServer, reply
from tests.server.served import Served, serving
from tests.server.test_rotation import renewed, rotation, step, token

SETTINGS = "ca: {upstream: {chainFile: upstream.pem, keyFile: upstream.key}}\n"
COMMAND = "ca: {{upstream: {{chainFile: upstream.pem, signCommand: [openssl, dgst, -sha256, -sign, '{}']}}}}\n"
SERVICE = "ca: {{upstream: {{chainFile: next.pem, signUrl: '{}', signTokenFile: signer.token}}}}\n"


async def states(served: Served) -> list[str]:
    async with rotation(served) as stub:
        reply: Any = await stub.RotationStatus(rotation_pb2.RotationStatusRequest())
        return [one.state for one in reply.generations]


async def become(served: Served, wanted: list[str]) -> None:
    async with asyncio.timeout(60):
        while await states(served) != wanted:
            await asyncio.sleep(0.05)


async def test_a_new_certificate_of_the_company_is_taken_into_use_and_a_bad_one_is_not(
    folder: Path, short: Path
) -> None:
    company, key = Company(now=datetime.now(UTC)), a_key()
    lay(folder, company.chain(key), key)
    (folder / "policyd.yaml").write_text(SETTINGS)
    async with serving(folder, short) as served:
        joined = await join(await token(served, "laptop"), utc_now())
        assert joined.bundle.roots == (company.root.public_bytes(Encoding.DER),)
        lay(folder, company.chain(a_key()), a_key())  # the key of another certificate
        async with asyncio.timeout(60):
            while not any("the key is not that of the certificate" in one for one in (await served.status()).warnings):
                await asyncio.sleep(0.05)
        assert await states(served) == ["active"]
        following = a_key()
        lay(folder, company.chain(following), following)
        await become(served, ["retired", "active"])
        assert await step(served, "taint") == ["tainted", "active"]
        again = await join(await token(served, "tablet"), utc_now())
        chain = [x509.load_der_x509_certificate(one) for one in again.svid.chain]
        assert chain[1].public_key() == following.public_key()
        assert verify(chain, (company.root,), "cluster.local", utc_now()) == again.svid.id


@pytest.mark.needs("openssl")
async def test_agents_join_a_mesh_whose_key_is_behind_a_command_and_next_behind_a_service(
    folder: Path, short: Path
) -> None:
    company, key, following = Company(now=datetime.now(UTC)), a_key(), a_key()
    elsewhere = lay(folder, company.chain(key), key)[1].rename(folder.parent / "elsewhere.key")
    (folder / "policyd.yaml").write_text(COMMAND.format(elsewhere))
    (folder / "signer.token").touch(0o600)
    (folder / "signer.token").write_text("s3cret")
    with SigningServer(following, token="s3cret") as signer:
        async with serving(folder, short) as served:
            joined = await join(await token(served, "laptop"), utc_now())
            assert joined.svid.id.agent_name == "laptop"
            assert signer.asked == []
            chain = company.chain(following)
            (folder / "next.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
            (folder / "policyd.yaml").write_text(SERVICE.format(signer.url))
            await become(served, ["retired", "active"])
            assert await step(served, "taint") == ["tainted", "active"]
            # what the service signs is good for who joins, and for who was there before
            again = await join(await token(served, "tablet"), utc_now())
            home = await renewed(joined)
            for one in (again, home):
                shown = [x509.load_der_x509_certificate(der) for der in one.svid.chain]
                assert shown[1].public_key() == following.public_key()
                assert verify(shown, (company.root,), "cluster.local", utc_now()) == one.svid.id
            asked = len(signer.asked)
            signer.answer = lambda handler, _: reply(handler, 503, b"the module is locked")
            with pytest.raises(Unreachable, match="no certificate can be issued now"):
                await renewed(home)
            signer.answer = None
            await renewed(home)
            assert len(signer.asked) > asked
    state = [path for path in (folder / ".policyd").rglob("*") if path.is_file() and os.access(path, os.R_OK)]
    assert not any(b"PRIVATE KEY" in path.read_bytes() for path in state if path.name == "authorities.json")
