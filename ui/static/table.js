// The runs of the chart as a table, for reading, sorting out and screen readers.

import { address, make, replace } from "./dom.js";
import { question } from "./plot.js";
import { change } from "./view.js";

export function table(place) {
  const links = make("p", { class: "ps-quiet" });
  const body = make("details", { class: "ps-table", hidden: true });
  replace(place, links, body);
  window.addEventListener("paretoscope-figure", (event) => show(links, body, event.detail));
}

function show(links, body, shown) {
  const { columns, rows, count, models } = shown.table;
  const open = body.open;
  const stops = () => [...body.querySelectorAll("summary, button")];
  const focused = stops().indexOf(document.activeElement);
  body.hidden = !rows.length;
  replace(links, "Solid: surely on the front. Half: perhaps. Faint: surely beaten. Hollow: estimated. Crosses: failed or broken. Shade: beyond a bound. ",
    make("a", { href: address(`page/report?${question()}`), download: "paretoscope.html", text: "Download report" }), " · ",
    make("a", { href: address("api/v1/export"), text: "Export all results" }), " · ",
    make("a", { href: address("docs"), text: "REST" }));
  replace(body, make("summary", { text: count > rows.length ? `The first ${rows.length} of ${count} runs as a table` : count === 1 ? "The run as a table" : `All ${count} runs as a table` }),
    make("div", { class: "ps-scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ...["Recipe", models && "Model", "Family", "Standing", ...columns].filter(Boolean).map((name) => make("th", { scope: "col", class: name === "Standing" && "ps-standing", text: name })))),
      make("tbody", {}, ...rows.map((one) => row(one, models))))));
  body.open = open;
  if (focused >= 0) stops()[focused]?.focus();
}

function row(one, models) {
  const recipe = one.run_id
    ? make("button", { class: "ps-textual", type: "button", text: one.recipe, onclick: () => change({ run: one.run_id }) })
    : one.recipe;
  return make("tr", { class: one.standing ? `ps-${one.standing}` : "" },
    make("td", {}, recipe),
    models && make("td", { text: one.model }),
    make("td", { text: one.family }),
    make("td", { class: "ps-standing", text: one.standing || "–" }),
    ...(one.reason ? [make("td", { class: "ps-reason", colspan: String(one.cells.length), text: one.reason })] : one.cells.map((text) => make("td", { text }))));
}
