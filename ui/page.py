"""The page as Gradio blocks, and the arguments it is launched with."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import gradio as gr
import httpx
from starlette.middleware import Middleware

from backend import rest
from backend.limits import AT_HOME, Limits
from backend.service import Service
from ui import components, programs, routes, theme
from ui.asker import Asker
from ui.guard import Guard

TITLE = "Paretoscope"
CALLS = 32  # of other programs that may wait at a time
_HEAD = (
    '<meta name="description" content="What compressing a language model really costs">'
    '<script src="page/static/vendor/plotly-basic.min.js?4.1.1" defer></script>'
    '<link rel="modulepreload" href="page/static/page.js">'
)


def build(service: Service, limits: Limits = AT_HOME) -> gr.Blocks:
    """The page over a service; nothing on it holds state in the server."""
    with gr.Blocks(title=TITLE, fill_width=True, analytics_enabled=False) as page:
        components.Header()
        with gr.Row(equal_height=False):
            with gr.Column(scale=0, min_width=320, elem_classes="ps-setup"):
                components.Setup()
                components.JobList()
            with gr.Column(scale=1, min_width=320, elem_classes="ps-main"), gr.Tabs():
                with gr.Tab("Explore"):
                    components.Answer()
                    components.ParetoPlot()
                    components.RunCard()
                    components.RunTable()
                with gr.Tab("Compare"):
                    components.Comparison()
                with gr.Tab("Methods"):
                    components.MethodList()
        programs.offer(service, limits)
    return page.queue(max_size=CALLS)


def launching(service: Service, limits: Limits = AT_HOME, *, lent: bool = False) -> dict[str, Any]:
    """Arguments of `Blocks.launch` that make the page, REST and the guard one server.

    With `lent` jobs use the visitor's time on a GPU, so each request is told to who lends it.
    """
    app = rest.serving(service, limits)
    app["routes"] = [*routes.page_routes(service, limits), *app["routes"]]
    app["middleware"] = [Middleware(Guard), *([Middleware(Asker)] if lent else [])]
    return {
        "app_kwargs": app,
        "theme": theme.theme(),
        "css_paths": [theme.STYLE],
        "head": _HEAD,
        "ssr_mode": False,
        "mcp_server": programs.speaks_mcp(),
        "run_history": False,
        "footer_links": [],
        "quiet": True,
        "show_error": False,
        "allowed_paths": [],
        "max_threads": 16,
        "state_session_capacity": 200,
    }


def warm(address: str) -> None:
    """Ask for the first screen once, so that no visitor need wait for what that loads."""
    # A chart in the making holds up every other request for as long as its thread may go on.
    sys.setswitchinterval(0.0001)
    wish = {"recipes": ["rtn"], "budgets": ["4 bits"]}
    with suppress(httpx.HTTPError), httpx.Client(base_url=address, trust_env=False) as client:
        for path in ("start", "setup", "figure", "figure?judged=true"):
            client.get(f"page/{path}", timeout=60)
        client.post("page/ahead", json=wish, timeout=60)
