// The Pareto chart: axes and filters above, the same runs as a table below.

import { address, colour, failure, get, loading, make, replace, sign } from "./dom.js";
import { change, filters, pick as pickRun, view, watch } from "./view.js";

const fresh = new Set();

export async function plot(place, begun, trigger) {
  const parts = {
    controls: make("div", { class: "ps-controls" }),
    chips: make("div", { class: "ps-chips", role: "group", "aria-label": "Families shown" }),
    canvas: make("div", { class: "ps-plot", role: "figure", "aria-label": "Pareto chart; the table below holds the same runs" }),
    below: make("div", { class: "ps-below" }),
    sense: make("p", { class: "ps-quiet ps-sense" }),
    foot: make("p", { class: "ps-quiet ps-foot" }),
  };
  replace(place, parts.controls, parts.below, parts.chips, parts.canvas, parts.sense, parts.foot);
  replace(parts.canvas, loading("Loading the frontier…"));
  let start;
  try {
    start = await begun;
    await library();
  } catch (error) {
    replace(parts.canvas, failure(error));
    return;
  }
  const self = { parts, start, trigger, shown: null, drawn: false, near: {}, planned: [] };
  controls(self);
  watch((now, before) => {
    const same = ["x", "y", "limit", "ylimit", "expected"].every((name) => now[name] === before[name])
      && ["family", "model", "hardware", "protocol"].every((name) => now[name].join() === before[name].join());
    if (!same) { controls(self); refresh(self); } else if (now.run !== before.run || (now.zoom && now.zoom !== before.zoom)) draw(self);
  });
  window.addEventListener("paretoscope-runs", (event) => {
    for (const run of event.detail || []) fresh.add(run);
    get("page/start").then((found) => { self.start = found; controls(self); }, () => {});
    refresh(self);
  });
  window.addEventListener("paretoscope-plan", (event) => { self.planned = event.detail || []; if (self.drawn) draw(self); });
  window.addEventListener("paretoscope-online", (event) => event.detail && refresh(self));
  new MutationObserver(() => draw(self)).observe(document.body, { attributeFilter: ["class"] });
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; draw(self); }
  });
  await refresh(self);
}

function library() {
  if (window.Plotly) return Promise.resolve();
  return new Promise((done, failed) => {
    const script = make("script", { src: address("page/static/vendor/plotly-basic.min.js?4.1.1") });
    script.onload = done;
    script.onerror = () => failed(new Error("The drawing library could not be loaded. Reload the page."));
    document.head.append(script);
  });
}

function controls(self) {
  const { start, parts } = self;
  const now = view();
  if (!start.axes.length) return;
  const axis = (name, label) => {
    const groups = new Map();
    for (const one of start.axes) {
      if (!groups.has(one.group)) groups.set(one.group, make("optgroup", { label: one.group }));
      groups.get(one.group).append(make("option", { value: one.name, text: one.title, selected: one.name === (now[name] || start[name]) }));
    }
    return labelled(label, make("select", { "data-axis": name, onchange: (event) => change({ [name]: event.target.value === start[name] ? "" : event.target.value, [BOUNDS[name]]: "", zoom: "" }) }, ...groups.values()), start.axes.find((one) => one.name === (now[name] || start[name]))?.help);
  };
  const choice = (name, label, options) => options.length > 1 && labelled(label,
    make("select", { "data-filter": name, onchange: (event) => change({ [name]: event.target.value ? [event.target.value] : [] }) },
      make("option", { value: "", text: "All" }),
      ...options.map((one) => make("option", { value: one.id, text: one.text, selected: now[name].includes(one.id) }))));
  replace(parts.controls,
    axis("x", "Across"), limit(start, "x"), axis("y", "Up"), limit(start, "y"),
    choice("model", "Model", [...new Set([...start.models, ...now.model])].map((one) => ({ id: one, text: one }))),
    choice("hardware", "Machine", start.hardware),
    choice("protocol", "Protocol", (start.protocols || []).map((one) => ({ id: one, text: one }))));
  replace(parts.chips, ...start.families.filter((one) => one.name !== "dense").map((family) => {
    const on = !now.family.length || now.family.includes(family.name);
    return make("button", { class: "ps-chip", type: "button", "aria-pressed": String(on), onclick: () => toggle(start, family.name) }, sign(family), family.name);
  }), make("button", { class: "ps-button ps-quietly", type: "button", "aria-pressed": String(Boolean(now.expected)), title: "Draws what every method is expected to come to, hollow", text: now.expected ? "Hide estimates" : "Show estimates", onclick: () => change({ expected: now.expected ? "" : "1" }) }),
  make("button", { class: "ps-button", type: "button", text: "Reset zoom", onclick: () => self.shown && zoomOut(self) }));
}

const PREFIXES = { "": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12, ki: 2 ** 10, mi: 2 ** 20, gi: 2 ** 30, ti: 2 ** 40 };

const BOUNDS = { x: "limit", y: "ylimit" };

// Bytes with all their digits, in the unit that reads best.
function whole(count) {
  const step = Math.min(4, Math.floor(Math.log10(Math.max(1, count)) / 3));
  return `${count / 1000 ** step} ${["", "k", "M", "G", "T"][step]}B`;
}

// A bound on an axis, such as 8 GB or 20: what lies beyond is shaded.
function limit(start, side) {
  const name = BOUNDS[side];
  const axis = start.axes.find((one) => one.name === (view()[side] || start[side]));
  const bytes = axis?.unit.startsWith("B");
  const now = Number(view()[name]);
  const shown = now > 0 ? (bytes ? whole(now) : String(now)) : "";
  const entered = (event) => {
    const found = /^\s*([\d.]+)\s*(?:([kMGT]i?)?B?)?\s*$/i.exec(event.target.value);
    const value = found ? Number(found[1]) * PREFIXES[(found[2] || "").toLowerCase()] : 0;
    event.target.setCustomValidity(event.target.value.trim() && !(value > 0) ? "Write a number, such as 1.2 MB" : "");
    if (event.target.reportValidity()) change({ [name]: value > 0 ? String(value) : "" });
  };
  return labelled(axis?.direction === "higher" ? "At least" : "At most", make("input", { "data-limit": side, value: shown, placeholder: bytes ? "MB" : axis?.unit || "any", onchange: entered }));
}

function labelled(text, control, title) {
  const width = control.dataset.axis ? "ps-wide-field" : control.dataset.limit ? "ps-short-field" : "";
  return make("label", { class: `ps-field ${width}`, title }, make("span", { text }), control);
}

function toggle(start, name) {
  const all = start.families.map((one) => one.name).filter((one) => one !== "dense");
  const on = new Set(view().family.length ? view().family : all);
  if (on.has(name)) on.delete(name); else on.add(name);
  change({ family: on.size === all.length || !on.size ? [] : all.filter((one) => on.has(one)) });
}

export function question() {
  const query = filters();
  for (const name of ["x", "y", "limit", "ylimit", "expected"]) if (view()[name]) query.set(name, view()[name]);
  return query.toString();
}

async function refresh(self) {
  const asked = question();
  try {
    const found = await get(`page/figure?${asked}`);
    if (asked !== question() || found === self.base) return;
    self.base = self.shown = found;
  } catch (error) {
    if (!self.drawn) replace(self.parts.canvas, failure(error));
    else replace(self.parts.below, failure(error));
    return;
  }
  draw(self);
  below(self);
  // How surely each run stands takes a moment: it follows the first drawing.
  const judged = self.shown.points > 0 && await get(`page/figure?${asked}&judged=true`).catch(() => null);
  if (!judged || asked !== question()) return;
  self.shown = judged;
  draw(self);
  below(self);
}

function draw(self) {
  const { canvas } = self.parts;
  if (!self.shown || !canvas.isConnected) return;
  if (!self.shown.points && !self.shown.expected) {
    window.Plotly.purge(canvas);
    self.drawn = false;
    replace(canvas, make("p", { class: "ps-empty", text: self.start.axes.length
      ? "No run has both readings under these filters. Choose other axes or filters, or compress something."
      : "Nothing is measured yet. Press Compress: the dense model and the first variant appear here as they are done." }));
    return;
  }
  if (!self.drawn) replace(canvas);
  const narrow = canvas.clientWidth < 600;
  const { data, layout } = themed(self.shown.figure, narrow);
  data.push(...planned(self));
  if (layout.uirevision !== self.revision) self.near = {};
  self.revision = layout.uirevision;
  nearer(self, layout);
  for (const side of Object.keys(self.near)) Object.assign(layout[side], OWN_TICKS);
  const options = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false, doubleClick: false, modeBarButtonsToRemove: ["sendChartToCloud"], plotlyServerURL: "" };
  window.Plotly.react(canvas, data, layout, options);
  if (!self.drawn) {
    self.drawn = true;
    canvas.on("plotly_click", (event) => pick(self, event.points[0]?.customdata));
    canvas.on("plotly_relayout", (event) => ticksFor(self, event));
    canvas.on("plotly_doubleclick", () => { zoomOut(self); return false; });
  }
  canvas.dataset.drawn = String(self.shown.points);
}

// What the form is about to run, hollow, where it is expected; nothing where it is known.
function planned(self) {
  const now = view();
  if ((now.x || "resident_bytes") !== "resident_bytes" || (now.y || "kld_mean") !== "kld_mean") return [];
  const known = new Set(self.shown.table.rows.map((row) => row.recipe));
  const rows = self.planned.filter((row) => row.bytes && row.kld > 0 && !known.has(row.recipe));
  return rows.length ? [{
    type: "scatter", mode: "markers", name: "planned", x: rows.map((row) => row.bytes), y: rows.map((row) => row.kld),
    hovertemplate: rows.map((row) => `%{text}<br>expected ${row.size}, ${row.quality}${row.interval ? `<br>  95 %: ${row.interval}` : ""}<br>not run yet<extra></extra>`), text: rows.map((row) => row.recipe.replaceAll("<", "‹")),
    marker: { symbol: rows.map((row) => `${row.family.symbol}-open`), size: 11, color: rows.map((row) => row.family.colour), line: { width: 1.5 } },
  }] : [];
}

function pick(self, run) {
  if (!run) return;
  pickRun(run);
  self.trigger("pick", { run_id: run });
}

function zoomOut(self) {
  const { xaxis, yaxis } = self.shown.figure.layout;
  self.near = {};
  change({ zoom: "" });
  window.Plotly.relayout(self.parts.canvas, {
    "xaxis.range": [...xaxis.range], "yaxis.range": [...yaxis.range], "xaxis.tickmode": "array", "yaxis.tickmode": "array",
  });
}

// The ticks suit the whole; nearer by, the library finds its own.
const OWN_TICKS = { tickmode: "auto", tickformat: "~s" };

// A link shows the part of the chart that was looked at.
function nearer(self, layout) {
  const ends = view().zoom.split("_").map(Number);
  if (ends.length !== 4 || !ends.every(Number.isFinite)) return; // none, or of another making
  layout.xaxis.range = ends.slice(0, 2);
  layout.yaxis.range = ends.slice(2);
  self.near = { xaxis: true, yaxis: true };
}

function ticksFor(self, event) {
  const { xaxis, yaxis } = self.parts.canvas.layout;
  if (event["xaxis.range[0]"] !== undefined || event["yaxis.range[0]"] !== undefined) {
    change({ zoom: [...xaxis.range, ...yaxis.range].map((end) => Number(end).toPrecision(6)).join("_") });
  }
  const changed = {};
  for (const side of ["xaxis", "yaxis"]) {
    if (event[`${side}.range[0]`] === undefined || self.near[side]) continue;
    self.near[side] = true;
    for (const [name, value] of Object.entries(OWN_TICKS)) changed[`${side}.${name}`] = value;
  }
  if (Object.keys(changed).length) window.Plotly.relayout(self.parts.canvas, changed);
}

function themed(figure, narrow) {
  const { data, layout } = structuredClone(figure);
  const text = colour("--body-text-color", "#1e293b");
  const quiet = colour("--body-text-color-subdued", "#475569");
  const line = colour("--border-color-primary", "#e2e8f0");
  const accent = colour("--ps-accent", "#4f46e5");
  const ground = colour("--body-background-fill", "#fff");
  const dots = data.filter((trace) => trace.meta?.role === "dots");
  for (const trace of data) {
    if (trace.meta?.role === "frontier") {
      Object.assign(trace.line, { color: accent, dash: trace.meta.group ? "dash" : "solid" });
    } else if (trace.meta?.role === "failed") {
      trace.marker.color = colour("--ps-bad", "#b91c1c");
    } else if (trace.meta?.role === "expected-line") {
      trace.line.color = quiet;
    } else if (trace.meta?.role === "knee") {
      trace.marker.color = trace.textfont.color = accent;
      if (narrow) trace.mode = "markers";
    } else if (trace.meta?.role === "dots") {
      trace.marker.line.color = trace.marker.size.map((size) => (size > 10 ? text : ground));
      if (trace.meta.family === "dense") trace.marker.color = text;
      for (const bar of [trace.error_x, trace.error_y].filter(Boolean)) bar.color = trace.marker.color;
      trace.textfont.color = text;
      if (narrow) trace.mode = "markers";
    }
  }
  const { run } = view();
  for (const trace of dots) {
    trace.customdata.forEach((id, at) => {
      const selected = run && id.startsWith(run);
      if (!selected && !fresh.has(id)) return;
      data.push({ type: "scatter", x: [trace.x[at]], y: [trace.y[at]], mode: "markers", hoverinfo: "skip", name: selected ? "selected" : "fresh", marker: { symbol: "circle-open", size: selected ? 22 : 19, color: accent, line: { width: selected ? 2.5 : 1.5 } } });
    });
  }
  const font = { family: '"IBM Plex Sans", system-ui, sans-serif', size: 13, color: text };
  for (const side of ["xaxis", "yaxis"]) {
    Object.assign(layout[side], { gridcolor: line, linecolor: line, tickcolor: line, tickfont: { color: quiet, size: 12 } });
    layout[side].title.font = { size: 13, color: text };
    layout[side].showgrid = true;
  }
  for (const shape of layout.shapes || []) {
    if (shape.name === "limit") Object.assign(shape, { fillcolor: quiet, line: { color: quiet, width: 1 } });
    else if (shape.line) shape.line.color = quiet;
  }
  for (const note of layout.annotations || []) note.font.color = quiet;
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, height: narrow ? 360 : 460, autosize: true,
    hoverlabel: { bgcolor: colour("--block-background-fill", "#fff"), bordercolor: line, font: { ...font, size: 12.5 }, align: "left" },
  });
  if (narrow) {
    const { tickvals, ticktext } = layout.xaxis;
    const step = Math.ceil(tickvals.length / 4);
    Object.assign(layout.xaxis, { tickvals: tickvals.filter((_, at) => at % step === 0), ticktext: ticktext.filter((_, at) => at % step === 0), tickangle: 0 });
    layout.dragmode = false; Object.assign(layout.margin, { l: 64, r: 8 });
  }
  return { data, layout };
}

function below(self) {
  const { shown, parts } = self;
  parts.sense.textContent = shown.sense;
  parts.foot.textContent = shown.standing;
  replace(parts.below, shown.points === 0 && shown.expected > 0 && make("p", { class: "ps-quiet", text: "Nothing of this model is measured yet: hollow is what is expected of each method." }), shown.points > 0 && make("p", {}, make("strong", { text: shown.summary }), " ", make("span", { class: "ps-quiet", text: shown.origin })));
  window.dispatchEvent(new CustomEvent("paretoscope-figure", { detail: { table: shown.table, judged: shown !== self.base } }));
}
