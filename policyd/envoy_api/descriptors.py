"""The descriptors inside an Envoy binary: cut out, packed, and read again one file at a time.

The binary embeds each `.proto` file as a serialised FileDescriptorProto, one after the other, and nothing says where
they begin; but each begins with its own name.
"""

from __future__ import annotations

import io
import json
import mmap
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError

from policyd.envoy_api.binary import REMEDY
from policyd.errors import EnvoyError

INDEX: Final = "index.json"
# a FileDescriptorProto begins with field 1, its own name, whose length fits one byte
_BEGINNING = re.compile(rb"\x0a([\x07-\x7f])[A-Za-z][A-Za-z0-9_./-]*\.proto")
# fields of FileDescriptorProto: these hold bytes, those a number; a second field 1 is the next file
_BYTES_FIELDS = frozenset({2, 3, 4, 5, 6, 7, 8, 9, 12})
_NUMBER_FIELDS = frozenset({10, 11, 14})


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


def scan(binary: Path) -> dict[str, bytes]:
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
        raise EnvoyError(f"the descriptors inside `{binary}` are not complete", remedy=REMEDY)
    return files


def pack_files(files: Mapping[str, bytes]) -> bytes:
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
        archive.writestr(zipfile.ZipInfo(INDEX), json.dumps(index), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


class DescriptorFiles:
    """What a DescriptorPool asks for the files it lacks (its `descriptor_db`)."""

    def __init__(self, packed: bytes) -> None:
        self._archive = zipfile.ZipFile(io.BytesIO(packed))
        self._index: dict[str, str] = json.loads(self._archive.read(INDEX))

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
