// The state of the view, kept in the address so that every view is a link.

import { HUB } from "./dom.js";

const LISTS = ["compare", "family", "model", "hardware", "protocol"];
const SINGLES = ["run", "x", "y", "budget", "expected", "prompt", "limit", "ylimit", "zoom", "order", "tab", "mode", "say", "writing", "tokens", "temperature", "seed"];
const watchers = new Set();
let state = read();
let outside = "";

function read() {
  const query = new URLSearchParams(location.search);
  const found = {};
  for (const name of SINGLES) found[name] = query.get(name) || "";
  for (const name of LISTS) found[name] = (query.get(name) || "").split(",").filter(Boolean);
  if (!found.tab && found.compare.length) found.tab = "compare";
  return found;
}

function query() {
  const found = new URLSearchParams();
  // What others put there, such as the theme, stays.
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (!SINGLES.includes(name) && !LISTS.includes(name) && name !== "share") found.append(name, value);
  }
  for (const name of SINGLES) if (state[name]) found.set(name, state[name]);
  for (const name of LISTS) if (state[name].length) found.set(name, state[name].join(","));
  return found.toString().replaceAll("%2C", ",");
}

export const view = () => state;

export function change(patch) {
  const before = state;
  state = { ...state, ...sound(patch) };
  const text = query();
  history.replaceState(history.state, "", `${location.pathname}${text ? `?${text}` : ""}`);
  tellFrame(text);
  for (const watcher of [...watchers]) watcher(state, before);
}

// The Hub shows a Space inside a page of its own, whose address people copy.
function tellFrame(text) {
  if (outside && window.parent !== window) window.parent.postMessage({ queryString: text }, HUB);
}

// A view that was kept under a short name may hold anything.
function sound(patch) {
  const found = {};
  for (const [name, value] of Object.entries(patch)) {
    if (SINGLES.includes(name) && typeof value === "string") found[name] = value;
    if (LISTS.includes(name) && Array.isArray(value)) found[name] = value.filter((one) => typeof one === "string");
  }
  return found;
}

// A run that somebody picked: its card comes into sight.
export function pick(run) {
  window.dispatchEvent(new CustomEvent("paretoscope-pick"));
  change({ run });
}

export function watch(watcher) {
  watchers.add(watcher);
}

export function linkBase(address) {
  outside = address;
}

export function link() {
  const text = query();
  return `${outside || location.origin + location.pathname}${text ? `?${text}` : ""}`;
}

export function filters() {
  const found = new URLSearchParams();
  for (const name of ["model", "family", "hardware", "protocol"]) for (const one of state[name]) found.append(name, one);
  return found;
}
