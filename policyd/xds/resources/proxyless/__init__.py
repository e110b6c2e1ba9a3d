"""What applications without a sidecar are sent: the part of Envoy's resources that gRPC's clients and servers take.

Law: nothing is here that gRPC rejects, and nothing that it would pass over in silence; what it cannot do is refused
before, or told (policyd.mesh.proxyless_rules).
"""
