// Live jobs: asked for often while any runs, seldom while none does, rarely while nobody looks.

import { ask as fetched, failure, make, post, replace } from "./dom.js";
import { change } from "./view.js";

const SHOWN = 8;
const KEPT = 32; // that are over
const PACE = 6000; // milliseconds at least between two words to the panels
const self = { place: null, timer: 0, known: null, fresh: [], again: false, pause: 0, whole: false };

export function jobs(place) {
  self.place = place;
  self.list = make("div", { class: "ps-jobs" });
  self.told = make("div", { class: "ps-told", role: "status", "aria-live": "polite" });
  replace(place, make("h2", { text: "Jobs" }), self.told, self.list);
  window.addEventListener("paretoscope-jobs", ask);
  window.addEventListener("paretoscope-online", () => replace(self.told));
  document.addEventListener("visibilitychange", () => !document.hidden && ask());
  ask();
}

// What the form asks for: recipes with their budgets; the dense model, which all are measured by,
// goes first where there are several.
export async function submit(shared, rows) {
  replace(self.told, make("p", { class: "ps-quiet", text: "Asking…" }));
  const done = [];
  try {
    for (const row of [...(rows.length > 1 ? [{ recipe: "dense", budget: {} }] : []), ...rows]) {
      done.push(await post("api/v1/jobs", { ...shared, recipe: row.recipe, budget: row.budget }));
    }
    const known = done.filter((one) => one.outcome === "cached");
    if (done.length === 1 && known.length) change({ run: done[0].run_id, tab: "" });
    replace(self.told, known.length > 0 && make("p", { class: "ps-quiet", text: done.length === 1 ? "This was measured before; here is its result." : `${known.length} of ${done.length} were measured before.` }),
      done.length === 1 && done[0].outcome === "joined" && make("p", { class: "ps-quiet", text: "This is under way already." }));
  } catch (error) {
    replace(self.told, failure(error));
  }
  ask();
}

async function ask() {
  clearTimeout(self.timer);
  let active = false;
  try {
    const found = await latest();
    active = found.jobs.some((job) => job.active);
    if (found !== self.known) {
      announce(self.known, found);
      self.known = found;
      show(found);
    } else if (active) clocks(found.jobs);
  } catch (error) {
    if (!self.known) replace(self.list, failure(error));
  }
  self.timer = setTimeout(ask, document.hidden ? 15000 : active ? 1000 : 5000);
}

// All that are under way and the newest that are over, once; then only what changed since.
async function latest() {
  const { known } = self;
  const found = await fetched(`api/v1/jobs?limit=${KEPT}${known ? `&since=${known.revision}` : ""}`);
  if (!known) return found;
  if (found.revision < known.revision) { self.known = null; return latest(); } // another store
  if (!found.jobs.length) return known;
  const changed = new Set(found.jobs.map((job) => job.job_id));
  const jobs = [...found.jobs, ...known.jobs.filter((job) => !changed.has(job.job_id))];
  jobs.sort((a, b) => b.created - a.created || (a.job_id < b.job_id ? 1 : -1));
  let over = 0;
  return { ...found, jobs: jobs.filter((job) => job.active || (over += 1) <= KEPT) };
}

function announce(before, after) {
  if (!before) return;
  const done = new Set(before.jobs.filter((job) => !job.active).map((job) => `${job.job_id}${job.state}`));
  const over = after.jobs.filter((job) => !job.active && !done.has(`${job.job_id}${job.state}`));
  if (over.length) {
    self.fresh.push(...over.filter((job) => job.state === "done").map((job) => job.run_id));
    self.again = true;
    if (!self.pause) tell();
  }
}

// Panels ask anew at once when a run is over, and seldom while many are.
function tell() {
  self.pause = self.again ? setTimeout(tell, PACE) : 0;
  if (!self.again) return;
  self.again = false;
  window.dispatchEvent(new CustomEvent("paretoscope-runs", { detail: self.fresh.splice(0) }));
}

function show({ jobs: all, count }) {
  if (!all.length) {
    replace(self.list, make("p", { class: "ps-quiet", text: "No job yet. Closing this page stops nothing: jobs go on and are found again." }));
    return;
  }
  const order = [...all.filter((job) => job.active && job.state === "running"), ...all.filter((job) => job.state === "queued").reverse(), ...all.filter((job) => !job.active)];
  const focused = document.activeElement?.dataset?.key;
  const waiting = all.filter((job) => job.state === "queued" && job.may_change);
  const hidden = Math.max(0, order.length - SHOWN);
  const more = hidden > 0 && make("button", { class: "ps-button ps-small", type: "button", "data-key": "more", text: self.whole ? "Show fewer" : `Show ${hidden} more`, onclick: () => { self.whole = !self.whole; show(self.known); } });
  const stop = waiting.length > 1 && make("button", { class: "ps-button ps-small", type: "button", "data-key": "stop", text: `Cancel the ${waiting.length} that wait`, onclick: () => cancel(waiting) });
  replace(self.list, stop, ...order.slice(0, self.whole ? order.length : SHOWN).map(row), more, count > order.length && make("p", { class: "ps-quiet", text: `${count - order.length} older ones are over.` }));
  if (focused) self.list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function row(job) {
  const share = job.total > 0 ? Math.min(100, Math.round(100 * job.done / job.total)) : 0;
  const percent = job.state === "done" ? 100 : share;
  const act = (name, text, title) => make("button", { class: "ps-button ps-small", type: "button", text, "aria-label": `${title} ${job.recipe}`, title, "data-key": `${job.job_id}-${name}`, onclick: () => order(job, name) });
  const bad = ["failed", "timeout"].includes(job.state);
  return make("div", { class: `ps-job ps-is-${job.state}`, "data-job": job.job_id, "data-run": job.run_id },
    make("div", { class: "ps-job-head" },
      job.state === "done" ? make("button", { class: "ps-textual", type: "button", text: job.recipe, onclick: () => change({ run: job.run_id, tab: "" }) }) : make("strong", { text: job.recipe }),
      make("span", { class: "ps-state", text: job.state }),
      job.may_change && job.active && act("cancel", "✕", "Cancel"),
      job.may_change && !job.active && job.state !== "done" && act("retry", "↻", "Try again"),
      job.state !== "done" && job.state !== "queued" && act("log", "log", "Show the log of")),
    job.state !== "done" && make("div", { class: "ps-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(percent), "aria-label": `${job.recipe}: ${job.state}` }, make("i", { style: { width: `${percent}%` } })),
    make("div", { class: "ps-job-foot" },
      make("span", { text: bad ? job.reason : job.state === "running" ? job.stage || "starting" : job.state === "queued" ? "waits for its turn" : job.model }),
      make("span", { class: "ps-clock", text: clock(job) })));
}

function clock(job) {
  if (!job.started) return "";
  const seconds = Math.max(0, Math.round((job.ended || Date.now() / 1000) - job.started));
  const spent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  const left = job.active && job.expected ? Math.round(job.expected - seconds) : 0;
  return left > 0 ? `${spent} · ≈ ${left < 90 ? `${left} s` : `${Math.round(left / 60)} min`} left` : spent;
}

function clocks(all) {
  for (const job of all) {
    const place = job.state === "running" && self.list.querySelector(`[data-job="${CSS.escape(job.job_id)}"] .ps-clock`);
    if (place) place.textContent = clock(job);
  }
}

async function cancel(waiting) {
  for (const job of waiting) {
    await post(`api/v1/jobs/${encodeURIComponent(job.job_id)}/cancel`).catch((error) => replace(self.told, failure(error)));
  }
  ask();
}

async function order(job, name) {
  try {
    if (name === "log") {
      const { log } = await fetched(`api/v1/jobs/${encodeURIComponent(job.job_id)}/log`);
      replace(self.told, make("pre", { class: "ps-log", tabindex: "0", "aria-label": `Log of ${job.recipe}`, text: log || "It printed nothing." }),
        make("button", { class: "ps-button ps-small", type: "button", text: "Close log", onclick: () => replace(self.told) }));
      return;
    }
    await post(`api/v1/jobs/${encodeURIComponent(job.job_id)}/${name}`);
    ask();
  } catch (error) {
    replace(self.told, failure(error));
  }
}
