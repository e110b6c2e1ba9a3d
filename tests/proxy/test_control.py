"""What policyd says becomes our values, or is refused whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policyd._pb import agent_pb2
from policyd.errors import PolicydError
from policyd.spiffe import SpiffeId
from proxy.application_page import PagePlace
from proxy.assignment import Assigned, Spec, assigned_of
from proxy.bootstrap import Endpoint
from proxy.health import Exec, HttpGet, Probe
from proxy.identity import Bundle
from tests.fakes.toy_ca import ToyCa

CA = ToyCa()
WEB = "spiffe://cluster.local/ns/default/sa/web"


def assignment() -> agent_pb2.Assignment:
    return agent_pb2.Assignment(
        agent="a1",
        sidecars=[
            agent_pb2.Sidecar(instance=name, spiffe_id=WEB, cluster="web.default") for name in ("web-2", "web-1")
        ],
        bundle=agent_pb2.Bundle(trust_domain="cluster.local", roots=[CA.root.der], sequence=7),
        xds_address="127.0.0.1:15010",
        server_id="spiffe://cluster.local/policyd/server",
    )


def test_a_good_assignment() -> None:
    web = SpiffeId.parse(WEB)
    assert assigned_of(assignment(), "cluster.local") == Assigned(
        sidecars=(Spec("web-1", web, "web.default"), Spec("web-2", web, "web.default")),
        bundle=Bundle("cluster.local", (CA.root.der,), 7),
        xds=Endpoint("127.0.0.1", 15010),
        server=SpiffeId.server("cluster.local"),
    )


def test_pages_of_applications_are_of_its_own_instances_and_on_its_own_machine() -> None:
    message = assignment()
    good = {"instance": "web-1", "host": "127.0.0.1", "port": 9102, "path": "/metrics?a=b"}
    for change in (
        {}, {"port": 1}, {"instance": "other"}, {"instance": "web-2", "host": "169.254.169.254"},
        {"instance": "web-2", "port": 0}, {"instance": "web-2", "path": "/a b"}, {"instance": "web-2", "path": ""},
    ):  # fmt: skip
        message.pages.append(agent_pb2.Page(**{**good, **change}))

    assert assigned_of(message, "cluster.local").pages == (PagePlace("web-1", "127.0.0.1", 9102, "/metrics?a=b"),)


PARTNER = ToyCa("partner.org")


def partner(**changes: Any) -> agent_pb2.Bundle:
    return agent_pb2.Bundle(**({"trust_domain": "partner.org", "roots": [PARTNER.root.der], "sequence": 3} | changes))


def test_other_trust_domains_come_with_their_bundles_and_one_without_roots_is_left_out() -> None:
    message = assignment()
    message.federated.extend([partner(), partner(trust_domain="empty.org", roots=[])])
    assert assigned_of(message, "cluster.local").federated == (Bundle("partner.org", (PARTNER.root.der,), 3),)


@pytest.mark.parametrize(
    ("federated", "why"),
    [
        ([partner(), partner()], "are one of each, and none of our own"),
        ([partner(trust_domain="cluster.local")], "are one of each, and none of our own"),
        ([partner(trust_domain="Partner.org")], "is no trust domain name"),
        ([partner(trust_domain="../x")], "is no trust domain name"),
        ([partner(roots=[b"x"])], "a certificate cannot be read"),
        ([partner(trust_domain=f"d{n}.org") for n in range(65)], "at most 64 other trust domains, not 65"),
    ],
    ids=["twice", "our own", "upper case", "a path", "no certificate", "too many"],
)
def test_a_wrong_bundle_of_another_refuses_the_whole(federated: list[agent_pb2.Bundle], why: str) -> None:
    message = assignment()
    message.federated.extend(federated)
    with pytest.raises(PolicydError, match=why):
        assigned_of(message, "cluster.local")


def test_probes_are_kept_within_bounds_and_what_is_not_known_is_passed_over() -> None:
    message = assignment()
    header = agent_pb2.Header(name="x-a", value="1")
    get = agent_pb2.HttpGet(host="127.0.0.1", port=80, path="/ready", tls=True, headers=[header])
    message.probes.extend(
        [
            agent_pb2.Probe(
                instance="web-1", http_get=get, initial_delay_seconds=5, timeout_seconds=2, period_seconds=4,
                success_threshold=2, failure_threshold=6,
            ),
            agent_pb2.Probe(instance="web-2", exec=agent_pb2.Exec(command=["true"]), initial_delay_seconds=99_999),
            agent_pb2.Probe(instance="web-2"),
            agent_pb2.Probe(instance="other", tcp_socket=agent_pb2.TcpSocket(host="127.0.0.1", port=1)),
        ]
    )  # fmt: skip
    assert assigned_of(message, "cluster.local").probes == (
        Probe("web-1", HttpGet("127.0.0.1", 80, "/ready", True, (("x-a", "1"),)), 5, 2, 4, 2, 6),
        Probe("web-2", Exec(("true",)), 3600, 1, 1, 1, 1),
    )


def _set(name: str, value: Any) -> Callable[[agent_pb2.Assignment], None]:
    return lambda message: setattr(message, name, value)


def _set_sidecar(name: str, value: Any) -> Callable[[agent_pb2.Assignment], None]:
    return lambda message: setattr(message.sidecars[0], name, value)


def smuggling() -> agent_pb2.Probe:
    get = agent_pb2.HttpGet(host="127.0.0.1", port=80, path="/ HTTP/1.1\r\nx: y")
    return agent_pb2.Probe(instance="web-1", http_get=get)


BROKEN: list[tuple[str, Callable[[agent_pb2.Assignment], None], str]] = [
    ("no address", _set("xds_address", "x"), "`x` is no address"),
    ("no server", _set("server_id", ""), "is no SPIFFE ID"),
    ("foreign server", _set("server_id", "spiffe://other/policyd/server"), "not of trust domain `cluster.local`"),
    ("path as a name", _set_sidecar("instance", "../web"), "`../web` is no name"),
    ("no name", _set_sidecar("instance", ""), "is no name"),
    ("name with a line break", _set_sidecar("instance", "web\n"), "is no name"),
    ("no cluster", _set_sidecar("cluster", ""), "is no name"),
    ("one instance twice", _set_sidecar("instance", "web-1"), "assigned twice"),
    ("foreign identity", _set_sidecar("spiffe_id", "spiffe://other/a"), "not of trust domain `cluster.local`"),
    ("no roots", lambda message: message.bundle.ClearField("roots"), "1 to 64 roots"),
    ("foreign bundle", lambda message: setattr(message.bundle, "trust_domain", "other"), "is of trust domain `other`"),
    ("a probe that smuggles", lambda message: message.probes.append(smuggling()), "the probe of `web-1` is no request"),
    ("too many", lambda message: message.sidecars.extend([message.sidecars[0]] * 600), "at most 512"),
]


@pytest.mark.parametrize(("breaks", "why"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_one_wrong_part_refuses_the_whole(breaks: Callable[[agent_pb2.Assignment], None], why: str) -> None:
    message = assignment()
    breaks(message)
    with pytest.raises(PolicydError) as caught:
        assigned_of(message, "cluster.local")
    assert why in str(caught.value)
