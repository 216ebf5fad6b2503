// Which of two texts did the compressed model write? Votes are kept and shown beside the divergence.

import { failure, get, make, post, replace, sign } from "./dom.js";
import { change, view } from "./view.js";

const self = { run: "", score: [0, 0] };

export function blind(place, found) {
  const runs = found.panes.filter((one) => one.recipe !== "dense");
  if (!self.place || !place.contains(self.place)) {
    self.place = make("div", { class: "ps-blind" });
    self.tally = make("div", {});
    replace(place, self.place, self.tally);
    self.run = "";
  }
  tally();
  if (!runs.length) {
    replace(self.place, make("p", { class: "ps-empty", text: "Choose a variant whose texts you want to tell from the dense model's." }));
    self.run = "";
  } else if (self.run !== runs[0].run_id) {
    Object.assign(self, { run: runs[0].run_id, score: [0, 0] });
    next();
  }
}

async function next() {
  const run = self.run;
  try {
    const asked = await post(`api/v1/runs/${encodeURIComponent(run)}/blind`);
    if (run === self.run) show(asked);
  } catch (error) {
    replace(self.place, make("p", { class: "ps-empty", text: error.message }));
  }
}

function show(asked) {
  const answer = (choice, text) => make("button", { class: "ps-button", type: "button", "data-choice": choice, text, onclick: () => vote(asked, choice) });
  const side = (name, text) => make("article", { class: "ps-pane", "data-side": name }, make("h3", { text: name === "left" ? "Left" : "Right" }), make("p", { class: "ps-text", text }));
  replace(self.place,
    make("p", { class: "ps-prompt" }, make("span", { class: "ps-quiet", text: "Prompt " }), asked.prompt),
    make("div", { class: "ps-panes" }, side("left", asked.left), side("right", asked.right)),
    make("div", { class: "ps-verdict", role: "group", "aria-label": "Which one is compressed?" },
      make("strong", { text: "Which one is compressed?" }),
      answer("left", "Left"), answer("right", "Right"), answer("unsure", "Cannot tell"),
      make("span", { class: "ps-quiet", text: `${asked.remaining} more after this one` })));
}

async function vote(asked, choice) {
  const group = self.place.querySelector(".ps-verdict");
  try {
    const verdict = await post(`api/v1/blind/${encodeURIComponent(asked.question_id)}`, { choice });
    if (verdict.answer !== "unsure") self.score[1] += 1;
    if (verdict.answer === "right") self.score[0] += 1;
    for (const one of self.place.querySelectorAll("[data-side]")) {
      const compressed = one.dataset.side === verdict.compressed;
      one.querySelector("h3").textContent += compressed ? ` · ${verdict.recipe}` : " · dense";
      one.classList.toggle("ps-was", compressed);
    }
    const told = { right: "Right.", wrong: "No: it was the other one.", unsure: "Not told." }[verdict.answer];
    replace(group, make("strong", { role: "status", text: told }),
      make("button", { class: "ps-button ps-primary", type: "button", text: "Next", "data-next": true, onclick: next }),
      make("span", { class: "ps-quiet", text: `${self.score[0]} of ${self.score[1]} told so far; by chance half.` }));
    group.querySelector("button").focus();
    tally();
  } catch (error) {
    replace(group, failure(error), make("button", { class: "ps-button", type: "button", text: "Next", onclick: next }));
  }
}

async function tally() {
  let rows;
  try {
    rows = await get("page/votes");
  } catch (error) {
    replace(self.tally, failure(error));
    return;
  }
  replace(self.tally, rows.length > 0 && make("section", { class: "ps-tally" },
    make("h3", { text: "Told from the dense model, beside the divergence" }),
    make("div", { class: "ps-scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ...["Recipe", "KL divergence", "Told", "95 % interval", "Votes"].map((text) => make("th", { scope: "col", text })))),
      make("tbody", {}, ...rows.map((one) => make("tr", {},
        make("td", {}, sign(one.family), make("button", { class: "ps-textual", type: "button", text: one.recipe, onclick: () => change({ run: one.run_id, tab: "" }) })),
        make("td", { text: one.kld }),
        make("td", {}, one.share, bar(one)),
        make("td", { text: one.interval || "–" }),
        make("td", { text: one.votes })))))),
    make("p", { class: "ps-quiet", text: `The mark is chance, 50 %.${view().compare.length > 1 ? " The first variant is judged." : ""}` })));
}

function bar(one) {
  if (one.low === null) return "";
  return make("span", { class: "ps-span", "aria-hidden": "true" },
    make("i", { style: { left: `${one.low}%`, width: `${one.high - one.low}%` } }), make("b", { style: { left: `${one.value}%` } }));
}
