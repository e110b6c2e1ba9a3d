"""Which DestinationRules hold for a caller and a host, merged into one.

Law: the caller's own namespace decides first, then the service's, then the root namespace; within one, a rule that
selects the caller before one that does not, and the narrowest host before a wider one. As in Istio, namespaces are
not mixed: the first that has a rule has all of them. Where a BackendTLSPolicy holds, its TLS is what gateways open,
whatever rules say of TLS; all else of these holds beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from policyd.mesh.gateway_api.values import BackendTls, OpensTls
from policyd.mesh.hosts import CLUSTER_DOMAIN, covers, resolve
from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.istio.common import ROOT_NAMESPACE
from policyd.mesh.istio.destination_rule import DestinationRule, Subset
from policyd.mesh.istio.traffic_policy import Sections, TrafficPolicy, effective
from policyd.mesh.locality import Locality


@dataclass(frozen=True, slots=True)
class Caller:
    """What of a proxy its destinations depend on: namespace, place, and those of its labels that rules go by.

    `opens_tls`: it is a gateway's, and there are BackendTLSPolicies; `shows` is then its credential, if any.
    """

    namespace: str
    labels: frozenset[tuple[str, str]] = frozenset()
    locality: Locality | None = None
    opens_tls: bool = False
    shows: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Destination:
    """The rules of a host as one: the policy of the whole, the subsets by name, the TLS that is opened by port."""

    policy: TrafficPolicy | None = None
    subsets: Mapping[str, Subset] = field(default_factory=dict)
    tls: Mapping[int, ClientTls] = field(default_factory=dict)

    def policy_of(self, port: int, subset: str = "") -> Sections:
        """What holds for a port of the host, or of one of its subsets."""
        own = self.subsets[subset].traffic_policy if subset else None
        found = effective(self.policy, own, port)
        return found.model_copy(update={"tls": self.tls[port]}) if port in self.tls else found


NO_RULE: Final = Destination()


class Destinations:
    """The DestinationRules of a mesh, to be asked a thousand times."""

    def __init__(
        self,
        rules: Iterable[DestinationRule] = (),
        selected: Iterable[tuple[str, str]] = (),
        opens_tls: Iterable[OpensTls] = (),
    ) -> None:
        """Gather the rules by namespace and host, and merge those of one host.

        `selected` are further labels by which something else selects callers; `opens_tls` is what gateways do.
        """
        self._tls = _by_host(opens_tls)
        exact: defaultdict[tuple[str, str], list[DestinationRule]] = defaultdict(list)
        wide: defaultdict[tuple[str, str], list[DestinationRule]] = defaultdict(list)
        for rule in rules:
            service = resolve(rule.spec.host, rule.namespace)
            if service is None:
                wide[rule.namespace, rule.spec.host].append(rule)
            else:
                exact[rule.namespace, service].append(rule)
        self._exact = {key: _merged(found) for key, found in exact.items()}
        self._wide: dict[str, list[tuple[str, list[_Merged]]]] = {}
        for (namespace, host), found in sorted(wide.items(), key=lambda entry: -len(entry[0][1])):
            self._wide.setdefault(namespace, []).append((host, _merged(found)))
        every = [rule for found in (*exact.values(), *wide.values()) for rule in found]
        self._selected = frozenset((*selected, *(pair for rule in every for pair in rule.selects.items())))
        self._compared = frozenset(label for rule in every for label in _compared(rule))

    def caller(
        self,
        namespace: str,
        labels: Mapping[str, str],
        locality: Locality | None = None,
        *,
        at_edge: bool = False,
        shows: str = "",
    ) -> Caller:
        """Reduce a proxy to what its destinations depend on, so that equal ones are one class."""
        told = frozenset(pair for pair in labels.items() if pair in self._selected or pair[0] in self._compared)
        opens_tls = at_edge and bool(self._tls)
        return Caller(namespace, told, locality, opens_tls, shows if opens_tls else "")

    def of(self, caller: Caller, service: str, namespace: str) -> Destination:
        """The Destination that a Service (its id and namespace) is to a caller."""
        return self._first(caller, service, f"{service}.svc.{CLUSTER_DOMAIN}", namespace)

    def of_host(self, caller: Caller, host: str, namespace: str) -> Destination:
        """The Destination that a Host outside (and the namespace of its ServiceEntry) is to a caller."""
        return self._first(caller, host, host, namespace)

    def _first(self, caller: Caller, exact: str, name: str, namespace: str) -> Destination:
        found = self._ruled(caller, exact, name, namespace)
        if not caller.opens_tls or name not in self._tls:
            return found
        return replace(found, tls={port: _showing(tls, caller.shows) for port, tls in self._tls[name].items()})

    def _ruled(self, caller: Caller, exact: str, name: str, namespace: str) -> Destination:
        for source in dict.fromkeys((caller.namespace, namespace, ROOT_NAMESPACE)):
            found = self._in(source, caller, exact, name)
            if found is not None:
                return found
        return NO_RULE

    def _in(self, source: str, caller: Caller, exact: str, name: str) -> Destination | None:
        candidates = [self._exact.get((source, exact), [])]
        candidates += [found for host, found in self._wide.get(source, ()) if covers(host, name)]
        seen = [[one for one in found if one.is_for(caller)] for found in candidates]
        first = next((found for found in seen if found), [])
        selecting = [one for one in first if one.selects]
        return (selecting or first)[0].destination if first else None


@dataclass(frozen=True, slots=True)
class _Merged:
    """Rules of one host in one namespace that are for the same callers."""

    rule: DestinationRule
    selects: frozenset[tuple[str, str]]
    destination: Destination

    def is_for(self, caller: Caller) -> bool:
        """Selecting ends at the border of the namespace."""
        if self.selects and (caller.namespace != self.rule.namespace or not self.selects <= caller.labels):
            return False
        return self.rule.holds_for(caller.namespace)


def _showing(tls: BackendTls, shown: str) -> BackendTls:
    return tls.model_copy(update={"shows": shown}) if shown else tls


def _by_host(opens_tls: Iterable[OpensTls]) -> dict[str, dict[int, BackendTls]]:
    """What TLS is opened to the ports of a host: what is said of one port goes before what is of all."""
    found: dict[str, dict[int, BackendTls]] = {}
    for one in sorted(opens_tls, key=lambda given: not given.is_whole):
        found.setdefault(one.host, {})[one.port] = one.tls
    return found


def _compared(rule: DestinationRule) -> Iterator[str]:
    """The labels by which callers and instances are compared."""
    policies = [rule.spec.traffic_policy, *(subset.traffic_policy for subset in rule.spec.subsets)]
    for policy in (one for one in policies if one is not None):
        balancers = [policy.load_balancer, *(own.load_balancer for own in policy.port_level_settings)]
        for setting in (one.locality_lb_setting for one in balancers if one is not None):
            yield from (label.partition("=")[0] for label in (setting.failover_priority if setting else ()))


def _merged(rules: Sequence[DestinationRule]) -> list[_Merged]:
    groups: dict[tuple[frozenset[str], frozenset[tuple[str, str]]], list[DestinationRule]] = {}
    for rule in rules:
        groups.setdefault(group_of(rule), []).append(rule)
    return [_Merged(found[0], selects, _one(found)) for (_, selects), found in groups.items()]


def group_of(rule: DestinationRule) -> tuple[frozenset[str], frozenset[tuple[str, str]]]:
    """What rules of one host must share to be merged: where they are exported to, and whom they select."""
    return frozenset(rule.spec.export_to), frozenset(rule.selects.items())


def _one(rules: Sequence[DestinationRule]) -> Destination:
    policy = next((rule.spec.traffic_policy for rule in rules if rule.spec.traffic_policy is not None), None)
    subsets = {subset.name: subset for rule in reversed(rules) for subset in reversed(rule.spec.subsets)}
    return Destination(policy, dict(sorted(subsets.items())))
