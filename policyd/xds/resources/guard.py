"""TLS that is not opened: a tunnel for it takes nothing but a client that asks for the name that was decided about.

Law: a name is decided before there is a tunnel to it, and what the client in it then asks for (SNI) is that very name,
or no byte goes on. So `context.sni` is true, and a forged one leads nowhere; nor does a tunnel go elsewhere than to
what its own name means.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from policyd.names import (
    CLUSTER_HEADER,
    METADATA_ASKED,
    METADATA_CLUSTER,
    METADATA_LEAVES,
    METADATA_TARGET,
    SNI_HEADER,
    STATE_TLS,
    TARGET_HEADER,
)
from policyd.xds.resources import filters, inner, tcp
from policyd.xds.resources.model import GUARD, GUARD_ANY, LEAVING, SERVED_TLS

# of a gateway's tunnel the name is not what it was asked for by, so the gateway says it; that it is true is seen here
CLAIMED: Final = f"%REQ({SNI_HEADER.upper()}?:AUTHORITY)%"
# the most that is kept of a client until it is connected
_ONCE_IT_SPOKE: Final = {"upstream_connect_mode": "ON_DOWNSTREAM_DATA", "max_early_data_bytes": 65_536}
TLS_INSPECTOR: Final = {
    "name": "envoy.filters.listener.tls_inspector",
    "typed_config": {"@type": f"{inner.TYPES}.filters.listener.tls_inspector.v3.TlsInspector"},
}


def leaving(route: Mapping[str, Any], name: str = "", by: str = GUARD, target: str = "") -> dict[str, Any]:
    """A route whose tunnel ends here and leaves the mesh, by way of a guard.

    That lets nobody by but who asks for `name`; "": for what the tunnel was asked for. `target` is what a forward proxy
    at its other end is asked for.
    """
    shares = route["route"].get("weighted_clusters", {}).get("clusters", ())
    if shares:
        clusters = [
            {
                **one,
                "name": by,
                "typed_per_filter_config": {**one["typed_per_filter_config"], **inner.share(one["name"], name)},
            }
            for one in shares
        ]
        return {**route, "route": {"weighted_clusters": {"clusters": clusters}, **tcp.ENDS_HERE}}
    given = {METADATA_ASKED: f"{name}:" if name else "", METADATA_TARGET: target}
    marks = {METADATA_LEAVES: route["route"]["cluster"], **{key: value for key, value in given.items() if value}}
    return {**inner.into(by, marks, route.get("typed_per_filter_config", {})), "match": route["match"]}


def served(cluster: str, said: dict[str, Any]) -> dict[str, Any]:
    """The route of a tunnel to an application that speaks TLS, by way of the guard."""
    return inner.into(SERVED_TLS, {METADATA_CLUSTER: cluster}, said)


def at_application() -> dict[str, Any]:
    """What looks at tunnels before an application, where they end; a tunnel says to which cluster it goes."""
    return inner.internal(SERVED_TLS, [_only_who_asks("served", SERVED_TLS)], TLS_INSPECTOR)


def on_the_way_out(
    lookup: list[dict[str, Any]], observed: dict[str, Any], *, any_name: bool = False, by_proxy: bool = False
) -> list[dict[str, Any]]:
    """What looks at tunnels that leave; then they are tunnels again, to what their own name means.

    With `any_name` also at those of which nobody said what is in them: TLS in them is for the name that was asked for,
    and where the client is waited for, too, as nobody may speak TLS who came to hear the server first.
    """
    told = {CLUSTER_HEADER: inner.CLUSTER, **({TARGET_HEADER: inner.TARGET} if by_proxy else {})}
    tunnel = {
        "hostname": f"%FILTER_STATE({inner.AUTHORITY}:PLAIN)%",
        "headers_to_add": [
            {"header": {"key": key, "value": f"%FILTER_STATE({of}:PLAIN)%"}} for key, of in told.items()
        ],
    }
    ends = {**tcp.ending(""), "route": {"cluster_header": CLUSTER_HEADER, **tcp.ENDS_HERE}}
    routes = [_ASKS_ON, ends] if by_proxy else [ends]
    hosts = [{"name": LEAVING, "domains": ["*"], "routes": routes}]
    manager = filters.manager(
        LEAVING,
        lookup,
        {"route_config": {"name": LEAVING, "virtual_hosts": hosts}},
        upgrade_configs=[tcp.CONNECT],
        **observed,
    )
    look = _only_who_asks("leaving", LEAVING, tunneling_config=tunnel)
    guards = [inner.internal(GUARD, [look], TLS_INSPECTOR)]
    if any_name:
        on = proxy("leaving", LEAVING, tunneling_config=tunnel)
        guards.append(inner.internal(GUARD_ANY, [look, {"filters": [on]}], TLS_INSPECTOR))
    return [*guards, inner.internal(LEAVING, [{"filters": [manager]}])]


def proxy(prefix: str, cluster: str, **more: Any) -> dict[str, Any]:
    """The filter that passes bytes on to a cluster, where a tunnel does not name another (tcp_proxy.v3.TcpProxy)."""
    config = {
        "@type": f"{inner.TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": prefix,
        "cluster": cluster,
        "idle_timeout": tcp.IDLE,
        **more,
    }
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


# to a forward proxy the tunnel goes on as one to its target; Envoy writes "-" for what it was not told
_ASKS_ON: Final[Mapping[str, Any]] = {
    "match": {
        "connect_matcher": {},
        "headers": [{"name": TARGET_HEADER, "string_match": {"exact": "-"}, "invert_match": True}],
    },
    "route": {"cluster_header": CLUSTER_HEADER, "host_rewrite_header": TARGET_HEADER, **tcp.GOES_ON},
}


def of_its_name(prefix: str, cluster: str, first: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The chain of TLS in a tunnel that may lead it elsewhere than the rest (`first` sees to that); only then its name
    is looked at.
    """
    chain = _only_who_asks(prefix, cluster, {"goes_as_the_rest": {**_ANYBODY, "principals": [_NOT_LED]}}, **more)
    return {**chain, "filters": [first, *chain["filters"]]}


def _only_who_asks(
    prefix: str, cluster: str, others: Mapping[str, Any] = MappingProxyType({}), **more: Any
) -> dict[str, Any]:
    """The chain of a client of TLS whose name is the tunnel's (rbac.v3.RBAC); there is none for anybody else.

    Names are compared when the first bytes pass, and only then is there a connection to where they go.
    """
    config = {
        "@type": f"{inner.TYPES}.filters.network.rbac.v3.RBAC",
        "stat_prefix": "guard.",
        "rules": {"action": "ALLOW", "policies": {"asks_for_the_name": _ASKS_FOR_IT, **others}},
    }
    guard = {"name": "envoy.filters.network.rbac", "typed_config": config}
    then = proxy(prefix, cluster, **_ONCE_IT_SPOKE, **more)
    return {"filter_chain_match": {"transport_protocol": "tls"}, "filters": [guard, then]}


def _name(name: str) -> dict[str, Any]:
    return {"ident_expr": {"name": name}}


def _text(text: str) -> dict[str, Any]:
    return {"const_expr": {"string_value": text}}


def _call(function: str, *arguments: dict[str, Any], on: dict[str, Any] | None = None) -> dict[str, Any]:
    target = {"target": on} if on is not None else {}
    return {"call_expr": {**target, "function": function, "args": list(arguments)}}


_SNI: Final = {"select_expr": {"operand": _name("connection"), "field": "requested_server_name"}}
_ASKED: Final = _call("string", _call("_[_]", _name("filter_state"), _text(inner.ASKED)))
# string(filter_state["policyd.asked"]).lowerAscii().startsWith(connection.requested_server_name + ":"), in CEL
_IS_THAT_NAME: Final = _call("startsWith", _call("_+_", _SNI, _text(":")), on=_call("lowerAscii", on=_ASKED))
_ANYBODY: Final[Mapping[str, Any]] = {"permissions": [{"any": True}], "principals": [{"any": True}]}
_ASKS_FOR_IT: Final[Mapping[str, Any]] = {
    **_ANYBODY,
    "condition": _IS_THAT_NAME,
    "cel_config": {
        "enable_string_conversion": True,
        "enable_string_concat": True,
        "enable_string_functions": True,
    },
}
_NOT_LED: Final = {
    "not_id": {"filter_state": {"key": STATE_TLS, "string_match": {"safe_regex": {"regex": ".*"}}}},
}
