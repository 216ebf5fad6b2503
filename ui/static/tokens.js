// One pane of a text that is being written: its tokens, their divergence as a strip, its numbers.

import { bytes, make, percent, replace, short, sign } from "./dom.js";

const HOTTEST = 2; // nats at which the strip is darkest
const [NEAR_TIE, CLOSE] = [0.8, 0.4]; // of the dense model's share for its own token

// `paired` is how much faster than the dense model the run was measured to write, if it was.
export function pane(number, title, family, paired, chosen) {
  const parts = {
    numbers: make("dl", { class: "ps-numbers" }),
    text: make("p", { class: "ps-text ps-tokens" }),
    strip: make("div", { class: "ps-heat", tabindex: "0", role: "slider", "aria-label": `Tokens of ${title}`, "aria-valuemin": "1", "aria-valuemax": "1", "aria-valuenow": "1" }),
    remark: make("p", {}),
    wrote: make("p", { "data-wrote": true }),
  };
  const self = { number, title, parts, paired, tokens: [], end: "", weights: 0, parted: null, at: -1, chosen };
  const pick = (event) => {
    const at = Number(event.target.dataset?.at ?? -1);
    if (at >= 0) select(self, at);
  };
  parts.text.addEventListener("click", pick);
  parts.strip.addEventListener("click", pick);
  parts.strip.addEventListener("keydown", (event) => {
    const last = self.tokens.length - 1;
    const to = { ArrowLeft: self.at - 1, ArrowDown: self.at - 1, ArrowRight: self.at + 1, ArrowUp: self.at + 1, Home: 0, End: last }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    select(self, Math.min(last, Math.max(0, to)));
  });
  self.element = make("article", { class: "ps-pane", "data-pane": String(number), "data-recipe": title },
    make("header", {}, make("h3", {}, sign(family), title), parts.numbers), parts.text, parts.strip, make("footer", { class: "ps-quiet" }, parts.remark, parts.wrote));
  return self;
}

export function select(self, at) {
  for (const place of [self.parts.text, self.parts.strip]) {
    place.querySelector(".ps-chosen")?.classList.remove("ps-chosen");
    place.querySelector(`[data-at="${at}"]`)?.classList.add("ps-chosen");
  }
  self.at = at;
  const one = self.tokens[at];
  const { strip } = self.parts;
  strip.setAttribute("aria-valuenow", String(at + 1));
  strip.setAttribute("aria-valuetext", `token ${at + 1}, ${shown(one.text)}${one.kl === undefined ? "" : `, divergence ${short(one.kl)}`}`);
  self.chosen(self, at);
}

// Takes in one event; the pane of the dense model comes first in every round.
export function take(self, event) {
  if (event.weights_bytes) self.weights = event.weights_bytes;
  if (event.end) self.end = event.end;
  if (event.token === undefined) return;
  const at = self.tokens.push(event) - 1;
  const heat = event.kl === undefined ? "" : `${Math.round(100 * Math.min(1, Math.sqrt(event.kl / HOTTEST)))}%`;
  const told = `Token ${at + 1}${event.kl === undefined ? "" : `, divergence ${short(event.kl)} nats`}`;
  self.parts.text.append(make("span", { "data-at": String(at), title: told, text: event.text }));
  const cell = make("i", { "data-at": String(at), title: told });
  cell.style.setProperty("--heat", heat || "0%");
  self.parts.strip.append(cell);
  self.parts.strip.setAttribute("aria-valuemax", String(at + 1));
}

// Numbers, the first difference from the dense pane, and what it means.
export function refresh(self, dense, state) {
  const { tokens, parts } = self;
  const last = tokens.at(-1);
  const mean = tokens.reduce((sum, one) => sum + (one.kl || 0), 0) / Math.max(1, tokens.length);
  const calls = tokens.filter((one) => !one.drafted).length;
  replace(parts.numbers, ...[
    self.paired && [self.paired.title, self.paired.text, self.paired.interval],
    ["Weights and cache", self.weights ? `${bytes(self.weights)} + ${bytes(last?.cache_bytes || 0)}` : "–"],
    self.number > 0 && ["Mean divergence", tokens.length ? `${short(mean)} nats` : "–"],
    calls < tokens.length && ["Tokens a call", short(tokens.length / calls)],
  ].filter(Boolean).map(([title, text, interval]) => make("div", {}, make("dt", { text: title }), make("dd", { text }), interval && make("small", { class: "ps-quiet", text: `95 %: ${interval}` }))));
  // Panes take turns and are disturbed by all else: their own seconds are told, never as a rate.
  parts.wrote.textContent = last ? `${tokens.length === 1 ? "1 token" : `${tokens.length} tokens`} in ${short(last.seconds)} s this time, which is no measurement.` : "";
  if (self.parted === null && self !== dense) {
    const both = Math.min(tokens.length, dense.tokens.length);
    let at = 0;
    while (at < both && tokens[at].token === dense.tokens[at].token) at += 1;
    if (at < both || (self.end && dense.end && tokens.length !== dense.tokens.length)) {
      self.parted = at;
      parts.text.querySelector(`[data-at="${at}"]`)?.classList.add("ps-first");
      parts.strip.querySelector(`[data-at="${at}"]`)?.classList.add("ps-first");
    }
  }
  parts.remark.textContent = remark(self, dense, state);
}

function remark(self, dense, state) {
  const over = self.end || state === "done";
  if (self === dense) return over ? "The dense model." : state === "writing" ? "The dense model is writing…" : "";
  if (self.parted === null) {
    if (!self.tokens.length) return "";
    return over ? `Token for token what the dense model writes, all ${self.tokens.length} of them.` : "The same as the dense model so far.";
  }
  const at = self.parted;
  const [ours, theirs] = [self.tokens[at], dense.tokens[at]];
  if (!ours || !theirs) return `Ends ${ours ? "later" : "earlier"} than the dense model, after ${at} same tokens.`;
  const [own, other] = [theirs.share, ours.dense_share];
  return `Parts from the dense model at token ${at + 1}: there the dense model gave its own ${shown(theirs.text)} ${percent(own)} and this ${shown(ours.text)} ${percent(other)}: ${other >= NEAR_TIE * own ? "nearly a tie, which is no damage" : other >= CLOSE * own ? "a close call" : "a real departure"}.`;
}

export function shown(text) {
  return `“${text.replaceAll("\n", "⏎").replace(/^ | $/g, "␣") || "∎"}”`;
}

// The five likeliest tokens of both models at one place.
export function detail(self, at) {
  const one = self.tokens[at];
  const lists = [[self.title, one.top], one.dense && ["dense", one.dense]].filter(Boolean);
  return make("section", { class: "ps-detail", "aria-live": "polite" },
    make("h3", { text: `Token ${at + 1} of ${self.title}: ${shown(one.text)}` }),
    make("p", { class: "ps-quiet", text: [
      one.kl !== undefined && `divergence ${short(one.kl)} nats`,
      `this model gave it ${percent(one.share)}`,
      one.dense_share !== undefined && `the dense model ${percent(one.dense_share)}`,
      one.dense && `the dense model's first choice led its second by ${percent(one.dense[0][1] - one.dense[1][1])}`,
      one.drafted && "it was drafted and found right",
    ].filter(Boolean).join(" · ") }),
    make("div", { class: "ps-panes" }, ...lists.map(([title, top]) => make("div", {},
      make("h4", { text: `${title} expects` }),
      make("ol", { class: "ps-top" }, ...top.map(([text, share]) => make("li", { class: text === one.text ? "ps-own" : "" },
        make("code", { text: shown(text) }), make("i", { style: { width: `${100 * share}%` } }), make("span", { text: percent(share) }))))))));
}
