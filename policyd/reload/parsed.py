"""A folder's texts, each checked by itself, so that the problems of one do not hide those of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Final, TypeVar

from policyd.cedar.engine import Engine
from policyd.cedar.policies import PolicySet, load_policies
from policyd.cedar.schema import Schema
from policyd.cedar.shadow import Sets, beside, check_unmarked, split
from policyd.config.settings import SETTINGS_FILE, Settings, parse_settings
from policyd.errors import InvalidInput, Problem
from policyd.mesh.build import build
from policyd.mesh.declaration import Declaration
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.outside import Outbound
from policyd.mesh.placement import Placement
from policyd.mesh.telemetry import FILE, WINDOW, Providers
from policyd.policy.case_model import Case
from policyd.policy.cases import parse_cases
from policyd.policy.checks import parse_checks
from policyd.reload.live import Earlier, Schemas
from policyd.sources.files import Folder
from policyd.sources.header_files import header_files, header_problems
from policyd.sources.relations import TEXT as RELATIONS
from policyd.sources.relations import with_relations
from policyd.sources.shipped import shipped_policies

ISSUANCE_FILE: Final = "issuance.cedar"
OPERATORS_FILE: Final = "operators.cedar"
CHECKS_FILE: Final = "checks.yaml"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A folder's texts, each checked by itself."""

    settings: Settings
    declaration: Declaration
    placement: Placement
    mesh: Mesh
    traffic: Sets
    issuance: PolicySet
    operators: Engine | None
    cases: tuple[Case, ...]


def parse(folder: Folder, schemas: Schemas, place: Callable[[Declaration], Placement], earlier: Earlier) -> Parsed:
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
    tried = folder.shadow
    shadow = None if tried is None else attempt(lambda: load_policies(tried, schemas.mesh, earlier.shadow))
    traffic = attempt(lambda: _sets(active, shadow, folder.shadow_place)) if active else None
    issuance = attempt(lambda: _load_enforced(_issuance_texts(folder), schemas.issuance))
    operators = attempt(lambda: _load_enforced(_texts(folder, OPERATORS_FILE), schemas.operators))
    attempt(lambda: parse_checks(folder.text(CHECKS_FILE) or "", CHECKS_FILE))
    cases = attempt(lambda: parse_cases(folder.below("cases"), placed[1])) if placed else None
    if problems or not settings or not declaration or not placed or not traffic or issuance is None or cases is None:
        raise InvalidInput(problems)
    asked = Engine(operators, schemas.operators) if operators is not None and operators.policies else None
    return Parsed(settings, declaration, *placed, traffic, issuance, asked, cases)


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
