"""An OpenID provider as a process: discovery, keys, an authorization page that lets in whoever asks, codes for tokens.

It speaks HTTP on loopback, holds codes to their client, redirect address and PKCE challenge, and signs with its own
key. What POST /wrong says it does wrong from then on: `claims` in the place of its own, a `key` or `alg` that is not
published, another `discovery`, `broken` answers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

CLIENT = "policyd-console"
SECRET = "s3cret-of-the-client"
SUBJECT = "ada-1815"


class State:
    """What one provider knows."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.keys = {
            "RS256": RSAKey.generate_key(2048, {"kid": "rsa"}),
            "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
        }
        self.unpublished = RSAKey.generate_key(2048, {"kid": "rsa"})
        self.codes: dict[str, dict[str, str]] = {}
        self.wrong: dict[str, Any] = {}

    def discovery(self) -> dict[str, Any]:
        own = {"issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize",
               "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys"}  # fmt: skip
        return own | self.wrong.get("discovery", {})

    def published(self) -> dict[str, Any]:
        if self.wrong.get("rotated"):
            self.keys["RS256"] = RSAKey.generate_key(2048, {"kid": "later"})
            self.wrong = {}
        return {"keys": [*(key.as_dict(private=False) for key in self.keys.values()), {"kty": "odd", "kid": "odd"}]}

    def redeemed(self, form: dict[str, str], basic: str) -> tuple[int, dict[str, Any]]:
        """A token for a code, once."""
        kept = self.codes.pop(form.get("code", ""), None)
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        wanted = base64.urlsafe_b64encode(challenge).rstrip(b"=").decode()
        is_client = basic == "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if not is_client:
            return 401, {"error": "invalid_client"}
        if kept is None or kept["code_challenge"] != wanted or kept["redirect_uri"] != form.get("redirect_uri"):
            return 400, {"error": "invalid_grant"}
        return 200, {"token_type": "Bearer", "access_token": "opaque", "id_token": self.token(kept["nonce"])}

    def token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": SUBJECT, "aud": CLIENT, "nonce": nonce, "iat": now, "exp": now + 300}
        claims |= self.wrong.get("claims", {})
        claims = {name: value for name, value in claims.items() if value is not None}
        alg = self.wrong.get("alg", "RS256")
        if alg in ("none", "HS256"):
            parts = [json.dumps(part).encode() for part in ({"alg": alg}, claims)]
            text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
            known = self.keys["RS256"].as_pem(private=False)  # with what everybody can read as its secret
            mac = hmac.digest(known, text.encode(), "sha256") if alg == "HS256" else b""
            return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        key: Any = self.unpublished if self.wrong.get("key") == "unpublished" else self.keys.get(alg)
        header = {"alg": alg, **({"kid": key.kid} if not self.wrong.get("no_kid") else {})}
        return jwt.encode(header, claims, key, algorithms=[alg])


class Handler(BaseHTTPRequestHandler):
    """One request."""

    state: State

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if self.state.wrong.get("broken") == url.path:
            self._answer(200, b"<html>" * 10)
        elif self.state.wrong.get("large") == url.path:
            self._answer(200, b" " * (1 << 20))
        elif url.path == "/.well-known/openid-configuration":
            self._json(200, self.state.discovery())
        elif url.path == "/keys":
            self._json(200, self.state.published())
        elif url.path == "/authorize" and query.get("response_type") == "code" and query.get("client_id") == CLIENT:
            code = secrets.token_urlsafe(16)
            self.state.codes[code] = query
            back = {"code": code, "state": query["state"], "iss": self.state.issuer} | self.state.wrong.get("back", {})
            self.send_response(302)
            self.send_header("location", f"{query['redirect_uri']}?{urlencode(back)}")
            self.end_headers()
        else:
            self._json(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/wrong":
            self.state.wrong = json.loads(body)
            self._json(200, {})
        elif self.path == "/token" and self.state.wrong.get("broken") != "/token":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            self._json(*self.state.redeemed(form, self.headers.get("authorization", "")))
        else:
            self._json(500, {})

    def _json(self, status: int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def provider() -> Iterator[str]:
    """Run one as a process; gives its issuer."""
    command = [sys.executable, "-m", "tests.fakes.oidc_provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(30)


def goes_wrong(issuer: str, **how: Any) -> None:
    """Have it do something wrong from now on, and nothing else."""
    httpx.post(f"{issuer}/wrong", json=how, trust_env=False).raise_for_status()


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.state = State(f"http://127.0.0.1:{server.server_port}")
    sys.stdout.write(f"{Handler.state.issuer}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
