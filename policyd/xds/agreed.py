"""The names on which an agent and policyd agree: the agent's bootstrap and secrets have them, policyd's resources say
them again.
"""

from __future__ import annotations

from typing import Final

XDS_CLUSTER: Final = "policyd-xds"
SDS_CLUSTER: Final = "policyd-sds"
IDENTITY_SECRET: Final = "default"  # noqa: S105 - the name that Istio and SPIRE give the workload's own certificate
ROOTS_SECRET: Final = "ROOTCA"  # noqa: S105 - and the trusted roots
LISTED_SECRET: Final = "ROOTCA+CRL"  # noqa: S105 - the roots of this trust domain, with the lists of what is revoked
