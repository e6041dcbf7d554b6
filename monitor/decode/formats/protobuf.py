"""Protobuf → documents: the fields of a message by their names in the .proto file.

    registry     byte 0, the id of the schema, the path of the message in its file, then the message
    schema file  the message alone: `kafka.schema_file`, as protoc --include_imports --descriptor_set_out writes it, and
                 `kafka.message`, its full name

Input: the value of one record, and its schema. Output: one document. Timestamps are `datetime`, durations are seconds,
wrappers are their values, enumerations are names. A field that can tell "not set" is null then; the others have their
default. Invariant: a message in which no field is known is refused: it was written with another schema.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError as BadMessage

from monitor.decode.formats.framing import CompiledSchemas, RegisteredSchema, require_frame
from monitor.decode.formats.proto_source import parse_proto
from monitor.decode.formatting import quote, short_list
from monitor.decode.payload import MAX_DEPTH, MAX_FIELDS
from monitor.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
    from google.protobuf.message import Message

    from monitor.decode.formats import Documents, FormatOptions, RawRecord

_WELL_KNOWN: Final = {
    module.DESCRIPTOR.name: module.DESCRIPTOR
    for module in (
        any_pb2, descriptor_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
    )
}  # fmt: skip
"""Files that every .proto may import."""
_MAX_PATH: Final = 16
"""Levels of a message's path."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MESSAGE_ERRORS: Final = (BadMessage, ValueError, OverflowError, TypeError, MemoryError, RecursionError)


class MessageType:
    """One message of a schema: from its bytes to a document."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.name = descriptor.full_name
        self._make = message_factory.GetMessageClass(descriptor)
        self._fields: dict[str, list[_Field]] = {}

    def read(self, body: bytes) -> dict[str, Any]:
        """Return the document. Raises DecodeError: not_protobuf, too_deep, too_many_fields."""
        try:
            message = self._make.FromString(body)
            if body and not message.ListFields():
                raise DecodeError(
                    f"not_protobuf: no field of the record belongs to message {self.name}; check kafka.message, or "
                    "the schema that the producer registered"
                )
            return _Reader(self._fields).document(message, 1)
        except _MESSAGE_ERRORS as problem:
            raise DecodeError(
                f"not_protobuf: the bytes are no message {self.name} ({problem}); check kafka.format and the schema"
            ) from None


class ProtobufParser:
    """Parser of Protobuf records. Keeps the schemas that it met."""

    def __init__(self, options: FormatOptions) -> None:
        self._has_registry = options.has_registry
        self._registered = CompiledSchemas(_compile)
        self._own = None
        if options.schema is not None:
            self._own = message_of_file(options.schema, options.message or "")

    def parse(self, record: RawRecord) -> Documents:
        """Return the one document. Raises DecodeError."""
        if self._own is not None:
            return [self._own.read(record.value)]
        advice = 'for plain Protobuf set kafka.schema_file = "reading.desc" and kafka.message'
        frame = require_frame(record.value, word="not_protobuf", advice=advice, has_registry=self._has_registry)
        path, body = _read_path(frame.body)
        return [self._registered.find(record.schemas, frame.schema_id).message(path).read(body)]


def make_parser(options: FormatOptions) -> ProtobufParser:
    """Return the parser of Protobuf. Raises ConfigError for a schema file without the message."""
    return ProtobufParser(options)


# ---------------------------------------------------------------- schemas


class ProtoFile:
    """A registered schema: a file of messages."""

    def __init__(self, file: FileDescriptor) -> None:
        self._file = file
        self._types: dict[tuple[int, ...], MessageType] = {}

    def message(self, path: tuple[int, ...]) -> MessageType:
        """Return the message at a path: its number in the file, then those of nested messages."""
        found = self._types.get(path)
        if found is None:
            # In the order of the source. Map entries, which the compiler adds, are not counted.
            inside: Iterable[Descriptor] = self._file.message_types_by_name.values()
            descriptor = None
            for number in path:
                declared = [each for each in inside if not each.GetOptions().map_entry]
                if not 0 <= number < len(declared):
                    raise DecodeError(f"not_protobuf: the schema has no message at the path {list(path)}")
                descriptor = declared[number]
                inside = descriptor.nested_types
            if descriptor is None:
                raise DecodeError("not_protobuf: the path of the message is empty")
            found = self._types[path] = MessageType(descriptor)
        return found


def _compile(registered: RegisteredSchema) -> ProtoFile:
    if registered.type != "PROTOBUF":
        raise DecodeError(
            f'bad_schema: its schema is of type {registered.type}; set kafka.format = "auto", or '
            f'"{"json_schema" if registered.type == "JSON" else "avro"}"'
        )
    files = {name: parse_proto(source, name) for name, source in registered.references.items()}
    own = parse_proto(registered.schema, "registered.proto")
    return ProtoFile(_build([*files.values(), own]).FindFileByName(own.name))


def _build(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> DescriptorPool:
    """Return a pool with these files. Imports that nobody gives are left out: most only serve options."""
    pool = DescriptorPool()
    known = {file.name: file for file in files}
    added: set[str] = set()

    def add(file: descriptor_pb2.FileDescriptorProto, depth: int) -> None:
        if file.name in added or depth > len(known) + len(_WELL_KNOWN):
            return
        given = [name for name in file.dependency if name in known or name in _WELL_KNOWN]
        del file.dependency[:], file.public_dependency[:], file.weak_dependency[:]
        file.dependency.extend(given)
        for name in given:
            add(known[name] if name in known else _well_known(name), depth + 1)
        added.add(file.name)
        pool.AddSerializedFile(file.SerializeToString())

    try:
        for file in known.values():
            add(file, 0)
        for name in known:
            pool.FindFileByName(name)
    except (TypeError, KeyError, ValueError, RecursionError) as problem:
        raise DecodeError(f"bad_schema: the Protobuf schema cannot be used: {problem}") from None
    return pool


def _well_known(name: str) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    _WELL_KNOWN[name].CopyToProto(file)
    return file


def message_of_file(content: bytes, name: str) -> MessageType:
    """Return a message of a set of descriptors. Raises ConfigError."""
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(content).file
        pool = _build(files)
    except (BadMessage, DecodeError) as problem:
        raise ConfigError(
            f"kafka.schema_file has no Protobuf descriptors ({problem}); write it with "
            "protoc --include_imports --descriptor_set_out=FILE"
        ) from None
    try:
        return MessageType(pool.FindMessageTypeByName(name.removeprefix(".")))
    except KeyError:
        offered = [
            f"{file.package}.{message.name}".lstrip(".")
            for file in files
            if file.name not in _WELL_KNOWN
            for message in file.message_type
        ]
        raise ConfigError(
            f"kafka.message {quote(name)} is not in kafka.schema_file, which has {short_list(tuple(offered))}"
        ) from None


def _read_path(body: bytes) -> tuple[tuple[int, ...], bytes]:
    """Read the path of the message behind a frame: a count and numbers, as zigzag varints. A single 0 means (0,)."""
    n_levels, at = _read_varint(body, 0)
    if n_levels == 0:
        return (0,), body[at:]
    if not 0 < n_levels <= _MAX_PATH:
        raise DecodeError(f"not_protobuf: the frame's path of the message has {n_levels} levels")
    path = []
    for _ in range(n_levels):
        number, at = _read_varint(body, at)
        path.append(number)
    return tuple(path), body[at:]


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(body) and shift < 35:
        byte = body[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
    raise DecodeError("not_protobuf: the record ends within the path of its message")


# ---------------------------------------------------------------- messages


class _Field(NamedTuple):
    """The facts of one field that reading it needs."""

    name: str
    descriptor: FieldDescriptor | None
    """None = a single scalar, whose value is taken as it is."""
    has_presence: bool
    """Whether a field can be "not set"."""


class _Reader:
    """Reads one record, and counts its fields."""

    def __init__(self, fields: dict[str, list[_Field]]) -> None:
        """`fields`: by the name of a message, those found before. Messages that are met are added."""
        self._fields = fields
        self._n_fields = 0

    def document(self, message: Message, depth: int) -> dict[str, Any]:
        """Return the fields of a message."""
        if depth > MAX_DEPTH:
            raise DecodeError(f"too_deep: the record is nested deeper than {MAX_DEPTH} levels")
        fields = self._fields_of(message.DESCRIPTOR)
        self._count(len(fields))
        document: dict[str, Any] = {}
        for name, field, has_presence in fields:
            if has_presence and not message.HasField(name):
                document[name] = None
            elif field is None:
                document[name] = getattr(message, name)
            elif field.is_repeated:
                document[name] = self._repeated(field, getattr(message, name), depth)
            else:
                document[name] = self._value(field, getattr(message, name), depth)
        return document

    def _fields_of(self, descriptor: Any) -> list[_Field]:
        found = self._fields.get(descriptor.full_name)
        if found is None:
            found = [
                _Field(
                    field.name,
                    field if field.is_repeated or field.message_type or field.enum_type else None,
                    field.has_presence and not field.is_repeated,
                )
                for field in descriptor.fields
            ]
            self._fields[descriptor.full_name] = found
        return found

    def _count(self, n_fields: int) -> None:
        self._n_fields += n_fields
        if self._n_fields > MAX_FIELDS:
            raise DecodeError(f"too_many_fields: the record has more than {MAX_FIELDS} fields")

    def _repeated(self, field: FieldDescriptor, values: Any, depth: int) -> Any:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            self._count(len(values))
            inner = kind.fields_by_name["value"]
            return {str(key): self._value(inner, values[key], depth) for key in values}
        return [self._value(field, value, depth) for value in values]

    def _value(self, field: FieldDescriptor, value: Any, depth: int) -> Any:
        if field.message_type is not None:
            special = _SPECIAL.get(field.message_type.full_name)
            return self.document(value, depth + 1) if special is None else special(self, value, depth + 1)
        if field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)
            return value if known is None else known.name
        return value

    def struct(self, message: Any, depth: int) -> Any:
        """Return the value of google.protobuf.Struct, Value or ListValue."""
        if depth > MAX_DEPTH:
            raise DecodeError(f"too_deep: the record is nested deeper than {MAX_DEPTH} levels")
        name = message.DESCRIPTOR.name
        if name == "Struct":
            self._count(len(message.fields))
            return {key: self.struct(message.fields[key], depth + 1) for key in message.fields}
        if name == "ListValue":
            return [self.struct(each, depth + 1) for each in message.values]
        kind = message.WhichOneof("kind")
        if kind is None or kind == "null_value":
            return None
        value = getattr(message, kind)
        return self.struct(value, depth + 1) if kind in ("struct_value", "list_value") else value


def _timestamp(_: _Reader, message: Any, __: int) -> datetime:
    return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1_000)


def _duration(_: _Reader, message: Any, __: int) -> float:
    return float(message.seconds + message.nanos / 1e9)


def _wrapped(_: _Reader, message: Any, __: int) -> Any:
    return message.value


_SPECIAL: Final[dict[str, Callable[[_Reader, Any, int], Any]]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    **dict.fromkeys((f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue")), _Reader.struct),
    **dict.fromkeys((each.full_name for each in wrappers_pb2.DESCRIPTOR.message_types_by_name.values()), _wrapped),
}
