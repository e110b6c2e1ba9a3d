"""What the environment says, read once into a frozen value; no other file of Bookinfo reads it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

SERVICES = ("details", "reviews", "ratings")
PORT = 9080


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of any of the four services; each uses the few that concern it."""

    port: int = PORT
    """PORT: where to listen, on 127.0.0.1."""
    instance: str = "bookinfo"
    """POLICYD_INSTANCE, else HOSTNAME: the `podname` of reviews."""
    cluster: str = "null"
    """CLUSTER_NAME: the `clustername` of reviews."""
    version: str = "v1"
    """SERVICE_VERSION: which faults ratings shows, see `faults.py`."""
    ratings_enabled: bool = False
    """ENABLE_RATINGS: whether reviews asks for ratings; unset, a STAR_COLOR says yes."""
    star_color: str = "black"
    """STAR_COLOR: any other than black also makes reviews less patient."""
    session_key: str = field(default="", repr=False)
    """SESSION_KEY: signs the cookies of productpage; unset, each process makes its own."""
    addresses: Mapping[str, str] = field(default_factory=lambda: {name: f"{name}:{PORT}" for name in SERVICES})
    """<SERVICE>_HOSTNAME, SERVICES_DOMAIN and <SERVICE>_SERVICE_PORT: `host:port` by service."""


def read(environment: Mapping[str, str]) -> Settings:
    """Read the environment; ValueError names the variable that makes no sense."""
    star_color = environment.get("STAR_COLOR", "")
    return Settings(
        port=_port(environment, "PORT"),
        instance=environment.get("POLICYD_INSTANCE") or environment.get("HOSTNAME") or socket.gethostname(),
        cluster=environment.get("CLUSTER_NAME") or "null",
        version=environment.get("SERVICE_VERSION") or "v1",
        ratings_enabled=_switch(environment, "ENABLE_RATINGS", unset=bool(star_color)),
        star_color=star_color or "black",
        session_key=environment.get("SESSION_KEY", ""),
        addresses={name: _address(environment, name) for name in SERVICES},
    )


def _address(environment: Mapping[str, str], service: str) -> str:
    host = environment.get(f"{service.upper()}_HOSTNAME") or service
    domain = environment.get("SERVICES_DOMAIN", "").strip(".")
    port = _port(environment, f"{service.upper()}_SERVICE_PORT")
    return f"{host}.{domain}:{port}" if domain else f"{host}:{port}"


def _port(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name) or str(PORT)
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise ValueError(f"{name} is `{text}`, which is no port; give a number from 1 to 65535")
    return int(text)


def _switch(environment: Mapping[str, str], name: str, *, unset: bool) -> bool:
    text = environment.get(name, "").lower()
    if text not in ("", "true", "false"):
        raise ValueError(f"{name} is `{text}`; give true or false")
    return text == "true" if text else unset
