"""The mistakes that people make in a mesh folder: each is told with its place, and what was good before goes on, whole.

Whole, because part of a change may open what another part of it was to close: a route without its mutual TLS, a permit
without the rule that it was written for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from policyd.errors import Problem
from policyd.keeper import Keeper
from policyd.mesh.placement import assumed
from policyd.reload.live import Earlier, Live, Schemas, shipped_schemas
from policyd.reload.load import load
from policyd.sources.files import Folder, read_folder
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import Control
from tests.analysis.folders import GATEWAY, TO_WEB, resource, virtual_service, write

CONTROL = Control("127.0.0.1", (1,), SpiffeId.server("cluster.local"))
MANY = 2_000


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return shipped_schemas()


def keeper(directory: Path, schemas: Schemas, told: list[tuple[Problem, ...]]) -> Keeper:
    """What is in force of a folder; `told` gets the problems of each refused change."""
    earlier = Earlier()

    def build(folder: Folder) -> Live:
        return load(folder, schemas, assumed, CONTROL, earlier)

    def heard(live: Live | None, problems: tuple[Problem, ...]) -> None:
        if live is None:
            told.append(problems)

    return Keeper(lambda: read_folder(directory), build, lambda _live: None, heard)


LONG = "x" * (10 << 20)
DEEP = "(" * 500
EXPLODES = "(((a{100}){100}){100})"
OVERLAP = GATEWAY.replace("name: edge", "name: tcp").replace("HTTP", "TCP")
LOOP = resource("VirtualService", "  http: [{delegate: {name: more}}]\n")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (virtual_service("    - {route: [{destination: {host: wbe}}]}"),
         "mesh/more.yaml:7: the destination `wbe` is no service of the mesh; did you mean `web.default`?"),
        (virtual_service(f"    - {TO_WEB}", hosts="[wbe]"),
         "mesh/more.yaml:5: the host `wbe` is no service of the mesh; did you mean `web.default`?"),
        (virtual_service("    - {route: [{destination: {host: web}, weight: 0}, {destination: {host: api}}]}"),
         "mesh/more.yaml:7: `spec.http[0]`: the weights add up to 0; give one destination a `weight`"),
        (virtual_service("    - {route: [{destination: {host: web}, weight: 1.5}]}"),
         "mesh/more.yaml:7: `spec.http[0].route[0].weight`"),
        ({"mesh/more.yaml": OVERLAP}, "mesh/more.yaml:6: "),
        (virtual_service(f"    - {{match: [{{uri: {{regex: '{EXPLODES}'}}}}], redirect: {{uri: /}}}}"),
         "mesh/more.yaml:7: `spec.http[0].match[0].uri.regex`: the regex repeats its parts more than 1,000 times"),
        (virtual_service(f"    - {{match: [{{uri: {{regex: '{DEEP}'}}}}], redirect: {{uri: /}}}}"),
         "mesh/more.yaml:7: `spec.http[0].match[0].uri.regex`: "),
        (virtual_service(f"    - {{match: [{{uri: {{regex: '{'a' * 2000}'}}}}], redirect: {{uri: /}}}}"),
         "mesh/more.yaml:7: `spec.http[0].match[0].uri.regex`: a regex has 1 to 1024 characters, this one 2000"),
        ({"mesh/more.yaml": f"# {LONG}\n"},
         "mesh/more.yaml: 10,485,763 bytes, at most 1,048,576 are allowed; split the file"),
        ({"mesh/more.yaml": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" + "".join(
            f"d{n}: &d{n} [{f'*d{n - 1}, ' * 9 if n else '*c'}]\n" for n in range(9))}, "mesh/more.yaml:"),
        ({"mesh/more.yaml": "[" * 2000}, "mesh/more.yaml:1: nested more than 64 levels deep; "),
        ({"mesh/more.yaml": LOOP}, "mesh/more.yaml:4: `spec`: a delegate does not delegate; "),
        ({"mesh/more.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"},
         "mesh/more.yaml:2: the kind `Pod` is not supported; supported are "),
        ({"mesh/more.yaml": "\x00"}, "mesh/more.yaml:1: the control character U+0000 is not allowed; remove it"),
    ],
    ids=["destination", "host", "weights", "weight", "overlapping gateways", "exploding regex", "deep regex",
         "long regex", "10 MB", "aliases", "deep", "delegation to itself", "kind", "binary"],
)  # fmt: skip
def test_a_mistake_is_told_and_what_was_good_goes_on(
    tmp_path: Path, schemas: Schemas, changes: Mapping[str, str], told: str
) -> None:
    refused: list[tuple[Problem, ...]] = []
    kept = keeper(write(tmp_path), schemas, refused)
    good = kept.live
    write(tmp_path, changes)

    kept.look()

    assert kept.live is good
    assert str(kept.refused[0]).startswith(told)
    (tmp_path / "mesh" / "more.yaml").unlink()
    kept.look()
    assert (kept.live is good, kept.refused, len(refused)) == (True, (), 1)


def test_of_thousands_with_one_bad_the_report_names_the_one(tmp_path: Path, schemas: Schemas) -> None:
    """The rest stays as it was: in force is the whole of the last good change, and nothing of this one."""
    workloads = "".join(f"  w{n}: {{service: s{n}, port: 80}}\n" for n in range(100))
    rules = [
        resource("DestinationRule", f"  host: s{n % 100}\n  subsets: [{{name: r{n}}}]\n", name=f"r{n}")
        for n in range(MANY)
    ]
    folder = write(tmp_path, {"workloads.yaml": f"workloads:\n{workloads}"})
    for name in ("gateway.yaml", "routes.yaml", "rules.yaml"):
        (folder / "mesh" / name).unlink()
    (folder / "policies" / "api.cedar").unlink()
    write_many(folder, rules)
    refused: list[tuple[Problem, ...]] = []
    kept = keeper(folder, schemas, refused)
    good = kept.live
    assert len(good.mesh.destination_rules) == MANY
    rules[1_234] = rules[1_234].replace("host: s34", "host: s340")
    rules[1_500] = rules[1_500].replace("name: r1500}]", "name: other}]")
    write_many(folder, rules)

    kept.look()

    assert kept.live is good
    assert [str(one) for one in kept.refused] == [
        "mesh/many-12.yaml:243: the host `s340` is no service of the mesh; did you mean `s40.default`?"
    ]
    rules[1_234] = rules[1_234].replace("host: s340", "host: s34")
    write_many(folder, rules)
    kept.look()
    assert kept.refused == ()
    assert {one.name for rule in kept.live.mesh.destination_rules for one in rule.spec.subsets} >= {"other", "r1234"}


def write_many(folder: Path, rules: list[str]) -> None:
    """A hundred resources a file."""
    for at in range(0, len(rules), 100):
        (folder / "mesh" / f"many-{at // 100}.yaml").write_text("---\n".join(rules[at : at + 100]))
