"""Tells who lends GPUs who asks: each request stands where Gradio keeps those of its events."""

from __future__ import annotations

import gradio as gr
from gradio.context import LocalContext
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send


class Asker:
    """Keeps each request in its own context, which the functions that answer it run in."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the request at hand."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kept = LocalContext.request.set(gr.Request(request=Request(scope)))
        try:
            await self._app(scope, receive, send)
        finally:
            LocalContext.request.reset(kept)
