"""One HTML file that tells a view from disk, with no server and no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backend.service import Service
from ui import cards, safe

STATIC = Path(__file__).parent / "static"
TOLD = 24  # runs of the frontier that are told whole
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Paretoscope report</title>
<style>:root{{--text:#1e293b;--quiet:#475569;--line:#e2e8f0;--ground:#fff;--mark:#fde68a}}
@media (prefers-color-scheme:dark){{:root{{--text:#e2e8f0;--quiet:#a3b1c6;--line:#2a3450;
--ground:#0b1020;--mark:#854d0e}}}}
body{{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;
color:var(--text);background:var(--ground)}}#plot{{height:520px}}.scroll{{overflow-x:auto}}
table{{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}}
td,th{{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line)}}
td:first-child,th:first-child{{text-align:left}}p,th{{color:var(--quiet)}}th{{font-weight:400}}
details{{border-top:1px solid var(--line);padding:.5rem 0}}summary{{cursor:pointer}}
.two{{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:1rem}}
.two p{{color:var(--text);white-space:pre-wrap;margin:.2rem 0}}h3{{font-size:13px;margin:.6rem 0 0}}
mark{{background:var(--mark);color:inherit}}code{{overflow-wrap:anywhere}}</style></head>
<body><h1>Paretoscope</h1><p>{summary} {origin}</p>
<div id="plot" role="figure" aria-label="Pareto chart; the table below holds the same runs"></div>
<p>{sense}</p><h2>Runs</h2>
<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
<h2>The frontier</h2>{front}
<script>{plotly}</script><script>
const figure = {figure};
const style = getComputedStyle(document.documentElement);
const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
for (const trace of figure.data) {{
  if (trace.meta && trace.meta.role === "frontier") trace.line.color = "#6366f1";
  else if (trace.marker) {{
    trace.marker.line.color = text;
    if (trace.meta && trace.meta.family === "dense") trace.marker.color = text;
  }}
  if (trace.textfont) trace.textfont.color = text;
}}
for (const side of ["xaxis", "yaxis"]) {{
  Object.assign(figure.layout[side], {{gridcolor: line, linecolor: line, tickcolor: line}});
}}
Object.assign(figure.layout, {{paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: {{color: text}}}});
Plotly.newPlot("plot", figure.data, figure.layout,
  {{responsive: true, displaylogo: false, modeBarButtonsToRemove: ["sendChartToCloud"],
    plotlyServerURL: ""}});
</script></body></html>"""


def front(service: Service, view: dict[str, Any], x: str, y: str) -> list[dict[str, Any]]:
    """Cards of the runs on the frontier of a view."""
    rows = [one for one in view["table"]["rows"] if one["standing"] == "frontier"]
    return [cards.card(service, one["run_id"], x, y) for one in rows[:TOLD]]


def document(view: dict[str, Any], told: list[dict[str, Any]]) -> str:
    """The report of a view.

    Args:
        view: as `views.figure` describes it.
        told: cards of the runs that are told whole.
    """
    several = view["table"]["models"]
    titles = [one["title"] for one in view["table"]["columns"]]
    rows = (
        [row["recipe"], *([row["model"]] if several else []), row["family"],
         row["standing"] or "–", *row["cells"]]
        for row in view["table"]["rows"]
    )  # fmt: skip
    return _PAGE.format(
        summary=safe.markup(view["summary"]),
        origin=safe.markup(view["origin"]),
        sense=safe.markup(view["sense"]),
        head="".join(f"<th>{safe.markup(name)}</th>" for name in titles),
        body="".join(map(_row, rows)),
        front="".join(map(_run, told)) or "<p>No run stands on it.</p>",
        plotly=(STATIC / "vendor" / "plotly-basic.min.js").read_text(encoding="utf-8"),
        figure=json.dumps(view["figure"]).replace("<", "\\u003c"),
    )


def _row(values: list[str]) -> str:
    return "<tr>" + "".join(f"<td>{safe.markup(value)}</td>" for value in values) + "</tr>"


def _run(card: dict[str, Any]) -> str:
    """One run: its numbers, its bytes, what it writes beside the dense model, how it is made."""
    numbers = "".join(
        _row([one["title"], one["text"], one["interval"] or "–", one["kind"]])
        for one in card["headlines"]
    )
    parts = ", ".join(f"{one['part']} {one['text']}" for one in card["bytes"])
    written = card["writing"]
    texts = "" if not written else (
        f"<p>{safe.markup(written['prompt'])}</p><div class='two'>"
        f"<div><h3>dense</h3><p>{_spans(written['dense'])}</p></div>"
        f"<div><h3>{safe.markup(card['recipe'])}</h3><p>{_spans(written['spans'])}</p></div></div>"
        f"<p>{safe.markup(written['remark'])}</p>"
    )  # fmt: skip
    return (
        f"<details><summary>{safe.markup(card['recipe'])}</summary>"
        f"<div class='scroll'><table><tbody>{numbers}</tbody></table></div>"
        f"<p>{safe.markup(parts)}</p>{texts}"
        f"<p><code>{safe.markup(card['command'])}</code></p>"
        f"<p>Run {safe.markup(card['run_id'])} · {safe.markup(card['hardware'])} · "
        f"{safe.markup(card['created'])} · protocol {safe.markup(card['protocol'])}</p></details>"
    )


def _spans(spans: list[dict[str, Any]]) -> str:
    found = []
    for one in spans:
        text = safe.markup(one["text"])
        found.append(f"<mark>{text}</mark>" if one["kind"] == "first" and text.strip() else text)
    return "".join(found)
