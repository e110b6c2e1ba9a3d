"""What a load need not find out again: it finds the same all the same, whatever changed in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.mesh.placement import assumed
from policyd.reload.live import Earlier, Schemas, shipped_schemas
from policyd.reload.load import load
from policyd.sources.files import Folder, digest
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import Control
from tests.mesh.sample import GOOD, SERVICE, WORKLOADS

CONTROL = Control("127.0.0.1", (9000,), SpiffeId.server("cluster.local"))
PERMISSIVE = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all}
spec: {mtls: {mode: PERMISSIVE}}
"""
CHANGES: list[tuple[str, str | None]] = [
    ("mesh/service.yaml", SERVICE.replace("version: v2", "version: v1")),
    ("mesh/service.yaml", None),
    ("workloads.yaml", WORKLOADS.replace("version: v1", "version: v3")),
    ("mesh/peers.yaml", PERMISSIVE),
    ("groups.yaml", None),
    ("policyd.yaml", "trustDomain: other.example\n"),
    ("mesh/peers.yaml", None),
    ("policyd.yaml", None),
    ("workloads.yaml", WORKLOADS + "defaults: {serviceAccount: all}\n"),
    ("workloads.yaml", WORKLOADS),
    ("groups.yaml", GOOD["groups.yaml"]),
]


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return shipped_schemas()


def test_a_load_that_spares_itself_work_finds_what_one_from_nothing_does(schemas: Schemas) -> None:
    texts = dict(GOOD)
    earlier = Earlier()
    for path, text in (("", None), *CHANGES):
        texts = {name: one for name, one in texts.items() if name != path} | ({path: text} if text else {})
        folder = Folder(Path(), texts, digest(texts))
        live = load(folder, schemas, assumed, CONTROL, earlier)
        fresh = load(folder, schemas, assumed, CONTROL)
        assert (live.mesh, live.ruling.revision, live.config) == (fresh.mesh, fresh.ruling.revision, fresh.config), path
        assert list(live.ruling.entities.content()) == list(fresh.ruling.entities.content()), path
        assert dict(live.snapshots) == dict(fresh.snapshots), path
        earlier = earlier.after(live)


def test_of_what_a_change_does_not_touch_the_very_same_instances_go_on(schemas: Schemas) -> None:
    texts, kept = {**GOOD, "groups.yaml": ""}, Earlier()
    first = load(Folder(Path(), GOOD, "a"), schemas, assumed, CONTROL, kept)
    second = load(Folder(Path(), texts, "b"), schemas, assumed, CONTROL, kept.after(first))
    assert second.mesh.instances["web-v1"] is first.mesh.instances["web-v1"]
    assert second.mesh.listeners["web-v1/inbound"] is first.mesh.listeners["web-v1/inbound"]
