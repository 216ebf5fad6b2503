// Every method: its idea, its paper's claim beside what was measured here, settings and limits.

import { failure, get, loading, make, replace, sign } from "./dom.js";
import { change } from "./view.js";

export async function methods(place) {
  replace(place, loading());
  const show = async () => {
    try {
      const all = await get("page/methods");
      const families = [...new Set(all.map((one) => one.family.name))];
      replace(place, ...families.map((name) => make("section", { class: "ps-family" },
        make("h2", {}, sign(all.find((one) => one.family.name === name).family), name),
        make("div", { class: "ps-methods" }, ...all.filter((one) => one.family.name === name).map(method)))));
    } catch (error) {
      replace(place, failure(error));
    }
  };
  window.addEventListener("paretoscope-runs", show);
  await show();
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
    one.measured.length
      ? make("div", { class: "ps-scroll" }, make("table", {}, make("tbody", {}, ...one.measured.map((run) => make("tr", {},
        make("td", {}, make("button", { class: "ps-textual", type: "button", text: run.recipe, onclick: () => change({ run: run.run_id, tab: "" }) })),
        ...[run.size, run.kld, run.agree].map((text) => make("td", { text })))))))
      : make("p", { class: "ps-quiet", text: "Not yet." }));
}

function pair(name, value) {
  return value ? [make("dt", { text: name }), make("dd", {}, value)] : [];
}
