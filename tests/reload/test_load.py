"""A change of the folder: taken whole once it is checked, or refused with all its problems, and the old Live stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policyd.ca.database import open_database
from policyd.ca.revocations import Revocation, Revocations
from policyd.errors import InvalidInput, JournalError, Problem, StateError
from policyd.keeper import Keeper
from policyd.mesh.declaration import Declaration
from policyd.mesh.placement import Placement, assumed
from policyd.policy.request_form import parse_form
from policyd.policy.resolving import resolve_form
from policyd.reload.live import Live, Schemas, shipped_schemas
from policyd.reload.load import load, reenforce
from policyd.server.in_force import with_revoked
from policyd.sources.files import Folder, digest, read_folder
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import Control

WORKLOADS = "workloads: {web-v1: {service: web, port: 80}, api-v1: {service: api, port: 8080}}\n"
POLICY = """\
@id("api-reads")
permit (principal, action == Action::"GET", resource == Service::"api.default");
"""
OTHER_POLICY = POLICY.replace("GET", "HEAD")
CASE = "- {name: web reads, request: web GET http://api/, expect: allow}\n"
GOOD = {"workloads.yaml": WORKLOADS, "policies/api.cedar": POLICY, "cases/api.yaml": CASE}
CONTROL = Control("127.0.0.1", (9000,), SpiffeId.server("cluster.local"))


@pytest.fixture(scope="module")
def schemas() -> Schemas:
    return shipped_schemas()


def loaded(schemas: Schemas, texts: dict[str, str]) -> Live:
    return load(Folder(Path("mesh"), texts, digest(texts)), schemas, assumed, CONTROL)


def problems(schemas: Schemas, **changed: str) -> list[str]:
    """What is wrong with the good folder once files of it are other ones; `policies__api` is policies/api.cedar."""
    texts = GOOD | {_file(name): text for name, text in changed.items()}
    with pytest.raises(InvalidInput) as refused:
        loaded(schemas, texts)
    return [str(problem) for problem in refused.value.problems]


def _file(name: str) -> str:
    ending = "cedar" if name.startswith("policies") or name in ("issuance", "operators") else "yaml"
    return f"{name.replace('__', '/')}.{ending}"


# ---- load


def test_a_good_folder_is_in_force_as_a_whole(schemas: Schemas) -> None:
    live = loaded(schemas, GOOD)

    assert live.digest == digest(GOOD)
    assert sorted(live.snapshots) == sorted(live.mesh.instances) == ["api-v1", "web-v1"]
    assert [policy.id for policy in live.ruling.policy_set.policies] == ["api-reads"]
    assert live.warnings == ()


def test_an_application_without_a_sidecar_decides_by_what_is_in_force_or_nothing_is(schemas: Schemas) -> None:
    workloads = "workloads: {web-v1: {service: web, port: 80}, api-v1: {service: api, port: 8080%s}}\n"
    alone = ", protocol: grpc, proxyless: true"
    rule = (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: api}\n"
        "spec: {host: api, trafficPolicy: {loadBalancer: {simple: RANDOM}}}\n"
    )
    live = loaded(schemas, {**GOOD, "workloads.yaml": workloads % alone, "mesh/api.yaml": rule})
    unknown = POLICY.replace(";", '\nwhen { context.request.headers.hasTag("te") };')

    assert list(live.guarded.guards) == ["api-v1/inbound"]
    assert [str(one) for one in live.warnings] == [
        "mesh/api.yaml:4: callers without a sidecar would get this otherwise: gRPC takes instances in turn"
    ]
    assert problems(schemas, workloads=workloads % alone, policies__api=unknown, cases__api="") == [
        "policies/api.cedar:1: `api-v1` cannot be proxyless: gRPC does not decide by the header `te`, "
        "which it has otherwise than a sidecar; change the policy, or give the workload a sidecar"
    ]


def test_a_revoked_identity_is_denied_whatever_cases_expect_of_it(schemas: Schemas, tmp_path: Path) -> None:
    """A revocation that a case of somebody's policies could hold up would be none."""
    database = open_database(tmp_path / "tokens.db")
    revocations = Revocations(database)
    folder = Folder(Path("mesh"), GOOD, digest(GOOD))
    assert with_revoked(folder, revocations) is folder
    revocations.add(Revocation(SpiffeId.workload("cluster.local", "default", "web"), 1), lambda: None)
    database.close()

    live = load(with_revoked(folder, revocations), schemas, assumed, CONTROL)

    assert live.digest != folder.digest
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    facts = resolve_form(parse_form("web GET http://api/"), live.mesh, now, {})
    decision = live.ruling.decide(live.ruling.request(facts))
    assert (decision.allowed, [one.partition("-")[0] for one in decision.reasons]) == (False, ["revoked"])
    broken = GOOD | {"cases/api.yaml": CASE.replace("allow", "deny")}
    with pytest.raises(InvalidInput):  # other cases still count
        load(with_revoked(Folder(Path("mesh"), broken, digest(broken)), revocations), schemas, assumed, CONTROL)


def test_without_policies_or_workloads_it_warns_and_says_what_to_do(schemas: Schemas) -> None:
    assert [str(warning) for warning in loaded(schemas, {}).warnings] == [
        "policies: there are no policies: every request is denied;"
        " write `policies/<service>.cedar`; examples/bookinfo/policies shows how",
        "workloads.yaml: there are no workloads; declare what runs in workloads.yaml",
    ]


def test_a_folder_without_issuance_policies_has_the_built_in_ones(schemas: Schemas) -> None:
    own = 'permit (principal, action in Action::"issue", resource) when { context.ttl <= duration("2h") };'

    built_in = loaded(schemas, GOOD).issuance.revision

    assert loaded(schemas, GOOD | {"issuance.cedar": f'@id("two")\n{own}\n'}).issuance.revision != built_in
    assert loaded(schemas, GOOD | {"groups.yaml": "groups: {}\n"}).issuance.revision == built_in


def test_what_proxies_are_sent_has_a_version_of_its_own(schemas: Schemas) -> None:
    before, other_policy = (
        loaded(schemas, GOOD),
        loaded(schemas, GOOD | {"policies/web.cedar": OTHER_POLICY.replace("api", "web")}),
    )
    other_mesh = loaded(schemas, GOOD | {"workloads.yaml": WORKLOADS.replace("8080", "8081")})

    assert other_policy.ruling.revision != before.ruling.revision
    assert other_policy.config == before.config
    assert other_mesh.config != before.config


@pytest.mark.parametrize(
    ("changed", "places"),
    [
        ({"policyd": "trustDomian: a\n"}, ["policyd.yaml:1"]),
        ({"workloads": "workloads: {a: {servcie: a, port: 80}}\n"}, ["workloads.yaml:1"]),
        ({"groups": "groups: {a: {}, a: {}}\n"}, ["groups.yaml:1"]),
        ({"groups": "groups: {a: {workloads: [nobody]}}\n"}, ["groups.yaml:1"]),
        ({"mesh__gateway": "kind: Gateway\n"}, ["mesh/gateway.yaml:1"]),
        ({"policies__api": "permit (principal, action"}, ["policies/api.cedar:1"]),
        ({"policies__two": POLICY}, ["policies/two.cedar:1"]),
        ({"issuance": "permit (principal, action, resource) when { context.nope };"}, ["issuance.cedar:1"]),
        ({"operators": "permit (principal, action, resource) when { context.nope };"}, ["operators.cedar:1"]),
        ({"checks": "- {name: a, request: nonsense, expect: 200}\n"}, ["checks.yaml:1"]),
        ({"cases__api": CASE.replace("allow", "deny")}, ["cases/api.yaml:1"]),
        ({"cases__api": "- {nmae: x}\n"}, ["cases/api.yaml:1"]),
    ],
)
def test_each_file_is_checked_and_named_with_its_line(
    schemas: Schemas, changed: dict[str, str], places: list[str]
) -> None:
    found = problems(schemas, **changed)

    assert sorted({":".join(problem.split(":")[:2]) for problem in found}) == places


def test_no_file_hides_the_problems_of_another(schemas: Schemas) -> None:
    found = problems(
        schemas,
        policyd="nope: 1\n",
        policies__api="permit (",
        policies__web="forbid (",
        issuance="permit (",
        operators="permit (",
        checks="- {name: 1}\n",
        workloads="workloads: {a: {port: 80}, b: {port: x, service: b}}\n",
    )

    named = [problem.partition(":")[0] for problem in found]
    assert set(named) == {
        "policyd.yaml",
        "policies/api.cedar",
        "policies/web.cedar",
        "issuance.cedar",
        "operators.cedar",
        "checks.yaml",
        "workloads.yaml",
    }
    assert named.count("workloads.yaml") == 2


def test_what_is_wrong_with_policies_hides_nothing_of_cases(schemas: Schemas) -> None:
    found = problems(schemas, policies__api="permit (", cases__api="- {nmae: x}\n" + CASE)

    assert {problem.partition(":")[0] for problem in found} == {"policies/api.cedar", "cases/api.yaml"}


def test_a_failing_case_refuses_the_folder_and_says_what_was_decided(schemas: Schemas) -> None:
    [problem] = problems(schemas, policies__api=OTHER_POLICY)

    assert problem == (
        "cases/api.yaml:1: the case `web reads` fails: expected allow, got deny;"
        " `web GET http://api/`: correct the policies, or the case"
    )


# ---- what is tried


TRIED = """\
@id("no-reads")
@shadow
forbid (principal, action == Action::"GET", resource);
"""


def test_a_policy_marked_shadow_is_tried_and_not_active(schemas: Schemas) -> None:
    plain, live = loaded(schemas, GOOD), loaded(schemas, GOOD | {"policies/z.cedar": TRIED})

    assert live.ruling.shadow is not None
    assert [policy.id for policy in live.ruling.policy_set.policies] == ["api-reads"]
    assert [policy.id for policy in live.ruling.shadow.policy_set.policies] == ["api-reads", "no-reads"]
    assert live.ruling.revision == plain.ruling.revision != live.ruling.shadow.revision
    assert (plain.ruling.shadow, plain.config) == (None, live.config)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"issuance": '@id("x") @shadow permit (principal, action in Action::"issue", resource);'},
            "issuance.cedar:1: `x` is marked `@shadow`, but only policies on traffic can be tried;"
            " remove `@shadow`, or the policy",
        ),
        (
            {"operators": '@id("x") @shadow permit (principal, action, resource);'},
            "operators.cedar:1: `x` is marked `@shadow`, but only policies on traffic can be tried;"
            " remove `@shadow`, or the policy",
        ),
        (
            {"policies__z": TRIED.replace("@shadow", '@shadow("api-read")')},
            "policies/z.cedar:1: `no-reads` is to stand in for `api-read`, which is no active policy;"
            " did you mean `api-reads`?",
        ),
        (
            {"policies__z": TRIED.replace("no-reads", "api-reads")},
            "policies/z.cedar:1: two policies have the id `api-reads`; the other one is policies/api.cedar:1",
        ),
        (
            {"policies__z": TRIED.replace(";", " when { context.nope };")},
            'policies/z.cedar:3: `no-reads` is not valid: attribute `nope` not found in the context of Action::"GET";'
            ' name the actions that have it, `action in Action::"http"` for example',
        ),
    ],
)
def test_what_cannot_be_tried_is_refused_with_its_place(
    schemas: Schemas, changed: dict[str, str], problem: str
) -> None:
    assert problems(schemas, **changed) == [problem]


def test_a_shadow_folder_is_tried_whole_and_checked_as_any(schemas: Schemas) -> None:
    shadow = {"next/a.cedar": POLICY, "next/b.cedar": TRIED.replace("@shadow\n", "")}
    folder = Folder(Path("mesh"), GOOD, digest({**GOOD, **shadow}), shadow, "next")
    live = load(folder, schemas, assumed, CONTROL)

    assert live.ruling.shadow is not None
    assert [policy.id for policy in live.ruling.shadow.policy_set.policies] == ["api-reads", "no-reads"]
    assert [policy.file for policy in live.ruling.shadow.policy_set.policies] == ["next/a.cedar", "next/b.cedar"]
    assert (live.ruling.policy_set.policies[0].file, live.shadow_place) == ("policies/api.cedar", "next")
    assert live.files.keys() == GOOD.keys() | shadow.keys()


def test_the_problems_of_both_folders_are_found_at_once(schemas: Schemas) -> None:
    bad = {**GOOD, "policies/api.cedar": "permit ("}
    with pytest.raises(InvalidInput) as refused:
        load(Folder(Path("mesh"), bad, "", {"next/a.cedar": "forbid ("}, "next"), schemas, assumed, CONTROL)

    assert [problem.file for problem in refused.value.problems] == ["policies/api.cedar", "next/a.cedar"]


# ---- Keeper


@dataclass
class Kept:
    """A Keeper of a folder on disk, what it was told to keep and what it said."""

    directory: Path
    schemas: Schemas
    kept: list[str] = field(default_factory=list)
    heard: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    built: int = 0
    fault: Exception | None = None
    full: bool = False

    def __post_init__(self) -> None:
        for name, text in GOOD.items():
            self.write(name, text)
        self.keeper = Keeper(lambda: read_folder(self.directory), self._build, self._keep, self._hear)

    def write(self, name: str, text: str) -> None:
        target = self.directory / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)

    def change(self, name: str, text: str) -> None:
        """Write a file and have the keeper look."""
        self.write(name, text)
        self.keeper.look()

    @property
    def actions(self) -> list[str]:
        """The policy in force, by what tells the two apart."""
        return ["HEAD" if "HEAD" in policy.text else "GET" for policy in self.keeper.live.ruling.policy_set.policies]

    @property
    def refused(self) -> list[str]:
        return [str(problem) for problem in self.keeper.refused]

    def _build(self, folder: Folder) -> Live:
        self.built += 1
        if self.fault is not None:
            raise self.fault
        return load(folder, self.schemas, assumed, CONTROL)

    def _keep(self, live: Live) -> None:
        if self.full:
            raise JournalError("the journal takes no record", remedy="make space")
        self.kept.append(live.ruling.revision)

    def _hear(self, live: Live | None, refused: Iterable[Problem]) -> None:
        self.heard.append(("refused" if live is None else live.ruling.revision, tuple(map(str, refused))))


@pytest.fixture
def kept(tmp_path: Path, schemas: Schemas) -> Kept:
    return Kept(tmp_path, schemas)


def allow_head(kept: Kept) -> None:
    """A good change: the other policy, with its case."""
    kept.write("cases/api.yaml", CASE.replace("GET", "HEAD"))
    kept.change("policies/api.cedar", OTHER_POLICY)


def test_a_good_change_is_taken_once(kept: Kept) -> None:
    allow_head(kept)
    kept.keeper.look()

    assert kept.actions == ["HEAD"]
    assert kept.heard == [(kept.keeper.live.ruling.revision, ())]
    assert kept.kept == [kept.keeper.live.ruling.revision]
    assert kept.built == 2


def test_without_a_change_nothing_is_built_nor_said(kept: Kept) -> None:
    kept.keeper.look()

    assert (kept.built, kept.heard) == (1, [])


def test_a_bad_change_is_refused_once_and_told_once_and_the_old_live_stays(kept: Kept) -> None:
    before = kept.keeper.live

    kept.change("policies/api.cedar", "permit (")
    kept.keeper.look()

    assert kept.keeper.live is before
    assert kept.built == 2
    assert [word for word, _ in kept.heard] == ["refused"]
    assert kept.refused == list(kept.heard[0][1])
    assert kept.refused[0].startswith("policies/api.cedar:1: ")
    assert kept.kept == []


def test_another_bad_change_is_told_too(kept: Kept) -> None:
    kept.change("policies/api.cedar", "permit (")
    kept.change("groups.yaml", "groups: {a: {}, a: {}}\n")

    assert [len(told) for _, told in kept.heard] == [1, 2]


def test_ten_thousand_problems_are_told_as_a_hundred_and_a_number(kept: Kept) -> None:
    kept.change("policies/api.cedar", "permit (principal, action, resource);\n" * 10_000)

    assert len(kept.keeper.refused) == 101
    assert str(kept.keeper.refused[-1]) == "and 9,900 more; `policyd check --json` has all"
    assert str(kept.keeper.refused[0]).startswith("policies/api.cedar:1: a policy has no `@id`")


def test_going_back_to_the_text_in_force_ends_the_refusal_without_building_it_again(kept: Kept) -> None:
    before = kept.keeper.live
    kept.change("policies/api.cedar", "permit (")

    kept.change("policies/api.cedar", POLICY)

    assert (kept.refused, kept.built) == ([], 2)
    assert kept.keeper.live is before
    assert [word for word, _ in kept.heard] == ["refused", before.ruling.revision]


def test_a_good_change_after_a_bad_one_is_taken(kept: Kept) -> None:
    kept.change("policies/api.cedar", "permit (")

    allow_head(kept)

    assert (kept.refused, kept.actions) == ([], ["HEAD"])


def test_a_folder_that_cannot_be_read_is_refused_until_it_can(kept: Kept) -> None:
    away = kept.directory.with_name("away")
    kept.directory.rename(away)
    kept.keeper.look()
    assert kept.refused == [f"{kept.directory}: the folder cannot be read: no such file or directory"]

    away.rename(kept.directory)
    kept.keeper.look()
    assert kept.refused == []
    assert [word for word, _ in kept.heard] == ["refused", kept.keeper.live.ruling.revision]


def test_a_misspelt_file_is_refused_until_it_is_gone(kept: Kept) -> None:
    kept.change("polices", "")
    assert kept.refused == ["polices: `polices` is no file of this folder's format; did you mean `policies`?"]

    (kept.directory / "polices").unlink()
    kept.keeper.look()
    assert kept.refused == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trustDomain: other.example\n", "policyd.yaml:1: a change of `trustDomain` needs a restart"),
        ("\naudit: {durability: fsync}\n", "policyd.yaml:2: a change of `audit` needs a restart"),
        ("listen: {http: '127.0.0.1:9999'}\n", "policyd.yaml:1: a change of `listen` needs a restart"),
        ("ca: {passphraseFile: pass}\n", "policyd.yaml:1: a change of `ca.passphraseFile` needs a restart"),
        (
            "ca: {bundleEndpoint: {listen: '127.0.0.1:0'}}\n",
            "policyd.yaml:1: a change of `ca.bundleEndpoint` needs a restart",
        ),
    ],
)
def test_a_setting_that_only_a_restart_can_change_is_refused(kept: Kept, text: str, message: str) -> None:
    before = kept.keeper.live

    kept.change("policyd.yaml", text)

    assert kept.refused == [f"{message}; restart policyd, or put it back"]
    assert kept.keeper.live is before


def test_that_a_restart_is_needed_is_said_before_what_follows_from_it(kept: Kept) -> None:
    kept.write("policies/api.cedar", OTHER_POLICY)
    kept.change("policyd.yaml", "trustDomain: other.example\n")

    assert [problem.partition(": ")[0] for problem in kept.refused] == ["policyd.yaml:1", "cases/api.yaml:1"]


def test_other_settings_change_while_it_serves(kept: Kept) -> None:
    kept.change("policyd.yaml", "ca: {ttl: 30m}\nlog: {level: debug}\n")

    assert kept.refused == []
    assert (kept.keeper.live.settings.ca.ttl, kept.keeper.live.settings.log.level) == (1800, "debug")


def test_a_change_whose_cases_fail_is_refused(kept: Kept) -> None:
    kept.change("policies/api.cedar", OTHER_POLICY)

    assert kept.actions == ["GET"]
    assert kept.refused[0].startswith("cases/api.yaml:1: the case `web reads` fails")


def test_a_change_that_cannot_be_recorded_is_not_in_force_until_it_can(kept: Kept) -> None:
    before, kept.full = kept.keeper.live, True
    allow_head(kept)
    kept.keeper.look()
    assert kept.keeper.live is before
    assert kept.heard == [("refused", ("the journal takes no record; make space",))]

    kept.full = False
    kept.keeper.look()
    assert (kept.refused, kept.actions) == ([], ["HEAD"])


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (StateError("`placement.json` is broken", remedy="remove it"), "`placement.json` is broken; remove it"),
        (RuntimeError("out of luck"), "an unforeseen fault: RuntimeError: out of luck"),
    ],
)
def test_what_fails_for_another_reason_than_the_text_is_tried_again(kept: Kept, fault: Exception, told: str) -> None:
    before, kept.fault = kept.keeper.live, fault
    allow_head(kept)
    assert kept.keeper.live is before
    assert kept.refused == [told]

    kept.fault = None
    kept.keeper.look()
    assert (kept.refused, kept.actions) == ([], ["HEAD"])


def test_a_folder_that_is_bad_from_the_start_has_no_keeper(tmp_path: Path, schemas: Schemas) -> None:
    def place(declaration: Declaration) -> Placement:
        return assumed(declaration)

    (tmp_path / "groups.yaml").write_text("groups: 1\n")

    with pytest.raises(InvalidInput, match=r"^groups\.yaml:1: "):
        Keeper(
            lambda: read_folder(tmp_path),
            lambda folder: load(folder, schemas, place, CONTROL),
            lambda live: None,
            lambda live, refused: None,
        )


# ---- who decides

ENFORCEMENT = """\
apiVersion: policyd.io/v1
kind: Enforcement
metadata: {{name: api, namespace: default}}
spec: {{selector: {{matchLabels: {{app: api}}}}, enforcement: {}}}
"""
API = SpiffeId.parse("spiffe://cluster.local/ns/default/sa/api")


def test_local_that_cannot_be_refuses_the_folder(schemas: Schemas) -> None:
    texts = {"mesh__enforcement": ENFORCEMENT.format("local")}

    assert problems(schemas, **texts) == [
        "mesh/enforcement.yaml:4: `api-v1/inbound` cannot be decided by its sidecar: its records would come after the"
        " fact, and `audit.durability` is `written`; accept that by `durability: async` of the Enforcement, or write"
        " `enforcement: central`"
    ]


def test_a_failing_case_hides_no_local_that_cannot_be(schemas: Schemas) -> None:
    texts = {"mesh__enforcement": ENFORCEMENT.format("local"), "cases__api": CASE.replace("allow", "deny")}

    found = problems(schemas, **texts)

    assert [one.partition(":")[0] for one in found] == ["cases/api.yaml", "mesh/enforcement.yaml"]


@pytest.mark.parametrize(("mode", "local"), [("auto", ()), ("local", ("api-v1/inbound",))])
def test_who_is_found_to_decide_otherwise_asks_from_then_on_where_it_is_auto(
    schemas: Schemas, mode: str, local: tuple[str, ...]
) -> None:
    live = loaded(schemas, GOOD | {"mesh/enforcement.yaml": ENFORCEMENT.format(f"{mode}, durability: async")})
    assert live.enforced.local == ("api-v1/inbound",)

    again = reenforce(live, CONTROL, lambda revision: {API} if revision == live.ruling.revision else ())

    assert again.enforced.local == local
    assert (again.config == live.config) == (mode == "local")
