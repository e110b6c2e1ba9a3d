"""`policyd ca export` and `ca import`: the whole authority, as one encrypted file, from one folder to another.

Law: nothing secret is on a command line, or leaves unencrypted, and the journal has it first. What is imported is
opened and checked whole before it takes its place, and an authority that is there gives it up only if that was asked
for; then it is kept aside.
"""

from __future__ import annotations

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.ca.archive import Contents
    from policyd.config.settings import Settings
    from policyd.state_paths import StatePaths

File = Annotated[Path, typer.Argument(metavar="FILE", help="The encrypted file.", show_default=False)]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="A file, readable by you alone, whose first line is the file's passphrase; without it you are asked.",
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Put it in the place of an authority that is there, which is kept beside it.")
]


def export(file: File, directory: Dir = None, passphrase_file: PassphraseFile = None, as_json: Json = False) -> None:
    """Write the folder's whole authority to an encrypted file: every key and certificate, those of tokens too.

    It can be taken from a running server. Who has the file and its passphrase is this trust domain: keep them apart.
    """
    from policyd.ca import archive, keystore
    from policyd.ca.files import read_secret, write_secret
    from policyd.errors import StateError
    from policyd.instance import folder
    from policyd.server.journal import note

    here = folder(directory)
    settings, paths = _opened(here)
    keystore.check_folder(paths.ca)
    names = sorted(one.name for one in paths.ca.iterdir() if not one.name.startswith("."))
    files = {name: read_secret(paths.ca / name) for name in names}
    if file.exists():
        raise StateError(f"`{file}` is there already", remedy="name another file")
    contents = archive.Contents(settings.trust_domain, f"{_now():%FT%TZ}", files)
    sealed = archive.seal(contents, _passphrase(passphrase_file, confirm=True), secrets.token_bytes)
    note(paths, settings.audit, _now, "ca.export", {"file": str(file.absolute()), "files": names})
    write_secret(file, sealed)
    _say({"trust_domain": settings.trust_domain, "files": ", ".join(names), "file": str(file)}, as_json=as_json)


def import_(
    file: File,
    directory: Dir = None,
    passphrase_file: PassphraseFile = None,
    replace: Replace = False,
    as_json: Json = False,
) -> None:
    """Make the authority of an encrypted file that of this folder, while nothing runs here.

    Its trust domain is that of the settings, and keys that are encrypted in it open with their own passphrase
    (`ca.passphraseFile`, `ca.passphraseCommand` or POLICYD_CA_PASSPHRASE).
    """
    from policyd.ca import archive, keystore
    from policyd.ca.files import read_file
    from policyd.errors import StateError
    from policyd.instance import folder
    from policyd.server.state import exclusively

    here = folder(directory)
    settings, paths = _opened(here)
    contents = archive.unseal(read_file(file, archive.MAX_BYTES), _passphrase(passphrase_file))
    if contents.trust_domain != settings.trust_domain:
        message = f"`{file}` is the authority of `{contents.trust_domain}`, not of `{settings.trust_domain}`"
        raise StateError(message, remedy="set `trustDomain` in policyd.yaml to it")
    with exclusively(paths):
        if keystore.exists(paths.root) and not replace:
            raise StateError(f"`{paths.ca}` holds an authority already", remedy="`--replace` keeps it aside")
        facts = _put(file, contents, here, settings, paths)
    _say({"trust_domain": contents.trust_domain, "written": contents.written, **facts}, as_json=as_json)


def _put(file: Path, contents: Contents, here: Path, settings: Settings, paths: StatePaths) -> dict[str, str]:
    """Lay the files down beside, open them as a start would, put that on record, and move them into their place."""
    import tempfile

    from policyd.ca import keystore
    from policyd.ca.files import sync_folder, write_new
    from policyd.ca.open import open_authority
    from policyd.errors import StateError
    from policyd.instance import environment
    from policyd.server.journal import note
    from policyd.server.opening import passphrase_of, upstream_of

    passphrase = passphrase_of(here, settings, environment())
    try:
        with tempfile.TemporaryDirectory(prefix="import-", dir=paths.root) as name:
            beside = Path(name)
            (beside / keystore.FOLDER).mkdir(mode=0o700)
            for each, content in contents.files.items():
                write_new(beside / keystore.FOLDER / each, content)
            sync_folder(beside / keystore.FOLDER)
            opened = open_authority(
                beside,
                settings.trust_domain,
                clock=_now,
                random=secrets.token_bytes,
                passphrase=passphrase,
                upstream=upstream_of(here, settings),
            )
            root = opened.authority.root_sha256
            detail = {"file": str(file.absolute()), "written": contents.written, "root_sha256": root}
            note(paths, settings.audit, _now, "ca.import", detail)
            aside = _set_aside(paths)
            (beside / keystore.FOLDER).rename(paths.ca)
            sync_folder(paths.root)
    except OSError as error:
        raise StateError(
            f"`{paths.ca}` cannot be written: {error.strerror}", remedy="look at its disk and owner"
        ) from None
    facts = {"root_sha256": root, "folder": str(paths.ca)}
    return {**facts, "before": str(aside)} if aside else facts


def _set_aside(paths: StatePaths) -> Path | None:
    if not os.path.lexists(paths.ca):
        return None
    aside = paths.root / f"ca.before-{_now():%Y%m%dT%H%M%S%fZ}"
    paths.ca.rename(aside)
    return aside


def _opened(here: Path) -> tuple[Settings, StatePaths]:
    from policyd.config.settings import SETTINGS_FILE, parse_settings
    from policyd.sources.files import read_folder
    from policyd.sources.state import prepare_state

    return parse_settings(read_folder(here).text(SETTINGS_FILE) or ""), prepare_state(here, os.getuid())


def _passphrase(file: Path | None, *, confirm: bool = False) -> bytes:
    from policyd.ca.files import read_passphrase
    from policyd.errors import UsageError

    if file is not None:
        return read_passphrase(file)
    try:
        said: str = typer.prompt("passphrase of the file", hide_input=True, confirmation_prompt=confirm, err=True)
    except typer.Abort:
        raise UsageError("no passphrase was given", remedy="name a file with --passphrase-file") from None
    return said.encode()


def _now() -> datetime:
    return datetime.now(UTC)


def _say(facts: dict[str, str], *, as_json: bool) -> None:
    from policyd.cli import output

    if as_json:
        output.print_json(facts)
    else:
        output.show(output.facts([(name.replace("_", " "), value) for name, value in facts.items()]))
