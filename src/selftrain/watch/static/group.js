// One group: the prompt, the vote as a bar, who decided, every completion with its answer, and this prompt over the steps.
import { get } from "./api.js";
import { h, put } from "./dom.js";
import { admissionWords, num, outcomeWords, percent, place, plural, signed } from "./format.js";

const PAGE = 24;
const COLOURS = 6;
/** of a text that may be longer than its box: keys scroll it */
export const SCROLLS = { tabindex: 0, role: "region", "aria-label": "Text" };

export async function groupTab(body, context, { parts }) {
  const [branch, step, index] = parts;
  const group = await get("group", { run: context.id, branch, step, index });
  const visits = group.history, here = visits.findIndex((one) => one.branch === group.branch && one.step === group.step && one.index === group.group_index);
  const list = h("div", { class: "completions", id: "completions" });
  const picker = completionList(list, context, group, PAGE);
  const near = (by) => (group.group_index + by >= 0 && group.group_index + by < group.size ? context.link(`group/${branch}/${step}/${group.group_index + by}`) : null);
  const visit = (by) => (visits[here + by] ? context.link(`group/${visits[here + by].branch}/${visits[here + by].step}/${visits[here + by].index}`) : null);
  const go = (where) => where && (location.hash = where);
  put(body,
    h("nav", { class: "row between inspect-nav", "aria-label": "Groups near this one" },
      h("p", {}, h("a", { href: context.link("groups", { step }) }, `groups of ${place(group.branch, group.step)}`), h("span", { class: "soft" }, ` · group ${group.group_index + 1} of ${group.size}`)),
      h("p", { class: "row" }, link("← previous", near(-1)), link("next →", near(1)))),
    h("article", { class: "inspect" },
      h("section", { class: "asked" }, h("h2", {}, "Prompt ", h("code", {}, group.prompt_id)), group.messages.map((one) => h("div", { class: `turn ${one.role}` }, group.messages.length > 1 ? h("b", {}, one.role) : null, h("pre", SCROLLS, one.content)))),
      h("section", { class: "decided" }, h("h2", {}, "Vote"), voteBar(group, picker), labelFacts(group), extraSamples(group, context)),
      h("section", {}, h("div", { class: "row between" }, h("h2", {}, "Completions"), picker.state), list),
      h("section", { class: "visits" }, h("div", { class: "row between" }, h("h2", {}, "This prompt over the steps"), visits.length > 1 ? h("a", { href: context.link("compare", { prompt: group.prompt_id, a: key(visits[0]), b: key(group) }) }, "side by side") : null), visitTable(visits, here, context))));
  await picker.show();
  return { keys: { n: () => go(near(1)), p: () => go(near(-1)), "[": () => go(visit(-1)), "]": () => go(visit(1)), Escape: () => go(context.link("groups", Object.keys(context.listed).length ? context.listed : { step })) } };
}

const key = (one) => `${one.branch}.${one.step}.${one.index ?? one.group_index}`;
const link = (words, where) => (where ? h("a", { class: "step", href: where }, words) : h("span", { class: "soft" }, words));
const clusterClass = (group, text) => {
  const at = (group.colours ?? group.votes.map((one) => one.key)).indexOf(text);
  return text === null || at < 0 ? "unread" : at < COLOURS ? `c${at}` : "rest";
};

/** The vote as a bar; each part is a button that shows only its completions. picker: null for a bar that is only looked at. */
export function voteBar(group, picker) {
  const unread = group.num_votes - group.num_read;
  const parts = [...group.votes.map((one) => ({ ...one, words: one.key })), ...(unread ? [{ key: null, count: unread, words: "unread" }] : [])];
  const bar = h("div", { class: "bar-parts" }, parts.map((one) => {
    const share = one.count / group.num_votes;
    const name = `${one.words}: ${one.count} of ${group.num_votes} votes, ${percent(share)}`;
    const part = picker
      ? h("button", { type: "button", class: `part ${clusterClass(group, one.key)}`, "aria-label": `${name}. Show only these.`, title: name, onclick: () => picker.only(one.key ?? "") })
      : h("span", { class: `part ${clusterClass(group, one.key)}`, title: name });
    part.style.flexGrow = String(one.count);
    return part;
  }));
  const shown = parts.slice(0, 8);
  return h("div", { class: "vote-bar" }, bar,
    h("ul", { class: "clusters" }, shown.map((one) => h("li", {}, h("i", { class: `dot ${clusterClass(group, one.key)}`, "aria-hidden": "true" }), h("span", { class: "key" }, one.words), h("b", {}, one.count), h("span", { class: "soft" }, percent(one.count / group.num_votes)))),
      parts.length > shown.length ? h("li", { class: "soft" }, `and ${plural(parts.length - shown.length, "more answer")}`) : null));
}

/** Where the label comes from and what follows from it. */
export function labelFacts(group) {
  const first = group.votes[0]?.count ?? 0, second = group.votes[1]?.count ?? 0;
  const rows = [
    ["Label", group.label_key ?? (group.label_targets ? "one for each completion" : "none")],
    ["Outcome", outcomeWords(group.label_outcome)],
    ["Decided by", `${group.label_decided_by} (${group.label_source})`],
    ["True answers", group.label_uses_truth ? "touched this label" : "not used"],
    ["Share, margin", `${percent(first / Math.max(1, group.num_votes))}, ${percent((first - second) / Math.max(1, group.num_votes))}`],
    ["Read", `${group.num_read} of ${group.num_votes}`],
    ...(group.label_weight === 1 && group.label_offset === 0 ? [] : [["Weight, offset", `${num(group.label_weight)}, ${num(group.label_offset)}`]]),
    ["Then", admissionWords(group.admission)],
    ["Policy", group.policy_version ?? "several versions"],
  ];
  return h("dl", { class: "facts" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** What was sampled beyond the votes: a teacher's answers, a judge's verdicts, second turns. */
function extraSamples(group, context) {
  if (!group.extras.length) return null;
  return h("section", { class: "extras" }, h("h2", {}, "Extra samples"), group.extras.map((extra) => {
    const list = h("div", { class: "completions" });
    const picker = completionList(list, context, { ...extra, branch: group.branch, step: group.step }, 12);
    let shown = false;
    return h("details", { ontoggle: () => { if (!shown) picker.show(); shown = true; } },
      h("summary", {}, `${extra.role}: ${extra.votes.map((one) => `${one.key} ×${one.count}`).join(", ") || "nothing read"}`),
      h("p", { class: "soft" }, `policy ${extra.policy_version ?? "of several versions"}`), extra.messages.slice(extra.role === "correction" ? -2 : -1).map((one) => h("pre", SCROLLS, one.content)), list);
  }));
}

/** The completions of a group, some at a time; `only(key)` keeps those of one cluster, `only(null)` shows all again. */
export function completionList(list, context, group, size) {
  let cluster = null, shown = 0;
  const state = h("p", { class: "soft", role: "status" });
  async function show(anew = true) {
    const at = { run: context.id, branch: group.branch, step: group.step, index: group.group_index, offset: anew ? 0 : shown, limit: size };
    const found = await get("completions", { ...at, cluster }); // the empty text: those without an answer
    if (anew) put(list);
    list.querySelector(".actions")?.remove();
    shown = (anew ? 0 : shown) + found.completions.length;
    for (const one of found.completions) list.append(completion(one, group));
    if (shown < found.total) list.append(h("p", { class: "actions" }, h("button", { type: "button", onclick: () => show(false) }, `Show more (${(found.total - shown).toLocaleString("en")} left)`)));
    put(state, cluster === null ? plural(found.total, "completion") : [`${found.total} ${cluster ? `with the answer ${cluster}` : "unread"} · `, h("button", { type: "button", class: "linklike", onclick: () => only(null) }, "show all")]);
  }
  const only = (text) => { cluster = text; return show(true); };
  return { show, only, state };
}

function completion(one, group) {
  const reward = one.reward === null ? "no reward" : `reward ${num(one.reward, 3)}`;
  const facts = [
    h("span", { class: "key" }, h("i", { class: `dot ${clusterClass(group, one.answer_key)}`, "aria-hidden": "true" }), one.answer_key ?? "unread"),
    h("span", { class: `reward ${one.reward > 0 ? "good" : "none"}` }, reward, one.reward_reason ? ` (${one.reward_reason})` : ""),
    h("span", {}, "advantage ", h("b", {}, signed(one.advantage))),
    one.kl_penalty_nats === null ? null : h("span", {}, `KL ${num(one.kl_penalty_nats, 3)} nats`),
    h("span", { class: "soft" }, `${one.num_tokens} tokens${one.finish === "length" ? ", truncated" : ""}${one.trained ? "" : ", not trained on"}`),
  ];
  return h("article", { class: "completion", "aria-label": `Completion ${one.completion_index + 1}` },
    h("header", {}, h("span", { class: "soft number" }, one.completion_index + 1), facts),
    h("pre", SCROLLS, one.before, one.answer ? h("mark", { title: "the answer that was read" }, one.answer) : null, one.after));
}

function visitTable(visits, here, context) {
  if (visits.length < 2) return h("p", { class: "soft" }, "This is its only visit so far.");
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Visits to this prompt" }, h("table", {},
    h("thead", {}, h("tr", {}, ["step", "share", "", "label", "outcome"].map((name) => h("th", { scope: "col" }, name || h("span", { class: "unseen" }, "share as a bar"))))),
    h("tbody", {}, visits.map((one, at) => {
      const bar = h("i", { class: "c0" });
      bar.style.width = `${100 * one.share}%`;
      return h("tr", { class: `${at === here ? "here" : ""}${one.counts ? "" : " left-behind"}` },
        h("td", {}, h("a", { href: context.link(`group/${one.branch}/${one.step}/${one.index}`), "aria-current": at === here ? "true" : null }, place(one.branch, one.step))),
        h("td", { class: "figure" }, percent(one.share)), h("td", {}, h("span", { class: "share", "aria-hidden": "true" }, bar)),
        h("td", { class: "label" }, one.label ?? "–", one.flipped ? h("em", {}, "flipped") : null), h("td", {}, one.outcome === "decided" ? admissionWords(one.admission) : outcomeWords(one.outcome)));
    }))));
}
