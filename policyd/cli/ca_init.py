"""`policyd ca init`: make the certificate authority of a folder before anything runs.

Law: an authority that is there is never made anew, nor while a server has the folder.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime

from policyd.cli.options import Dir, Json


def init(directory: Dir = None, as_json: Json = False) -> None:
    """Make the folder's certificate authority, as the first `up` or `serve` would, and print its root's hash.

    Root and intermediate (ECDSA P-256) lie in `.policyd/ca`, readable by you alone; with `ca.passphraseFile` in
    policyd.yaml their keys are encrypted from the first byte. Keep a copy of that folder in a safe place.
    """
    from policyd.ca import keystore
    from policyd.ca.jwt_store import JwtKeyStore
    from policyd.ca.open import open_authority
    from policyd.cli import output
    from policyd.config.settings import SETTINGS_FILE, parse_settings
    from policyd.errors import StateError
    from policyd.instance import environment, folder
    from policyd.server.opening import passphrase_of, upstream_of
    from policyd.server.state import exclusively
    from policyd.sources.files import read_folder
    from policyd.sources.state import prepare_state

    here = folder(directory)
    settings = parse_settings(read_folder(here).text(SETTINGS_FILE) or "")
    paths = prepare_state(here, os.getuid())
    with exclusively(paths):
        if keystore.exists(paths.root):
            raise StateError(f"`{paths.ca}` holds an authority already", remedy="look at it with `policyd ca status`")
        passphrase = passphrase_of(here, settings, environment())
        random, trust_domain = secrets.token_bytes, settings.trust_domain
        opened = open_authority(
            paths.root,
            trust_domain,
            clock=_now,
            random=random,
            passphrase=passphrase,
            upstream=upstream_of(here, settings),
        )
        JwtKeyStore(paths.ca, _now, random, passphrase)
    authority = opened.authority
    facts = {
        "trust_domain": authority.trust_domain,
        "root_sha256": authority.root_sha256,
        "root_ends": f"{authority.root.not_valid_after_utc:%FT%TZ}",
        "intermediate_ends": f"{authority.intermediate.not_valid_after_utc:%FT%TZ}",
        "keys": "encrypted" if passphrase else "readable by you alone",
        "folder": str(paths.ca),
    }
    if as_json:
        output.print_json(facts)
    else:
        output.show(output.facts([(name.replace("_", " "), value) for name, value in facts.items()]))


def _now() -> datetime:
    return datetime.now(UTC)
