"""Protobuf: .proto sources, descriptor sets, the path of a message, and what its fields become."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from monitor.decode.formats import FormatOptions, RawRecord, make_parser
from monitor.decode.formats.framing import RegisteredSchema
from monitor.decode.formats.proto_source import parse_proto
from monitor.errors import ConfigError, DecodeError
from tests.format_writers import PROTO_SOURCE, descriptor_set, frame, proto_body, proto_field

SOURCE = """
// a comment; with "signs" {
syntax = "proto3";
package plant.v1;
import public "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "validate/validate.proto"; /* nobody
has it */
option java_package = "a.b";
message First { int32 a = 1; }
message Reading {
  option (foo.bar) = { a: 1 };
  reserved 40, 42 to max; reserved "foo";
  string asset = 1 [(validate.rules).string = {min_len: 1}, json_name = "x;y"];
  google.protobuf.Timestamp ts = 2;
  map<string, double> more = 3;
  message Inner { message Deep { sint64 y = 1; } int32 x = 1; Deep deep = 2; }
  repeated Inner list = 4;
  enum State { option allow_alias = true; UNKNOWN = 0; ON = 0x1; RUN = 1; OFF = -2 [deprecated = true]; }
  State state = 5;
  oneof which { float f = 6; string s = 7; }
  google.protobuf.DoubleValue wrapped = 8;
  repeated fixed32 vector = 9 [packed = true];
  .plant.v1.First first = 10;
  bytes message = 11;
  google.protobuf.Duration took = 12;
  google.protobuf.Struct open = 13;
  double zero = 14;
  optional double unset = 15;
}
service S { rpc Do(Reading) returns (First) { option x = { a: "}" }; } }
extend google.protobuf.FieldOptions { string unit = 50000; }
"""


def parse(body: bytes, source: str = SOURCE, path: bytes = b"\x02\x02", **references: str) -> dict:
    schema = RegisteredSchema(source, "PROTOBUF", references).dump()
    parser = make_parser("protobuf", FormatOptions(has_registry=True))
    [document] = parser.parse(RawRecord(frame(3) + path + body, schemas={3: schema}))
    return document


def reason_of(*args, **options) -> str:
    with pytest.raises(DecodeError) as caught:
        parse(*args, **options)
    return caught.value.detail


def test_bytes_by_hand_become_a_document():
    inner = proto_field(1, 7) + proto_field(2, proto_field(1, 9))
    struct = proto_field(1, proto_field(1, b"k") + proto_field(2, proto_field(2, 2.5)))
    body = b"".join((
        proto_field(1, b"R1"),
        proto_field(2, proto_field(1, 1_764_399_600) + proto_field(2, 250_000_000)),
        proto_field(3, proto_field(1, b"a") + proto_field(2, 0.5)),
        proto_field(4, inner),
        proto_field(5, 1),
        b"\x35\0\0\0\x40",
        proto_field(8, proto_field(1, 7.5)),
        proto_field(9, b"\1\0\0\0\2\0\0\0"),
        proto_field(12, proto_field(1, 3) + proto_field(2, 500_000_000)),
        proto_field(13, struct),
        proto_field(39, 1),
    ))
    assert parse(body) == {
        "asset": "R1",
        "ts": datetime(2025, 11, 29, 7, 0, 0, 250_000, tzinfo=UTC),
        "more": {"a": 0.5},
        "list": [{"x": 7, "deep": {"y": -5}}],
        "state": "ON",
        "f": 2.0,
        "s": None,
        "wrapped": 7.5,
        "vector": [1, 2],
        "first": None,
        "message": b"",
        "took": 3.5,
        "open": {"k": 2.5},
        "zero": 0.0,
        "unset": None,
    }


@pytest.mark.parametrize(
    ("path", "wanted"),
    [(b"\0", {"a": 5}), (b"\x02\0", {"a": 5}), (b"\x04\x02\0", {"x": 5, "deep": None}), (b"\x06\x02\0\0", {"y": -3})],
)
def test_the_path_names_the_message(path, wanted):
    assert parse(b"\x08\x05", path=path) == wanted


@pytest.mark.parametrize("path", [b"\x02\x08", b"\x04\x02\x08", b"", b"\x80", b"\x01", b"\x7e"])
def test_a_wrong_path_is_refused(path):
    assert reason_of(b"", path=path).startswith("not_protobuf: ")


def test_references_and_proto2_are_read():
    other = 'syntax = "proto2"; package q; message Unit { required int32 a = 1 [default = 5]; optional int32 b = 2; }'
    source = 'syntax = "proto2"; import "other.proto"; message R { optional q.Unit unit = 1; }'
    assert parse(b"\x0a\x02\x08\x07", source, b"\0", **{"other.proto": other}) == {"unit": {"a": 7, "b": None}}


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ('syntax = "proto3"; message R { group G = 1 {} }', "a group, which is not read here"),
        ('edition = "2023"; message R {}', "an edition; register the schema in proto3"),
        ('syntax = "proto3"; message R { Nowhere a = 1; }', "cannot be used"),
        ('syntax = "proto3"; message R { int32 a 1; }', 'line 1 of the .proto source has "1", where "="'),
        ('syntax = "proto3";\n\nmessage R { int32 a = 1;', "line 3 of the .proto source has the end of the text"),
        ('syntax = "proto3"; message R { int32 a = 1; } §', 'has "§"'),
        ("syntax = 'proto3';" + "message A {" * 50, "nested deeper"),
        ("syntax = 'proto3'; message A {" + "int32 a = 1;" * 2001, "more than 2000 fields"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(source, wanted):
    reason = reason_of(b"\x08\x01", source, b"\0")
    assert reason.startswith("bad_schema: ")
    assert wanted in reason


def test_the_parser_agrees_with_the_compilers_descriptor():
    own, compiled = parse_proto(PROTO_SOURCE, "reading.proto"), descriptor_set().file[1]
    for message in own.message_type:
        for field in message.field:
            if field.type_name:  # the compiler resolves names
                field.type, field.type_name = field.TYPE_MESSAGE, f".{field.type_name}"
    assert own == compiled


def test_a_schema_file_holds_the_message():
    document = {"asset": "R1", "ts": 10**15, "power": 1.5, "wind_speed": None, "pitch": 0.0}
    options = FormatOptions(schema=descriptor_set().SerializeToString(), message="plant.Reading")
    [found] = make_parser("protobuf", options).parse(RawRecord(proto_body(document)))
    assert found == {**document, "ts": datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)}


def test_a_schema_file_that_does_not_fit_is_a_configuration_error():
    with pytest.raises(ConfigError, match=r"kafka\.schema_file has no Protobuf descriptors"):
        make_parser("protobuf", FormatOptions(schema=b"message A {}", message="A"))
    with pytest.raises(ConfigError, match=r'"plant\.Nothing" is not in kafka\.schema_file, which has plant\.Other'):
        make_parser(
            "protobuf", FormatOptions(schema=descriptor_set().SerializeToString(), message="plant.Nothing")
        )


def test_bytes_of_another_message_are_refused():
    assert "no field of the record belongs to message plant.v1.First" in reason_of(b"\x7a\x01a", path=b"\0")
    assert reason_of(b"\xff\xff").startswith("not_protobuf: the bytes are no message plant.v1.Reading")


def test_empty_messages_do_not_fill_the_memory():
    assert reason_of(proto_field(4, b"") * 100_000).startswith("too_many_fields")
