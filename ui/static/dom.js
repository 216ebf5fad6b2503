// Elements and requests. Text goes in as text only: nothing here or elsewhere writes markup.

export function make(tag, about = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(about)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else if (name === "style") Object.assign(element.style, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat().filter(Boolean));
  return element;
}

export const HUB = "https://huggingface.co";
const answers = new Map();
const base = new URL(".", import.meta.url);
const root = new URL("../..", base);
let online = true;

export const address = (path) => new URL(path, root).href;

// A secret of this browser, by which a public copy knows whose a job is.
export function visitor() {
  try {
    let name = localStorage.getItem("paretoscope-visitor");
    if (!name) {
      name = [...crypto.getRandomValues(new Uint8Array(16))].map((one) => one.toString(16).padStart(2, "0")).join("");
      localStorage.setItem("paretoscope-visitor", name);
    }
    return name;
  } catch {
    return "";
  }
}

let later = 0;

// The same object again while the server says that nothing changed.
export async function get(path) {
  const known = answers.get(path);
  const headers = { "X-Visitor": visitor() };
  if (known) headers["If-None-Match"] = known.tag;
  const response = await reach(path, { headers, cache: "no-store" });
  askAgain(Number(response.headers.get("Retry-After")));
  if (response.status === 304 && known) return known.content;
  const content = await unpack(response);
  const tag = response.headers.get("ETag");
  if (tag) answers.set(path, { tag, content });
  if (answers.size > 60) answers.delete(answers.keys().next().value);
  return content;
}

// What lags behind the runs is asked for anew when the server can tell more.
function askAgain(seconds) {
  if (!(seconds > 0) || later) return;
  later = setTimeout(() => {
    later = 0;
    window.dispatchEvent(new CustomEvent("paretoscope-runs", { detail: [] }));
  }, 1000 * seconds);
}

// The answer of now, kept nowhere.
export async function ask(path) {
  return unpack(await reach(path, { headers: { "X-Visitor": visitor() }, cache: "no-store" }));
}

export async function post(path, content = {}, method = "POST") {
  const headers = { "Content-Type": "application/json", "X-Visitor": visitor(), ...await lent() };
  return unpack(await reach(path, { method, headers, body: JSON.stringify(content) }));
}

// A file, as it is.
export async function send(path, file, type) {
  return unpack(await reach(path, { method: "POST", headers: { "Content-Type": type, "X-Visitor": visitor() }, body: file }));
}

// Where the Hub lends GPUs, the page around this one knows whose time is used. Gradio tells if it does.
function lent() {
  if (window.parent === window || !window.supports_zerogpu_headers) return {};
  return new Promise((done) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = ({ data }) => { channel.port1.close(); done(data || {}); };
    window.parent.postMessage("zerogpu-headers", HUB, [channel.port2]);
  });
}

async function reach(path, options) {
  try {
    const response = await fetch(address(path), options);
    tell(true);
    return response;
  } catch {
    tell(false);
    throw new Error(`The server cannot be reached. ${options.method ? "Nothing was asked of it: try again when it is back." : "This page tries again by itself."}`);
  }
}

async function unpack(response) {
  let content = null;
  try {
    content = await response.json();
  } catch {
    throw new Error(`The server answered with status ${response.status}.`);
  }
  if (!response.ok) {
    const error = new Error(content.error || `The server answered with status ${response.status}.`);
    error.refused = true;
    throw error;
  }
  return content;
}

function tell(now) {
  if (now === online) return;
  online = now;
  window.dispatchEvent(new CustomEvent("paretoscope-online", { detail: now }));
}

export function colour(name, fallback) {
  return getComputedStyle(document.body).getPropertyValue(name).trim() || fallback;
}

// Three digits, as the server writes them.
export function short(value) {
  if (value === 0) return "0";
  return Math.abs(value) < 1e-4 ? value.toExponential(1) : Number(value.toPrecision(3)).toString();
}

export function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}\u00a0%`;
}

export function bytes(count) {
  const step = count > 0 ? Math.min(4, Math.floor(Math.log10(count) / 3)) : 0;
  return `${Number((count / 1000 ** step).toPrecision(3))} ${["", "k", "M", "G", "T"][step]}B`;
}

const SYMBOLS = {
  circle: "●", "triangle-up": "▲", square: "■", pentagon: "⬟", star: "★", cross: "✚", hexagram: "✶",
  diamond: "◆", "triangle-down": "▼", "triangle-left": "◀", "triangle-right": "▶", bowtie: "⧓", hexagon: "⬢",
};

export function sign(family) {
  return make("span", { class: "ps-sign", style: { color: family.colour }, "aria-hidden": "true", text: SYMBOLS[family.symbol] || "●" });
}

export function failure(error) {
  return make("p", { class: "ps-error", role: "alert", text: error.message || String(error) });
}

export function loading(text = "Loading…") {
  return make("p", { class: "ps-quiet", text });
}
