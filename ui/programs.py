"""What other programs may call through Gradio's own client; the same as REST offers.

Where the package `mcp` (1.x) is installed, the same functions are tools for language models.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr

from backend.errors import ParetoscopeError
from backend.limits import ADMISSION, Limits
from backend.rest import records
from backend.service import Filter, Service

PATIENCE = 120.0  # seconds that a caller waits for a text


def speaks_mcp() -> bool:
    """Whether the tools can be offered; Gradio serves none with a later version."""
    try:
        return importlib.metadata.version("mcp").startswith("1.")
    except importlib.metadata.PackageNotFoundError:
        return False


def offer(service: Service, limits: Limits) -> None:
    """Add the endpoints to the page being built."""
    for each in (*_answers(service), *_deeds(service, limits)):
        gr.api(each, api_name=each.__name__, queue=False)


def _answers(service: Service) -> list[Callable[..., Any]]:
    def methods() -> list[dict[str, Any]]:
        """Every compression method: summary, paper, claim, limits, settings."""
        return service.methods()

    def estimate(recipe: str, model: str = "default") -> dict[str, Any]:
        """What compressing a model by a recipe will take: bytes and seconds, estimated."""
        found = _ask(service.estimate, recipe, model)
        return {} if found is None else asdict(found)

    def frontier(
        x: str = "resident_bytes", y: str = "kld_mean", model: str = ""
    ) -> list[dict[str, Any]]:
        """Measured runs with two readings, and which of them none beats in both."""
        return records(_ask(service.frontier, x, y, Filter((model,) if model else ())))

    def run(run_id: str) -> dict[str, Any]:
        """One measured run whole: readings, generations, layers, manifest."""
        return asdict(_ask(service.run, run_id))

    return [methods, estimate, frontier, run]


def _deeds(service: Service, limits: Limits) -> list[Callable[..., Any]]:
    def compress(recipe: str, model: str = "default", tier: str = "quick") -> dict[str, Any]:
        """Queue a compression and its measuring; a finished run is answered at once."""
        with ADMISSION:
            _ask(limits.admit, service, model, 1, "")
            return asdict(_ask(service.submit, recipe, model, tier=tier))

    def job(job_id: str) -> dict[str, Any]:
        """How far a queued compression is: state, stage, done of total, reason."""
        found = _ask(service.job, job_id)
        names = ("job_id", "run_id", "recipe", "state", "stage", "done", "total", "reason")
        return {name: getattr(found, name) for name in names} | {"state": str(found.state)}

    def write(runs: str, prompt: str, new_tokens: int = 96) -> dict[str, str]:
        """What the dense model and up to three runs write after a prompt; ids apart by commas."""
        wanted = [one.strip() for one in runs.split(",") if one.strip()]
        _ask(limits.admit_text, prompt, new_tokens)
        found = _ask(service.comparing.generate, wanted, prompt, new_tokens=new_tokens)
        end = time.monotonic() + PATIENCE
        while not found.ended and time.monotonic() < end:
            time.sleep(0.05)
        if found.state != "done":
            raise gr.Error(found.reason or f"The text is {found.state}.", print_exception=False)
        return {
            pane["recipe"]: "".join(
                event["text"] for event in found.events if "token" in event and event["pane"] == at
            )
            for at, pane in enumerate(found.about["panes"])
        }

    return [compress, job, write]


def _ask(question: Any, *words: Any, **more: Any) -> Any:
    try:
        return question(*words, **more)
    except ParetoscopeError as error:
        raise gr.Error(str(error), print_exception=False) from None
