"""The page's own files, read and compressed once: sixteen of them make a page."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

KEPT_FOR_GOOD = "max-age=31536000, immutable"  # the library, whose address carries its version


@dataclass(frozen=True)
class Asset:
    """A file as it is sent."""

    body: bytes
    packed: bytes
    kind: str
    tag: str


class Assets:
    """Files below a folder, as they were when the program began to serve them."""

    def __init__(self, folder: Path) -> None:
        self._paths = {
            path.relative_to(folder).as_posix(): path
            for path in folder.rglob("*")
            if path.is_file()
        }
        self._asset = cache(self._read)

    def route(self, prefix: str) -> Route:
        """A route that answers for every file below the prefix."""
        return Route(prefix + "/{name:path}", self.serve, name="page-static")

    async def serve(self, request: Request) -> Response:
        """A file; 304 where the asker has it."""
        name = request.path_params["name"]
        if name not in self._paths:
            return PlainTextResponse("Not Found", 404)
        asset = self._asset(name)
        vendored = name.startswith("vendor/")
        headers = {
            "ETag": asset.tag,
            "Cache-Control": KEPT_FOR_GOOD if vendored else "no-cache",
            "Vary": "Accept-Encoding",
        }
        if request.headers.get("if-none-match") == asset.tag:
            return Response(status_code=304, headers=headers)
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(asset.body, media_type=asset.kind, headers=headers)
        headers["Content-Encoding"] = "gzip"
        return Response(asset.packed, media_type=asset.kind, headers=headers)

    def _read(self, name: str) -> Asset:
        body = self._paths[name].read_bytes()
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        return Asset(body, gzip.compress(body, mtime=0), kind, tag)
