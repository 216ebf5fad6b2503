"""The form that sets up runs, and the estimate that is shown before any starts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import gradio as gr

from backend.errors import ParetoscopeError
from backend.limits import Limits
from backend.service import Service
from ui import numbers, safe

BUDGETS = ("2", "3", "4", "6", "8")
MODES = ("Methods", "Recipe")
TIERS = (("Glance", "smoke"), ("Standard", "quick"), ("Thorough", "full"))
_SUBMIT = (
    "(...wish) => { import(new URL('page/static/jobs.js', document.baseURI).href)"
    ".then((jobs) => jobs.submit(...wish)); return []; }"
)


@dataclass(frozen=True)
class Form:
    """Fields that other parts of the page fill."""

    mode: gr.Radio
    recipe: gr.Textbox


def build(service: Service, limits: Limits) -> Form:
    """Lay out the form; it submits over REST, as any program would."""
    keys = [(f"{one['key']} · {one['family']}", one["key"]) for one in service.methods()]
    model = gr.Textbox(
        "default",
        label="Model",
        info="The embedded one only, on this public copy."
        if limits.public
        else "default is the embedded one; or a Hub name, or a folder.",
        interactive=not limits.public,
        max_length=300,
    )
    mode = gr.Radio(list(MODES), value=MODES[0], label="Run", interactive=True)
    chosen = [key for _, key in keys if key == "gptq"] or [keys[0][1]]
    with gr.Group(visible=True) as sweep:
        methods = gr.Dropdown(
            keys, value=chosen, multiselect=True, label="Methods", interactive=True
        )
        budgets = gr.Dropdown(
            list(BUDGETS),
            value=["4"],
            multiselect=True,
            allow_custom_value=True,
            label="Budgets, bits per number",
            info="One job for each method and budget; dense is 16.",
            interactive=True,
        )
    recipe = gr.Textbox(
        label="Recipe",
        placeholder="gptq@4 + kv-int@4",
        info="Stages in order: key, key@bits or key(setting=value).",
        visible=False,
        max_length=2000,
        interactive=True,
    )
    with gr.Row():
        tier = gr.Dropdown(
            list(TIERS), value="quick", label="Measure", interactive=True, min_width=120
        )
        speed = gr.Checkbox(True, label="Time it too", interactive=True, min_width=120)
    told = gr.Textbox(
        value="", label="Estimate", lines=2, interactive=False, elem_classes="ps-estimate"
    )
    button = gr.Button("Compress", variant="primary")

    def show(mode: str) -> tuple[Any, Any]:
        sweeping = mode == MODES[0]
        return gr.Group(visible=sweeping), gr.Textbox(visible=not sweeping)

    def estimate(*wish: Any) -> tuple[str, Any]:
        text, label = tell(service, *wish)
        return text, gr.Button(label)

    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    mode.change(show, mode, [sweep, recipe], **quiet)
    wish = [model, mode, methods, budgets, recipe]
    gr.on(
        [field.change for field in wish] + [gr.context.Context.root_block.load],
        estimate,
        wish,
        [told, button],
        trigger_mode="always_last",
        api_name="form",
        **quiet,
    )
    button.click(None, [*wish, tier, speed], [], js=_SUBMIT, api_visibility="private")
    return Form(mode, recipe)


def tell(service: Service, *wish: Any) -> tuple[str, str]:
    """What the jobs of a form will take, in a sentence, and the text of its button.

    Args:
        service: whom to ask.
        wish: model, mode, methods, budgets and recipe, as the form has them.
    """
    model, mode, methods, budgets, recipe = wish
    if mode == MODES[0]:
        wanted = [f"{key}@{bits}" for key, bits in product(methods or [], budgets or [])]
        if methods and not budgets:
            return "Choose at least one budget.", "Compress"
    else:
        wanted = [recipe.strip()] if (recipe or "").strip() else []
    if not wanted:
        return "Choose at least one method." if mode == MODES[0] else "Write a recipe.", "Compress"
    found, refused = [], []
    for one in wanted:
        try:
            found.append(service.estimate(one, model or "default"))
        except ParetoscopeError as error:
            refused.append(safe.plain(error, 400))
    if not found:
        return refused[0], "Compress"
    return _sum(found, refused), _label(len(found), found)


def _sum(found: list[Any], refused: list[str]) -> str:
    known = [one for one in found if one is not None]
    if not known:
        return "Its files are not here yet: size and time are known once they are fetched."
    sizes = sorted(one.resident_bytes for one in known)
    ends = [numbers.quantity(size, "B") for size in dict.fromkeys((sizes[0], sizes[-1]))]
    peak = numbers.quantity(max(one.peak_bytes for one in known), "B")
    dense = numbers.quantity(known[0].dense_bytes, "B")
    text = f"Weights {' to '.join(ends)} of {dense} dense; up to {peak} while it works."
    return " ".join([text, f"Time from {known[0].basis}.", *refused[:2]])


def _label(jobs: int, found: list[Any]) -> str:
    known = [one.seconds for one in found if one is not None]
    count = "" if jobs == 1 else f" {jobs} variants"
    return f"Compress{count} (≈ {numbers.duration(sum(known))})" if known else f"Compress{count}"
