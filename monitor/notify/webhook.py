"""A webhook: a POST of the notification's JSON, or of the text that a template makes of it.

Input: a key and a JSON body. Output: None when it arrived, else a `Failure`. Invariant: the key is sent as
`Idempotency-Key`, so a receiver that has seen it can ignore the request. With `secret` each request is signed as in
Standard Webhooks: `webhook-signature: v1,BASE64` is HMAC-SHA256 of `webhook-id.webhook-timestamp.body`.
"""

from __future__ import annotations

import base64
import hmac
import time
from typing import TYPE_CHECKING

from monitor.notify.http_receiver import HttpReceiver
from monitor.notify.rendering import rendered
from monitor.timing import DEFAULT_TIMING

if TYPE_CHECKING:
    from monitor.config import NotifyConfig
    from monitor.timing import Timing


class Webhook(HttpReceiver):
    """The receiver of one channel of kind `webhook`."""

    def __init__(self, config: NotifyConfig, timing: Timing = DEFAULT_TIMING) -> None:
        super().__init__(config, timing)
        self._secret = config.secret_bytes

    def content(self, body: bytes) -> bytes:
        """Return the notification's JSON, or the output of the template."""
        return body if self._template is None else rendered(self._template, body, self._zone).encode()

    def headers(self, key: str, content: bytes) -> dict[str, str]:
        """Return the key, and the signature where there is a secret."""
        signature = {} if self._secret is None else signed_headers(self._secret, key, content, int(time.time()))
        return super().headers(key, content) | signature


def signed_headers(secret: bytes, key: str, content: bytes, now_s: int) -> dict[str, str]:
    """Return the headers by which a receiver verifies a request. `now_s`: seconds since 1970."""
    digest = hmac.digest(secret, f"{key}.{now_s}.".encode() + content, "sha256")
    return {
        "webhook-id": key,
        "webhook-timestamp": str(now_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


