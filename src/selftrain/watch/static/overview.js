// All runs of a folder, each a line that follows the run.
import { follow, get } from "./api.js";
import { h, keep, put, spark } from "./dom.js";
import { STATES, num, percent, plural, points } from "./format.js";

export async function showOverview(main) {
  const found = await get("runs");
  if (found.single) {
    location.replace(`#/run/${encodeURIComponent(found.runs[0].id)}`);
    return { stop() {} };
  }
  document.title = `${found.root} · selftrain watch`;
  put(document.getElementById("crumbs"), h("span", { class: "brand" }, "selftrain"), h("a", { href: "#/", "aria-current": "page" }, found.root));
  const list = h("div", { class: "runs" }), empty = nothing();
  const count = h("p", { class: "soft" });
  put(main, h("section", { class: "pad" }, h("div", { class: "heading" }, h("h1", {}, "Runs"), count), list));
  const cards = new Map();
  const draw = (runs) => {
    put(count, runs.length ? plural(runs.length, "run") : "");
    for (const run of runs) {
      if (!cards.has(run.id)) cards.set(run.id, card(run));
      cards.get(run.id).show(run);
    }
    keep(list, runs.length ? runs.map((run) => cards.get(run.id).element) : [empty]);
  };
  draw(found.runs);
  const link = document.getElementById("link");
  const stream = follow(
    () => ({}),
    (name, data) => name === "runs" && draw(data.runs),
    (words) => put(link, words),
  );
  return { stop: () => stream.stop() };
}

const nothing = () =>
  h("div", { class: "empty" }, h("p", {}, "There is no run in this folder yet."), h("p", { class: "soft" }, "Start one with ", h("code", {}, "selftrain train"), "; it appears here by itself."));

/** A line of the list. Its name stays the element it was as `show` brings the rest up to date, so that a click or the focus is not lost meanwhile. */
function card(run) {
  const name = h("a", { href: `#/run/${encodeURIComponent(run.id)}`, "data-line": run.id, class: "name" });
  const state = pill(run.state), facts = h("p", { class: "soft" }), who = h("div", { class: "who" }, h("div", {}, name, " ", state), facts);
  const element = h("article", { class: "run" }, who);
  return {
    element,
    show(now) {
      put(name, now.name);
      showState(state, now.state);
      put(facts, now.state === "damaged" ? now.error : `${now.model} · ${now.labels} · ${now.prompts}`);
      keep(element, [who, ...(now.state === "damaged" ? [] : course(now))]);
    },
  };
}

/** How far a run is, its last numbers and its accuracy. */
function course(run) {
  const before = Object.entries(run.accuracy.before ?? {})[0], after = Object.entries(run.accuracy.after ?? {})[0];
  return [
    h("div", { class: "far" }, h("div", { class: "track", role: "img", "aria-label": `${run.steps_done} of ${run.num_steps} steps` }, progress(run)), h("p", { class: "soft" }, `step ${run.steps_done} of ${run.num_steps}${run.branch ? `, branch ${run.branch}` : ""}`)),
    h("dl", { class: "figures" },
      figure("vote share", percent(run.last["vote/share_mean_frac"])),
      figure("entropy", num(run.last["policy/entropy_mean_nats"], 3)),
      figure("findings", run.findings || "none")),
    h("div", { class: "course" }, spark(run.spark), h("span", { class: "soft" }, before ? `${before[0]} ${points(before[1].value)}${after ? ` → ${points(after[1].value)}` : ""} %` : "not evaluated")),
  ];
}

const figure = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
export const pill = (state) => showState(h("span", {}), state);
export const progress = (run) => showProgress(h("span", {}), run);

export function showState(element, state) {
  element.className = `pill ${state}`;
  return put(element, STATES[state] ?? state);
}

export function showProgress(bar, run) {
  bar.style.width = `${Math.min(100, (100 * run.steps_done) / Math.max(1, run.num_steps))}%`;
  return bar;
}
