"""Style sheet, script and pictures, under addresses with the hash of their content.

Input: the files in `static/`. Output: responses that browsers keep for a year. Invariant: a changed file has another
address, so no browser shows an old one.
"""

from __future__ import annotations

import hashlib
import mimetypes
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

PREFIX = "/static"
KEPT = "public, max-age=31536000, immutable"

router = APIRouter(include_in_schema=False)


class _File(NamedTuple):
    body: bytes
    kind: str
    hash: str


class StaticFiles:
    """The files, in memory: they are few and small."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        for path in files("monitor.console").joinpath("static").iterdir():
            if path.is_file() and not path.name.startswith((".", "_")):
                body = path.read_bytes()
                kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
                is_text = kind.startswith("text/") or kind.endswith("javascript")
                digest = hashlib.sha256(body).hexdigest()[:16]
                self._files[path.name] = _File(body, f"{kind}; charset=utf-8" if is_text else kind, digest)

    def url(self, name: str) -> str:
        """Return the address of a file. Raises KeyError."""
        return f"{PREFIX}/{self._files[name].hash}/{name}"

    def answer(self, digest: str, name: str) -> Response:
        """Return a file. An address of another version answers with this one, which is then not kept."""
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404)
        is_current = digest == file.hash
        headers = {"Cache-Control": KEPT if is_current else "no-cache", "ETag": f'"{file.hash}"'}
        return Response(file.body, headers=headers, media_type=file.kind)


@router.get(PREFIX + "/{digest}/{name}")
async def static_file(request: Request, digest: str, name: str) -> Response:
    """Answer with a file of `static/`."""
    found: Response = request.app.state.console.static.answer(digest, name)
    return found
