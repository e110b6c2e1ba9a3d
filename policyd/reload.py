"""A folder becomes a checked Live: all that decisions, certificates and proxies depend on, or all its problems.

Law: everything is checked together; nothing of a folder that has a problem is ever in force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import TypeVar

from policyd.authz.entities import MeshEntities
from policyd.authz.ruling import Ruling, make_ruling
from policyd.ca.revocations import FILE as REVOKED_FILE
from policyd.cedar.engine import Engine
from policyd.cedar.policies import Checked, PolicySet, load_policies, set_of
from policyd.cedar.schema import Schema, parse_schema
from policyd.cedar.shadow import Sets, beside, check_unmarked, split
from policyd.config.settings import SETTINGS_FILE, Settings, parse_settings
from policyd.errors import InvalidInput, Problem
from policyd.local.enforcing import Enforced, Terms, enforced, passed_over
from policyd.local.enforcing import problems as unenforced
from policyd.local.guarding import Guarded, guarded
from policyd.local.guarding import problems as unguarded
from policyd.mesh.build import build
from policyd.mesh.declaration import Declaration
from policyd.mesh.declare import declare
from policyd.mesh.instances import KeptInstances
from policyd.mesh.model import Mesh
from policyd.mesh.outside import Outbound
from policyd.mesh.placement import Placement
from policyd.mesh.proxyless_rules import told
from policyd.mesh.telemetry import FILE, WINDOW, Providers
from policyd.policy.cases import failures, parse_cases
from policyd.policy.checks import parse_checks
from policyd.sources.files import Folder, digest
from policyd.sources.header_files import header_files, header_problems
from policyd.sources.relations import TEXT as RELATIONS
from policyd.sources.relations import with_relations
from policyd.sources.shipped import shipped_policies, shipped_schema
from policyd.spiffe import SpiffeId
from policyd.xds.resources.build import ProxyClass, build_snapshots
from policyd.xds.resources.model import Control
from policyd.xds.resources.observing import STATIC_CLUSTERS
from policyd.xds.resources.reuse import Snapshots

ISSUANCE_FILE = "issuance.cedar"
OPERATORS_FILE = "operators.cedar"
CHECKS_FILE = "checks.yaml"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Schemas:
    """The three schemas that ship, parsed once; no folder replaces one."""

    mesh: Schema
    issuance: Schema
    operators: Schema


def shipped_schemas() -> Schemas:
    """Parse them; raises InvalidInput where the installation lacks one."""
    return Schemas(*(parse_schema(shipped_schema(name), name) for name in ("mesh", "issuance", "operators")))


@dataclass(frozen=True, slots=True)
class Issuance:
    """The issuance policies in force; `revision` is the hash of their texts."""

    engine: Engine
    revision: str


@dataclass(frozen=True, slots=True)
class Live:
    """All that is in force together.

    `operators` are the folder's policies on operators, None where it has none.
    `digest` is the folder's, `texts` and `files` have its files and the digest of each; `config` names what all proxies
    are sent; `shadow_place` is the shadow folder, "" where there is none.
    """

    digest: str
    texts: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str]
    settings: Settings
    declaration: Declaration = field(repr=False)
    placement: Placement
    mesh: Mesh
    ruling: Ruling
    issuance: Issuance
    snapshots: Snapshots[ProxyClass]
    config: str
    warnings: tuple[Problem, ...]
    shadow_place: str = ""
    operators: Engine | None = field(default=None, repr=False)
    enforced: Enforced = field(default_factory=Enforced, repr=False)
    guarded: Guarded = field(default_factory=Guarded, repr=False)


@dataclass(frozen=True, slots=True)
class Earlier:
    """What earlier loads have found out and this one need not: policies that are good, what files say, what was made.

    What follows from it is equal to what a load without it finds.
    """

    active: Checked = field(default_factory=Checked)
    shadow: Checked = field(default_factory=Checked)
    instances: KeptInstances = field(default_factory=KeptInstances)
    declaration: Declaration | None = None
    snapshots: Snapshots[ProxyClass] | None = None
    entities: MeshEntities | None = None
    enforced: Enforced | None = None
    guarded: Guarded | None = None

    def after(self, live: Live) -> Earlier:
        """What the next load need not find out once this was loaded."""
        return replace(
            self,
            declaration=live.declaration,
            snapshots=live.snapshots,
            entities=live.ruling.entities,
            enforced=live.enforced,
            guarded=live.guarded,
        )


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A folder's texts, each checked by itself."""

    settings: Settings
    declaration: Declaration
    placement: Placement
    mesh: Mesh
    traffic: Sets
    issuance: PolicySet
    operators: Engine | None


def load(
    folder: Folder,
    schemas: Schemas,
    place: Callable[[Declaration], Placement],
    control: Control,
    earlier: Earlier | None = None,
    living: Callable[[Mesh], Mesh] = lambda mesh: mesh,
    distrusted: Callable[[str], Collection[SpiffeId]] = lambda revision: (),
) -> Live:
    """Check all of a folder; raises InvalidInput with every problem that can be found at once.

    `place` says where instances are; `control` where proxies ask for decisions; `earlier` spares work; `living` is the
    mesh with the instances that do not answer marked as such; `distrusted` are the workloads whose sidecars decided
    otherwise than policyd under a revision.
    """
    earlier = earlier or Earlier()
    parsed = _parse(folder, schemas, place, earlier)
    parsed = replace(parsed, mesh=living(parsed.mesh))
    ruling = make_ruling(parsed.mesh, parsed.traffic.active, schemas.mesh, parsed.traffic.shadow, earlier.entities)
    _check_cases(folder, _without_revoked(parsed, ruling, schemas.mesh))
    local = _enforced(parsed, ruling, distrusted, earlier.enforced)
    alone = _guarded(parsed, ruling, earlier.guarded)
    decides = (local.switches, alone.guards)
    snapshots = build_snapshots(parsed.mesh, control, earlier.snapshots, *decides).check(STATIC_CLUSTERS)
    return Live(
        digest=folder.digest,
        texts=folder.texts,
        files={path: digest({path: text}) for path, text in folder.known.items()},
        settings=parsed.settings,
        declaration=parsed.declaration,
        placement=parsed.placement,
        mesh=parsed.mesh,
        ruling=ruling,
        issuance=_issuance(parsed.issuance, schemas.issuance),
        snapshots=snapshots,
        config=snapshots.config,
        warnings=tuple(_warnings(parsed)),
        shadow_place=folder.shadow_place,
        operators=parsed.operators,
        enforced=local,
        guarded=alone,
    )


def _guarded(parsed: _Parsed, ruling: Ruling, before: Guarded | None) -> Guarded:
    """Who may call applications without a sidecar; raises InvalidInput where these could not decide."""
    found = guarded(ruling, before)
    if problems := list(unguarded(found, parsed.declaration)):
        raise InvalidInput(problems)
    return found


def _enforced(
    parsed: _Parsed, ruling: Ruling, distrusted: Callable[[str], Collection[SpiffeId]], before: Enforced | None
) -> Enforced:
    """Who decides at sidecars; raises InvalidInput where `local` cannot be."""
    audit = parsed.settings.audit
    terms = Terms(audit.durability, audit.include.headers, distrusted(ruling.revision), audit.include.claims)
    found = enforced(ruling, terms, before)
    if problems := list(unenforced(found, parsed.declaration, terms)):
        raise InvalidInput(problems)
    return found


def relive(live: Live, control: Control, living: Callable[[Mesh], Mesh]) -> Live:
    """The same, for what is known by now of the instances that answer."""
    mesh = living(live.mesh)
    decides = (live.enforced.switches, live.guarded.guards)
    snapshots = build_snapshots(mesh, control, live.snapshots, *decides).check(STATIC_CLUSTERS)
    return replace(live, mesh=mesh, snapshots=snapshots, config=snapshots.config)


def reenforce(live: Live, control: Control, distrusted: Callable[[str], Collection[SpiffeId]]) -> Live:
    """The same, for who is distrusted by now: where an Enforcement is `auto` policyd decides for them."""
    audit = live.settings.audit
    terms = Terms(audit.durability, audit.include.headers, distrusted(live.ruling.revision), audit.include.claims)
    found = enforced(live.ruling, terms, live.enforced)
    decides = (found.switches, live.guarded.guards)
    snapshots = build_snapshots(live.mesh, control, live.snapshots, *decides).check(STATIC_CLUSTERS)
    return replace(live, snapshots=snapshots, config=snapshots.config, enforced=found)


def _parse(folder: Folder, schemas: Schemas, place: Callable[[Declaration], Placement], earlier: Earlier) -> _Parsed:
    """Every file by itself, so that the problems of one do not hide those of another."""
    problems: list[Problem] = []

    def attempt(work: Callable[[], T]) -> T | None:
        try:
            return work()
        except InvalidInput as error:
            problems.extend(error.problems)
            return None

    def resolve(declaration: Declaration) -> tuple[Placement, Mesh]:
        placement = place(declaration)
        known = settings or Settings()
        federated = frozenset(one.trust_domain for one in known.ca.federation)
        outbound, providers = outbound_of(known), providers_of(known)
        kept = earlier.instances
        domain = known.trust_domain
        mesh = build(declaration, domain, placement, outbound, folder.credentials, federated, providers, kept)
        problems.extend(header_problems(known, folder.credentials))
        told = {file.path: file for file in (*mesh.credentials, *header_files(known, folder.credentials))}
        return placement, replace(mesh, looks_at_serials=known.ca.revoke_serials, credentials=tuple(told.values()))

    settings = attempt(lambda: with_relations(parse_settings(folder.text(SETTINGS_FILE) or ""), folder.text(RELATIONS)))
    declaration = attempt(lambda: declare(folder.texts, earlier.declaration, folder.credentials))
    placed = attempt(lambda: resolve(declaration)) if declaration and settings else None
    active = attempt(lambda: load_policies(folder.below("policies"), schemas.mesh, earlier.active))
    shadow = (
        None
        if folder.shadow is None
        else attempt(lambda: load_policies(folder.shadow or {}, schemas.mesh, earlier.shadow))
    )
    traffic = attempt(lambda: _sets(active, shadow, folder.shadow_place)) if active else None
    issuance = attempt(lambda: _load_enforced(_issuance_texts(folder), schemas.issuance))
    operators = attempt(lambda: _load_enforced(_texts(folder, OPERATORS_FILE), schemas.operators))
    attempt(lambda: parse_checks(folder.text(CHECKS_FILE) or "", CHECKS_FILE))
    if problems or not settings or not declaration or not placed or traffic is None or issuance is None:
        raise InvalidInput(problems)
    asked = Engine(operators, schemas.operators) if operators is not None and operators.policies else None
    return _Parsed(settings, declaration, *placed, traffic, issuance, asked)


def _sets(active: PolicySet, shadow: PolicySet | None, place: str) -> Sets:
    return split(active) if shadow is None else beside(active, shadow, place)


def _load_enforced(texts: Mapping[str, str], schema: Schema) -> PolicySet:
    """Policies of a set that has no shadow."""
    policies = load_policies(texts, schema)
    check_unmarked(policies, "only policies on traffic can be tried", "remove `@shadow`, or the policy")
    return policies


def outbound_of(settings: Settings) -> Outbound:
    """What the settings say of names outside the mesh."""
    egress = settings.egress
    return Outbound(
        settings.outbound_traffic_policy.mode,
        tuple(ip_network(text) for text in egress.allow_addresses),
        tuple((server.host, server.port) for server in egress.dns_resolvers),
    )


def providers_of(settings: Settings) -> Providers:
    """The providers that Telemetries may name."""
    declared = settings.extension_providers
    spans = {one.name for one in declared if one.opentelemetry or one.zipkin}
    logs = {one.name for one in declared if one.envoy_file_access_log or one.envoy_otel_als}
    window = {WINDOW} if settings.tracing.window else set()
    zipkin = frozenset(one.name for one in declared if one.zipkin)
    return Providers(frozenset(spans | window), zipkin, frozenset(logs | {FILE}))


def _texts(folder: Folder, name: str) -> dict[str, str]:
    text = folder.text(name)
    return {} if text is None else {name: text}


def _issuance_texts(folder: Folder) -> Mapping[str, str]:
    """The folder's own issuance policies, else the built-in ones: no folder loses its certificates by omission."""
    return _texts(folder, ISSUANCE_FILE) or shipped_policies("issuance")


def _issuance(policies: PolicySet, schema: Schema) -> Issuance:
    digest = hashlib.sha256("\n".join(policy.text for policy in policies.policies).encode())
    return Issuance(Engine(policies, schema), digest.hexdigest()[:16])


def _without_revoked(parsed: _Parsed, ruling: Ruling, schema: Schema) -> Ruling:
    """What cases are about: a policy's author could not know whose identity would be revoked."""
    active = parsed.traffic.active
    if not any(policy.file == REVOKED_FILE for policy in active.policies):
        return ruling
    rest = set_of(policy for policy in active.policies if policy.file != REVOKED_FILE)
    return make_ruling(parsed.mesh, rest, schema, parsed.traffic.shadow)


def _check_cases(folder: Folder, ruling: Ruling) -> None:
    """A change whose policies fail their own cases is no change to make."""
    cases = parse_cases(folder.below("cases"), ruling.mesh)
    failed = failures(cases, ruling)
    if failed:
        raise InvalidInput(failed)


def _warnings(parsed: _Parsed) -> list[Problem]:
    """What works, and is probably not what was meant."""
    found = []
    if not parsed.traffic.active.policies:
        remedy = "write `policies/<service>.cedar`; examples/bookinfo/policies shows how"
        found.append(
            Problem("no_policies", "there are no policies: every request is denied", "policies", remedy=remedy)
        )
    if not parsed.mesh.instances:
        remedy = "declare what runs in workloads.yaml"
        found.append(Problem("no_workloads", "there are no workloads", "workloads.yaml", remedy=remedy))
    for file in parsed.mesh.credentials:
        if file.ended is not None:
            what = "list of revoked certificates" if file.is_list else "certificate"
            then = "no certificate is believed by it" if file.is_list else "nobody believes it"
            message = f"this {what} expired at {file.ended:%Y-%m-%d %H:%M} UTC: {then}"
            found.append(Problem("credential", message, file.path, remedy="renew it"))
    found += told(parsed.declaration, parsed.mesh)
    found += passed_over(parsed.declaration, parsed.mesh)
    for name, listens in sorted(parsed.placement.gateways.items()):
        for listen in listens:
            if listen.actual != listen.declared:
                message = f"port {listen.declared} was in use: the gateway `{name}` listens on {listen.actual} instead"
                remedy = "free the port and start again, or list another one"
                found.append(Problem("port", message, "workloads.yaml", remedy=remedy))
    return found
