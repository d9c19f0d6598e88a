"""The dashboard's own files: one page, its modules and styles, a chart library. Read once, served with an ETag.

Nothing is loaded from elsewhere and nothing runs inline; the policy below has the browser hold us to it.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sluice.proxy.translation.json_codec import encode

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
"""Of every answer under `/dashboard`."""


class _Asset(NamedTuple):
    data: bytes
    media_type: str
    etag: str


async def page(request: Request) -> Response:
    """Any page of the dashboard: the same file, whose modules show what its path names."""
    return _serve(request, "index.html")


async def asset(request: Request) -> Response:
    """A module, a style or a picture.

    Raises:
        HTTPException: 404, there is none of this name.
    """
    name: str = request.path_params["name"]
    if name not in _assets():
        raise HTTPException(404)
    return _serve(request, name)


def json_answer(value: object) -> Response:
    """An answer of the API behind the pages."""
    headers = {**HEADERS, "cache-control": "no-store"}
    return Response(encode(msgspec.to_builtins(value)), media_type="application/json", headers=headers)


def _serve(request: Request, name: str) -> Response:
    found = _assets()[name]
    headers = {**HEADERS, "etag": found.etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type=found.media_type, headers=headers)


@cache
def _assets() -> dict[str, _Asset]:
    found: dict[str, _Asset] = {}
    _gather(files(__package__).joinpath("static"), "", found)
    return found


def _gather(folder: Traversable, prefix: str, found: dict[str, _Asset]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _gather(entry, f"{prefix}{entry.name}/", found)
        elif (media_type := _TYPES.get(entry.name.rpartition(".")[2])) is not None:
            data = entry.read_bytes()
            found[prefix + entry.name] = _Asset(data, media_type, f'"{blake2b(data, digest_size=12).hexdigest()}"')
