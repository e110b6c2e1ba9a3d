"""Schemas for editors: what we read they let through, and what we refuse for its structure they refuse."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from policyd.config.settings import parse_settings
from policyd.errors import InvalidInput, NotFound, Problem
from policyd.mesh.declare import declare
from policyd.mesh.istio.kinds import KINDS, key_of
from policyd.policy import case_json, case_yaml
from policyd.policy.checks import items_of, parse_checks
from policyd.policy.json_schema import DIALECT, file_kinds, schema_of, schemas
from policyd.sources.files import FILES, FOLDERS
from policyd.strict import parse
from policyd.yaml import Document, load, load_one
from tests.docs.page import Write, blocks, steps
from tests.mesh import test_destinations, test_istio
from tests.mesh.sample import GATEWAY, GROUPS, ROUTES, SERVICE, WORKLOADS

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """\
trustDomain: example.org
audit:
  {durability: fsync, onFull: drop, retain: 1d, include: {headers: [x-team], claims: ["https://a.example/b", org.team]},
   mask: [{claim: email, how: hash}, {header: x-team}]}
ca: {ttl: 1h30m, passphraseFile: secret}
listen: {xds: "127.0.0.1:0", http: "[::1]:8080"}
log: {level: debug}
"""
CHECKS = "- {name: page, request: anonymous GET http://productpage/, expect: 200, body: Comedy}\n"
CASES = """\
- {name: a, request: web GET http://api/, expect: allow, by: reads, headers: {x-a: b}, time: "2026-12-24T00:00:00Z"}
- {name: b, request: web GET http://api/, expect: deny, by: [one, two]}
- {name: c, table: {who: [web, anonymous], may: [GET, PUT], url: http://api/}, allow: [web GET]}
"""
JSON_CASES = """\
[{"name": "a", "request": {"principal": "W::\\"a\\"", "action": "A::\\"b\\"", "resource": "S::\\"c\\"", "context": {}},
 "entities": [{"uid": {"type": "W", "id": "a"}, "attrs": {"x": 1}, "parents": [{"type": "G", "id": "g"}]}],
 "decision": "deny", "reason": ["one"], "num_errors": 0}]
"""
SAMPLES = {
    "policyd.yaml": SETTINGS,
    "workloads.yaml": WORKLOADS,
    "groups.yaml": GROUPS,
    "checks.yaml": CHECKS,
    "cases/a.yaml": CASES,
    "cases/a.json": JSON_CASES,
    "mesh/gateway.yaml": GATEWAY,
    "mesh/routes.yaml": ROUTES,
    "mesh/service.yaml": SERVICE,
    "mesh/everything.yaml": test_istio.EVERYTHING,
    "mesh/rule.yaml": test_destinations.RULE,
}
VALIDATORS = {pattern: Draft202012Validator(schema_of(kind.name)) for kind in file_kinds() for pattern in kind.files}


def validator(path: str) -> Draft202012Validator:
    return next(found for pattern, found in VALIDATORS.items() if fnmatch(path, pattern))


def values(path: str, text: str) -> list[Any]:
    """The documents of a file that say something."""
    return [document.value for document in load(text.replace("\t", " "), path) if document.value is not None]


def passes(path: str, value: Any) -> bool:
    return validator(path).is_valid(value)


def refusals(path: str, text: str) -> list[Problem]:
    """What is wrong with a file by itself, as its own parser says."""
    problems: list[Problem] = []
    try:
        if path == "policyd.yaml":
            parse_settings(text)
        elif path == "checks.yaml":
            parse_checks(text, path)
        elif path.endswith(".json"):
            for item in items_of(load_one(text, path), case_json.MAX_CASES):
                parse(case_json._CaseSpec, item, problems)
        elif path.startswith("cases/"):
            for item in items_of(load_one(text, path), case_yaml.MAX_ENTRIES):
                table = isinstance(item.value, dict) and "table" in item.value
                parse(case_yaml._TableSpec if table else case_yaml._CaseSpec, item, problems)
        else:
            declare({path: text})
    except InvalidInput as error:
        problems += error.problems
    return problems


def test_they_are_schemas_of_the_dialect_that_they_name() -> None:
    for kind in file_kinds():
        made = schema_of(kind.name)
        assert made["$schema"] == DIALECT
        Draft202012Validator.check_schema(made)
        assert json.loads(json.dumps(made)) == made


def test_every_file_of_a_folder_and_every_kind_of_resource_has_one() -> None:
    files = [name for name in FILES if name.endswith(".yaml")]
    ours = {folder: suffixes for folder, suffixes in FOLDERS.items() if folder not in ("policies", "jwks")}  # of others
    inside = [f"{folder}/x{suffix}" for folder, suffixes in ours.items() for suffix in suffixes]
    assert [path for path in (*files, *inside) if not validator(path)] == []

    mesh = schema_of("mesh")
    assert mesh["properties"]["kind"]["enum"] == sorted({kind.partition(".")[0] for kind in KINDS})
    for kind in KINDS:
        alone = schema_of(kind)
        assert alone["$ref"].removeprefix("#/$defs/") in mesh["$defs"]
        assert {"apiVersion", "kind"} <= set(alone["$defs"][alone["$ref"].removeprefix("#/$defs/")]["required"])
    assert sorted(schemas()) == sorted(
        f"{name}.schema.json" for name in ("policyd", "workloads", "groups", "checks", "cases", "cases.json", "mesh")
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_what_we_read_they_let_through(name: str) -> None:
    assert refusals(name, SAMPLES[name]) == []
    assert [
        error.message for value in values(name, SAMPLES[name]) for error in validator(name).iter_errors(value)
    ] == []


def written() -> Iterator[tuple[str, str, str]]:
    """Every file of the examples, and every one that a page of the documentation has its reader write."""
    for path in sorted((ROOT / "examples" / "bookinfo").rglob("*")):
        name = path.relative_to(ROOT / "examples" / "bookinfo").as_posix()
        if path.is_file() and not name.startswith(".") and any(fnmatch(name, pattern) for pattern in VALIDATORS):
            yield "examples", name, path.read_text()
    for page in sorted((ROOT / "docs" / "tasks").glob("*.md")):
        for step in steps(page.read_text()):
            if isinstance(step, Write):
                yield page.name, step.path.removeprefix("examples/bookinfo/"), step.text


def test_every_file_of_the_examples_and_of_the_documentation_passes() -> None:
    checked = 0
    for where, name, text in written():
        if not any(fnmatch(name, pattern) for pattern in VALIDATORS) or refusals(name, text):
            continue  # such as what a page shows to be refused
        checked += 1
        for value in values(name, text):
            assert [error.message for error in validator(name).iter_errors(value)] == [], (where, name)
    assert checked >= 12


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("policyd.yaml", "trustDomain", "trust_domain"),
        ("policyd.yaml", "durability: fsync", "durability: sync"),
        ("policyd.yaml", "ttl: 1h30m", "ttl: 90"),
        ("policyd.yaml", "ttl: 1h30m", "ttl: 1 hour"),
        ("policyd.yaml", "level: debug", "level: true"),
        ("policyd.yaml", '"127.0.0.1:0"', '"localhost:0"'),
        ("policyd.yaml", '"127.0.0.1:0"', "8080"),
        ("policyd.yaml", "{xds:", "{xDS:"),
        ("workloads.yaml", "port: 80,", "prot: 80,"),
        ("workloads.yaml", "port: 80,", ""),
        ("workloads.yaml", "port: 80,", "port: 80000,"),
        ("workloads.yaml", "port: 80,", 'port: "80",'),
        ("workloads.yaml", "service: web", "service: Web_1"),
        ("workloads.yaml", "command: [web]", "command: []"),
        ("workloads.yaml", "command: [web]", "command: [1]"),
        ("workloads.yaml", "{version: v1}", "{version: 1}"),
        ("workloads.yaml", "{version: v1}", "[version]"),
        ("workloads.yaml", "{version: v1}", "{version: v 1}"),
        ("workloads.yaml", "web-v1:", "Web:"),
        ("workloads.yaml", "listen: [8000, 8001]", "listen: []"),
        ("workloads.yaml", "listen: [8000, 8001]", "listen: [0]"),
        ("groups.yaml", "callers:", "my callers:"),
        ("groups.yaml", "workloads: [", "workload: ["),
        ("groups.yaml", "services: [api]", "services: api"),
        ("groups.yaml", "services: [api]", 'services: [""]'),
        ("checks.yaml", "expect: 200", "expect: 99"),
        ("checks.yaml", "expect: 200", 'expect: "200"'),
        ("checks.yaml", "name: page, ", ""),
        ("checks.yaml", "- {", "a: {"),
        ("cases/a.yaml", "expect: allow", "expect: allowed"),
        ("cases/a.yaml", "expect: deny, ", ""),
        ("cases/a.yaml", "by: [one, two]", "by: [one, 2]"),
        ("cases/a.yaml", "by: reads", "because: reads"),
        ("cases/a.yaml", "who: [web, anonymous]", "who: []"),
        ("cases/a.yaml", "url: http://api/", "uri: http://api/"),
        ("cases/a.yaml", 'time: "2026-12-24T00:00:00Z"', "time: soon"),
        ("cases/a.json", '"num_errors": 0', '"num_errors": -1'),
        ("cases/a.json", '"num_errors": 0', '"numErrors": 0'),
        ("cases/a.json", '"decision": "deny"', '"decision": "Deny"'),
        ("cases/a.json", '"resource"', '"resources"'),
        ("mesh/gateway.yaml", "kind: Gateway", "kind: Gatway"),
        ("mesh/gateway.yaml", "kind: Gateway\n", ""),
        ("mesh/gateway.yaml", "apiVersion: networking.istio.io/v1\n", ""),
        ("mesh/gateway.yaml", "networking.istio.io/v1", "networking.istio.io/v2"),
        ("mesh/gateway.yaml", "protocol: HTTP}", "protocol: QUIC}"),
        ("mesh/gateway.yaml", "selector: {istio: ingressgateway}", "selector: {}"),
        ("mesh/gateway.yaml", "name: edge", "nam: edge"),
        ("mesh/routes.yaml", "hosts:", "host:"),
        ("mesh/routes.yaml", "hosts: [www.example.com]", "hosts: [a/b]"),
        ("mesh/routes.yaml", "{prefix: /}", "{prefx: /}"),
        ("mesh/routes.yaml", "kind: VirtualService", "kind: Gateway"),
        ("mesh/everything.yaml", "timeout: 1m30s", "timeout: 90"),
        ("mesh/everything.yaml", "attempts: 3", "attempts: 1000"),
        ("mesh/service.yaml", "port: 80,", "port: 0,"),
        ("mesh/rule.yaml", "host:", "hosts:"),
    ],
)  # fmt: skip
def test_what_we_refuse_for_its_structure_they_refuse(path: str, old: str, new: str) -> None:
    text = SAMPLES[path].replace(old, new, 1)
    assert text != SAMPLES[path], old
    assert refusals(path, text) != []
    assert not all(passes(path, value) for value in values(path, text))


SPOILT = (None, True, 7, 0, -1, 1.5, "", "x", "X y", "10s", "/a", "127.0.0.1:0", [], ["x"], {}, {"x": "y"}, [{}])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for at, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(one, (*path, at))


def spoilt(value: Any, data: st.DataObject) -> Any:
    """A document with one thing in it replaced, left out, or added."""
    value = copy.deepcopy(value)
    path = data.draw(st.sampled_from(list(places(value))[1:] or [()]))
    if not path:
        return data.draw(st.sampled_from(SPOILT))
    above = value
    for step in path[:-1]:
        above = above[step]
    match data.draw(st.sampled_from(("replace", "remove", "add"))):
        case "replace":
            above[path[-1]] = data.draw(st.sampled_from(SPOILT))
        case "remove":
            del above[path[-1]]
        case _ if isinstance(above, dict):
            above["unheardOf"] = "x"
        case _:
            above.append(data.draw(st.sampled_from(SPOILT)))
    return value


@pytest.mark.parametrize("path", SAMPLES)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_schema_never_refuses_what_we_read_and_never_passes_what_is_no_field(path: str, data: st.DataObject) -> None:
    value = spoilt(values(path, SAMPLES[path])[0], data)
    problems = refusals(path, json.dumps(value))

    if not problems and value is not None:
        assert passes(path, value), value
    if any("unknown field `unheardOf`" in problem.message for problem in problems):
        assert not passes(path, value), value


def test_a_kind_that_has_none_names_those_that_have() -> None:
    with pytest.raises(NotFound) as near:
        schema_of("Gatway")
    assert str(near.value) == "`Gatway` has no schema; did you mean `Gateway`?"
    with pytest.raises(NotFound) as far:
        schema_of("zzz")
    assert str(far.value).startswith("`zzz` has no schema; there are those of `policyd.yaml`, `workloads.yaml`, ")


def test_editors_are_told_what_things_mean() -> None:
    fields = schema_of("workloads")["$defs"]["WorkloadSpec"]["properties"]
    assert fields["appPort"]["description"] == "Where the application listens, on loopback of its machine: its PORT."
    assert schema_of("policyd.yaml")["$defs"]["AuditSettings"]["properties"]["retain"]["default"] == "7d"
    assert schema_of("VirtualService")["$defs"]["HttpRoute"]["description"].startswith("One rule; ")


def resources() -> Iterator[tuple[str, Document]]:
    """Every resource that a file of the tests, the examples or the documentation has in it, whole and good."""
    files = [path for folder in ("docs", "examples", "tests") for path in sorted((ROOT / folder).rglob("*"))]
    for path in files:
        if path.suffix not in (".py", ".md", ".yaml") or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        for part in texts_in(path, text):
            try:
                documents = load(part, str(path.relative_to(ROOT))) if "apiVersion" in part else ()
            except InvalidInput:
                continue  # a template, or what is shown to be refused
            for document in documents:
                kind = key_of(document.value)
                problems: list[Problem] = []
                if kind in KINDS and parse(KINDS[kind], document, problems) is not None:
                    yield kind, document


def texts_in(path: Path, text: str) -> list[str]:
    """What of a file may be YAML: all of it, a page's blocks, a module's strings."""
    if path.suffix == ".py":
        nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
        return [node.value for node in nodes if isinstance(node.value, str)]
    return [text] if path.suffix == ".yaml" else [block.text for block in blocks(text)]


def test_every_kind_that_is_read_anywhere_passes_its_schema() -> None:
    """So that a kind that comes has its schema tried by its own tests' samples."""
    seen: set[str] = set()
    for kind, document in resources():
        seen.add(kind)
        errors = [error.message for error in validator("mesh/x.yaml").iter_errors(document.value)]
        assert errors == [], (document.file, kind, document.value)
    assert seen == set(KINDS)
