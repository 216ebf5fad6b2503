"""What stands before every request: bounds on bodies, doors that stay shut, safe headers."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.limits import AT_HOME
from backend.rest import PREFIX

BODY_LIMIT = 64 * 2**10
LARGE = {f"{PREFIX}/import": AT_HOME.results}  # bytes, by path; other copies refuse it themselves
SHUT = ("/gradio_api/upload", "/gradio_api/proxy=", "/proxy=", "/upload", "/gradio_api/file=http")
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "frame-ancestors 'self' https://huggingface.co; base-uri 'self'; form-action 'self'; "
    "object-src 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
}


class TooLargeError(Exception):
    """A body went past the limit while it was read."""


class Guard:
    """Refuses proxying, large bodies and files for anything but results; adds headers."""

    def __init__(self, app: ASGIApp, limit: int = BODY_LIMIT) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, _with_headers(send))
            return
        limit, taken, begun = self._limit_of(scope), 0, False

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise TooLargeError
            return message

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, bounded, _with_headers(watched))
        except TooLargeError:
            if not begun:
                await _too_large(limit)(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        if scope["path"].startswith(SHUT):
            return JSONResponse({"error": "Nothing is taken in this way."}, 403)
        declared = Headers(scope=scope).get("content-length", "0")
        limit = self._limit_of(scope)
        return _too_large(limit) if not declared.isdigit() or int(declared) > limit else None

    def _limit_of(self, scope: Scope) -> int:
        return LARGE.get(scope["path"], self._limit)


def _too_large(limit: int) -> JSONResponse:
    told = f"{limit // 2**10} KiB" if limit < 2**20 else f"{limit // 2**20} MiB"
    return JSONResponse({"error": f"A request here takes at most {told}."}, 413)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return sending
