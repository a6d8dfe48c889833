// One run: its heading with the buttons, its tabs, and the stream that keeps them up to date.
import { follow, get, hasToken } from "./api.js";
import { controls } from "./control.js";
import { compareTab } from "./compare.js";
import { curvesTab } from "./curves.js";
import { h, put, say } from "./dom.js";
import { afterSteps, plural } from "./format.js";
import { groupTab } from "./group.js";
import { groupsTab } from "./groups.js";
import { pill, progress, showProgress, showState } from "./overview.js";
import { recordTab } from "./record.js";

const TABS = [["curves", "Curves", curvesTab], ["groups", "Groups", groupsTab], ["compare", "Compare", compareTab], ["record", "Record", recordTab]];

export async function showRun(main, id, path, query) {
  let run = await get("run", { run: id });
  const base = `#/run/${encodeURIComponent(id)}`;
  const heading = h("section", { class: "run-head" });
  const links = TABS.map(([name, label]) => h("a", { href: `${base}/${name}` }, label));
  const tabs = h("nav", { class: "tabs", "aria-label": "Parts of the run" }, links);
  const body = h("div", { class: "tab" });
  put(main, heading, tabs, body);
  let tab = null, current = "";

  const context = {
    id, base,
    listed: {},
    get run() { return run; },
    link: (name, more) => `${base}/${name}${more ? `?${new URLSearchParams(Object.entries(more).filter(([, value]) => value !== undefined && value !== "" && value !== null))}` : ""}`,
  };

  put(document.getElementById("crumbs"), h("span", { class: "brand" }, "selftrain"), h("a", { href: "#/" }, "runs"), h("a", { href: base, "aria-current": "page" }, run.name));
  const state = pill(run.state), bar = progress(run), where = h("span", { class: "soft", id: "where" }), asked = h("div", {});
  const track = h("div", { class: "track", role: "img" }, bar);
  put(heading,
    h("div", { class: "title" }, h("h1", {}, run.name), state,
      h("p", { class: "soft" }, [run.model, `label source ${run.labels}`, run.prompts, run.label_free ? "label-free" : "uses true answers"].join(" · ")),
      h("div", { class: "far" }, track, where)),
    asked);
  let buttons = "";

  /** What changes as the run goes. Elements stay the ones they were: a click, or the focus, must not be lost because a step was done meanwhile. */
  function head() {
    document.title = `${run.name} · ${run.state === "running" ? `step ${run.steps_done}` : run.state} · selftrain`;
    showState(state, run.state);
    showProgress(bar, run);
    track.setAttribute("aria-label", `${run.steps_done} of ${run.num_steps} steps`);
    put(where, `step ${run.steps_done} of ${run.num_steps}`, run.branch ? `, branch ${run.branch}` : "", run.findings ? `, ${plural(run.verdicts.length, "step")} with findings` : "");
    TABS.forEach(([name], at) => (current === name ? links[at].setAttribute("aria-current", "page") : links[at].removeAttribute("aria-current")));
    const wanted = JSON.stringify([run.state, run.handed_over, run.verdicts.length > 0, hasToken()]);
    if (wanted === buttons) return;
    buttons = wanted;
    const focused = asked.contains(document.activeElement) ? document.activeElement.id : "";
    put(asked, controls(context));
    if (focused) (document.getElementById(focused) ?? document.getElementById({ pause: "resume", resume: "pause" }[focused] ?? ""))?.focus();
  }

  async function go(parts, asked) {
    const name = parts[0] ?? "curves";
    current = name === "group" ? "groups" : name;
    head();
    tab?.stop?.();
    put(body);
    const make = name === "group" ? groupTab : (TABS.find(([key]) => key === name) ?? TABS[0])[2];
    tab = await make(body, context, { parts: parts.slice(1), query: asked });
  }

  function change(data) {
    const before = run.state, taken = run.requests.length;
    run = { ...run, ...data.state, ...(data.happenings ?? {}), evaluations: data.evaluations ?? run.evaluations };
    run.findings = run.verdicts.length;
    for (const request of run.requests.slice(taken)) {
      const what = request.action.replace("_", " ");
      say(request.refused ? `Not done: ${what}: ${request.refused}.` : `The run took up: ${what}${request.checkpoint ? ` to ${request.checkpoint}` : ""}, ${afterSteps(request.step)}.`, request.refused ? "bad" : "");
    }
    head();
    if (before === "running" && run.state === "done") say("The run has finished.");
    if (before !== "halted" && run.state === "halted") say("The guard has halted the run.", "bad");
    tab?.update?.(data);
  }

  await go(path, query);
  const link = document.getElementById("link");
  const stream = follow(
    () => ({ run: id, seq: run.seq, generation: run.generation }),
    async (name, data) => {
      if (name === "change") change(data);
      if (name === "reload") {
        run = await get("run", { run: id });
        head();
        tab?.reload?.();
      }
    },
    (words, why) => {
      put(link, words);
      if (why) say(why, "bad");
    },
  );
  const find = () => {
    if (!document.getElementById("search")) location.hash = context.link("groups", context.listed);
    setTimeout(() => document.getElementById("search")?.focus(), 60);
  };
  const jump = Object.fromEntries(TABS.map(([name], at) => [String(at + 1), () => (location.hash = context.link(name))]));
  return {
    run: id,
    go,
    stop() { stream.stop(); tab?.stop?.(); },
    get keys() { return { ...jump, "/": find, ...(tab?.keys ?? {}) }; },
  };
}
