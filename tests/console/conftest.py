"""The real console over a real folder and journal, its server the fake one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from policyd import tickets
from policyd._pb import admin_pb2 as pb
from policyd._pb import authority_pb2 as ca
from policyd.authz.ruling import Ruling
from policyd.console.app import application
from policyd.console.desk import Desk
from policyd.console.door import Door, Rules
from policyd.console.provider import Provider
from policyd.console.source import Source
from policyd.console.watch import Watch
from tests.cli.recorded import served
from tests.fakes.admin import FakeAdmin, serving
from tests.fakes.proxies import Calls, counting
from tests.policy import traffic

HOST = "127.0.0.1:15080"
KEY = bytes(range(32))
RULES = Rules(frozenset({HOST, "localhost:15080"}), KEY, "policyd_15080")
NOW = traffic.START + timedelta(hours=2)
SECONDS = int(NOW.timestamp())
TOKEN = "t" * 40


def place(name: str, service: str, role: str = "sidecar", health: str = "") -> pb.InstancePlace:
    identity = f"spiffe://cluster.local/ns/default/sa/bookinfo-{service}"
    return pb.InstancePlace(name=name, service=f"{service}.default", spiffe_id=identity, role=role, health=health)


PLACES = (
    place("ingress", "ingress", "gateway"),
    place("productpage-v1", "productpage"),
    place("details-v1", "details"),
    place("reviews-v1", "reviews"),
    place("reviews-v2", "reviews"),
)


@dataclass(slots=True)
class World:
    """What the fake server tells; `calls` are counted from the beginning."""

    folder: Path
    ruling: Ruling
    fake: FakeAdmin
    calls: list[Calls] = field(default_factory=list)
    clock: float = 100.0

    def later(self, seconds: float, *calls: Calls) -> None:
        """So much happened in so long."""
        self.clock += seconds
        self.calls = [*calls]


@pytest.fixture
def world(root: Path, tmp_path: Path) -> Iterator[World]:
    """Bookinfo after some traffic."""
    folder = tmp_path / "bookinfo"
    ruling = served(root, folder, 60)
    with tempfile.TemporaryDirectory(prefix="t") as short:  # socket paths end at 107 bytes
        socket = Path(short) / "admin.sock"
        (folder / ".policyd" / "server.json").write_text(json.dumps({"pid": 4711, "admin_socket": str(socket)}))
        with serving(FakeAdmin(), socket) as fake:
            made = World(folder, ruling, fake)
            fake.replies |= {
                "Status": pb.StatusReply(
                    version="0.1.0", trust_domain="cluster.local", ready=True, revision=ruling.revision, policies=5
                ),
                "Instances": pb.InstancesReply(instances=PLACES),
                "Inspect": counting(lambda: made.calls),
                "Proxies": pb.ProxiesReply(
                    proxies=[pb.ProxyStatus(instance=one.name, spiffe_id=one.spiffe_id) for one in PLACES]
                ),
                "CaStatus": ca.CaStatusReply(
                    trust_domain="cluster.local",
                    elements=[ca.Element(name="root", id="9b72", state="trusted", begins=1, ends=SECONDS + 86_400)],
                ),
            }
            yield made


@dataclass(frozen=True, slots=True)
class Console:
    """The application, and a browser that has a session."""

    app: Door
    desk: Desk
    client: httpx.AsyncClient
    proof: str

    async def get(self, url: str, **more: Any) -> httpx.Response:
        """Ask for a page as a browser does."""
        return await self.client.get(url, headers={"accept": "text/html", **more})

    async def post(self, url: str, value: Any, **more: str) -> httpx.Response:
        """Send an action as our own page does."""
        own = {"origin": f"http://{HOST}", "x-policyd-proof": self.proof, "content-type": "application/json"}
        headers = {name: value for name, value in (own | more).items() if value}
        return await self.client.post(url, content=json.dumps(value), headers=headers)


def made(
    world: World,
    token: str = "",
    *,
    applies: bool = False,
    provider: Provider | None = None,
    seconds: Callable[[], int] = lambda: SECONDS,
) -> tuple[Door, Desk]:
    """The application over a world."""
    source = Source(world.folder, clock=lambda: world.clock)
    desk = Desk(source, Watch(source.see, lambda: world.clock), RULES, lambda: NOW, applies)
    return application(desk, seconds, lambda: world.clock, token, provider), desk


@pytest.fixture
async def console(world: World) -> AsyncIterator[Console]:
    """The console with a session."""
    async for one in opened(world):
        yield one


async def opened(world: World, *, applies: bool = False) -> AsyncIterator[Console]:
    """A console that a session has opened."""
    app, desk = made(world, applies=applies)
    session = tickets.session(KEY, "unix:0", SECONDS, b"n" * 16)
    ticket = tickets.read(KEY, "session", session, SECONDS)
    assert ticket is not None
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    cookies = {RULES.cookie: session}
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", cookies=cookies) as client:
        yield Console(app, desk, client, tickets.proof(KEY, ticket))


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._joins = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._joins = tag == "wbr"  # within a word
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self._joins:
            data = self.words.pop() + data
        self._joins = False
        self.words.append(data)

    @property
    def text(self) -> str:
        """The words, white space as one blank."""
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str, name: str) -> list[str]:
        """An attribute of all elements of a tag."""
        return [attributes[name] for found, attributes in self.elements if found == tag and name in attributes]


def check_harmless(html: str) -> Page:
    """Nothing in a page runs but our own files, and nothing leads elsewhere."""
    page = Page(html)
    for tag, attributes in page.elements:
        assert tag not in ("img", "iframe", "object", "embed", "base", "style", "math"), tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("href", "src", "action"):
            assert attributes.get(name, "/").startswith(("/", "?", "#")), (tag, attributes)
            assert not attributes.get(name, "/").startswith("//"), (tag, attributes)
    assert all(source.startswith("/static/") for source in page.of("script", "src"))
    assert len(page.of("script", "src")) == len([tag for tag, _ in page.elements if tag == "script"])
    assert not [char for char in html if char in "\u202e\u2066\x00\x1b"]
    return page
