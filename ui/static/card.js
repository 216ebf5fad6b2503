// The card of one run: its numbers, its layers, its bytes and what it writes.

import { address, failure, get, loading, make, replace, sign } from "./dom.js";
import { change, view, watch } from "./view.js";
import { written } from "./compare.js";

export function card(place) {
  const region = make("section", { class: "ps-card", "aria-live": "polite", "aria-label": "Selected run" });
  replace(place, region);
  let picked = false;
  const reveal = () => {
    const { top, height } = region.getBoundingClientRect();
    if (picked && (top < 0 || top > window.innerHeight - 160)) region.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth", block: height > window.innerHeight ? "start" : "center" });
    picked = false;
  };
  const show = async () => {
    const { run, x, y } = view();
    if (!run) {
      replace(region, make("p", { class: "ps-empty", text: "Click a dot to open its card: every reading, the bytes, and what it writes." }));
      delete region.dataset.run;
      return;
    }
    if (!region.dataset.run) replace(region, loading());
    const query = new URLSearchParams(Object.entries({ x, y }).filter(([, value]) => value));
    try {
      const about = await get(`page/card/${encodeURIComponent(run)}?${query}`);
      if (view().run !== run) return;
      replace(region, ...contents(about));
      region.dataset.run = about.run_id;
      reveal();
    } catch (error) {
      replace(region, failure(error), make("button", { class: "ps-button", type: "button", text: "Close", onclick: () => change({ run: "" }) }));
    }
  };
  watch((now, before) => {
    if (now.run !== before.run || (now.run && (now.x !== before.x || now.y !== before.y))) show();
  });
  // A card that opens out of sight is no answer to a click.
  window.addEventListener("paretoscope-pick", () => {
    picked = true;
    setTimeout(() => region.dataset.run === view().run && reveal()); // which may be shown already
  });
  show();
}

function contents(about) {
  const compared = view().compare;
  return [
    make("header", { class: "ps-card-head" },
      make("h2", {}, sign(about.family), about.recipe),
      make("span", { class: "ps-quiet", text: [about.model, about.parameters, about.hardware, about.created].filter(Boolean).join(" · ") }),
      make("span", { class: "ps-actions" },
        make("button", { class: "ps-button ps-primary", type: "button", text: "Compare with dense", onclick: () => change({ compare: [about.run_id], tab: "compare" }) }),
        make("button", { class: "ps-button", type: "button", text: compared.includes(about.run_id) ? "In comparison" : "Add to comparison", onclick: (event) => { change({ compare: [...new Set([...view().compare, about.run_id])].slice(-3) }); event.target.textContent = "In comparison"; } }),
        make("button", { class: "ps-button", type: "button", text: "Use recipe", title: "Puts this recipe and its model into the form", onclick: () => window.dispatchEvent(new CustomEvent("paretoscope-reuse", { detail: about })) }),
        make("button", { class: "ps-button", type: "button", text: "✕", "aria-label": "Close card", onclick: () => change({ run: "" }) }))),
    about.status === "broken" && make("p", { class: "ps-error", text: "This model is broken: some of its numbers are not finite, so it stands on no frontier." }),
    make("div", { class: "ps-headlines" }, ...about.headlines.map((one) => make("div", { title: one.help },
      make("span", { class: "ps-quiet", text: one.title }),
      make("strong", { text: one.text }),
      make("span", { class: "ps-quiet", text: one.interval ? `95 %: ${one.interval}` : one.kind }),
      one.noisy && make("span", { class: "ps-quiet", title: one.note, text: "noisy machine" })))),
    about.beaten_by.length > 0 && make("p", { class: "ps-beaten" }, "Beaten by ", ...about.beaten_by.flatMap((one, at) => [
      at ? "; " : "", make("button", { class: "ps-textual", type: "button", text: one.recipe, onclick: () => change({ run: one.run_id }) }), ` (${one.text})`]), "."),
    about.writing && make("div", { class: "ps-writing" },
      make("h3", { text: "What it writes" }),
      make("p", { class: "ps-quiet", text: about.writing.prompt }),
      make("div", { class: "ps-panes" },
        pane("dense", about.writing.dense), pane(about.recipe, about.writing.spans)),
      make("p", { class: "ps-quiet", text: about.writing.remark })),
    make("div", { class: "ps-two" }, layers(about), bytes(about)),
    about.graded.length > 0 && make("details", {}, make("summary", { text: "Expected beside measured" }), grid(["What", "Expected", "95 % interval", "Measured", "Off by"], about.graded.map((one) => [one.title, one.expected, one.interval || "–", one.measured, one.error]))),
    ...about.notes.map((note) => make("p", { class: "ps-notice", text: note })),
    make("details", { class: "ps-readings", open: false }, make("summary", { text: "All readings with their intervals" }), readings(about)),
    make("details", {}, make("summary", { text: "How to make it again" }),
      make("pre", { text: about.command }),
      ...about.stages.map((stage) => make("p", { class: "ps-quiet", text: `${stage.method}: ${stage.settings}` })),
      make("p", { class: "ps-quiet", text: `Run ${about.run_id} · took ${about.seconds} · protocol ${about.protocol}, tier ${about.tier}${about.commit ? ` · commit ${about.commit}` : ""}` }),
      about.artefact && make("a", { href: address(`api/v1/runs/${about.run_id}/artefact`), text: `Download the model (${about.artefact})` })),
  ].filter(Boolean);
}

function pane(title, spans) {
  return make("div", { class: "ps-pane" }, make("h4", { text: title }), written(spans));
}

function layers(about) {
  const most = Math.max(16, ...about.layers.map((one) => one.bits));
  return about.layers.length > 0 && make("div", {},
    make("h3", { text: "Bits per layer" }),
    make("div", { class: "ps-strip", role: "img", "aria-label": `Bits of ${about.layers.length} matrices` },
      ...about.layers.map((one) => make("i", { title: `${one.name} · ${one.format} · ${one.text}`, style: { opacity: String(0.12 + 0.88 * one.bits / most) } }))),
    make("p", { class: "ps-quiet", text: span(about.layers) }));
}

function span(all) {
  const bits = all.map((one) => one.bits);
  const [low, high] = [Math.min(...bits), Math.max(...bits)];
  const told = low === high ? `${low.toFixed(2)} bits each` : `${low.toFixed(2)} to ${high.toFixed(2)} bits`;
  return `${all.length} matrices, ${told}; darker is more.`;
}

function bytes(about) {
  return about.bytes.length > 0 && make("div", {},
    make("h3", { text: "Where the bytes are" }),
    make("div", { class: "ps-stack", role: "img", "aria-label": about.bytes.map((one) => `${one.part} ${one.text}`).join(", ") },
      ...about.bytes.map((one) => make("i", { title: `${one.part}: ${one.text}`, style: { width: `${one.share}%` } }))),
    make("ul", { class: "ps-key" }, ...about.bytes.map((one) => make("li", {}, make("i"), `${one.part} ${one.text}`))));
}

function grid(head, rows) {
  return make("div", { class: "ps-scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col", text: name })))),
    make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((text) => make("td", { text })))))));
}

function readings(about) {
  return make("div", { class: "ps-scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...["Reading", "Value", "95 % interval", "How", "Remark"].map((name) => make("th", { scope: "col", text: name })))),
    ...about.groups.map((group) => make("tbody", {},
      make("tr", { class: "ps-group" }, make("th", { colspan: "5", scope: "rowgroup", text: group.title })),
      ...group.rows.map((one) => make("tr", { title: one.help }, ...[one.title, one.text, one.interval || "–", one.kind, one.note].map((text) => make("td", { text }))))))));
}
