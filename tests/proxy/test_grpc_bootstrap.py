"""The bootstrap of an application without an Envoy: the words of gRPC's own documents."""

from __future__ import annotations

from pathlib import Path

from proxy.grpc_bootstrap import GrpcStart, grpc_bootstrap


def test_it_leads_to_the_agents_socket_and_files() -> None:
    now = Path("/run/a/certificates/now")
    start = GrpcStart("web-1", "web.default", Path("/run/a/xds.sock"), now / "c.pem", now / "k.pem", now / "r.pem")
    assert grpc_bootstrap(start) == {
        "xds_servers": [
            {
                "server_uri": "unix:///run/a/xds.sock",
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }
        ],
        "node": {"id": "web-1", "cluster": "web.default", "metadata": {"proxyless": True}},
        "certificate_providers": {
            "default": {
                "plugin_name": "file_watcher",
                "config": {
                    "certificate_file": "/run/a/certificates/now/c.pem",
                    "private_key_file": "/run/a/certificates/now/k.pem",
                    "ca_certificate_file": "/run/a/certificates/now/r.pem",
                    "refresh_interval": "1s",
                },
            }
        },
        "server_listener_resource_name_template": "grpc/server?xds.resource.listening_address=%s",
    }
