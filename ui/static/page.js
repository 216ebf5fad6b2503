// Puts each panel into the element that Gradio made for it, and keeps tabs and address in step.

import { get } from "./dom.js";
import { change, linkBase, view, watch } from "./view.js";
import { answer } from "./answer.js";
import { card } from "./card.js";
import { compare } from "./compare.js";
import { header } from "./header.js";
import { jobs } from "./jobs.js";
import { methods } from "./methods.js";
import { plot } from "./plot.js";
import { setup } from "./setup.js";
import { table } from "./table.js";

const PANELS = { answer, card, compare, header, jobs, methods, plot, setup, table };
const begun = get("page/start").then((start) => {
  linkBase(start.link);
  return start;
});

export function mount(name, element, trigger) {
  const place = element.querySelector("[data-panel]") || element;
  if (place.dataset.mounted) return;
  place.dataset.mounted = "yes";
  PANELS[name](place, begun, trigger || (() => {}));
}

const tabs = () => [...document.querySelectorAll("button[role=tab]")];

function openTab(name) {
  const wanted = tabs().find((tab) => tab.textContent.trim().toLowerCase() === name);
  if (wanted && wanted.getAttribute("aria-selected") !== "true") wanted.click();
  return Boolean(wanted);
}

document.addEventListener("click", (event) => {
  const tab = event.target.closest?.("button[role=tab]");
  if (!tab) return;
  const name = tab.textContent.trim().toLowerCase();
  if (name !== (view().tab || "explore")) change({ tab: name === "explore" ? "" : name });
});

watch((now, before) => {
  if (now.tab !== before.tab) openTab(now.tab || "explore");
});

async function begin() {
  const slug = new URLSearchParams(location.search).get("share");
  if (slug) {
    try {
      change(await get(`api/v1/shares/${encodeURIComponent(slug)}`));
      window.dispatchEvent(new CustomEvent("paretoscope-shared"));
    } catch {
      change({});
    }
  }
  for (let turn = 0; view().tab && turn < 100 && !openTab(view().tab); turn += 1) {
    await new Promise((done) => setTimeout(done, 50));
  }
}

begin();
