"""workloads.yaml and groups.yaml: what they say, and bad input of every kind."""

from __future__ import annotations

import pytest

from policyd.errors import InvalidInput
from policyd.mesh.declare import declare
from policyd.mesh.files import Defaults, GatewayInstanceSpec, ServiceAccountSpec, WorkloadsFile, WorkloadSpec
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.service import CoreService
from tests.mesh.sample import GOOD

WHOLE = """\
workloads:
  web-v1:
    service: web
    port: 80
    command: serve --name "a b"
    health: /health
    labels: {version: v1}
    environment: {COLOR: red, DEBUG: "false"}
    workdir: ./web
    serviceAccount: till
    namespace: shop
    address: 10.0.0.7
    appPort: 8000
    inboundPort: 8001
    outboundPort: 8002
gateways:
  edge: {listen: 8080, labels: {zone: a}, serviceAccount: door, namespace: outside, address: "::1"}
serviceAccounts:
  till.shop: {labels: {team: blue}}
defaults: {namespace: prod, serviceAccount: "app-{service}"}
"""


def refused(files: dict[str, str]) -> list[str]:
    with pytest.raises(InvalidInput) as error:
        declare(files)
    return [str(problem) for problem in error.value.problems]


def test_every_field_of_workloads_is_read() -> None:
    assert declare({"workloads.yaml": WHOLE}).workloads == WorkloadsFile(
        workloads={
            "web-v1": WorkloadSpec(
                service="web",
                port=80,
                command=("serve", "--name", "a b"),
                health="/health",
                labels={"version": "v1"},
                environment={"COLOR": "red", "DEBUG": "false"},
                workdir="./web",
                service_account="till",
                namespace="shop",
                address="10.0.0.7",
                app_port=8000,
                inbound_port=8001,
                outbound_port=8002,
            )
        },
        gateways={
            "edge": GatewayInstanceSpec(
                listen=(8080,), labels={"zone": "a"}, service_account="door", namespace="outside", address="::1"
            )
        },
        service_accounts={"till.shop": ServiceAccountSpec(labels={"team": "blue"})},
        defaults=Defaults(namespace="prod", service_account="app-{service}"),
    )


def test_resources_get_the_default_namespace() -> None:
    files = {**GOOD, "workloads.yaml": GOOD["workloads.yaml"] + "defaults: {namespace: prod}\n"}
    declaration = declare(files)
    assert declaration.of(Gateway)[0].resource.id == "prod/edge"
    assert declaration.of(CoreService)[0].resource.namespace == "prod"


def test_other_files_are_passed_over() -> None:
    declaration = declare({"policyd.yaml": "{", "cases/a.yaml": "{", "mesh/README.md": "{", "mesh/notes.txt": "{"})
    assert (declaration.of(Gateway), declaration.workloads) == ((), WorkloadsFile())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("workloads: {a: {service: s, port: 80}\n", "did not find expected ',' or '}'"),
        (
            "workloads:\n  a: {service: s, port: 80}\n  a: {service: t, port: 80}\n",
            "3: the key `a` is there twice, first in line 2; remove or rename one",
        ),
        ("workloads: {a: {service: s, port: 80, environment: {A: no}, health: on}}\n", "`on` is no path"),
        ("workloads: {a: {service: s, port: 80, environment: {A: 1}}}\n", "write it in quotes"),
        ("workloads: {a: {service: s, port: 80, environment: {'A=B': x}}}\n", "`A=B` is no name of an environment"),
        ("workloads: {a: {service: s, port: 80, imgae: x}}\n", "1: unknown field `imgae` in `workloads.a`"),
        ("workload: {}\n", "1: unknown field `workload`; did you mean `workloads`?"),
        ("workloads: {A_b: {service: s, port: 80}}\n", "1: `workloads.A_b`: `A_b` is no DNS label"),
        ("workloads: {a: {service: s.t, port: 80}}\n", "`s.t` is no DNS label"),
        (f"workloads: {{{'a' * 64}: {{service: s, port: 80}}}}\n", "is no DNS label"),
        ("workloads: {a: {port: 80}}\n", "1: `workloads.a.service` is missing; add it"),
        ("workloads: {a: {service: s, port: 0}}\n", "must be at least 1"),
        ("workloads: {a: {service: s, port: 80, command: []}}\n", "must have at least 1 entries, not an empty list"),
        ("workloads: {a: {service: s, port: 80, command: 'a \"b'}}\n", "is no command: no closing quotation"),
        ("workloads: {a: {service: s, port: 80, address: localhost}}\n", "`localhost` is no IP address"),
        ("workloads: {a: {service: s, port: 80, labels: {'a b': c}}}\n", "`a b` is no name of a label"),
        ("workloads: {a: {service: s, port: 80, command: [\"a\\0\"]}}\n", "1: the control character U+0000"),
        ("workloads: {a\0: {}}\n", "1: the control character U+0000 is not allowed; remove it"),
        ("gateways: {a: {listen: []}}\n", "must have at least 1 entries, not an empty list"),
        ("gateways: {a: {listen: '80'}}\n", "must be a whole number, not the text `80`"),
        ("defaults: {serviceAccount: '{name}'}\n", "`{name}` makes no DNS label"),
        ("workloads: [a]\n", "1: `workloads` must be a mapping, not a list of 1"),
        ("- a\n", "1: the document must be a mapping, not a list of 1"),
        ("a: 1\n---\nb: 2\n", "3: more than one document"),
        ("workloads: " + "[" * 10_000, "nested more than 64 levels deep"),
        ("# " + "x" * 10_000_000, "10,000,002 bytes, at most 1,048,576 are allowed; split the file"),
    ],
)  # fmt: skip
def test_bad_workloads_are_refused(text: str, problem: str) -> None:
    (found,) = refused({"workloads.yaml": text})
    assert found.startswith("workloads.yaml:")
    assert problem in found


def test_an_alias_bomb_is_refused() -> None:
    bomb = "a: &a {service: s, port: 80}\n"
    bomb += "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}' if n else '*a'] * 12)}]\n" for n in range(12))
    (found,) = refused({"workloads.yaml": bomb})
    assert "more than 200,000 values once its aliases are expanded" in found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("groups: {a: {members: []}}\n", "unknown field `members` in `groups.a`"),
        ("groups: {a: {workloads: bookinfo}}\n", "`groups.a.workloads` must be a list, not the text `bookinfo`"),
        ("groups: {a: {workloads: ['']}}\n", "must have at least 1 characters"),
        ("groups: {a: {users: [1]}}\n", "must be text, not the number 1; write it in quotes"),
        ("groups: {a: }\n", "`groups.a` must be a mapping, not empty"),
    ],
)
def test_bad_groups_are_refused(text: str, problem: str) -> None:
    (found,) = refused({"groups.yaml": text})
    assert found.startswith("groups.yaml:1: ")
    assert problem in found


def test_the_problems_of_all_files_come_at_once() -> None:
    files = {"workloads.yaml": "a: [", "groups.yaml": "b: 1", "mesh/a.yaml": "c: 1", "mesh/b.yml": "- 1"}
    assert {problem.partition(":")[0] for problem in refused(files)} == set(files)


def test_a_file_that_says_the_same_is_not_parsed_again() -> None:
    before = declare(GOOD)
    changed = {**GOOD, "mesh/routes.yaml": GOOD["mesh/routes.yaml"].replace("name: web", "name: other")}

    after = declare(changed, before)

    assert after == declare(changed)
    assert after.workloads_document is before.workloads_document
    same = [one.resource.name for one in after.resources if any(one is old for old in before.resources)]
    assert sorted(same) == ["api-canary", "edge"]


def test_the_namespace_of_what_has_none_is_a_part_of_what_a_file_says() -> None:
    far = {**GOOD, "workloads.yaml": f"defaults: {{namespace: far}}\n{GOOD['workloads.yaml']}"}

    after = declare(far, declare(GOOD))

    assert after == declare(far)
    assert {one.resource.namespace for one in after.resources} == {"far"}


def test_problems_are_found_again_and_again() -> None:
    wrong = {**GOOD, "mesh/routes.yaml": GOOD["mesh/routes.yaml"].replace("hosts:", "hosst:")}

    for before in (None, declare(GOOD)):
        with pytest.raises(InvalidInput) as refused:
            declare(wrong, before)
        assert "unknown field `hosst`" in str(refused.value.problems[0]) or "hosts" in str(refused.value.problems[0])
