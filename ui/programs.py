"""What other programs may call through Gradio's own client; the same as REST offers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from backend.errors import ParetoscopeError
from backend.rest import records
from backend.service import Filter, Service


def offer(service: Service) -> None:
    """Add the endpoints `methods`, `estimate`, `frontier` and `run` to the page being built."""

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

    for each in (methods, estimate, frontier, run):
        gr.api(each, api_name=each.__name__, queue=False)


def _ask(question: Any, *words: Any) -> Any:
    try:
        return question(*words)
    except ParetoscopeError as error:
        raise gr.Error(str(error), print_exception=False) from None
