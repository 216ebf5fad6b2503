// The runs of the chart as a table, for reading, sorting out and screen readers.

import { address, failure, get, make, replace } from "./dom.js";
import { chooser } from "./import.js";
import { question } from "./plot.js";
import { change, pick, view, watch } from "./view.js";

const CLASSES = { standing: "ps-standing", family: "ps-kin" }; // the latter is left out on a phone
const self = { shown: null };

export function table(place, begun) {
  const [choose, told] = chooser(begun);
  self.choose = choose;
  self.links = make("p", { class: "ps-quiet" });
  self.body = make("details", { class: "ps-table", hidden: true, open: Boolean(view().order) });
  replace(place, self.links, told, self.body);
  window.addEventListener("paretoscope-figure", ({ detail }) => { self.shown = detail; refresh(); });
  watch((now, before) => {
    if (now.order === before.order) return;
    if (now.order) self.body.open = true; // a short link tells its view only after a moment
    refresh();
  });
}

// The server sorts, for it knows all runs where the page has but the first of them.
async function refresh() {
  if (!self.shown) return;
  const { table: usual, judged } = self.shown;
  const { order } = view();
  const asked = `page/table?${question()}&judged=${judged}&order=${encodeURIComponent(order)}`;
  self.asked = asked;
  try {
    const found = order ? await get(asked) : usual;
    if (asked === self.asked) show(found);
  } catch (error) {
    if (asked === self.asked) { show(usual); self.links.prepend(failure(error)); }
  }
}

function show({ columns, rows, count, models }) {
  const { links, body } = self;
  const { order } = view();
  const stops = () => [...body.querySelectorAll("summary, button")];
  const focused = stops().indexOf(document.activeElement);
  const along = body.querySelector(".ps-scroll")?.scrollLeft || 0;
  body.hidden = !rows.length;
  replace(links, "Solid: surely on the front. Half: perhaps. Faint: surely beaten. Hollow: estimated. Crosses: failed or broken. Shade: beyond a bound. ",
    make("a", { href: address(`page/report?${question()}&order=${encodeURIComponent(order)}`), download: "paretoscope.html", text: "Download report" }), " · ",
    make("a", { href: address("api/v1/export"), text: "Export all results" }), " · ", self.choose,
    make("a", { href: address("docs"), text: "REST" }));
  const told = JSON.stringify([columns, rows, count, order]);
  if (told === self.told) return; // whoever reads or presses something is not disturbed
  self.told = told;
  const scroll = make("div", { class: "ps-scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...columns.map((one) => heading(one, order)))),
    make("tbody", {}, ...rows.map((one) => row(one, models)))));
  replace(body, make("summary", { text: count > rows.length ? `The first ${rows.length} of ${count} runs as a table` : count === 1 ? "The run as a table" : `All ${count} runs as a table` }), scroll);
  scroll.scrollLeft = self.order === order ? along : 0;
  self.order = order;
  inSight(scroll, scroll.querySelector("[aria-sort]"));
  if (focused >= 0) stops()[focused]?.focus();
}

// What a narrow screen sorts by stands beside the recipe, which stays where it is.
function inSight(scroll, sorted) {
  const kept = scroll.querySelector("th")?.offsetWidth;
  if (sorted && sorted.offsetLeft + sorted.offsetWidth > scroll.clientWidth + scroll.scrollLeft) scroll.scrollLeft = sorted.offsetLeft - kept;
}

// One press sorts, the best first where there is a best; a second turns it, a third takes it back.
function heading({ name, title, first, help }, order) {
  const turned = first.startsWith("-") ? name : `-${name}`;
  const next = order === first ? turned : order === turned ? "" : first;
  const sorted = [first, turned].includes(order) && (order.startsWith("-") ? "descending" : "ascending");
  return make("th", { scope: "col", class: CLASSES[name], "aria-sort": sorted },
    make("button", { class: "ps-sort", type: "button", "data-sort": name, title: help, text: title, onclick: () => change({ order: next }) }));
}

function row(one, models) {
  const recipe = one.run_id
    ? make("button", { class: "ps-textual", type: "button", text: one.recipe, onclick: () => pick(one.run_id) })
    : one.recipe;
  return make("tr", { class: one.standing ? `ps-${one.standing}` : "" },
    make("td", {}, recipe),
    models && make("td", { text: one.model }),
    make("td", { class: CLASSES.family, text: one.family }),
    make("td", { class: CLASSES.standing, text: one.standing || "–" }),
    ...(one.reason ? [make("td", { class: "ps-reason", colspan: String(one.cells.length), text: one.reason })] : one.cells.map((text) => make("td", { text }))));
}
