"""One HTML file that draws the chart from disk, with no server and no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ui import safe

STATIC = Path(__file__).parent / "static"
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Paretoscope report</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem;
color:#1e293b}}#plot{{height:520px}}table{{border-collapse:collapse;width:100%;font-size:13px;
font-variant-numeric:tabular-nums}}td,th{{text-align:right;padding:.3rem .6rem;
border-bottom:1px solid #e2e8f0}}td:first-child,th:first-child{{text-align:left}}
p{{color:#475569}}</style></head><body><h1>Paretoscope</h1><p>{summary} {origin}</p>
<div id="plot"></div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>
<script>{plotly}</script><script>
const figure = {figure};
for (const trace of figure.data) {{
  if (trace.meta && trace.meta.role === "frontier") trace.line.color = "#4f46e5";
  else if (trace.marker) trace.marker.line.color = "#1e293b";
}}
Plotly.newPlot("plot", figure.data, figure.layout,
  {{responsive: true, displaylogo: false, modeBarButtonsToRemove: ["sendChartToCloud"],
    plotlyServerURL: ""}});
</script></body></html>"""


def document(view: dict[str, Any]) -> str:
    """The report of a view, as `views.figure` describes it."""
    columns = ["Recipe", "Family", "Standing", *view["table"]["columns"]]
    rows = (
        [row["recipe"], row["family"], row["standing"] or "–", *row["cells"]]
        for row in view["table"]["rows"]
    )
    return _PAGE.format(
        summary=safe.markup(view["summary"]),
        origin=safe.markup(view["origin"]),
        head="".join(f"<th>{safe.markup(name)}</th>" for name in columns),
        body="".join(
            "<tr>" + "".join(f"<td>{safe.markup(value)}</td>" for value in row) + "</tr>"
            for row in rows
        ),
        plotly=(STATIC / "vendor" / "plotly-basic.min.js").read_text(encoding="utf-8"),
        figure=json.dumps(view["figure"]).replace("<", "\\u003c"),
    )
