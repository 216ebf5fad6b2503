// Takes in the zip that another copy exported, and says in a sentence what came of it.

import { bytes, failure, make, replace, send } from "./dom.js";

const TOLD = 3; // reasons why a run was refused
const NEW = 24; // runs that are ringed on the chart; with more the rings hide it

// The control, and where it says what became of the file; nothing on a copy that takes in none.
export function chooser(begun) {
  const told = make("p", { class: "ps-taken", role: "status" });
  const input = make("input", { type: "file", accept: ".zip,application/zip", hidden: true, "data-import": true });
  const button = make("button", { class: "ps-anchor", type: "button", title: "The zip that another copy exported", text: "Import results", onclick: () => input.click() });
  const whole = make("span", { hidden: true }, button, input, " · ");
  begun.then(({ largest }) => {
    whole.hidden = !largest;
    input.addEventListener("change", () => input.files[0] && take(input, button, told, largest));
  }, () => {});
  return [whole, told];
}

async function take(input, button, told, largest) {
  const [file] = input.files;
  button.disabled = true;
  replace(told, `Reading ${file.name}…`);
  try {
    if (file.size > largest) throw new Error(`${file.name} holds ${bytes(file.size)}; up to ${bytes(largest)} are taken in at once.`);
    const found = await send("api/v1/import", file, "application/zip");
    replace(told, sentence(found));
    if (found.added.length) window.dispatchEvent(new CustomEvent("paretoscope-runs", { detail: found.added.length > NEW ? [] : found.added }));
  } catch (error) {
    replace(told, failure(error));
  }
  button.disabled = false;
  input.value = ""; // the same file may be chosen again
}

export function sentence({ added, known, conflicting, refused }) {
  const runs = (count) => `${count} ${count === 1 ? "run" : "runs"}`;
  const parts = [`${runs(added.length)} came`, `${known.length} ${known.length === 1 ? "was" : "were"} here already`];
  if (conflicting.length) parts[1] += ` (${conflicting.length} not quite the same: what is here stays)`;
  parts.push(`${refused.length} ${refused.length === 1 ? "was" : "were"} refused`);
  const why = refused.slice(0, TOLD).map((one) => one.replace(/\.$/, "")).join("; ");
  return `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}${why && `: ${why}`}${refused.length > TOLD ? `; and ${refused.length - TOLD} more` : ""}.`;
}
