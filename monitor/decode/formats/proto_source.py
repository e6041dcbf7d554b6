"""The source of a .proto file → its descriptor. A schema registry stores Protobuf schemas as source.

Input: text in the syntax of proto2 or proto3. Output: a `FileDescriptorProto`. The part that messages of readings use
is read: messages, also nested, fields of all scalar types, enumerations, maps, oneofs and imports. Options, services
and extensions are skipped, because they do not change how a message is written. Groups and editions are refused.
Invariant: anything else is a DecodeError that names the line.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from monitor.decode.formatting import quote
from monitor.decode.payload import MAX_DEPTH, MAX_FIELDS
from monitor.errors import DecodeError

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<name>\.?[A-Za-z_][\w]*(?:\.[A-Za-z_]\w*)*)
      | (?P<number>-?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?))
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<sign>[{}\[\]()<>=;,:+\-./])
    )""",
    re.VERBOSE | re.DOTALL,
)
_LABELS: Final = {
    "optional": FieldDescriptorProto.LABEL_OPTIONAL,
    "required": FieldDescriptorProto.LABEL_REQUIRED,
    "repeated": FieldDescriptorProto.LABEL_REPEATED,
}
_SCALARS: Final = {
    name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in (
        "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
        "sfixed64", "bool", "string", "bytes",
    )
}  # fmt: skip
_OPEN, _CLOSE = "{[(", "}])"


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def parse_proto(source: str, name: str = "schema.proto") -> FileDescriptorProto:
    """Return the descriptor of a .proto file. Raises DecodeError: bad_schema."""
    return _Parser(source, name).file()


class _Parser:
    """A recursive descent parser of one file."""

    def __init__(self, source: str, name: str) -> None:
        self._tokens = _tokens_of(source)
        self._at = 0
        self._n_fields = 0
        self._file = FileDescriptorProto(name=name, syntax="proto2")

    # ------------------------------------------------------------ tokens

    def _peek(self) -> str:
        return self._tokens[self._at].text

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        if token.kind == "end":
            raise self._unexpected(token)
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        token = self._next()
        if token.text != text:
            raise self._unexpected(token, f'"{text}"')

    def _expect_kind(self, kind: str) -> str:
        token = self._next()
        if token.kind != kind:
            raise self._unexpected(token, f"a {kind}")
        return token.text

    def _is_next(self, text: str) -> bool:
        if self._peek() != text:
            return False
        self._at += 1
        return True

    def _unexpected(self, token: _Token, wanted: str = "") -> DecodeError:
        found = "the end of the text" if token.kind == "end" else quote(token.text)
        expected = f", where {wanted} is expected" if wanted else ""
        return DecodeError(f"bad_schema: line {token.line} of the .proto source has {found}{expected}")

    def _refuse(self, what: str) -> DecodeError:
        line = self._tokens[self._at].line
        return DecodeError(f"bad_schema: line {line} of the .proto source has {what}, which is not read here")

    def _skip_statement(self) -> None:
        """Skip to the end of a statement: a semicolon, or the end of its block."""
        depth = 0
        while True:
            token = self._next()
            if token.kind != "sign":
                continue
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
            if depth < 0:
                raise self._unexpected(token)
            if depth == 0 and (token.text == ";" or (token.text == "}" and self._peek() != ";")):
                return

    def _text(self) -> str:
        return self._expect_kind("text")[1:-1]

    def _number(self) -> int:
        token = self._next()
        try:
            return int(token.text, 0) if token.text.lower().startswith(("0x", "-0x")) else int(token.text)
        except ValueError:
            raise self._unexpected(token, "a whole number") from None

    # ------------------------------------------------------------ the file

    def file(self) -> FileDescriptorProto:
        """Parse the whole file."""
        file = self._file
        while self._tokens[self._at].kind != "end":
            token = self._next()
            match token.text:
                case "syntax":
                    self._expect("=")
                    file.syntax = self._text()
                    if file.syntax not in ("proto2", "proto3"):
                        raise self._refuse(f"the syntax {quote(file.syntax)}")
                    self._expect(";")
                case "edition":
                    raise self._refuse("an edition; register the schema in proto3")
                case "package":
                    file.package = self._expect_kind("name")
                    self._expect(";")
                case "import":
                    if self._peek() in ("public", "weak"):
                        self._next()
                    file.dependency.append(self._text())
                    self._expect(";")
                case "message":
                    self._message(file.message_type.add(), 1)
                case "enum":
                    self._enum(file.enum_type.add())
                case "option" | "service" | "extend":
                    self._skip_statement()
                case ";":
                    pass
                case _:
                    raise self._unexpected(token)
        return file

    def _message(self, message: DescriptorProto, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self._refuse(f"messages nested deeper than {MAX_DEPTH} levels")
        message.name = self._expect_kind("name")
        self._expect("{")
        entries: list[DescriptorProto] = []
        while not self._is_next("}"):
            match self._peek():
                # A word may also be the type or the name of a field: then a name follows, and no "{".
                case "message" if self._opens_block():
                    self._next()
                    self._message(message.nested_type.add(), depth + 1)
                case "enum" if self._opens_block():
                    self._next()
                    self._enum(message.enum_type.add())
                case "oneof" if self._opens_block():
                    self._next()
                    self._oneof(message)
                case "option" | "reserved" | "extensions" | "extend":
                    self._skip_statement()
                case ";":
                    self._next()
                case "map" if self._tokens[self._at + 1].text == "<":
                    self._map(message, entries)
                case _:
                    self._field(message)
        # Behind the declared messages: the index path of a registry's frame counts only those.
        message.nested_type.extend(entries)
        self._add_synthetic_oneofs(message)

    def _opens_block(self) -> bool:
        return self._at + 2 < len(self._tokens) and self._tokens[self._at + 2].text == "{"

    def _add_synthetic_oneofs(self, message: DescriptorProto) -> None:
        """Give each `optional` field of proto3 a oneof of its own, as the compiler does."""
        for field in message.field:
            if field.proto3_optional:
                field.oneof_index = len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{field.name}")

    def _field(self, message: DescriptorProto, oneof: int | None = None) -> FieldDescriptorProto:
        self._n_fields += 1
        if self._n_fields > MAX_FIELDS:
            raise self._refuse(f"more than {MAX_FIELDS} fields")
        field = message.field.add(label=FieldDescriptorProto.LABEL_OPTIONAL)
        if self._peek() in _LABELS and self._tokens[self._at + 1].kind == "name":
            label = self._next().text
            field.label = _LABELS[label]
            field.proto3_optional = label == "optional" and self._file.syntax == "proto3"
        if self._peek() == "group":
            raise self._refuse("a group")
        self._type(field)
        field.name = self._expect_kind("name")
        self._end_of_field(field)
        if oneof is not None:
            field.oneof_index = oneof
        return field

    def _type(self, field: FieldDescriptorProto) -> None:
        kind = self._expect_kind("name")
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type_name = kind

    def _end_of_field(self, field: FieldDescriptorProto) -> None:
        self._expect("=")
        field.number = self._number() & 0x7FFFFFFF
        if self._peek() == "[":
            depth = 0
            while True:
                token = self._next()
                depth += (token.text in _OPEN) - (token.text in _CLOSE) if token.kind == "sign" else 0
                if depth == 0:
                    break
        self._expect(";")

    def _oneof(self, message: DescriptorProto) -> None:
        index = len(message.oneof_decl)
        message.oneof_decl.add(name=self._expect_kind("name"))
        self._expect("{")
        while not self._is_next("}"):
            if self._peek() == "option":
                self._skip_statement()
            elif not self._is_next(";"):
                self._field(message, index)

    def _map(self, message: DescriptorProto, entries: list[DescriptorProto]) -> None:
        self._next()
        self._expect("<")
        entry = DescriptorProto()
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL)
        self._type(entry.field[0])
        self._expect(",")
        entry.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL)
        self._type(entry.field[1])
        self._expect(">")
        field = message.field.add(label=FieldDescriptorProto.LABEL_REPEATED, type=FieldDescriptorProto.TYPE_MESSAGE)
        field.name = self._expect_kind("name")
        entry.name = "".join(part[:1].upper() + part[1:] for part in field.name.split("_")) + "Entry"
        field.type_name = entry.name
        self._end_of_field(field)
        entries.append(entry)

    def _enum(self, enum: EnumDescriptorProto) -> None:
        enum.name = self._expect_kind("name")
        self._expect("{")
        while not self._is_next("}"):
            if self._peek() == "option" and self._tokens[self._at + 1].text == "allow_alias":
                enum.options.allow_alias = True
                self._skip_statement()
            elif self._peek() in ("option", "reserved"):
                self._skip_statement()
            elif not self._is_next(";"):
                self._n_fields += 1
                if self._n_fields > MAX_FIELDS:
                    raise self._refuse(f"more than {MAX_FIELDS} fields")
                value = enum.value.add(name=self._expect_kind("name"))
                self._expect("=")
                number = self._number()
                if not -(2**31) <= number < 2**31:
                    raise self._refuse("a number of more than 32 bits")
                value.number = number
                if self._peek() == "[":
                    self._skip_statement()
                else:
                    self._expect(";")


def _tokens_of(source: str) -> list[_Token]:
    tokens, at, line = [], 0, 1
    text = source.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise DecodeError(f"bad_schema: line {line} of the .proto source has {quote(text[at : at + 20].strip())}")
        line += text.count("\n", at, found.start(found.lastgroup or 0))
        if found.lastgroup != "comment":
            tokens.append(_Token(found.lastgroup or "", found[found.lastgroup or 0], line))
        line += text.count("\n", found.start(found.lastgroup or 0), found.end())
        at = found.end()
    tokens.append(_Token("end", "", line))
    return tokens


