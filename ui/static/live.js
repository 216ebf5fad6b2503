// Several models go on from one prompt, streamed from their artefacts as they write.

import { ask, failure, get, make, post, replace } from "./dom.js";
import { change, view } from "./view.js";
import { detail, pane, refresh, take } from "./tokens.js";

const PERIOD = 150; // milliseconds between questions while something is written
const LENGTHS = [32, 64, 96, 128, 256];
const MOODS = [["0", "likeliest"], ["0.7", "0.7"], ["1", "1"]];
const self = { timer: 0, shown: "", count: 0, panes: [], found: null, waiting: new Map() };

export function live(place, found) {
  self.found = found;
  if (!self.form || !place.contains(self.form)) build(place);
  missing();
  const { writing } = view();
  if (writing && writing !== self.shown) open(writing);
  else if (!writing && self.shown) reset();
}

export function leave() {
  clearTimeout(self.timer);
  self.form = null;
  self.shown = "";
}

function build(place) {
  const now = view();
  self.prompt = make("textarea", { rows: "3", maxlength: "4000", "data-say": true, "aria-label": "Prompt", placeholder: "Write a beginning, or take one of the fixed ones", onkeydown: (event) => (event.ctrlKey || event.metaKey) && event.key === "Enter" && write() });
  self.prompt.value = now.say || self.found.texts[self.found.position] || "";
  const options = (all, chosen) => all.map(([value, text]) => make("option", { value, text, selected: value === chosen }));
  self.fixed = make("select", { "data-prompt": true, onchange: (event) => { self.prompt.value = self.found.texts[Number(event.target.value)] ?? ""; self.prompt.focus(); } },
    make("option", { value: "-1", text: "My own" }), ...self.found.prompts.map((name, at) => make("option", { value: String(at), text: name, selected: self.prompt.value === self.found.texts[at] })));
  self.length = make("select", {}, ...options(LENGTHS.map((one) => [String(one), String(one)]), now.tokens || "96"));
  self.mood = make("select", {}, ...options(MOODS, now.temperature || "0"));
  self.seed = make("input", { type: "number", min: "0", max: "2147483647", value: now.seed || "0" });
  self.button = make("button", { class: "ps-button ps-primary", type: "button", text: "Write", "data-write": true, onclick: () => (self.running ? stop() : write()) });
  self.told = make("div", { role: "status", "aria-live": "polite" });
  self.row = make("div", { class: "ps-panes" });
  self.detail = make("div", {});
  self.form = make("div", { class: "ps-live" },
    make("div", { class: "ps-ask" }, self.prompt,
      make("div", { class: "ps-controls" },
        field("Prompt", self.fixed), field("Tokens", self.length), field("Temperature", self.mood), field("Seed", self.seed), self.button)),
    self.told, self.row, self.detail);
  replace(place, self.form);
  running(false);
  reset();
}

function field(text, control) {
  return make("label", { class: "ps-field" }, make("span", { text }), control);
}

function variants() {
  return self.found.panes.filter((one) => one.recipe !== "dense");
}

// What cannot write here yet, and the way out.
function missing() {
  const lacking = variants().filter((one) => !one.live);
  replace(self.told, ...lacking.map((one) => make("p", { class: "ps-notice ps-offer" },
    make("span", { text: one.twin
      ? `This run of ${one.recipe} was measured elsewhere, and the same recipe was made here.`
      : self.waiting.has(one.run_id)
        ? `${one.recipe} is being made here; it can write as soon as its job is done.`
        : `${one.recipe} was measured elsewhere, and its model is not on this machine.` }),
    one.twin ? make("button", { class: "ps-button", type: "button", text: "Use the one made here", onclick: () => swap(one.run_id, one.twin) })
      : !self.waiting.has(one.run_id) && make("button", { class: "ps-button", type: "button", "data-remake": one.run_id, text: `Make it here${one.cost ? ` (≈ ${one.cost})` : ""}`, onclick: () => remake(one) }))));
  self.button.disabled = !self.running && (lacking.length > 0 || !variants().length);
  if (!variants().length) replace(self.told, make("p", { class: "ps-quiet", text: "Choose a variant that is to write beside the dense model." }));
}

async function remake(one) {
  try {
    const done = await post(`api/v1/runs/${encodeURIComponent(one.run_id)}/remake`);
    self.waiting.set(one.run_id, done.run_id);
    window.dispatchEvent(new CustomEvent("paretoscope-jobs"));
    missing();
  } catch (error) {
    replace(self.told, failure(error));
  }
}

// Once a run that was made again is done, it takes the place of the one it repeats.
export function arrived(runs) {
  for (const [before, after] of self.waiting) {
    if (!runs.includes(after)) continue;
    self.waiting.delete(before);
    if (before !== after) swap(before, after);
  }
}

function swap(before, after) {
  change({ compare: view().compare.map((one) => (before.startsWith(one) ? after : one)), writing: "" });
}

async function write() {
  const prompt = self.prompt.value;
  const wish = { runs: variants().map((one) => one.run_id), prompt, new_tokens: Number(self.length.value), temperature: Number(self.mood.value), seed: Number(self.seed.value) || 0 };
  running(true);
  try {
    const { writing_id } = await post("api/v1/writings", wish);
    self.shown = "";
    change({ writing: writing_id, say: prompt.length <= 300 ? prompt : "", tokens: wish.new_tokens === 96 ? "" : String(wish.new_tokens), temperature: wish.temperature ? String(wish.temperature) : "", seed: wish.seed ? String(wish.seed) : "" });
  } catch (error) {
    running(false);
    replace(self.told, failure(error));
  }
}

async function stop() {
  try {
    await post(`api/v1/writings/${self.shown}/stop`);
  } catch (error) {
    replace(self.told, failure(error));
  }
}

function running(on) {
  self.running = on;
  self.button.textContent = on ? "Stop" : "Write";
  self.button.disabled = false;
}

function reset() {
  clearTimeout(self.timer);
  Object.assign(self, { shown: "", count: 0, panes: [] });
  replace(self.row);
  replace(self.detail);
}

function open(writing) {
  reset();
  self.shown = writing;
  running(true);
  look();
}

async function look() {
  const asked = self.shown;
  let told;
  try {
    told = await ask(`api/v1/writings/${encodeURIComponent(asked)}?after=${self.count}`);
  } catch (error) {
    if (asked !== self.shown || !self.form?.isConnected) return;
    if (!error.refused) { self.timer = setTimeout(look, 2000); return; } // the server is away
    running(false);
    change({ writing: "" });
    replace(self.told, make("p", { class: "ps-quiet", text: `${error.message} Press Write.` }));
    return;
  }
  if (asked !== self.shown || !self.form?.isConnected) return;
  if (!self.panes.length) begin(told);
  self.count = told.count;
  let loading = "";
  for (const event of told.events) {
    if (event.loading) loading = event.loading;
    else if (event.pane !== undefined) { take(self.panes[event.pane], event); loading = ""; }
  }
  const over = ["done", "stopped", "failed"].includes(told.state);
  for (const one of self.panes) refresh(one, self.panes[0], told.state);
  if (over || told.events.length) {
    replace(self.told, told.state === "failed" ? failure(new Error(told.reason))
      : told.state === "stopped" ? make("p", { class: "ps-quiet", text: "Stopped." })
        : loading && !over && make("p", { class: "ps-quiet", text: `Loading ${loading}…` }));
  } else if (told.state === "queued") replace(self.told, make("p", { class: "ps-quiet", text: "Waits for another text, or for a timed measurement, to end…" }));
  self.form.dataset.state = told.state;
  if (over) { running(false); missingQuietly(); } else self.timer = setTimeout(look, PERIOD);
}

function missingQuietly() {
  if (variants().some((one) => !one.live)) missing();
}

function begin(told) {
  self.prompt.value = told.prompt;
  const known = new Map(self.found.panes.map((one) => [one.run_id, one]));
  const paired = (one) => known.get(one.run_id)?.numbers.find((each) => each.name === "decode_speedup");
  const dense = self.found.panes.find((one) => one.recipe === "dense")?.family || self.found.dense;
  const chosen = (one, at) => replace(self.detail, detail(one, at));
  self.panes = told.panes.map((one, number) => pane(number, one.recipe, (number && known.get(one.run_id)?.family) || dense, number && paired(one), chosen));
  replace(self.row, ...self.panes.map((one) => one.element));
}

