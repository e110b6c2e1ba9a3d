"""settings.md: policyd.yaml field by field, and the environment."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final

from docs.pages.models import Meanings, fields, title
from docs.pages.tables import code, table
from policyd.config import (
    AuditSettings,
    CaSettings,
    ListenSettings,
    LogSettings,
    Settings,
    ShadowSettings,
    from_environ,
)
from policyd.strict import Model

MEANINGS: Final[dict[type[Model], Meanings]] = {
    Settings: {
        "trustDomain": "The name in front of every SPIFFE ID. Choose it before the first start: certificates bear it.",
        "audit": "The journal: how safe a record is, and what holds when there is no room for one.",
        "ca": "The certificate authority.",
        "listen": "Where the server listens: on loopback unless written here.",
        "log": "What policyd says about itself.",
        "shadow": "Policies that are tried beside the active ones.",
    },
    AuditSettings: {
        "durability": "When a decision takes effect: once its record is `written` to the operating system, once it is "
        "on disk (`fsync`), or at once (`async`: a crash may lose the last records).",
        "onFull": "When no record can be kept: `deny` answers every request with 503, `drop` goes on without records.",
        "retain": "How long full files of the journal are kept.",
    },
    CaSettings: {
        "ttl": "How long certificates of workloads live; they are renewed at half of it.",
        "passphraseFile": "A file, relative to the folder, whose first line encrypts the authority's keys.",
    },
    ListenSettings: {
        "xds": "Agents and Envoys: configuration and certificates, mutual TLS.",
        "authz": "Envoys: decisions, mutual TLS.",
        "attestation": "Agents that have a join token and no identity yet: TLS.",
        "http": "`/livez`, `/readyz`, `/metrics`, plain HTTP.",
    },
    LogSettings: {"level": "The least that is said."},
    ShadowSettings: {
        "policies": "A folder of `.cedar` files, relative to the folder; `--shadow` wins over it. See "
        "[try a policy](../tasks/try-a-policy.md).",
    },
}
VARIABLES: Final = (
    ("POLICYD_DIR", "The mesh's folder, where `--dir` is not given."),
    ("POLICYD_ENVOY", "Another Envoy than the installed one; its version must be the same."),
    ("POLICYD_LOG", "`debug`, `info`, `warning` or `error`; wins over `log.level`."),
    ("XDG_RUNTIME_DIR", "Sockets go to `policyd/` in it; otherwise to a private folder below TMPDIR."),
    ("XDG_CACHE_HOME", "Where what is read from Envoy once is kept; otherwise `~/.cache`."),
    ("TMPDIR", "Where sockets go without XDG_RUNTIME_DIR."),
)


def settings() -> Iterator[str]:
    """Every setting with its default, and every variable."""
    yield from (
        "# Settings",
        "",
        "`policyd.yaml` in the mesh's folder. The file and each of its lines is optional.",
        "",
    )
    for model, meanings in MEANINGS.items():
        if name := title(model):
            yield from (f"## {name}", "")
        yield from fields(model, meanings)
    yield from ("## Environment", "")
    read = inspect.getsource(from_environ)
    if missing := [name for name, _ in VARIABLES if name not in read]:
        raise ValueError(f"the environment is not asked for {missing}")
    yield from table(("variable", "what it does"), ((code(name), text) for name, text in VARIABLES))
