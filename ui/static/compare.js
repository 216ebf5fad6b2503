// Variants side by side: what they wrote to stored prompts, what they write now, which is which.

import { failure, get, loading, make, replace, sign } from "./dom.js";
import { blind } from "./blind.js";
import { arrived, leave, live } from "./live.js";
import { change, view, watch } from "./view.js";

const MODES = [["", "Stored texts"], ["live", "Write live"], ["blind", "Blind test"]];

export function written(spans) {
  if (!spans.length) return make("p", { class: "ps-quiet", text: "No text is stored." });
  const text = make("p", { class: "ps-text" });
  for (const one of spans) {
    if (one.kind === "same") text.append(make("span", { text: one.text }));
    else {
      const [, space, words] = /^(\s*)([^]*)$/.exec(one.text);
      text.append(space, make("mark", { class: `ps-${one.kind}`, text: words || "∎", title: one.kind === "first" ? "First difference" : "Differs" }));
    }
  }
  return text;
}

export function compare(place) {
  const picker = make("div", { class: "ps-controls" });
  const stage = make("div", { class: "ps-compare", "aria-live": "off" });
  replace(place, picker, stage);
  const show = async () => {
    const { compare: wanted, prompt, mode } = view();
    if (mode !== "live") leave();
    let runs;
    try {
      const { rows, models } = (await get("page/figure")).table;
      runs = rows.filter((row) => row.run_id).map((row) => ({ ...row, told: [row.recipe, models && row.model, row.cells[0]].filter(Boolean).join(" · ") }));
      if (!wanted.length) {
        controls(picker, runs, null);
        replace(stage, make("p", { class: "ps-empty", text: runs.length ? "Choose a run to read what it writes beside the dense model." : "There is nothing to compare yet. Compress something first." }));
        return;
      }
      if (!stage.childElementCount) replace(stage, loading());
      const found = await get(`page/compare?runs=${encodeURIComponent(wanted.join(","))}&prompt=${encodeURIComponent(prompt || "0")}`);
      if (view().compare.join() !== wanted.join() || view().mode !== mode) return;
      controls(picker, runs, found);
      if (mode === "live") live(stage, found);
      else if (mode === "blind") blind(stage, found);
      else stored(stage, found);
    } catch (error) {
      controls(picker, runs || [], null);
      replace(stage, failure(error));
    }
  };
  watch((now, before) => {
    if (["prompt", "mode", "writing"].some((name) => now[name] !== before[name]) || now.compare.join() !== before.compare.join()) show();
  });
  window.addEventListener("paretoscope-runs", (event) => {
    arrived(event.detail || []);
    show();
  });
  show();
}

function stored(stage, found) {
  replace(stage,
    make("p", { class: "ps-prompt" }, make("span", { class: "ps-quiet", text: "Prompt " }), found.prompt),
    make("div", { class: "ps-panes" }, ...found.panes.map(pane)));
}

function controls(picker, runs, found) {
  const { compare: chosen, mode } = view();
  const place = (at) => make("label", { class: "ps-field" }, make("span", { text: `Variant ${at + 1}` }),
    make("select", { "data-variant": String(at), onchange: (event) => change({ compare: swap(chosen, at, event.target.value), writing: "" }) },
      make("option", { value: "", text: "None" }),
      ...runs.map((row) => make("option", { value: row.run_id, text: row.told, selected: Boolean(chosen[at]) && row.run_id.startsWith(chosen[at]) }))));
  const count = Math.min(3, chosen.length + 1);
  replace(picker, ...Array.from({ length: count }, (_, at) => place(at)),
    mode === "" && found && found.prompts.length > 0 && make("label", { class: "ps-field" }, make("span", { text: "Prompt" }),
      make("select", { "data-prompt": true, onchange: (event) => change({ prompt: event.target.value === "0" ? "" : event.target.value }) },
        ...found.prompts.map((name, at) => make("option", { value: String(at), text: name, selected: at === found.position })))),
    make("div", { class: "ps-modes", role: "group", "aria-label": "What is compared" },
      ...MODES.map(([name, text]) => make("button", { class: "ps-mode", type: "button", "data-mode": name || "stored", "aria-pressed": String(mode === name), text, onclick: () => change({ mode: name }) }))));
}

function swap(chosen, at, run) {
  const found = [...chosen];
  found[at] = run;
  return [...new Set(found.filter(Boolean))];
}

function pane(one) {
  return make("article", { class: "ps-pane", "data-recipe": one.recipe },
    make("header", {}, make("h3", {}, sign(one.family), one.recipe, one.model && make("span", { class: "ps-quiet", text: ` of ${one.model}` })),
      make("dl", { class: "ps-numbers" }, ...one.numbers.map((each) => make("div", {}, make("dt", { text: each.title }), make("dd", { text: each.text }), each.interval && make("small", { class: "ps-quiet", text: `95 %: ${each.interval}` }))))),
    written(one.spans),
    make("footer", { class: "ps-quiet", text: one.remark }));
}
