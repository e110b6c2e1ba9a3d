"""Services that speak TCP: said once of the workloads and of the Service, and no HTTP rule leads there."""

from __future__ import annotations

import pytest

from policyd.mesh.model import Port
from tests.mesh.sample import meshed, problems

WORKLOADS = """\
workloads:
  web-v1: {service: web, port: 80}
  db-v1: {service: db, port: 3306, protocol: tcp}
  db-v2: {service: db, port: 3306, protocol: tcp}
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 3306, name: tcp-mysql}]}
"""
ROUTES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
    - route: [{destination: {host: web}}]
"""


def folder(workloads: str = WORKLOADS, service: str = SERVICE, routes: str = ROUTES) -> dict[str, str]:
    return {"workloads.yaml": workloads, "mesh/service.yaml": service, "mesh/routes.yaml": routes}


def test_it_is_said_by_the_name_of_the_port_or_by_app_protocol() -> None:
    assert meshed({"workloads.yaml": WORKLOADS}).services["db.default"].ports == (Port(3306, "tcp", "tcp"),)
    assert meshed(folder()).services["db.default"].ports == (Port(3306, "tcp-mysql", "tcp"),)
    said = SERVICE.replace("name: tcp-mysql", "name: http-not, appProtocol: tcp")
    assert meshed(folder(service=said)).services["db.default"].ports == (Port(3306, "http-not", "tcp"),)
    assert [one.protocol for one in meshed(folder()).listeners.values() if one.side == "inbound"] == [
        "http",
        "tcp",
        "tcp",
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"service": SERVICE.replace("tcp-mysql", "http")},
            "mesh/service.yaml:4: port 3306 of service `db.default` speaks http, `db-v1` tcp; "
            "give both the same protocol",
        ),
        (
            {"service": SERVICE.replace("tcp-mysql", "udp-x")},
            "mesh/service.yaml:4: `spec.ports[0].name`: what port `udp-x` speaks is not carried by sidecars; "
            "begin it with `http`, `http2`, `grpc`, `grpc-web`, `tls` or `tcp`, as in `http-<suffix>`",
        ),
        (
            {"routes": ROUTES.replace("{host: web}", "{host: db}")},
            "mesh/routes.yaml:7: `db` speaks TCP there, to which no `http` rule leads; write `tcp` rules for it",
        ),
        (
            {"routes": ROUTES.replace("hosts: [web]", "hosts: [db]")},
            "mesh/routes.yaml:5: the host `db` speaks TCP only, for which there are no `http` rules; write `tcp` rules",
        ),
        (
            {
                "workloads": WORKLOADS.replace(
                    "db-v2: {service: db, port: 3306, protocol: tcp}", "db-v2: {service: db, port: 3306}"
                )
            },
            "workloads.yaml:4: service `db.default` speaks http here and another protocol in `db-v1`; "
            "give both the same protocol",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, str], problem: str) -> None:
    assert problem in problems(folder(**changes))
