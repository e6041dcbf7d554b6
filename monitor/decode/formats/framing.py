"""Schema registries: the frame before a value, and the schemas that a batch carries.

    00 | id of the schema, 4 bytes, big-endian | (Protobuf: path of the message) | the value

Input: framed bytes, and `RecordBatch.schemas`. Output: the schema and the rest of the bytes. Invariant: a registry
never changes the schema of an id, so what was compiled for an id is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from monitor.decode.formatting import describe_value
from monitor.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FRAME_BYTES: Final = 5
_MAX_KEPT: Final = 1_000
"""Compiled schemas kept. A topic has a few."""


class RegisteredSchema(msgspec.Struct, frozen=True):
    """A schema as `RecordBatch.schemas` holds it, written as JSON."""

    schema: str
    """The registry's text: JSON for Avro and JSON Schema, .proto source for Protobuf."""
    type: str = "AVRO"
    """AVRO, JSON or PROTOBUF."""
    references: dict[str, str] = {}
    """Name → text of the schemas that this one refers to, in an order in which each needs only those before it."""

    def dump(self) -> str:
        """Return the JSON text."""
        return msgspec.json.encode(self).decode()


class Frame(msgspec.Struct, frozen=True):
    """A framed value: the id of its schema, and the bytes behind the frame."""

    schema_id: int
    body: bytes


def read_frame(value: bytes) -> Frame | None:
    """Return the frame and the rest. None = the value has no frame."""
    if len(value) < FRAME_BYTES or value[0] != 0:
        return None
    return Frame(int.from_bytes(value[1:FRAME_BYTES], "big"), value[FRAME_BYTES:])


def schema_type(schemas: Mapping[int, str], schema_id: int) -> str:
    """Return the type of a registered schema: AVRO, JSON or PROTOBUF. Raises DecodeError: unknown_schema."""
    return registered(schemas, schema_id).type


def registered(schemas: Mapping[int, str], schema_id: int) -> RegisteredSchema:
    """Return a registered schema. Raises DecodeError: unknown_schema."""
    text = schemas.get(schema_id)
    if text is None:
        raise DecodeError(
            f"unknown_schema: the record names schema {schema_id}, which the registry does not have; "
            "check the producer's registry and kafka.registry_url"
        )
    return msgspec.json.decode(text, type=RegisteredSchema)


T = TypeVar("T")


class CompiledSchemas(Generic[T]):
    """The compiled form of each schema that was met, by its id. A refused schema is remembered with its reason."""

    def __init__(self, compile_schema: Callable[[RegisteredSchema], T]) -> None:
        """`compile_schema`: raises DecodeError for a schema that cannot be used."""
        self._compile = compile_schema
        self._kept: dict[int, T | DecodeError] = {}

    def find(self, schemas: Mapping[int, str], schema_id: int) -> T:
        """Return the compiled schema. Raises DecodeError."""
        found = self._kept.get(schema_id)
        if found is None:
            source = registered(schemas, schema_id)  # not remembered: the id may be registered later
            try:
                found = self._compile(source)
            except DecodeError as problem:
                found = problem
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[schema_id] = found
        if isinstance(found, DecodeError):
            raise DecodeError(found.detail)
        return found


def require_frame(value: bytes, *, word: str, advice: str, has_registry: bool) -> Frame:
    """Return the frame of a record that must have one, and the rest.

    `word`: reason of a record without a frame. `advice`: the setting that reads it. Raises DecodeError: `word`,
    unknown_schema.
    """
    frame = read_frame(value)
    if frame is None:
        raise DecodeError(
            f"{word}: the record begins with {describe_value(value[:8])}, which is no frame of a schema registry; "
            f"{advice}"
        )
    if not has_registry:
        raise needs_registry(frame.schema_id)
    return frame


def needs_registry(schema_id: int) -> DecodeError:
    """Return the error about a framed record where no registry is configured."""
    return DecodeError(
        f"unknown_schema: the record begins with a schema registry's frame (byte 0, schema {schema_id}); "
        'set kafka.registry_url = "https://…"'
    )
