// The form that sets up runs: methods at budgets, or a recipe built stage by stage.

import { failure, get, loading, make, post, replace, sign } from "./dom.js";
import { submit } from "./jobs.js";
import { change, view } from "./view.js";

const KINDS = [
  ["bits", "Bits per number", "3, 4, 8", "At most so many bits held per weight, or per key and value; dense is 16. One job for each."],
  ["weights", "Memory of the weights", "1 MB", "Such as 800 kB, 6 GB or 4 GiB; what is held in memory, everything counted."],
  ["cached", "Memory of weights and cache", "6 MB", "Weights, keys and values and buffers at this context and batch."],
  ["kld", "Quality no worse than", "0.05", "KL divergence from the dense model in nats a token, as forecast from known runs."],
];
const AS_IS = ["asis", "As set above", "", ""];
const self = { mode: "sweep", chosen: new Set(), recipe: null, kind: "bits", touched: false, typed: "", texts: {}, context: "512", batch: "1", tier: "quick", speed: true, model: "default", asked: 0 };

export async function setup(place) {
  self.place = make("form", { class: "ps-setup", onsubmit: (event) => event.preventDefault() });
  replace(place, self.place);
  try {
    self.start = await get("page/setup");
  } catch (error) {
    replace(self.place, failure(error));
    setTimeout(() => setup(place), 3000);
    return;
  }
  const recipe = restore();
  build();
  window.addEventListener("paretoscope-reuse", ({ detail }) => {
    self.mode = "recipe";
    if (!self.start.public) self.place.querySelector("[aria-label=Model]").value = self.model = detail.wish;
    compose(detail.recipe);
  });
  window.addEventListener("paretoscope-shared", shared);
  window.addEventListener("paretoscope-runs", () => ahead());
  draw();
  ahead();
  await compose(recipe);
}

// What is set survives a reload of this tab; a link to one model begins with that model.
const KEPT = ["mode", "kind", "touched", "texts", "context", "batch", "tier", "speed", "model"];
const STORE = "paretoscope-form";

function keep() {
  const told = { ...Object.fromEntries(KEPT.map((name) => [name, self[name]])), chosen: [...self.chosen], recipe: self.recipe?.text };
  try { sessionStorage.setItem(STORE, JSON.stringify(told)); } catch { /* a browser may refuse to */ }
}

function restore() {
  let told = null;
  try { told = JSON.parse(sessionStorage.getItem(STORE)); } catch { /* nothing is kept */ }
  const keys = self.start.groups.flatMap((group) => group.methods.map((one) => one.key));
  for (const name of KEPT) if (typeof told?.[name] === typeof self[name]) self[name] = told[name];
  for (const key of told?.chosen || [self.start.first]) if (keys.includes(key)) self.chosen.add(key);
  self.fresh = !told || performance.getEntriesByType("navigation")[0]?.type === "navigate";
  if (self.fresh && view().model.length === 1) [self.model] = view().model;
  if (self.start.public) self.model = "default";
  self.followed = self.model;
  return told?.recipe || "dense";
}

// A short link tells its view only after a moment.
function shared() {
  if (!self.fresh || self.start.public || view().model.length !== 1) return;
  self.place.querySelector("[aria-label=Model]").value = self.model = self.followed = view().model[0];
  ahead();
}

function build() {
  const { start } = self;
  self.body = make("div", { class: "ps-body" });
  self.budget = make("div", { class: "ps-box" });
  self.plan = make("div", { class: "ps-plan", "aria-live": "polite" });
  self.button = make("button", { class: "ps-button ps-primary ps-go", type: "button", text: "Compress", disabled: true, onclick: go });
  const model = make("input", { value: self.model, maxlength: "300", disabled: start.public, spellcheck: "false", "aria-label": "Model", oninput: () => { self.model = model.value.trim() || "default"; soon(); } });
  const tier = make("select", { onchange: () => { self.tier = tier.value; keep(); } }, ...start.tiers.map((one) => make("option", { value: one.key, text: one.name, selected: one.key === self.tier })));
  const speed = make("input", { type: "checkbox", checked: self.speed, onchange: () => { self.speed = speed.checked; keep(); } });
  self.modes = make("div", { class: "ps-modes ps-wide", role: "group", "aria-label": "What to run" });
  replace(self.place,
    make("div", { class: "ps-box" }, field("Model", model), make("p", { class: "ps-quiet", text: start.public ? "The embedded one only, on this public copy." : "default is the embedded one; or a Hub name such as Qwen/Qwen3-0.6B, or a folder." })),
    make("div", { class: "ps-box" }, self.modes, self.body), self.budget,
    make("div", { class: "ps-box ps-pair" }, field("Measure", tier), make("label", { class: "ps-check" }, speed, "Time it too")),
    self.plan, self.button);
}

function field(text, ...controls) {
  return make("label", { class: "ps-field" }, make("span", { text }), ...controls);
}

function draw() {
  replace(self.modes, ...[["sweep", "Methods"], ["recipe", "Recipe"]].map(([name, text]) => make("button", { class: "ps-mode", type: "button", "data-run": name, "aria-pressed": String(self.mode === name), text, onclick: () => { self.mode = name; if (name === "sweep" && self.kind === "asis") self.kind = "bits"; draw(); ahead(); } })));
  if (self.mode === "sweep") replace(self.body, ...sweep()); else replace(self.body, ...builder());
  budget();
}

function sweep() {
  const { groups } = self.start;
  const total = groups.reduce((sum, one) => sum + one.methods.length, 0);
  const list = make("div", { class: "ps-list" });
  const fill = (wanted) => replace(list, ...groups.map((group) => {
    const fit = group.methods.filter((one) => `${one.key} ${group.family.name} ${one.summary}`.toLowerCase().includes(wanted));
    return fit.length > 0 && make("div", { role: "group", "aria-label": group.family.name },
      make("p", { class: "ps-quiet" }, sign(group.family), group.family.name),
      make("div", { class: "ps-chips" }, ...fit.map((one) => make("button", { class: "ps-chip ps-pick", type: "button", "data-method": one.key, title: one.summary, "aria-pressed": String(self.chosen.has(one.key)), text: one.key, onclick: (event) => choose(one.key, event.target) }))));
  }));
  const search = total > 12 && make("input", { type: "search", placeholder: `Find in ${total} methods`, "aria-label": "Find a method to run", oninput: (event) => fill(event.target.value.trim().toLowerCase()) });
  fill("");
  return [search, list];
}

function choose(key, chip) {
  if (self.chosen.has(key)) self.chosen.delete(key); else self.chosen.add(key);
  chip.setAttribute("aria-pressed", String(self.chosen.has(key)));
  soon();
}

function builder() {
  const { recipe } = self;
  if (!recipe) return [self.refusal ? make("p", { class: "ps-error", role: "alert", text: self.refusal }) : loading()];
  const text = make("input", { "data-recipe-text": true, spellcheck: "false", maxlength: "2000", value: self.typed || (recipe.text === "dense" ? "" : recipe.text), placeholder: "key@bits + key(setting=value)", "aria-label": "Recipe", onchange: () => compose(text.value) });
  const stages = [...new Set(recipe.methods.map((one) => one.stage))];
  const add = make("select", { "data-add": true, "aria-label": "Add a stage", onchange: () => add.value && compose(add.value) },
    make("option", { value: "", text: recipe.stages.length ? "Add a stage…" : "Choose the first stage…" }),
    ...stages.map((stage) => make("optgroup", { label: stage }, ...recipe.methods.filter((one) => one.stage === stage).map((one) => make("option", { value: one.recipe, disabled: Boolean(one.reason), title: one.reason || one.summary, text: one.reason ? `${one.key} (not here)` : one.key })))));
  const barred = recipe.methods.filter((one) => one.reason);
  const spread = make("select", { "data-allocator": true, onchange: () => compose(spread.value) }, ...recipe.allocators.map((one) => make("option", { value: one.recipe, disabled: Boolean(one.reason), title: one.reason, selected: one.recipe === recipe.text, text: one.key })));
  const divide = (name, value) => {
    const long = structuredClone(recipe.recipe);
    const all = recipe.division.settings.map((each) => `${each.name}=${each.name === name ? value : each.value}`);
    compose({ ...long, allocator: `${recipe.division.key}(${all.join(", ")})` });
  };
  return [
    ...recipe.stages.map(stage), add,
    self.refusal && make("p", { class: "ps-error", role: "alert", text: self.refusal }),
    recipe.stages.length > 0 && barred.length > 0 && make("details", {}, make("summary", { text: `Why ${barred.length} cannot be added` }),
      make("ul", { class: "ps-why" }, ...barred.map((one) => make("li", { text: one.reason })))),
    recipe.stages.length > 0 && field("Budget over layers", spread),
    recipe.stages.length > 1 && recipe.allocators.slice(1).every((one) => one.reason) && make("p", { class: "ps-quiet", text: recipe.allocators[1].reason }),
    recipe.division?.settings.length > 0 && make("details", {}, make("summary", { text: `Settings of ${recipe.division.key}` }),
      ...recipe.division.settings.map((each) => control(each, (value) => divide(each.name, value)))),
    field("As text", text),
  ];
}

function stage(one, at) {
  const level = one.settings.find((each) => each.name === one.level);
  const rest = one.settings.filter((each) => each !== level);
  const set = (name, value) => {
    const long = structuredClone(self.recipe.recipe);
    long.stages[at].settings[name] = value;
    compose(long);
  };
  const drop = () => { const long = structuredClone(self.recipe.recipe); long.stages.splice(at, 1); if (long.stages.length === 0) long.allocator = "uniform"; compose(long); };
  return make("fieldset", { class: "ps-stage", "data-stage": one.key },
    make("legend", {}, sign(one.family), one.key, " ", make("span", { class: "ps-quiet", text: one.stage })),
    make("button", { class: "ps-button ps-small ps-drop", type: "button", text: "✕", "aria-label": `Remove ${one.key}`, onclick: drop }),
    level && control(level, (value) => set(level.name, value)),
    rest.length > 0 && make("details", { open: self.opened === one.key, ontoggle: (event) => { if (event.target.open) self.opened = one.key; } }, make("summary", { text: "Settings" }), ...rest.map((each) => control(each, (value) => set(each.name, value)))));
}

// A control for a setting, as its method declares it.
function control(one, set) {
  let input;
  if (one.choices) {
    input = make("select", { onchange: () => set(one.choices[input.selectedIndex]) }, ...one.choices.map((choice) => make("option", { text: String(choice), selected: choice === one.value })));
  } else if (typeof one.default === "boolean") {
    input = make("input", { type: "checkbox", checked: one.value, onchange: () => set(input.checked) });
  } else {
    input = make("input", { type: "number", min: String(one.low), max: String(one.high), step: "any", value: String(one.value), onchange: () => input.value !== "" && set(Number(input.value)) });
  }
  input.dataset.setting = one.name;
  const reach = one.choices || one.low === null ? "" : ` (${one.low} to ${one.high})`;
  return make("label", { class: "ps-setting", title: one.help }, make("span", { text: one.name.replaceAll("_", " ") }), input, make("small", { text: `${one.help}${reach}` }));
}

async function compose(wanted) {
  const asked = (self.composing = (self.composing || 0) + 1);
  try {
    const found = await post("page/compose", { recipe: wanted || "dense" });
    if (asked !== self.composing) return;
    self.refusal = found.error;
    self.typed = found.error && typeof wanted === "string" ? wanted : "";
    if (!found.error) self.recipe = found;
  } catch (error) {
    self.refusal = error.message;
  }
  if (self.mode === "recipe") { draw(); ahead(); }
}

function budget() {
  const kinds = self.mode === "recipe" ? [AS_IS, ...KINDS] : KINDS;
  if (self.mode === "recipe" && !self.touched) self.kind = "asis";
  const [, , fallback, help] = kinds.find(([name]) => name === self.kind) || kinds[0];
  const kind = make("select", { "data-budget-kind": true, "aria-label": "Kind of budget", onchange: () => { self.kind = kind.value; self.touched = true; budget(); ahead(); } }, ...kinds.map(([name, text]) => make("option", { value: name, text, selected: name === self.kind })));
  const amount = make("input", { "data-budget": true, "aria-label": "Budget", value: self.texts[self.kind] ?? fallback, placeholder: fallback, oninput: () => { self.texts[self.kind] = amount.value; soon(); } });
  const side = (name, text, title) => { const input = make("input", { type: "number", min: "1", value: self[name], "data-side": name, oninput: () => { self[name] = input.value; soon(); } }); return make("label", { class: "ps-field", title }, make("span", { text }), input); };
  replace(self.budget, field("Budget", kind),
    self.kind !== "asis" && amount,
    self.kind === "cached" && make("div", { class: "ps-pair" }, side("context", "Context, tokens", "Tokens of a sequence"), side("batch", "Batch", "Sequences at a time")),
    help && make("p", { class: "ps-quiet", text: help }));
}

// The budgets as the service reads them; several may be given, apart from each other by commas.
function budgets() {
  if (self.kind === "asis") return [];
  const fallback = KINDS.find(([name]) => name === self.kind)[2];
  const all = (self.texts[self.kind] ?? fallback).split(",").map((one) => one.trim()).filter(Boolean);
  return all.map((one) => ({
    bits: /^[\d.]+$/.test(one) ? `${one} bits` : one,
    weights: one,
    cached: `${one}, ${self.context || 1} context x ${self.batch || 1}`,
    kld: /^[\d.e-]+$/.test(one) ? `kld <= ${one}` : one,
  }[self.kind]));
}

function wish() {
  const recipes = self.mode === "sweep" ? [...self.chosen] : !self.typed && self.recipe?.stages.length ? [self.recipe.text] : [];
  return { model: self.model, recipes, budgets: budgets() };
}

function soon() {
  stale();
  clearTimeout(self.timer);
  self.timer = setTimeout(ahead, 250);
}

// What was told no longer holds for what is asked: nothing runs before it is told anew.
function stale() {
  self.rows = [];
  self.button.disabled = true;
}

async function ahead() {
  clearTimeout(self.timer);
  stale();
  keep();
  const asked = (self.asked += 1);
  const wanted = wish();
  const lacking = !wanted.recipes.length ? (self.mode === "sweep" ? "Choose at least one method." : self.typed ? "Mend the recipe first." : "Choose the first stage.")
    : self.kind !== "asis" && !wanted.budgets.length ? "Write at least one budget." : "";
  if (lacking) {
    told(make("p", { class: "ps-quiet", text: lacking }), "Compress", true);
    return;
  }
  try {
    const found = await post("page/ahead", wanted);
    if (asked !== self.asked) return;
    self.rows = found.rows;
    if (found.size) follow(found);
    told(plan(found), `Compress${found.jobs > 1 ? ` ${found.jobs} variants` : ""}${found.time ? ` (≈ ${found.time})` : ""}`, !found.jobs);
  } catch (error) {
    if (asked === self.asked) told(failure(error), "Compress", true);
  }
}

// The chart follows the form to another model; of one without runs it shows what is expected.
function follow(found) {
  if (self.model === self.followed) return;
  self.followed = self.model;
  change({ model: found.model === "default" ? [] : [found.model], expected: found.measured ? "" : "1" });
}

function told(content, label, off) {
  replace(self.plan, content);
  self.button.textContent = label;
  self.button.disabled = off;
  window.dispatchEvent(new CustomEvent("paretoscope-plan", { detail: self.rows }));
}

function plan(found) {
  const fact = (name, text, title) => text && make("div", { title }, make("dt", { text: name }), make("dd", { text }));
  const missed = found.rows.filter((one) => one.miss);
  return make("div", {},
    found.fetch && make("p", { class: "ps-quiet", text: "Its files are not here yet: size and time are known once they are fetched." }),
    found.size && make("dl", { class: "ps-facts" },
      fact("Size", `${found.size} of ${found.dense}`, "Weights in memory"), fact("Peak", found.peak, "Highest memory while it works"),
      fact("Time", `≈ ${found.time}`, `From ${found.basis}`), fact("KL divergence", found.quality && `≈ ${found.quality}`, "Forecast from known runs")),
    found.size && make("p", { class: "ps-quiet", text: "Estimated before anything runs; hollow on the chart." }),
    ...found.refused.map((one) => make("p", { class: "ps-error", text: `${one.recipe}: ${one.reason}` })),
    found.lacking && make("p", { class: "ps-error", text: found.lacking }),
    ...missed.map((one) => make("p", { class: "ps-error", text: `${one.recipe}: ${one.miss}.` })),
    found.rows.length > 1 && make("details", {}, make("summary", { text: `${found.rows.length} variants` }),
      make("div", { class: "ps-scroll" }, make("table", {}, make("tbody", {}, ...found.rows.map((one) => make("tr", {}, ...[one.recipe, one.size, one.quality].map((text) => make("td", { text: text || "–" })))))))));
}

async function go() {
  self.button.disabled = true;
  await submit({ model: self.model, tier: self.tier, speed: self.speed ? "sweep" : "" }, self.rows || []);
  self.button.disabled = false;
}
