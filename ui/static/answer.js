// A budget in a sentence: answered from measured runs at once, searched further on request.

import { failure, get, loading, make, post, replace } from "./dom.js";
import { change, pick, view, watch } from "./view.js";

const EXAMPLES = ["900 kB", "4 MB, 512 context x 8, >= 20 tok/s", "kld <= 0.05"];
const self = { timer: 0 };

export function answer(place) {
  self.input = make("input", { id: "ps-budget", maxlength: "200", spellcheck: "false", autocomplete: "off", placeholder: EXAMPLES[1], value: view().budget });
  self.found = make("div", { class: "ps-found", "aria-live": "polite" });
  self.search = make("div", { class: "ps-search", role: "status" });
  const ask = (event) => { event.preventDefault(); if (self.input.value.trim() === view().budget) told(); else change({ budget: self.input.value.trim() }); };
  replace(place, make("section", { class: "ps-answer", "aria-label": "Answer to a budget" },
    make("form", { onsubmit: ask }, make("label", { for: "ps-budget", text: "Fits in" }), self.input, make("button", { class: "ps-button ps-primary", type: "submit", text: "Answer" })),
    self.found, self.search));
  watch((now, before) => {
    const other = ["model", "hardware", "protocol", "family"].some((name) => now[name].join() !== before[name].join());
    if (now.budget !== before.budget || (other && now.budget)) { self.input.value = now.budget; told(); }
  });
  window.addEventListener("paretoscope-runs", () => view().budget && told());
  told();
  poll();
}

const model = () => view().model[0] || "default";

async function told() {
  const { budget, protocol, hardware, family } = view();
  if (!budget) {
    replace(self.found, make("p", { class: "ps-quiet" }, "Bytes, context, quality, speed, joined by commas. Try ", ...EXAMPLES.flatMap((text, at) => [at ? ", " : "", make("button", { class: "ps-textual", type: "button", text, onclick: () => change({ budget: text }) })])));
    return;
  }
  if (!self.found.children.length) replace(self.found, loading());
  const query = new URLSearchParams({ budget, model: model() });
  for (const [name, all] of Object.entries({ protocol, hardware, family })) for (const one of all) query.append(name, one);
  const { done } = self;
  // What a search found stands among the runs of its own protocol and machine.
  if (done?.budget === budget && done.model === model() && ![...protocol, ...hardware].length) {
    query.append("protocol", done.protocol);
    query.append("hardware", done.hardware);
  }
  const asked = `page/answer?${query}`;
  self.asked = asked;
  try {
    const about = await get(asked);
    if (asked === self.asked) replace(self.found, ...contents(about));
  } catch (error) {
    if (asked === self.asked) replace(self.found, failure(error));
  }
}

function contents(about) {
  const further = make("button", { class: "ps-button", type: "button", text: "Search further", title: "Runs new candidates within this budget; each is a job of its own", onclick: search });
  if (about.error) return [make("p", { class: "ps-error", role: "alert", text: about.error }), about.further && make("p", {}, further)];
  const run = (one) => make("button", { class: "ps-textual", type: "button", text: one.recipe, onclick: () => pick(one.run_id) });
  return [
    about.dense && about.dense.run_id !== about.choices[0].run_id && make("p", {}, "The model fits as it is, uncompressed: ", run(about.dense), ` ${about.dense.text}.`),
    about.choices.length > 0 && make("ol", {}, ...about.choices.map((one) => make("li", {}, run(one), ` ${one.text}`, make("span", { class: "ps-quiet", text: one.reason })))),
    about.nearest && make("p", {}, "Nothing measured meets this. Nearest: ", run(about.nearest), ` ${about.nearest.text}. ${about.nearest.reason}`),
    !about.choices.length && !about.nearest && make("p", { text: "No run has the readings that this asks for." }),
    about.binding && make("p", { class: "ps-quiet" }, `What binds: ${about.binding}. `, ...about.changes.flatMap((one) => [`With ${one.reason}: `, run(one), `, ${one.text}. `])),
    make("p", {}, further, " ", make("span", { class: "ps-quiet", text: about.origin })),
  ];
}

async function search() {
  try {
    show(await post("api/v1/search", { budget: view().budget, model: model() }));
  } catch (error) {
    replace(self.search, failure(error));
  }
}

async function poll() {
  clearTimeout(self.timer);
  try {
    show(await get("api/v1/search"));
  } catch {
    self.timer = setTimeout(poll, 5000);
  }
}

function show(now) {
  const active = ["running", "stopping"].includes(now.state);
  const ended = now.state === "done" && self.done?.started !== now.started;
  if (now.state === "done") self.done = now;
  const stop = () => post("api/v1/search", {}, "DELETE").then(show, (error) => replace(self.search, failure(error)));
  const words = { running: "Searching", stopping: "Stops when the runs that wait are over: searching", done: `Searched ${now.runs} runs`, stopped: "Stopped searching", failed: "Found nothing" }[now.state];
  replace(self.search, now.state !== "none" && make("div", {},
    make("span", { text: `${words} for ${now.budget}${active ? "…" : "."}` }),
    make("span", { class: now.state === "failed" ? "ps-error" : "ps-quiet", text: now.reason || (active ? now.lines.at(-1) : "") }),
    now.state === "done" && view().budget !== now.budget && make("button", { class: "ps-button ps-small", type: "button", text: "Show", onclick: () => { change({ budget: now.budget }); show(now); } }),
    now.state === "running" && now.may_change && make("button", { class: "ps-button ps-small", type: "button", text: "Stop", onclick: stop })));
  if (ended && view().budget === now.budget) told();
  clearTimeout(self.timer);
  self.timer = setTimeout(poll, document.hidden ? 15000 : active ? 1000 : 10000);
}
