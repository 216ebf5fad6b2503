// Every method: its idea, its paper's claim beside what was measured here, settings and limits.

import { failure, get, loading, make, replace, sign } from "./dom.js";
import { change } from "./view.js";

const SVG = "http://www.w3.org/2000/svg";

export async function methods(place) {
  replace(place, loading());
  const find = make("input", { type: "search", placeholder: "Find a method", "aria-label": "Find a method", oninput: () => sift(place, find.value.trim().toLowerCase()) });
  const show = async () => {
    try {
      const all = await get("page/methods");
      const families = [...new Set(all.map((one) => one.family.name))];
      replace(place, make("div", { class: "ps-find" }, find, make("span", { class: "ps-quiet", text: `${all.length} methods of ${families.length} families; the line of each small chart is the frontier of all.` })), ...families.map((name) => make("section", { class: "ps-family" },
        make("h2", {}, sign(all.find((one) => one.family.name === name).family), name),
        make("div", { class: "ps-methods" }, ...all.filter((one) => one.family.name === name).map(method)))));
    } catch (error) {
      replace(place, failure(error));
    }
  };
  window.addEventListener("paretoscope-runs", show);
  await show();
}

function sift(place, wanted) {
  for (const one of place.querySelectorAll(".ps-method")) one.hidden = !one.textContent.toLowerCase().includes(wanted);
  for (const one of place.querySelectorAll(".ps-family")) one.hidden = !one.querySelector(".ps-method:not([hidden])");
}

function draw(tag, about) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(about)) element.setAttribute(name, String(value));
  return element;
}

// Size to the right, divergence up, both logarithmic: this method beside the frontier of all.
function small(one) {
  if (!one.chart) return false;
  const { front, spots } = one.chart;
  const picture = draw("svg", { viewBox: "0 0 300 100", class: "ps-small-chart", role: "img", "aria-label": `${one.key}: ${spots.length} runs, size against divergence, beside the frontier of all methods` });
  const path = front.map(([x, y], at) => (at ? `H${3 * x}V${y}` : `M${3 * x} ${y}`)).join("");
  picture.append(draw("path", { d: path, class: "ps-front" }));
  for (const spot of spots) {
    const dot = draw("circle", { cx: 3 * spot.x, cy: spot.y, r: 3, fill: one.family.colour });
    const title = draw("title", {});
    title.textContent = spot.recipe;
    dot.append(title);
    dot.addEventListener("click", () => change({ run: spot.run_id, tab: "" }));
    picture.append(dot);
  }
  return picture;
}

function method(one) {
  const paper = /^arXiv (\d{4}\.\d{4,5})$/.exec(one.paper);
  return make("article", { class: "ps-method", id: `method-${one.key}` },
    make("h3", { text: one.key }),
    make("p", { text: one.summary }),
    one.text && make("p", { class: "ps-quiet", text: one.text }),
    make("dl", {},
      ...pair("Paper", paper ? make("a", { href: `https://arxiv.org/abs/${paper[1]}`, rel: "noreferrer noopener", target: "_blank", text: one.paper }) : one.paper),
      ...pair("It claims", one.claim),
      ...pair("Limits", one.limits),
      ...pair("Settings", one.settings.length && make("ul", {}, ...one.settings.map((each) => make("li", {}, make("code", { text: each.name }), ` ${each.default}${each.reach ? ` (${each.reach})` : ""}: ${each.help}`))))),
    make("h4", { text: "Measured here" }),
    small(one),
    one.measured.length
      ? make("div", { class: "ps-scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...["Recipe", "Size", "KLD, nats", "Same first"].map((text) => make("th", { scope: "col", text })))), make("tbody", {}, ...one.measured.map((run) => make("tr", {},
        make("td", {}, make("button", { class: "ps-textual", type: "button", text: run.recipe, onclick: () => change({ run: run.run_id, tab: "" }) }), run.model && make("span", { class: "ps-quiet", text: ` of ${run.model}` })),
        ...[run.size, run.kld, run.agree].map((text) => make("td", { text })))))))
      : make("p", { class: "ps-quiet", text: "Not yet." }));
}

function pair(name, value) {
  return value ? [make("dt", { text: name }), make("dd", {}, value)] : [];
}
