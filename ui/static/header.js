// The name, what it promises, and the link to what is seen now.

import { make, post, replace } from "./dom.js";
import { link, view, watch } from "./view.js";

export function header(place, begun) {
  const notice = make("div", { class: "ps-notice", role: "status", hidden: true });
  const offline = make("div", { class: "ps-notice ps-offline", role: "status", hidden: true, text: "The server cannot be reached. What you see is the last that was known; this page tries again by itself." });
  const field = make("input", { class: "ps-link", readonly: true, "aria-label": "Link to this view", onfocus: (event) => event.target.select() });
  const copy = make("button", { class: "ps-button", type: "button", text: "Copy link", onclick: () => copied(field, copy) });
  const short = make("button", { class: "ps-button", type: "button", text: "Short link", title: "Keeps this view under a short name on this copy", onclick: () => shorten(field, short) });
  window.addEventListener("paretoscope-online", (event) => { offline.hidden = event.detail; });
  const update = () => { field.value = link(); };
  watch(update);
  begun.then((start) => {
    update();
    if (start.notice) { notice.textContent = start.notice; notice.hidden = false; }
  }, () => {});
  update();
  const skip = () => document.querySelector("button[role=tab][aria-selected=true]")?.focus();
  replace(place,
    make("button", { class: "ps-button ps-skip", type: "button", text: "Skip to the results", onclick: skip }),
    make("div", { class: "ps-header" },
      make("div", { class: "ps-name" },
        make("h1", { text: "Paretoscope" }),
        make("p", { text: "What compressing a language model really costs: bytes, speed and quality, measured on the very artefact." })),
      make("div", { class: "ps-share" }, field, copy, short)),
    offline, notice);
}

async function copied(field, button) {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    document.execCommand("copy"); // plain http on another machine has no clipboard
  }
  said(button, "Copied");
}

async function shorten(field, button) {
  try {
    const { slug } = await post("api/v1/share", { view: view() });
    field.value = `${link().split("?")[0]}?share=${slug}`;
    await copied(field, button);
  } catch (error) {
    said(button, error.message);
  }
}

function said(button, text) {
  const before = button.dataset.text || button.textContent;
  button.dataset.text = before;
  button.textContent = text;
  setTimeout(() => { button.textContent = before; }, 1600);
}
