"""Signed values: sessions, CSRF tokens and messages, which a browser keeps and cannot change.

Input: a purpose and a document. Output: text for a cookie or a form. Invariant: the key is random and never leaves the
process, so a reader of the database can forge nothing. After a restart of the console browsers log in again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from typing import Any


class Signer:
    """Signs and verifies with a key of this process."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    def mac(self, purpose: str, *parts: str) -> str:
        """Return the code of these parts for one purpose."""
        message = json.dumps([purpose, *parts]).encode()
        return _encode(hmac.digest(self._key, message, hashlib.sha256))

    def is_mac(self, code: str, purpose: str, *parts: str) -> bool:
        """Compare a code in constant time."""
        return hmac.compare_digest(code.encode(), self.mac(purpose, *parts).encode())

    def seal(self, purpose: str, document: dict[str, Any]) -> str:
        """Return a document as signed text."""
        body = _encode(json.dumps(document).encode())
        return f"{body}.{self.mac(purpose, body)}"

    def open(self, purpose: str, text: str) -> dict[str, Any] | None:
        """Return the document of signed text. None = it was not signed here."""
        body, _, code = text.partition(".")
        if not self.is_mac(code, purpose, body):
            return None
        try:
            document = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, binascii.Error):
            return None
        return document if isinstance(document, dict) else None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
