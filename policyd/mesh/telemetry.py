"""Telemetries against the mesh: what holds at an instance, for requests that it sends and for those that it gets.

Law: as in Istio the wider level comes first and the narrower one has the word: mesh (the root namespace), namespace,
workload. A selector names workloads of its own namespace. Metrics are merged label by label, of spans each setting by
itself, of access logs the providers as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.istio.telemetry import METRICS, AccessLogging, CustomTag, Metrics, TargetRef, Telemetry, Tracing
from policyd.mesh.levels import NARROWEST_FIRST, Alone, Level, level_of
from policyd.mesh.matching import did_you_mean
from policyd.mesh.model import Instance
from policyd.mesh.selection import check_names, check_selects, namespace_of

KIND: Final = "Telemetry"
FILE: Final = "envoy"  # the provider of access logs that Istio has by itself
COUNTS: Final = "prometheus"  # and that of metrics
WINDOW: Final = "policyd"  # spans for `policyd traces`

Side = Literal["CLIENT", "SERVER"]


@dataclass(frozen=True, slots=True)
class Providers:
    """The names that Telemetries may use of providers; `by_request_id` are those of `spans` whose tracer knows no other
    way to say which requests are traced.
    """

    spans: frozenset[str] = frozenset({WINDOW})
    by_request_id: frozenset[str] = frozenset()
    logs: frozenset[str] = frozenset({FILE})


@dataclass(frozen=True, slots=True)
class Count:
    """What is otherwise with one metric: labels by name, with an expression in CEL, or None where they are removed."""

    disabled: bool = False
    labels: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spans:
    """What is otherwise with spans; None: as the settings say."""

    provider: str | None = None
    percent: float | None = None
    disabled: bool = False
    tags: Mapping[str, CustomTag] = field(default_factory=dict)
    istio_tags: bool = True
    propagates: bool = True
    by_request_id: bool | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """All that Telemetries say of one side of an instance.

    `logs` are the providers that write lines, with their filters ("": of everything); None: as the settings say.
    """

    counts: Mapping[str, Count] = field(default_factory=dict)  # by the metric's own name (policyd.signals)
    spans: Spans = Spans()
    logs: Mapping[str, str] | None = None


NOTHING_SAID: Final = Said()


def said_of(telemetries: Iterable[Telemetry], instance: Instance, side: Side, *, is_logged: bool = False) -> Said:
    """What holds for the requests that an instance sends (CLIENT; a gateway's), or for those that it gets.

    `is_logged` is whether there is an access log where nobody names one.
    """
    applying = _applying(telemetries, instance)
    if not applying:
        return NOTHING_SAID
    return Said(_counts(applying, side), _spans(applying, side), _logs(applying, side, is_logged=is_logged))


def level(resource: Telemetry) -> Level:
    """Whom a Telemetry is for."""
    return level_of(resource, names_workloads=bool(resource.spec.selector.match_labels or resource.spec.targets))


def _holds(resource: Telemetry, instance: Instance) -> bool:
    if level(resource) != "mesh" and resource.namespace != namespace_of(instance):
        return False
    if resource.spec.targets:
        return any(_leads_to(one, resource.namespace, instance) for one in resource.spec.targets)
    labels = resource.spec.selector.match_labels
    return all(instance.labels.get(name) == value for name, value in labels.items())


def _leads_to(reference: TargetRef, namespace: str, instance: Instance) -> bool:
    """Whether a reference means this instance."""
    return instance.service == f"{reference.name}.{reference.namespace or namespace}" and (
        reference.kind == "Service" or instance.role == "gateway"
    )


def _applying(telemetries: Iterable[Telemetry], instance: Instance) -> Sequence[Telemetry]:
    """Those that hold for an instance, the widest first."""
    found = (one for one in telemetries if _holds(one, instance))
    return sorted(found, key=lambda one: NARROWEST_FIRST.index(level(one)), reverse=True)


def _counts(applying: Iterable[Telemetry], side: Side) -> dict[str, Count]:
    made: dict[str, Count] = {}
    overrides = (each for one in applying for metrics in one.spec.metrics for each in metrics.overrides)
    for override in overrides:
        if override.match.mode not in ("CLIENT_AND_SERVER", side):
            continue
        wanted = override.match.metric
        labels = {name: each.value for name, each in override.tag_overrides.items()}
        for name in METRICS.values() if wanted == "ALL_METRICS" else (METRICS[wanted],):
            before = made.get(name, Count())
            disabled = before.disabled if override.disabled is None else override.disabled
            made[name] = Count(disabled, {**before.labels, **labels})
    return {name: one for name, one in made.items() if one != Count()}


def _spans(applying: Iterable[Telemetry], side: Side) -> Spans:
    made: dict[str, Any] = {}
    for tracing in (each for one in applying for each in one.spec.tracing):
        if tracing.match.mode not in ("CLIENT_AND_SERVER", side):
            continue
        propagates = None if tracing.disable_context_propagation is None else not tracing.disable_context_propagation
        said = {
            "provider": tracing.providers[0].name if tracing.providers else None,
            "percent": tracing.random_sampling_percentage,
            "disabled": tracing.disable_span_reporting,
            "tags": tracing.custom_tags,
            "istio_tags": tracing.enable_istio_tags,
            "propagates": propagates,
            "by_request_id": tracing.use_request_id_for_trace_sampling,
        }
        made.update({name: value for name, value in said.items() if value is not None})
    return Spans(**made)


def _logs(applying: Iterable[Telemetry], side: Side, *, is_logged: bool) -> dict[str, str] | None:
    """The narrowest level that names providers says which there are; entries without any are about those."""
    levels = [one.spec.access_logging for one in applying if one.spec.access_logging]
    if not levels:
        return None
    default = (FILE,) if is_logged else ()
    scope: Sequence[str] = default
    for entries in levels:
        scope = list(dict.fromkeys(name for one in _of_side(entries, side) for name in _named(one))) or scope
    made: dict[str, str] = {}
    names: Sequence[str] = default
    for entry in (one for entries in levels for one in entries):
        names = _named(entry) or names
        for name in names if entry in _of_side([entry], side) else ():
            if name not in scope:
                continue
            if entry.disabled:
                made.pop(name, None)
            else:
                made[name] = entry.filter.expression if entry.filter is not None else made.get(name, "")
    return made


def _of_side(entries: Iterable[AccessLogging], side: Side) -> Iterator[AccessLogging]:
    return (one for one in entries if one.match.mode in ("CLIENT_AND_SERVER", side))


def _named(entry: AccessLogging) -> Sequence[str]:
    return [one.name for one in entry.providers]


# ---- what could not hold


def check_telemetries(
    declaration: Declaration, instances: Mapping[str, Instance], providers: Providers | None, problems: list[Problem]
) -> None:
    """Each holds for somebody, alone on its level, and names providers that there are (None: whoever they are)."""
    declared = declaration.of(Telemetry)
    check_names(declared, KIND, problems)
    alone = Alone(KIND, level)
    for one in declared:
        selected = [instance for instance in instances.values() if _holds(one.resource, instance)]
        if one.resource.spec.targets:
            problems += _lost(one, instances)
        else:
            path = ("spec", "selector") if one.resource.spec.selector.match_labels else ("metadata",)
            check_selects(one, KIND, selected, path, problems)
        alone.check(one, selected, problems)
        if providers is not None:
            problems += _unknown(one, providers, problems)
            problems += _undecided(one, [each.resource for each in declared], selected, providers)


def _lost(declared: Declared[Telemetry], instances: Mapping[str, Instance]) -> Iterator[Problem]:
    """References that lead to nobody, or out of the namespace."""
    namespace = declared.resource.namespace
    for at, one in enumerate(declared.resource.spec.targets):
        path = ("spec", "targetRefs", at) if declared.resource.spec.target_refs else ("spec", "targetRef")
        if one.namespace not in ("", namespace):
            yield declared.problem(
                "reference", "a target is in the Telemetry's own namespace", path, "remove `namespace`"
            )
        elif not any(_leads_to(one, namespace, instance) for instance in instances.values()):
            message = f"there is no {one.kind} `{one.name}.{namespace}` with instances of the mesh"
            yield declared.problem("reference", message, path, "name one that workloads.yaml or a gateway is")


def _undecided(
    declared: Declared[Telemetry], telemetries: Sequence[Telemetry], selected: Iterable[Instance], providers: Providers
) -> Iterator[Problem]:
    """Where the id of the request may not say what is traced, and nothing else does."""
    said = [
        at for at, one in enumerate(declared.resource.spec.tracing) if one.use_request_id_for_trace_sampling is False
    ]
    sides: tuple[Side, ...] = ("CLIENT", "SERVER")
    for spans in (said_of(telemetries, one, side).spans for one in selected for side in sides if said):
        if spans.by_request_id is False and spans.provider in providers.by_request_id:
            message = f"Zipkin's tracer at `{spans.provider}` would trace every request without the request's id"
            path = ("spec", "tracing", said[-1], "useRequestIdForTraceSampling")
            yield declared.problem("reference", message, path, "remove it, or name a provider of OpenTelemetry")
            return


def _unknown(declared: Declared[Telemetry], providers: Providers, problems: Sequence[Problem]) -> list[Problem]:
    """Providers that there are none of."""
    spec = declared.resource.spec
    found: list[Problem] = []
    named: Iterable[tuple[str, Sequence[Metrics | Tracing | AccessLogging]]] = (
        ("metrics", spec.metrics),
        ("tracing", spec.tracing),
        ("accessLogging", spec.access_logging),
    )
    known = {"metrics": frozenset({COUNTS}), "tracing": providers.spans, "accessLogging": providers.logs}
    for section, entries in named:
        for at, entry in enumerate(entries):
            for number, provider in enumerate(entry.providers):
                if provider.name in known[section]:
                    continue
                message = f"there is no provider `{provider.name}` for `{section}`"
                near = did_you_mean(provider.name, known[section], [*problems, *found])
                remedy = near or _instead(section, known[section])
                path = ("spec", section, at, "providers", number, "name")
                found.append(declared.problem("reference", message, path, remedy))
    return found


def _instead(section: str, known: Iterable[str]) -> str:
    there = f"there {'is' if len(tuple(known)) == 1 else 'are'} {', '.join(f'`{one}`' for one in sorted(known))}"
    return there if section == "metrics" else f"{there}; declare it in `extensionProviders` of policyd.yaml"
