// Two moments of a run on one prompt, side by side: two visits of training, or two evaluations. Each says which checkpoint sampled there.
import { get } from "./api.js";
import { h, put } from "./dom.js";
import { checkpointWords, measure, place, plural } from "./format.js";
import { SCROLLS, completionList, labelFacts, voteBar } from "./group.js";

let choosing = "";

/** What a choice does. The page is made anew by it, and `refocus` gives the choice the focus back. */
const chosen = (act) => (event) => {
  choosing = event.target.id;
  act(event.target.value);
};

function refocus() {
  if (choosing) document.getElementById(choosing)?.focus();
  choosing = "";
}

export async function compareTab(body, context, { query }) {
  const evaluations = context.run.evaluations.filter((one) => one.num_examples);
  if (query.kind === "evaluations" || (!query.prompt && evaluations.length > 1 && query.kind !== "steps")) return compareEvaluations(body, context, query, evaluations);
  if (!query.prompt) return choosePrompt(body, context, evaluations);
  const { visits } = await get("history", { run: context.id, prompt: query.prompt });
  if (!visits.length) return choosePrompt(body, context, evaluations);
  const keys = visits.map((one) => `${one.branch}.${one.step}.${one.index}`);
  const a = keys.includes(query.a) ? query.a : keys[0], b = keys.includes(query.b) ? query.b : keys.at(-1);
  const to = (more) => (location.hash = context.link("compare", { prompt: query.prompt, a, b, ...more }));
  const pick = (name, value) => h("select", { id: `side-${name}`, "aria-label": `Side ${name}`, onchange: chosen((value) => to({ [name]: value })) }, visits.map((one, at) => h("option", { value: keys[at], selected: keys[at] === value }, `${place(one.branch, one.step)}${by(context.run, one.branch, one.step)}${one.counts ? "" : " (left behind)"}`)));
  const sides = await Promise.all([a, b].map(async (name) => {
    const [branch, step, index] = name.split(".");
    return get("group", { run: context.id, branch, step, index });
  }));
  const colours = [...new Set(sides.flatMap((group) => group.votes.map((one) => one.key)))]; // an answer has one colour on both sides
  for (const group of sides) group.colours = colours;
  put(body, kinds(context, evaluations, "steps"),
    h("section", { class: "asked" }, h("h2", {}, "Prompt ", h("code", {}, query.prompt)), h("pre", SCROLLS, sides[0].messages.at(-1).content)),
    h("div", { class: "sides" }, sides.map((group, at) => {
      const list = h("div", { class: "completions" });
      const picker = completionList(list, context, group, 12);
      picker.show();
      return h("section", { class: "side" }, h("h2", {}, pick("ab"[at], [a, b][at])), voteBar(group, picker), labelFacts(group), picker.state, list);
    })));
  refocus();
  return {};
}

function kinds(context, evaluations, current) {
  const both = [["steps", "Two steps of training"], ...(evaluations.length ? [["evaluations", "Two evaluations"]] : [])];
  return h("nav", { class: "row kinds", "aria-label": "What to compare" }, both.map(([kind, words]) => h("a", { class: "chip", href: context.link("compare", { kind }), "aria-current": kind === current ? "true" : null }, words)));
}

/** " (checkpoint step-000020)" where the policy that sampled a step is one of the checkpoints on the disk, or " (the start)"; else nothing. */
function by(run, branch, step) {
  const found = run.checkpoints.find((one) => one.branch === branch && one.step === step);
  return found ? ` (${found.name === "start" ? "" : "checkpoint "}${checkpointWords(found.name)})` : "";
}

function sampledBy(run, name) {
  if (name === "after" && run.handed_over) return ` (${run.handed_over === "start" ? "" : "checkpoint "}${checkpointWords(run.handed_over)})`;
  return name !== "before" && run.branches.length ? "" : by(run, 0, run.evaluations.find((one) => one.name === name).step);
}

/** The prompts that have something to compare: those with two visits or more, to search and choose from. */
async function choosePrompt(body, context, evaluations) {
  const list = h("div", { class: "lines", id: "choices" });
  const count = h("p", { class: "soft", id: "count", role: "status" });
  const search = h("input", { id: "find-prompt", type: "search", placeholder: "prompt or id", oninput: () => { clearTimeout(timer); timer = setTimeout(load, 180); } });
  let timer = 0, asked = 0;
  async function load() {
    const mine = ++asked, text = search.value.trim();
    const found = await get("prompts", { run: context.id, text, limit: 50 });
    if (mine !== asked) return;
    put(count, found.total ? `${plural(found.total, "prompt")} with two visits or more${found.total > found.rows.length ? `, the first ${found.rows.length} shown` : ""}` : "");
    put(list, found.rows.map((one) => h("a", { class: "line choice", "data-line": one.id, href: context.link("compare", { prompt: one.id }) }, h("span", { class: "prompt" }, one.text), h("span", { class: "soft" }, plural(one.visits, "visit")))),
      found.rows.length ? null : h("p", { class: "soft empty" }, text ? "No such prompt was visited twice." : "No prompt was visited twice yet: there is nothing to compare."));
  }
  put(body, kinds(context, evaluations, "steps"), h("div", { class: "row" }, h("label", { for: "find-prompt" }, "Prompt"), search), count, list);
  await load();
  return { reload: load, stop: () => clearTimeout(timer) };
}

async function compareEvaluations(body, context, query, evaluations) {
  if (!evaluations.length) return choosePrompt(body, context, evaluations);
  const names = evaluations.map((one) => one.name);
  const a = names.includes(query.a) ? query.a : names[0], b = names.includes(query.b) ? query.b : names.at(-1);
  const found = await Promise.all([a, b].map((name) => get("example", { run: context.id, name, prompt: query.prompt })));
  const prompts = found[0].prompts.filter((one) => found[1].prompts.some((other) => other.id === one.id));
  const prompt = prompts.find((one) => one.id === query.prompt) ?? prompts[0];
  const sides = prompt && prompt.id !== query.prompt ? await Promise.all([a, b].map((name) => get("example", { run: context.id, name, prompt: prompt.id }))) : found;
  const to = (more) => (location.hash = context.link("compare", { kind: "evaluations", a, b, prompt: prompt?.id, ...more }));
  const pick = (side, value) => h("select", { id: `side-${side}`, "aria-label": `Side ${side}`, onchange: chosen((value) => to({ [side]: value })) }, evaluations.map((one) => h("option", { value: one.name, selected: one.name === value }, one.name, sampledBy(context.run, one.name), one.counts ? "" : " (left behind)")));
  put(body, kinds(context, evaluations, "evaluations"),
    h("div", { class: "row" }, h("label", { for: "problem" }, "Problem"), h("select", { id: "problem", onchange: chosen((value) => to({ prompt: value })) }, prompts.map((one) => h("option", { value: one.id, selected: one.id === prompt?.id }, one.text.slice(0, 90))))),
    prompt ? h("section", { class: "asked" }, h("h2", {}, "Problem ", h("code", {}, prompt.id)), h("pre", SCROLLS, prompt.text), h("p", {}, "True answer: ", h("b", {}, sides[0].example.reference), h("span", { class: "soft" }, " (for evaluation only)"))) : null,
    h("div", { class: "sides" }, sides.map((side, at) => {
      const whole = evaluations.find((one) => one.name === [a, b][at]);
      return h("section", { class: "side" }, h("h2", {}, pick("ab"[at], [a, b][at])),
        h("dl", { class: "facts" }, Object.entries(whole.measures).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, measure(value))))),
        h("div", { class: "completions" }, (side.example?.completions ?? []).map((one, number) => h("article", { class: "completion" },
          h("header", {}, h("span", { class: "soft number" }, number + 1), h("span", { class: `reward ${one.is_right ? "good" : "none"}` }, one.is_right ? "right" : "wrong"), h("span", { class: "key" }, one.answer ?? "unread"), one.is_truncated ? h("span", { class: "soft" }, "truncated") : null),
          h("pre", SCROLLS, one.text)))));
    })));
  refocus();
  return {};
}
