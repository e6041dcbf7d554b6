"""Text from outside, made safe for terminals, messages and logs, and the rule for names.

Input: text of a producer, a file or an operator. Output: the same text without characters that command a terminal,
change the direction of writing or are invisible. Invariant: only this module decides which characters are printable.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_NAME: Final = 128
"""Characters of the name of an asset or of a sensor that is learnt."""
_BLANK_LETTERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that are shown as a blank."""


def escape_unprintable(text: str, keep: str = "") -> str:
    r"""Return the text with control, format and bidirectional characters and lone surrogates as \x1b, \u202e.

    `keep`: characters that stay, such as a line feed.
    """
    if text.isprintable():
        return text
    return "".join(sign if _is_safe(sign) or sign in keep else _escape(sign) for sign in text)


def escape_json(document: str) -> str:
    """Return a JSON document with the same characters as JSON escapes. Line feeds between its values stay."""
    if document.isprintable():
        return document
    return "".join(sign if _is_safe(sign) or sign == "\n" else _escape_utf16(sign) for sign in document)


def normal_name(text: str) -> str:
    """Return a name in Unicode's composed form (NFC), so that two encodings of one spelling are one name."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def name_problem(name: str) -> str | None:
    """Return the reason why a text is no name, or None. Letters of all scripts, signs and inner blanks are allowed."""
    if not 1 <= len(name) <= MAX_NAME:
        return f"has {len(name)} characters; use 1 to {MAX_NAME}"
    if not name.isprintable():
        at = next(sign for sign in name if not sign.isprintable())
        return f"contains {_escape(at)}, which is not printable"
    if name.strip() != name:
        return "begins or ends with a blank"
    if name in (".", ".."):
        return "names a folder"
    return "is blank" if set(name) <= _BLANK_LETTERS | {" "} else None


def is_sensor_name(name: str) -> bool:
    """Return True if a sensor may be learnt under this name: it is never forgotten, and shown in many places."""
    return 1 <= len(name) <= MAX_NAME and escape_unprintable(name) == name


def _is_safe(sign: str) -> bool:
    return sign.isprintable() or unicodedata.category(sign) == "Zs"  # blanks, as the one between a number and its unit


def _escape(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def _escape_utf16(sign: str) -> str:
    code = ord(sign)
    if code > 0xFFFF:
        return f"\\u{0xD800 + (code - 0x10000 >> 10):04x}\\u{0xDC00 + (code - 0x10000 & 0x3FF):04x}"
    return f"\\u{code:04x}"
