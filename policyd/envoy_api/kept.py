"""Descriptors that were cut out once are kept in a file of the user's cache folder.

Law: a kept file is read only if it is whole and nobody else can have written it; without one, it only takes longer.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from policyd.envoy_api.binary import ENVOY_VERSION, REMEDY, envoy_binary, wheel_binary
from policyd.envoy_api.descriptors import INDEX, pack_files, scan
from policyd.errors import EnvoyError

_FORMAT = "1"


def default_cache() -> Path:
    """Where the cut-out descriptors are kept unless the caller says otherwise; RuntimeError for who has no home."""
    return Path.home() / ".cache" / "policyd"


def _cache_file(folder: Path, binary: Path) -> Path:
    status = binary.stat()
    identity = f"{_FORMAT} {ENVOY_VERSION} {binary.resolve()} {status.st_size} {status.st_mtime_ns}"
    return folder / f"envoy-api-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.zip"


def _read_cached(path: Path) -> bytes | None:
    """The kept archive, if it is whole and nobody but this user can have written it."""
    try:
        with path.open("rb") as opened:
            status = os.fstat(opened.fileno())
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                return None
            packed = opened.read()
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            return packed if archive.testzip() is None and INDEX in archive.namelist() else None
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return None  # all that zipfile says of a file that is broken


def _write_cached(path: Path, packed: bytes) -> None:
    """Keep the archive; a folder that cannot be written only costs the next start its second."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # of mode 0600
        try:
            with os.fdopen(handle, "wb") as opened:
                opened.write(packed)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise


def load_archive(binary: Path | None, folder: Path | None) -> bytes:
    """The archive of the binary's descriptors, from the cache where it is there; raises EnvoyError."""
    found = binary or wheel_binary()
    try:
        kept = _cache_file(folder or default_cache(), found)
    except OSError as error:
        raise EnvoyError(f"`{found}` cannot be read: {error.strerror}", remedy=REMEDY) from error
    except RuntimeError:  # a user without a home
        return pack_files(scan(envoy_binary(found)))
    packed = _read_cached(kept)
    if packed is None:
        packed = pack_files(scan(envoy_binary(found)))
        _write_cached(kept, packed)
    return packed
