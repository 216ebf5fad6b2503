"""Components of the page: an element each, filled by a module of `ui/static` with plain text."""

from __future__ import annotations

from typing import Any

import gradio as gr

# The templates are constant. A value inside a template would be run as code by the browser.
_TEMPLATE = '<div class="ps" data-panel="{name}"></div>'
_LOAD = (
    "import(new URL('page/static/page.js', document.baseURI).href)"
    ".then((page) => page.mount('{name}', element, trigger));"
)


class Panel(gr.HTML):
    """An element that a module of the page fills; `panel` names the module's function."""

    panel = ""
    tells: tuple[str, ...] = ()

    def __init__(self, **settings: Any) -> None:
        load = _LOAD.format(name=self.panel)
        if self.tells:  # Gradio looks for the quoted names of events here
            load = f"const events = {list(self.tells)!r}; {load}"
        super().__init__(
            html_template=_TEMPLATE.format(name=self.panel),
            js_on_load=load,
            apply_default_css=False,
            elem_id=f"panel-{self.panel}",
            **settings,
        )

    def get_block_name(self) -> str:
        """Name of the component that the browser draws."""
        return "html"


class ParetoPlot(Panel):
    """The Pareto chart; `pick` tells Python which run was clicked."""

    panel = "plot"
    tells = ("pick",)


class Answer(Panel):
    """A budget in a sentence, and what answers it."""

    panel = "answer"


class RunTable(Panel):
    """The runs of the chart in rows."""

    panel = "table"


class RunCard(Panel):
    """The selected run."""

    panel = "card"


class Header(Panel):
    """Name, promise and the link to this view."""

    panel = "header"


class Setup(Panel):
    """The form that sets up runs."""

    panel = "setup"


class JobList(Panel):
    """Jobs as they stand."""

    panel = "jobs"


class Comparison(Panel):
    """Texts of several runs side by side."""

    panel = "compare"


class MethodList(Panel):
    """Every method and what was measured of it."""

    panel = "methods"
