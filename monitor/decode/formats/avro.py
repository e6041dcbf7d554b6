"""Avro → documents: the record, its fields by name.

    registry     byte 0, the id of the writer's schema, then the record: each record by its own writer's schema
    schema file  the record alone (`kafka.schema_file`), or as a "single object" with the schema's fingerprint
    Obj 01       a container file with its own schema, of any number of records

Input: the value of one record, and its schema. Output: documents. Times (timestamp-millis, timestamp-micros) are
`datetime`, decimals are floats, dates and times of day are ISO texts. Invariant: a schema is checked before it is used.
A recursive schema, a deep one, and one whose lists can have entries without bytes are refused, so the memory of a
record is bounded by its bytes.
"""

from __future__ import annotations

import datetime
import decimal
import re
import struct
import uuid
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import msgspec
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form

from monitor.decode.formats import FRAME_BYTES, Layout
from monitor.decode.formats.avro_columns import flat_leaves
from monitor.decode.formats.framing import CompiledSchemas, RegisteredSchema, read_frame, require_frame
from monitor.decode.formatting import describe_value, quote
from monitor.decode.payload import MAX_DEPTH, MAX_FIELDS, check_limits
from monitor.errors import ConfigError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from monitor.decode.formats import Documents, FormatOptions, RawRecord

MAX_OBJECTS: Final = 20_000
"""Records of one container file."""
MAX_INFLATED: Final = 1 << 20
"""Bytes of a compressed container file after decompression."""
READER_ERRORS: Final = (
    EOFError, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError, ArithmeticError,
    StopIteration, MemoryError, RecursionError, struct.error,
)  # fmt: skip
"""Errors of fastavro over bytes that do not fit the schema."""
_SCHEMA_ERRORS: Final = (*READER_ERRORS, SchemaParseException, UnknownType)
_MAX_FILE_SCHEMAS: Final = 64
"""Schemas of container files that are kept."""
_CONTAINER: Final = b"Obj\x01"
_SINGLE_OBJECT: Final = b"\xc3\x01"
_ADDRESS = re.compile(r" from <[^>]*>")
"""Part of fastavro's texts that differs from run to run."""
_SYNC_BYTES: Final = 16
_DAMAGED: Final = "not_avro: the container file is cut off or damaged"
_PRIMITIVES = frozenset(("null", "boolean", "int", "long", "float", "double", "bytes", "string"))
_CONVERTED = (decimal.Decimal, datetime.date, datetime.time, uuid.UUID, tuple)


class AvroSchema:
    """A checked schema of one writer."""

    __slots__ = ("_layout", "parsed", "source")

    def __init__(self, text: str, references: dict[str, str] | None = None, *, is_repeated: bool = False) -> None:
        """`is_repeated`: the schema is of a container file. Raises DecodeError: bad_schema."""
        try:
            named: dict[str, Any] = {}
            sources = [msgspec.json.decode(each) for each in (references or {}).values()]
            self.source = msgspec.json.decode(text)
            check = _SchemaCheck(sources)
            check.check(self.source, is_repeated=is_repeated)
            leaves = flat_leaves(self.source, check.find)
            self._layout = None if leaves is None else Layout("", leaves, 0)
            for each in sources:
                parse_schema(each, named_schemas=named)
            self.parsed = parse_schema(self.source, named_schemas=named)
        except (msgspec.MsgspecError, *_SCHEMA_ERRORS) as problem:
            raise DecodeError(f"bad_schema: the Avro schema cannot be used: {problem}") from None

    def layout(self, name: str, n_skipped: int) -> Layout | None:
        """Return the layout of the records. None = the schema is not flat."""
        return self._layout and self._layout._replace(name=name, n_skipped=n_skipped)

    def read(self, source: BytesIO) -> Any:
        """Read one record. Raises DecodeError: not_avro."""
        try:
            return _plain(schemaless_reader(source, self.parsed, None))
        except READER_ERRORS as problem:
            detail = _ADDRESS.sub("", str(problem)) or type(problem).__name__
            raise DecodeError(
                f"not_avro: the bytes do not fit the writer's schema ({detail}); check kafka.format and the producer"
            ) from None

    def read_whole(self, body: bytes) -> dict[str, Any]:
        """Read the one record that these bytes are."""
        source = BytesIO(body)
        found = self.read(source)
        if source.tell() != len(body):
            raise DecodeError(
                f"not_avro: {len(body) - source.tell()} bytes are left behind the record, so it was written with "
                "another schema; check the producer's schema"
            )
        return check_limits(found)

    @property
    def fingerprint(self) -> bytes:
        """The 8 bytes that name this schema in a single object."""
        canonical = to_parsing_canonical_form(self.parsed)
        return bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


class AvroParser:
    """Parser of Avro records. Keeps the schemas that it met."""

    def __init__(self, options: FormatOptions) -> None:
        self._has_registry = options.has_registry
        self._registered = CompiledSchemas(_compile)
        self._of_files: dict[bytes, AvroSchema] = {}
        self._own: AvroSchema | None = None
        if options.schema is not None:
            try:
                self._own = AvroSchema(options.schema.decode())
            except (DecodeError, UnicodeDecodeError) as problem:
                raise ConfigError(f"kafka.schema_file is no Avro schema: {problem}") from None
            self._single_object = _SINGLE_OBJECT + self._own.fingerprint

    def parse(self, record: RawRecord) -> Documents:
        """Return the documents of a record. Raises DecodeError: not_avro, bad_schema, unknown_schema."""
        value = record.value
        if value.startswith(_CONTAINER):
            return self._read_container(value)
        own = self._own
        if own is not None:
            head = self._single_object
            return [own.read_whole(value.removeprefix(head))]
        advice = 'for plain Avro set kafka.schema_file = "reading.avsc"'
        frame = require_frame(value, word="not_avro", advice=advice, has_registry=self._has_registry)
        return [self._registered.find(record.schemas, frame.schema_id).read_whole(frame.body)]

    def layouts(self, values: Sequence[bytes], schemas: Mapping[int, str]) -> tuple[list[Layout | None], list[int]]:
        """Return layouts, and the number [N] of each record's among them. None = it must be read alone."""
        if self._own is not None or not self._has_registry:
            return [None if self._own is None else self._own.layout("avro", 0)], [0] * len(values)
        heads = [value[:FRAME_BYTES] for value in values]
        numbers = {head: number for number, head in enumerate(dict.fromkeys(heads))}
        return [self._layout_of(head, schemas) for head in numbers], [numbers[head] for head in heads]

    def _layout_of(self, head: bytes, schemas: Mapping[int, str]) -> Layout | None:
        frame = read_frame(head)
        try:
            schema = None if frame is None else self._registered.find(schemas, frame.schema_id)
        except DecodeError:
            return None
        return None if frame is None or schema is None else schema.layout(f"avro {frame.schema_id}", FRAME_BYTES)

    # ------------------------------------------------------------ container files

    def _read_container(self, value: bytes) -> Documents:
        source = BytesIO(value)
        source.seek(len(_CONTAINER))
        meta = _read_meta(source)
        sync = source.read(_SYNC_BYTES)
        schema = self._schema_of_file(meta.get("avro.schema", b""))
        codec = meta.get("avro.codec", b"null")
        documents: Documents = []
        n_inflated = 0
        while source.tell() < len(value):
            n_objects, n_bytes = _read_long(source), _read_long(source)
            block = _read_bytes(source, n_bytes)
            if source.read(_SYNC_BYTES) != sync:
                raise DecodeError(_DAMAGED)
            if codec == b"deflate":
                block = _inflate(block, MAX_INFLATED - n_inflated)
                n_inflated += len(block)
            elif codec != b"null":
                raise DecodeError(
                    f"not_avro: the container file is compressed with {quote(codec.decode(errors='replace'))}; "
                    'write it with "null" or "deflate", and let Kafka compress'
                )
            if not 0 <= n_objects <= MAX_OBJECTS - len(documents):
                raise DecodeError(f"too_many_readings: a container file may have {MAX_OBJECTS} records")
            objects = BytesIO(block)
            documents += [check_limits(schema.read(objects)) for _ in range(n_objects)]
            if objects.tell() != len(block):
                raise DecodeError("not_avro: bytes are left behind the records of a block")
        return documents

    def _schema_of_file(self, text: bytes) -> AvroSchema:
        if text not in self._of_files:
            if len(self._of_files) >= _MAX_FILE_SCHEMAS:
                self._of_files.clear()
            try:
                self._of_files[text] = AvroSchema(text.decode(), is_repeated=True)
            except UnicodeDecodeError:
                raise DecodeError("bad_schema: the schema of the container file is not UTF-8") from None
        return self._of_files[text]


def make_parser(options: FormatOptions) -> AvroParser:
    """Return the parser of Avro. Raises ConfigError for a schema file that is no Avro schema."""
    return AvroParser(options)


def _compile(registered: RegisteredSchema) -> AvroSchema:
    if registered.type != "AVRO":
        raise DecodeError(
            f'bad_schema: its schema is of type {registered.type}; set kafka.format = "auto", or '
            f'"{"json_schema" if registered.type == "JSON" else "protobuf"}"'
        )
    return AvroSchema(registered.schema, registered.references)


def _plain(value: Any) -> Any:
    """Return a value with all decimals as floats, and dates, times of day and UUIDs as texts."""
    kind = type(value)
    if kind is dict:
        return {name: _plain(inner) for name, inner in value.items()}
    if kind is list:
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime.datetime) or not isinstance(value, _CONVERTED):
        return value
    if isinstance(value, decimal.Decimal):
        return float(value)
    return str(value) if isinstance(value, uuid.UUID) else value.isoformat() if hasattr(value, "isoformat") else None


def _inflate(block: bytes, limit: int) -> bytes:
    try:
        inflater = zlib.decompressobj(-15)
        data = inflater.decompress(block, limit + 1)
    except zlib.error as problem:
        raise DecodeError(f"not_avro: a block cannot be decompressed: {problem}") from None
    if len(data) > limit:
        raise DecodeError(f"too_large: the container file has more than {MAX_INFLATED} bytes; send smaller files")
    return data


def _read_bytes(source: BytesIO, n_bytes: int) -> bytes:
    if not 0 <= n_bytes <= len(source.getbuffer()) - source.tell():
        raise DecodeError(_DAMAGED)
    return source.read(n_bytes)


def _read_long(source: BytesIO) -> int:
    number = shift = 0
    while True:
        byte = source.read(1)
        if not byte or shift > 63:
            raise DecodeError(_DAMAGED)
        number |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (number >> 1) ^ -(number & 1)
        shift += 7


def _read_meta(source: BytesIO) -> dict[str, bytes]:
    """Read the header of a container file: a map from names to bytes."""
    meta: dict[str, bytes] = {}
    while n_entries := _read_long(source):
        if n_entries < 0:
            _read_long(source)
        for _ in range(abs(n_entries)):
            name, content = (_read_bytes(source, _read_long(source)) for _ in range(2))
            meta[name.decode(errors="replace")] = content
            if len(meta) > MAX_FIELDS:
                raise DecodeError(_DAMAGED)
    return meta


class _SchemaCheck:
    """Check of an untrusted schema: depth, number of fields, recursion, and entries of lists without bytes."""

    def __init__(self, references: list[Any]) -> None:
        self._named: dict[str, Any] = {}
        self._open: list[str] = []
        self._n_fields = 0
        self._references = references

    def check(self, schema: Any, *, is_repeated: bool) -> None:
        """Raise ValueError where a schema cannot be used. `is_repeated`: it is read several times per record."""
        for reference in self._references:
            self._register(reference, "", 0)
        self._register(schema, "", 0)
        self._walk(schema, "", 0, is_repeated=is_repeated)

    def find(self, name: str, space: str) -> tuple[Any, str] | None:
        """Return the definition of a named type and its namespace."""
        return self._named.get(f"{space}.{name}") or self._named.get(name)

    def _register(self, schema: Any, space: str, depth: int) -> None:
        """Remember the named types, by their names with and without namespace."""
        if depth > 2 * MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(schema, list):
            for each in schema:
                self._register(each, space, depth + 1)
        elif isinstance(schema, dict):
            name = schema.get("name")
            if isinstance(name, str) and schema.get("type") in ("record", "error", "enum", "fixed"):
                space = schema.get("namespace") or (name.rpartition(".")[0] if "." in name else space)
                full = name if "." in name or not space else f"{space}.{name}"
                self._named[full] = (schema, space)
            for field in schema.get("fields") or ():
                if isinstance(field, dict):
                    self._register(field.get("type"), space, depth + 1)
            for key in ("items", "values", "type"):
                if isinstance(schema.get(key), (dict, list)):
                    self._register(schema[key], space, depth + 1)

    def _walk(self, schema: Any, space: str, depth: int, *, is_repeated: bool) -> None:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(schema, list):
            for each in schema:
                if each != "null":
                    self._walk(each, space, depth, is_repeated=is_repeated)
            return
        if isinstance(schema, str):
            self._walk_name(schema, space, depth, is_repeated=is_repeated)
            return
        if not isinstance(schema, dict):
            raise ValueError(f"{describe_value(schema)} is no type")  # noqa: TRY004  # collected as ValueError
        kind = schema.get("type")
        if isinstance(kind, (dict, list)):
            self._walk(kind, space, depth, is_repeated=is_repeated)
        elif kind in ("record", "error"):
            self._walk_record(schema, space, depth, is_repeated=is_repeated)
        elif kind in ("array", "map"):
            self._walk(schema.get("items" if kind == "array" else "values"), space, depth + 1, is_repeated=True)
        elif kind == "fixed":
            if is_repeated and schema.get("size") == 0:
                raise ValueError("a list has entries without bytes")
        elif kind != "enum":
            self._walk_name(kind, space, depth, is_repeated=is_repeated)

    def _walk_name(self, name: Any, space: str, depth: int, *, is_repeated: bool) -> None:
        if name in _PRIMITIVES:
            if is_repeated and name == "null":
                raise ValueError("a list has entries without bytes")
            return
        found = self.find(name, space)
        if found is None:
            raise ValueError(f"there is no type {describe_value(name)}")
        inner, inner_space = found
        self._walk(inner, inner_space, depth, is_repeated=is_repeated)

    def _walk_record(self, schema: dict[str, Any], space: str, depth: int, *, is_repeated: bool) -> None:
        name, fields = str(schema.get("name")), schema.get("fields")
        space = schema.get("namespace") or (name.rpartition(".")[0] if "." in name else space)
        full = f"{space}.{name}"
        if full in self._open:
            raise ValueError(f"record {quote(name)} contains itself")
        if not isinstance(fields, list) or (is_repeated and not fields):
            raise ValueError(f"record {quote(name)} has no fields")
        self._n_fields += len(fields)
        if self._n_fields > MAX_FIELDS:
            raise ValueError(f"it has more than {MAX_FIELDS} fields")
        self._open.append(full)
        for field in fields:
            if not isinstance(field, dict):
                raise ValueError(f"a field of record {quote(name)} is no object")  # noqa: TRY004
            self._walk(field.get("type"), space, depth + 1, is_repeated=is_repeated)
        self._open.pop()
