// The groups of a run: search, filters, order; a line for each.
import { get } from "./api.js";
import { h, put, say } from "./dom.js";
import { admissionWords, outcomeWords, percent, plural, shortPlace } from "./format.js";

const FILTERS = [
  ["disagreement", "Disagreement", "the winner leads by less than a quarter of the votes"],
  ["flip", "Label flips", "the label differs from the last one of the same prompt"],
  ["unread", "Unread", "some completion has no readable answer"],
  ["undecided", "Undecided", "there is no label"],
  ["finding", "Guard findings", "the guard found something in that step"],
];
const ORDERS = [["newest", "newest first"], ["oldest", "oldest first"], ["margin", "closest votes first"], ["unread", "most unread first"], ["share", "largest share first"]];
const PAGE = 50;

export async function groupsTab(body, context, { query }) {
  const chosen = new Set((query.filters ?? "").split(",").filter(Boolean));
  let rows = [], total = 0, until = null, branches = 0, aborter = null, fresh = false;
  const search = h("input", { id: "search", type: "search", placeholder: "prompt, id or label", value: query.text ?? "", oninput: () => later() });
  const step = h("input", { id: "step", inputmode: "numeric", size: 6, placeholder: "all", value: query.step ?? "", oninput: () => later() });
  const order = h("select", { id: "order", onchange: () => apply() }, ORDERS.map(([name, words]) => h("option", { value: name, selected: query.order === name }, words)));
  const chips = FILTERS.map(([name, label, help]) =>
    h("button", { type: "button", class: "chip", id: `filter-${name}`, title: help, "aria-pressed": String(chosen.has(name)), onclick: (event) => { chosen.has(name) ? chosen.delete(name) : chosen.add(name); event.currentTarget.setAttribute("aria-pressed", String(chosen.has(name))); apply(); } }, label));
  const behind = h("input", { type: "checkbox", id: "rolled-back", checked: query.rolled_back === "1", onchange: () => apply() });
  const left = h("label", { class: "check", hidden: !context.run.branches.length }, behind, "with what was rolled back");
  const count = h("p", { class: "soft", id: "count", role: "status" });
  const list = h("div", { class: "lines", id: "lines" });
  const more = h("button", { type: "button", id: "more", onclick: () => load(false), hidden: true }, "Show more");
  const news = h("button", { type: "button", class: "quiet", id: "news", hidden: true, onclick: () => load(true) }, "New groups: show them");
  put(body,
    h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
      h("div", { class: "row" }, h("label", { for: "search" }, "Search"), search, h("label", { for: "step" }, "Step"), step, h("label", { for: "order" }, "Order"), order),
      h("div", { class: "row", role: "group", "aria-label": "Filters" }, chips, left)),
    h("div", { class: "row between" }, count, news), list, h("p", { class: "actions" }, more));

  let timer = 0;
  const later = () => { clearTimeout(timer); timer = setTimeout(apply, 180); };
  const isStep = () => /^\d{0,9}$/.test(step.value.trim());
  const fields = () => ({ text: search.value.trim(), step: isStep() ? step.value.trim() : "", rolled_back: behind.checked ? "1" : "", order: order.value === "newest" ? "" : order.value, filters: [...chosen].join(","), branch: step.value === query.step ? query.branch : undefined });
  const asked = () => Object.fromEntries(Object.entries(fields()).filter(([, value]) => value));

  /** Whether the step can be asked for; else the field and the line above the list say so. */
  function checkStep() {
    step.setAttribute("aria-invalid", String(!isStep()));
    if (!isStep()) put(count, `A step is a whole number, not ${step.value.trim()}.`);
    return isStep();
  }

  function apply() {
    if (!checkStep()) return undefined;
    context.listed = asked();
    history.replaceState(null, "", context.link("groups", context.listed));
    return load(true);
  }

  async function load(anew) {
    aborter?.abort();
    aborter = new AbortController();
    try {
      const found = await get("groups", { run: context.id, ...context.listed, until: anew ? null : until, offset: anew ? 0 : rows.length, limit: PAGE }, aborter.signal);
      if (!anew && found.branches !== branches) return load(true); // a rollback: other groups count now
      rows = anew ? found.rows : [...rows, ...found.rows];
      [total, until, branches] = [found.total, found.until, found.branches];
    } catch (error) {
      if (error.name === "AbortError") return;
      if (until === null) throw error; // there is no list yet that could be left standing
      say(error.message, "bad");
      return;
    }
    news.hidden = true;
    put(count, total ? `${plural(total, "group")}${rows.length < total ? `, the first ${rows.length} shown` : ""}` : "");
    more.hidden = rows.length >= total;
    if (anew) put(list, rows.length ? null : h("p", { class: "soft empty" }, context.run.steps_done ? "No group fits." : "No group is recorded yet."));
    if (rows.length) {
      if (anew) list.append(head());
      for (const row of rows.slice(anew ? 0 : list.querySelectorAll("[data-line]").length)) list.append(line(row, context));
    }
  }

  context.listed = asked();
  await load(true);
  checkStep();
  return {
    update(change) {
      left.hidden = !context.run.branches.length;
      if (!change.steps.length) return;
      fresh = !search.value && !chosen.size && !step.value && order.value === "newest" && rows.length <= PAGE && !list.contains(document.activeElement) && scrollY < 200;
      if (fresh) load(true);
      else news.hidden = false;
    },
    reload: () => load(true),
    stop() { aborter?.abort(); clearTimeout(timer); },
  };
}

const head = () => h("div", { class: "line names", "aria-hidden": "true" }, ["step", "prompt", "vote", "label", "outcome"].map((name) => h("span", {}, name)));

export function line(row, context) {
  const flags = [row.flipped && "flipped", row.num_read < row.num_votes && `${row.num_votes - row.num_read} unread`, row.margin < 0.25 && row.num_keys > 1 && "close"].filter(Boolean);
  return h(
    "a", { class: `line${row.counts === false ? " left-behind" : ""}`, "data-line": `${row.branch}.${row.step}.${row.index}`, href: context.link(`group/${row.branch}/${row.step}/${row.index}`) },
    h("span", { class: "when" }, shortPlace(row.branch, row.step)),
    h("span", { class: "prompt" }, row.prompt),
    h("span", { class: "vote" }, shareBar(row), h("span", { class: "figure" }, percent(row.share))),
    h("span", { class: "label" }, row.label ?? "–"),
    h("span", { class: "outcome" }, row.outcome === "decided" ? admissionWords(row.admission) : outcomeWords(row.outcome), flags.map((flag) => h("em", {}, flag))),
  );
}

function shareBar(row) {
  const winner = h("i", { class: "c0" }), unread = h("i", { class: "unread" });
  winner.style.width = `${100 * row.share}%`;
  unread.style.width = `${(100 * (row.num_votes - row.num_read)) / Math.max(1, row.num_votes)}%`;
  return h("span", { class: "share", "aria-hidden": "true" }, winner, h("i", { class: "rest" }), unread);
}
